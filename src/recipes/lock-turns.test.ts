import { describe, expect, test } from "vitest";
import { nodePlatform } from "../host/node-platform.ts";
import { LocalEngine } from "../testing/local-engine.ts";
import { VirtualPlatform } from "../testing/virtual-platform.ts";
import type { Hold } from "./hold.ts";
import { createLock } from "./lock.ts";
import { createReadWriteLock } from "./rw-lock.ts";
import { createSemaphore } from "./semaphore.ts";

function world() {
  const platform = new VirtualPlatform();
  // The real host's context: virtual time changes nothing about it.
  Object.assign(platform, { contextVariable: () => nodePlatform.contextVariable?.() });
  const engine = new LocalEngine({ platform });
  return { platform, engine, twin: () => engine.twin() };
}

describe("re-entrancy", () => {
  test("a run inside a run goes on under the same hold, also across awaits, and the lock is released once, at the end", async () => {
    const { engine, platform } = world();
    const lock = createLock(engine, "orders", { reentrant: true });
    const tokens = await lock.run(async (outer) => {
      await platform.settle();
      const inner = await createLock(engine, "orders", { reentrant: true }).run(async (hold) => hold.token);
      expect(outer.held).toBe(true);
      return [outer.token, inner];
    });
    expect(tokens[0]).toBe(tokens[1]);
    expect(await lock.holder()).toBeNull();
  });

  test("an inner run that nobody awaits keeps the hold until it has settled", async () => {
    const { engine, platform } = world();
    const lock = createLock(engine, "orders", { reentrant: true });
    let finish = (): void => undefined;
    let heldInside: boolean | undefined;
    const outer = lock.run(async () => {
      void lock.run(async (hold) => {
        await new Promise<void>((resolve) => {
          finish = resolve;
        });
        heldInside = hold.held;
      });
    });
    await platform.settle();
    expect(await lock.holder()).not.toBeNull();
    finish();
    await outer;
    expect(heldInside).toBe(true);
    expect(await lock.holder()).toBeNull();
  });

  test("other tasks, other names, other stores and an acquire by hand are not inside", async () => {
    const { engine, twin } = world();
    const lock = createLock(engine, "orders", { reentrant: true });
    await lock.run(async (outer) => {
      expect(await createLock(engine, "other", { reentrant: true }).run((hold) => hold === outer)).toBe(false);
      expect(await lock.tryAcquire()).toBeNull();
      await expect(createLock(twin(), "orders", { reentrant: true }).run(() => 1, { waitMs: 0 })).rejects.toMatchObject({
        code: "LOCK_TIMEOUT",
      });
    });
    // After the end nothing is left of it.
    expect(await lock.run((hold) => hold.held)).toBe(true);
  });

  test("without the option a run inside a run waits for itself", async () => {
    const { engine } = world();
    const lock = createLock(engine, "orders");
    await lock.run(() => expect(lock.run(() => 1, { waitMs: 0 })).rejects.toMatchObject({ code: "LOCK_TIMEOUT" }));
  });

  test("a loss in the middle rejects the inner run and the outer one", async () => {
    const { engine, platform } = world();
    const lock = createLock(engine, "orders", { reentrant: true });
    let inner: Promise<unknown> | undefined;
    const outer = lock.run(async () => {
      inner = lock.run(async () => {
        platform.stall(60_000);
        return "done";
      });
      await inner.catch(() => undefined);
    });
    await expect(outer).rejects.toMatchObject({ code: "LOCK_LOST" });
    await expect(inner).rejects.toMatchObject({ code: "LOCK_LOST" });
  });
});

describe("barging", () => {
  test("takes what is free, waits for what is not, and its tokens rise in the order of grants", async () => {
    const { engine, twin, platform } = world();
    const tokens: number[] = [];
    const work = (source: LocalEngine) =>
      createLock(source, "orders", { fairness: "barging" }).run(async (hold) => {
        tokens.push(hold.token);
        await platform.settle();
      });
    const all = Promise.all(Array.from({ length: 8 }, () => work(twin())));
    await platform.advance(60_000);
    await all;
    expect(tokens).toHaveLength(8);
    expect(tokens).toEqual([...new Set(tokens)].sort((a, b) => a - b));
    expect(await createLock(engine, "orders").queue()).toHaveLength(0);
  });

  test("never overtakes one who stands in the queue", async () => {
    const { engine, twin, platform } = world();
    const first = await createLock(engine, "orders").acquire();
    const served: string[] = [];
    const note = (who: string) => async (hold: Hold) => {
      served.push(who);
      await hold.release();
    };
    const barger = createLock(twin(), "orders", { fairness: "barging" }).acquire().then(note("barging"));
    await platform.settle();
    const waiter = createLock(twin(), "orders").acquire().then(note("in the queue"));
    await platform.settle();
    await first.release();
    await platform.advance(20_000);
    await Promise.all([barger, waiter]);
    expect(served).toEqual(["in the queue", "barging"]);
  });

  test("LOCK_TIMEOUT tells who was in the way, and nothing is left behind", async () => {
    const { engine, twin, platform } = world();
    await createLock(engine, "orders", { meta: "a" }).acquire();
    const refused = expect(
      createLock(twin(), "orders", { fairness: "barging" }).acquire({ waitMs: 1_000 }),
    ).rejects.toMatchObject({ code: "LOCK_TIMEOUT", holder: { meta: "a" }, position: 1 });
    await platform.advance(1_000);
    await refused;
    expect(await createLock(engine, "orders").waiters()).toHaveLength(0);
  });
});

describe("lock-delay", () => {
  const options = { lockDelayMs: 10_000, ttlMs: 15_000 };

  test("a release passes the lock on at once", async () => {
    const { engine, twin, platform } = world();
    const hold = await createLock(engine, "orders", options).acquire();
    const next = createLock(twin(), "orders", options).acquire();
    await platform.settle();
    await hold.release();
    expect((await next).held).toBe(true);
    expect(platform.now()).toBe(0);
  });

  test("after a lost holder the next one waits as long as that one asked for, and tryAcquire says no meanwhile", async () => {
    const { engine, twin, platform } = world();
    await createLock(engine, "orders", options).acquire();
    const [other] = [twin()];
    await engine.close();
    let grantedAtMs: number | undefined;
    expect(await createLock(other, "orders", { ...options, lockDelayMs: 1 }).tryAcquire()).toBeNull();
    const next = createLock(other, "orders", { ...options, lockDelayMs: 1 }).acquire();
    void next.then(() => {
      grantedAtMs = platform.now();
    });
    await platform.advance(9_900);
    expect(grantedAtMs).toBeUndefined();
    await platform.advance(200);
    expect(grantedAtMs).toBeGreaterThanOrEqual(10_000);
    await (await next).release();
    // The one after it has nothing to wait for.
    expect(await createLock(other, "orders", options).tryAcquire()).not.toBeNull();
  });
});

test("options on turns are for plain locks, and are refused by name elsewhere", () => {
  const { engine } = world();
  expect(() => createLock(engine, "a", { fairness: "fair" as "fifo" })).toThrow("`fairness`");
  expect(() => createLock(engine, "a", { lockDelayMs: -1 })).toThrow("`lockDelayMs`");
  expect(() => createSemaphore(engine, "a", { permits: 2, reentrant: true })).toThrow("`reentrant`");
  expect(() => createReadWriteLock(engine, "a", { lockDelayMs: 5 })).toThrow("`lockDelayMs`");
});

test("holders and waiters of locks, read/write locks and semaphores are told apart", async () => {
  const { engine, twin, platform } = world();
  const metas = (list: readonly { readonly meta: unknown }[]): unknown[] => list.map(({ meta }) => meta);
  const lock = createLock(engine, "a", { meta: 1 });
  await lock.acquire();
  void createLock(twin(), "a", { meta: 2 }).acquire();
  const rw = createReadWriteLock(engine, "a");
  await rw.read.acquire({ meta: "r1" });
  await rw.read.acquire({ meta: "r2" });
  void rw.write.acquire({ meta: "w" });
  await platform.settle();
  void rw.read.acquire({ meta: "r3" });
  const semaphore = createSemaphore(engine, "a", { permits: 3 });
  await semaphore.acquire({ permits: 2, meta: "s1" });
  void semaphore.acquire({ permits: 2, meta: "s2" });
  await platform.settle();
  expect([metas(await lock.holders()), metas(await lock.waiters())]).toEqual([[1], [2]]);
  expect([metas(await rw.holders()), metas(await rw.waiters())]).toEqual([
    ["r1", "r2"],
    ["w", "r3"],
  ]);
  expect([metas(await semaphore.holders()), metas(await semaphore.waiters())]).toEqual([["s1"], ["s2"]]);
});
