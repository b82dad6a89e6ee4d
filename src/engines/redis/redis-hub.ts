/**
 * The feeds of all namespaces that this process watches, over the one push channel.
 */
import { conclaveError } from "../../base/errors.ts";
import type { Platform } from "../../base/ports.ts";
import type { ProcessHold } from "../../client/process-hold.ts";
import type { ResolvedTxn } from "../../store/command.ts";
import type { BinaryRange } from "../../store/key.ts";
import type { Revision, TxnResult, WatchBatch } from "../../store/store.ts";
import type { PushHandler, RedisPush } from "./push.ts";
import { RedisFeed } from "./redis-feed.ts";
import { RedisWatch } from "./redis-watch.ts";
import { channelOf } from "./script-caller.ts";

export interface RedisHubOptions {
  readonly group: string;
  readonly platform: Platform;
  readonly processHold: ProcessHold;
  readonly openPush: (handler: PushHandler) => RedisPush;
  readonly read: (txn: ResolvedTxn) => Promise<TxnResult>;
  readonly onWatch: () => void;
}

export class RedisHub implements PushHandler {
  readonly #options: RedisHubOptions;
  readonly #feeds = new Map<string, RedisFeed>();
  /** Opened with the first watch: who never waits needs no second connection. */
  #push: RedisPush | undefined;
  #isClosed = false;

  constructor(options: RedisHubOptions) {
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
    const watch = new RedisWatch({
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

  onSubscribed(channel: string): void {
    this.#feeds.get(channel)?.onSubscribed();
  }

  onMessage(channel: string, payload: Buffer): void {
    this.#feeds.get(channel)?.onMessage(payload);
  }

  close(): void {
    this.#isClosed = true;
    for (const feed of this.#feeds.values()) feed.end();
    this.#feeds.clear();
    this.#push?.close();
  }

  #feed(binaryNamespace: string): RedisFeed {
    const { group, platform, read } = this.#options;
    const channel = channelOf(group, binaryNamespace);
    let feed = this.#feeds.get(channel);
    if (feed !== undefined) return feed;
    this.#push ??= this.#options.openPush(this);
    const onIdle = (): void => {
      this.#feeds.get(channel)?.end();
      this.#feeds.delete(channel);
    };
    feed = new RedisFeed({ channel, push: this.#push, platform, read, onIdle });
    this.#feeds.set(channel, feed);
    return feed;
  }
}
