/**
 * A watch as its reader sees it, on engines that push to many watches of one process: batches in order, in a bounded queue.
 *
 * Who feeds it says changes or states; it drops what the reader was told already. More unread than is kept: all of it is
 * dropped, and the feeder reads the state again, which makes up for it.
 */
import { type ConclaveError, hasCode } from "../base/errors.ts";
import { onAbort } from "../base/link-signal.ts";
import type { Entry } from "../store/entry.ts";
import type { BinaryRange } from "../store/key.ts";
import type { Revision, WatchBatch, WatchEvent } from "../store/store.ts";
import type { ProcessHold } from "./process-hold.ts";

const unreadMax = 1_000;

export interface WatchQueueOptions {
  /** Of whole keys. */
  readonly range: BinaryRange;
  readonly from: Revision | undefined;
  readonly signal: AbortSignal | undefined;
  /** Undefined: waiting for a batch does not keep the process alive. */
  readonly processHold: ProcessHold | undefined;
  /** Unread batches were dropped: the state is wanted, at a revision of at least `next`. */
  readonly onOverflow: (watch: WatchQueue) => void;
  readonly onEnd: (watch: WatchQueue) => void;
}

export class WatchQueue implements AsyncIterable<WatchBatch> {
  readonly range: BinaryRange;
  /** The next revision to tell; undefined until the feeder knows where the watch begins. */
  next: Revision | undefined;
  readonly #options: WatchQueueOptions;
  #unread: WatchBatch[] = [];
  #isOver = false;
  #failure: ConclaveError | undefined;
  #wake: (() => void) | undefined;
  readonly #forgetSignal: () => void;

  constructor(options: WatchQueueOptions) {
    this.#options = options;
    this.range = options.range;
    this.next = options.from;
    this.#isOver = options.signal?.aborted ?? false;
    this.#forgetSignal =
      options.signal === undefined || this.#isOver ? () => undefined : onAbort(options.signal, () => this.end());
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

  /** The changes of one revision. */
  onChanges(revision: Revision, events: readonly WatchEvent[]): void {
    if (this.#isOver || (this.next !== undefined && revision < this.next)) return;
    this.next = revision + 1;
    if (events.length > 0) this.#tell({ kind: "changes", revision, events });
  }

  /** The whole state of the range. Told only where there may be something new in it. */
  onState(revision: Revision, entries: readonly Entry[]): void {
    if (this.#isOver || (this.next !== undefined && revision < this.next)) return;
    this.next = revision + 1;
    this.#tell({ kind: "resync", revision, entries });
  }

  /** Ends with an error for the reader; quietly where the engine was closed. */
  fail(error: ConclaveError): void {
    if (!hasCode(error, "CLOSED")) this.#failure = error;
    this.end();
  }

  /** Ends quietly. Idempotent. */
  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#forgetSignal();
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
    this.next = this.#unread[0]?.revision;
    this.#unread = [];
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
