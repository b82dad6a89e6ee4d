/**
 * A place in a queue that lives in a store: what locks and elections have in common.
 *
 * Intuition: numbered tickets at a counter, except that nobody calls numbers. Each waiter looks only at the person right
 * in front; when that person leaves, it is your turn, or you look who stands in front now.
 *
 *   1 join     one txn: put my key, bound to my session, and read the newest keys (mine, the one ahead, the one before)
 *   2 free     nobody ahead                         -> my turn, token = revision of the join
 *   3 wait     watch the key ahead, from the revision after the one I read: nothing falls between
 *   4 pushed   the last of those ahead is gone      -> my turn, token = revision of its deletion, nothing to ask
 *   5 look     any other wake-up: one read, who is ahead of me now? nobody -> my turn, token = revision of the read
 *
 * Why tokens rise in the order of grants: a grant's token is a revision at which my key was the oldest. The next grant's
 * is one at which my key was gone, so a later one. A look that only reads serves as well as one that writes: its revision
 * lies between the deletion of the key ahead and that of mine.
 *
 * Step 3 where the engine tells every event: who has only a few ahead watches all of them and counts the departures, so a
 * hand-off is one push wherever it goes. Further back, and elsewhere, only the one right in front is watched. An engine
 * that counts for all waiters of the process at once (`native.countDepartures`) counts for everybody, however many stand ahead.
 *
 * Who counts as "in front" is the line's to say: for a lock everybody, for a reader only the writers; see `Line`.
 * Source: etcd's client/v3/concurrency (keys in create order, wait for the predecessor); steps 4 and 5 save its last reads.
 * Assumes that a lost push is rare: a waiter looks by itself every third of its TTL. Leaves out priorities.
 */
import { assert } from "../base/assert.ts";
import { background } from "../base/background.ts";

import { conclaveError } from "../base/errors.ts";
import { linkSignal } from "../base/link-signal.ts";
import type { Entry } from "../store/entry.ts";
import type { Compare, Joined, KeyRange, Op, OpResult, Revision, Session, Store, Txn } from "../store/store.ts";
import { Bell } from "./bell.ts";
import { insist } from "./insist.ts";
import { pollMs, type Wake, watchDepartures, watchForEnd, whenDeleted } from "./key-watch.ts";
import {
  Claim,
  type ClaimKeys,
  callOptions,
  guardOf,
  type JoinOptions,
  type LastWord,
  leaveQueue,
  leaveQueueAsking,
  type Place,
  placeGone,
  type Queue,
} from "./place-claim.ts";

/** All keys of the queue's namespace. */
export const wholeQueue: KeyRange = { prefix: "" };

/** Where a contender's keys go, and whose older keys must be gone before it is its turn. */
export interface Line extends ClaimKeys {
  readonly rivals: KeyRange;
}

/** The line of a lock: everybody is in front of everybody who came later. */
export const exclusiveLine: Line = { prefix: "", rivals: wholeQueue };

/** Who has no more than this many ahead counts their departures. More would cost each of them an event of each other. */
const countedMax = 16;

export class QueuePlace implements Place {
  readonly store: Store;
  readonly session: Session;
  readonly key: string;
  readonly keys: readonly string[];
  readonly createRevision: Revision;
  readonly #line: Line;
  /** An earlier attempt to put the key was never answered and might still arrive. */
  readonly #inDoubt: boolean;
  #standing: Joined;

  constructor(claim: Claim, line: Line, createRevision: Revision, standing: Joined) {
    this.store = claim.store;
    this.session = claim.session;
    this.key = claim.key;
    this.keys = claim.keys;
    this.#line = line;
    this.#inDoubt = claim.inDoubt;
    this.createRevision = createRevision;
    this.#standing = standing;
  }

  firstTurn(): Revision | null {
    return this.#standing.ahead === null ? this.#granted(this.#standing.revision) : null;
  }

  guard(): Compare {
    return guardOf(this);
  }

  async awaitTurn(signal: AbortSignal): Promise<Revision> {
    const bell = new Bell<Wake>();
    // Who counts for us tells of our own key, too, and there is no watch that must end.
    if (this.#isCounted) return this.#turnOf(bell, signal);
    const link = linkSignal(signal);
    try {
      const gone = this.whenGone(link.signal).then((isGone) => isGone && bell.ring({ kind: "look" }));
      background(gone, "the watch on a place in a queue");
      return await this.#turnOf(bell, link.signal);
    } finally {
      link.abort();
      link.unlink();
    }
  }

  whenGone(signal: AbortSignal): Promise<boolean> {
    return whenDeleted(this.store, { key: this.key, from: this.createRevision + 1, signal });
  }

  leave(): Promise<void> {
    return leaveQueue(this, { inDoubt: this.#inDoubt });
  }

  leaveAsking(timeoutMs: number): Promise<LastWord | null> {
    return leaveQueueAsking(this, { range: this.#line.rivals, inDoubt: this.#inDoubt, timeoutMs });
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

  async #turnOf(bell: Bell<Wake>, signal: AbortSignal): Promise<Revision> {
    for (;;) {
      const { ahead, revision } = this.#standing;
      if (ahead === null) return this.#granted(revision);
      const wake = await this.#sleepBehind(ahead, bell, signal);
      if (wake.kind === "turn") return this.#granted(wake.revision);
      if (wake.kind === "gone" && wake.key === ahead.key && ahead.count === 1 && wake.revision !== null) {
        return this.#granted(wake.revision);
      }
      this.#standing = await this.#look(signal);
    }
  }

  /** Whether the engine counts the departures of this line. */
  get #isCounted(): boolean {
    return this.#line === exclusiveLine && this.store.native?.countDepartures !== undefined;
  }

  /** Sleeps until it is my turn, the key ahead is gone, or there is reason to look. */
  async #sleepBehind(ahead: NonNullable<Joined["ahead"]>, bell: Bell<Wake>, signal: AbortSignal): Promise<Wake> {
    const wake = this.#isCounted ? this.#letCount(ahead.count, bell, signal) : this.#watchAhead(ahead, bell, signal);
    return (await wake) ?? { kind: "look" };
  }

  async #letCount(count: number, bell: Bell<Wake>, signal: AbortSignal): Promise<Wake | undefined> {
    const { createRevision, key, store } = this;
    const waiter = { key, createRevision, count, from: this.#standing.revision + 1 };
    let isOver = false;
    const stop = store.native?.countDepartures?.(waiter, (revision) => {
      // The end of the count must not ring: it would wake us for nothing.
      if (!isOver) bell.ring(revision === null ? { kind: "look" } : { kind: "turn", revision });
    });
    try {
      return await bell.wait({ platform: store.platform, timeoutMs: this.session.ttlMs / 3, signal });
    } finally {
      isOver = true;
      stop?.();
    }
  }

  async #watchAhead(
    { key, count }: NonNullable<Joined["ahead"]>,
    bell: Bell<Wake>,
    signal: AbortSignal,
  ): Promise<Wake | undefined> {
    const { caps, platform } = this.store;
    const from = this.#standing.revision + 1;
    const link = linkSignal(signal);
    try {
      if (caps.watch !== "none") {
        const watched =
          caps.watch === "log" && count <= countedMax
            ? this.#countDepartures({ count, from, signal: link.signal })
            : watchForEnd(this.store, { key, from, signal: link.signal });
        // A watch that was ended because of another ring must not ring too: it would wake us for nothing, for ever.
        const rung = watched.then((wake) => link.signal.aborted || bell.ring(wake));
        background(rung, "the watch on the place ahead");
      }
      const timeoutMs = caps.watch === "none" ? pollMs : this.session.ttlMs / 3;
      return await bell.wait({ platform, timeoutMs, signal });
    } finally {
      link.abort();
      link.unlink();
    }
  }

  #countDepartures(counting: { readonly count: number; readonly from: Revision; readonly signal: AbortSignal }): Promise<Wake> {
    return watchDepartures(this.store, { ...counting, range: this.#line.rivals, createdBefore: this.createRevision });
  }

  async #look(signal: AbortSignal): Promise<Joined> {
    const standing = await insist(() => look({ ...this.#self(), line: this.#line, signal }), {
      platform: this.store.platform,
      signal,
    });
    if (standing === null) throw placeGone(this.store);
    return standing;
  }

  #self(): Pick<QueuePlace, "store" | "session" | "key" | "createRevision"> {
    return { store: this.store, session: this.session, key: this.key, createRevision: this.createRevision };
  }
}

/** First come, first served, along the line. */
export function queueOf(line: Line): Queue {
  return {
    join: (options) => join(options, line),
    joinIfFree: (options) => joinIfFree(options, line),
  };
}

function join(options: JoinOptions, line: Line): Promise<QueuePlace> {
  const claim = new Claim(options, line);
  const native = line === exclusiveLine ? options.store.native : undefined;
  return claim.make(async (call) => {
    if (native?.joinQueue !== undefined) {
      const { key, session } = claim;
      const joined = await native.joinQueue({ key, value: options.value, session: session.id }, call);
      // Null: the engine leaves it to the txn.
      if (joined !== null) return new QueuePlace(claim, line, joined.revision, joined);
    }
    const result = await options.store.txn(joinTxn(claim, line), call);
    if (result.succeeded) return placed(claim, line, result.revision, result.results.at(-1));
    // An unanswered attempt had put it. Who came since stands behind: only a look tells who is ahead.
    const { createRevision } = foundIn(result.results[0]);
    const standing = await look({ ...options, key: claim.key, createRevision, line });
    if (standing === null) throw placeGone(options.store);
    return new QueuePlace(claim, line, createRevision, standing);
  });
}

function joinTxn(claim: Claim, { rivals }: Line): Required<Pick<Txn, "if" | "then" | "else">> {
  const newest: Op = { kind: "range", range: rivals, order: "create", descending: true, limit: 3, keysOnly: true };
  return {
    if: [{ key: claim.key, target: "exists", is: "equal", to: false }],
    then: [...claim.putOps(), newest],
    else: [{ kind: "get", key: claim.key }],
  };
}

/** `newest`: the newest keys of the line's rivals, of which one may be mine. */
function placed(claim: Claim, line: Line, revision: Revision, newest: OpResult | undefined): QueuePlace {
  const all = entriesOf(newest);
  const older = all.filter((entry) => !claim.keys.includes(entry.key));
  const count = countOf(newest) - (all.length - older.length);
  return new QueuePlace(claim, line, revision, standingOf(revision, older, count));
}

async function joinIfFree(options: JoinOptions, line: Line): Promise<QueuePlace | Entry> {
  const claim = new Claim(options, line);
  return claim.make(async (call) => {
    const result = await options.store.txn(
      {
        // Holds for no key at all: every key was created at some revision.
        if: [{ range: line.rivals, target: "createRevision", is: "less", to: 1 }],
        then: claim.putOps(),
        else: [
          { kind: "range", range: line.rivals, order: "create", limit: 1 },
          { kind: "get", key: claim.key },
        ],
      },
      call,
    );
    if (result.succeeded) return new QueuePlace(claim, line, result.revision, { revision: result.revision, ahead: null });
    const [inTheWay] = entriesOf(result.results[0]);
    assert(inTheWay !== undefined, "a line that is not empty has a first key");
    const mine = result.results[1];
    assert(mine?.kind === "get", "a get is answered with an entry or null");
    if (mine.entry === null || inTheWay.createRevision < mine.entry.createRevision) {
      // An unanswered attempt may still arrive, and find the line empty by then.
      claim.forgetUnanswered();
      return inTheWay;
    }
    // An unanswered attempt had put it, and nobody was in the way then.
    const { createRevision } = mine.entry;
    return new QueuePlace(claim, line, createRevision, { revision: createRevision, ahead: null });
  });
}

/** Who is ahead of the key now; null when the key itself is gone. Reads only. */
async function look(
  mine: Pick<QueuePlace, "store" | "session" | "key" | "createRevision"> & { readonly line: Line; readonly signal: AbortSignal },
): Promise<Joined | null> {
  const { createRevision: createdBefore, key, line, session, signal, store } = mine;
  const older: Op = {
    kind: "range",
    range: line.rivals,
    order: "create",
    descending: true,
    limit: 2,
    keysOnly: true,
    createdBefore,
  };
  const { results, revision } = await store.txn({ then: [{ kind: "get", key }, older] }, callOptions(session, signal));
  const [me] = results;
  assert(me?.kind === "get", "a get is answered with an entry or null");
  return me.entry?.createRevision === createdBefore ? standingOf(revision, entriesOf(results[1]), countOf(results[1])) : null;
}

/** From the newest keys before mine, newest first, and how many there are. */
function standingOf(revision: Revision, older: readonly Entry[], count: number): Joined {
  const [ahead] = older;
  return { revision, ahead: ahead === undefined ? null : { key: ahead.keyBytes, count } };
}

function countOf(result: OpResult | undefined): number {
  assert(result?.kind === "range", "a range is answered with a count");
  return result.count;
}

function entriesOf(result: OpResult | undefined): readonly Entry[] {
  assert(result?.kind === "range", "a range is answered with entries");
  return result.entries;
}

function foundIn(result: OpResult | undefined): Entry {
  assert(result?.kind === "get" && result.entry !== null, "a key that exists is answered with its entry");
  return result.entry;
}
