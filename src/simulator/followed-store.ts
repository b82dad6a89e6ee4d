/**
 * The store of the cache's world: that of `process-store.ts`, with watches that fall silent, lag, merge and lose their place,
 * and a store that may be replaced by an empty one behind everybody's back.
 *
 * All of it is within what `Store` promises, but for two things that happen all the same: a watch that stays silent for ever
 * on a connection that died one way, and a store that forgot everything (`memory:` started anew).
 */
import { namespacePrefix, wholeRange } from "../store/key.ts";
import { strippedEntry, toWatchEvent } from "../store/outcome.ts";
import type { KeyRange, Session, SessionOptions, WatchBatch, WatchEvent, WatchOptions } from "../store/store.ts";
import type { LocalServer } from "../testing/local-server.ts";
import { ProcessStore, type ProcessStoreParts } from "./process-store.ts";

export interface FollowedStoreParts extends ProcessStoreParts {
  /** A batch of a watch of this prefix has reached its reader, from this store. */
  readonly onTold: (prefix: string, revision: number, server: LocalServer) => void;
}

export class FollowedStore extends ProcessStore {
  readonly #parts: FollowedStoreParts;
  #session: Promise<Session> | undefined;
  #deafUntilMs = 0;
  readonly #watches = new Set<LaggingWatch>();

  constructor(parts: FollowedStoreParts) {
    super(parts);
    this.#parts = parts;
  }

  /** Watches hear nothing for so long; calls get through. */
  deafen(durationMs: number): void {
    this.#deafUntilMs = this.#parts.queue.nowMs + durationMs;
  }

  /** Every watch that is open now will never hear anything again. */
  killWatches(): void {
    for (const watch of this.#watches) watch.isDead = true;
  }

  override async sharedSession(options: SessionOptions = {}): Promise<Session> {
    const opening = this.#session ?? this.session(options);
    this.#session = opening;
    const session = await opening.catch((error: unknown) => {
      if (this.#session === opening) this.#session = undefined;
      throw error;
    });
    if (session.alive) return session;
    if (this.#session === opening) this.#session = undefined;
    return this.sharedSession(options);
  }

  override watch(range: KeyRange, options: WatchOptions = {}): AsyncIterable<WatchBatch> {
    const watch = new LaggingWatch(this.#parts, {
      range,
      from: options.from,
      signal: options.signal,
      deafUntilMs: () => this.#deafUntilMs,
      onEnd: () => this.#watches.delete(watch),
    });
    this.#watches.add(watch);
    return watch;
  }
}

interface LaggingWatchOptions {
  readonly range: KeyRange;
  readonly from: number | undefined;
  readonly signal: AbortSignal | undefined;
  readonly deafUntilMs: () => number;
  readonly onEnd: () => void;
}

class LaggingWatch implements AsyncIterable<WatchBatch> {
  isDead = false;
  readonly #parts: FollowedStoreParts;
  readonly #options: LaggingWatchOptions;
  readonly #server: LocalServer;
  readonly #unsubscribe: () => void;
  #next: number;
  #isDue = false;
  #isOver = false;
  readonly #batches: WatchBatch[] = [];
  #wake: (() => void) | undefined;

  constructor(parts: FollowedStoreParts, options: LaggingWatchOptions) {
    this.#parts = parts;
    this.#options = options;
    this.#server = parts.server;
    this.#next = options.from ?? this.#server.machine.revision + 1;
    this.#unsubscribe = this.#server.machine.subscribe(() => this.#later());
    options.signal?.addEventListener("abort", () => this.#end(), { once: true });
    if (options.signal?.aborted) this.#end();
    if (this.#next <= this.#server.machine.revision) this.#later();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<WatchBatch, void, void> {
    try {
      while (!this.#isOver) {
        const batch = this.#batches.shift();
        if (batch === undefined) {
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
          continue;
        }
        const { range } = this.#options;
        if ("prefix" in range) this.#parts.onTold(String(range.prefix), batch.revision, this.#server);
        yield batch;
      }
    } finally {
      this.#end();
    }
  }

  #later(): void {
    if (this.#isDue || this.#isOver) return;
    this.#isDue = true;
    const { queue, random, isCalm } = this.#parts;
    const lagMs = isCalm() || !random.chance(0.05) ? random.between(0.1, 5) : random.between(50, 2_000);
    const deafMs = this.#options.deafUntilMs() - queue.nowMs;
    queue.schedule(Math.max(lagMs, deafMs), () => this.#tell());
  }

  #tell(): void {
    this.#isDue = false;
    if (this.#isOver || this.isDead) return;
    const { queue, random, process } = this.#parts;
    if (this.#options.deafUntilMs() > queue.nowMs) {
      this.#later();
      return;
    }
    const batch = this.#batch();
    if (batch === undefined) return;
    this.#next = batch.revision + 1;
    process.run(() => {
      this.#batches.push(batch);
      this.#wake?.();
    });
    if (random.chance(0.02)) this.#later();
  }

  #batch(): WatchBatch | undefined {
    const { random } = this.#parts;
    const { machine } = this.#server;
    const range = wholeRange(namespacePrefix(this.#parts.namespace), this.#options.range, ProcessStore.limits);
    const changes = machine.changesSince(range, this.#next);
    if (changes.kind === "resync" || random.chance(0.03)) {
      const { revision, entries } = machine.entriesIn(range);
      return revision < this.#next ? undefined : { kind: "resync", revision, entries: entries.map(strippedEntry) };
    }
    if (changes.events.length === 0) return undefined;
    const events = changes.events.map(toWatchEvent);
    // Told in one batch they may be merged: of each key the last.
    const told = random.chance(0.3) ? lastOfEach(events) : events;
    return { kind: "changes", revision: changes.revision, events: told };
  }

  #end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#unsubscribe();
    this.#options.onEnd();
    this.#wake?.();
  }
}

function lastOfEach(events: readonly WatchEvent[]): WatchEvent[] {
  const last = new Map(events.map((event) => [event.key, event]));
  return events.filter((event) => last.get(event.key) === event);
}
