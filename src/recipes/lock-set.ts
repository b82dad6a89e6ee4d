/**
 * Several locks at once: all or none, and nobody waits for ever for somebody who waits for them.
 *
 * Where one transaction may touch several namespaces (`caps.crossNamespace`) all are taken in one revision when all are
 * free, in one round trip. Else they are waited for one after another in the order of their names: two sets that share
 * locks ask for them in the same order, so no circle can form. Source: ordered resources, Havender, IBM Systems Journal 1968.
 */
import { assert } from "../base/assert.ts";
import { conclaveError } from "../base/errors.ts";
import { linkSignal } from "../base/link-signal.ts";
import type { Entry } from "../store/entry.ts";
import type { Compare, Op } from "../store/store.ts";
import {
  type AcquirableParts,
  type AcquireOptions,
  acquireAnswerMs,
  type LockOptions,
  lockDefaults,
  runUnder,
} from "./acquirable.ts";
import { campaignAtOnce, holdOf } from "./campaign.ts";
import type { Hold } from "./hold.ts";
import { Lock, lockParts } from "./lock.ts";
import { encodeMetadata } from "./metadata.ts";
import { checkWaitMs, refuseTurns, type StoreSource } from "./options.ts";
import { Claim, callOptions, type JoinOptions, type Place } from "./place-claim.ts";
import { exclusiveLine, QueuePlace, wholeQueue } from "./queue-place.ts";

/** At most so many: each is a place in a queue. */
const namesMax = 32;

/** Makes the handle of a set of locks, by the same names as `createLock`; nothing is sent. @throws INVALID_OPTION @since 0.2.0 */
export function createLockSet(engine: StoreSource, names: readonly string[], options: LockOptions = {}): LockSet {
  const sorted = [...new Set(names)].sort();
  if (sorted.length === 0 || sorted.length > namesMax) {
    throw conclaveError("INVALID_OPTION", `\`names\` has ${sorted.length} different ones; it takes 1 to ${namesMax}.`);
  }
  refuseTurns(options, "set of locks");
  return new LockSet(sorted.map((name) => lockParts(engine, name, options)));
}

/** @since 0.2.0 */
export class LockSet {
  readonly names: readonly string[];
  readonly #parts: readonly AcquirableParts[];
  readonly #first: AcquirableParts;

  /** Use `createLockSet`, which sorts the names. */
  constructor(parts: readonly AcquirableParts[]) {
    const [first] = parts;
    assert(first !== undefined, "a set of locks has one");
    this.#parts = parts;
    this.#first = first;
    this.names = parts.map(({ name }) => name);
  }

  /**
   * Waits for all of them; those that came first are given back where one does not come. One round trip where all are
   * free and the engine has `caps.crossNamespace`.
   * @throws LOCK_TIMEOUT, SESSION_LOST, LOCK_LOST, INVALID_OPTION: as `Lock.acquire`
   */
  async acquire({ waitMs = lockDefaults.waitMs, ...options }: AcquireOptions = {}): Promise<HoldSet> {
    checkWaitMs(waitMs);
    const { platform, caps } = this.#first.store;
    const startedAtMs = platform.now();
    const atOnce = caps.crossNamespace ? await this.#acquireAtOnce(options) : null;
    if (atOnce !== null) return atOnce;
    const holds: Hold[] = [];
    try {
      for (const parts of this.#parts) {
        const leftMs = Math.max(0, waitMs - (platform.now() - startedAtMs));
        holds.push(await new Lock(parts).acquire({ ...options, waitMs: leftMs }));
      }
      return new HoldSet(holds);
    } catch (error) {
      await Promise.all(holds.map((hold) => hold.release()));
      throw error;
    }
  }

  /** Acquires, calls, releases; as `Lock.run`. @throws LOCK_LOST */
  async run<T>(work: (holds: HoldSet) => T | Promise<T>, options: AcquireOptions = {}): Promise<T> {
    return runUnder(await this.acquire(options), this.#title(), work);
  }

  /** All of them in one transaction, or null. */
  async #acquireAtOnce({ meta, signal }: Omit<AcquireOptions, "waitMs">): Promise<HoldSet | null> {
    let places: readonly QueuePlace[] = [];
    const joinIfFree = async (join: JoinOptions): Promise<Place | Entry> => {
      const outcome = await joinAll(join, this.#parts);
      if (!Array.isArray(outcome)) return outcome as Entry;
      places = outcome;
      return outcome[0] as QueuePlace;
    };
    const value = encodeMetadata(meta ?? this.#first.meta, "meta");
    const join = (): never => {
      throw conclaveError("INVARIANT", "A set of locks joins no queue as one.");
    };
    const queue = { join, joinIfFree };
    const { hold } = await campaignAtOnce({ ...this.#first, queue }, { value, waitMs: acquireAnswerMs, signal });
    if (hold === null) return null;
    const others = this.#parts.slice(1).map((parts, index) => {
      const place = places[index + 1] as QueuePlace;
      const letGo = place.session.hold();
      return holdOf(parts, { place, token: hold.token, letGo, waitedMs: 0 });
    });
    return new HoldSet([hold, ...others]);
  }

  #title(): string {
    return `The locks ${this.names.map((name) => JSON.stringify(name)).join(", ")}`;
  }
}

/** A place in each queue where all are empty, else somebody who is in the way. One round trip. */
async function joinAll(options: JoinOptions, parts: readonly AcquirableParts[]): Promise<readonly QueuePlace[] | Entry> {
  const { session, signal, value } = options;
  const claims = parts.map(({ store }) => new Claim({ store, session, signal, value }, exclusiveLine));
  const [first] = claims;
  assert(first !== undefined, "a set of locks has one");
  const inNamespace = <T>(index: number, value: T): T & { namespace: string } => {
    return { ...value, namespace: (parts[index] as AcquirableParts).store.namespace };
  };
  try {
    return await first.make(async () => {
      const { results, revision, succeeded } = await first.store.txn(
        {
          // Holds for no key at all: every key was created at some revision.
          if: parts.map((_, index) =>
            inNamespace(index, { range: wholeQueue, target: "createRevision", is: "less", to: 1 } as const),
          ),
          then: claims.flatMap((claim, index) => claim.putOps().map((put): Op => inNamespace(index, put))),
          else: [
            { kind: "get", key: first.key },
            ...parts.map((_, index): Op => inNamespace(index, { kind: "range", range: wholeQueue, order: "create", limit: 1 })),
          ],
        },
        callOptions(session, signal),
      );
      const placeOf = (claim: Claim, at: number): QueuePlace => {
        claim.inDoubt = first.inDoubt;
        return new QueuePlace(claim, exclusiveLine, at, { revision: at, ahead: null });
      };
      if (succeeded) return claims.map((claim) => placeOf(claim, revision));
      const [mine, ...heads] = results;
      assert(mine?.kind === "get", "a get is answered with an entry or null");
      // An unanswered attempt had put them all, and nobody was in the way then.
      const { entry } = mine;
      if (entry !== null) return claims.map((claim) => placeOf(claim, entry.createRevision));
      for (const head of heads)
        if (head.kind === "range" && head.entries[0] !== undefined) {
          for (const claim of claims) claim.inDoubt = first.inDoubt;
          for (const claim of claims) claim.forgetUnanswered();
          return head.entries[0];
        }
      throw conclaveError("INVARIANT", "Some queue was not empty, and all are.");
    });
  } catch (error) {
    for (const claim of claims.slice(1)) {
      claim.inDoubt = first.inDoubt;
      claim.forgetUnanswered();
    }
    throw error;
  }
}

/** Several holds as one: held while all are. @since 0.2.0 */
export class HoldSet implements AsyncDisposable {
  /** In the order of their names. */
  readonly holds: readonly Hold[];
  readonly #link = linkSignal(undefined);
  #isWatching = false;

  constructor(holds: readonly Hold[]) {
    this.holds = holds;
  }

  get held(): boolean {
    return this.holds.every(({ held }) => held);
  }

  /** Why the first of them was lost; null while none is. */
  get loss(): Error | null {
    for (const { loss } of this.holds) if (loss !== null) return loss;
    return null;
  }

  /** Aborts when any of them is lost. */
  get signal(): AbortSignal {
    if (!this.#isWatching) {
      this.#isWatching = true;
      for (const { signal } of this.holds) {
        if (signal.aborted) this.#link.abort(signal.reason);
        else signal.addEventListener("abort", () => this.#link.abort(signal.reason), { once: true });
      }
    }
    return this.#link.signal;
  }

  /** @throws LOCK_LOST, NOT_HOLDER */
  assertHeld(): void {
    for (const hold of this.holds) hold.assertHeld();
  }

  /** One condition for each lock; see `Hold.guard`. */
  guards(): readonly Compare[] {
    return this.holds.map((hold) => hold.guard());
  }

  /** Passes all of them on. Idempotent; never rejects. */
  async release(): Promise<void> {
    await Promise.all(this.holds.map((hold) => hold.release()));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release();
  }
}
