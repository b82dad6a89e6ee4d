/**
 * L2 in terms of entries: what comes out of it was judged by the Store's counters before anybody sees it.
 */
import { CacheEntry } from "./cache-entry.ts";
import { openEnvelope, sealEnvelope } from "./envelope.ts";
import type { failed, GuardedL2, TextListener } from "./guarded-l2.ts";
import type { InvalidationHistory } from "./invalidation-history.ts";
import type { Codec } from "./l2.ts";
import type { CacheMetrics } from "./metrics.ts";

export interface SecondTierParts {
  readonly l2: GuardedL2;
  readonly codec: Codec;
  readonly history: InvalidationHistory;
  readonly metrics: CacheMetrics;
  readonly now: () => number;
  readonly epoch: () => string | undefined;
  readonly earlyRefresh: number;
  readonly onPoisoned: (key: string, why: string) => void;
  readonly onNotSerializable: (key: string, error: unknown) => void;
}

/** Fresh or in its grace, valid as far as this process knows; undefined: not there; or `failed`. */
export type L2Answer<V> = CacheEntry<V> | undefined | typeof failed;

/** What is asked for, and who hears of it: once, by one of the two. Both throw nothing. */
export interface L2Request<V> {
  readonly key: string;
  readonly keyHash: number;
  onRead(read: L2Answer<V>): void;
  onError(error: unknown): void;
}

export class SecondTier<V> implements TextListener<L2Request<V>> {
  readonly #parts: SecondTierParts;

  constructor(parts: SecondTierParts) {
    this.#parts = parts;
  }

  get isOpen(): boolean {
    return this.#parts.l2.isOpen;
  }

  /** `sentMs`: now. `budgetMs`: how long L2 may hold it up. */
  read(request: L2Request<V>, within: { readonly sentMs: number; readonly budgetMs: number }): void {
    this.#parts.l2.get(request, within, this);
  }

  /** For the guarded L2. */
  onText(request: L2Request<V>, text: string | null | typeof failed): void {
    let read: L2Answer<V>;
    try {
      read = typeof text === "string" ? this.#open(request, text) : text === null ? undefined : text;
    } catch (error) {
      request.onError(error);
      return;
    }
    request.onRead(read);
  }

  /** In the background; `done` is called when it is there, or will not be. */
  write(entry: CacheEntry<V>, done: () => void): void {
    const { l2, codec, epoch, now, metrics, onNotSerializable } = this.#parts;
    const clockMs = l2.clockMs(entry.key);
    const life = epoch();
    const keepMs = entry.keepUntilMs - now();
    if (clockMs === undefined || life === undefined || !(keepMs >= 1)) {
      done();
      return;
    }
    try {
      const envelope = {
        epoch: life,
        since: entry.stamp,
        freshUntil: clockMs + (entry.freshUntilMs - now()),
        keepUntil: clockMs + keepMs,
        deltaMs: Math.ceil(entry.deltaMs),
        etag: entry.etag ?? null,
        tags: entry.tags,
        value: entry.value,
      };
      l2.set(entry.key, { text: sealEnvelope(codec, { keyHash: entry.keyHash, envelope }), ttlMs: Math.ceil(keepMs), done });
    } catch (error) {
      metrics.notSerializable++;
      onNotSerializable(entry.key, error);
      done();
    }
  }

  delete(key: string): void {
    this.#parts.l2.delete(key);
  }

  #open({ key, keyHash }: L2Request<V>, text: string): CacheEntry<V> | undefined {
    const { codec, history, metrics, epoch, l2, now, earlyRefresh, onPoisoned } = this.#parts;
    const present = epoch();
    const envelope = openEnvelope(codec, { keyHash, text, epoch: present });
    if (envelope === undefined) {
      metrics.l2Poisoned++;
      onPoisoned(key, "its checksum or form is not that of a value stored under this key");
      return undefined;
    }
    // Values of another life of the store carry revisions that mean nothing in this one.
    if (envelope.epoch !== present) return undefined;
    const nowMs = now();
    const clockMs = l2.clockMs(key, nowMs);
    if (clockMs === undefined || clockMs >= envelope.keepUntil) return undefined;
    const entry = new CacheEntry<V>({
      key,
      keyHash,
      life: history.life,
      tags: envelope.tags,
      value: envelope.value as V,
      stamp: envelope.since,
      nowMs,
      freshForMs: envelope.freshUntil - clockMs,
      graceMs: envelope.keepUntil === Number.POSITIVE_INFINITY ? 0 : envelope.keepUntil - envelope.freshUntil,
      deltaMs: envelope.deltaMs,
      etag: envelope.etag ?? undefined,
      earlyRefresh,
    });
    if (history.confirm(entry)) return entry;
    metrics.invalidated++;
    return undefined;
  }
}
