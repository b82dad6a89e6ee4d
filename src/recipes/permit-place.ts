/**
 * A place in the queue of a semaphore: the turn comes when my permits and those of all before me fit.
 *
 * Intuition: a lift with a weight limit and one line before its door. Who does not fit waits, and so does everybody behind,
 * however light: a heavy one does not starve.
 *
 * Because the line is served in order, everybody before me who is still there holds or is about to; so what counts is
 * only the sum of the permits ahead. Each waiter keeps that sum by itself from the deletions that the watch tells, and
 * asks the store nothing between joining and its turn. The price: every release is told to every waiter.
 * Source: Dijkstra, EWD 74 (semaphores), as a counted prefix of etcd's create order.
 */
import { assert } from "../base/assert.ts";
import { background } from "../base/background.ts";
import { conclaveError } from "../base/errors.ts";
import { linkSignal } from "../base/link-signal.ts";
import type { Entry } from "../store/entry.ts";
import type { Compare, Op, OpResult, Revision, Session, Store, WatchBatch } from "../store/store.ts";
import { Bell, sleep } from "./bell.ts";
import { insist } from "./insist.ts";
import { pollMs, whenDeleted } from "./key-watch.ts";
import { decodeMetadata } from "./metadata.ts";
import {
  Claim,
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

export interface PermitRule {
  /** How many permits there are. */
  readonly limit: number;
  /** How many this contender wants. At most `limit`. */
  readonly permits: number;
}

/** What the key of a contender says. */
export interface PermitValue {
  readonly permits: number;
  readonly meta?: unknown;
}

/** Who is before me, as of a revision: their keys with their permits. Null: more than were read, so it is not my turn. */
interface Ahead {
  readonly revision: Revision;
  readonly permits: Map<string, number> | null;
}

/** How many of the contenders before it a waiter reads at once. One permit each would fill a semaphore of this size. */
const aheadMax = 4_096;
const everybody = { prefix: "" } as const;

/** First come, first served, as far as the permits reach. */
export function permitQueue(rule: PermitRule): Queue {
  return {
    join: (options) => join(options, rule),
    joinIfFree: (options) => joinIfFree(options, rule),
  };
}

async function join(options: JoinOptions, rule: PermitRule): Promise<PermitPlace> {
  const claim = new Claim(options, { prefix: "" });
  return claim.make(async (call) => {
    const result = await options.store.txn(
      {
        if: [{ key: claim.key, target: "exists", is: "equal", to: false }],
        then: [rangeOf({}), ...claim.putOps()],
        else: [{ kind: "get", key: claim.key }],
      },
      call,
    );
    if (result.succeeded) {
      return new PermitPlace(claim, rule, result.revision, aheadIn(result.revision, result.results[0]));
    }
    // An unanswered attempt had put it: only a look tells who was there before.
    const [mine] = result.results;
    assert(mine?.kind === "get" && mine.entry !== null, "a key that exists is answered with its entry");
    const { createRevision } = mine.entry;
    const ahead = await look({ ...options, key: claim.key, createRevision });
    if (ahead === null) throw placeGone(options.store);
    return new PermitPlace(claim, rule, createRevision, ahead);
  });
}

/**
 * Joins, and leaves again where the turn did not come with it. Two round trips where it is not free: no compare of the
 * waist adds up permits. For the moment between, those behind wait for one who will go.
 */
async function joinIfFree(options: JoinOptions, rule: PermitRule): Promise<PermitPlace | Entry> {
  const place = await join(options, rule);
  if (place.fits) return place;
  const last = await place.leaveAsking(callOptions(options.session, options.signal).timeoutMs ?? 0);
  if (last?.holder) return last.holder;
  // Whoever was in the way has gone meanwhile, or the store does not answer: it was not free when we came.
  throw conclaveError("BUSY", `The semaphore "${options.store.namespace}" was not free at this moment.`);
}

class PermitPlace implements Place {
  readonly store: Store;
  readonly session: Session;
  readonly key: string;
  readonly keys: readonly string[];
  readonly createRevision: Revision;
  readonly #rule: PermitRule;
  readonly #inDoubt: boolean;
  #ahead: Ahead;

  constructor(claim: Claim, rule: PermitRule, createRevision: Revision, ahead: Ahead) {
    this.store = claim.store;
    this.session = claim.session;
    this.key = claim.key;
    this.keys = claim.keys;
    this.#rule = rule;
    this.#inDoubt = claim.inDoubt;
    this.createRevision = createRevision;
    this.#ahead = ahead;
  }

  /** Whether, as far as is known, the permits ahead leave room for mine. */
  get fits(): boolean {
    const { permits } = this.#ahead;
    if (permits === null) return false;
    let sum = this.#rule.permits;
    for (const count of permits.values()) sum += count;
    return sum <= this.#rule.limit;
  }

  firstTurn(): Revision | null {
    return this.fits ? this.#granted() : null;
  }

  guard(): Compare {
    return guardOf(this);
  }

  async awaitTurn(signal: AbortSignal): Promise<Revision> {
    const { platform, caps } = this.store;
    while (!this.fits) {
      const bell = new Bell<"look" | "fits">();
      const link = linkSignal(signal);
      try {
        if (caps.watch !== "none") {
          const followed = this.#follow(link.signal).then((news) => link.signal.aborted || bell.ring(news));
          background(followed, "the watch on a semaphore");
        }
        const timeoutMs = caps.watch === "none" ? pollMs : this.session.ttlMs / 3;
        if ((await bell.wait({ platform, timeoutMs, signal })) === "fits") break;
      } finally {
        link.abort();
        link.unlink();
      }
      this.#ahead = await this.#look(signal);
    }
    return this.#granted();
  }

  whenGone(signal: AbortSignal): Promise<boolean> {
    return whenDeleted(this.store, { key: this.key, from: this.createRevision + 1, signal });
  }

  leave(): Promise<void> {
    return leaveQueue(this, { inDoubt: this.#inDoubt });
  }

  #granted(): Revision {
    if (!this.session.alive)
      throw conclaveError("SESSION_LOST", `The session ended while "${this.store.namespace}" was passed on to it.`);
    return this.#ahead.revision;
  }

  leaveAsking(timeoutMs: number): Promise<LastWord | null> {
    return leaveQueueAsking(this, { range: everybody, inDoubt: this.#inDoubt, timeoutMs });
  }

  /** Keeps the sum from what the watch tells, until it fits or there is reason to look. */
  async #follow(signal: AbortSignal): Promise<"look" | "fits"> {
    const { store } = this;
    if (store.caps.watch === "log" && this.#ahead.permits !== null) {
      try {
        for await (const batch of store.watch(everybody, { from: this.#ahead.revision + 1, signal })) {
          if (!this.#take(batch)) return "look";
          if (this.fits) return "fits";
        }
      } catch {
        // What is wrong shows in the look that follows.
      }
    } else {
      try {
        for await (const batch of store.watch(everybody, { from: this.#ahead.revision + 1, signal })) {
          if (batch.kind === "resync" || batch.events.some((event) => event.kind === "delete")) return "look";
        }
      } catch {
        // As above.
      }
    }
    await sleep({ platform: store.platform, timeoutMs: pollMs, signal, ref: false }).catch(() => undefined);
    return "look";
  }

  /** False where only a look can tell. */
  #take(batch: WatchBatch): boolean {
    const { permits } = this.#ahead;
    if (permits === null || batch.kind === "resync") return false;
    for (const event of batch.events) {
      if (event.kind !== "delete") continue;
      if (event.key === this.key) return false;
      permits.delete(event.key);
    }
    this.#ahead = { revision: batch.revision, permits };
    return true;
  }

  async #look(signal: AbortSignal): Promise<Ahead> {
    const { createRevision, key, session, store } = this;
    const ahead = await insist(() => look({ createRevision, key, session, store, signal }), {
      platform: store.platform,
      signal,
    });
    if (ahead === null) throw placeGone(store);
    return ahead;
  }
}

/** Who is ahead of the key now; null when the key itself is gone. Reads only. */
async function look(
  mine: Pick<Place, "store" | "session" | "key" | "createRevision"> & { readonly signal: AbortSignal },
): Promise<Ahead | null> {
  const { createRevision, key, session, signal, store } = mine;
  const { results, revision } = await store.txn(
    { then: [{ kind: "get", key }, rangeOf({ createdBefore: createRevision })] },
    callOptions(session, signal),
  );
  const [me] = results;
  assert(me?.kind === "get", "a get is answered with an entry or null");
  return me.entry?.createRevision === createRevision ? aheadIn(revision, results[1]) : null;
}

function rangeOf(options: { readonly createdBefore?: Revision }): Op {
  return { kind: "range", range: everybody, order: "create", limit: aheadMax, ...options };
}

function aheadIn(revision: Revision, result: OpResult | undefined): Ahead {
  assert(result?.kind === "range", "a range is answered with entries");
  if (result.more) return { revision, permits: null };
  return { revision, permits: new Map(result.entries.map((entry) => [entry.key, permitsOf(entry)])) };
}

/** What somebody else wrote, and cannot be read, counts as one. */
export function permitsOf(entry: Pick<Entry, "value">): number {
  const value = decodeMetadata(entry.value) as PermitValue | undefined | null;
  return typeof value?.permits === "number" && value.permits >= 1 ? value.permits : 1;
}
