import { describe, expect, test } from "vitest";
import { LocalEngine } from "../testing/local-engine.ts";
import { VirtualPlatform } from "../testing/virtual-platform.ts";
import { createSemaphore } from "./semaphore.ts";

function world() {
  const platform = new VirtualPlatform();
  const engine = new LocalEngine({ platform });
  return { platform, engine };
}

describe("a semaphore", () => {
  test("costs one round trip each way, and hands a permit on by push", async () => {
    const { engine, platform } = world();
    const semaphore = createSemaphore(engine, "s", { permits: 2 });
    const first = await semaphore.acquire();
    await semaphore.acquire();
    const third = semaphore.acquire();
    await platform.settle();
    expect(engine.txnCount).toBe(3);
    expect(await semaphore.tryAcquire()).toBeNull();
    const before = engine.txnCount;
    await first.release();
    expect((await third).held).toBe(true);
    expect(engine.txnCount).toBe(before + 1);
    expect(platform.now()).toBe(0);
  });

  test("gives all or none, and a heavy one does not starve behind light ones", async () => {
    const { engine, platform } = world();
    const semaphore = createSemaphore(engine, "s", { permits: 3 });
    const light = await semaphore.acquire();
    const served: string[] = [];
    const heavy = semaphore.acquire({ permits: 3 });
    const late = semaphore.acquire();
    void heavy.then(() => served.push("heavy"));
    void late.then(() => served.push("late"));
    await platform.settle();
    expect(served).toEqual([]);
    expect((await semaphore.queue()).map(({ permits }) => permits)).toEqual([1, 3, 1]);
    await light.release();
    await platform.settle();
    expect(served).toEqual(["heavy"]);
    await (await heavy).release();
    await late;
    expect(served).toEqual(["heavy", "late"]);
  });

  test("gets a permit back from a holder that died", async () => {
    const { engine, platform } = world();
    const dying = engine.twin();
    await createSemaphore(dying, "s", { permits: 1, ttlMs: 2_000 }).acquire();
    const waiting = createSemaphore(engine, "s", { permits: 1, ttlMs: 2_000 }).acquire();
    dying.cutOff();
    await platform.advance(2_500);
    expect((await waiting).held).toBe(true);
  });

  test("tells a waiter whose place an operator deleted", async () => {
    const { engine, platform } = world();
    const semaphore = createSemaphore(engine, "s", { permits: 1 });
    await semaphore.acquire();
    const waiting = semaphore.acquire().catch((error: unknown) => error);
    await platform.settle();
    const [, waiter] = await semaphore.queue();
    await engine.store("semaphore/s").txn({ then: [{ kind: "delete", range: { key: waiter?.key ?? "" } }] });
    await platform.settle();
    await platform.advance(300);
    expect(await waiting).toMatchObject({ code: "LOCK_LOST" });
  });

  test("refuses what can never be", () => {
    const { engine } = world();
    for (const permits of [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => createSemaphore(engine, "s", { permits })).toThrow(/permits/);
    }
    return expect(createSemaphore(engine, "s", { permits: 2 }).acquire({ permits: 3 })).rejects.toMatchObject({
      code: "INVALID_OPTION",
    });
  });
});
