import { describe, expect, test } from "vitest";
import { LocalEngine } from "../testing/local-engine.ts";
import { VirtualPlatform } from "../testing/virtual-platform.ts";
import type { Migration } from "./migration.ts";
import { createPartitions, type Partitions, type PartitionsOptions } from "./partitions.ts";
import type { Shard } from "./shard.ts";

const ttlMs = 3_000;

interface Member {
  readonly engine: LocalEngine;
  readonly partitions: Partitions;
  /** Those that were given and not yet taken back. */
  readonly shards: Map<number, Shard>;
  readonly ended: { error?: unknown; done: boolean };
  stop(): void;
}

class World {
  readonly platform = new VirtualPlatform();
  readonly root = new LocalEngine({ platform: this.platform });
  /** Everything that was ever given, by partition, in order. */
  readonly history = new Map<number, Shard[]>();

  join(member: string, options: PartitionsOptions = {}, work: { readonly isStubborn?: boolean } = {}): Member {
    const engine = this.root.twin();
    const partitions = createPartitions(engine, "orders", { count: 64, ttlMs, member, ...options });
    const controller = new AbortController();
    const shards = new Map<number, Shard>();
    const ended: Member["ended"] = { done: false };
    const run = async (): Promise<void> => {
      for await (const shard of partitions.mine({ signal: controller.signal })) {
        this.#check(shard);
        shards.set(shard.id, shard);
        shard.signal.addEventListener("abort", () => {
          if (shards.get(shard.id) === shard) shards.delete(shard.id);
          if (work.isStubborn !== true) shard.release();
        });
      }
    };
    run()
      .catch((error: unknown) => Object.assign(ended, { error }))
      .finally(() => Object.assign(ended, { done: true }));
    return { engine, partitions, shards, ended, stop: () => controller.abort(new Error("stop")) };
  }

  /** Whenever a shard is given, no other of the partition says that it is held, and epochs rise. */
  #check(shard: Shard): void {
    const before = this.history.get(shard.id) ?? [];
    for (const other of before) expect(other.held, `two owners of ${shard.id}`).toBe(false);
    expect(shard.epoch).toBeGreaterThan(before.at(-1)?.epoch ?? 0);
    this.history.set(shard.id, [...before, shard]);
  }

  held(...members: readonly Member[]): number[] {
    return members.map(({ shards }) => [...shards.values()].filter((shard) => shard.held).length);
  }
}

describe("partitions", () => {
  test("a first member gets all; those that join get their part, and only what they get has moved", async () => {
    const world = new World();
    const a = world.join("a");
    await world.platform.advance(1_000);
    expect(world.held(a)).toEqual([64]);
    const b = world.join("b");
    await world.platform.advance(3_000);
    expect(world.held(a, b)).toEqual([32, 32]);
    const c = world.join("c");
    await world.platform.advance(3_000);
    expect(world.held(a, b, c).sort()).toEqual([21, 21, 22]);
    const given = [...world.history.values()].reduce((sum, shards) => sum + shards.length, 0);
    // 64 at first, half of them to b, and to c no more than its part.
    expect(given).toBeLessThanOrEqual(64 + 32 + 22);
    expect(await a.partitions.holders()).toHaveLength(64);
    for (const member of [a, b, c]) expect(member.ended.done).toBe(false);
  });

  test("a member that leaves in order passes its partitions on without waiting for its session", async () => {
    const world = new World();
    const [a, b, c] = [world.join("a"), world.join("b"), world.join("c")];
    await world.platform.advance(5_000);
    const given = [...world.history.values()].flat().length;
    const leaving = world.held(b)[0] as number;
    b.stop();
    await world.platform.advance(500);
    expect(b.ended).toEqual({ done: true });
    expect(world.held(a, b, c)).toEqual([32, 0, 32]);
    expect([...world.history.values()].flat()).toHaveLength(given + leaving);
  });

  test("a member that is cut off stops a third of the TTL before another owns what it had", async () => {
    const world = new World();
    const [a, b] = [world.join("a"), world.join("b")];
    await world.platform.advance(3_000);
    const before = [...b.shards.values()];
    expect(before).toHaveLength(32);
    b.engine.cutOff();
    await world.platform.advance((2 / 3) * ttlMs);
    expect(before.every((shard) => shard.signal.aborted)).toBe(true);
    expect(before[0]?.signal.reason).toMatchObject({ code: "PARTITION_LOST" });
    expect(world.held(a)).toEqual([32]);
    await world.platform.advance(2 * ttlMs);
    expect(world.held(a, b)).toEqual([64, 0]);
    // The guard of a holder of the past refuses.
    const guard = before[0]?.guard();
    const late = await world.root.store("data").txn({ if: [guard as never], then: [{ kind: "put", key: "x", value: "late" }] });
    expect(late.succeeded).toBe(false);
    const now = a.shards.get(before[0]?.id ?? -1);
    const fresh = await world.root
      .store("data")
      .txn({ if: [now?.guard() as never], then: [{ kind: "put", key: "x", value: "now" }] });
    expect(fresh.succeeded).toBe(true);
    b.engine.heal();
    await world.platform.advance(5 * ttlMs);
    expect(world.held(a, b)).toEqual([32, 32]);
  });

  test("right after a stall of the whole process `held` is false, before any timer has fired", async () => {
    const world = new World();
    const a = world.join("a");
    await world.platform.advance(2_000);
    const shard = a.shards.get(0) as Shard;
    world.platform.stall(ttlMs);
    expect(shard.held).toBe(false);
    expect(() => shard.assertHeld()).toThrow(expect.objectContaining({ code: "PARTITION_LOST" }));
    expect(shard.signal.aborted).toBe(true);
  });

  test("a weight moves what it must and no more; 0 gives everything away", async () => {
    const world = new World();
    const [a, b] = [world.join("a"), world.join("b")];
    await world.platform.advance(3_000);
    const given = [...world.history.values()].flat().length;
    a.partitions.reweigh(3);
    await world.platform.advance(3_000);
    expect(world.held(a, b)).toEqual([48, 16]);
    expect([...world.history.values()].flat()).toHaveLength(given + 16);
    b.partitions.reweigh(0);
    await world.platform.advance(3_000);
    expect(world.held(a, b)).toEqual([64, 0]);
    expect(await b.partitions.plan()).toMatchObject({
      members: [
        { id: "a", weight: 3, holds: 64, will: 64 },
        { id: "b", weight: 0, holds: 0, will: 0 },
      ],
      underWay: [],
      waiting: [],
      maxOverAverage: 1,
    });
  });

  test("no more than `movesMax` are under way, and the plan shows those and the ones that wait", async () => {
    const world = new World();
    const begun: Migration[] = [];
    const finish: (() => void)[] = [];
    const migrate = async (migration: Migration): Promise<void> => {
      if (migration.from === null) return;
      begun.push(migration);
      migration.report(0.5);
      await new Promise<void>((resolve) => finish.push(resolve));
    };
    const a = world.join("a", { movesMax: 4, migrate });
    await world.platform.advance(2_000);
    expect(world.held(a)).toEqual([64]);
    const b = world.join("b", { movesMax: 4, migrate });
    await world.platform.advance(4_000);
    expect(begun).toHaveLength(4);
    expect(world.held(a, b)).toEqual([64, 0]);
    const plan = await b.partitions.plan();
    expect(plan.underWay).toHaveLength(4);
    expect(plan.underWay[0]).toMatchObject({ from: "a", to: "b", progress: 0.5 });
    expect(plan.waiting).toHaveLength(28);
    finish.splice(0, 1)[0]?.();
    await world.platform.advance(2_000);
    expect(world.held(a, b)).toEqual([63, 1]);
    expect(begun).toHaveLength(5);
    for (let round = 0; round < 40; round++) {
      for (const each of finish.splice(0)) each();
      await world.platform.advance(1_000);
    }
    expect(world.held(a, b)).toEqual([32, 32]);
  });

  test("the holder serves while the data is copied, and has stopped when `handOver` resolves", async () => {
    const world = new World();
    const a = world.join("a", { count: 2 });
    await world.platform.advance(1_000);
    const log: string[] = [];
    let copied: () => void = () => undefined;
    const b = world.join("b", {
      count: 2,
      migrate: async (migration) => {
        const old = a.shards.get(migration.partition) as Shard;
        await new Promise<void>((resolve) => {
          copied = resolve;
        });
        log.push(`copied, holder serves: ${old.held}`);
        const shard = await migration.handOver();
        log.push(`handed over, holder serves: ${old.held}, mine: ${shard.held}, served: ${b.shards.size}`);
      },
    });
    await world.platform.advance(2_000);
    expect(world.held(a, b)).toEqual([2, 0]);
    copied();
    await world.platform.advance(2_000);
    expect(log).toEqual(["copied, holder serves: true", "handed over, holder serves: false, mine: true, served: 0"]);
    expect(world.held(a, b)).toEqual([1, 1]);
  });

  test("a migration that fails is told of and tried again", async () => {
    const world = new World();
    const a = world.join("a", { count: 2 });
    await world.platform.advance(1_000);
    const errors: unknown[] = [];
    let attempts = 0;
    const b = world.join("b", {
      count: 2,
      onError: (error, partition) => errors.push([String(error), typeof partition]),
      migrate: () => (++attempts < 3 ? Promise.reject(new Error("no")) : Promise.resolve()),
    });
    await world.platform.advance(3_000);
    expect(errors).toEqual([
      ["Error: no", "number"],
      ["Error: no", "number"],
    ]);
    expect(world.held(a, b)).toEqual([1, 1]);
  });

  test.each(["the new owner", "the old owner", "both"])(
    "%s dies in the middle of a move: the rest serves everything",
    async (who) => {
      const world = new World();
      const stuck = (migration: Migration): Promise<void> =>
        migration.from === null ? Promise.resolve() : new Promise(() => undefined);
      const a = world.join("a", { migrate: stuck });
      await world.platform.advance(1_000);
      const b = world.join("b", { migrate: stuck });
      const c = world.join("c", { migrate: () => Promise.resolve() });
      await world.platform.advance(3_000);
      expect((await c.partitions.plan()).underWay.length).toBeGreaterThan(0);
      if (who !== "the old owner") b.engine.cutOff();
      if (who !== "the new owner") a.engine.cutOff();
      await world.platform.advance(10 * ttlMs);
      const [ofA, ofB, ofC] = world.held(a, b, c) as [number, number, number];
      if (who === "both") {
        expect([ofA, ofB, ofC]).toEqual([0, 0, 64]);
      } else if (who === "the new owner") {
        expect(ofA + ofC).toBe(64);
        expect(ofC).toBe(32);
      } else {
        // Half of it was to go to b, whose copying hangs: c serves its own half.
        expect(ofA).toBe(0);
        expect(ofC).toBe(32);
      }
    },
  );

  test("work that does not stop is waited for until `drainMs`, and no longer", async () => {
    const world = new World();
    const a = world.join("a", { count: 2, drainMs: 5_000 }, { isStubborn: true });
    await world.platform.advance(1_000);
    const shards = [...a.shards.values()];
    const b = world.join("b", { count: 2 });
    await world.platform.advance(4_000);
    expect(shards.filter((shard) => shard.signal.aborted)).toHaveLength(1);
    expect(world.held(b)).toEqual([0]);
    await world.platform.advance(3_000);
    expect(world.held(b)).toEqual([1]);
  });

  test("a claim that an operator deletes is noticed: the shard ends, and the partition is served anew", async () => {
    const world = new World();
    const a = world.join("a", { count: 4 });
    await world.platform.advance(1_000);
    const shard = a.shards.get(2) as Shard;
    await world.root.store("partitions/orders").txn({ then: [{ kind: "delete", range: { key: "own/2" } }] });
    await world.platform.advance(1_000);
    expect(shard.held).toBe(false);
    expect(a.shards.get(2)?.epoch).toBeGreaterThan(shard.epoch);
  });

  test("a member of the same name, restarted, waits for its old session and gets its part again", async () => {
    const world = new World();
    const [a, b] = [world.join("a"), world.join("b")];
    await world.platform.advance(3_000);
    b.engine.cutOff();
    const again = world.join("b");
    await world.platform.advance((2 / 3) * ttlMs);
    expect(world.held(a, again)).toEqual([32, 0]);
    await world.platform.advance(3 * ttlMs);
    expect(world.held(a, again)).toEqual([32, 32]);
  });

  test("1,000 partitions are claimed in tens of round trips", async () => {
    const world = new World();
    const a = world.join("a", { count: 1_000 });
    await world.platform.advance(2_000);
    expect(world.held(a)).toEqual([1_000]);
    expect(a.engine.txnCount).toBeLessThan(70);
  });

  test("refuses options that make no sense, a second `mine`, and another count than the Store's", async () => {
    const world = new World();
    const invalid = expect.objectContaining({ code: "INVALID_OPTION", definite: true });
    const bad: PartitionsOptions[] = [
      { count: 0 },
      { count: 1.5 },
      { count: 16_385 },
      { weight: -1 },
      { weight: Number.NaN },
      { movesMax: 0 },
      { drainMs: -1 },
      { drainMs: Number.POSITIVE_INFINITY },
      { ttlMs: 1 },
      { member: "" },
      { member: "\ud800" },
    ];
    for (const options of bad) expect(() => createPartitions(world.root, "x", options), JSON.stringify(options)).toThrow(invalid);
    expect(() => createPartitions(world.root, "")).toThrow(invalid);
    const a = world.join("a");
    await world.platform.advance(1_000);
    await expect(a.partitions.mine().next()).rejects.toEqual(invalid);
    const other = world.join("b", { count: 32 });
    const twice = createPartitions(a.engine, "orders", { count: 64, ttlMs, member: "a" });
    const refused = twice.mine().next();
    const outcome = refused.catch((error: unknown) => error);
    await world.platform.advance(1_000);
    expect(other.ended).toEqual({ done: true, error: invalid });
    expect(await outcome).toEqual(invalid);
    expect(() => a.partitions.reweigh(Number.NaN)).toThrow(invalid);
    expect(() => a.partitions.partitionOf(5 as never)).toThrow(expect.objectContaining({ code: "KEY_INVALID" }));
    expect(world.held(a)).toEqual([64]);
  });

  test("once everybody has left, nothing is left in the Store but the table, and nothing keeps the process alive", async () => {
    const world = new World();
    const members = [world.join("a"), world.join("b"), world.join("c")];
    await world.platform.advance(3_000);
    for (const member of members) member.stop();
    await world.platform.advance(3_000);
    expect(members.map(({ ended }) => ended)).toEqual([{ done: true }, { done: true }, { done: true }]);
    const { results } = await world.root.store("partitions/orders").txn({ then: [{ kind: "range", range: { prefix: "" } }] });
    expect(results[0]).toMatchObject({ entries: [{ key: "table" }] });
    expect(world.platform.pending.refs).toBe(0);
  });
});
