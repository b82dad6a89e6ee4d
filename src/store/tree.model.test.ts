import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Tree, TreeEdit } from "./tree.ts";

const key = fc.nat(400).map((number) => number.toString(7));
const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant("set" as const), key }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("delete" as const), key }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("fill" as const), key }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("clear" as const), key }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("seal" as const), key }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("ask" as const), key }) },
);

describe("the tree", () => {
  test("does what a sorted array does, and what it sealed never changes", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120, size: "max" }), key, key, (steps, one, other) => {
        const edit = new TreeEdit<number>();
        const model = new Map<string, number>();
        const sealed: { tree: Tree<number>; expected: [string, number][] }[] = [];
        let counter = 0;
        const differences: string[] = [];
        const set = (each: string): void => {
          if (edit.set(each, ++counter) !== model.get(each)) differences.push(`set ${each}`);
          model.set(each, counter);
        };
        const remove = (each: string): void => {
          if (edit.delete(each) !== model.get(each)) differences.push(`delete ${each}`);
          model.delete(each);
        };
        for (const { kind, key: each } of steps) {
          if (kind === "set") set(each);
          else if (kind === "delete") remove(each);
          else if (kind === "fill") for (let at = 0; at < 60; at++) set(each + at);
          else if (kind === "clear") for (let at = 59; at >= 0; at -= 1 + (at % 3)) remove(each + at);
          else if (kind === "seal") sealed.push({ tree: edit.seal(), expected: sorted(model) });
          else expectSame(edit, sorted(model), one, each);
        }
        expectSame(edit, sorted(model), one, other);
        expect(differences).toEqual([]);
        expectSame(new TreeEdit(edit.seal()), sorted(model), one, other);
        for (const { tree, expected } of sealed) expectSame(tree, expected, one, other);
      }),
      { numRuns: 60 },
    );
  });

  test("holds a hundred thousand keys that arrive in order, in reverse and shuffled, and gives them all back", () => {
    const count = 100_000;
    const shuffled = Array.from({ length: count }, (_, at) => (at * 7_919) % count);
    for (const order of [(at: number) => at, (at: number) => count - 1 - at, (at: number) => shuffled[at] as number]) {
      const edit = new TreeEdit<number>();
      for (let at = 0; at < count; at++) edit.set(name(order(at)), order(at));
      expect(edit.size).toBe(count);
      expect([...edit.leaves()].flat()).toEqual(Array.from({ length: count }, (_, at) => at));
      expect(edit.rank(name(54_321))).toBe(54_321);
      expect(edit.count(name(10), name(99_990))).toBe(99_980);
      const full = edit.seal();
      for (let at = 0; at < count; at++) if (at % 10 !== 0) edit.delete(name(order(at)));
      expect(edit.size).toBe(count / 10);
      expect(full.size).toBe(count);
      for (let at = 0; at < count; at++) edit.delete(name(at));
      expect(edit.size).toBe(0);
      expect([...edit.leaves()]).toEqual([]);
      expect(full.get(name(777))).toBe(777);
    }
  });
});

function sorted(model: ReadonlyMap<string, number>): [string, number][] {
  return [...model].sort(([left], [right]) => (left < right ? -1 : 1));
}

function expectSame(tree: Tree<number>, expected: readonly [string, number][], one: string, other: string): void {
  expect(tree.size).toBe(expected.length);
  expect([...tree.leaves()].flat()).toEqual(expected.map(([, value]) => value));
  expect(expected.map(([each]) => [each, tree.get(each)])).toEqual(expected);
  expect(tree.get(`${one}?`)).toBeUndefined();
  expect(tree.rank(one)).toBe(expected.filter(([each]) => each < one).length);
  const [from, to] = one < other ? [one, other] : [other, one];
  const inside = expected.filter(([each]) => from <= each && each < to);
  expect(tree.count(from, to)).toBe(inside.length);
  expect(tree.count(to, from)).toBe(0);
  expect(collect((visitor) => tree.visit(from, to, visitor))).toEqual(inside);
  expect(collect((visitor) => tree.visitDown(from, to, visitor))).toEqual(inside.toReversed());
  expect(collect((visitor) => tree.visit(from, "~", visitor), 3)).toEqual(expected.filter(([each]) => from <= each).slice(0, 3));
}

function collect(
  visit: (visitor: (value: number, key: string) => boolean) => void,
  limit = Number.MAX_SAFE_INTEGER,
): [string, number][] {
  const found: [string, number][] = [];
  visit((value, key) => {
    found.push([key, value]);
    return found.length < limit;
  });
  return found;
}

function name(number: number): string {
  return String(number).padStart(6, "0");
}
