/**
 * The feeds of all namespaces that this process watches, over the one push channel.
 */
import { conclaveError } from "../base/errors.ts";
import type { Platform } from "../base/ports.ts";
import type { ResolvedTxn } from "../store/command.ts";
import type { BinaryRange } from "../store/key.ts";
import type { Revision, TxnResult, WatchBatch } from "../store/store.ts";
import { DepartureWatch, type DepartureWatchOptions } from "./departure-watch.ts";
import { type ChangeMessage, Feed, type Push, type PushHandler } from "./feed.ts";
import { FeedWatch } from "./feed-watch.ts";
import type { ProcessHold } from "./process-hold.ts";

export interface FeedHubOptions {
  readonly channelOf: (binaryNamespace: string) => string;
  readonly platform: Platform;
  readonly processHold: ProcessHold;
  readonly openPush: (handler: PushHandler) => Push;
  readonly read: (txn: ResolvedTxn) => Promise<TxnResult>;
  readonly onWatch: () => void;
}

export class FeedHub implements PushHandler {
  readonly #options: FeedHubOptions;
  readonly #feeds = new Map<string, Feed>();
  /** Opened with the first watch: who never waits needs no second connection. */
  #push: Push | undefined;
  #isClosed = false;

  constructor(options: FeedHubOptions) {
    this.#options = options;
  }

  get isWatched(): boolean {
    for (const feed of this.#feeds.values()) if (feed.isWatched) return true;
    return false;
  }

  watch(
    binaryNamespace: string,
    {
      range,
      from,
      signal,
    }: { readonly range: BinaryRange; readonly from: Revision | undefined; readonly signal: AbortSignal | undefined },
  ): AsyncIterable<WatchBatch> {
    if (this.#isClosed) throw conclaveError("CLOSED", "The engine was closed.");
    const { processHold } = this.#options;
    const feed = this.#feed(binaryNamespace);
    const watch = new FeedWatch({
      range,
      from,
      signal,
      processHold,
      onOverflow: () => feed.onOverflow(),
      onEnd: (ended) => feed.remove(ended),
    });
    if (!watch.isOver) feed.add(watch);
    this.#options.onWatch();
    return watch;
  }

  /** A waiter that is told of its turn; see `DepartureWatch`. Answers with what ends it. */
  watchDepartures(binaryNamespace: string, options: Omit<DepartureWatchOptions, "onEnd">): () => void {
    if (this.#isClosed) throw conclaveError("CLOSED", "The engine was closed.");
    const feed = this.#feed(binaryNamespace);
    const watch = new DepartureWatch({ ...options, onEnd: (ended) => feed.remove(ended) });
    feed.add(watch);
    this.#options.onWatch();
    return () => watch.end();
  }

  onSubscribed(channel: string): void {
    this.#feeds.get(channel)?.onSubscribed();
  }

  onMessage(channel: string, message: ChangeMessage): void {
    this.#feeds.get(channel)?.onMessage(message);
  }

  reopen(): void {
    this.#push?.reopen?.();
  }

  close(): void {
    this.#isClosed = true;
    for (const feed of this.#feeds.values()) feed.end();
    this.#feeds.clear();
    this.#push?.close();
  }

  #feed(binaryNamespace: string): Feed {
    const { channelOf, platform, read } = this.#options;
    const channel = channelOf(binaryNamespace);
    let feed = this.#feeds.get(channel);
    if (feed !== undefined) return feed;
    this.#push ??= this.#options.openPush(this);
    const onIdle = (): void => {
      this.#feeds.get(channel)?.end();
      this.#feeds.delete(channel);
    };
    feed = new Feed({ channel, push: this.#push, platform, read, onIdle });
    this.#feeds.set(channel, feed);
    return feed;
  }
}
