import { describe, expect, test } from "vitest";
import { hasCode } from "../base/errors.ts";
import type { ConclaveEvent } from "../base/event.ts";
import { LocalEngine } from "../testing/local-engine.ts";
import type { CallFault, LocalFaults } from "../testing/local-faults.ts";
import { VirtualPlatform } from "../testing/virtual-platform.ts";
import type { LockTimeout } from "./campaign.ts";
import type { Hold } from "./hold.ts";
import { createLock } from "./lock.ts";

function world(faults?: LocalFaults, watch?: "log" | "level") {
  const platform = new VirtualPlatform();
  const engine = new LocalEngine({ platform, ...(faults && { faults }), ...(watch && { watch }) });
  return { platform, engine, twin: () => engine.twin() };
}

/** Keeps a rejection from being reported before the test looks at it. */
function outcome<T>(promise: Promise<T>): Promise<{ value: T } | { error: unknown }> {
  return promise.then(
    (value) => ({ value }),
    (error: unknown) => ({ error }),
  );
}

describe("a lock", () => {
  test("costs one round trip when it is free, and one to release", async () => {
    const { engine } = world();
    const lock = createLock(engine, "orders");
    const hold = await lock.acquire();
    expect(engine.txnCount).toBe(1);
    await hold.release();
    expect(engine.txnCount).toBe(2);
    const again = await lock.tryAcquire();
    expect(engine.txnCount).toBe(3);
    expect(again?.token).toBeGreaterThan(hold.token);
  });

  test("is handed from a release to the next waiter by push, without a further round trip of the waiter", async () => {
    const { engine, twin, platform } = world();
    const waiterEngine = twin();
    const hold = await createLock(engine, "orders").acquire();
    const waiting = createLock(waiterEngine, "orders").acquire();
    await platform.settle();
    expect(waiterEngine.txnCount).toBe(1);
    await hold.release();
    const next = await waiting;
    expect(waiterEngine.txnCount).toBe(1);
    expect(next.held).toBe(true);
    expect(platform.now()).toBe(0);
  });

  test("gives a pushed waiter the revision of the release as its token, above every write made under the earlier hold", async () => {
    const { engine, platform } = world();
    const lock = createLock(engine, "orders");
    const hold = await lock.acquire();
    const waiting = lock.acquire();
    await platform.settle();
    const { revision } = await engine.store("data").txn({ if: [hold.guard()], then: [{ kind: "put", key: "a", value: "1" }] });
    await hold.release();
    expect((await waiting).token).toBeGreaterThan(revision);
  });

  test("serves waiters in the order in which they came, by a push each wherever they stood", async () => {
    const { engine, twin, platform } = world();
    const first = await createLock(engine, "orders").acquire();
    const served: number[] = [];
    const tokens = [first.token];
    const engines = Array.from({ length: 5 }, twin);
    const waiting = engines.map(async (client, index) => {
      const hold = await createLock(client, "orders").acquire();
      served.push(index);
      tokens.push(hold.token);
      await hold.release();
    });
    await platform.settle();
    await first.release();
    await Promise.all(waiting);
    expect(served).toEqual([0, 1, 2, 3, 4]);
    expect(tokens).toEqual([...tokens].sort((a, b) => a - b));
    expect(new Set(tokens).size).toBe(6);
    // Join and release: each has counted those who went.
    expect(engines.map((client) => client.txnCount)).toEqual([2, 2, 2, 2, 2]);
  });

  test("is not shared by two tasks of one process, nor by locks of other names", async () => {
    const { engine } = world();
    const hold = await createLock(engine, "a/b").acquire();
    expect(await createLock(engine, "a/b").tryAcquire()).toBeNull();
    for (const name of ["a", "a/b/c", "🔒", "a/b🔒", "b"]) expect(await createLock(engine, name).tryAcquire()).not.toBeNull();
    expect(hold.held).toBe(true);
  });

  test("is refused after the wait, in words that name the holder, the position and the time", async () => {
    const { engine, platform } = world();
    const lock = createLock(engine, "orders", { meta: { host: "a" } });
    await lock.acquire();
    const second = outcome(lock.acquire());
    const third = outcome(lock.acquire({ waitMs: 5_000 }));
    await platform.advance(5_000);
    const refused = (await third) as { error: LockTimeout };
    expect(hasCode(refused.error, "LOCK_TIMEOUT")).toBe(true);
    expect(refused.error).toMatchObject({ position: 2, waitedMs: 5_000, holder: { meta: { host: "a" } }, definite: true });
    expect(refused.error.message).toContain('Lock "orders" was not free within 5000 ms: session ');
    expect(refused.error.message).toContain('({"host":"a"}) holds it, 2 stood before');
    expect(await lock.queue()).toHaveLength(2);
    await platform.advance(60_000);
    expect(await second).toMatchObject({ error: { code: "LOCK_TIMEOUT", position: 1 } });
    expect(await lock.queue()).toHaveLength(1);
  });

  test("with waitMs 0 never joins the queue", async () => {
    const { engine } = world();
    const lock = createLock(engine, "orders", { meta: "me" });
    const hold = await lock.acquire({ waitMs: 0 });
    await expect(lock.acquire({ waitMs: 0 })).rejects.toMatchObject({
      code: "LOCK_TIMEOUT",
      holder: { meta: "me" },
      position: 1,
    });
    expect(await lock.queue()).toHaveLength(1);
    await hold.release();
    expect(await lock.holder()).toBeNull();
  });

  test("aborting a wait rejects with the reason at once and leaves no key behind", async () => {
    const { engine, platform } = world();
    const lock = createLock(engine, "orders");
    await lock.acquire();
    const controller = new AbortController();
    const waiting = outcome(lock.acquire({ signal: controller.signal }));
    await platform.settle();
    expect(await lock.queue()).toHaveLength(2);
    controller.abort("enough");
    expect(await waiting).toEqual({ error: "enough" });
    await platform.settle();
    expect(await lock.queue()).toHaveLength(1);
  });

  test("aborting before anything was sent sends nothing", async () => {
    const { engine } = world();
    await expect(createLock(engine, "orders").acquire({ signal: AbortSignal.abort("no") })).rejects.toBe("no");
    expect(engine.txnCount).toBe(0);
  });

  test("a waiter that gives up in the middle does not break the chain behind it", async () => {
    const { engine, platform } = world();
    const lock = createLock(engine, "orders");
    const first = await lock.acquire();
    const controller = new AbortController();
    const middle = outcome(lock.acquire({ signal: controller.signal }));
    await platform.settle();
    const last = lock.acquire();
    await platform.settle();
    controller.abort();
    await middle;
    await platform.settle();
    let isGranted = false;
    void last.then(() => (isGranted = true));
    await platform.advance(30_000);
    // The one ahead of the last waiter is gone, but it was not the holder.
    expect(isGranted).toBe(false);
    await first.release();
    expect((await last).held).toBe(true);
  });

  test("ends the wait at once when the place in the queue is deleted by an operator", async () => {
    const { engine, platform } = world();
    const lock = createLock(engine, "orders");
    await lock.acquire();
    const waiting = outcome(lock.acquire());
    await platform.settle();
    const [, place] = await lock.queue();
    await engine.store("lock/orders").txn({ then: [{ kind: "delete", range: { key: place?.key ?? "" } }] });
    await platform.settle();
    expect(await waiting).toMatchObject({ error: { code: "LOCK_LOST" } });
  });

  test("ends the wait with the session, before the lock can be granted to it", async () => {
    const { engine, twin, platform } = world();
    const waiter = twin();
    await createLock(engine, "orders").acquire();
    const waiting = outcome(createLock(waiter, "orders").acquire());
    await platform.settle();
    waiter.cutOff();
    await platform.advance(10_000);
    expect(await waiting).toMatchObject({ error: { code: "SESSION_LOST" } });
    await platform.advance(5_000);
    expect(await createLock(engine, "orders").queue()).toHaveLength(1);
  });

  test("passes on at the end of a cut-off holder's session, after the holder has stopped by its own clock", async () => {
    const { engine, twin, platform } = world();
    const cut = twin();
    const hold = await createLock(cut, "orders", { ttlMs: 3_000 }).acquire();
    let next: Hold | undefined;
    void createLock(engine, "orders", { ttlMs: 3_000 })
      .acquire()
      .then((granted) => (next = granted));
    await platform.settle();
    cut.cutOff();
    await platform.advance(1_999);
    expect(hold.held).toBe(true);
    expect(hold.signal.aborted).toBe(false);
    await platform.advance(1);
    expect(hold.held).toBe(false);
    expect(hold.signal.reason).toMatchObject({ code: "LOCK_LOST" });
    expect(next).toBeUndefined();
    await platform.advance(1_000);
    expect(next?.held).toBe(true);
    expect(next?.token).toBeGreaterThan(hold.token);
  });

  test("knows in the first line after a stall that it is lost, and says how long ago", async () => {
    const { engine, platform } = world();
    const hold = await createLock(engine, "orders").acquire();
    expect(hold.deadline).toBe(10_000);
    platform.stall(10_340);
    expect(hold.held).toBe(false);
    expect(() => hold.assertHeld()).toThrow(/Lock "orders" was lost: its lease expired 340 ms ago.*hold\.token/);
    expect(hold.signal.aborted).toBe(true);
  });

  test("tells a holder that an operator broke the lock, if it asked for the signal", async () => {
    const { engine, platform } = world();
    const hold = await createLock(engine, "orders").acquire();
    expect(hold.signal.aborted).toBe(false);
    await engine.store("lock/orders").txn({ then: [{ kind: "delete", range: { prefix: "" } }] });
    await platform.settle();
    expect(hold.held).toBe(false);
    expect(hold.signal.reason.message).toContain("somebody deleted its key");
  });

  test("guards a write of the same engine: a holder that came too late is refused by the store", async () => {
    const { engine } = world();
    const hold = await createLock(engine, "orders").acquire();
    const write = () => engine.store("data").txn({ if: [hold.guard()], then: [{ kind: "put", key: "a", value: "1" }] });
    expect((await write()).succeeded).toBe(true);
    await hold.release();
    expect((await write()).succeeded).toBe(false);
  });

  test("releases idempotently, says NOT_HOLDER after it, and never aborts the signal of a released hold", async () => {
    const { engine, platform } = world();
    const hold = await createLock(engine, "orders").acquire();
    const { signal } = hold;
    await Promise.all([hold.release(), hold.release()]);
    await hold[Symbol.asyncDispose]();
    expect(engine.txnCount).toBe(2);
    expect(hold.held).toBe(false);
    expect(hold.loss).toBeNull();
    expect(() => hold.assertHeld()).toThrow(expect.objectContaining({ code: "NOT_HOLDER" }));
    engine.cutOff();
    await platform.advance(20_000);
    expect(signal.aborted).toBe(false);
  });

  test("release does not reject when the store is away: the lock is freed later, in the background", async () => {
    const { engine, twin, platform } = world();
    const cut = twin();
    const hold = await createLock(cut, "orders", { ttlMs: 60_000 }).acquire();
    cut.cutOff();
    const released = hold.release();
    await platform.advance(10_000);
    await released;
    expect(await createLock(engine, "orders").holder()).not.toBeNull();
    cut.heal();
    await platform.advance(15_000);
    expect(await createLock(engine, "orders").holder()).toBeNull();
  });

  test("keeps the process alive while it waits and while it is held, and not a moment longer", async () => {
    const { engine, platform } = world();
    const lock = createLock(engine, "orders");
    const hold = await lock.acquire();
    expect(platform.pending.refs).toBe(1);
    const waiting = lock.acquire();
    await platform.settle();
    expect(platform.pending.refs).toBeGreaterThan(1);
    await hold.release();
    const next = await waiting;
    await next.release();
    await platform.settle();
    expect(platform.pending.refs).toBe(0);
  });

  test("opens a new session when the old one was lost", async () => {
    const { engine, platform } = world();
    const lock = createLock(engine, "orders");
    await lock.acquire();
    engine.cutOff();
    await platform.advance(16_000);
    engine.heal();
    const hold = await lock.acquire();
    expect(hold.held).toBe(true);
  });

  test("replaces a session that the store has ended and the process has not noticed", async () => {
    const { engine, platform } = world();
    const session = await engine.store("x").sharedSession();
    engine.expireSession(session.id);
    const taken = outcome(createLock(engine, "orders").acquire());
    await platform.advance(16_000);
    expect(await taken).toMatchObject({ value: { held: true } });
  });

  test("tells the telemetry of grants and losses", async () => {
    const { engine, platform } = world();
    const events: ConclaveEvent[] = [];
    const lock = createLock(engine, "orders", { telemetry: { emit: (event) => events.push(event) } });
    const hold = await lock.acquire();
    engine.cutOff();
    await platform.advance(10_000);
    expect(events).toMatchObject([
      { kind: "hold.granted", lock: "orders", token: hold.token, waitedMs: 0 },
      { kind: "hold.lost", lock: "orders", token: hold.token },
    ]);
  });

  test.each([
    ["ttlMs", () => ({ ttlMs: 999 })],
    ["ttlMs", () => ({ ttlMs: 1_000.5 })],
    ["ttlMs", () => ({ ttlMs: Number.NaN })],
    ["ttlMs", () => ({ ttlMs: 600_001 })],
    ["meta", () => ({ meta: 1n })],
    ["meta", () => ({ meta: () => undefined })],
  ])("refuses a wrong `%s` by name", (field, options) => {
    expect(() => createLock(world().engine, "orders", options())).toThrow(new RegExp(`\`${field}\``));
  });

  test("refuses names that are empty, hold U+0000 or half a surrogate pair, and a negative wait", async () => {
    for (const name of ["", "a\u0000b", "\ud800"]) {
      expect(() => createLock(world().engine, name)).toThrow(expect.objectContaining({ code: "INVALID_OPTION" }));
    }
    await expect(createLock(world().engine, "a").acquire({ waitMs: -1 })).rejects.toThrow("`waitMs`");
  });
});

describe("run", () => {
  test("answers with what the work answers, and releases", async () => {
    const { engine } = world();
    const lock = createLock(engine, "orders");
    expect(await lock.run((hold) => hold.token)).toBeTypeOf("number");
    expect(await lock.holder()).toBeNull();
  });

  test("rejects with what the work throws, and releases", async () => {
    const { engine } = world();
    const lock = createLock(engine, "orders");
    const error = new Error("mine");
    await expect(lock.run(() => Promise.reject(error))).rejects.toBe(error);
    expect(await lock.holder()).toBeNull();
  });

  test("rejects with LOCK_LOST when the lock was lost, and keeps the work's error as the cause", async () => {
    const { engine, platform } = world();
    const lock = createLock(engine, "orders");
    const running = outcome(
      lock.run(async ({ signal }) => {
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
        throw new Error("aborted work");
      }),
    );
    await platform.settle();
    engine.cutOff();
    await platform.advance(20_000);
    expect(await running).toMatchObject({ error: { code: "LOCK_LOST", cause: { message: "aborted work" } } });
  });

  test("reports the loss also where the work succeeded", async () => {
    const { engine, platform } = world();
    const running = outcome(createLock(engine, "orders").run(() => platform.stall(10_001)));
    expect(await running).toMatchObject({ error: { code: "LOCK_LOST", cause: { code: "LOCK_LOST" } } });
  });

  test("lets the work release early", async () => {
    const { engine, platform } = world();
    const lock = createLock(engine, "orders");
    const running = lock.run(async (hold) => {
      await hold.release();
      platform.stall(20_000);
      return "done";
    });
    expect(await running).toBe("done");
  });
});

describe("a lock on a store that answers badly", () => {
  /** The fault for the n-th txn of the client, from 1. */
  function nth(faults: Record<number, CallFault>): LocalFaults {
    let calls = 0;
    return { call: () => faults[++calls] };
  }

  test("takes a place that was put by an attempt whose answer was lost", async () => {
    const { engine, platform } = world(nth({ 1: { kind: "lose-answer" } }));
    const taken = outcome(createLock(engine, "orders").acquire());
    await platform.advance(11_000);
    expect(await taken).toMatchObject({ value: { held: true } });
    expect(await createLock(engine, "orders").queue()).toHaveLength(1);
  });

  test("takes its own key for its own, also at tryAcquire", async () => {
    const { engine, platform } = world(nth({ 1: { kind: "lose-answer" } }));
    const taken = outcome(createLock(engine, "orders").tryAcquire({}));
    await platform.advance(6_000);
    expect(await taken).toMatchObject({ value: { held: true } });
    expect(await createLock(engine, "orders").queue()).toHaveLength(1);
  });

  test("tryAcquire gives up after ten seconds without an answer, and leaves nothing behind", async () => {
    const { engine, platform } = world({ call: () => ({ kind: "lose-answer" }) });
    const taken = outcome(createLock(engine, "orders").tryAcquire());
    await platform.advance(10_000);
    expect(await taken).toMatchObject({ error: { code: "TIMEOUT" } });
    await platform.advance(15_000);
    expect(await createLock(engine.twin({ faults: {} }), "orders").queue()).toHaveLength(0);
  });

  test("knows who is ahead when its unanswered attempt had put it behind another", async () => {
    const { engine, twin, platform } = world();
    const first = await createLock(engine, "orders").acquire();
    const unlucky = engine.twin({ faults: nth({ 1: { kind: "lose-answer" } }) });
    const waiting = outcome(createLock(unlucky, "orders").acquire());
    await platform.settle();
    const behind = outcome(createLock(twin(), "orders").acquire());
    await platform.advance(12_000);
    await first.release();
    const second = (await waiting) as { value: Hold };
    expect(second.value.held).toBe(true);
    await second.value.release();
    expect(await behind).toMatchObject({ value: { held: true } });
  });

  test.each(["lose-request", "lose-answer", "refuse"] as const)(
    "gives up without leaving a key behind after `%s`",
    async (kind) => {
      const { engine, twin, platform } = world();
      const unlucky = engine.twin({ faults: nth({ 1: { kind } }) });
      const controller = new AbortController();
      await createLock(engine, "orders").acquire();
      const waiting = outcome(createLock(unlucky, "orders").acquire({ signal: controller.signal }));
      await platform.settle();
      controller.abort("enough");
      expect(await waiting).toEqual({ error: "enough" });
      await platform.advance(25_000);
      expect(await createLock(twin(), "orders").queue()).toHaveLength(1);
    },
  );

  test("deletes a key that arrives after it was given up and deleted", async () => {
    const { engine, twin, platform } = world();
    const unlucky = engine.twin({ faults: nth({ 1: { kind: "late", delayMs: 3_000 } }) });
    const controller = new AbortController();
    const waiting = outcome(createLock(unlucky, "orders").acquire({ signal: controller.signal }));
    await platform.settle();
    controller.abort("enough");
    await waiting;
    await platform.advance(2_999);
    expect(await createLock(twin(), "orders").queue()).toHaveLength(0);
    await platform.advance(1);
    expect(await createLock(twin(), "orders").queue()).toHaveLength(1);
    await platform.advance(5_000);
    expect(await createLock(twin(), "orders").queue()).toHaveLength(0);
  });

  test("a try that was answered `held` looks for its own earlier, unanswered attempt, which may still arrive", async () => {
    const { engine, twin, platform } = world();
    const hold = await createLock(engine, "orders").acquire();
    const unlucky = engine.twin({ faults: nth({ 1: { kind: "late", delayMs: 7_000 } }) });
    const tried = outcome(createLock(unlucky, "orders").tryAcquire());
    await platform.advance(6_000);
    expect(await tried).toEqual({ value: null });
    await hold.release();
    await platform.advance(1_000);
    expect(await createLock(twin(), "orders").queue()).toHaveLength(1);
    await platform.advance(15_000);
    expect(await createLock(twin(), "orders").queue()).toHaveLength(0);
  });

  test("gets up by itself within a third of the TTL when the push is lost", async () => {
    const { engine, twin, platform } = world({ batch: () => ({ kind: "drop" }) });
    const hold = await createLock(engine, "orders").acquire();
    const waiting = createLock(twin(), "orders").acquire();
    await platform.settle();
    await hold.release();
    await platform.advance(5_000);
    expect((await waiting).held).toBe(true);
  });

  test("confirms by one look where the engine tells states only", async () => {
    const { engine, twin, platform } = world({}, "level");
    const waiter = twin();
    const hold = await createLock(engine, "orders").acquire();
    const waiting = createLock(waiter, "orders").acquire();
    await platform.settle();
    await hold.release();
    expect((await waiting).token).toBeGreaterThan(hold.token);
    expect(waiter.txnCount).toBe(2);
  });

  test("does not believe a push that comes after its own session ended by the clock", async () => {
    const { engine, twin, platform } = world();
    const waiter = twin();
    const hold = await createLock(engine, "orders").acquire();
    const waiting = outcome(createLock(waiter, "orders").acquire());
    await platform.settle();
    platform.stall(10_001);
    await engine
      .store("lock/orders")
      .txn({ if: [], then: [{ kind: "delete", range: { key: (await createLock(engine, "orders").holder())?.key ?? "" } }] });
    expect(hold.held).toBe(false);
    await platform.advance(0);
    expect(await waiting).toMatchObject({ error: { code: "SESSION_LOST" } });
  });
});
