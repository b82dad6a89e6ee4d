/**
 * The relay: takes events from an outbox to a sink, in one process at a time, and goes on where the last one stopped.
 *
 * A lock of the store says who relays; its token goes with every batch, so that a sink which compares it refuses a relay that
 * slept through its time. Who dies after the sink took a batch and before it was deleted is followed by somebody who offers the
 * batch again. A sink that refuses stops its outbox until it takes: events are not skipped, and `figures.lagMs` grows.
 */
import { background } from "../base/background.ts";
import { conclaveError } from "../base/errors.ts";
import { linkSignal } from "../base/link-signal.ts";
import { Bell } from "../recipes/bell.ts";
import { createLock } from "../recipes/lock.ts";
import type { Compare, Engine } from "../store/store.ts";
import type { Outbox } from "./outbox.ts";
import type { Sink } from "./outbox-sinks.ts";

export interface OutboxRelayOptions {
  // biome-ignore lint/suspicious/noExplicitAny: no handle is used here.
  readonly outbox: Outbox<any>;
  readonly sink: Sink;
  /** Says who relays. */
  readonly store: Engine;
  /** How long a relay may be silent before another one takes over. Milliseconds. Default 5_000. */
  readonly ttlMs?: number;
  /** How often it looks when nothing was there and nobody called `wake`. Milliseconds. Default 250. */
  readonly pollMs?: number;
  /** Events of one batch. Default 100, at most 1_000. */
  readonly batchMax?: number;
  /** Told when a round fails; it goes on with the next. Default: nobody. */
  readonly onError?: (error: unknown) => void;
  /** Called at each step; what it returns is awaited. For tests: production leaves it out. */
  readonly checkpoint?: (step: RelayCheckpoint) => void | Promise<void>;
}

export type RelayCheckpoint = "relay-read" | "relay-published" | "relay-removed";

/** @since 0.2.0 */
export const relayDefaults = { ttlMs: 5_000, pollMs: 250, batchMax: 100 } as const;

export interface RelayFigures {
  /** Of this process. An event that is offered twice counts twice. */
  readonly published: number;
  readonly failures: number;
  /** Whether this process relays now. */
  readonly isRelaying: boolean;
  /** How old the first waiting event was at the last look. Milliseconds, by two clocks; 0: nothing waited. */
  readonly lagMs: number;
}

const retryMsMin = 100;
const retryMsMax = 30_000;

/** Relays from now on, in whichever of the processes that call it has the lock. @throws INVALID_OPTION @since 0.2.0 */
export function relayOutbox(options: OutboxRelayOptions): OutboxRelay {
  const { batchMax = relayDefaults.batchMax, pollMs = relayDefaults.pollMs } = options;
  if (!(batchMax >= 1 && batchMax <= 1_000)) throw conclaveError("INVALID_OPTION", `\`batchMax\` is ${batchMax}; 1 to 1_000.`);
  if (!(pollMs >= 10)) throw conclaveError("INVALID_OPTION", `\`pollMs\` is ${pollMs}; 10 at least.`);
  return new OutboxRelay(options);
}

export class OutboxRelay implements AsyncDisposable {
  readonly #options: OutboxRelayOptions;
  readonly #life = linkSignal(undefined);
  readonly #bell = new Bell<void>();
  readonly #done: Promise<void>;
  #figures = { published: 0, failures: 0, isRelaying: false, lagMs: 0 };

  /** Use `relayOutbox`, which checks the options. */
  constructor(options: OutboxRelayOptions) {
    this.#options = options;
    this.#done = this.#run();
    background(this.#done, `relay of outbox ${options.outbox.name}`);
  }

  get figures(): RelayFigures {
    return this.#figures;
  }

  /** Something was committed: look now. */
  wake(): void {
    this.#bell.ring();
  }

  /** Resolves once the round under way has ended and the lock is free. Idempotent. */
  async close(): Promise<void> {
    this.#life.abort();
    await this.#done;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #run(): Promise<void> {
    const { store, outbox, ttlMs = relayDefaults.ttlMs } = this.#options;
    const lock = createLock(store, `outbox/${outbox.name}`, { ttlMs });
    const { signal } = this.#life;
    while (!signal.aborted) {
      try {
        const hold = await lock.acquire({ signal, waitMs: Number.POSITIVE_INFINITY });
        this.#figures = { ...this.#figures, isRelaying: true };
        try {
          await this.#relay({ token: hold.token, guard: hold.guard(), lost: hold.signal, isHeld: () => hold.held });
        } finally {
          this.#figures = { ...this.#figures, isRelaying: false };
          await hold.release();
        }
      } catch (error) {
        if (signal.aborted) return;
        this.#options.onError?.(error);
        await this.#pause(retryMsMin);
      }
    }
  }

  /** Until the hold is lost or the relay is closed. */
  async #relay(hold: RelayHold): Promise<void> {
    const { pollMs = relayDefaults.pollMs, batchMax = relayDefaults.batchMax } = this.#options;
    let retryMs: number = retryMsMin;
    while (!this.#life.signal.aborted && hold.isHeld()) {
      try {
        const count = await this.#round(hold, batchMax);
        retryMs = retryMsMin;
        if (count < batchMax) await this.#pause(pollMs);
      } catch (error) {
        if (this.#life.signal.aborted || !hold.isHeld()) return;
        this.#figures = { ...this.#figures, failures: this.#figures.failures + 1 };
        this.#options.onError?.(error);
        await this.#pause(retryMs);
        retryMs = Math.min(retryMs * 2, retryMsMax);
      }
    }
  }

  async #round({ token, guard, lost, isHeld }: RelayHold, batchMax: number): Promise<number> {
    const { outbox, sink, checkpoint } = this.#options;
    const events = await outbox.read(batchMax);
    const [first] = events;
    this.#figures = { ...this.#figures, lagMs: first === undefined ? 0 : Math.max(0, Date.now() - first.atMs) };
    if (first === undefined) return 0;
    await checkpoint?.("relay-read");
    // Between the read and here it may have slept: by its own clock, before anything is sent.
    if (!isHeld()) return 0;
    await sink.publish(events, { outbox: outbox.name, token, signal: lost });
    await checkpoint?.("relay-published");
    await outbox.remove(events, guard);
    await checkpoint?.("relay-removed");
    this.#figures = { ...this.#figures, published: this.#figures.published + events.length };
    return events.length;
  }

  async #pause(ms: number): Promise<void> {
    const { signal } = this.#life;
    const { platform } = this.#options.store.store("outbox");
    await this.#bell.wait({ platform, timeoutMs: ms, signal, ref: false }).catch(ignoreClosing);
  }
}

interface RelayHold {
  readonly token: number;
  readonly guard: Compare;
  readonly lost: AbortSignal;
  readonly isHeld: () => boolean;
}

function ignoreClosing(): void {
  // Whoever waits looks at the signal.
}
