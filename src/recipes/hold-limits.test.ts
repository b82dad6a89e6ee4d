import { describe, expect, test } from "vitest";
import { LocalEngine } from "../testing/local-engine.ts";
import { VirtualPlatform } from "../testing/virtual-platform.ts";
import { createLock } from "./lock.ts";

function world() {
  const platform = new VirtualPlatform();
  const engine = new LocalEngine({ platform });
  return { platform, engine };
}

describe("a hold", () => {
  test("ends at its longest time though its session is well, and the next one is served", async () => {
    const { engine, platform } = world();
    const hold = await createLock(engine, "l", { maxHoldMs: 5_000 }).acquire();
    const { signal } = hold;
    const next = createLock(engine.twin(), "l").acquire();
    await platform.advance(4_999);
    expect(hold.held).toBe(true);
    await platform.advance(1);
    expect(signal.reason).toMatchObject({ code: "LOCK_LOST" });
    expect(String(signal.reason)).toContain("its longest time");
    expect(hold.held).toBe(false);
    expect((await next).held).toBe(true);
  });

  test("seen late, after a stall, is over in the first line", async () => {
    const { engine, platform } = world();
    const hold = await createLock(engine, "l", { maxHoldMs: 100 }).acquire();
    platform.stall(200);
    expect(hold.held).toBe(false);
  });

  test("released before its shortest time passes on only then", async () => {
    const { engine, platform } = world();
    const lock = createLock(engine, "l", { minHoldMs: 2_000 });
    const hold = await lock.acquire();
    await platform.advance(500);
    await hold.release();
    expect(hold.held).toBe(false);
    await platform.advance(1_499);
    expect(await lock.tryAcquire()).toBeNull();
    await platform.advance(1);
    expect(await lock.tryAcquire()).not.toBeNull();
  });

  test("hears a request to yield, which is not meant for the next holder", async () => {
    const { engine, platform } = world();
    const lock = createLock(engine, "l");
    const operator = createLock(engine.twin(), "l");
    expect(await operator.revoke("nobody there")).toBeNull();
    const hold = await lock.acquire();
    const { revoked } = hold;
    await platform.settle();
    expect(revoked.aborted).toBe(false);
    expect(await operator.revoke("deploying")).not.toBeNull();
    await platform.settle();
    expect(revoked.reason).toMatchObject({ code: "YIELD_ASKED" });
    expect(String(revoked.reason)).toContain("deploying");
    expect(hold.held).toBe(true);
    await hold.release();
    const next = await lock.acquire();
    const later = next.revoked;
    await platform.settle();
    expect(later.aborted).toBe(false);
  });

  test("asked to yield before anybody listened hears it at its first question", async () => {
    const { engine, platform } = world();
    const hold = await createLock(engine, "l").acquire();
    await createLock(engine, "l").revoke("earlier");
    const { revoked } = hold;
    await platform.settle();
    expect(revoked.aborted).toBe(true);
  });

  test("broken by an operator is lost, and its lock passes on with a higher token", async () => {
    const { engine, platform } = world();
    const lock = createLock(engine, "l");
    const hold = await lock.acquire();
    const { signal } = hold;
    const next = createLock(engine.twin(), "l").acquire();
    await platform.settle();
    expect((await lock.break("stuck since noon"))?.createRevision).toBe(hold.token);
    await platform.settle();
    expect(signal.aborted).toBe(true);
    expect((await next).token).toBeGreaterThan(hold.token);
  });

  test.each([{ maxHoldMs: 0 }, { maxHoldMs: Number.NaN }, { minHoldMs: -1 }, { minHoldMs: 10, maxHoldMs: 5 }])(
    "refuses %o",
    (options) => {
      const { engine } = world();
      expect(() => createLock(engine, "l", options)).toThrow(/HoldMs/);
    },
  );
});
