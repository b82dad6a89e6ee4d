/**
 * A lock: one holder at a time, in the order of asking, among all processes that share the store.
 *
 * One round trip when it is free, none between a release and the next holder where the engine pushes; see
 * `queue-place.ts` for the steps. Each lock has a namespace of its own, so any number of them never meet.
 *
 * What it promises: while `hold.held` is true nobody else's is, provided that the clocks of client and store run at
 * rates within a third of each other and the engine keeps what it has answered (`caps.linearizable`).
 * What no lock can promise: that a write sent while it was held arrives while it is. Use `hold.token` or `hold.guard()`.
 * Leaves out re-entrancy: in a runtime of callbacks "the same caller" means nothing.
 */
import { assert } from "../base/assert.ts";
import { conclaveError } from "../base/errors.ts";
import type { ConclaveEvent } from "../base/event.ts";
import type { Telemetry } from "../base/ports.ts";
import type { CallOptions, Store } from "../store/store.ts";
import { type CampaignOptions, type Contender, campaign, campaignAtOnce, contenderOf, lockTimeout } from "./campaign.ts";
import type { Hold } from "./hold.ts";
import { encodeMetadata } from "./metadata.ts";
import { checkName, checkTtlMs, checkWaitMs, type StoreSource } from "./options.ts";
import { exclusiveLine, queueOf, wholeQueue } from "./queue-place.ts";

export interface LockOptions {
  /**
   * How long the holder may be silent before the lock passes on. Milliseconds, 1_000-600_000. Default 15_000.
   * Shorter frees the lock sooner after a crash; longer survives longer pauses (GC, swap) without losing it.
   * Locks of one process with the same value share one session. Renewed at a third of it, lost at two thirds.
   */
  readonly ttlMs?: number;
  /** What the others read about a holder or waiter: anything that JSON can carry. Default: nothing. */
  readonly meta?: unknown;
  /** Hears `hold.granted` and `hold.lost`. */
  readonly telemetry?: Telemetry<ConclaveEvent>;
}

export interface AcquireOptions {
  /**
   * How long to wait in the queue. Milliseconds, or Infinity. Default 60_000. 0 takes it only when it is free.
   * The refusal may come up to a second later: it asks who holds.
   */
  readonly waitMs?: number;
  /** Ends the wait; the place in the queue is given up in the background. Does nothing to a lock that is held. */
  readonly signal?: AbortSignal;
  /** Overrides that of the lock. */
  readonly meta?: unknown;
}

/** @since 0.1.0 */
export const lockDefaults = { ttlMs: 15_000, waitMs: 60_000 } as const;

const lockQueue = queueOf(exclusiveLine);
/** How long `tryAcquire` waits for the store's answer. */
const answerMs = 10_000;

/**
 * Makes the handle of a lock; nothing is sent.
 *
 * ```ts
 * const lock = createLock(engine, "invoice:42");
 * await lock.run(async (hold) => {
 *   await database.write(invoice, { fencingToken: hold.token, signal: hold.signal });
 * });
 * ```
 * @param name Any text without U+0000; `/` and emoji are plain letters.
 * @throws INVALID_OPTION
 * @since 0.1.0
 */
export function createLock(engine: StoreSource, name: string, options: LockOptions = {}): Lock {
  checkName(name, "lock");
  const store = engine.store(`lock/${name}`);
  const ttlMs = options.ttlMs ?? lockDefaults.ttlMs;
  checkTtlMs(ttlMs, store.caps.limits, store.caps.engine);
  encodeMetadata(options.meta, "meta");
  return new Lock(store, { ...options, name, ttlMs });
}

/** @since 0.1.0 */
export class Lock {
  readonly name: string;
  readonly ttlMs: number;
  readonly #store: Store;
  readonly #options: LockOptions;

  /** Use `createLock`, which checks the options. */
  constructor(store: Store, options: LockOptions & { readonly name: string; readonly ttlMs: number }) {
    this.name = options.name;
    this.ttlMs = options.ttlMs;
    this.#store = store;
    this.#options = options;
  }

  /**
   * Waits for the lock. One round trip when it is free.
   * @throws LOCK_TIMEOUT (a `LockTimeout`: with the holder, the position and the time waited), INVALID_OPTION,
   * SESSION_LOST (the wait ended with the session; ask again), LOCK_LOST (an operator deleted the place in the queue)
   */
  async acquire(options: AcquireOptions = {}): Promise<Hold> {
    const waitMs = options.waitMs ?? lockDefaults.waitMs;
    checkWaitMs(waitMs);
    if (waitMs > 0) return (await campaign(this.#campaign(options, waitMs))).hold;
    const outcome = await campaignAtOnce(this.#campaign(options, answerMs));
    if (outcome.hold !== null) return outcome.hold;
    throw lockTimeout(this.#title(), { holder: outcome.holder, position: 1, waitedMs: 0 });
  }

  /** The lock if it is free, else null. One round trip; never joins the queue. */
  async tryAcquire(options: Omit<AcquireOptions, "waitMs"> = {}): Promise<Hold | null> {
    return (await campaignAtOnce(this.#campaign(options, answerMs))).hold;
  }

  /**
   * Acquires, calls, releases; answers with what the function answers, or rejects with what it throws.
   * `hold.signal` aborts when the lock is lost on the way. Then `run` rejects, even where the function succeeded: its
   * work may have overlapped with another holder's.
   * @throws LOCK_LOST, whose `cause` is what the function threw, if it threw
   */
  async run<T>(work: (hold: Hold) => T | Promise<T>, options: AcquireOptions = {}): Promise<T> {
    const hold = await this.acquire(options);
    let outcome: { readonly kind: "answer"; readonly answer: T } | { readonly kind: "error"; readonly error: unknown };
    try {
      outcome = { kind: "answer", answer: await work(hold) };
    } catch (error) {
      outcome = { kind: "error", error };
    }
    const { loss } = hold;
    await hold.release();
    if (loss !== null) {
      const cause = outcome.kind === "error" ? outcome.error : loss;
      throw conclaveError("LOCK_LOST", `${this.#title()} was lost while the work ran.`, { cause });
    }
    if (outcome.kind === "error") throw outcome.error;
    return outcome.answer;
  }

  /** Who holds it now; null when nobody does. */
  async holder(options: CallOptions = {}): Promise<Contender | null> {
    return (await this.queue({ ...options, limit: 1 }))[0] ?? null;
  }

  /** The holder and the waiters, in order. `limit`: how many at most. Default 100. */
  async queue({ limit = 100, ...options }: CallOptions & { readonly limit?: number } = {}): Promise<readonly Contender[]> {
    const { results } = await this.#store.txn({ then: [{ kind: "range", range: wholeQueue, order: "create", limit }] }, options);
    const [listed] = results;
    assert(listed?.kind === "range", "a range is answered with entries");
    return listed.entries.map(contenderOf);
  }

  #campaign({ signal, meta }: AcquireOptions, waitMs: number): CampaignOptions {
    const value = encodeMetadata(meta ?? this.#options.meta, "meta");
    const { telemetry } = this.#options;
    return {
      store: this.#store,
      queue: lockQueue,
      ttlMs: this.ttlMs,
      value,
      name: this.name,
      title: this.#title(),
      waitMs,
      signal,
      telemetry,
    };
  }

  #title(): string {
    return `Lock ${JSON.stringify(this.name)}`;
  }
}
