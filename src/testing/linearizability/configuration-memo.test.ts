import fc from "fast-check";
import { expect, test } from "vitest";
import { type Configuration, ConfigurationMemo } from "./configuration-memo.ts";

const configuration = (stateId: number, mask: number[], used: number[], placedBelow = 0): Configuration => ({
  placedBelow,
  stateId,
  mask: Int32Array.from(mask),
  used: Int32Array.from(used),
});

test("a configuration is new once", () => {
  const memo = new ConfigurationMemo({ mask: 1, used: 0 });
  expect(memo.add(configuration(1, [5], []))).toBe(true);
  expect(memo.add(configuration(1, [5], []))).toBe(false);
  expect(memo.add(configuration(2, [5], []))).toBe(true);
  expect(memo.add(configuration(1, [4], []))).toBe(true);
  expect(memo.add(configuration(1, [5], [], 7))).toBe(true);
  expect(memo.count).toBe(4);
});

test("having used more optional operations is nothing new, having used fewer or others is", () => {
  const memo = new ConfigurationMemo({ mask: 1, used: 2 });
  expect(memo.add(configuration(1, [0], [0b0110, 0]))).toBe(true);
  expect(memo.add(configuration(1, [0], [0b1110, 0]))).toBe(false);
  expect(memo.add(configuration(1, [0], [0b0110, 1]))).toBe(false);
  expect(memo.add(configuration(1, [0], [0b1010, 0]))).toBe(true);
  expect(memo.add(configuration(1, [0], [0b0010, 0]))).toBe(true);
  expect(memo.add(configuration(1, [0], [0b0011, 0]))).toBe(false);
});

test("the bit of the sign is a bit like the others", () => {
  const memo = new ConfigurationMemo({ mask: 1, used: 1 });
  expect(memo.add(configuration(1, [-2147483648], [-2147483648]))).toBe(true);
  expect(memo.add(configuration(1, [-2147483648], [-1]))).toBe(false);
  expect(memo.add(configuration(1, [-2147483648], [1]))).toBe(true);
});

test("what was kept is found again however large the table grows", () => {
  const memo = new ConfigurationMemo({ mask: 1, used: 1 });
  const all = Array.from({ length: 20_000 }, (_, i) => configuration(i % 7, [i], [i % 3], i >>> 5));
  expect(all.filter((c) => memo.add(c)).length).toBe(all.length);
  expect(all.filter((c) => memo.add(c)).length).toBe(0);
  expect(memo.count).toBe(all.length);
});

test("configurations that share a bucket are still told apart", () => {
  const memo = new ConfigurationMemo({ mask: 1, used: 0 });
  // Twenty thousand of each: any two that differ in one part alone meet in some bucket.
  const parts = Array.from({ length: 20_000 }, (_, i) => [
    configuration(i + 2, [1], []),
    configuration(1, [i + 2], []),
    configuration(1, [1], [], i + 1),
  ]);
  expect(parts.flat().every((c) => memo.add(c))).toBe(true);
  expect(parts.flat().some((c) => memo.add(c))).toBe(false);
});

test("it agrees with a list that is searched from end to end", () => {
  const small = fc.tuple(fc.nat(2), fc.nat(3), fc.nat(15), fc.nat(2));
  fc.assert(
    fc.property(fc.array(small, { maxLength: 60 }), (entries) => {
      const memo = new ConfigurationMemo({ mask: 2, used: 1 });
      const kept: (typeof entries)[number][] = [];
      for (const [stateId, mask, used, placedBelow] of entries) {
        const isCovered = kept.some(([s, m, u, p]) => s === stateId && m === mask && p === placedBelow && (u & ~used) === 0);
        expect(memo.add(configuration(stateId, [mask, 1], [used], placedBelow))).toBe(!isCovered);
        if (!isCovered) kept.push([stateId, mask, used, placedBelow]);
      }
    }),
  );
});
