/**
 * Writes into the invalidation counters, and knows what it wrote before the stream tells it.
 *
 * The store's answer is a revision: the token. Everything up to it was committed before anything that begins now, so it is
 * learnt here at once, and what this process loads from now on carries at least this revision.
 */
import type { CallOptions, Compare, Op, Store, TxnResult } from "../store/store.ts";
import { leaseKey } from "./fill-lease.ts";
import type { Follower } from "./follower.ts";
import { counterKey, counterWrites, type Mark, markOf, type Target } from "./invalidation.ts";
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
const ownMax = 1_000;

export class Invalidator {
  readonly #parts: InvalidatorParts;
  /** The latest tokens: of these this process knows what they stand for, whatever the stream has told. */
  readonly #own = new Set<number>();

  constructor(parts: InvalidatorParts) {
    this.#parts = parts;
  }

  /** Answers with the token of the last. Where it fails, what was invalidated is not known: call again. */
  async invalidate(targets: readonly Target[], options: CallOptions): Promise<number> {
    const marks = targets.map(markOf);
    let token = 0;
    for (let at = 0; at < marks.length; at += marksMax) {
      const some = marks.slice(at, at + marksMax);
      const then = [...counterWrites(some), ...this.#leaseDeletes(some)];
      token = this.#learn(some, await this.#parts.store.txn({ then }, options));
    }
    return token;
  }

  /**
   * Invalidates the key, and says whether a value that was known at `since` may stand in its place: only where nothing that
   * it depends on was invalidated in between. A neighbour in the same slot makes the answer no, which costs a load.
   */
  async replace(
    subject: { readonly key: string; readonly tags: readonly string[]; readonly since: number },
    options: CallOptions,
  ): Promise<{ readonly revision: number; readonly mayStand: boolean }> {
    const { key, tags, since } = subject;
    const mark = markOf(key);
    const slots = new Set([mark, ...tags.map((tag): Mark => ({ kind: "tag", hash: keyHash(tag) }))].map(counterKey));
    const untouched: Compare[] = [...slots].map((slot) => ({ key: slot, target: "modRevision", is: "less", to: since + 1 }));
    untouched.push({ range: { prefix: "i/p/" }, target: "modRevision", is: "less", to: since + 1 });
    const writes = [...counterWrites([mark]), ...this.#leaseDeletes([mark])];
    const result = await this.#parts.store.txn({ if: untouched, then: writes, else: writes }, options);
    return { revision: this.#learn([mark], result), mayStand: result.succeeded };
  }

  /** Whether it is a token of this process. */
  knows(token: number): boolean {
    return this.#own.has(token);
  }

  #learn(marks: readonly Mark[], { revision }: TxnResult): number {
    this.#parts.history.learnOwn(marks, revision);
    this.#parts.follower.note(revision);
    this.#own.add(revision);
    if (this.#own.size > ownMax) for (const oldest of this.#own.keys()) if (this.#own.delete(oldest)) break;
    return revision;
  }

  /** Who loads under a lease since before this loads in vain: the next may begin at once. */
  #leaseDeletes(marks: readonly Mark[]): Op[] {
    if (!this.#parts.hasLeases) return [];
    const keys = new Set(marks.flatMap((mark) => (mark.kind === "key" ? [leaseKey(mark.hash)] : [])));
    return [...keys].map((key) => ({ kind: "delete", range: { key } }));
  }
}
