/**
 * A watch as its consumer sees it: one sequence of batches across all the links that brought them.
 *
 * It resumes after the last batch that it was given, so a new leader sends what was missed, or a resync. What the consumer
 * has not taken is bounded: the member may send `bufferBytes`, and more only as batches are taken. Revisions never go back.
 */
import type { ByteReader } from "../base/byte-codec.ts";
import { conclaveError } from "../base/errors.ts";
import type { Entry } from "../store/entry.ts";
import type { BinaryRange } from "../store/key.ts";
import type { Revision, WatchBatch, WatchEvent } from "../store/store.ts";
import { writeWatchClose, writeWatchCredit, writeWatchOpen } from "../wire/client-messages.ts";
import { readPart, type WatchPart } from "../wire/watch-batch.ts";
import type { Link } from "./link.ts";
import type { ProcessHold } from "./process-hold.ts";

export interface ClientWatchOptions {
  readonly range: BinaryRange;
  readonly from: Revision | undefined;
  readonly bufferBytes: number;
  /** Undefined: waiting for a batch does not keep the process alive. */
  readonly processHold: ProcessHold | undefined;
  readonly nextWatchId: () => number;
  /** It needs no more batches. */
  readonly onEnd: (watch: ClientWatch) => void;
}

interface Queued {
  readonly batch: WatchBatch;
  readonly bytes: number;
}

/** A batch of which more parts follow. */
interface Assembly {
  readonly kind: WatchPart["kind"];
  readonly revision: Revision;
  readonly events: WatchEvent[];
  readonly entries: Entry[];
}

export class ClientWatch implements AsyncIterableIterator<WatchBatch> {
  /** Of its present opening: batches of earlier ones are not for us any more. */
  watchId = 0;
  readonly #options: ClientWatchOptions;
  #link: Link | undefined;
  /** The next revision to be told; undefined until the first batch says where the watch began. */
  #next: Revision | undefined;
  #assembly: Assembly | undefined;
  #queue: Queued[] = [];
  #queuedBytes = 0;
  /** Bytes taken by the consumer and not yet granted again. */
  #takenBytes = 0;
  #waiters: { resolve(result: IteratorResult<WatchBatch>): void; reject(error: unknown): void }[] = [];
  #end: { readonly error?: unknown } | undefined;

  constructor(options: ClientWatchOptions) {
    this.#options = options;
    this.#next = options.from;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<WatchBatch>> {
    const queued = this.#queue.shift();
    if (queued !== undefined) {
      this.#queuedBytes -= queued.bytes;
      this.#grant(queued.bytes);
      return Promise.resolve({ done: false, value: queued.batch });
    }
    if (this.#end !== undefined) return this.#ended(this.#end);
    this.#options.processHold?.retain();
    return new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
  }

  return(): Promise<IteratorResult<WatchBatch>> {
    this.#queue = [];
    this.end();
    return Promise.resolve({ done: true, value: undefined });
  }

  /** Opens it on this link, from where it is. */
  open(link: Link): void {
    if (this.#end !== undefined) return;
    if (this.#link !== undefined && this.#link.state === "ready") writeWatchClose(this.#link.writer(), this.watchId);
    this.#link = link;
    this.#assembly = undefined;
    this.#takenBytes = 0;
    this.watchId = this.#options.nextWatchId();
    const creditBytes = Math.max(0, this.#options.bufferBytes - this.#queuedBytes);
    writeWatchOpen(link.writer(), { watchId: this.watchId, range: this.#options.range, from: this.#next, creditBytes });
  }

  onPart(body: ByteReader): void {
    if (this.#end !== undefined) return;
    const bytes = body.remaining;
    const part = readPart(body);
    const batch = this.#assemble(part);
    if (batch === undefined || !this.#isNews(batch)) {
      this.#grant(bytes);
      return;
    }
    this.#next = batch.revision + 1;
    const waiter = this.#waiters.shift();
    if (waiter === undefined) {
      this.#queue.push({ batch, bytes });
      this.#queuedBytes += bytes;
      return;
    }
    this.#options.processHold?.release();
    this.#grant(bytes);
    waiter.resolve({ done: false, value: batch });
  }

  /** No more batches; those that wait are still given out. With an error the consumer gets it last. */
  end(error?: unknown): void {
    if (this.#end !== undefined) return;
    this.#end = error === undefined ? {} : { error };
    if (this.#link?.state === "ready") writeWatchClose(this.#link.writer(), this.watchId);
    this.#options.onEnd(this);
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) {
      this.#options.processHold?.release();
      this.#ended(this.#end).then(waiter.resolve, waiter.reject);
    }
  }

  #ended(end: { readonly error?: unknown }): Promise<IteratorResult<WatchBatch>> {
    if (!("error" in end)) return Promise.resolve({ done: true, value: undefined });
    // Told once; afterwards the iterator is merely at its end.
    this.#end = {};
    return Promise.reject(end.error);
  }

  /** The whole batch, once its last part is there. */
  #assemble(part: WatchPart): WatchBatch | undefined {
    const begun = this.#assembly;
    const isContinued = begun !== undefined && begun.kind === part.kind && begun.revision === part.revision;
    if (!isContinued && part.isLast) return batchOf(part);
    const assembly = isContinued ? begun : { kind: part.kind, revision: part.revision, events: [], entries: [] };
    for (const event of part.events) assembly.events.push(event);
    for (const entry of part.entries) assembly.entries.push(entry);
    this.#assembly = part.isLast ? undefined : assembly;
    return part.isLast ? batchOf(assembly) : undefined;
  }

  /** False for what only says where we are, and for what a member tells that is behind us. */
  #isNews(batch: WatchBatch): boolean {
    const next = this.#next ?? 0;
    const isOld = batch.revision < next;
    if (batch.kind === "changes" && batch.events.length === 0) {
      if (!isOld) this.#next = batch.revision + 1;
      return false;
    }
    return !isOld;
  }

  /** Lets the member send that much more; said once half of the buffer was taken. */
  #grant(bytes: number): void {
    this.#takenBytes += bytes;
    if (this.#takenBytes * 2 < this.#options.bufferBytes || this.#link?.state !== "ready") return;
    writeWatchCredit(this.#link.writer(), this.watchId, this.#takenBytes);
    this.#takenBytes = 0;
  }
}

function batchOf(part: Assembly | WatchPart): WatchBatch {
  if (part.kind === "changes") {
    if (part.entries.length > 0) throw conclaveError("PROTOCOL", "A batch of changes holds entries.");
    return { kind: "changes", revision: part.revision, events: part.events };
  }
  if (part.events.length > 0) throw conclaveError("PROTOCOL", "A resync holds events.");
  return { kind: "resync", revision: part.revision, entries: part.entries };
}
