/**
 * L2 on a real memcached: what is plain there, what a dead one costs, what it cannot hold, and how its clock is learnt.
 */
import { afterAll, afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { startMemcached, TextClient } from "../../test/servers/memcached.ts";
import type { Cache } from "../cache-core/cache.ts";
import { type Conclave, connect } from "../index.ts";
import { type CreateCacheOptions, createCache } from "./create-cache.ts";
import { type MemcachedClient, memcachedL2 } from "./memcached-l2.ts";

const server = await startMemcached();
const skipped = "skipped" in server;

describe.skipIf(skipped)("L2 on memcached", () => {
  let conclave: Conclave;
  const open: { close(): unknown }[] = [];
  let round = 0;

  function client(): TextClient {
    if ("skipped" in server) throw new Error(server.skipped);
    const made = new TextClient(server.port);
    open.push(made);
    return made;
  }

  async function cache<V>(options: CreateCacheOptions<V> = {}): Promise<Cache<V>> {
    const made = createCache<V>(conclave, `it${round}`, { l2: memcachedL2({ client: client() }), jitter: 0, ...options });
    open.push(made);
    await made.ready();
    await new Promise((resolve) => setTimeout(resolve, 30));
    return made;
  }
  const never = async (): Promise<never> => {
    throw new Error("loaded");
  };
  const stored = async (key: string): Promise<string | undefined> => {
    const { value } = await client().get(`conclave:cache:it${round}:${key}`);
    return value === null ? undefined : Buffer.from(value).toString();
  };

  beforeEach(async () => {
    // Nothing of the last case is there under a new name.
    round++;
    conclave = await connect("memory:");
  });
  afterEach(async () => {
    for (const each of open.splice(0).reverse()) await each.close();
    await conclave.close();
  });
  afterAll(async () => {
    if (!("skipped" in server)) await server.stop();
  });

  test("what one process loaded the other finds, with its TTL to a second and its tags, until it is invalidated", async () => {
    const [one, two] = [await cache<unknown>(), await cache<unknown>()];
    const value = { at: new Date(5), list: [1, "two", null, "漢\u{1f600}"], line: "a\r\nEND\r\n" };
    await one.get("k", async () => value, { ttlMs: 5_000, tags: ["t"] });
    await vi.waitFor(async () => expect(await stored("k")).toBeDefined());
    expect(await two.get("k", never)).toEqual(value);
    const { freshForMs, tags } = await two.explain("k");
    expect(freshForMs).toBeGreaterThan(3_000);
    expect(freshForMs).toBeLessThanOrEqual(6_000);
    expect(tags).toEqual(["t"]);
    await two.invalidate({ tag: "t" });
    expect(await one.get("k", async () => "new")).toBe("new");
  });

  test("any text is a key of its own there too: long, with blanks and line ends, beyond ASCII, half a pair", async () => {
    const [one, two] = [await cache<number>(), await cache<number>()];
    const keys = [
      "x".repeat(1_000),
      `${"x".repeat(1_000)}y`,
      "a b",
      "a\r\nb",
      "\u0000",
      "é",
      "\ud800",
      "\udc00",
      "",
      "flush_all",
    ];
    for (const [at, key] of keys.entries()) await one.get(key, async () => at);
    await vi.waitFor(async () => {
      for (const [at, key] of keys.entries()) expect(await two.get(key, async () => -1, { ttlMs: 0 })).toBe(at);
    });
  });

  test("a value beyond the bound is loaded by each process, the older one goes, and no breaker opens", async () => {
    const events: string[] = [];
    const one = await cache<string>({ onEvent: ({ kind }) => events.push(kind) });
    const two = await cache<string>();
    await one.get("k", async () => "small");
    await vi.waitFor(async () => expect(await stored("k")).toBeDefined());
    const big = "x".repeat(1_100_000);
    for (let time = 0; time < 4; time++) expect(await one.get("k", async () => big, { fresh: true })).toBe(big);
    await vi.waitFor(async () => expect(await stored("k")).toBeUndefined());
    expect(await two.get("k", async () => "own")).toBe("own");
    expect(events).not.toContain("cache.l2-open");
  });

  test("poisoned bytes are a miss", async () => {
    const one = await cache<string>();
    for (const poison of ["", "x", "c2 5\n1 2 3 4 e\nj1", '{"a":1}', "\u0000\u0001"]) {
      await client().set(`conclave:cache:it${round}:p`, poison, { expires: 60 });
      expect(await one.get("p", async () => "loaded", { ttlMs: 1 })).toBe("loaded");
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  });

  test("a frozen server costs a read its timeout, a dead one no error, and the next one is used", async () => {
    if ("skipped" in server) return;
    const one = await cache<string>({ l2TimeoutMs: 100, l2BreakerMs: 50 });
    server.process.pause();
    const startedMs = performance.now();
    expect(await one.get("frozen", async () => "v")).toBe("v");
    expect(performance.now() - startedMs).toBeLessThan(1_000);
    server.process.resume();
    await server.process.kill();
    for (const key of ["a", "b", "c", "d"]) expect(await one.get(key, async () => "v")).toBe("v");
    await server.process.start();
    const again = await cache<string>();
    await again.get("back", async () => "v");
    await vi.waitFor(async () => expect(await stored("back")).toBeDefined());
  });

  test("a client that is not one is refused by the name of what it lacks", () => {
    expect(() => memcachedL2({ client: { get: never, set: never } as unknown as MemcachedClient })).toThrow(/`delete`/);
    expect(() => memcachedL2({ client: client(), valueBytesMax: 0 })).toThrow(/valueBytesMax/);
  });
});

test.runIf(skipped)(`left out: ${"skipped" in server ? server.skipped : ""}`, () => expect(skipped).toBe(true));
