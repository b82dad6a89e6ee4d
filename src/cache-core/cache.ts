/**
 * The cache that does not serve what was invalidated.
 *
 *   get -> L1 (shelf.ts) -> a flight that is under way (flight.ts) -> L2, lease, load (filler.ts)
 *   invalidate, set -> counters in the Store (invalidator.ts) -> every process follows them (follower.ts)
 *
 * What it promises, wherever the Store keeps what it has answered:
 * - in the process that called `invalidate`, and anywhere with `atLeast`: no read that starts after it returned gives a value
 *   whose load started before it;
 * - in any other process: only for `maxStaleMs` and the turn of the event loop in progress, and never after the invalidation
 *   arrived. A process that cannot prove how current it is asks the origin.
 * It holds whatever L2 loses or repeats. `promise` says it in words for the store at hand.
 */
import { background } from "../base/background.ts";
import { conclaveError } from "../base/errors.ts";
import { linkSignal, raceSignal } from "../base/link-signal.ts";
import type { Platform, Telemetry, Timer } from "../base/ports.ts";
import type { CallOptions, Store } from "../store/store.ts";
import { BatchLoad, type ManyValues } from "./batch-load.ts";
import { type CacheEntry, drawsEarly } from "./cache-entry.ts";
import type { CacheEvent } from "./event.ts";
import { FillLeases, leaseKey } from "./fill-lease.ts";
import { Filler } from "./filler.ts";
import { type FirstNews, type Flight, type FlightPlan, mayHave, mayJoin } from "./flight.ts";
import { Follower } from "./follower.ts";
import { GuardedL2 } from "./guarded-l2.ts";
import type { Target } from "./invalidation.ts";
import { InvalidationHistory } from "./invalidation-history.ts";
import { Invalidator } from "./invalidator.ts";
import { deepFreeze } from "./keep-whole.ts";
import { keyHash } from "./key-hash.ts";
import type { Codec, L2 } from "./l2.ts";
import type { LoadContext } from "./load-context.ts";
import type { L1Store } from "./map-l1.ts";
import { type CacheMetrics, noMetrics } from "./metrics.ts";
import {
  type CacheOptions,
  type CheckedOptions,
  checkCacheOptions,
  checkKey,
  checkLoad,
  checkReadOptions,
  type ReadManyOptions,
  type ReadOptions,
  type WriteOptions,
} from "./options.ts";
import { SecondTier } from "./second-tier.ts";
import { Shelf } from "./shelf.ts";
import { TurnClock } from "./turn-clock.ts";

/** Brings the value of a key. `undefined` is not kept; `null` is, as "there is none". */
export type Load<V> = (context: LoadContext<V>) => V | undefined | PromiseLike<V | undefined>;
/** Brings the values of many keys at once. */
export type LoadMany<V> = (
  keys: readonly string[],
  context: { readonly signal: AbortSignal },
) => ManyValues<V> | PromiseLike<ManyValues<V>>;

export interface CacheParts<V> {
  readonly name: string;
  readonly store: Store;
  readonly platform: Platform;
  readonly l1: L1Store<CacheEntry<V>>;
  /** Needs `codec`. */
  readonly l2?: L2 | undefined;
  readonly codec?: Codec | undefined;
  readonly options?: CacheOptions;
  readonly weigh?: ((value: V) => number) | undefined;
  readonly telemetry?: Telemetry<CacheEvent> | undefined;
}

/** What `explain` says of a key. */
export interface Explanation {
  readonly key: string;
  /** Where a read would be answered now. */
  readonly tier: "l1" | "grace" | "flight" | "l2-or-load" | "load";
  /** Why, in a sentence. */
  readonly why: string;
  /** Of the value in this process: the revision before its load, and up to where it was found valid. */
  readonly revision: number | undefined;
  readonly validUpTo: number | undefined;
  readonly tags: readonly string[];
  readonly ageMs: number | undefined;
  readonly freshForMs: number | undefined;
  /** A load under way in this process. */
  readonly loadingForMs: number | undefined;
  /** Who loads it in the cluster: the revision of the lease's grant; null: nobody; undefined: the Store did not answer. */
  readonly lease: number | null | undefined;
  /** How far this process has followed the invalidations, and how old the proof of that is. */
  readonly followed: { readonly revision: number; readonly proofAgeMs: number; readonly isTrusted: boolean };
  readonly l2: "none" | "closed" | "open";
}

/** What a read is answered with. */
type Answer<V> = Exclude<FirstNews<V>, { readonly kind: "failed" }>;

interface Wait<V> {
  /** What is in its grace. */
  readonly entry: CacheEntry<V> | undefined;
  readonly options: ReadOptions;
  readonly news: FirstNews<V> | undefined;
}

interface Mark {
  readonly since: number;
  readonly life: number;
}

const attemptsMax = 3;
const warmMs = 10_000;
const failedRefreshMs = 1_000;
const errorsMax = 1_000;
const noOptions: ReadOptions = {};

/** @since 0.1.0 */
export class Cache<V = unknown> implements AsyncDisposable {
  readonly name: string;
  /** Every option, with its default. */
  readonly options: CheckedOptions;
  readonly #platform: Platform;
  readonly #store: Store;
  readonly #clock: TurnClock;
  readonly #history = new InvalidationHistory();
  readonly #follower: Follower;
  readonly #shelf: Shelf<V>;
  readonly #filler: Filler<V>;
  readonly #invalidator: Invalidator;
  readonly #leases: FillLeases;
  readonly #l2: SecondTier<V> | undefined;
  readonly #codec: Codec | undefined;
  readonly #metrics: CacheMetrics = noMetrics();
  readonly #telemetry: Telemetry<CacheEvent> | undefined;
  readonly #life = linkSignal(undefined);
  readonly #isCloned: boolean;
  /** Failures that are still answered; only with `errorTtlMs`. */
  readonly #errors = new Map<
    string,
    { readonly error: unknown; readonly untilMs: number; readonly since: number; readonly life: number }
  >();
  /** Since when reads go to the origin; undefined: they do not. */
  #distrustedSinceMs: number | undefined;

  /** Use `createCache`. @throws INVALID_OPTION */
  constructor(parts: CacheParts<V>) {
    const { name, store, platform, l1, l2, codec, weigh, telemetry } = parts;
    this.name = name;
    const options = checkCacheOptions(parts.options ?? {});
    this.options = options;
    this.#platform = platform;
    this.#store = store;
    this.#clock = new TurnClock(platform);
    this.#telemetry = telemetry;
    this.#codec = codec;
    this.#isCloned = options.values === "cloned";
    const metrics = this.#metrics;
    const history = this.#history;
    this.#follower = new Follower({
      store,
      platform,
      history,
      maxStaleMs: options.maxStaleMs,
      onNewEpoch: () => this.#shelf.clear(),
      onResync: (revision, why) => this.#emit({ kind: "cache.resynced", cache: name, revision, why }),
    });
    const follower = this.#follower;
    this.#shelf = new Shelf({ l1, history, follower, metrics, clock: this.#clock, weigh });
    if (l2 !== undefined && codec !== undefined) this.#l2 = this.#secondTier(l2, codec);
    this.#invalidator = new Invalidator({ store, history, follower, hasLeases: this.#l2 !== undefined });
    this.#leases = new FillLeases({ store, platform, ttlMs: options.leaseTtlMs });
    if (this.#l2 !== undefined) background(this.#leases.warm(warmMs), `open the session of cache ${name}`);
    this.#filler = new Filler({
      platform,
      options,
      follower,
      history,
      shelf: this.#shelf,
      l2: this.#l2,
      leases: this.#leases,
      metrics,
      life: this.#life.signal,
      onLoadFailed: (key, error) => this.#emit({ kind: "cache.load-failed", cache: name, key, why: String(error) }),
    });
    background(follower.run(), `follow the invalidations of cache ${name}`);
  }

  /**
   * The value, from wherever it is nearest; loaded at most once at a time, in the cluster where there is an L2.
   *
   * ```ts
   * const user = await users.get(id, ({ signal }) => database.user(id, signal));
   * ```
   * @throws what the load throws, to everybody who waited for it; LOAD_TIMEOUT, KEY_INVALID, INVALID_OPTION, CLOSED
   */
  get(key: string, load: Load<V>, options?: ReadOptions): Promise<V> {
    if (options === undefined || isPlain(options)) {
      const entry = this.#shelf.find(key);
      if (entry !== undefined) {
        if (this.#shelf.isServable(entry)) {
          this.#metrics.hits++;
          const { nowMs } = this.#clock;
          if (nowMs >= entry.earlyMs) this.#maybeLoadEarly(entry, nowMs, load, options);
          if (this.#isCloned) return Promise.resolve(structuredClone(entry.value));
          entry.promise ??= Promise.resolve(entry.value);
          return entry.promise;
        }
      } else if (this.#mayReadPlainly(key, load, options ?? noOptions)) {
        return this.#readPlainly(key, load, options ?? noOptions);
      }
    }
    return this.#read(key, load, options ?? noOptions) as Promise<V>;
  }

  /** The value if this process has it, fresh and known to be valid; synchronous, and loads nothing. */
  peek(key: string): V | undefined {
    const entry = this.#shelf.find(key);
    if (entry === undefined || !this.#shelf.isServable(entry)) return undefined;
    this.#metrics.hits++;
    return this.#isCloned ? structuredClone(entry.value) : entry.value;
  }

  /**
   * The values of many keys, with one load for all that nobody has. Keys that the load leaves out are left out.
   * The load answers with a Map, or with an array in the order of the keys that it was given.
   */
  async getMany(keys: Iterable<string>, load: LoadMany<V>, options: ReadManyOptions = noOptions): Promise<Map<string, V>> {
    checkLoad(load);
    const wanted = [...new Set(keys)];
    const context = { signal: this.#life.signal };
    const batch = new BatchLoad<V>(wanted, async (missing) => load(missing, context));
    const values = await Promise.all(
      wanted.map((key) => {
        const onParked = (): void => batch.settle(key);
        const own = { ...options, tags: typeof options.tags === "function" ? options.tags(key) : (options.tags ?? []) };
        return this.#read(key, () => batch.arrive(key), own, onParked).finally(onParked);
      }),
    );
    return new Map(wanted.flatMap((key, at) => (values[at] === undefined ? [] : [[key, values[at] as V]])));
  }

  /**
   * Puts a value in place, and invalidates what others have. Answers with a token.
   * Where something that it depends on was invalidated since it began, the value is not kept: the next read loads.
   * @throws NOT_SERIALIZABLE, INVALID_OPTION, KEY_INVALID; TIMEOUT, NO_QUORUM (may have happened; safe to retry)
   */
  set(key: string, value: V, options: WriteOptions = {}): Promise<string> {
    return this.#set(key, value, options, this.#mark());
  }

  /**
   * Write-through: calls `write`, which writes to the origin and answers with the value, and puts that in place. When two
   * write at once neither value is kept for the other's. When `write` throws, the key is invalidated, for it may have written.
   */
  async write(key: string, write: (signal: AbortSignal) => V | PromiseLike<V>, options: WriteOptions = {}): Promise<V> {
    checkKey(key);
    checkReadOptions(options);
    this.#assertOpen();
    await this.#whenReady();
    // Before the write begins: whatever is invalidated from here on may be newer than what it writes.
    const mark = this.#mark();
    let value: V;
    try {
      value = await write(options.signal ?? this.#life.signal);
    } catch (error) {
      await this.invalidate(key, callOptions(options));
      throw error;
    }
    await this.#set(key, value, options, mark);
    return value;
  }

  /**
   * Makes everybody forget: a key (a text is one), every value with a tag, every key that starts alike, or a list of such.
   * Answers with a token for `atLeast`. One transaction in the Store per forty targets, however many values they mean.
   * @throws TIMEOUT, NO_QUORUM (may have happened; call again)
   */
  async invalidate(target: Target | readonly Target[], options: CallOptions = {}): Promise<string> {
    this.#assertOpen();
    const targets = (Array.isArray(target) ? target : [target]) as readonly Target[];
    targets.forEach(checkTarget);
    if (targets.length === 0) return `${this.#follower.epoch ?? ""}:${this.#history.revision}`;
    for (const each of targets) if (keyOf(each) !== undefined) this.#shelf.drop(keyOf(each) as string);
    const token = await this.#invalidator.invalidate(targets, options);
    // Only to be quick about it: what stays there is refused by its revision.
    for (const each of targets) if (keyOf(each) !== undefined) this.#l2?.delete(keyOf(each) as string);
    return token;
  }

  /** Everything, everywhere. Answers with a token. */
  clear(options: CallOptions = {}): Promise<string> {
    this.#shelf.clear();
    return this.invalidate({ prefix: "" }, options);
  }

  /** Where a read of this key would be answered now, and why. Asks the Store who loads it; reads no value. */
  async explain(key: string, { timeoutMs = 1_000 }: { readonly timeoutMs?: number } = {}): Promise<Explanation> {
    checkKey(key);
    const nowMs = this.#platform.now();
    const isTrusted = this.#shelf.isTrusted(nowMs);
    const entry = this.#shelf.peek(key);
    const isValid = entry !== undefined && this.#history.isValid(entry, entry.since);
    const flight = this.#filler.flight(key, keyHash(key));
    const { tier, why } = this.#wherefrom({ entry, isValid, isTrusted, nowMs, flight });
    return {
      key,
      tier,
      why,
      revision: entry?.stamp,
      validUpTo: entry?.since,
      tags: entry?.tags ?? [],
      ageMs: entry === undefined ? undefined : nowMs - entry.loadedMs,
      freshForMs: entry === undefined ? undefined : Math.max(0, entry.freshUntilMs - nowMs),
      loadingForMs: flight === undefined ? undefined : nowMs - flight.startedMs,
      lease: await this.#leaseOf(key, timeoutMs),
      followed: { revision: this.#history.revision, proofAgeMs: nowMs - this.#follower.proofMs, isTrusted },
      l2: this.#l2 === undefined ? "none" : this.#l2.isOpen ? "open" : "closed",
    };
  }

  /** A copy of the counters. */
  get metrics(): CacheMetrics & { readonly entries: number; readonly loading: number } {
    return { ...this.#metrics, entries: this.#shelf.size, loading: this.#filler.flightCount };
  }

  /** What this cache promises on this Store, in words. */
  get promise(): string {
    const { linearizable, durability, engine } = this.#store.caps;
    const bound = Number.isFinite(this.options.maxStaleMs) ? `${this.options.maxStaleMs} ms` : "no bound in time";
    const loses = linearizable !== "always" || durability === "async-replica";
    const always = "After invalidate() returned, this process serves nothing loaded before it, nor does any other with atLeast";
    const others = `others stop once it reaches them, at the latest after ${bound} and the turn in progress`;
    const lost = `A failover of ${engine} may lose an invalidation: then values live on for their ttlMs and graceMs at most.`;
    return `${always}; ${others}.${loses ? ` ${lost}` : ""} L2 may lose or repeat what it likes.`;
  }

  /** Resolves once the invalidations are followed; reads before that wait for it, `l2TimeoutMs` at most. */
  async ready(timeoutMs = 10_000): Promise<boolean> {
    const isFollowed = this.#follower.reach(undefined, timeoutMs);
    if (this.#l2 !== undefined) await this.#leases.warm(timeoutMs);
    return isFollowed;
  }

  /** Loads under way are aborted; reads from now on fail with CLOSED. Idempotent. The L2 client stays open: it is yours. */
  async close(): Promise<void> {
    if (this.#life.signal.aborted) return;
    this.#life.abort(conclaveError("CLOSED", `Cache ${JSON.stringify(this.name)} was closed.`));
    this.#follower.close();
    this.#shelf.clear();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  // ------------------------------------------------------------------------------------------------ reads

  async #read(key: string, load: Load<V>, options: ReadOptions, onParked?: () => void): Promise<V | undefined> {
    checkKey(key);
    checkLoad(load);
    if (options !== noOptions) checkReadOptions(options);
    options.signal?.throwIfAborted();
    this.#assertOpen();
    const isReady = options.atLeast === undefined && this.#follower.epoch !== undefined;
    const isReached = isReady || (await this.#isReached(options.atLeast));
    const hash = keyHash(key);
    for (let attempt = 1; ; attempt++) {
      const nowMs = this.#platform.now();
      const isTrusted = isReached && this.#shelf.isTrusted(nowMs);
      this.#noteTrust(this.#shelf.isTrusted(nowMs), nowMs);
      const entry = isTrusted && options.fresh !== true ? this.#shelf.valid(key, nowMs) : undefined;
      if (entry !== undefined && nowMs < entry.freshUntilMs) {
        this.#metrics.hits++;
        return this.#out(entry.value);
      }
      if (entry !== undefined && nowMs < entry.retryMs) return this.#serveStale(entry);
      this.#throwKnownError(key, hash, isTrusted, nowMs);
      const isDirect = !isTrusted || options.fresh === true;
      const joined =
        isReached && options.fresh !== true && attempt < attemptsMax ? this.#joinable(key, hash, isTrusted, nowMs) : undefined;
      const changes = this.#history.changes;
      let flight = joined;
      if (flight === undefined) {
        this.#metrics.misses++;
        if (!isTrusted) this.#metrics.distrusted++;
        const plan = { load, options, isDirect, newerThan: entry, onParked };
        flight = this.#filler.begin({ key, keyHash: hash, nowMs }, plan);
      } else {
        this.#metrics.joined++;
        onParked?.();
      }
      const answer = await this.#answer(flight, { entry, options, news: undefined, isOwn: joined === undefined });
      if (answer.kind === "stale") return this.#serveStale(answer.entry);
      const { landing } = answer;
      if (joined === undefined || mayHave(flight, { landing, changes, history: this.#history })) return this.#out(landing.value);
    }
  }

  /** Whether L1 has nothing, and nothing but flights, L2 and a load is to be thought of. */
  #mayReadPlainly(key: string, load: Load<V>, options: ReadOptions): boolean {
    return (
      typeof key === "string" &&
      typeof load === "function" &&
      !this.#life.signal.aborted &&
      this.#follower.epoch !== undefined &&
      this.#distrustedSinceMs === undefined &&
      this.#errors.size === 0 &&
      !this.#isCloned &&
      (options.softTimeoutMs ?? this.options.softTimeoutMs) === 0
    );
  }

  /** `#read` for most of what goes to L2, in one promise: where many keys come in one answer, promises cost as much as all else. */
  #readPlainly(key: string, load: Load<V>, options: ReadOptions): Promise<V> {
    const nowMs = this.#platform.now();
    const hash = keyHash(key);
    const isAlone = this.#shelf.isTrusted(nowMs) && this.#filler.flight(key, hash) === undefined;
    if (!isAlone) return this.#read(key, load, options) as Promise<V>;
    return new Promise((resolve) => {
      if (options !== noOptions) checkReadOptions(options);
      this.#metrics.misses++;
      this.#filler.begin({ key, keyHash: hash, nowMs }, new PlainPlan(load, options, resolve, this.#afterNews));
    });
  }

  /** What `#read` does with news of its own flight that are no landing. One function for all plans. */
  readonly #afterNews: AfterNews<V> = async (flight, news, options) => {
    const answer = await this.#answer(flight, { entry: undefined, options, news, isOwn: true });
    return answer.kind === "stale" ? this.#serveStale(answer.entry) : (answer.landing.value as V);
  };

  /**
   * Who does not know how current he is joins only what asks the origin and began within the bound: what was invalidated
   * before that is in it.
   */
  #joinable(key: string, hash: number, isTrusted: boolean, nowMs: number): Flight<V> | undefined {
    const flight = this.#filler.flight(key, hash);
    if (flight === undefined || !mayJoin(flight, this.#history)) return undefined;
    if (isTrusted) return flight;
    return flight.isDirect && nowMs - flight.startedMs <= this.options.maxStaleMs ? flight : undefined;
  }

  async #answer(flight: Flight<V>, { isOwn, ...how }: Wait<V> & { readonly isOwn: boolean }): Promise<Answer<V>> {
    try {
      return await this.#wait(flight, how);
    } catch (error) {
      // A caller who went away says nothing of the load.
      if (isOwn && how.options.signal?.aborted !== true) this.#rememberError(flight.key, error);
      throw error;
    }
  }

  /**
   * For the flight's end; with something in its grace at hand, only until the soft timeout. Rejects with what the load throws.
   * `news`: what has come already.
   */
  async #wait(flight: Flight<V>, { entry, options, news: early }: Wait<V>): Promise<Answer<V>> {
    const softMs = options.softTimeoutMs ?? this.options.softTimeoutMs;
    if (entry !== undefined && softMs === 0) {
      this.#behind(flight, entry);
      return { kind: "stale", entry };
    }
    const coming = softMs === 0 ? flight.firstNews : this.#firstNewsAfter(flight, entry, softMs);
    let news = early ?? (await (options.signal === undefined ? coming : raceSignal(coming, options.signal)));
    if (news.kind === "stale") {
      if (this.#isStillGood(news.entry)) {
        this.#behind(flight, news.entry);
        return news;
      }
      news = await raceSignal(flight.whenEnded, options.signal);
    }
    return this.#orStale(news, entry ?? flight.stale);
  }

  /** When the load fails, what is in its grace is the answer. */
  #orStale(news: FirstNews<V>, left: CacheEntry<V> | undefined): Answer<V> {
    if (news.kind !== "failed") return news;
    if (left === undefined || !this.#isStillGood(left)) throw news.error;
    left.retryMs = this.#platform.now() + failedRefreshMs;
    return { kind: "stale", entry: left };
  }

  /** The landing if it comes within `softMs`; after that what is in its grace will do, once there is something. */
  async #firstNewsAfter(flight: Flight<V>, entry: CacheEntry<V> | undefined, softMs: number): Promise<FirstNews<V>> {
    let timer: Timer | undefined;
    const soft = new Promise<undefined>((resolve) => {
      timer = this.#platform.setTimer(softMs, () => resolve(undefined), { ref: false });
    });
    const news = await Promise.race([flight.whenEnded, soft]);
    timer?.cancel();
    if (news !== undefined) return news;
    return entry === undefined ? flight.firstNews : { kind: "stale", entry };
  }

  #isStillGood(entry: CacheEntry<V>): boolean {
    const nowMs = this.#platform.now();
    return this.#shelf.isTrusted(nowMs) && nowMs < entry.keepUntilMs && this.#shelf.isValid(entry);
  }

  #serveStale(entry: CacheEntry<V>): V {
    this.#metrics.staleServed++;
    return this.#out(entry.value) as V;
  }

  /** The load goes on; should it fail, the next try waits a little. */
  #behind(flight: Flight<V>, entry: CacheEntry<V>): void {
    const noteFailure = flight.whenEnded.then((end) => {
      if (end.kind === "failed") entry.retryMs = this.#platform.now() + failedRefreshMs;
    });
    background(noteFailure, "note how a refresh ended");
  }

  #maybeLoadEarly(entry: CacheEntry<V>, nowMs: number, load: Load<V>, options: ReadOptions = noOptions): void {
    const { earlyRefresh } = this.options;
    if (!drawsEarly(entry, { nowMs, earlyRefresh, uint32: this.#platform.randomUint32() })) return;
    if (this.#filler.flight(entry.key, entry.keyHash) !== undefined) return;
    this.#metrics.earlyRefreshes++;
    // One draw that wins is enough, whatever becomes of its load.
    entry.earlyMs = nowMs + Math.max(entry.deltaMs, 100);
    const plan = { load, options, isDirect: false, newerThan: entry, onParked: undefined };
    this.#filler.begin({ key: entry.key, keyHash: entry.keyHash, nowMs: this.#platform.now() }, plan);
  }

  async #isReached(atLeast: string | undefined): Promise<boolean> {
    if (atLeast === undefined) {
      await this.#whenReady();
      return true;
    }
    return this.#follower.reach(atLeast, this.options.l2TimeoutMs);
  }

  async #whenReady(): Promise<void> {
    if (this.#follower.epoch === undefined) await this.#follower.reach(undefined, this.options.l2TimeoutMs);
  }

  #noteTrust(isTrusted: boolean, nowMs: number): void {
    const { name } = this;
    if (!isTrusted && this.#distrustedSinceMs === undefined) {
      this.#distrustedSinceMs = nowMs;
      this.#emit({ kind: "cache.distrusted", cache: name, sinceProofMs: nowMs - this.#follower.proofMs });
    } else if (isTrusted && this.#distrustedSinceMs !== undefined) {
      this.#emit({ kind: "cache.trusted", cache: name, afterMs: nowMs - this.#distrustedSinceMs });
      this.#distrustedSinceMs = undefined;
    }
  }

  #throwKnownError(key: string, hash: number, isTrusted: boolean, nowMs: number): void {
    const known = this.#errors.get(key);
    if (known === undefined) return;
    const isGood =
      isTrusted &&
      nowMs < known.untilMs &&
      this.#history.isValid({ key, keyHash: hash, life: known.life, tagHashes: [] }, known.since);
    if (isGood) throw known.error;
    this.#errors.delete(key);
  }

  #rememberError(key: string, error: unknown): void {
    const { errorTtlMs } = this.options;
    if (errorTtlMs === 0) return;
    if (this.#errors.size >= errorsMax) this.#errors.clear();
    const { life } = this.#history;
    this.#errors.set(key, { error, life, untilMs: this.#platform.now() + errorTtlMs, since: this.#follower.observed });
  }

  #out(value: V | undefined): V | undefined {
    return this.#isCloned && value !== undefined ? structuredClone(value) : value;
  }

  // ------------------------------------------------------------------------------------------------ writes

  /** Now, in the Store's terms: what was invalidated after it is newer than a value that is known at this moment. */
  #mark(): Mark {
    return { since: this.#follower.observed, life: this.#history.life };
  }

  async #set(key: string, value: V, options: WriteOptions, mark: Mark): Promise<string> {
    checkKey(key);
    checkReadOptions(options);
    this.#assertOpen();
    if (value === undefined) throw conclaveError("INVALID_OPTION", "`value` is undefined; `null` says that there is none.");
    if (this.#l2 !== undefined) this.#codec?.encode(value);
    const { tags = [] } = options;
    await this.#whenReady();
    const { token, revision, mayStand } = await this.#invalidator.replace({ key, tags, ...mark }, callOptions(options));
    this.#shelf.dropOlder(key, revision);
    const ttlMs = options.ttlMs ?? (value === null ? (options.negativeTtlMs ?? this.options.negativeTtlMs) : undefined);
    const entry = this.#filler.makeEntry(
      { key, keyHash: keyHash(key), life: mark.life },
      {
        value: this.#isCloned ? structuredClone(value) : value,
        ttlMs: ttlMs ?? this.options.ttlMs,
        graceMs: options.graceMs ?? this.options.graceMs,
        tags,
        etag: undefined,
        stamp: revision,
        deltaMs: 0,
      },
    );
    if (this.options.values === "frozen") deepFreeze(value);
    if (mayStand && entry.keepUntilMs > this.#platform.now() && this.#shelf.put(entry)) this.#l2?.write(entry, () => undefined);
    else this.#l2?.delete(key);
    return token;
  }

  // ------------------------------------------------------------------------------------------------ the rest

  #secondTier(l2: L2, codec: Codec): SecondTier<V> {
    const { name, options, name: cache } = this;
    return new SecondTier<V>({
      l2: new GuardedL2({
        l2,
        platform: this.#platform,
        timeoutMs: options.l2TimeoutMs,
        breakerMs: options.l2BreakerMs,
        onOpen: (failures, why) => this.#emit({ kind: "cache.l2-open", cache, failures, why }),
        onClosed: () => this.#emit({ kind: "cache.l2-closed", cache }),
      }),
      codec,
      history: this.#history,
      metrics: this.#metrics,
      now: () => this.#platform.now(),
      epoch: () => this.#follower.epoch,
      earlyRefresh: options.earlyRefresh,
      onPoisoned: (key, why) => this.#emit({ kind: "cache.poisoned", cache: name, key, why }),
      onNotSerializable: (key, error) => this.#emit({ kind: "cache.not-serializable", cache: name, key, why: String(error) }),
    });
  }

  async #leaseOf(key: string, timeoutMs: number): Promise<number | null | undefined> {
    if (this.#l2 === undefined) return null;
    try {
      const { results } = await this.#store.txn({ then: [{ kind: "get", key: leaseKey(keyHash(key)) }] }, { timeoutMs });
      return results[0]?.kind === "get" ? (results[0].entry?.modRevision ?? null) : null;
    } catch {
      // `undefined` is the answer: the Store did not say.
      return undefined;
    }
  }

  #wherefrom(at: {
    readonly entry: CacheEntry<V> | undefined;
    readonly isValid: boolean;
    readonly isTrusted: boolean;
    readonly nowMs: number;
    readonly flight: Flight<V> | undefined;
  }): Pick<Explanation, "tier" | "why"> {
    const { entry, isValid, isTrusted, nowMs, flight } = at;
    if (!isTrusted)
      return { tier: "load", why: "It is not known how current the invalidations are, so nothing cached is served." };
    if (entry !== undefined && isValid && nowMs < entry.freshUntilMs)
      return { tier: "l1", why: "Fresh, and nothing has invalidated it." };
    if (entry !== undefined && isValid && nowMs < entry.keepUntilMs)
      return { tier: "grace", why: "Expired and in its grace: served while a new value is loaded." };
    if (flight !== undefined && mayJoin(flight, this.#history))
      return { tier: "flight", why: "A load is under way; reads join it." };
    const why =
      entry === undefined
        ? "This process does not have it."
        : isValid
          ? "It has expired."
          : "It was invalidated since it was loaded.";
    return { tier: this.#l2 === undefined ? "load" : "l2-or-load", why };
  }

  #emit(event: CacheEvent): void {
    this.#telemetry?.emit(event);
  }

  #assertOpen(): void {
    if (this.#life.signal.aborted) throw this.#life.signal.reason;
  }
}

type AfterNews<V> = (flight: Flight<V>, news: FirstNews<V>, options: ReadOptions) => Promise<V>;

/** Of `#readPlainly`, with who waits for it. A class for the reason given at `Call` in guarded-l2.ts. */
class PlainPlan<V> implements FlightPlan<V> {
  readonly load: Load<V>;
  readonly options: ReadOptions;
  readonly isDirect = false;
  readonly newerThan = undefined;
  readonly onParked = undefined;
  readonly #resolve: (value: V | PromiseLike<V>) => void;
  readonly #afterNews: AfterNews<V>;

  constructor(load: Load<V>, options: ReadOptions, resolve: (value: V | PromiseLike<V>) => void, afterNews: AfterNews<V>) {
    this.load = load;
    this.options = options;
    this.#resolve = resolve;
    this.#afterNews = afterNews;
  }

  onFirst(flight: Flight<V>, news: FirstNews<V>): void {
    this.#resolve(news.kind === "landed" ? (news.landing.value as V) : this.#afterNews(flight, news, this.options));
  }
}

/** Nothing in it keeps the value at hand from being the answer. */
function isPlain({ atLeast, fresh, signal }: ReadOptions): boolean {
  return atLeast === undefined && fresh !== true && signal === undefined;
}

function keyOf(target: Target): string | undefined {
  if (typeof target === "string") return target;
  return "key" in target ? target.key : undefined;
}

/** @throws INVALID_OPTION */
function checkTarget(target: Target): void {
  const named =
    typeof target === "string" ? [target] : typeof target === "object" && target !== null ? Object.values(target) : [];
  const isKnown =
    typeof target === "string" || (named.length === 1 && /^(?:key|tag|prefix)$/.test(Object.keys(target)[0] as string));
  if (isKnown && typeof named[0] === "string") return;
  throw conclaveError("INVALID_OPTION", "A target is a key, `{ key }`, `{ tag }` or `{ prefix }`, with a text.");
}

function callOptions({ timeoutMs, signal }: WriteOptions): CallOptions {
  return { ...(timeoutMs === undefined ? {} : { timeoutMs }), ...(signal === undefined ? {} : { signal }) };
}
