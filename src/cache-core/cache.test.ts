/**
 * The cache on the in-memory twin of an engine, in virtual time: the races of the peers' bug lists, the bound, the
 * options. The same things under seeded faults: `src/simulator/cache-world.ts`.
 */
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { utf8Encode } from "../base/bytes.ts";
import { crc32 } from "../base/crc32.ts";
import { conclaveError } from "../base/errors.ts";
import { LocalEngine } from "../testing/local-engine.ts";
import type { LocalFaults } from "../testing/local-faults.ts";
import { VirtualPlatform } from "../testing/virtual-platform.ts";
import { Cache } from "./cache.ts";
import type { CacheEntry } from "./cache-entry.ts";
import type { CacheEvent } from "./event.ts";
import type { Codec, L2 } from "./l2.ts";
import { MapL1 } from "./map-l1.ts";
import type { CacheOptions } from "./options.ts";

const codec: Codec = {
  encode(value) {
    const text = JSON.stringify(value);
    if (text === undefined) throw conclaveError("NOT_SERIALIZABLE", "Not JSON.");
    return text;
  },
  decode: (text) => JSON.parse(text),
  checksum: (text, seed) => crc32(utf8Encode(text), seed),
};

/** An L2 in memory, on the clock of the test. */
class MemoryL2 implements L2 {
  readonly name = "memory";
  readonly texts = new Map<string, { text: string; untilMs: number }>();
  readonly platform: VirtualPlatform;
  isDead = false;
  isSlowMs = 0;
  gets = 0;
  constructor(platform: VirtualPlatform) {
    this.platform = platform;
  }
  async get(key: string): Promise<string | null> {
    this.gets++;
    const found = this.texts.get(key);
    await this.#wait();
    return found === undefined || found.untilMs <= this.platform.now() ? null : found.text;
  }
  async set(key: string, text: string, ttlMs: number): Promise<void> {
    await this.#wait();
    this.texts.set(key, { text, untilMs: this.platform.now() + ttlMs });
  }
  async delete(key: string): Promise<void> {
    await this.#wait();
    this.texts.delete(key);
  }
  clockMs(): number {
    return 5_000_000 + this.platform.now();
  }
  #wait(): Promise<void> {
    if (this.isDead) return new Promise(() => undefined);
    if (this.isSlowMs === 0) return Promise.resolve();
    return new Promise((resolve) => this.platform.setTimer(this.isSlowMs, resolve));
  }
}

let platform: VirtualPlatform;
let engine: LocalEngine;
let caches: Cache<unknown>[];
let events: CacheEvent[];

beforeEach(() => {
  platform = new VirtualPlatform();
  engine = new LocalEngine({ platform });
  caches = [];
  events = [];
});

afterEach(async () => {
  for (const cache of caches) await cache.close();
  await engine.close();
});

function open<V = unknown>(options: CacheOptions = {}, more: { l2?: L2; on?: LocalEngine } = {}): Cache<V> {
  const cache = new Cache<V>({
    name: "test",
    store: (more.on ?? engine).store("cache/test"),
    platform,
    l1: new MapL1<CacheEntry<V>>(1_000),
    l2: more.l2,
    codec,
    options: { jitter: 0, ...options },
    telemetry: { emit: (event) => events.push(event) },
  });
  caches.push(cache as Cache<unknown>);
  return cache;
}

const twin = (faults?: LocalFaults): LocalEngine => engine.twin(faults === undefined ? {} : { faults });

/** A load that ends when it is told. */
function gate<T>(): { load: () => Promise<T>; open: (value: T) => void; fail: (error: unknown) => void; calls: () => number } {
  let calls = 0;
  const waiting: { resolve: (value: T) => void; reject: (error: unknown) => void }[] = [];
  return {
    load: () => {
      calls++;
      return new Promise((resolve, reject) => waiting.push({ resolve, reject }));
    },
    open: (value) => waiting.shift()?.resolve(value),
    fail: (error) => waiting.shift()?.reject(error),
    calls: () => calls,
  };
}

describe("the races", () => {
  test("T1: a key invalidated during its load is loaded anew by the next reader", async () => {
    const cache = open<string>();
    const slow = gate<string>();
    const first = cache.get("k", slow.load);
    await platform.settle();
    await cache.invalidate("k");
    const second = cache.get("k", async () => "new");
    slow.open("old");
    expect(await first).toBe("old");
    expect(await second).toBe("new");
    expect(await cache.get("k", async () => "newer")).toBe("new");
  });

  test("T1 over processes: what another process invalidated during the load is not kept", async () => {
    const cache = open<string>();
    const other = open<string>({}, { on: twin() });
    const slow = gate<string>();
    const first = cache.get("k", slow.load);
    await platform.settle();
    const token = await other.invalidate("k");
    await platform.settle();
    slow.open("old");
    expect(await first).toBe("old");
    expect(cache.peek("k")).toBeUndefined();
    expect(await cache.get("k", async () => "new", { atLeast: token })).toBe("new");
  });

  test("T2: a tag invalidated during the load counts, even one that the load itself names", async () => {
    const cache = open<string>();
    const slow = gate<string>();
    const first = cache.get("k", async (load) => {
      const value = await slow.load();
      load.tags = ["org:7"];
      return value;
    });
    await platform.settle();
    await cache.invalidate({ tag: "org:7" });
    const joined = cache.get("k", async () => "new");
    slow.open("old");
    expect(await first).toBe("old");
    expect(await joined).toBe("new");
    expect(cache.peek("k")).toBe("new");
  });

  test("T3: fifty readers of a failing load share one failure", async () => {
    const cache = open<string>();
    const load = vi.fn(async () => {
      throw new Error("no");
    });
    const reads = await Promise.allSettled(Array.from({ length: 50 }, () => cache.get("k", load)));
    expect(reads.every((read) => read.status === "rejected" && (read.reason as Error).message === "no")).toBe(true);
    expect(load).toHaveBeenCalledTimes(1);
    expect(await cache.get("k", async () => "again")).toBe("again");
  });

  test("T4: a thousand readers of a cold key are one load", async () => {
    const cache = open<number>();
    const load = vi.fn(async () => 7);
    expect(new Set(await Promise.all(Array.from({ length: 1_000 }, () => cache.get("k", load))))).toEqual(new Set([7]));
    expect(load).toHaveBeenCalledTimes(1);
  });

  test("T5: two processes of a hundred readers each are one load", async () => {
    const l2 = new MemoryL2(platform);
    const one = open<number>({}, { l2 });
    const two = open<number>({}, { l2, on: twin() });
    await platform.settle();
    const load = vi.fn(async () => {
      await new Promise<void>((resolve) => platform.setTimer(50, resolve));
      return 7;
    });
    const reads = [one, two].flatMap((cache) => Array.from({ length: 100 }, () => cache.get("k", load)));
    await platform.advance(100);
    expect(new Set(await Promise.all(reads))).toEqual(new Set([7]));
    expect(load).toHaveBeenCalledTimes(1);
    expect(two.metrics.l2Hits + one.metrics.l2Hits).toBe(1);
  });

  test("T6: a process whose watch was cut off serves nothing once the bound has passed, and knows all when it is back", async () => {
    const away = twin();
    const cache = open<string>({ maxStaleMs: 1_000, ttlMs: 600_000 }, { on: away });
    const other = open<string>();
    expect(await cache.get("k", async () => "old")).toBe("old");
    away.cutOff();
    await other.invalidate("k");
    await platform.advance(600);
    expect(cache.peek("k")).toBe("old");
    await platform.advance(500);
    expect(cache.peek("k")).toBeUndefined();
    expect(await cache.get("k", async () => "new")).toBe("new");
    away.heal();
    await platform.advance(2_000);
    expect(cache.peek("k")).not.toBe("old");
    expect(await cache.get("k", async () => "newest")).not.toBe("old");
    expect(events.map(({ kind }) => kind)).toContain("cache.distrusted");
  });

  test("T7: a slow L2 read that an invalidation overtook fills nothing", async () => {
    const l2 = new MemoryL2(platform);
    const one = open<string>({}, { l2 });
    const two = open<string>({}, { l2, on: twin() });
    await platform.settle();
    await one.get("k", async () => "old");
    await platform.settle();
    l2.isSlowMs = 50;
    const read = two.get("k", async () => "new");
    await platform.advance(10);
    await one.invalidate("k");
    await platform.advance(200);
    expect(await read).toBe("new");
    expect(two.peek("k")).not.toBe("old");
  });

  test("T8: what L2 kept through a lost delete is refused by its revision", async () => {
    const l2 = new MemoryL2(platform);
    const one = open<string>({}, { l2 });
    const two = open<string>({}, { l2, on: twin() });
    await one.get("k", async () => "old");
    await platform.settle();
    const kept = [...l2.texts];
    const token = await one.invalidate("k");
    await platform.settle();
    for (const [key, text] of kept) l2.texts.set(key, text);
    expect(await one.get("k", async () => "new")).toBe("new");
    for (const [key, text] of kept) l2.texts.set(key, text);
    expect(await two.get("k", async () => "new too", { atLeast: token })).toBe("new too");
  });

  test("T9: what one reader does to a value the next one does not see", async () => {
    const frozen = open<{ list: number[] }>();
    const value = await frozen.get("k", async () => ({ list: [1] }));
    expect(() => value.list.push(2)).toThrow(TypeError);
    const cloned = open<{ list: number[] }>({ values: "cloned" }, { on: twin() });
    (await cloned.get("k", async () => ({ list: [1] }))).list.push(2);
    expect(await cloned.get("k", async () => ({ list: [9] }))).toEqual({ list: [1] });
    expect(cloned.peek("k")).toEqual({ list: [1] });
  });

  test("T10: clocks play no part: a tag invalidated by a process whose clock is ten minutes behind", async () => {
    const behind = new VirtualPlatform({ wallMs: 1_735_689_600_000 - 600_000, seed: 7 });
    const late = new LocalEngine({ platform });
    await late.close();
    const cache = open<string>();
    const other = new Cache<string>({
      name: "test",
      store: twin().store("cache/test"),
      platform: { ...asPlatform(platform), wallMs: () => behind.wallMs() },
      l1: new MapL1(10),
    });
    caches.push(other as Cache<unknown>);
    await cache.get("k", async () => "old", { tags: ["t"] });
    const token = await other.invalidate({ tag: "t" });
    expect(await cache.get("k", async () => "new", { atLeast: token })).toBe("new");
  });
});

function asPlatform(from: VirtualPlatform) {
  return {
    now: () => from.now(),
    wallMs: () => from.wallMs(),
    setTimer: from.setTimer.bind(from),
    defer: from.defer.bind(from),
    randomUint32: () => from.randomUint32(),
  };
}

describe("the bound", () => {
  test("a process that stood still serves nothing in the first line it runs", async () => {
    const cache = open<string>({ maxStaleMs: 1_000, ttlMs: 600_000 });
    await cache.get("k", async () => "v");
    expect(cache.peek("k")).toBe("v");
    platform.stall(1_001);
    expect(cache.peek("k")).toBeUndefined();
    await platform.advance(0);
    await platform.advance(300);
    expect(cache.peek("k")).toBe("v");
  });

  test("a process without a proof takes nothing from L2 either, in its first read", async () => {
    const l2 = new MemoryL2(platform);
    const away = twin();
    const cache = open<string>({ maxStaleMs: 1_000, ttlMs: 600_000 }, { l2, on: away });
    const other = open<string>({ ttlMs: 600_000 }, { l2 });
    await platform.settle();
    await other.get("k", async () => "old");
    await platform.settle();
    const kept = l2.texts.get("k") as { text: string; untilMs: number };
    away.cutOff();
    await other.invalidate("k");
    await platform.settle();
    // A failover of L2 brings it back.
    l2.texts.set("k", kept);
    await platform.advance(1_001);
    expect(await cache.get("k", async () => "new")).toBe("new");
  });

  test("proofs keep a quiet cache trusted, and the oldest proof served is metered", async () => {
    const cache = open<string>({ maxStaleMs: 1_000, ttlMs: 600_000 });
    await cache.get("k", async () => "v");
    for (let at = 0; at < 50; at++) {
      await platform.advance(100);
      expect(cache.peek("k")).toBe("v");
    }
    expect(cache.metrics.proofAgeMsMax).toBeGreaterThan(0);
    expect(cache.metrics.proofAgeMsMax).toBeLessThanOrEqual(1_000);
  });

  test("a watch that fell silent while the Store answers is noticed, and read anew", async () => {
    let isSilent = false;
    const deaf = twin({ batch: () => (isSilent ? { kind: "drop" } : undefined) });
    const cache = open<string>({ maxStaleMs: 1_000, ttlMs: 600_000 }, { on: deaf });
    const other = open<string>();
    await cache.get("k", async () => "old");
    isSilent = true;
    await other.invalidate("k");
    await platform.advance(1_001);
    expect(cache.peek("k")).toBeUndefined();
    await platform.advance(2_000);
    expect(await cache.get("k", async () => "new")).toBe("new");
    expect(cache.peek("k")).toBe("new");
    expect(events.some((event) => event.kind === "cache.resynced" && event.why === "the watch fell silent")).toBe(true);
  });

  test("atLeast: a process that cannot learn of the invalidation in time loads", async () => {
    let isSilent = false;
    const deaf = twin({ batch: () => (isSilent ? { kind: "drop" } : undefined) });
    const cache = open<string>({ maxStaleMs: 60_000 }, { on: deaf });
    const other = open<string>();
    await cache.get("k", async () => "old");
    isSilent = true;
    const token = await other.invalidate("k");
    expect(cache.peek("k")).toBe("old");
    const read = cache.get("k", async () => "new", { atLeast: token });
    await platform.advance(100);
    expect(await read).toBe("new");
  });

  test("another store in the place of the last one voids everything", async () => {
    const l2 = new MemoryL2(platform);
    const cache = open<string>({}, { l2 });
    await cache.get("k", async () => "of the first life");
    await platform.settle();
    const next = new LocalEngine({ platform });
    const after = open<string>({}, { l2, on: next });
    expect(await after.get("k", async () => "of the second")).toBe("of the second");
    await after.close();
    await next.close();
  });
});

describe("invalidation", () => {
  test("by key, tag, prefix, list, and everything", async () => {
    const cache = open<string>();
    const fill = async (): Promise<void> => {
      for (const key of ["a/1", "a/2", "b/1"]) await cache.get(key, async () => "v", { tags: [key.slice(0, 1)] });
    };
    const left = (): string => ["a/1", "a/2", "b/1"].filter((key) => cache.peek(key) !== undefined).join();
    await fill();
    await cache.invalidate("a/1");
    expect(left()).toBe("a/2,b/1");
    await fill();
    await cache.invalidate({ tag: "a" });
    expect(left()).toBe("b/1");
    await fill();
    await cache.invalidate({ prefix: "a/" });
    expect(left()).toBe("b/1");
    await fill();
    await cache.invalidate(["a/1", { key: "b/1" }]);
    expect(left()).toBe("a/2");
    await fill();
    await cache.clear();
    expect(left()).toBe("");
    expect(cache.metrics.entries).toBe(0);
  });

  test("coalescing may cost entries, never coherence", async () => {
    const level = engine.twin({ faults: { batch: () => ({ kind: "coalesce", delayMs: 50 }) } });
    const cache = open<number>({ ttlMs: 600_000 }, { on: level });
    const other = open<number>();
    const keys = Array.from({ length: 50 }, (_, at) => `k${at}`);
    for (const key of keys) await cache.get(key, async () => 1);
    for (const key of keys.slice(0, 25)) await other.invalidate(key);
    await platform.advance(500);
    for (const key of keys.slice(0, 25)) expect(cache.peek(key)).toBeUndefined();
    expect(keys.slice(25).filter((key) => cache.peek(key) !== undefined).length).toBeGreaterThan(20);
  });

  test("a neighbour in the same slot keeps its value", async () => {
    const cache = open<number>();
    const other = open<number>({}, { on: twin() });
    const keys = Array.from({ length: 5_000 }, (_, at) => `neighbour-${at}`).slice(0, 900);
    for (const key of keys) await cache.get(key, async () => 1);
    await other.invalidate(keys.slice(0, 100));
    await platform.settle();
    expect(keys.filter((key) => cache.peek(key) !== undefined).length).toBe(800);
  });

  test("set puts the value in place everywhere; a value overtaken by an invalidation is not kept", async () => {
    const l2 = new MemoryL2(platform);
    const one = open<string>({}, { l2 });
    const two = open<string>({}, { l2, on: twin() });
    await two.get("k", async () => "old");
    await platform.settle();
    const token = await one.set("k", "set");
    expect(one.peek("k")).toBe("set");
    expect(await two.get("k", async () => "loaded", { atLeast: token })).toBe("set");
    const written = one.write("k", async () => {
      await two.invalidate("k");
      return "overtaken";
    });
    expect(await written).toBe("overtaken");
    expect(await one.get("k", async () => "fresh")).toBe("fresh");
    await expect(
      one.write("k", async () => {
        throw new Error("rolled back");
      }),
    ).rejects.toThrow("rolled back");
    expect(one.peek("k")).toBeUndefined();
  });
});

describe("time", () => {
  test("TTL 0 keeps nothing, Infinity keeps, and what is no duration is refused by name", async () => {
    const cache = open<number>();
    let loads = 0;
    const load = async (): Promise<number> => ++loads;
    expect(await cache.get("zero", load, { ttlMs: 0 })).toBe(1);
    expect(await cache.get("zero", load, { ttlMs: 0 })).toBe(2);
    expect(await cache.get("ever", load, { ttlMs: Number.POSITIVE_INFINITY })).toBe(3);
    await platform.advance(10_000);
    platform.stall(1e12);
    await platform.advance(1_000);
    expect(await cache.get("ever", load)).toBe(3);
    for (const ttlMs of [-1, Number.NaN, "5m" as never]) {
      await expect(cache.get("bad", load, { ttlMs })).rejects.toMatchObject({ code: "INVALID_OPTION", message: /`ttlMs`/ });
      await expect(cache.get("bad2", async (context) => (context.ttlMs = ttlMs))).rejects.toMatchObject({
        code: "INVALID_OPTION",
      });
      expect(() => open({ ttlMs })).toThrow(/`ttlMs`/);
    }
    for (const maxStaleMs of [0, -1, Number.NaN]) expect(() => open({ maxStaleMs })).toThrow(/`maxStaleMs`/);
  });

  test("an expired value is served in its grace while one load goes on; after the grace it is not", async () => {
    const cache = open<string>({ ttlMs: 1_000, graceMs: 5_000, earlyRefresh: 0 });
    await cache.get("k", async () => "old");
    await platform.advance(1_001);
    const slow = gate<string>();
    expect(await cache.get("k", slow.load)).toBe("old");
    expect(await cache.get("k", slow.load)).toBe("old");
    expect(slow.calls()).toBe(1);
    slow.open("new");
    await platform.settle();
    expect(await cache.get("k", slow.load)).toBe("new");
    await platform.advance(6_001);
    expect(await cache.get("k", async () => "newest")).toBe("newest");
  });

  test("in its grace a failing load is answered with the old value, and tried again only a second later", async () => {
    const cache = open<string>({ ttlMs: 1_000, graceMs: 60_000, softTimeoutMs: 100, earlyRefresh: 0 });
    await cache.get("k", async () => "old");
    await platform.advance(1_001);
    const load = vi.fn(async () => {
      throw new Error("down");
    });
    expect(await cache.get("k", load)).toBe("old");
    expect(await cache.get("k", load)).toBe("old");
    expect(load).toHaveBeenCalledTimes(1);
    await platform.advance(1_001);
    expect(await cache.get("k", load)).toBe("old");
    expect(load).toHaveBeenCalledTimes(2);
  });

  test("the soft timeout waits for the new value first; an invalidated one is never served in its grace", async () => {
    const cache = open<string>({ ttlMs: 1_000, graceMs: 60_000, softTimeoutMs: 100, earlyRefresh: 0 });
    await cache.get("k", async () => "old");
    await platform.advance(1_001);
    expect(await cache.get("k", async () => "quick")).toBe("quick");
    await platform.advance(1_001);
    const slow = gate<string>();
    const read = cache.get("k", slow.load);
    await platform.advance(101);
    expect(await read).toBe("quick");
    await cache.invalidate("k");
    const after = cache.get("k", async () => "fresh");
    expect(await after).toBe("fresh");
    slow.open("late");
    await platform.settle();
    expect(cache.peek("k")).toBe("fresh");
  });

  test("a load that hangs ends at the hard timeout, with its signal; what it brings later is kept", async () => {
    const cache = open<string>({ hardTimeoutMs: 500 });
    const slow = gate<string>();
    let signal: AbortSignal | undefined;
    const read = cache.get("k", (context) => {
      signal = context.signal;
      return slow.load();
    });
    const judged = expect(read).rejects.toMatchObject({ code: "LOAD_TIMEOUT", definite: false, retryable: true });
    await platform.advance(501);
    await judged;
    expect(signal?.aborted).toBe(true);
    slow.open("late");
    await platform.settle();
    expect(cache.peek("k")).toBe("late");
  });

  test("values are loaded early by the lot of XFetch, so that nobody waits for a load", async () => {
    let loads = 0;
    const load = async (): Promise<number> => {
      await new Promise<void>((resolve) => platform.setTimer(100, resolve));
      return ++loads;
    };
    const cache = open<number>({ ttlMs: 10_000 });
    const first = cache.get("k", load);
    await platform.advance(100);
    await first;
    const misses = cache.metrics.misses;
    const reads: Promise<number>[] = [];
    for (let at = 0; at < 3_000; at++) {
      reads.push(cache.get("k", load));
      await platform.advance(10);
    }
    await platform.advance(100);
    await Promise.all(reads);
    // Ten reads in the time of one load: about one expiry in 20,000 would still be waited for.
    expect(cache.metrics.misses).toBe(misses);
    expect(cache.metrics.earlyRefreshes).toBeGreaterThanOrEqual(2);
    expect(loads).toBe(cache.metrics.earlyRefreshes + 1);
  });

  test("jitter only shortens, by its share at most", async () => {
    const cache = open<number>({ ttlMs: 1_000, jitter: 0.5 });
    for (let at = 0; at < 200; at++) await cache.get(`k${at}`, async () => at);
    const left = await Promise.all(Array.from({ length: 200 }, async (_, at) => (await cache.explain(`k${at}`)).freshForMs ?? 0));
    expect(Math.max(...left)).toBeLessThanOrEqual(1_000);
    expect(Math.min(...left)).toBeGreaterThanOrEqual(500);
    expect(Math.max(...left) - Math.min(...left)).toBeGreaterThan(300);
  });

  test("null is kept as `there is none`, undefined is not; failures are kept only on request", async () => {
    const cache = open<number | null>({ negativeTtlMs: 100 });
    const load = vi.fn(async () => null);
    await cache.get("none", load);
    await cache.get("none", load);
    expect(load).toHaveBeenCalledTimes(1);
    await platform.advance(101);
    await cache.get("none", load);
    expect(load).toHaveBeenCalledTimes(2);
    const unknown = vi.fn(async () => undefined);
    expect(await cache.get("unknown", unknown)).toBeUndefined();
    await cache.get("unknown", unknown);
    expect(unknown).toHaveBeenCalledTimes(2);

    const careful = open<number>({ errorTtlMs: 1_000 }, { on: twin() });
    const failing = vi.fn(async () => {
      throw new Error("no");
    });
    await expect(careful.get("k", failing)).rejects.toThrow("no");
    await expect(careful.get("k", failing)).rejects.toThrow("no");
    expect(failing).toHaveBeenCalledTimes(1);
    await careful.invalidate("k");
    expect(await careful.get("k", async () => 1)).toBe(1);
  });

  test("a caller who went away is no failure of the load: nobody else is answered with it", async () => {
    const cache = open<number>({ errorTtlMs: 1_000 });
    const end = new AbortController();
    const { load, open: answer } = gate<number>();
    const left = cache.get("k", load, { signal: end.signal });
    await platform.advance(1);
    end.abort(new Error("gone"));
    await expect(left).rejects.toThrow("gone");
    answer(1);
    await platform.advance(1);
    expect(await cache.get("k", async () => 2)).toBe(1);
  });
});

describe("what a load may say", () => {
  test("ttlMs, tags and etag; notModified keeps the previous value for another TTL", async () => {
    const cache = open<{ n: number }>({ graceMs: 60_000, softTimeoutMs: 1_000, earlyRefresh: 0 });
    await cache.get("k", async (load) => {
      load.ttlMs = 100;
      load.tags = ["t"];
      load.etag = "e1";
      return { n: 1 };
    });
    await platform.advance(101);
    const again = await cache.get("k", async (load) => {
      expect(load.etag).toBe("e1");
      expect(load.previous).toEqual({ n: 1 });
      load.ttlMs = 5_000;
      return load.notModified();
    });
    expect(again).toEqual({ n: 1 });
    expect((await cache.explain("k")).freshForMs).toBe(5_000);
    await expect(cache.get("cold", async (load) => load.notModified())).rejects.toMatchObject({ code: "INVALID_OPTION" });
  });

  test("getMany loads what is missing in one call, and joins what others load", async () => {
    const l2 = new MemoryL2(platform);
    const cache = open<number>({}, { l2 });
    await cache.get("a", async () => 1);
    const slow = gate<number>();
    const joined = cache.get("c", slow.load);
    await platform.settle();
    const load = vi.fn(async (keys: readonly string[]) => new Map(keys.map((key) => [key, key.charCodeAt(0)])));
    const many = cache.getMany(["a", "b", "c", "d", "b", "__proto__"], load);
    await platform.settle();
    slow.open(3);
    expect(await many).toEqual(
      new Map([
        ["a", 1],
        ["b", 98],
        ["c", 3],
        ["d", 100],
        ["__proto__", 95],
      ]),
    );
    await joined;
    expect(load).toHaveBeenCalledTimes(1);
    expect(load.mock.calls[0]?.[0]).toEqual(["b", "d", "__proto__"]);
    await expect(cache.getMany(["x", "y"], async () => [1])).rejects.toMatchObject({ code: "INVALID_OPTION" });
    expect(await cache.getMany([], load)).toEqual(new Map());
  });
});

describe("a second tier that fails", () => {
  test("a dead L2 holds a read up for its timeout and no longer, and then is left alone", async () => {
    const l2 = new MemoryL2(platform);
    const cache = open<number>({ l2TimeoutMs: 100, l2BreakerMs: 1_000 }, { l2 });
    await platform.settle();
    l2.isDead = true;
    for (let at = 0; at < 10; at++) {
      const startedMs = platform.now();
      let tookMs = -1;
      const read = cache
        .get(`k${at}`, async () => at)
        .then((value) => {
          tookMs = platform.now() - startedMs;
          return value;
        });
      await platform.advance(200);
      expect(await read).toBe(at);
      expect(tookMs).toBeLessThanOrEqual(100);
    }
    expect(l2.gets).toBeLessThan(8);
    l2.isDead = false;
    await platform.advance(1_100);
    await cache.get("probe", async () => 1);
    await platform.settle();
    expect(events.map(({ kind }) => kind)).toEqual(expect.arrayContaining(["cache.l2-open", "cache.l2-closed"]));
  });

  test("poisoned bytes, another key's bytes and bytes of another format are misses", async () => {
    const l2 = new MemoryL2(platform);
    const cache = open<string>({}, { l2 });
    await cache.get("a", async () => "of a");
    await platform.settle();
    const { text } = l2.texts.get("a") as { text: string };
    const poisons = [
      text,
      "",
      "c2 ",
      "hello",
      "c1 123\n[]\n{}",
      "c2 123\n1 2 3 4 e\n{}",
      "\u0000\ud800",
      `${text} `,
      text.replace("of a", "of b"),
    ];
    for (const [at, poison] of poisons.entries()) {
      l2.texts.set(`b${at}`, { text: poison, untilMs: 1e15 });
      expect(await cache.get(`b${at}`, async () => "loaded")).toBe("loaded");
    }
    // Each is looked at twice: before the lease and under it.
    expect(cache.metrics.l2Poisoned).toBe(2 * poisons.length);
  });

  test("a value that cannot be written is kept in this process and told of; set refuses it", async () => {
    const l2 = new MemoryL2(platform);
    const cache = open<unknown>({}, { l2 });
    const act = (): void => undefined;
    expect(await cache.get("k", async () => act)).toBe(act);
    expect(cache.peek("k")).toBe(act);
    expect(events.map(({ kind }) => kind)).toContain("cache.not-serializable");
    await expect(cache.set("k", act)).rejects.toMatchObject({ code: "NOT_SERIALIZABLE" });
  });

  test("the holder of a fill lease that dies holds nobody up for longer than its session", async () => {
    const l2 = new MemoryL2(platform);
    const dying = twin();
    const one = open<number>({ leaseTtlMs: 2_000 }, { l2, on: dying });
    const two = open<number>({ leaseTtlMs: 2_000, leaseWaitMs: 60_000 }, { l2 });
    await platform.settle();
    const never = one.get("k", () => new Promise(() => undefined), { hardTimeoutMs: Number.POSITIVE_INFINITY });
    await platform.settle();
    dying.cutOff();
    let value: number | undefined;
    const read = two
      .get("k", async () => 2)
      .then((loaded) => {
        value = loaded;
      });
    await platform.advance(1_000);
    expect(value).toBeUndefined();
    await platform.advance(1_500);
    await read;
    expect(value).toBe(2);
    await Promise.race([never, platform.settle()]);
  });

  test("by the defaults those who wait for a dead process make one load together", async () => {
    const l2 = new MemoryL2(platform);
    const dying = twin();
    const dead = open<number>({}, { l2, on: dying });
    const others = Array.from({ length: 4 }, () => open<number>({}, { l2, on: twin() }));
    await platform.settle();
    const never = dead.get("k", () => new Promise(() => undefined), { hardTimeoutMs: Number.POSITIVE_INFINITY });
    await platform.settle();
    dying.cutOff();
    const reads = others.map((cache, at) => cache.get("k", async () => at));
    await platform.advance(8_000);
    expect(new Set(await Promise.all(reads)).size).toBe(1);
    expect(others.map(({ metrics }) => metrics.loads).reduce((sum, loads) => sum + loads)).toBe(1);
    expect(others.map(({ metrics }) => metrics.leasesGivenUp)).toEqual([0, 0, 0, 0]);
    await Promise.race([never, platform.settle()]);
  });

  test("a process that stood still does not count that time as waiting for another process's load; one that waited loads", async () => {
    const l2 = new MemoryL2(platform);
    const [one, two] = [open<number>({ leaseTtlMs: 60_000 }, { l2, on: twin() }), open<number>({ leaseTtlMs: 60_000 }, { l2 })];
    await platform.settle();
    const slow = gate<number>();
    const first = one.get("k", slow.load);
    await platform.advance(10);
    const second = two.get("k", async () => 2);
    await platform.advance(50);
    // The whole machine, longer than `leaseWaitMs`.
    platform.stall(10_000);
    await platform.advance(500);
    expect(two.metrics).toMatchObject({ loads: 0, leasesGivenUp: 0 });
    slow.open(1);
    await platform.advance(500);
    expect(await Promise.all([first, second])).toEqual([1, 1]);

    const never = one.get("hangs", slow.load, { hardTimeoutMs: 20_000 });
    await platform.advance(10);
    const own = two.get("hangs", async () => 3);
    await platform.advance(6_500);
    expect(await own).toBe(3);
    expect(two.metrics).toMatchObject({ loads: 1, leasesGivenUp: 1 });
    slow.open(4);
    expect(await never).toBe(4);
  });
});

describe("the edges", () => {
  test("keys of a megabyte, `__proto__`, halves of surrogate pairs, and the empty one are keys like any other", async () => {
    const l2 = new MemoryL2(platform);
    const cache = open<number>({}, { l2 });
    const keys = [
      "x".repeat(1_048_576),
      `${"x".repeat(1_048_576)}y`,
      "__proto__",
      "constructor",
      "\ud800",
      "\udc00",
      "",
      "\u0000",
    ];
    for (const [at, key] of keys.entries()) expect(await cache.get(key, async () => at)).toBe(at);
    for (const [at, key] of keys.entries()) expect(cache.peek(key)).toBe(at);
    await cache.invalidate(keys[0] as string);
    expect(cache.peek(keys[0] as string)).toBeUndefined();
    expect(cache.peek(keys[1] as string)).toBe(1);
    await cache.invalidate({ prefix: "x".repeat(600) });
    expect(cache.peek(keys[1] as string)).toBeUndefined();
    for (const bad of [1, null, undefined, {}]) {
      await expect(cache.get(bad as never, async () => 1)).rejects.toMatchObject({ code: "KEY_INVALID" });
    }
    await expect(cache.get("k", "v" as never)).rejects.toMatchObject({ code: "INVALID_OPTION" });
    await expect(cache.invalidate({ nonsense: "x" } as never)).rejects.toMatchObject({ code: "INVALID_OPTION" });
  });

  test("a load that throws at once, or answers at once, is a load", async () => {
    const cache = open<number>();
    await expect(
      cache.get("k", () => {
        throw new TypeError("at once");
      }),
    ).rejects.toThrow("at once");
    expect(await cache.get("k", () => 5)).toBe(5);
  });

  test("a caller's signal ends its own wait alone", async () => {
    const cache = open<number>();
    const slow = gate<number>();
    const controller = new AbortController();
    const first = cache.get("k", slow.load, { signal: controller.signal });
    const second = cache.get("k", slow.load);
    await platform.settle();
    controller.abort(new Error("enough"));
    await expect(first).rejects.toThrow("enough");
    slow.open(1);
    expect(await second).toBe(1);
    expect(slow.calls()).toBe(1);
  });

  test("explain says where a read would be answered, and why", async () => {
    const cache = open<string>({ ttlMs: 1_000, graceMs: 1_000, earlyRefresh: 0 });
    expect(await cache.explain("k")).toMatchObject({ tier: "load", lease: null });
    const slow = gate<string>();
    const read = cache.get("k", slow.load, { tags: ["t"] });
    await platform.settle();
    expect(await cache.explain("k")).toMatchObject({ tier: "flight" });
    slow.open("v");
    await read;
    expect(await cache.explain("k")).toMatchObject({ tier: "l1", tags: ["t"], followed: { isTrusted: true } });
    await platform.advance(1_001);
    expect(await cache.explain("k")).toMatchObject({ tier: "grace" });
    await cache.invalidate({ tag: "t" });
    expect((await cache.explain("k")).why).toMatch(/invalidated/);
    platform.stall(5_000);
    expect((await cache.explain("k")).why).toMatch(/not known how current/);
  });

  test("a cache that was closed says so, and leaves nothing behind", async () => {
    const cache = open<number>();
    await cache.get("k", async () => 1);
    await cache.close();
    expect(cache.peek("k")).toBeUndefined();
    await expect(cache.get("k", async () => 1)).rejects.toMatchObject({ code: "CLOSED" });
    await expect(cache.invalidate("k")).rejects.toMatchObject({ code: "CLOSED" });
    await platform.advance(5_000);
    expect(platform.pending.refs).toBe(0);
  });

  test("a Store that is away at the start: reads go to the origin, after waiting l2TimeoutMs once", async () => {
    const away = twin();
    away.cutOff();
    const cache = open<number>({ l2TimeoutMs: 100 }, { on: away });
    const read = cache.get("k", async () => 1);
    await platform.advance(100);
    expect(await read).toBe(1);
    expect(cache.peek("k")).toBeUndefined();
  });
});
