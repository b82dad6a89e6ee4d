import { describe, expect, test } from "vitest";
import { LocalEngine } from "../testing/local-engine.ts";
import type { CallFault } from "../testing/local-faults.ts";
import { VirtualPlatform } from "../testing/virtual-platform.ts";
import { createLock } from "./lock.ts";
import { createLockSet } from "./lock-set.ts";

function world(call?: () => CallFault | undefined) {
  const platform = new VirtualPlatform();
  const engine = new LocalEngine({ platform, ...(call === undefined ? {} : { faults: { call } }) });
  return { platform, engine };
}

describe("a set of locks", () => {
  test("costs one round trip when all are free, and excludes each of its locks", async () => {
    const { engine } = world();
    const set = await createLockSet(engine, ["b", "a", "b"]).acquire();
    expect(engine.txnCount).toBe(1);
    expect(set.holds.map(({ name }) => name)).toEqual(["a", "b"]);
    for (const name of ["a", "b"]) expect(await createLock(engine, name).tryAcquire()).toBeNull();
    const written = await engine.store("data").txn({ if: [...set.guards()], then: [{ kind: "put", key: "k", value: "v" }] });
    expect(written.succeeded).toBe(true);
    await set.release();
    for (const name of ["a", "b"]) expect(await createLock(engine, name).tryAcquire()).not.toBeNull();
  });

  test("takes none while one is held, and all once it is released", async () => {
    const { engine, platform } = world();
    const held = await createLock(engine, "b").acquire();
    await expect(createLockSet(engine, ["a", "b"]).acquire({ waitMs: 0 })).rejects.toMatchObject({ code: "LOCK_TIMEOUT" });
    expect((await createLock(engine, "a").tryAcquire())?.release()).toBeDefined();
    const waiting = createLockSet(engine.twin(), ["b", "a"]).acquire();
    await platform.settle();
    await held.release();
    expect((await waiting).held).toBe(true);
  });

  test("two sets in opposite order never wait for each other", async () => {
    const { engine, platform } = world();
    let served = 0;
    const take = async (names: readonly string[]): Promise<void> => {
      await createLockSet(engine.twin(), names).run(async () => {
        await new Promise((resolve) => void platform.setTimer(10, () => resolve(undefined)));
      });
      served++;
    };
    const all = Array.from({ length: 12 }, (_, index) => take(index % 2 === 0 ? ["x", "y", "z"] : ["z", "y", "x"]));
    await platform.advance(1_000);
    await Promise.all(all);
    expect(served).toBe(12);
  });

  test("is taken by the first attempt whose answer was lost, and leaves nothing behind", async () => {
    let calls = 0;
    const { engine, platform } = world(() => (++calls === 1 ? { kind: "lose-answer" } : undefined));
    const acquiring = createLockSet(engine, ["a", "b"]).acquire();
    await platform.advance(10_000);
    const set = await acquiring;
    expect(set.held).toBe(true);
    await set.release();
    await platform.advance(30_000);
    expect(await createLock(engine, "b").queue()).toEqual([]);
  });

  test("is lost as one", async () => {
    const { engine, platform } = world();
    const set = await createLockSet(engine, ["a", "b"]).acquire();
    const { signal } = set;
    await createLock(engine, "b").break("test");
    await platform.settle();
    expect(signal.aborted).toBe(true);
    expect(set.held).toBe(false);
    expect(() => set.assertHeld()).toThrow(/lost/);
  });

  test.each([[[]], [Array.from({ length: 33 }, (_, index) => `n${index}`)]])("refuses too few and too many", (names) => {
    expect(() => createLockSet(world().engine, names)).toThrow(/names/);
  });
});
