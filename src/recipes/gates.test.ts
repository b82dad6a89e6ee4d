/** Latch, barrier and double barrier: what waits until many have come. */
import { describe, expect, test } from "vitest";
import { LocalEngine } from "../testing/local-engine.ts";
import type { CallFault } from "../testing/local-faults.ts";
import { VirtualPlatform } from "../testing/virtual-platform.ts";
import { createBarrier, createDoubleBarrier } from "./barrier.ts";
import { createLatch } from "./latch.ts";

function world(call?: () => CallFault | undefined) {
  const platform = new VirtualPlatform();
  const engine = new LocalEngine({ platform, ...(call === undefined ? {} : { faults: { call } }) });
  return { platform, engine };
}

function stateOf(promise: Promise<unknown>): { done: boolean } {
  const state = { done: false };
  void promise.then(() => {
    state.done = true;
  });
  return state;
}

describe("a latch", () => {
  test("opens after as many different reports as it counts, and stays open", async () => {
    const { engine, platform } = world();
    const latch = createLatch(engine, "l", { count: 2 });
    const waiting = stateOf(createLatch(engine.twin(), "l", { count: 2 }).wait());
    expect(await latch.countDown("a")).toBe(1);
    expect(await latch.countDown("a")).toBe(1);
    await platform.advance(100);
    expect(waiting.done).toBe(false);
    expect(await latch.countDown("b")).toBe(0);
    await platform.advance(100);
    expect(waiting.done).toBe(true);
    await latch.wait({ waitMs: 1 });
    await latch.reset();
    expect(await latch.missing()).toBe(2);
  });

  test("counts a report once though its answer was lost", async () => {
    let calls = 0;
    const { engine, platform } = world(() => (++calls === 1 ? { kind: "lose-answer" } : undefined));
    const counting = createLatch(engine, "l", { count: 2 }).countDown("a", { timeoutMs: 100 });
    await platform.advance(1_000);
    expect(await counting).toBe(1);
  });

  test("gives up after the wait", async () => {
    const { engine, platform } = world();
    const waiting = createLatch(engine, "l", { count: 1 })
      .wait({ waitMs: 500 })
      .catch((error: unknown) => error);
    await platform.advance(500);
    expect(await waiting).toMatchObject({ code: "WAIT_TIMEOUT" });
    expect(platform.pending.refs).toBe(0);
  });
});

describe("a barrier", () => {
  test("holds everybody back while it is closed, and nobody else", async () => {
    const { engine, platform } = world();
    const barrier = createBarrier(engine, "b");
    await barrier.wait();
    await barrier.close();
    const waiting = stateOf(barrier.wait());
    await platform.advance(20_000);
    expect(waiting.done).toBe(false);
    await barrier.open();
    await platform.advance(10);
    expect(waiting.done).toBe(true);
  });

  test("closed for a session opens when that session ends", async () => {
    const { engine, platform } = world();
    const dying = engine.twin();
    const session = await dying.store("barrier/b").session({ ttlMs: 2_000 });
    await createBarrier(dying, "b").close({ session });
    const waiting = stateOf(createBarrier(engine, "b").wait());
    dying.cutOff();
    await platform.advance(2_500);
    expect(waiting.done).toBe(true);
  });
});

describe("a double barrier", () => {
  test("lets a party start together and end together, again and again", async () => {
    const { engine, platform } = world();
    let inside = 0;
    let mostInside = 0;
    const rounds: number[] = [0, 0, 0];
    const member = async (index: number): Promise<void> => {
      const barrier = createDoubleBarrier(engine.twin(), "d", { parties: 3 });
      for (let round = 0; round < 4; round++) {
        const entered = await barrier.enter();
        inside++;
        mostInside = Math.max(mostInside, inside);
        expect(entered.alive).toBe(true);
        await new Promise((resolve) => void platform.setTimer(10 * index, () => resolve(undefined)));
        inside--;
        await entered.leave();
        rounds[index] = round + 1;
        expect(Math.max(...rounds) - Math.min(...rounds)).toBeLessThanOrEqual(1);
      }
    };
    const all = [0, 1, 2].map(member);
    await platform.advance(5_000);
    await Promise.all(all);
    expect(mostInside).toBe(3);
    expect(rounds).toEqual([4, 4, 4]);
  });

  test("does not start with one who died waiting, and ends without one who died inside", async () => {
    const { engine, platform } = world();
    const dying = engine.twin();
    const options = { parties: 2, ttlMs: 2_000 };
    createDoubleBarrier(dying, "d", options)
      .enter()
      .catch(() => undefined);
    await platform.settle();
    dying.cutOff();
    await platform.advance(2_500);
    const first = createDoubleBarrier(engine, "d", options).enter();
    const firstState = stateOf(first);
    await platform.advance(1_000);
    expect(firstState.done).toBe(false);
    const second = engine.twin();
    const entered = [await Promise.all([createDoubleBarrier(second, "d", options).enter(), platform.advance(1_000)])];
    expect(entered).toHaveLength(1);
    await first;
    second.cutOff();
    const left = stateOf((await first).leave());
    await platform.advance(500);
    expect(left.done).toBe(false);
    await platform.advance(2_500);
    expect(left.done).toBe(true);
  });

  test("a round whose members all died is cleared for the next", async () => {
    const { engine, platform } = world();
    const twins = [engine.twin(), engine.twin()];
    const options = { parties: 2, ttlMs: 2_000 };
    const entering = twins.map((twin) => createDoubleBarrier(twin, "d", options).enter());
    await platform.advance(100);
    await Promise.all(entering);
    for (const twin of twins) twin.cutOff();
    await platform.advance(3_000);
    const next = [engine.twin(), engine.twin()].map((twin) => createDoubleBarrier(twin, "d", options).enter());
    await platform.advance(1_000);
    expect(await Promise.all(next)).toHaveLength(2);
  });

  test("a member that gives up is taken back", async () => {
    const { engine, platform } = world();
    const waiting = createDoubleBarrier(engine, "d", { parties: 2 })
      .enter({ waitMs: 300 })
      .catch((error: unknown) => error);
    await platform.advance(300);
    expect(await waiting).toMatchObject({ code: "WAIT_TIMEOUT" });
    await platform.advance(100);
    const { results } = await engine.store("double-barrier/d").txn({ then: [{ kind: "range", range: { prefix: "" } }] });
    expect(results[0]).toMatchObject({ count: 0 });
  });
});
