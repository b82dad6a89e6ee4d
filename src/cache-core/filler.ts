/**
 * Brings a value: from L2, from another process that is loading it already, or from the origin.
 *
 *   1. L2, one plain read                                     -> found, fresh and valid: done
 *   2. the fill lease in the Store                            -> lost: wait until it is free, then 1 again
 *   3. L2 once more: the last holder may have just written    -> found: done
 *   4. the load, at the revision of the lease's grant
 *   5. L1; then L2; then the lease is given back, so that who waits for it finds the value
 *
 * Without L2, or without trust in what is known of invalidations, only 4 and 5. Doubt is always answered by loading.
 */
import { background } from "../base/background.ts";
import { conclaveError } from "../base/errors.ts";
import type { Platform } from "../base/ports.ts";
import { CacheEntry } from "./cache-entry.ts";
import type { FillLeases, LeaseAnswer } from "./fill-lease.ts";
import { Flight, type FlightEnd, type FlightPlan, type Landing } from "./flight.ts";
import { Flights } from "./flights.ts";
import type { Follower } from "./follower.ts";
import { failed } from "./guarded-l2.ts";
import type { InvalidationHistory } from "./invalidation-history.ts";
import { deepFreeze } from "./keep-whole.ts";
import { LoadContext, notModified } from "./load-context.ts";
import type { CacheMetrics } from "./metrics.ts";
import type { CheckedOptions } from "./options.ts";
import type { L2Answer, L2Request, SecondTier } from "./second-tier.ts";
import type { Shelf } from "./shelf.ts";

/** How long L2, or the Store, may still hold up this read. */
interface Budget {
  leftMs: number;
}

export interface FillerParts<V> {
  readonly platform: Platform;
  readonly options: CheckedOptions;
  readonly follower: Follower;
  readonly history: InvalidationHistory;
  readonly shelf: Shelf<V>;
  readonly l2: SecondTier<V> | undefined;
  readonly leases: FillLeases;
  readonly metrics: CacheMetrics;
  readonly life: AbortSignal;
  readonly onLoadFailed: (key: string, error: unknown) => void;
}

type Won = LeaseAnswer & { readonly kind: "won" };

/** How a search beyond L1 ended. */
type Sought<V> =
  | { readonly kind: "found"; readonly entry: CacheEntry<V> }
  | { readonly kind: "load"; readonly lease: Won | undefined; readonly previous: CacheEntry<V> | undefined };

export class Filler<V> {
  readonly #parts: FillerParts<V>;
  readonly #flights = new Flights<V>();

  constructor(parts: FillerParts<V>) {
    this.#parts = parts;
  }

  get flightCount(): number {
    return this.#flights.size;
  }

  /** The latest for this key. */
  flight(key: string, hash: number): Flight<V> | undefined {
    return this.#flights.get(key, hash);
  }

  /** `nowMs`: now. */
  begin(
    { key, keyHash, nowMs }: { readonly key: string; readonly keyHash: number; readonly nowMs: number },
    plan: FlightPlan<V>,
  ): Flight<V> {
    const { follower, history, l2, options } = this.#parts;
    const { isDirect } = plan;
    const { changes, life } = history;
    const flight = new Flight<V>({ key, keyHash, floor: follower.observed, changes, life, startedMs: nowMs, isDirect }, plan);
    this.#flights.set(flight);
    if (l2 === undefined || isDirect) background(this.#loadToTheEnd(flight, undefined), "load a value");
    // A hit in L2 is the path that counts: it is made of callbacks, and promises only for those who wait for one.
    else l2.read(new FirstLook(flight, this), { sentMs: nowMs, budgetMs: options.l2TimeoutMs });
    return flight;
  }

  /** For `FirstLook`: what L2 has answered. */
  onFirstRead(flight: Flight<V>, read: L2Answer<V>): void {
    if (read === failed || read === undefined || !isWanted(read, flight.plan)) {
      background(this.#loadToTheEnd(flight, this.#seek(flight, read)), "load a value");
      return;
    }
    try {
      this.end(flight, { kind: "landed", landing: this.#adopt(read) });
    } catch (error) {
      this.end(flight, { kind: "failed", error });
    }
  }

  /** Never rejects: its failure is the flight's end. */
  async #loadToTheEnd(flight: Flight<V>, search: Promise<Sought<V>> | undefined): Promise<void> {
    try {
      this.end(flight, { kind: "landed", landing: await this.#foundOrLoaded(flight, await search) });
    } catch (error) {
      this.end(flight, { kind: "failed", error });
    }
  }

  #foundOrLoaded(flight: Flight<V>, sought: Sought<V> | undefined): Landing<V> | Promise<Landing<V>> {
    if (sought?.kind === "found") return this.#adopt(sought.entry);
    const lease = sought?.lease;
    const stamp = lease?.revision ?? Math.max(flight.floor, this.#parts.follower.observed);
    return this.#load(flight, { lease, previous: sought?.previous ?? flight.plan.newerThan, stamp });
  }

  /** For `FirstLook` and here. */
  end(flight: Flight<V>, end: FlightEnd<V>): void {
    flight.plan.onParked?.();
    this.#flights.delete(flight);
    flight.end(end);
  }

  // ------------------------------------------------------------------------------------------------ 1 to 3

  /** `first`: what L2 has answered just now. */
  async #seek(flight: Flight<V>, first: L2Answer<V>): Promise<Sought<V>> {
    const { platform, metrics } = this.#parts;
    const { key, keyHash, plan } = flight;
    const l2 = this.#parts.l2 as SecondTier<V>;
    const startedMs = platform.now();
    let giveUpMs = startedMs + (plan.options.leaseWaitMs ?? this.#parts.options.leaseWaitMs);
    let waitMs = this.#parts.options.l2TimeoutMs;
    // Of its own: where L2 took its time and answered, a load without a lease would be one more for everybody.
    const leaseBudget: Budget = { leftMs: waitMs };
    const budget: Budget = { leftMs: waitMs - (startedMs - flight.startedMs) };
    let previous: CacheEntry<V> | undefined;
    let lease: Won | undefined;
    const readAgain = (): Promise<L2Answer<V>> => {
      const sentMs = platform.now();
      return new Promise((resolve, reject) => {
        const onRead = (read: L2Answer<V>): void => {
          budget.leftMs -= platform.now() - sentMs;
          resolve(read);
        };
        l2.read({ key, keyHash, onRead, onError: reject }, { sentMs, budgetMs: budget.leftMs });
      });
    };
    for (let read = first; ; read = await readAgain()) {
      if (read === failed) metrics.l2Failures++;
      else if (read !== undefined) {
        if (isWanted(read, plan)) {
          lease?.release();
          return { kind: "found", entry: read };
        }
        previous = read;
        this.#offerStale(flight, read);
      }
      // Nobody could find what others load: what is left is to load.
      if (read === failed || lease !== undefined) return { kind: "load", lease, previous };
      const answer = await this.#acquire(flight, leaseBudget);
      if (answer.kind === "unknown") {
        metrics.leasesUnknown++;
        return { kind: "load", lease, previous };
      }
      if (answer.kind === "won") {
        lease = answer;
        continue;
      }
      const askedMs = platform.now();
      const leftMs = giveUpMs - askedMs;
      if (leftMs <= 0) {
        metrics.leasesGivenUp++;
        return { kind: "load", lease, previous };
      }
      metrics.leasesAwaited++;
      plan.onParked?.();
      // In waits that begin short: the news that it is free may be lost. They grow, because each look costs a command.
      const timeoutMs = Math.min(leftMs, waitMs);
      waitMs *= 2;
      await this.#parts.leases.whenFreed(keyHash, { revision: answer.revision, timeoutMs });
      // It was another's load that held this read up, not L2 or the Store: they have their time anew.
      budget.leftMs = leaseBudget.leftMs = this.#parts.options.l2TimeoutMs;
      // A wait that took longer than it was to: this process stood still, and maybe the whole machine with who loads for it.
      giveUpMs += Math.max(0, platform.now() - askedMs - timeoutMs);
    }
  }

  #offerStale(flight: Flight<V>, entry: CacheEntry<V>): void {
    if (flight.stale !== undefined || this.#parts.platform.now() >= entry.keepUntilMs) return;
    this.#guard(entry.value);
    this.#parts.shelf.put(entry);
    flight.offerStale(entry);
  }

  /** Takes it over from a load that began too early for anybody who asks now. */
  async #acquire(flight: Flight<V>, budget: Budget): Promise<LeaseAnswer> {
    const { follower, history } = this.#parts;
    let answer = await this.#ask(flight, budget, {});
    if (answer.kind === "lost" && !history.isValid({ ...flight, tagHashes: [] }, answer.since)) {
      answer = await this.#ask(flight, budget, { over: answer.since });
    }
    if (answer.kind !== "unknown") follower.note(answer.revision, flight.life);
    return answer;
  }

  async #ask(flight: Flight<V>, budget: Budget, how: { readonly over?: number }): Promise<LeaseAnswer> {
    if (budget.leftMs <= 0) return { kind: "unknown" };
    const { platform, leases } = this.#parts;
    const sentMs = platform.now();
    const answer = await leases.acquire(flight.keyHash, { timeoutMs: budget.leftMs, ...how });
    budget.leftMs -= platform.now() - sentMs;
    return answer;
  }

  #adopt(entry: CacheEntry<V>): Landing<V> {
    this.#parts.metrics.l2Hits++;
    this.#guard(entry.value);
    this.#parts.shelf.put(entry);
    return entry;
  }

  // ------------------------------------------------------------------------------------------------ 4 and 5

  #load(
    flight: Flight<V>,
    how: {
      readonly lease: Won | undefined;
      readonly previous: CacheEntry<V> | undefined;
      readonly stamp: number;
    },
  ): Promise<Landing<V>> {
    const { platform, metrics, life, onLoadFailed } = this.#parts;
    const { previous } = how;
    const { plan } = flight;
    const hardTimeoutMs = plan.options.hardTimeoutMs ?? this.#parts.options.hardTimeoutMs;
    const context = new LoadContext<V>(flight.key, life, previous, {
      ttlMs: undefined,
      tags: plan.options.tags ?? [],
      etag: previous?.etag,
    });
    const startedMs = platform.now();
    metrics.loads++;
    const loading = (async () => plan.load(context))().then((answer) =>
      this.#keep(flight, {
        ...how,
        context,
        answer,
        deltaMs: platform.now() - startedMs,
      }),
    );
    return new Promise<Landing<V>>((resolve, reject) => {
      const end = (): void => {
        timer?.cancel();
        context.settle();
      };
      const timer =
        hardTimeoutMs === Number.POSITIVE_INFINITY
          ? undefined
          : platform.setTimer(
              hardTimeoutMs,
              () => {
                const error = conclaveError(
                  "LOAD_TIMEOUT",
                  `Loading ${nameOf(flight.key)} took longer than ${hardTimeoutMs} ms.`,
                );
                metrics.loadTimeouts++;
                how.lease?.release();
                context.abort(error);
                onLoadFailed(flight.key, error);
                reject(error);
              },
              { ref: true },
            );
      loading.then(
        (landing) => {
          end();
          resolve(landing);
        },
        (error: unknown) => {
          end();
          metrics.loadFailures++;
          how.lease?.release();
          onLoadFailed(flight.key, error);
          reject(error);
        },
      );
    });
  }

  /** Also when nobody waits any more: what a load brings after its hard timeout is as good as any. */
  #keep(
    flight: Flight<V>,
    how: {
      readonly lease: Won | undefined;
      readonly previous: CacheEntry<V> | undefined;
      readonly stamp: number;
      readonly context: LoadContext<V>;
      readonly answer: V | undefined;
      readonly deltaMs: number;
    },
  ): Landing<V> {
    const { shelf, l2, platform, follower, options } = this.#parts;
    const { context, previous, stamp, lease, deltaMs } = how;
    const { ttlMs = options.ttlMs, graceMs = options.graceMs, negativeTtlMs = options.negativeTtlMs } = flight.plan.options;
    const value = (how.answer as unknown) === notModified ? previous?.value : how.answer;
    const entry = this.makeEntry(flight, {
      value: value as V,
      ttlMs: context.ttlMs ?? (value === null ? (negativeTtlMs ?? ttlMs) : ttlMs),
      graceMs,
      tags: context.tags,
      etag: context.etag,
      stamp,
      deltaMs,
    });
    const landing = { value, stamp, tagHashes: entry.tagHashes };
    // While it is not known which store stands there, nobody knows what its revisions mean.
    const isForKeeping = value !== undefined && entry.keepUntilMs > platform.now() && follower.epoch !== undefined;
    if (!isForKeeping) {
      shelf.dropOlder(flight.key, stamp);
      lease?.release();
      return landing;
    }
    this.#guard(entry.value);
    const isFit = shelf.put(entry);
    if (isFit && l2 !== undefined) l2.write(entry, () => lease?.release());
    else lease?.release();
    return landing;
  }

  /** For `set` as well: a value as it is kept. */
  makeEntry(
    subject: { readonly key: string; readonly keyHash: number; readonly life: number },
    parts: {
      readonly value: V;
      readonly ttlMs: number;
      readonly graceMs: number;
      readonly tags: readonly string[];
      readonly etag: string | undefined;
      readonly stamp: number;
      readonly deltaMs: number;
    },
  ): CacheEntry<V> {
    const { platform, options } = this.#parts;
    const { ttlMs, graceMs } = parts;
    const drawn = options.jitter === 0 ? 0 : (options.jitter * platform.randomUint32()) / 2 ** 32;
    // Spelt out, and in the order of the one in second-tier.ts: where the constructor meets objects of many shapes (those that
    // `...parts` makes are), each of its looks into one is slow, also for hits in L2.
    return new CacheEntry({
      key: subject.key,
      keyHash: subject.keyHash,
      life: subject.life,
      tags: parts.tags,
      value: parts.value,
      stamp: parts.stamp,
      nowMs: platform.now(),
      freshForMs: ttlMs === Number.POSITIVE_INFINITY ? ttlMs : ttlMs * (1 - drawn),
      graceMs: ttlMs === 0 ? 0 : graceMs,
      deltaMs: parts.deltaMs,
      etag: parts.etag,
      earlyRefresh: options.earlyRefresh,
    });
  }

  #guard(value: V): void {
    if (this.#parts.options.values === "frozen") deepFreeze(value);
  }
}

/**
 * What a flight asks L2 first. A class, and not two functions that close over the flight: it is made for each hit in L2.
 */
class FirstLook<V> implements L2Request<V> {
  readonly #flight: Flight<V>;
  readonly #filler: Filler<V>;

  constructor(flight: Flight<V>, filler: Filler<V>) {
    this.#flight = flight;
    this.#filler = filler;
  }

  get key(): string {
    return this.#flight.key;
  }

  get keyHash(): number {
    return this.#flight.keyHash;
  }

  onRead(read: L2Answer<V>): void {
    this.#filler.onFirstRead(this.#flight, read);
  }

  onError(error: unknown): void {
    this.#filler.end(this.#flight, { kind: "failed", error });
  }
}

/** An entry that was read at its `loadedMs`: now. */
function isWanted<V>(entry: CacheEntry<V>, { newerThan }: FlightPlan<V>): boolean {
  const nowMs = entry.loadedMs;
  if (nowMs >= entry.freshUntilMs) return false;
  return newerThan === undefined || entry.stamp > newerThan.stamp || nowMs >= newerThan.freshUntilMs;
}

function nameOf(key: string): string {
  return JSON.stringify(key.length > 100 ? `${key.slice(0, 100)}...` : key);
}
