/**
 * Caches of several processes on one store machine, with an L2 and an adversary: the production core, in virtual time.
 *
 * Everybody reads, invalidates, sets and writes the same few keys at once, by every door there is. Loads take their time,
 * fail, and hang; what a load gives carries the moment when it began. Faults: processes that pause, die and start anew;
 * calls lost, late and executed after all; watches deaf, dead, merged, resynced; an L2 that is slow, dead, poisoned,
 * reordered, and fails over to what it had before; a clock that jumps; once in a while a store that forgot everything.
 * Every value served is judged (`cache-checker.ts`). At the end, healed, every process must be trusted and coherent again.
 */
import { onBackgroundFailure } from "../base/background.ts";
import { utf8Encode } from "../base/bytes.ts";
import { crc32 } from "../base/crc32.ts";
import { Cache } from "../cache-core/cache.ts";
import type { CacheEntry } from "../cache-core/cache-entry.ts";
import type { CacheEvent } from "../cache-core/event.ts";
import type { Target } from "../cache-core/invalidation.ts";
import type { Codec } from "../cache-core/l2.ts";
import { MapL1 } from "../cache-core/map-l1.ts";
import type { CacheMetrics } from "../cache-core/metrics.ts";
import type { CacheOptions, ReadOptions } from "../cache-core/options.ts";
import { LocalServer } from "../testing/local-server.ts";
import { CacheChecker, type Loaded, type ReadSeen } from "./cache-checker.ts";
import { EventQueue } from "./event-queue.ts";
import { FollowedStore } from "./followed-store.ts";
import { InvariantViolation, must } from "./invariant-violation.ts";
import { ProcessStore } from "./process-store.ts";
import { Random } from "./random.ts";
import { SimulatedL2 } from "./simulated-l2.ts";
import { SimulatedProcess } from "./simulated-process.ts";

export interface CacheWorldOptions {
  readonly drain: () => Promise<void>;
  readonly onTrace?: (atMs: number, text: string) => void;
}

export interface CacheWorldReport {
  readonly seed: number;
  readonly steps: number;
  readonly virtualMs: number;
  readonly traceHash: number;
  /** Values judged. */
  readonly judged: number;
  readonly invalidations: number;
  /** Reads that were older than an invalidation elsewhere, within the bound. */
  readonly staleWithinBound: number;
  readonly hits: number;
  readonly l2Hits: number;
  readonly loads: number;
  readonly distrusted: number;
  readonly staleServed: number;
  readonly poisoned: number;
  readonly lives: number;
  readonly crashes: number;
}

interface Node {
  readonly name: string;
  process: SimulatedProcess;
  store: FollowedStore;
  cache: Cache<Loaded>;
  /** Names the incarnation: "own process" ends with it. */
  incarnation: string;
  toldRevision: number;
}

const wallBaseMs = 1_700_000_000_000;
const faultsUntilMs = 3_000;
const healMs = 5_000;
/** Work goes on for a while after healing. */
const workUntilMs = 5_000;
/** The first two share a slot of the counters (`nameSlots`): one that is told late or not at all must be missed for both. */
const keys = ["a/1", "a/832", "b/1", "b/2", "ab"];
const namespace = "cache/world";
const tagsOf = (key: string): readonly string[] => [`tag-${key.slice(0, 1)}`, "all"];

const codec: Codec = {
  encode: (value) => JSON.stringify(value),
  decode: (text) => JSON.parse(text),
  checksum: (text, seed) => crc32(utf8Encode(text), seed),
};

export class CacheWorld {
  readonly #seed: number;
  readonly #options: CacheWorldOptions;
  readonly #queue = new EventQueue();
  readonly #random: Random;
  readonly #l2: SimulatedL2 | undefined;
  readonly #cacheOptions: CacheOptions;
  readonly #checker: CacheChecker;
  readonly #nodes: Node[] = [];
  readonly #sums = { hits: 0, l2Hits: 0, loads: 0, distrusted: 0, staleServed: 0, poisoned: 0 };
  #server: LocalServer;
  /** Counts the stores; tokens are compared within one. */
  #life = 0;
  #invalidations = 0;
  #crashes = 0;
  /** The latest tokens, for readers anywhere. */
  #tokens: { readonly token: string; readonly life: number }[] = [];
  #trace = 0;
  #isCalm = false;
  #failure: unknown;

  constructor(seed: number, options: CacheWorldOptions) {
    this.#seed = seed;
    this.#options = options;
    const random = new Random(seed);
    this.#random = random;
    this.#l2 = random.chance(0.8) ? new SimulatedL2(this.#queue, random.fork()) : undefined;
    this.#cacheOptions = {
      ttlMs: random.pick([100, 1_000, 60_000]),
      graceMs: random.pick([0, 500, 60_000]),
      maxStaleMs: random.pick([50, 200, 1_000]),
      l2TimeoutMs: random.pick([20, 100]),
      l2BreakerMs: random.pick([50, 500]),
      softTimeoutMs: random.pick([0, 0, 50]),
      hardTimeoutMs: 1_000,
      leaseWaitMs: random.pick([100, 1_000]),
      leaseTtlMs: 1_000,
      errorTtlMs: random.pick([0, 0, 100]),
      values: "shared",
    };
    this.#checker = new CacheChecker(this.#cacheOptions.maxStaleMs as number, tagsOf);
    this.#server = this.#startStore(0);
    for (let number = 0; number < random.integer(2, 4); number++) this.#nodes.push(this.#boot(`p${number}`, 0));
  }

  get steps(): number {
    return this.#queue.steps;
  }

  async run(): Promise<CacheWorldReport> {
    onBackgroundFailure((name, error) => this.#fail(new InvariantViolation("Background", `${name}: ${String(error)}`)));
    for (const node of this.#nodes) this.#work(node);
    this.#planFaults();
    await this.#runUntil(faultsUntilMs);
    this.#heal();
    await this.#runUntil(faultsUntilMs + healMs);
    await this.#judgeHealed();
    const { steps, nowMs } = this.#queue;
    for (const { cache } of this.#nodes) this.#count(cache.metrics);
    return {
      seed: this.#seed,
      steps,
      virtualMs: nowMs,
      traceHash: this.#trace >>> 0,
      judged: this.#checker.judged,
      invalidations: this.#invalidations,
      staleWithinBound: this.#checker.staleWithinBound,
      ...this.#sums,
      lives: this.#life,
      crashes: this.#crashes,
    };
  }

  // ------------------------------------------------------------------------------------------------ processes

  #startStore(wallJumpMs: number): LocalServer {
    const queue = this.#queue;
    const process = new SimulatedProcess({
      name: "store",
      queue,
      random: this.#random.fork(),
      wallBaseMs: wallBaseMs + wallJumpMs,
    });
    return new LocalServer({ platform: process.platform, limits: ProcessStore.limits });
  }

  #boot(name: string, incarnation: number): Node {
    const queue = this.#queue;
    const world = this;
    const process = new SimulatedProcess({ name, queue, random: this.#random.fork(), wallBaseMs });
    const node = { name, process, incarnation: `${name}#${incarnation}`, toldRevision: 0 } as Node;
    node.store = new FollowedStore({
      get server() {
        return world.#server;
      },
      namespace,
      process,
      queue,
      random: this.#random.fork(),
      isCalm: () => this.#isCalm,
      onApplied: () => undefined,
      onTold: (prefix, revision, server) => {
        if (prefix !== "i/" || server !== this.#server) return;
        if (node.process === process) node.toldRevision = Math.max(node.toldRevision, revision);
      },
    });
    const l2 = this.#l2?.of(process);
    node.cache = new Cache<Loaded>({
      name: "world",
      store: node.store,
      platform: process.platform,
      l1: new MapL1<CacheEntry<Loaded>>(this.#random.pick([3, 100])),
      ...(l2 === undefined ? {} : { l2, codec }),
      options: this.#cacheOptions,
      telemetry: { emit: (event: CacheEvent) => this.#note(`${node.incarnation} ${JSON.stringify(event)}`) },
    });
    return node;
  }

  #crash(node: Node): void {
    this.#crashes++;
    node.process.kill();
    this.#count(node.cache.metrics);
    const at = this.#nodes.indexOf(node);
    this.#queue.schedule(this.#random.between(1, 1_000), () => {
      const next = this.#boot(node.name, this.#crashes);
      this.#nodes[at] = next;
      this.#work(next);
    });
  }

  #count(metrics: CacheMetrics): void {
    this.#sums.hits += metrics.hits;
    this.#sums.l2Hits += metrics.l2Hits;
    this.#sums.loads += metrics.loads;
    this.#sums.distrusted += metrics.distrusted;
    this.#sums.staleServed += metrics.staleServed;
    this.#sums.poisoned += metrics.l2Poisoned;
    const { maxStaleMs = 0 } = this.#cacheOptions;
    must(metrics.proofAgeMsMax <= maxStaleMs, "Metered", () => `a hit was served ${metrics.proofAgeMsMax} ms after the proof`);
  }

  // ------------------------------------------------------------------------------------------------ what they do

  #work(node: Node): void {
    const random = this.#random.fork();
    const { process } = node;
    const next = (): void => {
      if (!process.isAlive || this.#queue.nowMs > workUntilMs) return;
      this.#queue.schedule(random.chance(0.5) ? random.between(0, 5) : random.between(5, 80), () => {
        process.run(() => this.#act(node, random));
        next();
      });
    };
    next();
  }

  #act(node: Node, random: Random): void {
    const key = random.pick(keys);
    const dice = random.float();
    if (dice < 0.5) this.#get(node, key, this.#readOptions(random));
    else if (dice < 0.66) this.#peek(node, key);
    else if (dice < 0.72) this.#getMany(node, random);
    else if (dice < 0.84) this.#invalidate(node, [key]);
    else if (dice < 0.89) this.#invalidate(node, [{ tag: random.pick(tagsOf(key)) }]);
    else if (dice < 0.92) this.#invalidate(node, [{ prefix: random.pick(["a", "a/", "b/", ""]) }, "b/1"]);
    else if (dice < 0.96) this.#set(node, key);
    else this.#write(node, key, random);
  }

  #readOptions(random: Random): ReadOptions {
    const recent = this.#tokens;
    return {
      ...(random.chance(0.3) && recent.length > 0 ? { atLeast: random.pick(recent).token } : {}),
      ...(random.chance(0.03) ? { fresh: true } : {}),
      ...(random.chance(0.5) ? { tags: tagsOf("a") } : {}),
    };
  }

  #begin(node: Node, key: string, via: string, atLeast?: string): ReadSeen {
    const life = this.#tokens.find(({ token }) => token === atLeast)?.life ?? this.#life;
    return {
      key,
      via,
      process: node.incarnation,
      startedAt: this.#checker.next(),
      startedMs: this.#queue.nowMs,
      atLeast: atLeast === undefined ? undefined : revisionOf(atLeast),
      life,
      toldRevision: life === this.#life ? node.toldRevision : 0,
    };
  }

  #get(node: Node, key: string, options: ReadOptions): void {
    const read = this.#begin(node, key, "get", options.atLeast);
    this.#expect(
      node,
      node.cache.get(key, (load) => this.#load(node, load), options),
      (value) => this.#judge(read, value),
    );
  }

  #peek(node: Node, key: string): void {
    const read = this.#begin(node, key, "peek");
    const value = node.cache.peek(key);
    if (value !== undefined) this.#judge(read, value);
  }

  #getMany(node: Node, random: Random): void {
    const some = keys.filter(() => random.chance(0.6));
    const reads = new Map(some.map((key) => [key, this.#begin(node, key, "getMany")]));
    const load = async (missing: readonly string[]): Promise<Map<string, Loaded>> => {
      const loadedAt = this.#checker.next();
      await this.#originTakes(node);
      return new Map(missing.map((key) => [key, { key, loadedAt, by: node.incarnation }]));
    };
    this.#expect(node, node.cache.getMany(some, load, { tags: tagsOf }), (values) => {
      for (const [key, value] of values) this.#judge(reads.get(key) as never, value);
    });
  }

  async #load(node: Node, load: { key: string; tags: readonly string[]; ttlMs: number | undefined }): Promise<Loaded> {
    const loadedAt = this.#checker.next();
    await this.#originTakes(node);
    load.tags = tagsOf(load.key);
    if (this.#random.chance(0.05)) load.ttlMs = 0;
    return { key: load.key, loadedAt, by: node.incarnation };
  }

  /** A while, a long while, or for ever; some fail. */
  #originTakes(node: Node): Promise<void> {
    const random = this.#random;
    const tookMs = random.chance(0.15) ? random.between(50, 1_500) : random.between(0, 20);
    const isFailing = !this.#isCalm && random.chance(0.05);
    if (!this.#isCalm && random.chance(0.01)) return new Promise(() => undefined);
    return new Promise((resolve, reject) => {
      this.#queue.schedule(tookMs, () => {
        node.process.run(() => (isFailing ? reject(new Error("the origin failed")) : resolve()));
      });
    });
  }

  #invalidate(node: Node, targets: readonly Target[]): void {
    const calledAt = this.#checker.next();
    const life = this.#life;
    this.#expect(node, node.cache.invalidate(targets, { timeoutMs: 2_000 }), (token) =>
      this.#answered(node, { targets, calledAt, token, life }),
    );
  }

  #set(node: Node, key: string): void {
    const calledAt = this.#checker.next();
    const life = this.#life;
    const value = { key, loadedAt: calledAt, by: `${node.incarnation} set` };
    this.#expect(node, node.cache.set(key, value, { tags: tagsOf(key), timeoutMs: 2_000 }), (token) =>
      this.#answered(node, { targets: [key], calledAt, token, life }),
    );
  }

  /** The write itself is the moment from which its value is right. */
  #write(node: Node, key: string, random: Random): void {
    let loadedAt = 0;
    const write = async (): Promise<Loaded> => {
      loadedAt = this.#checker.next();
      await this.#originTakes(node);
      if (random.chance(0.1)) throw new Error("rolled back");
      return { key, loadedAt, by: `${node.incarnation} write` };
    };
    this.#expect(node, node.cache.write(key, write, { tags: tagsOf(key), timeoutMs: 2_000 }), () =>
      this.#answered(node, { targets: [key], calledAt: loadedAt, token: undefined, life: this.#life }),
    );
  }

  #answered(
    node: Node,
    how: {
      readonly targets: readonly Target[];
      readonly calledAt: number;
      readonly token: string | undefined;
      readonly life: number;
    },
  ): void {
    const { targets, calledAt } = how;
    const token = how.token === undefined ? Number.MAX_SAFE_INTEGER : revisionOf(how.token);
    this.#invalidations++;
    const { incarnation: by } = node;
    const answeredAt = this.#checker.next();
    // Asked of one store and answered under the next: nobody can say whose revision the token is.
    const life = how.life === this.#life ? this.#life : -1;
    this.#checker.answered({ targets, calledAt, answeredAt, answeredMs: this.#queue.nowMs, by, token, life });
    this.#note(`${by} invalidated ${JSON.stringify(targets)}: ${token}`);
    if (how.token === undefined || life === -1) return;
    this.#tokens.push({ token: how.token, life });
    if (this.#tokens.length > 5) this.#tokens.shift();
  }

  #judge(read: ReadSeen, value: Loaded): void {
    this.#note(`${read.process} ${read.via} ${read.key}: ${value?.by} ${value?.loadedAt}`);
    if (value !== undefined) this.#checker.judge(read, value);
  }

  /** What succeeds is looked at; what fails may fail. A dead process sees nothing. */
  #expect<T>(node: Node, work: Promise<T>, look: (value: T) => void): void {
    const { process } = node;
    work.then(
      (value) => {
        if (!process.isAlive) return;
        try {
          look(value);
        } catch (error) {
          this.#fail(error);
        }
      },
      (error: unknown) => {
        this.#note(`${node.incarnation} failed: ${String(error)}`);
        // A defect of ours is not among what may happen.
        if (error instanceof TypeError || error instanceof RangeError || error instanceof InvariantViolation) this.#fail(error);
      },
    );
  }

  // ------------------------------------------------------------------------------------------------ faults

  #planFaults(): void {
    const random = this.#random.fork();
    const forgets = random.chance(0.15);
    const next = (): void => {
      this.#queue.schedule(random.between(20, 400), () => {
        if (this.#isCalm) return;
        this.#strike(random);
        next();
      });
    };
    next();
    if (!forgets) return;
    this.#queue.schedule(random.between(500, faultsUntilMs - 500), () => {
      // Its clock may stand ten minutes before that of the last one: revisions begin lower.
      this.#server = this.#startStore(random.pick([0, 60_000, -600_000]));
      this.#life++;
      for (const node of this.#nodes) node.toldRevision = 0;
      this.#note("the store forgot everything");
    });
  }

  #strike(random: Random): void {
    const node = random.pick(this.#nodes);
    const l2 = this.#l2;
    const { nowMs } = this.#queue;
    switch (random.integer(0, 9)) {
      case 0:
        node.process.pause(random.between(10, 3_000));
        break;
      case 1:
        if (node.process.isAlive) this.#crash(node);
        break;
      case 2:
        node.store.cutOff(random.between(50, 2_500));
        break;
      case 3:
        node.store.deafen(random.between(50, 3_000));
        break;
      case 4:
        node.store.killWatches();
        break;
      case 5:
        if (l2 !== undefined) l2.deadUntilMs = nowMs + random.between(50, 2_000);
        break;
      case 6:
        if (l2 !== undefined) l2.slowUntilMs = nowMs + random.between(50, 2_000);
        break;
      case 7:
        if (random.chance(0.5)) l2?.replicate();
        else l2?.failOver();
        break;
      case 8:
        l2?.poison();
        break;
      case 9:
        if (random.chance(0.2)) l2?.jumpClock(random.pick([-600_000, 600_000]));
        else l2?.replicate();
        break;
    }
  }

  #heal(): void {
    this.#isCalm = true;
    // Pauses end by themselves: a process that is resumed early would hear what was told last before what waits for the pause's end.
    for (const { store } of this.#nodes) {
      store.heal();
      store.deafen(0);
    }
    if (this.#l2 !== undefined) {
      this.#l2.deadUntilMs = 0;
      this.#l2.slowUntilMs = 0;
    }
  }

  // ------------------------------------------------------------------------------------------------ the end

  /** Every process is current again, loads, keeps, and sees what another one invalidates now. */
  async #judgeHealed(): Promise<void> {
    for (const [number, node] of this.#nodes.entries()) {
      const { isTrusted, proofAgeMs } = (await this.#settled(node.cache.explain("b/1"), "explain answers")).followed;
      must(isTrusted, "Liveness", () => `${node.incarnation} is not trusted after healing; its proof is ${proofAgeMs} ms old`);
      const other = this.#nodes[(number + 1) % this.#nodes.length] as Node;
      const calledAt = this.#checker.next();
      const token = await this.#settled(other.cache.invalidate({ prefix: "" }), "an invalidation is answered");
      this.#answered(other, { targets: [{ prefix: "" }], calledAt, token, life: this.#life });
      for (const key of keys) await this.#judgeKept(node, key, token);
    }
  }

  /** With a short `maxStaleMs` trust may lapse between the read and the look; not again and again. */
  async #judgeKept(node: Node, key: string, token: string): Promise<void> {
    for (let tries = 0; ; tries++) {
      const read = this.#begin(node, key, "last get", token);
      const load = async (): Promise<Loaded> => ({ key, loadedAt: this.#checker.next(), by: `${node.incarnation} last` });
      const value = await this.#settled(node.cache.get(key, load, { atLeast: token, ttlMs: 60_000 }), "a read is answered");
      this.#judge(read, value);
      if (node.cache.peek(key) !== undefined) return;
      must(tries < 20, "Liveness", () => `${node.incarnation} does not keep ${key} after healing`);
      await this.#runUntil(this.#queue.nowMs + 25);
    }
  }

  async #settled<T>(work: Promise<T>, what: string): Promise<T> {
    let outcome: { readonly value: T } | { readonly error: unknown } | undefined;
    work.then(
      (value) => {
        outcome = { value };
      },
      (error: unknown) => {
        outcome = { error };
      },
    );
    const giveUpMs = this.#queue.nowMs + 10_000;
    while (outcome === undefined) {
      must(this.#queue.nowMs < giveUpMs, "Liveness", () => `not within 10 s after healing: ${what}`);
      await this.#step();
    }
    const seen = outcome as { readonly value: T } | { readonly error: unknown };
    if ("error" in seen) throw new InvariantViolation("Liveness", `${what}: ${String(seen.error)}`);
    return seen.value;
  }

  async #runUntil(untilMs: number): Promise<void> {
    while (this.#queue.nowMs < untilMs) await this.#step();
  }

  async #step(): Promise<void> {
    if (!this.#queue.step()) throw new InvariantViolation("Liveness", "nothing is left to happen");
    await this.#options.drain();
    if (this.#failure !== undefined) throw this.#failure;
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
  }

  #note(text: string): void {
    const line = `${this.#queue.nowMs.toFixed(3)} ${text}`;
    for (let at = 0; at < line.length; at++) this.#trace = (Math.imul(this.#trace, 31) + line.charCodeAt(at)) | 0;
    this.#options.onTrace?.(this.#queue.nowMs, text);
  }
}

function revisionOf(token: string): number {
  return Number(token.slice(token.lastIndexOf(":") + 1));
}
