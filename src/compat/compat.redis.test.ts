/**
 * The signatures of other libraries, on a real Redis.
 */
import { afterAll, expect, test } from "vitest";
import { type RedisServer, startRedis } from "../../test/servers/redis.ts";
import { openRedis } from "../engines/redis/redis-engine.ts";
import { LostLockError, MultiSemaphore, Mutex, Semaphore, TimeoutError } from "./redis-semaphore.ts";
import Redlock, { ExecutionError } from "./redlock.ts";

const found = await startRedis();
const isMissing = "skipped" in found;
const redis = found as RedisServer;
const engine = isMissing ? undefined : await openRedis({ url: `${redis.url}?quarantineMs=-1` });
const client = { engine: engine as NonNullable<typeof engine> };
afterAll(async () => {
  await engine?.close();
  if (!isMissing) await redis.stop();
});
const pass = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

test.skipIf(isMissing)("redlock: acquire excludes, release lets the next one in, and tokens rise", async () => {
  const redlock = new Redlock([client], { retryCount: 0 });
  redlock.on("error", () => undefined);
  const lock = await redlock.acquire(["a", "b"], 5_000);
  expect(lock.expiration).toBeGreaterThan(Date.now() + 4_000);
  const refused = await redlock.acquire(["b"], 5_000).catch((error: unknown) => error);
  expect(refused).toBeInstanceOf(ExecutionError);
  expect((await (refused as ExecutionError).attempts[0])?.votesAgainst.size).toBe(1);
  await lock.release();
  const next = await redlock.acquire(["a"], 5_000);
  expect(next.token).toBeGreaterThan(lock.token);
  await next.release();
});

test.skipIf(isMissing)("redlock: a lock ends with its duration, unless it is extended, and an ended one cannot be", async () => {
  const redlock = new Redlock([client], { retryCount: 0 });
  redlock.on("error", () => undefined);
  let lock = await redlock.acquire(["timed"], 150);
  await pass(100);
  lock = await lock.extend(300);
  await pass(100);
  await expect(redlock.acquire(["timed"], 100)).rejects.toThrow(/quorum/);
  await pass(350);
  await (await redlock.acquire(["timed"], 100)).release();
  await expect(lock.extend(100)).rejects.toThrow(/already-expired/);
});

test.skipIf(isMissing)("redlock: `using` holds for as long as the routine runs and answers with its value", async () => {
  const redlock = new Redlock([client], { retryCount: -1 });
  let inside = 0;
  const work = (index: number) =>
    redlock.using(["used"], 200, async (signal) => {
      expect(++inside).toBe(1);
      await pass(index === 0 ? 400 : 5);
      expect(signal.aborted).toBe(false);
      inside--;
      return index;
    });
  expect(await Promise.all([work(0), work(1), work(2)])).toEqual([0, 1, 2]);
  expect(() => new Redlock([client, { engine: client.engine }])).toThrow(/exactly one/);
});

test.skipIf(isMissing)(
  "redis-semaphore: a mutex excludes, times out with TimeoutError, and tells a loss instead of crashing",
  async () => {
    const lost: unknown[] = [];
    const mutex = new Mutex(client, "m", { onLockLost: (error) => lost.push(error) });
    await mutex.acquire();
    expect(mutex.isAcquired).toBe(true);
    const other = new Mutex(client, "m", { acquireTimeout: 100 });
    await expect(other.acquire()).rejects.toBeInstanceOf(TimeoutError);
    expect(await new Mutex(client, "m", { acquireAttemptsLimit: 1 }).tryAcquire()).toBe(false);
    // As an operator would break it.
    await client.engine.store("lock/m").txn({ then: [{ kind: "delete", range: { prefix: "" } }] });
    for (let tries = 0; tries < 100 && lost.length === 0; tries++) await pass(10);
    expect(lost[0]).toBeInstanceOf(LostLockError);
    expect(mutex.isAcquired).toBe(false);
    await mutex.release();
    const brief = new Mutex(client, "m", { lockTimeout: 100, refreshInterval: 0 });
    await brief.acquire();
    await pass(300);
    expect(brief.isAcquired).toBe(false);
  },
);

test.skipIf(isMissing)("redis-semaphore: permits are counted, singly and several at once", async () => {
  const held = [new Semaphore(client, "s", 2), new Semaphore(client, "s", 2)];
  for (const each of held) await each.acquire();
  const third = new Semaphore(client, "s", 2, { acquireTimeout: 50 });
  expect(await third.tryAcquire()).toBe(false);
  await held[0]?.release();
  expect(await third.tryAcquire()).toBe(true);
  await third.release();
  await held[1]?.release();
  const many = new MultiSemaphore(client, "s", 2, 2);
  await many.acquire();
  expect(await new Semaphore(client, "s", 2, { acquireAttemptsLimit: 1 }).tryAcquire()).toBe(false);
  await many.release();
});
