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
  disk.installSnapshot({ index: 3, term: 2, configuration, lengthBytes: 0, stampMs: 0 });
  disk.apply([put(1)]);
  expect(held(disk)).toEqual(["5@1"]);
  expect(disk.recovered().meta.get("promised")).toBe("7");
});
