import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { assigned, partitionOf, type WeighedNode } from "./assignment.ts";

const nobody = (count: number): null[] => Array.from({ length: count }, () => null);
const named = (count: number): WeighedNode[] => Array.from({ length: count }, (_, index) => ({ id: `n${index}`, weight: 1 }));

function counts(owners: readonly (string | null)[]): Map<string | null, number> {
  const result = new Map<string | null, number>();
  for (const owner of owners) result.set(owner, (result.get(owner) ?? 0) + 1);
  return result;
}

function movedCount(before: readonly (string | null)[], after: readonly (string | null)[]): number {
  return before.filter((owner, partition) => owner !== after[partition]).length;
}

describe("the assignment of partitions", () => {
  test("4,096 partitions of 100 nodes: the largest part is 1.01 of the mean at most", () => {
    const largest = Math.max(...counts(assigned(nobody(4_096), named(100))).values());
    expect(largest / 40.96).toBeLessThanOrEqual(1.01);
  });

  test("every node has its exact part, rounded down or up, and a change moves no more than it must", () => {
    const nodes = fc.uniqueArray(
      fc.record({ id: fc.string({ minLength: 1 }), weight: fc.constantFrom(0, 0.5, 1, 1, 1, 2, 3.7) }),
      {
        selector: ({ id }) => id,
        maxLength: 12,
      },
    );
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 200 }), fc.array(nodes, { minLength: 1, maxLength: 6 }), (count, steps) => {
        let owners: readonly (string | null)[] = nobody(count);
        for (const present of steps) {
          const next = assigned(owners, present);
          const total = present.reduce((sum, { weight }) => sum + weight, 0);
          if (total === 0) {
            expect(next).toEqual(owners);
            continue;
          }
          const [before, after] = [counts(owners), counts(next)];
          let least = 0;
          for (const { id, weight } of present) {
            const exact = (count * weight) / total;
            expect(after.get(id) ?? 0).toBeGreaterThanOrEqual(Math.floor(exact));
            expect(after.get(id) ?? 0).toBeLessThanOrEqual(Math.ceil(exact));
            least += Math.max(0, (after.get(id) ?? 0) - (before.get(id) ?? 0));
          }
          expect(next.every((owner) => owner !== null && present.some(({ id }) => id === owner))).toBe(true);
          // Only who ends with more than before has received anything: nobody swaps.
          expect(movedCount(owners, next)).toBe(least);
          expect(assigned(next, present)).toEqual(next);
          owners = next;
        }
      }),
    );
  });

  test("a join moves at most one part, rounded up; a leave what the one that left had", () => {
    let owners = assigned(nobody(4_096), named(1));
    for (let count = 2; count <= 120; count++) {
      const next = assigned(owners, named(count));
      expect(movedCount(owners, next)).toBeLessThanOrEqual(Math.ceil(4_096 / count));
      const left = assigned(next, named(count - 1));
      expect(movedCount(next, left)).toBe(counts(next).get(`n${count - 1}`));
      owners = next;
    }
  });

  test("who holds the partition that the roundings leave over keeps it", () => {
    const owners = ["n1", "n1", "n0", "n1", "n0"];
    expect(assigned(owners, named(2))).toEqual(owners);
    expect(assigned(["n2", "n2", "n1", "n0"], named(3))).toEqual(["n2", "n2", "n1", "n0"]);
  });

  test("neighbouring partitions of a node that left go to different nodes", () => {
    const owners = assigned(assigned(nobody(100), named(5)), named(4));
    expect(Math.max(...counts(owners).values()) - Math.min(...counts(owners).values())).toBeLessThanOrEqual(1);
  });
});

test("the partition of a key is fixed, below the count, and even", () => {
  expect(["user:42", "", "漢", "\ud800"].map((key) => partitionOf(key, 1_024))).toEqual([
    798,
    0,
    333,
    partitionOf("\ufffd", 1_024),
  ]);
  const seen = new Map<number, number>();
  for (let key = 0; key < 100_000; key++) {
    const partition = partitionOf(`key-${key}`, 100);
    seen.set(partition, (seen.get(partition) ?? 0) + 1);
  }
  expect(seen.size).toBe(100);
  expect(Math.max(...seen.values())).toBeLessThan(1_150);
});
