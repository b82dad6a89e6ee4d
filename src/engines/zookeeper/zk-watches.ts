/**
 * All watches of one process, over one connection: a persistent recursive watch for each namespace that is watched.
 *
 * ZooKeeper says that something has happened to a node, not what, and in order with the readings of the same connection. So an
 * event is a reason to read the ranges that it touches, and the state that is read is told: never every change, always
 * one no older than the last. After a reconnection everything is read, since events may have been missed.
 */
import { background } from "../../base/background.ts";
import { ConclaveError, conclaveError } from "../../base/errors.ts";
import type { Platform, Timer } from "../../base/ports.ts";
import { FeedWatch } from "../../client/feed-watch.ts";
import type { ProcessHold } from "../../client/process-hold.ts";
import { Entry } from "../../store/entry.ts";
import { type BinaryRange, isInRange, stripNamespace } from "../../store/key.ts";
import type { Revision, WatchBatch } from "../../store/store.ts";
import { namespaceOfRange, type ZkPaths } from "./paths.ts";
import { addWatch, codes, errorOfCode, removeWatches } from "./protocol.ts";
import { type Guesses, readScene } from "./scene.ts";
import type { ZkClient } from "./zk-client.ts";

const lingerMs = 30_000;
const againMs = 100;
const readTimeoutMs = 10_000;
/** Watches read for in one go. */
const togetherMax = 50;

export interface ZkWatchesOptions {
  readonly main: () => Promise<ZkClient>;
  readonly paths: ZkPaths;
  readonly guesses: Guesses;
  readonly platform: Platform;
  readonly processHold: ProcessHold;
}

/** One namespace. */
interface Watched {
  readonly namespace: string;
  readonly watches: Set<FeedWatch>;
  /** Whose ranges may have changed since they were read. */
  readonly dirty: Set<FeedWatch>;
  /** The client on which the watch stands; undefined: on none. */
  armed: ZkClient | undefined;
  isReading: boolean;
  linger: Timer | undefined;
}

export class ZkWatches {
  readonly #options: ZkWatchesOptions;
  readonly #byNamespace = new Map<string, Watched>();
  #isClosed = false;

  constructor(options: ZkWatchesOptions) {
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
    const watched = this.#watched(namespaceOfRange(range));
    const again = (watch: FeedWatch): void => {
      watched.dirty.add(watch);
      this.#readSoon(watched);
    };
    const watch = new FeedWatch({
      range,
      from,
      signal,
      processHold: ref ? this.#options.processHold : undefined,
      onOverflow: again,
      onEnd: (ended) => this.#forget(watched, ended),
    });
    if (watch.isOver) return watch;
    watched.linger?.cancel();
    watched.watches.add(watch);
    again(watch);
    return watch;
  }

  onEvent(path: string): void {
    const place = this.#options.paths.parse(path);
    const watched = place === undefined ? undefined : this.#byNamespace.get(place.namespace);
    // The namespace's own node changes with every write, of which the keys tell too.
    if (place?.whole === undefined || watched === undefined) return;
    for (const watch of watched.watches) if (isInRange(watch.range, place.whole)) watched.dirty.add(watch);
    if (watched.dirty.size > 0) this.#readSoon(watched);
  }

  /** A connection stands again, perhaps to another server: watches are the connection's. */
  onConnected(): void {
    for (const watched of this.#byNamespace.values()) {
      watched.armed = undefined;
      for (const watch of watched.watches) watched.dirty.add(watch);
      this.#readSoon(watched);
    }
  }

  close(): void {
    this.#isClosed = true;
    for (const { linger, watches } of this.#byNamespace.values()) {
      linger?.cancel();
      for (const watch of [...watches]) watch.end();
    }
    this.#byNamespace.clear();
  }

  #watched(namespace: string): Watched {
    let watched = this.#byNamespace.get(namespace);
    if (watched === undefined) {
      const nobody = { watches: new Set<FeedWatch>(), dirty: new Set<FeedWatch>() };
      watched = { namespace, ...nobody, armed: undefined, isReading: false, linger: undefined };
      this.#byNamespace.set(namespace, watched);
    }
    return watched;
  }

  #forget(watched: Watched, watch: FeedWatch): void {
    watched.watches.delete(watch);
    watched.dirty.delete(watch);
    if (watched.watches.size > 0 || this.#isClosed) return;
    watched.linger?.cancel();
    watched.linger = this.#options.platform.setTimer(lingerMs, () => {
      if (watched.watches.size > 0) return;
      this.#byNamespace.delete(watched.namespace);
      background(this.#disarm(watched), "taking a watch away");
    });
  }

  #readSoon(watched: Watched): void {
    if (watched.isReading || this.#isClosed) return;
    watched.isReading = true;
    background(
      this.#readAll(watched).finally(() => {
        watched.isReading = false;
        if (watched.dirty.size > 0) this.#readSoon(watched);
      }),
      "reading the state for watches",
    );
  }

  async #readAll(watched: Watched): Promise<void> {
    while (watched.dirty.size > 0 && !this.#isClosed) {
      const together = [...watched.dirty].slice(0, togetherMax);
      // What happens from here on marks them again.
      for (const watch of together) watched.dirty.delete(watch);
      try {
        await this.#readFor(watched, together);
      } catch (error) {
        if (error instanceof ConclaveError && !error.retryable && error.code !== "SESSION_EXPIRED") {
          for (const watch of together) watch.fail(error);
          continue;
        }
        if (!(error instanceof ConclaveError)) throw error;
        for (const watch of together) if (!watch.isOver) watched.dirty.add(watch);
        await new Promise<void>((resolve) => void this.#options.platform.setTimer(againMs, resolve));
      }
    }
  }

  async #readFor(watched: Watched, watches: readonly FeedWatch[]): Promise<void> {
    const { guesses, main, paths, platform } = this.#options;
    const client = await main();
    const call = { timeoutMs: readTimeoutMs };
    if (watched.armed !== client) {
      const [armed] = await client.call([addWatch(paths.namespace(watched.namespace))], call);
      if (armed.code !== codes.ok) throw errorOfCode(armed.code, "Watching");
      watched.armed = client;
    }
    const untilMs = platform.now() + readTimeoutMs;
    const sight = watches.map(({ range }) => range);
    // No sync: what the event told of, this server knows.
    const isTimeUp = (): boolean => platform.now() > untilMs;
    const scene = await readScene(sight, { client, paths, guesses, freshness: "any", call, isTimeUp });
    for (const watch of watches) {
      const entries = [...scene.nodes.values()]
        .map(({ entry }) => entry)
        .filter((entry) => isInRange(watch.range, entry.binaryKey));
      watch.onState(scene.revision, entries.sort((left, right) => (left.binaryKey < right.binaryKey ? -1 : 1)).map(shown));
    }
  }

  async #disarm(watched: Watched): Promise<void> {
    const { armed } = watched;
    if (armed === undefined || armed.isOver) return;
    try {
      await armed.call([removeWatches(this.#options.paths.namespace(watched.namespace))], { timeoutMs: readTimeoutMs });
    } catch (error) {
      // A watch that stays only costs events that nobody reads.
      if (!(error instanceof ConclaveError)) throw error;
    }
  }
}

function shown(entry: Entry): Entry {
  return new Entry({ ...entry, binaryKey: stripNamespace(entry.binaryKey) });
}
