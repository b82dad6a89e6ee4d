/**
 * A value on its way into the cache: one per key and process, joined by everybody who asks meanwhile.
 *
 * An invalidation detaches it: who had joined before gets its value, who comes after begins another one, and what it brings
 * is stored nowhere. Nothing is told to the flight for that: each who comes, and the flight itself at its end, looks
 * whether the history knows of something newer than the flight's revision.
 */
import type { CacheEntry } from "./cache-entry.ts";
import type { InvalidationHistory } from "./invalidation-history.ts";

/** What a flight has brought. */
export interface Landing<V> {
  readonly value: V | undefined;
  /** The revision before its load. */
  readonly stamp: number;
  readonly tagHashes: readonly number[];
}

/** What comes first of a flight: a value in its grace that L2 had, or its end. Never a rejection. */
export type FirstNews<V> =
  | { readonly kind: "stale"; readonly entry: CacheEntry<V> }
  | { readonly kind: "landed"; readonly landing: Landing<V> }
  | { readonly kind: "failed"; readonly error: unknown };

export interface Flight<V> {
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
  landing: Promise<Landing<V>>;
  /** What L2 had in its grace, for those who would rather not wait for the load. */
  stale: CacheEntry<V> | undefined;
  readonly firstNews: Promise<FirstNews<V>>;
}

const noTags: readonly number[] = [];

/** Whether somebody who comes now may have what it brings, as far as can be said before it lands. */
export function mayJoin(flight: Flight<unknown>, history: InvalidationHistory): boolean {
  return flight.changes === history.changes || history.isValid({ ...flight, tagHashes: noTags }, flight.floor);
}

/** Whether somebody who came after `flight` began, when the history was at `changes`, may have what it brought. */
export function mayHave(
  flight: Flight<unknown>,
  { landing, changes, history }: { landing: Landing<unknown>; changes: number; history: InvalidationHistory },
): boolean {
  if (changes === flight.changes) return true;
  const { key, keyHash, life } = flight;
  return history.isValid({ key, keyHash, life, tagHashes: landing.tagHashes }, landing.stamp);
}
