/**
 * The in-memory twin of an engine: the real machine on a clock that is handed in, with faults to order.
 *
 * Intuition: a flight simulator with the real cockpit. Transactions, revisions, sessions and watches are those of the
 * embedded engine, since they come from the same machine; weather is added as the lesson needs it.
 *
 * One `LocalEngine` is one client process with sessions of its own; `twin()` is another one on the same store.
 * Nothing is durable and nobody agrees with anybody. For tests of recipes and of programs that use them.
 */
import { conclaveError } from "../base/errors.ts";
import { onAbort, raceSignal } from "../base/link-signal.ts";
import type { Platform } from "../base/ports.ts";
import { type Caps, embeddedLimits, type Limits } from "../store/caps.ts";
import { checkTtl } from "../store/command.ts";
import { namespacePrefix, wholeRange } from "../store/key.ts";
import { findNamespaces, keysTxn } from "../store/namespaces.ts";
import { decodeOutcome, encodeOutcome, type Outcome, outcomeError } from "../store/outcome.ts";
import { resolveTxn } from "../store/resolve.ts";
import { checkMaxStall } from "../store/stall.ts";
import type {
  CallOptions,
  Engine,
  KeyRange,
  NamespacesOptions,
  Session,
  SessionId,
  SessionOptions,
  Store,
  Txn,
  TxnResult,
  WatchBatch,
  WatchOptions,
} from "../store/store.ts";
import type { LocalFaults } from "./local-faults.ts";
import { LocalServer } from "./local-server.ts";
import { LocalSession } from "./local-session.ts";
import { LocalWatch } from "./local-watch.ts";

export interface LocalEngineOptions {
  readonly platform: Platform;
  /** Default: those of the embedded engine. */
  readonly limits?: Partial<Limits>;
  /** Default: all goes well. Each client has its own. */
  readonly faults?: LocalFaults;
  /** `level`: watches tell states only, as on engines that can do no more. Default `log`. */
  readonly watch?: "log" | "level";
}

/** @since 0.1.0 */
export const localDefaults = { ttlMs: 15_000, timeoutMs: 10_000 } as const;

/** @since 0.1.0 */
export class LocalEngine implements Engine {
  readonly caps: Caps;
  readonly platform: Platform;
  readonly #server: LocalServer;
  readonly #faults: LocalFaults;
  readonly #options: LocalEngineOptions;
  readonly #stores = new Map<string, LocalStore>();
  readonly #sessions = new Set<LocalSession>();
  readonly #sharedSessions = new Map<number, Promise<LocalSession>>();
  readonly #watches = new Set<LocalWatch>();
  /** Ends each call that waits for its answer. */
  readonly #waiting = new Set<() => void>();
  #isClosed = false;
  #isCutOff = false;
  #txnCount = 0;

  constructor(options: LocalEngineOptions, server?: LocalServer) {
    const limits = { ...embeddedLimits, ...options.limits };
    this.#options = options;
    this.platform = options.platform;
    this.#faults = options.faults ?? {};
    this.#server = server ?? new LocalServer({ platform: options.platform, limits });
    this.caps = capsOf({ limits, watch: options.watch ?? "log" });
  }

  /** Another client process of the same store. */
  twin(options: Partial<Omit<LocalEngineOptions, "limits" | "platform">> = {}): LocalEngine {
    return new LocalEngine({ ...this.#options, ...options }, this.#server);
  }

  store(namespace: string): Store {
    let store = this.#stores.get(namespace);
    if (store === undefined) {
      namespacePrefix(namespace);
      store = new LocalStore(this, namespace);
      this.#stores.set(namespace, store);
    }
    return store;
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await Promise.all([...this.#sessions].map((session) => session.close()));
    for (const watch of this.#watches) watch.end();
    for (const end of [...this.#waiting]) end();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** From now on no call is answered, no keep-alive confirmed and no change told, until `heal`. */
  cutOff(): void {
    this.#isCutOff = true;
  }

  heal(): void {
    this.#isCutOff = false;
    for (const watch of this.#watches) watch.heal();
  }

  /** The store ends the session at this moment, before its time: what only an operator, or a wrong clock, can do. */
  expireSession(id: SessionId): void {
    this.#server.expireSession(Number(id));
  }

  /** Transactions sent by this client so far: what a test of round trips counts. */
  get txnCount(): number {
    return this.#txnCount;
  }

  namespaces(options: NamespacesOptions = {}): Promise<readonly string[]> {
    return findNamespaces(options, async (range, limit) => {
      const outcome = await this.#ask(options, (answer) => answer(this.#server.txn(keysTxn(range, limit))));
      const [listed] = outcome.kind === "txn" ? outcome.result.results : [];
      if (listed?.kind !== "range") throw unexpected(outcome);
      return listed.entries.map(({ binaryKey }) => binaryKey);
    });
  }

  /** For `LocalStore`. */
  async txn(namespace: string, txn: Txn, options: CallOptions): Promise<TxnResult> {
    const resolved = resolveTxn(namespace, txn, this.caps.limits);
    this.#txnCount++;
    const fault = this.#faults.call?.({ namespace, txn });
    if (fault?.kind === "refuse") throw conclaveError("NOT_LEADER", "Refused, as ordered.");
    const outcome = await this.#ask(options, (answer) => {
      switch (fault?.kind) {
        case "lose-request":
          return;
        case "late":
          return void this.platform.setTimer(fault.delayMs, () => this.#server.txn(resolved));
        case "lose-answer":
          return void this.#server.txn(resolved);
        case undefined:
          answer(this.#server.txn(resolved));
      }
    });
    // Over the bytes, as from a real server: keys lose their namespaces, and nothing is shared.
    const told = decodeOutcome(encodeOutcome(outcome));
    if (told.kind !== "txn") throw unexpected(told);
    return told.result;
  }

  /** For `LocalStore`. */
  async session({ ttlMs = localDefaults.ttlMs, maxStallMs, ...options }: SessionOptions): Promise<LocalSession> {
    checkTtl(ttlMs, this.caps.limits);
    checkMaxStall(maxStallMs, this.caps);
    const askedMs = this.platform.now();
    const outcome = await this.#ask(options, (answer) => answer(this.#server.openSession(ttlMs)));
    if (outcome.kind !== "opened") throw unexpected(outcome);
    const id = outcome.session;
    const session = new LocalSession({
      id,
      ttlMs,
      platform: this.platform,
      askedMs,
      keepAlive: () => this.#trip<boolean>((answer) => answer(this.#server.keepAlive(Number(id)))),
      end: () => this.#endSession(Number(id)),
    });
    this.#sessions.add(session);
    session.lost.addEventListener("abort", () => this.#sessions.delete(session), { once: true });
    return session;
  }

  /** For `LocalStore`. */
  async sharedSession({ ttlMs = localDefaults.ttlMs, maxStallMs, signal }: SessionOptions): Promise<LocalSession> {
    checkMaxStall(maxStallMs, this.caps);
    for (;;) {
      // The caller's signal ends the caller's wait, not the opening that others share.
      const opening = this.#sharedSessions.get(ttlMs) ?? this.session({ ttlMs });
      this.#sharedSessions.set(ttlMs, opening);
      const session = await raceSignal(opening, signal).catch((error: unknown) => {
        if (!signal?.aborted) this.#forget(ttlMs, opening);
        throw error;
      });
      if (session.alive) return session;
      this.#forget(ttlMs, opening);
    }
  }

  /** Unless somebody has opened the next one already. */
  #forget(ttlMs: number, opening: Promise<LocalSession>): void {
    if (this.#sharedSessions.get(ttlMs) === opening) this.#sharedSessions.delete(ttlMs);
  }

  /** For `LocalStore`. */
  watch(namespace: string, range: KeyRange, { from, signal }: WatchOptions): AsyncIterable<WatchBatch> {
    if (this.#isClosed) throw closed();
    const watch = new LocalWatch({
      machine: this.#server.machine,
      platform: this.platform,
      range: wholeRange(namespacePrefix(namespace), range, this.caps.limits),
      from,
      signal,
      faults: this.#faults,
      level: this.caps.watch === "level",
      isCutOff: () => this.#isCutOff,
      onEnd: (ended) => this.#watches.delete(ended),
    });
    if (!watch.isOver) this.#watches.add(watch);
    return watch;
  }

  /** Nobody waits for a store that is cut off: it lets go by itself. */
  #endSession(session: number): Promise<void> {
    if (this.#isCutOff) return Promise.resolve();
    return this.#trip<void>((answer) => answer(this.#server.closeSession(session)));
  }

  /** There and back, for as long as the caller waits. */
  #ask(options: CallOptions, act: (answer: (outcome: Outcome) => void) => void): Promise<Outcome> {
    const { signal, timeoutMs = localDefaults.timeoutMs } = options;
    return new Promise((resolve, reject) => {
      const end = (settle: () => void): void => {
        timer.cancel();
        unfollow();
        this.#waiting.delete(onClosed);
        settle();
      };
      let unfollow = (): void => undefined;
      const onClosed = (): void => end(() => reject(closed()));
      const onTimeout = (): void => end(() => reject(conclaveError("TIMEOUT", `No answer within ${timeoutMs} ms.`)));
      const timer = this.platform.setTimer(timeoutMs, onTimeout, { ref: true });
      if (this.#isClosed) return onClosed();
      if (signal?.aborted) return end(() => reject(signal.reason));
      if (signal !== undefined) unfollow = onAbort(signal, () => end(() => reject(signal.reason)));
      this.#waiting.add(onClosed);
      this.#trip(act).then((outcome) => end(() => resolve(outcome)), reject);
    });
  }

  /** There and back. Never settles when something is lost on the way. */
  #trip<T>(act: (answer: (value: T) => void) => void): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#after(() => {
        try {
          act((value) => this.#after(() => resolve(value)));
        } catch (error) {
          reject(error);
        }
      });
    });
  }

  #after(act: () => void): void {
    if (this.#isCutOff) return;
    const delayMs = this.#faults.latencyMs?.() ?? 0;
    const arrive = (): void => {
      if (!this.#isCutOff) act();
    };
    if (delayMs === 0) arrive();
    else this.platform.setTimer(delayMs, arrive);
  }
}

class LocalStore implements Store {
  readonly namespace: string;
  readonly #engine: LocalEngine;

  constructor(engine: LocalEngine, namespace: string) {
    this.#engine = engine;
    this.namespace = namespace;
  }

  get caps(): Caps {
    return this.#engine.caps;
  }

  get platform(): Platform {
    return this.#engine.platform;
  }

  txn(txn: Txn, options: CallOptions = {}): Promise<TxnResult> {
    return this.#engine.txn(this.namespace, txn, options);
  }

  session(options: SessionOptions = {}): Promise<Session> {
    return this.#engine.session(options);
  }

  sharedSession(options: SessionOptions = {}): Promise<Session> {
    return this.#engine.sharedSession(options);
  }

  watch(range: KeyRange, options: WatchOptions = {}): AsyncIterable<WatchBatch> {
    return this.#engine.watch(options.namespace ?? this.namespace, range, options);
  }
}

function capsOf({ limits, watch }: { readonly limits: Limits; readonly watch: "log" | "level" }): Caps {
  return {
    engine: "local",
    linearizable: "always",
    durability: "memory",
    watch,
    handOff: "client-push",
    clock: "The platform that was handed in judges leases; a jump of it ends them.",
    fair: true,
    crossNamespace: true,
    claims: true,
    olderReads: true,
    tokenSurvives: [],
    limits,
  };
}

function closed(): Error {
  return conclaveError("CLOSED", "This engine was closed.");
}

function unexpected(outcome: Outcome): Error {
  return outcome.kind === "error"
    ? outcomeError(outcome)
    : conclaveError("INVARIANT", `The machine answered with ${outcome.kind}.`);
}
