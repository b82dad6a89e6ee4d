/**
 * One watch: what is told of its range, waiting for its reader.
 *
 *   syncing ── the state was read at r ──► telling (everything after r comes by push) ── too much unread ──► syncing
 *
 * `next` is the first revision that the reader has not been told of; nothing below it is ever told.
 */

import { binaryStringToUtf8 } from "../base/bytes.ts";
import type { ConclaveError } from "../base/errors.ts";
import { onAbort } from "../base/link-signal.ts";
import type { Entry } from "../store/entry.ts";
import { type BinaryRange, isInRange, stripNamespace } from "../store/key.ts";
import type { Revision, WatchBatch, WatchEvent } from "../store/store.ts";
import type { Change, FeedReader } from "./feed-reader.ts";
import type { ProcessHold } from "./process-hold.ts";

/** Batches that wait for the reader; beyond that the state is read again instead. */
const unreadMax = 1_000;

export interface FeedWatchOptions {
  readonly range: BinaryRange;
  readonly from: Revision | undefined;
  readonly signal: AbortSignal | undefined;
  /** Undefined: waiting for a batch does not keep the process alive. */
  readonly processHold: ProcessHold | undefined;
  /** More was unread than is kept: read the state again. */
  readonly onOverflow: (watch: FeedWatch) => void;
  readonly onEnd: (watch: FeedWatch) => void;
}

export class FeedWatch implements FeedReader, AsyncIterable<WatchBatch> {
  readonly range: BinaryRange;
  /** Undefined until the first reading: everything from then on. */
  next: Revision | undefined;
  isSyncing = true;
  readonly #options: FeedWatchOptions;
  #unread: WatchBatch[] = [];
  #isOver = false;
  #failure: ConclaveError | undefined;
  #wake: (() => void) | undefined;
  #unfollow: (() => void) | undefined;

  constructor(options: FeedWatchOptions) {
    this.#options = options;
    this.range = options.range;
    this.next = options.from;
    if (options.signal?.aborted) this.#isOver = true;
    else if (options.signal !== undefined) this.#unfollow = onAbort(options.signal, () => this.end());
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<WatchBatch, void, void> {
    try {
      while (!this.#isOver) {
        const batch = this.#unread.shift();
        if (batch !== undefined) yield batch;
        else await this.#news();
      }
      if (this.#failure !== undefined) throw this.#failure;
    } finally {
      this.end();
    }
  }

  /** Ends with an error for the reader. */
  fail(error: ConclaveError): void {
    if (error.code !== "CLOSED") this.#failure = error;
    this.end();
  }

  /** The changes of one revision. */
  onChanges(revision: Revision, changes: readonly Change[]): void {
    if (this.isSyncing || this.#isOver || (this.next !== undefined && revision < this.next)) return;
    this.next = revision + 1;
    const mine = changes.filter((change) => isInRange(this.range, change.whole));
    if (mine.length > 0) this.#tell({ kind: "changes", revision, events: mine.map((change) => eventOf(revision, change)) });
  }

  /** The state as it was read, now or a moment ago. */
  onState(revision: Revision, entries: readonly Entry[]): void {
    this.isSyncing = false;
    const isNews = this.next !== undefined && this.next <= revision;
    this.next = Math.max(this.next ?? 0, revision + 1);
    if (isNews) this.#tell({ kind: "resync", revision, entries });
  }

  /** Ends quietly. Idempotent. */
  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#unfollow?.();
    this.#options.onEnd(this);
    this.#wake?.();
  }

  #tell(batch: WatchBatch): void {
    if (this.#unread.length < unreadMax) {
      this.#unread.push(batch);
      this.#wake?.();
      return;
    }
    // What is dropped was not told: the state that is read now makes up for all of it.
    this.next = Math.min(...this.#unread.map((unread) => unread.revision));
    this.#unread = [];
    this.isSyncing = true;
    this.#options.onOverflow(this);
  }

  async #news(): Promise<void> {
    const { processHold } = this.#options;
    processHold?.retain();
    try {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    } finally {
      this.#wake = undefined;
      processHold?.release();
    }
  }
}

function eventOf(revision: Revision, { whole, entry, previous }: Change): WatchEvent {
  const key = binaryStringToUtf8(stripNamespace(whole));
  if (entry !== null) return { kind: "put", revision, key, entry, previous };
  return { kind: "delete", revision, key, previous: previous as Entry };
}
