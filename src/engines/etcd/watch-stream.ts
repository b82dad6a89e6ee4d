/**
 * All watches of one process, over one stream to etcd.
 *
 *   watch(range, from) ─► create {id, from} ─► created ─► events, each with the value before
 *                                          └─► compacted: read the state, watch on from there
 *   the stream breaks, or a member sleeps ─► another stream, every watch again from where it is
 *
 * Nobody hears a silent stream die, so while anybody watches it is asked for its progress every two seconds, and left, with its member,
 * when it does not answer. A member without a leader ends the stream by itself (`hasleader`).
 */
import { background } from "../../base/background.ts";
import { ConclaveError, conclaveError } from "../../base/errors.ts";
import type { Platform, Timer } from "../../base/ports.ts";
import type { Change } from "../../client/feed-reader.ts";
import { FeedWatch } from "../../client/feed-watch.ts";
import type { ProcessHold } from "../../client/process-hold.ts";
import type { Entry } from "../../store/entry.ts";
import type { BinaryRange } from "../../store/key.ts";
import type { Revision, WatchBatch } from "../../store/store.ts";
import type { GrpcClient, GrpcFailure, GrpcStream } from "./grpc.ts";
import { errorOfGrpc } from "./grpc-errors.ts";
import type { EtcdKeys } from "./keys.ts";
import type { EtcdLink } from "./link.ts";
import {
  decodeWatch,
  type EtcdEvent,
  type EtcdWatchAnswer,
  encodeWatchCancel,
  encodeWatchCreate,
  encodeWatchProgress,
  paths,
} from "./messages.ts";

const progressMs = 2_000;
const againMs = 100;
const readyMs = 5_000;

export interface WatchStreamOptions {
  readonly link: EtcdLink;
  readonly keys: EtcdKeys;
  readonly platform: Platform;
  readonly processHold: ProcessHold;
  /** The present state of a range. */
  readonly read: (range: BinaryRange) => Promise<{ readonly revision: Revision; readonly entries: readonly Entry[] }>;
}

interface Opened {
  readonly stream: GrpcStream;
  readonly client: GrpcClient;
}

export class WatchStream {
  readonly #options: WatchStreamOptions;
  /** By the ids that they have on the present stream. */
  readonly #byId = new Map<number, FeedWatch>();
  readonly #watches = new Set<FeedWatch>();
  #opened: Opened | undefined;
  #isOpening = false;
  #lastId = 0;
  #progressTimer: Timer | undefined;
  #isHeard = true;
  #isClosed = false;

  constructor(options: WatchStreamOptions) {
    this.#options = options;
  }

  watch(
    range: BinaryRange,
    {
      from,
      signal,
      ref,
    }: { readonly from: Revision | undefined; readonly signal: AbortSignal | undefined; readonly ref: boolean },
  ): AsyncIterable<WatchBatch> {
    if (this.#isClosed) throw conclaveError("CLOSED", "The engine was closed.");
    const watch = new FeedWatch({
      range,
      from,
      signal,
      processHold: ref ? this.#options.processHold : undefined,
      onOverflow: (overflown) => this.#resync(overflown),
      onEnd: (ended) => this.#forget(ended),
    });
    if (watch.isOver) return watch;
    // etcd tells everything from `from` on, or says that it cannot.
    watch.isSyncing = false;
    this.#watches.add(watch);
    if (this.#opened === undefined) this.#openSoon();
    else this.#create(this.#opened, watch);
    return watch;
  }

  /** Another member is spoken to. */
  onMove(): void {
    if (this.#opened !== undefined) this.#drop(this.#opened, { leaves: false });
  }

  close(): void {
    this.#isClosed = true;
    for (const watch of [...this.#watches]) watch.end();
    if (this.#opened !== undefined) this.#drop(this.#opened, { leaves: false });
    this.#progressTimer?.cancel();
  }

  #openSoon(delayMs = 0): void {
    if (this.#isOpening || this.#isClosed) return;
    this.#isOpening = true;
    background(
      this.#open(delayMs).finally(() => {
        this.#isOpening = false;
        if (this.#opened === undefined && this.#watches.size > 0) this.#openSoon(againMs);
      }),
      "opening the stream of watches",
    );
  }

  async #open(delayMs: number): Promise<void> {
    const { link, platform } = this.#options;
    if (delayMs > 0) await new Promise<void>((resolve) => void platform.setTimer(delayMs, resolve));
    try {
      await link.ready(readyMs);
    } catch (error) {
      if (error instanceof ConclaveError && !error.retryable) for (const watch of [...this.#watches]) watch.fail(error);
      return;
    }
    if (this.#isClosed || this.#watches.size === 0) return;
    const opened = link.stream(paths.watch);
    this.#opened = opened;
    this.#isHeard = true;
    opened.stream.on("data", (message) => {
      if (this.#opened === opened) this.#onAnswer(opened, decodeWatch(message as Buffer));
    });
    opened.stream.on("error", (failure) => {
      if (this.#opened === opened) this.#onFailure(opened, failure);
    });
    opened.stream.on("end", () => {
      if (this.#opened === opened) this.#drop(opened, { leaves: false });
    });
    for (const watch of this.#watches) this.#create(opened, watch);
    this.#askForProgress(opened);
  }

  #create({ stream }: Opened, watch: FeedWatch): void {
    const id = ++this.#lastId;
    this.#byId.set(id, watch);
    stream.write(encodeWatchCreate({ id, span: this.#options.keys.span(watch.range), from: watch.next ?? 0 }));
  }

  #onAnswer(opened: Opened, answer: EtcdWatchAnswer): void {
    this.#isHeard = true;
    const watch = this.#byId.get(answer.id);
    if (watch === undefined) return;
    if (answer.isCanceled) {
      this.#byId.delete(answer.id);
      if (answer.compactRevision > 0) this.#resync(watch);
      else watch.fail(errorOfGrpc({ message: answer.reason, details: answer.reason }, "A watch of etcd"));
      return;
    }
    // From now on, as of the answer.
    if (answer.isCreated) watch.next ??= answer.revision + 1;
    this.#tell(opened, watch, answer.events);
  }

  /** One batch for each revision. */
  #tell(opened: Opened, watch: FeedWatch, events: readonly EtcdEvent[]): void {
    for (let at = 0; at < events.length; ) {
      const revision = (events[at] as EtcdEvent).entry.modRevision;
      const told: Change[] = [];
      for (; events[at]?.entry.modRevision === revision; at++) {
        const event = changeOf(events[at] as EtcdEvent, this.#options.keys);
        if (event === undefined) {
          // What was there before is no longer kept.
          this.#stop(opened, watch);
          this.#resync(watch);
          return;
        }
        told.push(event);
      }
      watch.onChanges(revision, told);
    }
  }

  /** Reads the state, tells it, and watches on from there. */
  #resync(watch: FeedWatch): void {
    if (this.#opened !== undefined) this.#stop(this.#opened, watch);
    background(this.#readFor(watch), "reading the state for a watch");
  }

  async #readFor(watch: FeedWatch): Promise<void> {
    while (!watch.isOver && !this.#isClosed) {
      try {
        const { entries, revision } = await this.#options.read(watch.range);
        watch.onState(revision, entries);
        if (watch.isOver) return;
        if (this.#opened === undefined) this.#openSoon();
        else this.#create(this.#opened, watch);
        return;
      } catch (error) {
        if (error instanceof ConclaveError && !error.retryable) {
          watch.fail(error);
          return;
        }
        await new Promise<void>((resolve) => void this.#options.platform.setTimer(againMs, resolve));
      }
    }
  }

  #stop({ stream }: Opened, watch: FeedWatch): void {
    for (const [id, each] of this.#byId) {
      if (each !== watch) continue;
      this.#byId.delete(id);
      stream.write(encodeWatchCancel(id));
    }
  }

  #forget(watch: FeedWatch): void {
    this.#watches.delete(watch);
    if (this.#opened !== undefined) this.#stop(this.#opened, watch);
  }

  #onFailure(opened: Opened, failure: GrpcFailure): void {
    const error = errorOfGrpc(failure, "The stream of watches");
    if (error.code === "UNAUTHORIZED") this.#options.link.forgetToken();
    this.#drop(opened, { leaves: true });
  }

  /** The watches stay, and go on over the next stream. */
  #drop(opened: Opened, { leaves }: { readonly leaves: boolean }): void {
    this.#opened = undefined;
    this.#byId.clear();
    this.#progressTimer?.cancel();
    opened.stream.cancel();
    if (leaves) this.#options.link.move(opened.client);
    if (this.#watches.size > 0) this.#openSoon(againMs);
  }

  #askForProgress(opened: Opened): void {
    this.#progressTimer?.cancel();
    this.#progressTimer = this.#options.platform.setTimer(progressMs, () => {
      if (this.#opened !== opened || this.#isClosed) return;
      if (this.#watches.size > 0) {
        if (!this.#isHeard) {
          this.#drop(opened, { leaves: true });
          return;
        }
        this.#isHeard = false;
        opened.stream.write(encodeWatchProgress());
      }
      this.#askForProgress(opened);
    });
  }
}

/** Undefined: it cannot be told, because the value before is not kept. */
function changeOf({ entry: found, isDelete, previous: before }: EtcdEvent, keys: EtcdKeys): Change | undefined {
  if (before === null && (isDelete || found.version > 1)) return undefined;
  const previous = before === null ? null : keys.entry(before);
  return { whole: found.key.slice(keys.prefix.length), previous, entry: isDelete ? null : keys.entry(found) };
}
