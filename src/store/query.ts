/**
 * What can be asked of one state: whether compares hold, and which entries a range has. Pure functions of a tree.
 */
import { unreachable } from "../base/assert.ts";
import { compareBytes, emptyBytes } from "../base/bytes.ts";
import type { ResolvedCompare, ResolvedRange } from "./command.ts";
import { Entry } from "./entry.ts";
import type { Operator, OpResult } from "./store.ts";
import type { Tree } from "./tree.ts";

export type RangeResult = Extract<OpResult, { readonly kind: "range" }>;

/** What is left of `limits.resultBytesMax` for one answer. */
export interface ResultBudget {
  bytes: number;
}

export function allHold(compares: readonly ResolvedCompare[], tree: Tree<Entry>): boolean {
  for (const compare of compares) if (!holds(compare, tree)) return false;
  return true;
}

function holds(compare: ResolvedCompare, tree: Tree<Entry>): boolean {
  if (!("range" in compare)) return holdsFor(compare, tree.get(compare.key));
  let result = true;
  tree.visit(compare.range.from, compare.range.to, (entry) => {
    result = holdsFor(compare, entry);
    return result;
  });
  return result;
}

function holdsFor(compare: ResolvedCompare, entry: Entry | undefined): boolean {
  switch (compare.target) {
    case "exists":
      return (entry !== undefined) === compare.to;
    case "createRevision":
      return satisfies(compare.is, (entry === undefined ? 0 : entry.createRevision) - compare.to);
    case "modRevision":
      return satisfies(compare.is, (entry === undefined ? 0 : entry.modRevision) - compare.to);
    case "version":
      return satisfies(compare.is, (entry === undefined ? 0 : entry.version) - compare.to);
    case "value":
      // No value is different from every value, and neither below nor above one.
      return entry === undefined ? compare.is === "not-equal" : satisfies(compare.is, compareBytes(entry.value, compare.to));
    case "session": {
      const session = entry === undefined || entry.session === null ? null : Number(entry.session);
      return (session === compare.to) === (compare.is === "equal");
    }
    default:
      return unreachable(compare);
  }
}

function satisfies(is: Operator, difference: number): boolean {
  switch (is) {
    case "equal":
      return difference === 0;
    case "not-equal":
      return difference !== 0;
    case "less":
      return difference < 0;
    case "greater":
      return difference > 0;
    default:
      return unreachable(is);
  }
}

/** Undefined when the answer would exceed the budget, which is then of no further use. */
export function readRange(op: ResolvedRange, tree: Tree<Entry>, budget: ResultBudget): RangeResult | undefined {
  const limit = op.limit ?? Number.MAX_SAFE_INTEGER;
  const isFiltered = op.createdBefore !== null;
  if (op.order === "create" || isFiltered) return readSelected(op, tree, limit, budget);

  const { from, to } = op.range;
  const count = tree.count(from, to);
  const entries: Entry[] = [];
  let left = Math.min(limit, count);
  const take = (entry: Entry): boolean => {
    if (left === 0) return false;
    left--;
    entries.push(op.keysOnly ? withoutValue(entry) : entry);
    budget.bytes -= resultBytes(entry, op.keysOnly);
    return budget.bytes >= 0;
  };
  if (left > 0) {
    if (op.descending) tree.visitDown(from, to, take);
    else tree.visit(from, to, take);
  }
  return budget.bytes < 0 ? undefined : { kind: "range", entries, count, more: count > entries.length };
}

/** By creation, or filtered by it: every entry of the range has to be looked at. */
function readSelected(op: ResolvedRange, tree: Tree<Entry>, limit: number, budget: ResultBudget): RangeResult | undefined {
  const createdBefore = op.createdBefore ?? Number.POSITIVE_INFINITY;
  const selected: Entry[] = [];
  tree.visit(op.range.from, op.range.to, (entry) => {
    if (entry.createRevision < createdBefore) selected.push(entry);
    return true;
  });
  // Selected in key order; the sort is stable, so equal creations stay in it.
  if (op.order === "create") selected.sort((left, right) => left.createRevision - right.createRevision);
  if (op.descending) selected.reverse();
  const entries: Entry[] = [];
  for (const entry of selected) {
    if (entries.length >= limit) break;
    entries.push(op.keysOnly ? withoutValue(entry) : entry);
    budget.bytes -= resultBytes(entry, op.keysOnly);
    if (budget.bytes < 0) return undefined;
  }
  return { kind: "range", entries, count: selected.length, more: selected.length > entries.length };
}

/** About what the entry takes in an answer: its bytes, and 40 for lengths and numbers. */
export function resultBytes(entry: Entry, keysOnly = false): number {
  return entry.binaryKey.length + (keysOnly ? 0 : entry.value.length) + 40;
}

function withoutValue(entry: Entry): Entry {
  return new Entry({
    binaryKey: entry.binaryKey,
    value: emptyBytes,
    createRevision: entry.createRevision,
    modRevision: entry.modRevision,
    version: entry.version,
    session: entry.session,
  });
}
