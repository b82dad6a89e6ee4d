/** Counter, sequence, config value, membership, once per tick, topic. */
import { describe, expect, test } from "vitest";
import { LocalEngine } from "../testing/local-engine.ts";
import type { CallFault } from "../testing/local-faults.ts";
import { VirtualPlatform } from "../testing/virtual-platform.ts";
import { createConfig } from "./config.ts";
import { createCounter, createSequence } from "./counter.ts";
import { createMembership } from "./membership.ts";
import { createRunOnce } from "./run-once.ts";
import { createTopic, type TopicNews } from "./topic.ts";

function world(call?: () => CallFault | undefined, watch: "log" | "level" = "log") {
  const platform = new VirtualPlatform();
  const engine = new LocalEngine({ platform, watch, ...(call === undefined ? {} : { faults: { call } }) });
  return { platform, engine };
}

describe("a counter", () => {
  test.each([1, 8])("adds up over %i cells, in one round trip", async (cells) => {
    const { engine } = world();
    const counter = createCounter(engine, "c", { cells });
    expect(await counter.get()).toBe(0);
    for (let index = 1; index <= 20; index++) await counter.add(index);
    expect(await createCounter(engine.twin(), "c", { cells }).get()).toBe(210);
    expect(await counter.addAndGet(-10)).toBe(200);
    expect(engine.txnCount).toBe(22);
    await expect(counter.add(0.5)).rejects.toMatchObject({ code: "NOT_A_NUMBER" });
  });

  test("answers with unique sums to concurrent callers", async () => {
    const { engine } = world();
    const counter = createCounter(engine, "c");
    const sums = await Promise.all(Array.from({ length: 50 }, () => counter.addAndGet(1)));
    expect(new Set(sums).size).toBe(50);
  });

  test("refuses cells that cannot be", () => {
    for (const cells of [0, 1.5, 1_025]) expect(() => createCounter(world().engine, "c", { cells })).toThrow(/cells/);
  });
});

test("a sequence gives every number once, in blocks, with one round trip for each block", async () => {
  const { engine } = world();
  const twin = engine.twin();
  const sequences = [createSequence(engine, "s", { blockSize: 10 }), createSequence(twin, "s", { blockSize: 10 })];
  const numbers = await Promise.all(Array.from({ length: 100 }, (_, index) => sequences[index % 2]?.next()));
  expect(new Set(numbers).size).toBe(100);
  expect(Math.min(...(numbers as number[]))).toBe(1);
  expect(engine.txnCount + twin.txnCount).toBe(10);
});

describe("a config value", () => {
  test("changes only where nobody else has changed it, and is followed", async () => {
    const { engine, platform } = world();
    const config = createConfig<{ limit: number }>(engine, "c");
    expect(await config.get()).toEqual({ value: undefined, revision: null });
    const seen: unknown[] = [];
    const controller = new AbortController();
    const following = (async () => {
      for await (const { value } of config.observe({ signal: controller.signal })) seen.push(value?.limit);
    })();
    await platform.settle();
    const first = await config.set({ limit: 1 }, { expected: null });
    expect(await config.set({ limit: 9 }, { expected: null })).toBeNull();
    await platform.advance(50);
    await config.set({ limit: 2 }, { expected: first?.revision ?? 0 });
    await platform.advance(50);
    await Promise.all(
      Array.from({ length: 10 }, () =>
        createConfig<{ limit: number }>(engine, "c").update((value) => ({ limit: (value?.limit ?? 0) + 1 })),
      ),
    );
    expect((await config.get()).value).toEqual({ limit: 12 });
    await platform.advance(50);
    controller.abort();
    await following;
    expect(seen.slice(0, 3)).toEqual([undefined, 1, 2]);
    expect(seen.at(-1)).toBe(12);
  });

  test("checks what it reads and what it writes", async () => {
    const { engine } = world();
    const parse = (value: unknown): number => {
      if (typeof value !== "number") throw new TypeError("not a number");
      return value;
    };
    const config = createConfig<number>(engine, "c", { parse });
    await expect(config.set("seven" as never)).rejects.toThrow("not a number");
    await createConfig<unknown>(engine, "c").set("bad");
    await expect(config.get()).rejects.toThrow("not a number");
    await config.set(0);
    expect((await config.get()).value).toBe(0);
    await config.clear();
  });
});

describe("a membership", () => {
  test("shows who is here, drops who left at once and who died after its TTL", async () => {
    const { engine, platform } = world();
    const group = createMembership(engine, "g", { ttlMs: 2_000 });
    const dying = engine.twin();
    const seen: unknown[][] = [];
    const controller = new AbortController();
    const following = (async () => {
      for await (const members of group.observe({ signal: controller.signal })) seen.push(members.map(({ info }) => info));
    })();
    await platform.settle();
    const first = await group.join("a");
    await platform.advance(50);
    const second = await createMembership(dying, "g", { ttlMs: 2_000 }).join("b");
    expect(second.token).toBeGreaterThan(first.token);
    await platform.advance(50);
    await first.update("a2");
    await platform.advance(50);
    await first.leave();
    await first.leave();
    await platform.advance(50);
    dying.cutOff();
    await platform.advance(2_500);
    expect(second.alive).toBe(false);
    expect(second.lost.aborted).toBe(true);
    controller.abort();
    await following;
    expect(seen).toEqual([[], ["a"], ["a", "b"], ["a2", "b"], ["b"], []]);
    await expect(first.update("late")).rejects.toMatchObject({ code: "NOT_HOLDER" });
  });
});

describe("once per tick", () => {
  test("one of many processes runs", async () => {
    const { engine, platform } = world();
    let runs = 0;
    const jobs = Array.from({ length: 5 }, () => createRunOnce(engine.twin(), "nightly").every(60_000, () => ++runs));
    for (let tick = 1; tick <= 3; tick++) {
      const outcomes = await Promise.all(jobs.map((job) => job()));
      expect(outcomes.filter(({ ran }) => ran)).toHaveLength(1);
      expect(runs).toBe(tick);
      await platform.advance(60_000);
    }
  });

  test("knows its own slot where the answer was lost, and takes names of any kind", async () => {
    let calls = 0;
    const { engine, platform } = world(() => (++calls === 1 ? { kind: "lose-answer" } : undefined));
    const job = createRunOnce(engine, "j");
    const taking = job.take("2026-W47", { timeoutMs: 100 });
    await platform.advance(1_000);
    expect(await taking).toBe(true);
    expect(await job.take("2026-W47")).toBe(false);
    expect(await job.take(new Date(5))).toBe(true);
    expect(await job.take(5)).toBe(false);
    await expect(job.take("")).rejects.toMatchObject({ code: "INVALID_OPTION" });
    await expect(job.take(new Date(Number.NaN))).rejects.toMatchObject({ code: "INVALID_OPTION" });
  });

  test("keeps a bounded number of slots", async () => {
    const { engine } = world();
    const job = createRunOnce(engine, "j", { keep: 3 });
    for (let tick = 0; tick < 20; tick++) await job.take(tick);
    const { results } = await engine.store("run-once/j").txn({ then: [{ kind: "range", range: { prefix: "" } }] });
    expect(results[0]).toMatchObject({ count: 3 });
  });
});

describe.each(["log", "level"] as const)("a topic (watch: %s)", (watch) => {
  async function collect(news: AsyncIterable<TopicNews>, into: unknown[]): Promise<void> {
    for await (const one of news) into.push(one.kind === "gap" ? "gap" : one.payload);
  }

  test("tells every message in order, from now on or from where one was", async () => {
    const { engine, platform } = world(undefined, watch);
    const topic = createTopic(engine, "t");
    const before = await topic.publish("before");
    const controller = new AbortController();
    const { signal } = controller;
    const heard: unknown[] = [];
    const resumed: unknown[] = [];
    const listening = [
      collect(createTopic(engine.twin(), "t").subscribe({ signal }), heard),
      collect(createTopic(engine.twin(), "t").subscribe({ after: before - 1, signal }), resumed),
    ];
    await platform.settle();
    for (let index = 0; index < 30; index++) {
      await topic.publish(index);
      if (index % 7 === 0) await platform.advance(20);
    }
    await platform.advance(100);
    controller.abort();
    await Promise.all(listening);
    const all = Array.from({ length: 30 }, (_, index) => index);
    expect(heard).toEqual(all);
    expect(resumed).toEqual(["before", ...all]);
  });

  test("keeps a bounded board, and says so to who was away too long", async () => {
    const { engine, platform } = world(undefined, watch);
    const topic = createTopic(engine, "t", { keep: 10 });
    const first = await topic.publish(0);
    for (let index = 1; index < 100; index++) await topic.publish(index);
    const { results } = await engine.store("topic/t").txn({ then: [{ kind: "range", range: { prefix: "m/" } }] });
    expect(results[0]).toMatchObject({ kind: "range" });
    expect((results[0] as { count: number }).count).toBeLessThanOrEqual(15);
    const controller = new AbortController();
    const heard: unknown[] = [];
    const listening = collect(topic.subscribe({ after: first, signal: controller.signal }), heard);
    await platform.advance(50);
    controller.abort();
    await listening;
    expect(heard[0]).toBe("gap");
    expect(heard.slice(1)).toEqual(Array.from({ length: heard.length - 1 }, (_, index) => 100 - (heard.length - 1) + index));
  });
});
