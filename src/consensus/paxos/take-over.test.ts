/**
 * Phase 1 as the candidate sees it, without a core around it.
 */
import { expect, test } from "vitest";
import type { LogEntry } from "../core.ts";
import { TakeOver } from "./take-over.ts";

function accepted(index: number, ballot: number, term = ballot): LogEntry {
  return { index, term, kind: "batch", stampMs: 0, payload: new Uint8Array(0), ballot };
}

test("of each slot the value of the highest ballot, whoever reports first", () => {
  for (const order of [
    ["b", "c"],
    ["c", "b"],
  ]) {
    const takeOver = new TakeOver(9, 1);
    const reports = { b: [accepted(1, 4), accepted(2, 7)], c: [accepted(1, 5), accepted(3, 3)] };
    for (const member of order as ("b" | "c")[]) {
      takeOver.report(member, { from: 1, next: 0, chosen: 0, entries: reports[member] });
    }
    expect([1, 2, 3, 4].map((index) => takeOver.highestAt(index)?.ballot)).toEqual([5, 7, 3, undefined]);
    expect(takeOver.last).toBe(3);
  }
});

test("pages are taken once, in order, and a promise counts with its last page", () => {
  const takeOver = new TakeOver(9, 5);
  expect(takeOver.report("b", { from: 7, next: 0, chosen: 0, entries: [] })).toBe(false);
  expect(takeOver.report("b", { from: 5, next: 7, chosen: 0, entries: [accepted(5, 4)] })).toBe(true);
  expect(takeOver.report("b", { from: 5, next: 7, chosen: 0, entries: [accepted(5, 4)] })).toBe(false);
  expect(takeOver.promised.has("b")).toBe(false);
  expect(takeOver.report("b", { from: 7, next: 0, chosen: 0, entries: [] })).toBe(true);
  expect(takeOver.promised.has("b")).toBe(true);
});

test("what a member learned between two of its pages does not make the earlier page's values chosen", () => {
  const takeOver = new TakeOver(9, 1);
  takeOver.report("b", { from: 1, next: 3, chosen: 1, entries: [accepted(1, 4), accepted(2, 4)] });
  // Meanwhile b learned that slot 2 holds another value than the one that it told, and slot 3 with it.
  takeOver.report("b", { from: 3, next: 0, chosen: 3, entries: [accepted(3, 6)] });
  expect(takeOver.chosen).toBe(1);
  expect(takeOver.chosenAt(1).ballot).toBe(4);
  expect(() => takeOver.chosenAt(2)).toThrow(/every chosen value/);
});
