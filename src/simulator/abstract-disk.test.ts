import { expect, test } from "vitest";
import type { LogEntry } from "../consensus/core.ts";
import { AbstractDisk } from "./abstract-disk.ts";

function put(index: number, term = 1): { readonly kind: "put"; readonly entry: LogEntry } {
  return { kind: "put", entry: { index, term, kind: "batch", stampMs: 0, payload: Uint8Array.of(index, term) } };
}

function held(disk: AbstractDisk): string[] {
  return disk.recovered().entries.map(({ index, term }) => `${index}@${term}`);
}

const configuration = { voters: ["a"], learners: [] };

test("a put into a gapless log drops what stands behind it, and one that would leave a gap is not taken", () => {
  const disk = new AbstractDisk(false);
  disk.apply([put(1), put(2), put(3)]);
  disk.apply([put(2, 2)]);
  disk.apply([put(5, 2)]);
  expect(held(disk)).toEqual(["1@1", "2@2"]);
});

test("a put into sparse slots leaves the others alone, in any order, and a snapshot covers what lies below it", () => {
  const disk = new AbstractDisk(true);
  disk.apply([put(5), put(2), { kind: "meta", values: { promised: "7" } }]);
  disk.apply([put(2, 2)]);
  expect(held(disk)).toEqual(["2@2", "5@1"]);
  disk.putSnapshot({ index: 3, term: 2, configuration, lengthBytes: 0, stampMs: 0 }, { underWay: 0 });
  disk.apply([put(1)]);
  expect(held(disk)).toEqual(["5@1"]);
  expect(disk.recovered().meta.get("promised")).toBe("7");
});

test("writes that a snapshot overtook stay away where they hang on another entry than its own (seed 1991)", () => {
  const after = (written: readonly number[], underWay: readonly (readonly ReturnType<typeof put>[])[], cutAfter: number) => {
    const disk = new AbstractDisk(false);
    disk.apply(written.map((term, at) => put(at + 1, term)));
    disk.putSnapshot({ index: 2, term: 3, configuration, lengthBytes: 0, stampMs: 0 }, { underWay: underWay.length });
    for (const operations of underWay.slice(0, cutAfter)) disk.apply(operations);
    return disk;
  };
  // The entry of term 1 at the snapshot's index is on the disk, or still under way like the one behind it.
  expect(held(after([1, 1], [[put(3, 1)], [put(4, 1)]], 2))).toEqual([]);
  expect(held(after([1], [[put(2, 1)], [put(3, 1)]], 2))).toEqual([]);
  expect(held(after([1, 1, 1], [], 0))).toEqual([]);
  // A log that agrees with the snapshot in the end: until its own entry is there, what stands behind is another leader's.
  const corrected = [[put(3, 1)], [{ kind: "truncate", from: 2 } as never, put(2, 3)], [put(3, 3)]];
  expect([1, 2, 3].map((cut) => held(after([1, 1], corrected, cut)))).toEqual([[], [], ["3@3"]]);
  expect(held(after([3, 3], [[put(3, 3)]], 1))).toEqual(["3@3"]);
  // What is written after the snapshot follows it, also by the next incarnation.
  const disk = after([1, 1], [[put(3, 1)], [put(4, 1)]], 1);
  expect(held(disk)).toEqual([]);
  disk.apply([put(3, 4)]);
  expect(held(disk)).toEqual(["3@4"]);
});
