/**
 * The first tier with its gatekeeper: nothing leaves it that was invalidated, and nothing at all while it is not known
 * whether something was.
 *
 * Invalidations are not carried to the entries; entries are checked against the history when they are asked for, and only
 * when the history has changed since. So a tag on a million entries is invalidated in one step, and a hit compares two numbers.
 */
import { type CacheEntry, tickMs } from "./cache-entry.ts";
import type { Follower } from "./follower.ts";
import type { InvalidationHistory } from "./invalidation-history.ts";
import type { L1Store } from "./map-l1.ts";
import type { CacheMetrics } from "./metrics.ts";
import type { TurnClock } from "./turn-clock.ts";

export interface ShelfParts<V> {
  readonly l1: L1Store<CacheEntry<V>>;
  readonly history: InvalidationHistory;
  readonly follower: Pick<Follower, "trustedUntilMs" | "proofMs">;
  readonly metrics: CacheMetrics;
  readonly clock: TurnClock;
  /** Undefined: each entry counts 1. */
  readonly weigh: ((value: V) => number) | undefined;
}

/** No entry's `freshTick` is later. */
const never = 2 ** 31 - 1;

export class Shelf<V> {
  readonly #l1: L1Store<CacheEntry<V>>;
  readonly #history: InvalidationHistory;
  readonly #follower: Pick<Follower, "trustedUntilMs" | "proofMs">;
  readonly #metrics: CacheMetrics;
  readonly #weigh: ((value: V) => number) | undefined;
  readonly #clock: TurnClock;
  /** Of the clock's last look, in whole ticks; while nothing may be trusted, later than any entry is fresh. */
  #tick = never;

  constructor({ l1, history, follower, metrics, clock, weigh }: ShelfParts<V>) {
    this.#l1 = l1;
    this.#history = history;
    this.#follower = follower;
    this.#metrics = metrics;
    this.#clock = clock;
    this.#weigh = weigh;
  }

  /** What is there, fit or not. A use. */
  find(key: string): CacheEntry<V> | undefined {
    return this.#l1.get(key);
  }

  /**
   * The hit path: fresh, valid, and known to be. Trust is asked for when the clock is looked at: between two looks it can only
   * fall by another store's coming, and that makes every entry invalid.
   */
  isServable(entry: CacheEntry<V>): boolean {
    if (this.#clock.isDue()) this.#look();
    if (entry.freshTick > this.#tick && entry.changes === this.#history.changes) return true;
    return this.#isServableExactly(entry);
  }

  #isServableExactly(entry: CacheEntry<V>): boolean {
    const { nowMs } = this.#clock;
    return nowMs < entry.freshUntilMs && this.isTrusted(nowMs) && this.isValid(entry);
  }

  /** Reads of one look at the clock have one age. */
  #look(): void {
    const nowMs = this.#clock.look();
    this.#tick = never;
    if (!this.isTrusted(nowMs)) return;
    this.#tick = Math.floor(nowMs / tickMs);
    const ageMs = nowMs - this.#follower.proofMs;
    if (ageMs > this.#metrics.proofAgeMsMax) this.#metrics.proofAgeMsMax = ageMs;
  }

  isTrusted(nowMs: number): boolean {
    return nowMs <= this.#follower.trustedUntilMs;
  }

  /** Fresh or in its grace, and valid as far as is known. */
  valid(key: string, nowMs: number): CacheEntry<V> | undefined {
    const entry = this.#l1.get(key);
    if (entry === undefined) return undefined;
    if (nowMs >= entry.keepUntilMs) {
      this.#l1.delete(key);
      return undefined;
    }
    return this.isValid(entry) ? entry : undefined;
  }

  isValid(entry: CacheEntry<V>): boolean {
    return entry.changes === this.#history.changes || this.#revalidate(entry);
  }

  /** Whether it was fit to be kept. An older load never replaces a newer one. */
  put(entry: CacheEntry<V>): boolean {
    if (!this.isValid(entry)) return false;
    const present = this.#l1.peek(entry.key);
    if (present !== undefined && present.stamp > entry.stamp && this.isValid(present)) return false;
    this.#l1.set(entry.key, entry, this.#weigh?.(entry.value));
    return true;
  }

  drop(key: string): void {
    this.#l1.delete(key);
  }

  /** Unless something newer stands there. */
  dropOlder(key: string, stamp: number): void {
    const present = this.#l1.peek(key);
    if (present !== undefined && present.stamp <= stamp) this.#l1.delete(key);
  }

  clear(): void {
    this.#l1.clear();
  }

  get size(): number {
    return this.#l1.size;
  }

  peek(key: string): CacheEntry<V> | undefined {
    return this.#l1.peek(key);
  }

  #revalidate(entry: CacheEntry<V>): boolean {
    if (this.#history.confirm(entry)) return true;
    this.#metrics.invalidated++;
    if (this.#l1.peek(entry.key) === entry) this.#l1.delete(entry.key);
    return false;
  }
}
