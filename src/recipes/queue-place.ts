/**
 * A place in a queue that lives in a store: what locks and elections have in common.
 *
 * Intuition: numbered tickets at a counter, except that nobody calls numbers. Each waiter looks only at the person right
 * in front; when that person leaves, it is your turn, or you look who stands in front now.
 *
 *   1 join     one txn: put my key, bound to my session, and read the newest keys (mine, the one ahead, the one before)
 *   2 free     nobody ahead                         -> my turn, token = revision of the join
 *   3 wait     watch the key ahead, from the revision after the one I read: nothing falls between
 *   4 pushed   it is gone, and it was the only one  -> my turn, token = revision of its deletion, nothing to ask
 *   5 look     any other wake-up: one read, who is ahead of me now? nobody -> my turn, token = revision of the read
 *
 * Why tokens rise in the order of grants: a grant's token is a revision at which my key was the oldest. The next grant's
 * is one at which my key was gone, so a later one. A look that only reads serves as well as one that writes: its revision
 * lies between the deletion of the key ahead and that of mine.
 *
 * Keys are `session/number` and never used again, so every act here may be repeated without harm.
 * Source: etcd's client/v3/concurrency (keys in create order, wait for the predecessor); steps 4 and 5 save its last reads.
 * Assumes that a lost push is rare: a waiter looks by itself every third of its TTL. Leaves out priorities.
 */
import { assert } from "../base/assert.ts";
import { background } from "../base/background.ts";
import { utf8Encode } from "../base/bytes.ts";
import { ConclaveError, conclaveError, hasCode } from "../base/errors.ts";
import { linkSignal } from "../base/link-signal.ts";
import type { Platform } from "../base/ports.ts";
import type { Entry } from "../store/entry.ts";
import type { CallOptions, Compare, KeyRange, Op, OpResult, Revision, Session, Store, WatchBatch } from "../store/store.ts";
import { Bell, sleep } from "./bell.ts";
import { insist } from "./insist.ts";

/** All keys of the queue's namespace. */
export const wholeQueue: KeyRange = { prefix: "" };

export interface JoinOptions {
  readonly store: Store;
  readonly session: Session;
  /** What the others read about this contender. */
  readonly value: string;
  /** Ends the attempt; a key that may have been put is deleted in the background. Rejects with its reason. */
  readonly signal: AbortSignal;
}

/** Who is ahead, as of a revision. `sole`: nobody else is, so it has the turn. */
interface Standing {
  readonly revision: Revision;
  readonly ahead: { readonly key: Uint8Array; readonly sole: boolean } | null;
}

/** `gone`: the watched key was deleted, at this revision where the engine tells every event. */
type Wake = { readonly kind: "gone"; readonly key: Uint8Array; readonly revision: Revision | null } | { readonly kind: "look" };

/** How often an unanswered put is looked for after it was given up, a third of the TTL apart: over one whole TTL. */
const looksForUnanswered = 4;
/** Between looks where an engine cannot watch, and after a watch that failed. */
const pollMs = 250;
/** The shortest and the longest time that a store is given to answer. */
const answerMsMin = 1_000;
const answerMsMax = 10_000;

export class QueuePlace {
  readonly store: Store;
  readonly session: Session;
  /** Never used before, never used again. */
  readonly key: string;
  readonly createRevision: Revision;
  /** An earlier attempt to put the key was never answered and might still arrive. */
  readonly #inDoubt: boolean;
  #standing: Standing;

  private constructor(claim: Claim, createRevision: Revision, standing: Standing) {
    this.store = claim.store;
    this.session = claim.session;
    this.key = claim.key;
    this.#inDoubt = claim.inDoubt;
    this.createRevision = createRevision;
    this.#standing = standing;
  }

  /** Takes a place at the end. One round trip. @throws SESSION_EXPIRED (no place was taken), CLOSED */
  static async join(options: JoinOptions): Promise<QueuePlace> {
    const claim = new Claim(options);
    return claim.make(async () => {
      const result = await options.store.txn(
        {
          if: [{ key: claim.key, target: "exists", is: "equal", to: false }],
          then: [
            claim.putOp(),
            { kind: "range", range: wholeQueue, order: "create", descending: true, limit: 3, keysOnly: true },
          ],
          else: [{ kind: "get", key: claim.key }],
        },
        callOptions(options.session, options.signal),
      );
      if (result.succeeded) {
        const [mine, ...older] = entriesOf(result.results[1]);
        assert(mine?.key === claim.key, "the key put last is the newest of the queue");
        return new QueuePlace(claim, result.revision, standingOf(result.revision, older));
      }
      // An unanswered attempt had put it. Who came since stands behind: only a look tells who is ahead.
      const { createRevision } = foundIn(result.results[0]);
      const standing = await look({ ...options, key: claim.key, createRevision });
      if (standing === null) throw placeGone(options.store);
      return new QueuePlace(claim, createRevision, standing);
    });
  }

  /** Takes a place only where the queue is empty; else tells who has the turn. One round trip. */
  static async joinIfEmpty(options: JoinOptions): Promise<QueuePlace | Entry> {
    const claim = new Claim(options);
    return claim.make(async () => {
      const result = await options.store.txn(
        {
          // Holds for no key at all: every key was created at some revision.
          if: [{ range: wholeQueue, target: "createRevision", is: "less", to: 1 }],
          then: [claim.putOp()],
          else: [{ kind: "range", range: wholeQueue, order: "create", limit: 1 }],
        },
        callOptions(options.session, options.signal),
      );
      if (result.succeeded) return new QueuePlace(claim, result.revision, { revision: result.revision, ahead: null });
      const [holder] = entriesOf(result.results[0]);
      assert(holder !== undefined, "a queue that is not empty has a first key");
      if (holder.key !== claim.key) {
        // An unanswered attempt may still arrive, and find the queue empty by then.
        claim.forgetUnanswered();
        return holder;
      }
      // An unanswered attempt had put it, and it was alone then.
      return new QueuePlace(claim, holder.createRevision, { revision: holder.createRevision, ahead: null });
    });
  }

  /** Whether the turn came with joining. */
  get first(): boolean {
    return this.#standing.ahead === null;
  }

  /** Holds as long as the place does. Elsewhere than in the queue's own store it needs `caps.crossNamespace`. */
  guard(): Compare {
    const compare = { key: this.key, target: "createRevision", is: "equal", to: this.createRevision } as const;
    return this.store.caps.crossNamespace ? { ...compare, namespace: this.store.namespace } : compare;
  }

  /**
   * Waits for the turn and answers with its token. Rejects with the signal's reason; the place is kept then: `leave` it.
   * @throws LOCK_LOST when somebody deleted the key, SESSION_LOST when the session ended at the last moment.
   */
  async awaitTurn(signal: AbortSignal): Promise<Revision> {
    const bell = new Bell<Wake>();
    const link = linkSignal(signal);
    try {
      if (!this.first) {
        const gone = this.whenGone(link.signal).then((isGone) => isGone && bell.ring({ kind: "look" }));
        background(gone, "the watch on a place in a queue");
      }
      for (;;) {
        const { ahead, revision } = this.#standing;
        if (ahead === null) return this.#granted(revision);
        const wake = await this.#sleepBehind(ahead.key, bell, link.signal);
        if (wake.kind === "gone" && wake.key === ahead.key && ahead.sole && wake.revision !== null) {
          return this.#granted(wake.revision);
        }
        this.#standing = await this.#look(link.signal);
      }
    } finally {
      link.abort();
      link.unlink();
    }
  }

  /** True once my key was deleted by anybody; false when the signal aborts first. */
  async whenGone(signal: AbortSignal): Promise<boolean> {
    const key = utf8Encode(this.key);
    while (!signal.aborted && this.store.caps.watch !== "none") {
      const wake = await watchForEnd(this.store, { key, from: this.createRevision + 1, signal });
      if (wake.kind === "gone") return true;
    }
    return false;
  }

  /**
   * Gives the place up, and with it the turn. Resolves once the key is gone, or when the first attempt failed: the rest
   * happens in the background, until the key is gone or the session has ended. Never rejects.
   */
  async leave(): Promise<void> {
    const lost = linkSignal(this.session.lost);
    try {
      await deleteKey(this, lost.signal);
      if (!this.#inDoubt) return;
    } catch {
      // Whatever went wrong: `forget` knows which failures may be retried, and reports the others.
    } finally {
      lost.unlink();
    }
    background(forget(this, { inDoubt: this.#inDoubt }), "leaving a queue");
  }

  /** Leaves, and tells in the same round trip who had the turn and how many stood before. Null: no answer within the time. */
  async leaveAsking(timeoutMs: number): Promise<{ readonly holder: Entry | null; readonly position: number } | null> {
    const createdBefore = this.createRevision;
    const ops: Op[] = [
      { kind: "range", range: wholeQueue, order: "create", createdBefore, limit: 1 },
      { kind: "delete", range: { key: this.key } },
    ];
    let answer: { readonly holder: Entry | null; readonly position: number } | null = null;
    let inDoubt = true;
    const lost = linkSignal(this.session.lost);
    try {
      const { results } = await this.store.txn({ then: ops }, { timeoutMs, signal: lost.signal });
      const [before] = results;
      assert(before?.kind === "range", "a range is answered with entries");
      answer = { holder: before.entries[0] ?? null, position: before.count };
      inDoubt = this.#inDoubt;
    } catch {
      // No last word then; `forget` sees to the key.
    } finally {
      lost.unlink();
    }
    if (inDoubt) background(forget(this, { inDoubt: this.#inDoubt }), "leaving a queue");
    return answer;
  }

  /**
   * The last check before the turn is taken: by the clock, now. A store ends no session before its own client counts it
   * as lost, so a living session still has its key; the deletion of the key ahead proves nothing about mine.
   */
  #granted(token: Revision): Revision {
    if (!this.session.alive)
      throw conclaveError("SESSION_LOST", `The session ended while "${this.store.namespace}" was passed on to it.`);
    assert(token >= this.createRevision, "a turn comes no earlier than its place");
    return token;
  }

  /** Sleeps until the key ahead is gone, or until there is reason to look. */
  async #sleepBehind(ahead: Uint8Array, bell: Bell<Wake>, signal: AbortSignal): Promise<Wake> {
    const { caps, platform } = this.store;
    const link = linkSignal(signal);
    try {
      if (caps.watch !== "none") {
        const watched = watchForEnd(this.store, { key: ahead, from: this.#standing.revision + 1, signal: link.signal });
        // A watch that was ended because of another ring must not ring too: it would wake us for nothing, for ever.
        const rung = watched.then((wake) => link.signal.aborted || bell.ring(wake));
        background(rung, "the watch on the place ahead");
      }
      const timeoutMs = caps.watch === "none" ? pollMs : this.session.ttlMs / 3;
      return (await bell.wait({ platform, timeoutMs, signal })) ?? { kind: "look" };
    } finally {
      link.abort();
      link.unlink();
    }
  }

  async #look(signal: AbortSignal): Promise<Standing> {
    const standing = await insist(
      () => look({ store: this.store, session: this.session, key: this.key, createRevision: this.createRevision, signal }),
      { platform: this.store.platform, signal },
    );
    if (standing === null) throw placeGone(this.store);
    return standing;
  }
}

/** An attempt to put a key, possibly in several tries, of which some may stay unanswered. */
class Claim {
  readonly store: Store;
  readonly session: Session;
  readonly key: string;
  /** A try was sent and not answered: it may have happened, or happen yet. */
  inDoubt = false;
  readonly #options: JoinOptions;

  constructor(options: JoinOptions) {
    this.#options = options;
    this.store = options.store;
    this.session = options.session;
    this.key = `${options.session.id}/${nextClaimNumber(options.store.platform)}`;
  }

  putOp(): Op {
    return { kind: "put", key: this.key, value: this.#options.value, session: this.session.id };
  }

  /** Tries until answered; leaves nothing behind when it gives up. */
  async make<T>(attempt: () => Promise<T>): Promise<T> {
    const { signal } = this.#options;
    const tryOnce = async (): Promise<T> => {
      try {
        return await attempt();
      } catch (error) {
        if (signal.aborted || !(error instanceof ConclaveError) || !error.definite) this.inDoubt = true;
        throw error;
      }
    };
    try {
      return await insist(tryOnce, { platform: this.store.platform, signal });
    } catch (error) {
      this.forgetUnanswered();
      throw error;
    }
  }

  forgetUnanswered(): void {
    if (this.inDoubt) background(forget(this, { inDoubt: true }), "leaving a queue");
  }
}

/** Who is ahead of the key now; null when the key itself is gone. Reads only. */
async function look(
  mine: Pick<QueuePlace, "store" | "session" | "key" | "createRevision"> & { readonly signal: AbortSignal },
): Promise<Standing | null> {
  const { createRevision: createdBefore, key, session, signal, store } = mine;
  const older: Op = {
    kind: "range",
    range: wholeQueue,
    order: "create",
    descending: true,
    limit: 2,
    keysOnly: true,
    createdBefore,
  };
  const { results, revision } = await store.txn({ then: [{ kind: "get", key }, older] }, callOptions(session, signal));
  const [me] = results;
  assert(me?.kind === "get", "a get is answered with an entry or null");
  return me.entry?.createRevision === createdBefore ? standingOf(revision, entriesOf(results[1])) : null;
}

/** Soon asked again: while an answer is missing, a key that was put may stand first and block all others. */
function callOptions({ ttlMs }: Session, signal: AbortSignal): CallOptions {
  return { signal, timeoutMs: Math.min(answerMsMax, Math.max(answerMsMin, ttlMs / 3)) };
}

/** From the keys before mine, newest first. Two of them tell whether the newest is also the oldest. */
function standingOf(revision: Revision, older: readonly Entry[]): Standing {
  const [ahead] = older;
  return { revision, ahead: ahead === undefined ? null : { key: ahead.keyBytes, sole: older.length === 1 } };
}

/** Watches one key until it is deleted. On any trouble, after a pause, it is a reason to look. */
async function watchForEnd(
  store: Store,
  { key, from, signal }: { readonly key: Uint8Array; readonly from: Revision; readonly signal: AbortSignal },
): Promise<Wake> {
  const exact = store.caps.watch === "log";
  try {
    for await (const batch of store.watch({ key }, { from, signal })) {
      const end = endIn(batch);
      if (end !== undefined) return { kind: "gone", key, revision: exact ? end : null };
    }
  } catch {
    // What is wrong shows in the look that follows.
  }
  await sleep({ platform: store.platform, timeoutMs: pollMs, signal, ref: false }).catch(() => undefined);
  return { kind: "look" };
}

/** The revision at which the one watched key vanished, null where only its absence is told; undefined: it is there. */
function endIn(batch: WatchBatch): Revision | null | undefined {
  switch (batch.kind) {
    case "resync":
      return batch.entries.length === 0 ? null : undefined;
    case "changes":
      return batch.events.find((event) => event.kind === "delete")?.revision;
  }
}

async function deleteKey(
  { store, session, key }: Pick<QueuePlace, "store" | "session" | "key">,
  signal: AbortSignal,
): Promise<void> {
  await store.txn({ then: [{ kind: "delete", range: { key } }] }, callOptions(session, signal));
}

/**
 * Deletes the key until it is known to be gone, or the session has ended, and its keys with it.
 * A put in doubt may still be on its way and arrive after the deletion: it is looked for again, for a whole TTL.
 */
async function forget(
  place: Pick<QueuePlace, "store" | "session" | "key">,
  { inDoubt }: { readonly inDoubt: boolean },
): Promise<void> {
  const { platform } = place.store;
  const lost = linkSignal(place.session.lost);
  const { signal } = lost;
  try {
    for (let looks = 1; ; looks++) {
      await insist(() => deleteKey(place, signal), { platform, signal, ref: false });
      if (!inDoubt || looks === looksForUnanswered) return;
      await sleep({ platform, timeoutMs: place.session.ttlMs / 3, signal, ref: false });
    }
  } catch (error) {
    if (!signal.aborted && !hasCode(error, "CLOSED") && !hasCode(error, "SESSION_EXPIRED")) throw error;
  } finally {
    lost.unlink();
  }
}

function placeGone(store: Store): ConclaveError {
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

function entriesOf(result: OpResult | undefined): readonly Entry[] {
  assert(result?.kind === "range", "a range is answered with entries");
  return result.entries;
}

function foundIn(result: OpResult | undefined): Entry {
  assert(result?.kind === "get" && result.entry !== null, "a key that exists is answered with its entry");
  return result.entry;
}
