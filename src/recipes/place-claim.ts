/**
 * A key put on the way to a place in a queue: tried until it is answered, and never left behind.
 *
 * Intuition: a coat on a chair. Whoever walks away takes it along, even where it is not known whether the coat had been
 * put there: a put that was sent and not answered may still arrive, so it is looked for again for a whole TTL.
 *
 * Keys are `session/number` and never used again, so every act here may be repeated without harm.
 */
import { assert } from "../base/assert.ts";
import { background } from "../base/background.ts";
import { ConclaveError, conclaveError, hasCode } from "../base/errors.ts";
import { linkSignal } from "../base/link-signal.ts";
import type { Platform } from "../base/ports.ts";
import type { Entry } from "../store/entry.ts";
import type { CallOptions, Compare, KeyRange, Op, Revision, Session, Store } from "../store/store.ts";
import { sleep } from "./bell.ts";
import { insist } from "./insist.ts";

/** What a contender has between joining and leaving, whatever the rule by which turns come. */
export interface Place {
  readonly store: Store;
  readonly session: Session;
  /** Never used before, never used again. */
  readonly key: string;
  readonly createRevision: Revision;
  /** The token, where the turn came with the place; null: wait for it. @throws SESSION_LOST, as `awaitTurn` */
  firstTurn(): Revision | null;
  /** Holds as long as the place does. Elsewhere than in the queue's own store it needs `caps.crossNamespace`. */
  guard(): Compare;
  /**
   * Waits for the turn and answers with its token. Rejects with the signal's reason; the place is kept then: `leave` it.
   * @throws LOCK_LOST when somebody deleted the key, SESSION_LOST when the session ended at the last moment.
   */
  awaitTurn(signal: AbortSignal): Promise<Revision>;
  /** True once my key was deleted by anybody; false when the signal aborts first. */
  whenGone(signal: AbortSignal): Promise<boolean>;
  /** Gives the place up, and with it the turn. Never rejects; what could not be done at once goes on in the background. */
  leave(): Promise<void>;
  /** Leaves, and tells in the same round trip who had the turn and how many stood before. Null: no answer within the time. */
  leaveAsking(timeoutMs: number): Promise<LastWord | null>;
}

/** Who had the turn when somebody gave up, and how many stood before. */
export interface LastWord {
  readonly holder: Entry | null;
  readonly position: number;
}

/** A rule by which turns come. */
export interface Queue {
  /** Takes a place at the end. One round trip. @throws SESSION_EXPIRED (no place was taken), CLOSED */
  join(options: JoinOptions): Promise<Place>;
  /** Takes a place only where the turn comes with it; else tells who is in the way. One round trip. */
  joinIfFree(options: JoinOptions): Promise<Place | Entry>;
}

export interface JoinOptions {
  readonly store: Store;
  readonly session: Session;
  /** What the others read about this contender. */
  readonly value: string;
  /** Ends the attempt; a key that may have been put is deleted in the background. Rejects with its reason. */
  readonly signal: AbortSignal;
  /** The first try goes by this signal and this time, so that `signal` need not be made. Default: as every other try. */
  readonly quick?: { readonly signal: AbortSignal; readonly timeoutMs: number } | undefined;
}

/** Where the keys of a claim go. */
export interface ClaimKeys {
  /** The key of the place begins with this. */
  readonly prefix: string;
  /** A second key beside it, put and deleted with it, begins with this. */
  readonly marker?: string;
}

/** What `forget` needs to know. */
interface Claimed {
  readonly store: Store;
  readonly session: Session;
  readonly keys: readonly string[];
}

/** How often an unanswered put is looked for after it was given up, a third of the TTL apart: over one whole TTL. */
const looksForUnanswered = 4;
/** The shortest and the longest time that a store is given to answer. */
const answerMsMin = 1_000;
const answerMsMax = 10_000;

/** An attempt to put a key, possibly in several tries, of which some may stay unanswered. */
export class Claim {
  readonly store: Store;
  readonly session: Session;
  readonly key: string;
  /** The key and its marker. */
  readonly keys: readonly string[];
  /** A try was sent and not answered: it may have happened, or happen yet. */
  inDoubt = false;
  readonly #options: JoinOptions;

  constructor(options: JoinOptions, { prefix, marker }: ClaimKeys) {
    this.#options = options;
    this.store = options.store;
    this.session = options.session;
    const id = `${options.session.id}/${nextClaimNumber(options.store.platform)}`;
    this.key = prefix + id;
    this.keys = marker === undefined ? [this.key] : [this.key, marker + id];
  }

  putOps(): Op[] {
    const { value } = this.#options;
    return this.keys.map((key) => ({ kind: "put", key, value: key === this.key ? value : "", session: this.session.id }));
  }

  /** Tries until answered; leaves nothing behind when it gives up. */
  async make<T>(attempt: (call: CallOptions) => Promise<T>): Promise<T> {
    const { quick } = this.#options;
    try {
      if (quick === undefined) return await this.#insist(attempt);
      try {
        return await attempt(callOptions(this.session, quick.signal, quick.timeoutMs));
      } catch (error) {
        this.#noteDoubt(error, quick.signal);
        this.#options.signal.throwIfAborted();
        if (!(error instanceof ConclaveError && error.retryable)) throw error;
      }
      return await this.#insist(attempt);
    } catch (error) {
      this.forgetUnanswered();
      throw error;
    }
  }

  #insist<T>(attempt: (call: CallOptions) => Promise<T>): Promise<T> {
    const { signal } = this.#options;
    return insist(() => this.#try(attempt, signal), { platform: this.store.platform, signal });
  }

  async #try<T>(attempt: (call: CallOptions) => Promise<T>, signal: AbortSignal): Promise<T> {
    try {
      return await attempt(callOptions(this.session, signal));
    } catch (error) {
      this.#noteDoubt(error, signal);
      throw error;
    }
  }

  #noteDoubt(error: unknown, signal: AbortSignal): void {
    if (signal.aborted || !(error instanceof ConclaveError) || !error.definite) this.inDoubt = true;
  }

  forgetUnanswered(): void {
    if (this.inDoubt) background(forget(this, { inDoubt: true }), "leaving a queue");
  }
}

/** Soon asked again: while an answer is missing, a key that was put may stand first and block all others. */
export function callOptions({ ttlMs }: Session, signal: AbortSignal, timeoutMs = answerMsMax): CallOptions {
  return { signal, timeoutMs: Math.min(timeoutMs, answerMsMax, Math.max(answerMsMin, ttlMs / 3)) };
}

/** One try. */
export async function deleteKeys({ store, session, keys }: Claimed, signal: AbortSignal): Promise<void> {
  const options = callOptions(session, signal);
  const [key] = keys;
  const { native } = store;
  if (native?.leaveQueue !== undefined && key !== undefined && keys.length === 1) {
    if ((await native.leaveQueue(key, options)) === true) return;
  }
  await store.txn({ then: deleteOps(keys) }, options);
}

export function deleteOps(keys: readonly string[]): Op[] {
  return keys.map((key) => ({ kind: "delete", range: { key } }));
}

/** Deletes the keys: at once where the store answers, else in the background until they or the session are gone. */
export async function leaveQueue(claimed: Claimed, { inDoubt }: { readonly inDoubt: boolean }): Promise<void> {
  try {
    await deleteKeys(claimed, claimed.session.lost);
    if (!inDoubt) return;
  } catch {
    // Whatever went wrong: `forget` knows which failures may be retried, and reports the others.
  }
  background(forget(claimed, { inDoubt }), "leaving a queue");
}

/** Holds as long as the place does; see `Place.guard`. */
export function guardOf({ key, createRevision, store }: Pick<Place, "key" | "createRevision" | "store">): Compare {
  const compare = { key, target: "createRevision", is: "equal", to: createRevision } as const;
  return store.caps.crossNamespace ? { ...compare, namespace: store.namespace } : compare;
}

/** Leaves, and asks in the same round trip who of the range stood before; see `Place.leaveAsking`. */
export async function leaveQueueAsking(
  place: Claimed & Pick<Place, "createRevision">,
  { range, inDoubt, timeoutMs }: { readonly range: KeyRange; readonly inDoubt: boolean; readonly timeoutMs: number },
): Promise<LastWord | null> {
  const { store, session, keys, createRevision: createdBefore } = place;
  const ops: Op[] = [{ kind: "range", range, order: "create", createdBefore, limit: 1 }, ...deleteOps(keys)];
  const lost = linkSignal(session.lost);
  try {
    const { results } = await store.txn({ then: ops }, { timeoutMs, signal: lost.signal });
    const [before] = results;
    assert(before?.kind === "range", "a range is answered with entries");
    if (inDoubt) background(forget(place, { inDoubt }), "leaving a queue");
    return { holder: before.entries[0] ?? null, position: before.count };
  } catch {
    // No last word then; `forget` sees to the keys.
    background(forget(place, { inDoubt }), "leaving a queue");
    return null;
  } finally {
    lost.unlink();
  }
}

/**
 * Deletes the keys until they are known to be gone, or the session has ended, and its keys with it.
 * A put in doubt may still be on its way and arrive after the deletion: it is looked for again, for a whole TTL.
 */
export async function forget(claimed: Claimed, { inDoubt }: { readonly inDoubt: boolean }): Promise<void> {
  const { platform } = claimed.store;
  const lost = linkSignal(claimed.session.lost);
  const { signal } = lost;
  try {
    for (let looks = 1; ; looks++) {
      await insist(() => deleteKeys(claimed, signal), { platform, signal, ref: false });
      if (!inDoubt || looks === looksForUnanswered) return;
      await sleep({ platform, timeoutMs: claimed.session.ttlMs / 3, signal, ref: false });
    }
  } catch (error) {
    if (!signal.aborted && !hasCode(error, "CLOSED") && !hasCode(error, "SESSION_EXPIRED")) throw error;
  } finally {
    lost.unlink();
  }
}

export function placeGone(store: Store): ConclaveError {
  return conclaveError(
    "LOCK_LOST",
    `The place in the queue "${store.namespace}" was deleted: by an operator, or with its session.`,
  );
}

const claimNumbers = new WeakMap<Platform, number>();

/**
 * One count per process, since all its tasks share a session: two of them must not share a key.
 * It starts at a drawn number, so that a second copy of the package in the process does not count the same.
 */
function nextClaimNumber(platform: Platform): number {
  const number = (claimNumbers.get(platform) ?? platform.randomUint32() * 1_024) + 1;
  claimNumbers.set(platform, number);
  return number;
}
