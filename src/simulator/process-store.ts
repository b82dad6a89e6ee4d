/**
 * A store as one process of the simulated world sees it: calls travel, get lost, come late, and wait while the process sleeps.
 *
 * The machine behind it is the real one, and so is the client's half of a session. A request that has left goes on without its
 * sender: it may be executed after its sender died, or long after it gave up. That is what decisions must stand.
 */
import { conclaveError } from "../base/errors.ts";
import type { Platform } from "../base/ports.ts";
import { type Caps, embeddedLimits } from "../store/caps.ts";
import { namespacePrefix, wholeRange } from "../store/key.ts";
import { decodeOutcome, encodeOutcome, outcomeError } from "../store/outcome.ts";
import { resolveTxn } from "../store/resolve.ts";
import type {
  CallOptions,
  KeyRange,
  Session,
  SessionOptions,
  Store,
  Txn,
  TxnResult,
  WatchBatch,
  WatchOptions,
} from "../store/store.ts";
import type { LocalServer } from "../testing/local-server.ts";
import { LocalSession } from "../testing/local-session.ts";
import { LocalWatch } from "../testing/local-watch.ts";
import type { EventQueue } from "./event-queue.ts";
import type { Random } from "./random.ts";
import type { SimulatedProcess } from "./simulated-process.ts";

export interface ProcessStoreParts {
  readonly server: LocalServer;
  readonly namespace: string;
  readonly process: SimulatedProcess;
  readonly queue: EventQueue;
  readonly random: Random;
  readonly isCalm: () => boolean;
  /** Each transaction that the machine executed, and whether its conditions held. */
  readonly onApplied: (txn: Txn, succeeded: boolean) => void;
}

export class ProcessStore implements Store {
  static readonly limits = embeddedLimits;
  readonly namespace: string;
  readonly caps: Caps = {
    engine: "simulated",
    linearizable: "always",
    durability: "memory",
    watch: "log",
    handOff: "server",
    clock: "virtual",
    fair: true,
    crossNamespace: true,
    claims: false,
    olderReads: true,
    tokenSurvives: [],
    limits: embeddedLimits,
  };
  readonly #parts: ProcessStoreParts;
  #cutUntilMs = 0;

  constructor(parts: ProcessStoreParts) {
    this.#parts = parts;
    this.namespace = parts.namespace;
  }

  get platform(): Platform {
    return this.#parts.process.platform;
  }

  cutOff(durationMs: number): void {
    this.#cutUntilMs = this.#parts.queue.nowMs + durationMs;
  }

  heal(): void {
    this.#cutUntilMs = 0;
  }

  async txn(txn: Txn, { signal, timeoutMs = 10_000 }: CallOptions = {}): Promise<TxnResult> {
    signal?.throwIfAborted();
    const { server, onApplied } = this.#parts;
    const resolved = resolveTxn(this.namespace, txn, this.caps.limits);
    const told = await this.#call({ signal, timeoutMs }, () => {
      const outcome = decodeOutcome(encodeOutcome(server.txn(resolved)));
      if (outcome.kind === "txn") onApplied(txn, outcome.result.succeeded);
      return outcome;
    });
    if (told.kind === "error") throw outcomeError(told);
    if (told.kind !== "txn") throw new Error(`a txn was answered with ${told.kind}`);
    return told.result;
  }

  async session({ ttlMs = 15_000, signal, timeoutMs = 10_000 }: SessionOptions = {}): Promise<Session> {
    const { server } = this.#parts;
    const askedMs = this.platform.now();
    const outcome = await this.#call({ signal, timeoutMs }, () => server.openSession(ttlMs));
    if (outcome.kind !== "opened") throw new Error(`a session was answered with ${outcome.kind}`);
    const id = outcome.session;
    return new LocalSession({
      id,
      ttlMs,
      platform: this.platform,
      askedMs,
      // Never settles while nobody answers, as the interface says.
      keepAlive: () => this.#travel(() => server.keepAlive(Number(id))),
      end: () => this.#travel(() => server.closeSession(Number(id))),
    });
  }

  sharedSession(options?: SessionOptions): Promise<Session> {
    return this.session(options);
  }

  watch(range: KeyRange, { from, signal }: WatchOptions = {}): AsyncIterable<WatchBatch> {
    const { server, queue, random } = this.#parts;
    return new LocalWatch({
      machine: server.machine,
      platform: this.platform,
      range: wholeRange(namespacePrefix(this.namespace), range, this.caps.limits),
      from,
      signal,
      faults: { latencyMs: () => random.between(0.2, 5) },
      level: false,
      isCutOff: () => this.#cutUntilMs > queue.nowMs,
      onEnd: () => undefined,
    });
  }

  #call<T>(
    { signal, timeoutMs }: { readonly signal: AbortSignal | undefined; readonly timeoutMs: number },
    act: () => T,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      const end = (settle: () => void): void => {
        timer.cancel();
        signal?.removeEventListener("abort", onAbort);
        settle();
      };
      const onAbort = (): void => end(() => reject(signal?.reason));
      const timer = this.platform.setTimer(timeoutMs, () =>
        end(() => reject(conclaveError("TIMEOUT", `No answer within ${timeoutMs} ms.`))),
      );
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#travel(act).then(
        (value) => end(() => resolve(value)),
        (error: unknown) => end(() => reject(error)),
      );
    });
  }

  /** There and back. The way there does not need the sender any more; the way back waits until it is awake. */
  #travel<T>(act: () => T): Promise<T> {
    const { queue, process, random, isCalm } = this.#parts;
    const isCut = (): boolean => this.#cutUntilMs > queue.nowMs;
    const delayMs = (): number => {
      if (isCalm()) return random.between(0.2, 2);
      // Most are quick; a few are stuck in a queue somewhere, for longer than anybody waits.
      return random.chance(0.02) ? random.between(1_000, 9_000) : random.between(0.2, 20);
    };
    return new Promise((resolve, reject) => {
      if (!process.isAlive || isCut() || (!isCalm() && random.chance(0.02))) return;
      queue.schedule(delayMs(), () => {
        let settle: () => void;
        try {
          const value = act();
          settle = () => resolve(value);
        } catch (error) {
          settle = () => reject(error);
        }
        if (isCut() || (!isCalm() && random.chance(0.02))) return;
        queue.schedule(delayMs(), () => process.run(settle));
      });
    });
  }
}
