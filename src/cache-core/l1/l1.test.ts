import { describe, expect, test, vi } from "vitest";
import { createL1, type L1Options, type L1Policy } from "./l1.ts";

const policies: readonly L1Policy[] = ["w-tinylfu", "s3-fifo", "sieve", "lru"];

function cache(options: Partial<L1Options> & { readonly policy: L1Policy }) {
  const clock = { ms: 0 };
  const removed: [string, unknown][] = [];
  const bound = options.bytesMax === undefined ? { entriesMax: 100 } : {};
  const l1 = createL1<number>({
    ...bound,
    now: () => clock.ms,
    onRemove: (key, value) => removed.push([key, value]),
    ...options,
  });
  return { l1, clock, removed };
}

function dice(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return (state >>> 8) % below;
  };
}

describe.each(policies)("an L1 by %s", (policy) => {
  test("gives back what was stored, and nothing else, under any order of calls; size and weight are true", () => {
    for (const bound of [{ entriesMax: 50 }, { bytesMax: 300 }]) {
      for (let seed = 1; seed <= 8; seed++) {
        const next = dice(seed);
        const { l1, clock, removed } = cache({ policy, ...bound });
        /** What may be there: the last value stored, its weight and its end. */
        const stored = new Map<string, { value: number; weight: number; expiresMs: number }>();
        for (let step = 0; step < 3_000; step++) {
          // Of few keys too, so that one is missed, stored and stored again with nothing in between.
          const key = `k${next(seed % 2 === 0 ? 4 : 120)}`;
          const known = stored.get(key);
          const kind = next(10);
          clock.ms += next(3);
          if (kind < 5) {
            const found = l1.get(key);
            if (found !== undefined) {
              expect(found).toBe(known?.value);
              expect(known?.expiresMs).toBeGreaterThan(clock.ms);
            }
          } else if (kind < 9) {
            const weight = next(20);
            const expiresMs = next(3) === 0 ? clock.ms + next(200) : Number.POSITIVE_INFINITY;
            l1.set(key, step, weight, expiresMs);
            if (expiresMs > clock.ms) stored.set(key, { value: step, weight, expiresMs });
            else stored.delete(key);
          } else {
            l1.delete(key);
            stored.delete(key);
            expect(l1.peek(key)).toBeUndefined();
          }
          for (const [gone, value] of removed.splice(0)) if (stored.get(gone)?.value === value) stored.delete(gone);
          expect(l1.weight).toBeLessThanOrEqual(bound.entriesMax ?? bound.bytesMax ?? 0);
        }
        // `onRemove` has told of everything that went: what is left is exactly what was stored and not removed.
        expect([...l1.keys()].sort()).toEqual([...stored.keys()].sort());
        expect(l1.size).toBe(stored.size);
        const weights = [...stored.values()].reduce((sum, { weight }) => sum + (bound.entriesMax === undefined ? weight : 1), 0);
        expect(l1.weight).toBe(weights);
        l1.sweep();
        for (const [key, { value, expiresMs }] of stored) expect(l1.peek(key)).toBe(expiresMs > clock.ms ? value : undefined);
        expect(l1.size).toBe([...stored.values()].filter(({ expiresMs }) => expiresMs > clock.ms).length);
      }
    }
  });

  test("holds everything while there is room, and displaces one for one when there is none", () => {
    const { l1, removed } = cache({ policy, entriesMax: 1_000 });
    for (let at = 0; at < 1_000; at++) l1.set(`k${at}`, at);
    for (let at = 0; at < 1_000; at++) expect(l1.get(`k${at}`)).toBe(at);
    expect(removed).toEqual([]);
    for (let at = 0; at < 500; at++) l1.set(`n${at}`, at);
    expect(l1.size).toBe(1_000);
    expect(removed).toHaveLength(500);
  });

  test("an entry is over from its moment on, on `get` and `peek`, and is taken out", () => {
    const { l1, clock, removed } = cache({ policy });
    l1.set("a", 1, 1, 10);
    l1.set("b", 2);
    clock.ms = 9.99;
    expect([l1.get("a"), l1.peek("a")]).toEqual([1, 1]);
    clock.ms = 10;
    expect(l1.peek("a")).toBeUndefined();
    expect(l1.size).toBe(2);
    expect(l1.get("a")).toBeUndefined();
    expect(l1.size).toBe(1);
    expect(removed).toEqual([["a", 1]]);
    l1.set("b", 3, 1, 10);
    expect(l1.peek("b")).toBeUndefined();
    expect(l1.delete("b")).toBe(false);
    l1.set("c", 4, 1, 20);
    clock.ms = 20;
    expect(l1.delete("c")).toBe(false);
  });

  test("a value stored again without an end no longer expires, and the other way round", () => {
    const { l1, clock } = cache({ policy });
    l1.set("a", 1, 1, 10);
    l1.set("a", 2);
    l1.set("b", 1);
    l1.set("b", 2, 1, 10);
    clock.ms = 10;
    expect([l1.get("a"), l1.get("b")]).toEqual([2, undefined]);
  });

  test("what is over goes without being read: each `set` looks at a few, `sweep` at all", () => {
    const { l1, clock } = cache({ policy, entriesMax: 1_000 });
    for (let at = 0; at < 800; at++) l1.set(`k${at}`, at, 1, 100);
    clock.ms = 100;
    for (let at = 0; at < 200; at++) l1.set(`n${at}`, at);
    expect(l1.size).toBeLessThanOrEqual(210);
    for (let at = 0; at < 100; at++) l1.set(`m${at}`, at, 1, 200);
    clock.ms = 200;
    expect(l1.sweep(30)).toBe(30);
    expect(l1.sweep()).toBe(70);
  });

  test("what weighs more than the whole is not stored, and what it should have replaced is dropped", () => {
    const { l1 } = cache({ policy, bytesMax: 100 });
    l1.set("a", 1, 50);
    l1.set("a", 2, 101);
    expect(l1.peek("a")).toBeUndefined();
    l1.set("b", 3, 100);
    expect([l1.peek("b"), l1.weight]).toEqual([3, 100]);
    l1.set("c", 4, 60);
    expect(l1.weight).toBeLessThanOrEqual(100);
    l1.set("d", 5, 0);
    expect(l1.peek("d")).toBe(5);
  });

  test("a heavier value for a known key makes room elsewhere", () => {
    const { l1 } = cache({ policy, bytesMax: 100 });
    for (let at = 0; at < 10; at++) l1.set(`k${at}`, at, 10);
    l1.set("k5", 50, 60);
    expect(l1.weight).toBeLessThanOrEqual(100);
  });

  test("`clear` empties it, and it works on", () => {
    const { l1, removed } = cache({ policy, entriesMax: 20 });
    for (let at = 0; at < 60; at++) l1.set(`k${at}`, at, 1, 50);
    removed.length = 0;
    l1.clear();
    expect(removed).toHaveLength(20);
    expect([l1.size, l1.weight, [...l1.keys()]]).toEqual([0, 0, []]);
    for (let at = 0; at < 60; at++) {
      l1.set(`k${at}`, at);
      l1.get(`k${at}`);
    }
    expect(l1.size).toBe(20);
  });

  test("keys that are names of Object's own properties, a megabyte long or ill-formed are keys like others", () => {
    const { l1 } = cache({ policy });
    const keys = ["__proto__", "constructor", "", "x".repeat(2 ** 20), "\ud800", "\ud801"];
    for (const [at, key] of keys.entries()) l1.set(key, at);
    expect(keys.map((key) => l1.get(key))).toEqual([0, 1, 2, 3, 4, 5]);
  });

  test("an L1 of one entry works", () => {
    const { l1 } = cache({ policy, entriesMax: 1 });
    for (let at = 0; at < 50; at++) {
      l1.set(`k${at % 3}`, at);
      expect(l1.size).toBe(1);
    }
  });

  test("reads the clock only for entries that can expire", () => {
    const now = vi.fn(() => 0);
    const l1 = createL1<number>({ policy, entriesMax: 10, now });
    l1.set("a", 1);
    l1.get("a");
    expect(now).not.toHaveBeenCalled();
    l1.set("b", 2, 1, 5);
    now.mockClear();
    l1.get("a");
    expect(now).not.toHaveBeenCalled();
    l1.get("b");
    expect(now).toHaveBeenCalledTimes(1);
  });
});

describe("what a policy is for", () => {
  test("lru displaces what was used longest ago, exactly", () => {
    const { l1 } = cache({ policy: "lru", entriesMax: 40 });
    const order = new Map<string, number>();
    const next = dice(7);
    for (let step = 0; step < 20_000; step++) {
      const key = `k${next(100)}`;
      const isKnown = order.delete(key);
      expect(l1.get(key) !== undefined).toBe(isKnown);
      if (!isKnown) l1.set(key, step);
      order.set(key, step);
      if (order.size > 40) order.delete(order.keys().next().value as string);
    }
  });

  test("sieve follows Algorithm 1 of its paper (NSDI 2024)", () => {
    const { l1 } = cache({ policy: "sieve", entriesMax: 20 });
    /** Newest first, as the paper draws it. */
    const queue: { key: string; visited: boolean }[] = [];
    let hand: (typeof queue)[number] | undefined;
    const next = dice(3);
    for (let step = 0; step < 20_000; step++) {
      const key = `k${next(next(2) === 0 ? 15 : 60)}`;
      const known = queue.find((each) => each.key === key);
      expect(l1.get(key) !== undefined).toBe(known !== undefined);
      if (known !== undefined) {
        known.visited = true;
        continue;
      }
      l1.set(key, step);
      // Ours makes room after the newcomer is in: the hand sees it only where it has gone all the way round.
      queue.unshift({ key, visited: false });
      if (queue.length <= 20) continue;
      let at = hand === undefined ? queue.length - 1 : queue.indexOf(hand);
      while (queue[at]?.visited) {
        (queue[at] as { visited: boolean }).visited = false;
        at = at === 0 ? queue.length - 1 : at - 1;
      }
      hand = at === 0 ? undefined : queue[at - 1];
      queue.splice(at, 1);
    }
  });

  test.each([
    ["w-tinylfu", 60],
    ["s3-fifo", 60],
    ["lru", 0],
  ] as const)("a long scan leaves %s at least %i of 80 entries that are used often", (policy, kept) => {
    const { l1 } = cache({ policy, entriesMax: 100 });
    const hot = Array.from({ length: 80 }, (_, at) => `hot${at}`);
    for (let round = 0; round < 20; round++) {
      for (const key of hot) if (l1.get(key) === undefined) l1.set(key, 1);
    }
    for (let at = 0; at < 600; at++) l1.set(`scan${at}`, at);
    const left = hot.filter((key) => l1.peek(key) !== undefined).length;
    expect(left).toBeGreaterThanOrEqual(kept);
    if (policy === "lru") expect(left).toBe(0);
  });

  test("w-tinylfu widens its window where recency rules, and narrows it again where frequency does", () => {
    const { l1 } = cache({ policy: "w-tinylfu", entriesMax: 400 });
    const next = dice(5);
    const hitsOf = (uses: number, keyAt: (at: number) => string): number => {
      let hits = 0;
      for (let at = 0; at < uses; at++) {
        const key = keyAt(at);
        if (l1.get(key) !== undefined) hits++;
        else l1.set(key, at);
      }
      return hits / uses;
    };
    // Each key is asked for five times within a short while, and never again: LRU hits four times of five.
    const recent = (at: number): string => `r${Math.floor(at / 5) - next(40)}`;
    hitsOf(30_000, recent);
    expect(hitsOf(30_000, recent)).toBeGreaterThan(0.75);
    // A loop longer than the cache: LRU never hits, frequency keeps a part of it.
    const loop = (at: number): string => `l${at % 600}`;
    hitsOf(60_000, loop);
    expect(hitsOf(60_000, loop)).toBeGreaterThan(0.5);
  });
});

test("refuses bounds, policies, weights and ends that make no sense, saying which", () => {
  const invalid = expect.objectContaining({ code: "INVALID_OPTION", definite: true });
  const now = (): number => 0;
  for (const bound of [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY]) {
    expect(() => createL1({ entriesMax: bound, now })).toThrow(invalid);
    expect(() => createL1({ bytesMax: bound, now })).toThrow(invalid);
  }
  expect(() => createL1({ now })).toThrow(invalid);
  expect(() => createL1({ entriesMax: 1, bytesMax: 1, now })).toThrow(invalid);
  expect(() => createL1({ entriesMax: 1, now, policy: "fifo" as L1Policy })).toThrow(invalid);
  const l1 = createL1<number>({ bytesMax: 10, now });
  for (const weight of [-1, Number.NaN]) expect(() => l1.set("a", 1, weight)).toThrow(invalid);
  expect(() => l1.set("a", 1, 1, Number.NaN)).toThrow(invalid);
  expect(l1.size).toBe(0);
});
