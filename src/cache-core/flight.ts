/**
 * A value on its way into the cache: one per key and process, joined by everybody who asks meanwhile.
 *
 * An invalidation detaches it: who had joined before gets its value, who comes after begins another one, and what it brings
 * is stored nowhere. Nothing is told to the flight for that: each who comes, and the flight itself at its end, looks
 * whether the history knows of something newer than the flight's revision.
 */
import type { CacheEntry } from "./cache-entry.ts";
import type { InvalidationHistory } from "./invalidation-history.ts";
import type { LoadContext } from "./load-context.ts";
import type { ReadOptions } from "./options.ts";

/** What a flight has brought. */
export interface Landing<V> {
  readonly value: V | undefined;
  /** The revision before its load. */
  readonly stamp: number;
  readonly tagHashes: readonly number[];
}

/** How a flight ends. */
export type FlightEnd<V> =
  | { readonly kind: "landed"; readonly landing: Landing<V> }
  | { readonly kind: "failed"; readonly error: unknown };

/** What comes first of a flight: a value in its grace that L2 had, or its end. */
export type FirstNews<V> = { readonly kind: "stale"; readonly entry: CacheEntry<V> } | FlightEnd<V>;

/** What is known when it begins. */
export interface Departure {
  readonly key: string;
  readonly keyHash: number;
  /** A revision that was committed before it began: the load sees everything up to it. */
  readonly floor: number;
  /** The history's counts when it began. */
  readonly changes: number;
  readonly life: number;
  /** Monotonic. */
  readonly startedMs: number;
  /** It asks nobody but the origin. */
  readonly isDirect: boolean;
}

/** How its value is to be loaded and kept. */
export interface FlightPlan<V> {
  readonly load: (context: LoadContext<V>) => V | undefined | PromiseLike<V | undefined>;
  /** Of the call; they overrule the cache's. */
  readonly options: ReadOptions;
  /** Asks nobody but the origin. */
  readonly isDirect: boolean;
  /** What L2 holds must be newer than this to be taken. */
  readonly newerThan: CacheEntry<V> | undefined;
  /** Called once when it must wait for another process, or is found: it needs no load for now. */
  readonly onParked: (() => void) | undefined;
  /** Hears the first news, and throws nothing: for who would wait for it and for nothing else. */
  onFirst?(flight: Flight<V>, news: FirstNews<V>): void;
}

export class Flight<V> implements Departure {
  readonly key: string;
  readonly keyHash: number;
  readonly floor: number;
  readonly changes: number;
  readonly life: number;
  readonly startedMs: number;
  readonly isDirect: boolean;
  readonly plan: FlightPlan<V>;
  /** What L2 had in its grace, for those who would rather not wait for the load. */
  stale: CacheEntry<V> | undefined;
  #first: FirstNews<V> | undefined;
  #ended: FlightEnd<V> | undefined;
  /** Both made when somebody asks for them: who began it may hear of it by its plan, and most are content with the first news. */
  #firstNews: Promised<FirstNews<V>> | undefined;
  #whenEnded: Promised<FlightEnd<V>> | undefined;

  constructor({ key, keyHash, floor, changes, life, startedMs, isDirect }: Departure, plan: FlightPlan<V>) {
    this.key = key;
    this.keyHash = keyHash;
    this.floor = floor;
    this.changes = changes;
    this.life = life;
    this.startedMs = startedMs;
    this.isDirect = isDirect;
    this.plan = plan;
  }

  /** Never rejects. */
  get firstNews(): Promise<FirstNews<V>> {
    if (this.#first !== undefined) return Promise.resolve(this.#first);
    this.#firstNews ??= promised();
    return this.#firstNews.promise;
  }

  /** Never rejects. */
  get whenEnded(): Promise<FlightEnd<V>> {
    if (this.#ended !== undefined) return Promise.resolve(this.#ended);
    this.#whenEnded ??= promised();
    return this.#whenEnded.promise;
  }

  offerStale(entry: CacheEntry<V>): void {
    this.stale = entry;
    this.#tellFirst({ kind: "stale", entry });
  }

  /** Once. */
  end(end: FlightEnd<V>): void {
    this.#ended = end;
    this.#tellFirst(end);
    this.#whenEnded?.resolve(end);
  }

  #tellFirst(news: FirstNews<V>): void {
    if (this.#first !== undefined) return;
    this.#first = news;
    this.plan.onFirst?.(this, news);
    this.#firstNews?.resolve(news);
  }
}

interface Promised<T> {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
}

function promised<T>(): Promised<T> {
  let resolve!: (value: T) => void;
  const promise = new Promise<T>((resolver) => {
    resolve = resolver;
  });
  return { promise, resolve };
}

const noTags: readonly number[] = [];

/** Whether somebody who comes now may have what it brings, as far as can be said before it lands. */
export function mayJoin(flight: Departure, history: InvalidationHistory): boolean {
  return flight.changes === history.changes || history.isValid({ ...flight, tagHashes: noTags }, flight.floor);
}

/** Whether somebody who came after `flight` began, when the history was at `changes`, may have what it brought. */
export function mayHave(
  flight: Departure,
  { landing, changes, history }: { landing: Landing<unknown>; changes: number; history: InvalidationHistory },
): boolean {
  if (changes === flight.changes) return true;
  const { key, keyHash, life } = flight;
  return history.isValid({ key, keyHash, life, tagHashes: landing.tagHashes }, landing.stamp);
}
