/**
 * L2 on a real Redis: what is plain there, what a dead one costs, and what poisoned bytes do.
 */
import { createClient } from "@redis/client";
import { afterAll, afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { startRedis } from "../../test/servers/redis.ts";
import type { Cache } from "../cache-core/cache.ts";
import { type Conclave, connect } from "../index.ts";
import { type CreateCacheOptions, createCache } from "./create-cache.ts";
import { type RedisClient, redisL2 } from "./redis-l2.ts";

const server = await startRedis();
const skipped = "skipped" in server;

describe.skipIf(skipped)("L2 on Redis", () => {
  let conclave: Conclave;
  const open: { close(): unknown }[] = [];

  async function client() {
    if ("skipped" in server) throw new Error(server.skipped);
    const made = createClient({ url: server.url });
    made.on("error", () => undefined);
    await made.connect();
    open.push({ close: () => made.destroy() });
    return made;
  }

  async function cache<V>(options: CreateCacheOptions<V> = {}): Promise<Cache<V>> {
    const l2 = redisL2({ client: (await client()) as unknown as RedisClient });
    const made = createCache<V>(conclave, "it", { l2, jitter: 0, ...options });
    open.push(made);
    await made.ready();
    await new Promise((resolve) => setTimeout(resolve, 20));
    return made;
  }

  beforeEach(async () => {
    if ("skipped" in server) return;
    await server.command("FLUSHALL");
    conclave = await connect("memory:");
  });
  afterEach(async () => {
    for (const each of open.splice(0).reverse()) await each.close();
    await conclave.close();
  });
  afterAll(async () => {
    if (!("skipped" in server)) await server.stop();
  });

  test("what one process loaded the other finds, with its TTL, its tags and its types", async () => {
    const [one, two] = [await cache<unknown>(), await cache<unknown>()];
    const values = {
      at: new Date(5),
      map: new Map([[1, new Set(["a"])]]),
      big: 2n ** 70n,
      gone: undefined,
      bytes: new Uint8Array([1, 2]),
    };
    await one.get("rich", async () => values, { ttlMs: 5_000, tags: ["t"] });
    await one.get("plain", async () => ({ list: [1, "two", null, true] }));
    await vi.waitFor(async () => expect(await (await client()).exists("conclave:cache:it:plain")).toBe(1));
    const never = async (): Promise<never> => {
      throw new Error("loaded");
    };
    expect(await two.get("rich", never)).toEqual(values);
    expect(await two.get("plain", never)).toEqual({ list: [1, "two", null, true] });
    const { freshForMs, tags } = await two.explain("rich");
    expect(freshForMs).toBeGreaterThan(3_000);
    expect(freshForMs).toBeLessThanOrEqual(5_000);
    expect(tags).toEqual(["t"]);
    await two.invalidate({ tag: "t" });
    expect(await one.get("rich", async () => "new")).toBe("new");
  });

  test("a wall clock that is ten minutes off changes no TTL", async () => {
    const [one, two] = [await cache<string>(), await cache<string>()];
    const now = vi.spyOn(Date, "now").mockImplementation(() => performance.timeOrigin + performance.now() + 600_000);
    await one.get("k", async () => "v", { ttlMs: 5_000 });
    now.mockRestore();
    await vi.waitFor(async () => expect(await (await client()).exists("conclave:cache:it:k")).toBe(1));
    await two.get("k", async () => "other");
    expect((await two.explain("k")).freshForMs).toBeLessThanOrEqual(5_050);
    expect((await two.explain("k")).freshForMs).toBeGreaterThan(3_000);
  });

  test("keys of a megabyte and halves of surrogate pairs are keys of their own there too", async () => {
    const [one, two] = [await cache<number>(), await cache<number>()];
    const keys = ["x".repeat(1_048_576), `${"x".repeat(1_048_576)}y`, "\ud800", "\udc00", "__proto__", ""];
    for (const [at, key] of keys.entries()) await one.get(key, async () => at);
    await vi.waitFor(async () => expect(await (await client()).dbSize()).toBe(keys.length));
    for (const [at, key] of keys.entries()) expect(await two.get(key, async () => -1)).toBe(at);
  });

  test("poisoned bytes are a miss", async () => {
    const one = await cache<string>();
    const admin = await client();
    for (const poison of ["", "x", "c2 5\n[]\n1", "c1 5\n[]\n1", '{"a":1}', "\u0000\u0001"]) {
      await admin.set("conclave:cache:it:p", poison);
      expect(await one.get("p", async () => "loaded", { ttlMs: 1 })).toBe("loaded");
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await admin.sendCommand(["DEL", "conclave:cache:it:list"]);
    await admin.sendCommand(["LPUSH", "conclave:cache:it:list", "not a text"]);
    expect(await one.get("list", async () => "loaded")).toBe("loaded");
  });

  test("reads of one turn are one command, each with its own answer, and one that fails fails all of them alone", async () => {
    const made = await client();
    const sent: string[] = [];
    let isBroken = false;
    const l2 = redisL2({
      client: {
        sendCommand: async (command) => {
          if (command[0] !== "TIME") sent.push(command[0] as string);
          if (isBroken) throw new Error("broken");
          return made.sendCommand([...command]);
        },
      },
      keysMax: 20,
    })("many");
    const keys = Array.from({ length: 50 }, (_, at) => `k${at}`);
    await Promise.all(keys.filter((_, at) => at % 3 !== 0).map((key) => l2.set(key, `value of ${key}`, 10_000)));
    await made.sendCommand(["LPUSH", "conclave:cache:many:k0", "a list"]);
    sent.length = 0;
    const answers = await Promise.all(keys.map((key) => l2.get(key)));
    expect(answers).toEqual(keys.map((key, at) => (at % 3 === 0 ? null : `value of ${key}`)));
    expect(sent).toEqual(["MGET", "MGET", "MGET"]);
    expect(await l2.get("k1")).toBe("value of k1");
    expect(sent.at(-1)).toBe("GET");
    isBroken = true;
    const failed = await Promise.allSettled([l2.get("k1"), l2.get("k2")]);
    expect(failed.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
    isBroken = false;
    expect(await l2.get("k2")).toBe("value of k2");
    expect(() => redisL2({ client: made as unknown as RedisClient, keysMax: 0 })).toThrow(/keysMax/);
  });

  test("its clock is asked for until it is known, although the first answers of a process are slow and nobody reads", async () => {
    const made = await client();
    let asked = 0;
    const l2 = redisL2({
      client: {
        sendCommand: async (command) => {
          const answer = await made.sendCommand([...command]);
          if (command[0] === "TIME" && ++asked <= 4) await new Promise((resolve) => setTimeout(resolve, 150));
          return answer;
        },
      },
    })("slow");
    await vi.waitFor(() => expect(asked).toBeGreaterThan(4), { timeout: 5_000 });
    await new Promise((resolve) => setTimeout(resolve, 20));
    // Both clocks are this machine's. By the slow answers alone it would be wrong by 75 ms.
    expect(Math.abs((l2.clockMs("k") as number) - performance.timeOrigin - performance.now())).toBeLessThan(40);
  });

  test("a client that is not one is refused by the name of what it lacks", () => {
    expect(() => redisL2({ client: {} as never })).toThrow(/`sendCommand`/);
  });
});

test.runIf(skipped)(`left out: ${"skipped" in server ? server.skipped : ""}`, () => expect(skipped).toBe(true));
