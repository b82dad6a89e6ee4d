/**
 * A waiter in a queue, as the feed of its namespace sees it: so many stand before it, and each departure is one less.
 *
 * Intuition: a display in a waiting room. All who wait look at the same one, and nobody is sent a letter: a change is
 * decoded once for the whole process, and costs each waiter a comparison. Its own watch would make an event and wake
 * somebody for each, and before a hand-off all of them run first.
 *
 * A departure counts once, because a revision is told once (`next`). Where one may have been missed, or its own key went,
 * it ends without a turn: who waits looks.
 */
import { type BinaryRange, rangeOfKey } from "../store/key.ts";
import type { Revision } from "../store/store.ts";
import type { Change, FeedReader } from "./feed-reader.ts";

export interface DepartureWatchOptions {
  /** Its own key, with its namespace. */
  readonly whole: string;
  readonly createRevision: Revision;
  /** So many of its namespace were older at `from - 1`. */
  readonly count: number;
  readonly from: Revision;
  /** Once. The revision at which the last of those before it left; null: look, or it was ended. */
  readonly onTurn: (revision: Revision | null) => void;
  readonly onEnd: (watch: DepartureWatch) => void;
}

export class DepartureWatch implements FeedReader {
  /** Where all must be read, its own key says as much as a waiter needs: that it must look. */
  readonly range: BinaryRange;
  next: Revision;
  isSyncing = true;
  readonly #options: DepartureWatchOptions;
  #ahead: number;
  #isOver = false;

  constructor(options: DepartureWatchOptions) {
    this.#options = options;
    this.range = rangeOfKey(options.whole);
    this.next = options.from;
    this.#ahead = options.count;
  }

  onChanges(revision: Revision, changes: readonly Change[]): void {
    if (this.isSyncing || this.#isOver || revision < this.next) return;
    this.next = revision + 1;
    const { createRevision, whole } = this.#options;
    let ahead = this.#ahead;
    for (const { whole: changed, entry, previous } of changes) {
      if (entry !== null || previous === null) continue;
      // Where everybody leaves at once, it is nobody's turn.
      if (changed === whole) {
        this.#finish(null);
        return;
      }
      if (previous.createRevision < createRevision) ahead--;
    }
    this.#ahead = ahead;
    if (ahead <= 0) this.#finish(revision);
  }

  onState(revision: Revision): void {
    this.isSyncing = false;
    // Nothing happened since the count was read.
    if (revision < this.next) return;
    this.#finish(null);
  }

  fail(): void {
    this.#finish(null);
  }

  end(): void {
    this.#finish(null);
  }

  #finish(revision: Revision | null): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#options.onEnd(this);
    this.#options.onTurn(revision);
  }
}
