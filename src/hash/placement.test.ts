import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  BoundedLoad,
  type Diff,
  jump,
  jumpBucket,
  ketama,
  maglev,
  type NodeLike,
  type Placement,
  rendezvous,
  ring,
  shares,
} from "./index.ts";

const names = (count: number): string[] => Array.from({ length: count }, (_, index) => `node-${index}`);
const all: Readonly<Record<string, (nodes: Iterable<NodeLike>) => Placement>> = { ring, ketama, rendezvous, maglev, jump };
const byName = Object.entries(all);

/** The definition of a diff: both placements asked at every end of a range and in between. */
function checkRanges(before: Placement, after: Placement, diff: Diff): void {
  const idAt = (placement: Placement, place: number): string | undefined => placement.nodes[placement.rankAt(place)]?.id;
  let moved = 0;
  let last = { to: 0, source: "", target: "" } as { to: number; source: string | null; target: string | null };
  for (const range of diff.ranges ?? []) {
    expect(range.from).toBeGreaterThanOrEqual(last.to);
    if (range.from === last.to) expect([range.source, range.target]).not.toEqual([last.source, last.target]);
    for (const place of [range.from, Math.floor((range.from + range.to) / 2), range.to - 1]) {
      expect(idAt(before, place)).toBe(range.source);
      expect(idAt(after, place)).toBe(range.target);
    }
    expect(range.share).toBe((range.to - range.from) / 2 ** 32);
    moved += range.share;
    last = range;
  }
  expect(diff.moved).toBeCloseTo(moved, 9);
}

describe.each(byName)("a placement by %s", (name, make) => {
  test("answers every key with one of its nodes, the first of its owners", () => {
    const placement = make(names(7));
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), fc.integer({ min: 1, max: 9 }), (key, count) => {
        const owners = placement.owners(key, count);
        expect(owners[0]).toBe(placement.owner(key));
        expect(owners).toHaveLength(Math.min(7, count));
        expect(new Set(owners).size).toBe(owners.length);
      }),
    );
  });

  test("is not changed by `with` and `without`", () => {
    const placement = make(names(5));
    const before = names(100).map((key) => placement.owner(key));
    placement.with("another");
    placement.without("node-2");
    expect(names(100).map((key) => placement.owner(key))).toEqual(before);
    expect(placement.nodes.map(({ id }) => id)).toEqual(names(5));
    expect(Object.isFrozen(placement.nodes)).toBe(true);
  });

  test("a key of a megabyte, an empty one and half a surrogate pair have owners", () => {
    const placement = make(names(5));
    for (const key of ["x".repeat(2 ** 20), "é".repeat(2 ** 19), "", "\ud800"]) expect(names(5)).toContain(placement.owner(key));
    expect(placement.owner("a\ud800")).toBe(placement.owner("a\ufffd"));
  });

  test("refuses what is no key, no node, no count and no weight, saying which", () => {
    const placement = make(names(3));
    const code = (expected: string) => expect.objectContaining({ code: expected, definite: true });
    for (const key of [undefined, null, 5, {}, new Uint8Array(1)]) {
      expect(() => placement.owner(key as string)).toThrow(code("KEY_INVALID"));
      expect(() => placement.owners(key as string, 2)).toThrow(code("KEY_INVALID"));
    }
    for (const count of [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => placement.owners("key", count)).toThrow(code("INVALID_OPTION"));
    }
    for (const node of ["", "\ud800", null, undefined, 7, {}, { id: 7 }, { id: "a", zone: 5 }]) {
      expect(() => placement.with(node as string)).toThrow(code("INVALID_OPTION"));
      expect(() => make([node as string])).toThrow(code("INVALID_OPTION"));
    }
    for (const weight of [-1, Number.NaN, Number.POSITIVE_INFINITY, 1e7, "2"]) {
      expect(() => placement.with({ id: "a", weight: weight as number })).toThrow(code("INVALID_OPTION"));
    }
    expect(() =>
      make([
        { id: "a", zone: "x" },
        { id: "a", zone: "y" },
      ]),
    ).toThrow(code("INVALID_OPTION"));
    expect(() => placement.without("nobody")).toThrow(code("INVALID_OPTION"));
  });

  test("a diff tells for each key what the two placements say, and its shares add up", () => {
    const before = make(names(8));
    for (const after of [before.with("new"), before.without("node-3"), before, before.without("node-7").with("x").with("y")]) {
      const diff = before.diff(after);
      let moved = 0;
      for (const key of names(5_000)) {
        const [source, target] = [before.owner(key), after.owner(key)];
        expect(diff.moveOf(key)).toEqual(source === target ? null : { source, target });
        if (source !== target) moved++;
      }
      expect(Math.abs(moved / 5_000 - diff.moved)).toBeLessThan(0.04);
      expect(diff.flows.reduce((sum, flow) => sum + flow.share, 0)).toBeCloseTo(diff.moved, 9);
      expect(diff.isExact).toBe(diff.ranges !== null);
      expect(diff.ranges !== null).toBe(name !== "rendezvous" && name !== "jump");
      if (diff.ranges !== null) checkRanges(before, after, diff);
    }
  });

  test("a diff from and to nobody moves everything", () => {
    const [empty, full] = [make([]), make(["a"])];
    expect(empty.diff(full)).toMatchObject({ moved: 1, optimum: 1, collateral: 0, flows: [{ source: null, target: "a" }] });
    expect(full.diff(empty)).toMatchObject({ moved: 1, optimum: 1, collateral: 0, flows: [{ source: "a", target: null }] });
    expect(empty.diff(empty)).toMatchObject({ moved: 0, optimum: 0 });
  });
});

describe("weights", () => {
  const weighted = [
    { id: "a", weight: 1 },
    { id: "b", weight: 2 },
    { id: "c", weight: 3.5 },
    { id: "off", weight: 0 },
  ];

  test.each([
    ["ring", ring, 0.03],
    ["rendezvous", rendezvous, 0.005],
    ["maglev", maglev, 0.001],
  ] as const)("%s gives each node its part, and one of weight 0 nothing", (_, make, tolerance) => {
    const placement = make(weighted);
    const parts = shares(placement);
    for (const { id, weight } of weighted.slice(0, 3)) {
      expect(Math.abs((parts.get(id) ?? 0) - weight / 6.5)).toBeLessThan(tolerance);
    }
    expect(parts.has("off")).toBe(false);
    expect(names(3_000).some((key) => placement.owners(key, 4).includes("off"))).toBe(false);
  });

  test("rendezvous orders its lots alike with equal weights and with different ones", () => {
    const before = rendezvous(names(9));
    const { collateral, flows } = before.diff(before.with({ id: "heavy", weight: 2 }));
    expect(collateral).toBe(0);
    expect(flows.every(({ target }) => target === "heavy")).toBe(true);
  });

  test("jump refuses weights, and maglev more nodes than slots and sizes that are no primes", () => {
    const invalid = expect.objectContaining({ code: "INVALID_OPTION" });
    expect(() => jump([{ id: "a", weight: 2 }])).toThrow(invalid);
    expect(() => maglev(names(12), { tableSize: 11 })).toThrow(invalid);
    for (const tableSize of [0, 1, 65_536, 65_537.5, 5_000_017, Number.NaN])
      expect(() => maglev([], { tableSize })).toThrow(invalid);
    for (const virtualNodes of [0, -1, 1.5, Number.NaN, 65_537]) expect(() => ring([], { virtualNodes })).toThrow(invalid);
    expect(() => ring([{ id: "a", weight: 1e6 }], { virtualNodes: 65_536 })).toThrow(invalid);
  });
});

describe("the sources' own figures", () => {
  // dgryski/go-jump, jump_test.go: vectors of the paper's C++ code (Lamping and Veach, Figure 1).
  test.each([
    [1, 1, 0],
    [42, 57, 43],
    [0xdead10cc, 1, 0],
    [0xdead10cc, 666, 361],
    [256, 1024, 520],
  ])("jump of key %i into %i buckets is %i", (key, buckets, expected) => {
    expect(jumpBucket({ high: 0, low: key }, buckets)).toBe(expected);
  });

  test("jump is the paper's code in 64-bit arithmetic, also for keys of 64 bits", () => {
    const whole = 2n ** 64n - 1n;
    fc.assert(
      fc.property(fc.bigInt(0n, whole), fc.integer({ min: 1, max: 100_000 }), (key, buckets) => {
        let state = key;
        let bucket = -1n;
        for (let next = 0n; next < BigInt(buckets); ) {
          bucket = next;
          state = (state * 2862933555777941757n + 1n) & whole;
          next = BigInt(Math.floor((Number(bucket) + 1) * (2 ** 31 / (Number(state >> 33n) + 1))));
        }
        expect(jumpBucket({ high: Number(key >> 32n), low: Number(key & 0xffff_ffffn) }, buckets)).toBe(Number(bucket));
      }),
    );
  });

  test("Maglev's slots differ by one at most (NSDI 2016 §3.4: the table is filled in turns)", () => {
    const slots = [...shares(maglev(names(100))).values()].map((share) => Math.round(share * 65_537));
    expect(Math.max(...slots) - Math.min(...slots)).toBeLessThanOrEqual(1);
  });

  test("100 nodes of 256 points: the largest part is 1.18 of the mean at most, over 20 sets of names", () => {
    let sum = 0;
    for (let set = 0; set < 20; set++) {
      const placement = ring(Array.from({ length: 100 }, (_, index) => `set-${set}-cache-${index}.internal`));
      sum += Math.max(...shares(placement).values()) * 100;
      expect(placement.bytes).toBeLessThan(500_000);
    }
    expect(sum / 20).toBeLessThanOrEqual(1.18);
  });
});

describe("bounded loads", () => {
  test("no node is above the ceiling of factor * load * share, whatever is asked (arXiv 1608.01350 §2)", () => {
    const placement = ring([{ id: "heavy", weight: 3 }, ...names(19)]);
    for (const factor of [1.05, 1.25, 2]) {
      const bounded = new BoundedLoad(placement, { factor });
      for (let asked = 1; asked <= 4_000; asked++) {
        // One key in four is the same: affinity alone would put a quarter on one node.
        const id = bounded.take(asked % 4 === 0 ? "hot" : `key-${asked}`);
        const share = id === "heavy" ? 3 / 22 : 1 / 22;
        expect(bounded.load(id)).toBeLessThanOrEqual(Math.ceil(factor * asked * share));
      }
      expect(bounded.load()).toBe(4_000);
    }
  });

  test("a key goes home once there is room again, and loads outlive a change of nodes", () => {
    const bounded = new BoundedLoad(ring(names(4)), { factor: 1.25 });
    const home = bounded.placement.owner("key");
    const taken = Array.from({ length: 8 }, () => bounded.take("key"));
    expect(new Set(taken).size).toBeGreaterThan(1);
    for (const id of taken) bounded.giveBack(id);
    expect(bounded.load()).toBe(0);
    expect(bounded.take("key")).toBe(home);
    bounded.moveTo(bounded.placement.without(home));
    expect(bounded.take("key")).not.toBe(home);
    bounded.giveBack(home);
    expect(() => bounded.giveBack(home)).toThrow(expect.objectContaining({ code: "INVALID_OPTION" }));
    for (const factor of [1, 0, Number.NaN, 101]) {
      expect(() => new BoundedLoad(bounded.placement, { factor })).toThrow(expect.objectContaining({ code: "INVALID_OPTION" }));
    }
    expect(() => new BoundedLoad(ring())).toThrow(expect.objectContaining({ code: "NO_NODES" }));
  });
});

test("a diff between placements that hash keys differently is refused; between ring sizes it is exact", () => {
  expect(() => ring(["a"]).diff(ketama(["a"]))).toThrow(expect.objectContaining({ code: "INVALID_OPTION" }));
  const [before, after] = [ring(names(10), { virtualNodes: 160 }), ring(names(10))];
  checkRanges(before, after, before.diff(after));
});
