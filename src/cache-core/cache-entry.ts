/**
 * A value in this process, with what is needed to say whether it may be served.
 */
import { keyHash } from "./key-hash.ts";

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

/** A class for the reason given at `Call` in guarded-l2.ts. */
export class CacheEntry<V> {
  // In this order: what a hit looks at lies together at the front of the object.
  readonly value: V;
  /** The history's count at which it was last found valid. */
  changes = -1;
  /**
   * `freshUntilMs` in whole ticks, rounded down: a small integer, which an engine keeps in the object itself, where a fraction
   * is one more look into memory. Before this tick it is fresh; from it on `freshUntilMs` is asked.
   */
  readonly freshTick: number;
  /** Of the value, made once it is first awaited. */
  promise: Promise<V> | undefined = undefined;
  readonly key: string;
  readonly keyHash: number;
  readonly life: number;
  readonly tags: readonly string[];
  readonly tagHashes: readonly number[];
  /** The revision before the load: everything up to it is in the value. */
  readonly stamp: number;
  /** Invariant: nothing up to here has invalidated it, >= stamp. */
  since: number;
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
  retryMs = 0;

  constructor(parts: EntryParts<V>) {
    const { tags, stamp, nowMs, deltaMs, earlyRefresh } = parts;
    const freshUntilMs = nowMs + parts.freshForMs;
    this.value = parts.value;
    this.freshTick = Math.min(Math.floor(freshUntilMs / tickMs), tickMax);
    this.key = parts.key;
    this.keyHash = parts.keyHash;
    this.life = parts.life;
    this.tags = tags;
    this.tagHashes = tags.length === 0 ? noTags : tags.map(keyHash);
    this.stamp = stamp;
    this.since = stamp;
    this.loadedMs = nowMs;
    this.freshUntilMs = freshUntilMs;
    this.keepUntilMs = freshUntilMs + parts.graceMs;
    this.earlyMs = earlyRefresh === 0 ? Number.POSITIVE_INFINITY : freshUntilMs - deltaMs * earlyRefresh * earlyWindow;
    this.deltaMs = deltaMs;
    this.etag = parts.etag;
  }
}

/**
 * Whether this read should load the value early. The nearer the expiry and the dearer the load, the likelier.
 * Source: Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015, algorithm XFetch.
 */
export function drawsEarly(entry: CacheEntry<unknown>, draw: { nowMs: number; earlyRefresh: number; uint32: number }): boolean {
  const { nowMs, earlyRefresh, uint32 } = draw;
  return nowMs - entry.deltaMs * earlyRefresh * Math.log((uint32 + 1) / 2 ** 32) >= entry.freshUntilMs;
}
