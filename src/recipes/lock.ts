/**
 * A lock: one holder at a time, in the order of asking, among all processes that share the store.
 *
 * One round trip when it is free, none between a release and the next holder where the engine pushes; see
 * `queue-place.ts` for the steps. Each lock has a namespace of its own, so any number of them never meet.
 *
 * What it promises: while `hold.held` is true nobody else's is, provided that the clocks of client and store run at
 * rates within a third of each other and the engine keeps what it has answered (`caps.linearizable`).
 * What no lock can promise: that a write sent while it was held arrives while it is. Use `hold.token` or `hold.guard()`.
 * Re-entrancy, lock-delay and barging are for those who ask: `reentrancy.ts`, `lock-delay.ts`, `barging.ts`.
 */
import { assert } from "../base/assert.ts";
import { conclaveError } from "../base/errors.ts";
import { linkSignal } from "../base/link-signal.ts";
import { checkMaxStall } from "../store/stall.ts";
import type { CallOptions, Store } from "../store/store.ts";
import { Acquirable, type AcquirableParts, type LockOptions, lockDefaults } from "./acquirable.ts";
import { type Contender, contenderOf } from "./campaign.ts";
import { LockDelay } from "./lock-delay.ts";
import { encodeMetadata } from "./metadata.ts";
import { observeRange } from "./observe.ts";
import { checkHoldTimes, checkName, checkTtlMs, type StoreSource } from "./options.ts";
import { exclusiveLine, queueOf, wholeQueue } from "./queue-place.ts";
import { Reentrancy } from "./reentrancy.ts";
import { askToYield, revocationsOf } from "./revocation.ts";

export { type AcquireOptions, type LockOptions, lockDefaults } from "./acquirable.ts";

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
  return new Lock(lockParts(engine, name, options));
}

/** What a lock of this name is made of. @throws INVALID_OPTION */
export function lockParts(engine: StoreSource, name: string, options: LockOptions): AcquirableParts {
  checkName(name, "lock");
  const store = engine.store(`lock/${name}`);
  const ttlMs = options.ttlMs ?? lockDefaults.ttlMs;
  checkTtlMs(ttlMs, store.caps.limits, store.caps.engine);
  checkHoldTimes(options);
  checkMaxStall(options.maxStallMs, store.caps);
  encodeMetadata(options.meta, "meta");
  const title = `Lock ${JSON.stringify(name)}`;
  const { delay, reentrancy } = turnsOf(engine, { store, title, options });
  const revocations = revocationsOf(engine, store);
  // One literal, field by field: an object that is spread into costs an uncontended lock half of its time.
  const { fairness, maxHoldMs, maxStallMs, meta, minHoldMs, telemetry } = options;
  const queue = lockQueue;
  return {
    name,
    title,
    store,
    queue,
    revocations,
    delay,
    reentrancy,
    ttlMs,
    maxStallMs,
    maxHoldMs,
    minHoldMs,
    fairness,
    meta,
    telemetry,
  };
}

const lockQueue = queueOf(exclusiveLine);

/** What the options on turns ask for. @throws INVALID_OPTION, UNSUPPORTED */
export function turnsOf(
  engine: StoreSource,
  { store, title, options }: { readonly store: Store; readonly title: string; readonly options: LockOptions },
): Pick<AcquirableParts, "delay" | "reentrancy"> {
  const { fairness = "fifo", lockDelayMs = 0, reentrant = false } = options;
  if (fairness !== "fifo" && fairness !== "barging") {
    throw conclaveError("INVALID_OPTION", `\`fairness\` is ${JSON.stringify(fairness)}; it must be "fifo" or "barging".`);
  }
  if (!(lockDelayMs >= 0 && lockDelayMs <= lockDelayMsMax)) {
    throw conclaveError("INVALID_OPTION", `\`lockDelayMs\` is ${lockDelayMs}; it must be from 0 to ${lockDelayMsMax}.`);
  }
  return {
    delay: lockDelayMs === 0 ? undefined : new LockDelay(engine, { queue: store, delayMs: lockDelayMs }),
    reentrancy: reentrant ? new Reentrancy({ engine, title, platform: store.platform }) : undefined,
  };
}

/** Longer than any lease. */
const lockDelayMsMax = 600_000;

/** @since 0.1.0 */
export class Lock extends Acquirable {
  /** Who holds it now; null when nobody does. */
  async holder(options: CallOptions = {}): Promise<Contender | null> {
    return (await this.queue({ ...options, limit: 1 }))[0] ?? null;
  }

  /** Who holds it: nobody or one. */
  holders(options: CallOptions = {}): Promise<readonly Contender[]> {
    return this.queue({ ...options, limit: 1 });
  }

  /** Who waits, in order. `limit`: how many at most. Default 100. */
  async waiters({ limit = 100, ...options }: CallOptions & { readonly limit?: number } = {}): Promise<readonly Contender[]> {
    return (await this.queue({ ...options, limit: limit + 1 })).slice(1);
  }

  /** The holder and the waiters, in order. `limit`: how many at most. Default 100. */
  queue({ limit = 100, ...options }: CallOptions & { readonly limit?: number } = {}): Promise<readonly Contender[]> {
    return contendersOf(this.parts.store, { limit, ...options });
  }

  /**
   * The holder and the waiters at once and after every change, until the signal aborts or the loop is left. States may be
   * skipped, the present one is not. `limit`: how many at most. Default 100.
   */
  async *observe({
    limit = 100,
    signal,
  }: {
    readonly limit?: number;
    readonly signal?: AbortSignal;
  } = {}): AsyncGenerator<readonly Contender[], void, void> {
    const link = linkSignal(signal);
    let told: string | undefined;
    try {
      const options = { range: wholeQueue, order: "create", limit, signal: link.signal } as const;
      for await (const { entries } of observeRange(this.parts.store, options)) {
        const state = entries.map((entry) => `${entry.key}@${entry.modRevision}`).join();
        if (state === told) continue;
        told = state;
        yield entries.map(contenderOf);
      }
    } catch (error) {
      if (!link.signal.aborted) throw error;
    } finally {
      link.abort();
      link.unlink();
    }
  }

  /**
   * Asks the holder to yield: its `hold.revoked` aborts with the reason. It may go on; nothing is taken from it.
   * Answers with who was asked; null when nobody holds it.
   */
  async revoke(reason: string, options: CallOptions = {}): Promise<Contender | null> {
    const holder = await this.holder(options);
    if (holder !== null) await askToYield(this.parts.revocations(), { place: holder.key, reason }, options);
    return holder;
  }

  /**
   * Takes the lock from its holder, whose `signal` aborts, and passes it on. For an operator who knows that the holder
   * is stuck: its work may still be under way, and only its token or guard keeps what it writes late from harm.
   * Answers with whom it was taken from; null when nobody held it, or no longer did.
   */
  async break(reason: string, options: CallOptions = {}): Promise<Contender | null> {
    const holder = await this.revoke(reason, options);
    if (holder === null) return null;
    const { key, createRevision } = holder;
    const { succeeded } = await this.parts.store.txn(
      {
        if: [{ key, target: "createRevision", is: "equal", to: createRevision }],
        then: [{ kind: "delete", range: { key } }],
      },
      options,
    );
    return succeeded ? holder : null;
  }
}

/** Holders and waiters of a store whose whole namespace is one queue, in the order of joining. */
export async function contendersOf(
  store: Store,
  { limit, prefix, ...options }: CallOptions & { readonly limit: number; readonly prefix?: string },
): Promise<readonly Contender[]> {
  const range = prefix === undefined ? wholeQueue : { prefix };
  const { results } = await store.txn({ then: [{ kind: "range", range, order: "create", limit }] }, options);
  const [listed] = results;
  assert(listed?.kind === "range", "a range is answered with entries");
  return listed.entries.map(contenderOf);
}
