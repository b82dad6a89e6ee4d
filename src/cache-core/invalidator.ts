/**
 * Writes into the invalidation counters, and knows what it wrote before the stream tells it.
 *
 * The store's answer is a revision, which with the store's epoch is the token. Everything up to it was committed before anything that begins now, so it is
 * learnt here at once, and what this process loads from now on carries at least this revision.
 */
import type { CallOptions, Compare, Op, Store, TxnResult } from "../store/store.ts";
import { leaseKey } from "./fill-lease.ts";
import type { Follower } from "./follower.ts";
import { counterKey, counterWrites, epochKey, type Mark, markOf, type Target } from "./invalidation.ts";
import type { InvalidationHistory } from "./invalidation-history.ts";
import { keyHash } from "./key-hash.ts";

export interface InvalidatorParts {
  readonly store: Store;
  readonly history: InvalidationHistory;
  readonly follower: Follower;
  /** Whether loads take leases, which an invalidation frees. */
  readonly hasLeases: boolean;
}

/** Marks of one transaction: each may take two operations. */
const marksMax = 40;
const getEpoch: Op = { kind: "get", key: epochKey };

export class Invalidator {
  readonly #parts: InvalidatorParts;
  constructor(parts: InvalidatorParts) {
    this.#parts = parts;
  }

  /** Answers with the token of the last. Where it fails, what was invalidated is not known: call again. */
  async invalidate(targets: readonly Target[], options: CallOptions): Promise<string> {
    const marks = targets.map(markOf);
    let token = "";
    for (let at = 0; at < marks.length; at += marksMax) {
      const some = marks.slice(at, at + marksMax);
      const then = [...counterWrites(some), ...this.#leaseDeletes(some), getEpoch];
      const { life } = this.#parts.history;
      token = this.#learn(some, life, await this.#parts.store.txn({ then }, options)).token;
    }
    return token;
  }

  /**
   * Invalidates the key, and says whether a value that was known at `since` may stand in its place: only where nothing that
   * it depends on was invalidated in between. A neighbour in the same slot makes the answer no, which costs a load.
   */
  async replace(
    subject: { readonly key: string; readonly tags: readonly string[]; readonly since: number; readonly life: number },
    options: CallOptions,
  ): Promise<{ readonly token: string; readonly revision: number; readonly mayStand: boolean }> {
    const { history } = this.#parts;
    const { key, tags, life } = subject;
    // Revisions of another store say nothing in this one: nothing that was known then may stand.
    const since = life === history.life ? subject.since : -1;
    const mark = markOf(key);
    const slots = new Set([mark, ...tags.map((tag): Mark => ({ kind: "tag", hash: keyHash(tag) }))].map(counterKey));
    const untouched: Compare[] = [...slots].map((slot) => ({ key: slot, target: "modRevision", is: "less", to: since + 1 }));
    untouched.push({ range: { prefix: "i/p/" }, target: "modRevision", is: "less", to: since + 1 });
    const writes = [...counterWrites([mark]), ...this.#leaseDeletes([mark]), getEpoch];
    const result = await this.#parts.store.txn({ if: untouched, then: writes, else: writes }, options);
    return { ...this.#learn([mark], life, result), mayStand: result.succeeded };
  }

  #learn(marks: readonly Mark[], life: number, { revision, results }: TxnResult): { token: string; revision: number } {
    const read = results.find((result) => result.kind === "get");
    const epoch = read?.kind === "get" ? read.entry?.text : undefined;
    this.#parts.follower.meet(epoch, revision);
    this.#parts.history.learnOwn(marks, revision);
    this.#parts.follower.note(revision, life);
    return { token: `${epoch ?? ""}:${revision}`, revision };
  }

  /** Who loads under a lease since before this loads in vain: the next may begin at once. */
  #leaseDeletes(marks: readonly Mark[]): Op[] {
    if (!this.#parts.hasLeases) return [];
    const keys = new Set(marks.flatMap((mark) => (mark.kind === "key" ? [leaseKey(mark.hash)] : [])));
    return [...keys].map((key) => ({ kind: "delete", range: { key } }));
  }
}
