/**
 * A value in this process, with what is needed to say whether it may be served.
 */
import { keyHash } from "./key-hash.ts";

export interface CacheEntry<V> {
  readonly key: string;
  readonly keyHash: number;
  readonly life: number;
  readonly tags: readonly string[];
  readonly tagHashes: readonly number[];
  readonly value: V;
  /** Of the value, made once it is first awaited. */
  promise: Promise<V> | undefined;
  /** The revision before the load: everything up to it is in the value. */
  readonly stamp: number;
  /** Invariant: nothing up to here has invalidated it, >= stamp. */
  since: number;
  /** The history's count at which it was last found valid. */
  changes: number;
  /**
   * `freshUntilMs` in whole ticks, rounded down: a small integer, which an engine keeps in the object itself, where a fraction
   * is one more look into memory. Before this tick it is fresh; from it on `freshUntilMs` is asked.
   */
  readonly freshTick: number;
  /** Monotonic moments of this process. */
  readonly loadedMs: number;
  readonly freshUntilMs: number;
  readonly keepUntilMs: number;
  /** From here on a read may draw the lot of loading it early. */
  earlyMs: number;
  /** How long the load took. */
  readonly deltaMs: number;
  readonly etag: string | undefined;
  /** After a failed refresh: the next one not before this. */
  retryMs: number;
}

export interface EntryParts<V> {
  readonly key: string;
  readonly keyHash: number;
  readonly life: number;
  readonly tags: readonly string[];
  readonly value: V;
  readonly stamp: number;
  readonly nowMs: number;
  readonly freshForMs: number;
  readonly graceMs: number;
  readonly deltaMs: number;
  readonly etag: string | undefined;
  /** XFetch's beta. */
  readonly earlyRefresh: number;
}

const noTags: readonly number[] = [];
export const tickMs = 8;
/** Later ticks than this (200 days of uptime) are no small integers: the exact time is asked. */
const tickMax = 2 ** 31 - 1;
/** The lot is drawn only where it wins more often than once in e^10. */
const earlyWindow = 10;

export function makeEntry<V>(parts: EntryParts<V>): CacheEntry<V> {
  const { key, tags, value, stamp, nowMs, freshForMs, graceMs, deltaMs, etag, earlyRefresh } = parts;
  const freshUntilMs = nowMs + freshForMs;
  return {
    // In this order: what a hit looks at lies together at the front of the object.
    value,
    changes: -1,
    freshTick: Math.min(Math.floor(freshUntilMs / tickMs), tickMax),
    promise: undefined,
    key,
    keyHash: parts.keyHash,
    life: parts.life,
    tags,
    tagHashes: tags.length === 0 ? noTags : tags.map(keyHash),
    stamp,
    since: stamp,
    loadedMs: nowMs,
    freshUntilMs,
    keepUntilMs: freshUntilMs + graceMs,
    earlyMs: earlyRefresh === 0 ? Number.POSITIVE_INFINITY : freshUntilMs - deltaMs * earlyRefresh * earlyWindow,
    deltaMs,
    etag,
    retryMs: 0,
  };
}

/**
 * Whether this read should load the value early. The nearer the expiry and the dearer the load, the likelier.
 * Source: Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015, algorithm XFetch.
 */
export function drawsEarly(entry: CacheEntry<unknown>, draw: { nowMs: number; earlyRefresh: number; uint32: number }): boolean {
  const { nowMs, earlyRefresh, uint32 } = draw;
  return nowMs - entry.deltaMs * earlyRefresh * Math.log((uint32 + 1) / 2 ** 32) >= entry.freshUntilMs;
}
