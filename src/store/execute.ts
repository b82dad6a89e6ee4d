/**
 * Runs one transaction: judge the compares, run one branch in order, keep all of it or nothing.
 */
import { unreachable } from "../base/assert.ts";
import { binaryStringToUtf8, utf8Decode, utf8Encode } from "../base/bytes.ts";
import type { Limits } from "./caps.ts";
import type { ResolvedOp, ResolvedRange, ResolvedTxn } from "./command.ts";
import type { Entry } from "./entry.ts";
import { stripNamespace } from "./key.ts";
import { type ErrorOutcome, errorOutcome, type MachineEvent, type Outcome } from "./outcome.ts";
import { allHold, type ResultBudget, readRange, resultBytes } from "./query.ts";
import { revisionMax, type State } from "./state.ts";
import type { OpResult, SessionId } from "./store.ts";
import type { Tree } from "./tree.ts";

type WritingOp = Extract<ResolvedOp, { readonly kind: "put" | "delete" | "add" }>;

/** Longer texts are no numbers worth reading; 2^53 has 16 digits. */
const digitsMax = 32;

/** `onCommit` hears of the changes before the outcome is answered. */
export function executeTxn(
  txn: ResolvedTxn,
  state: State,
  limits: Limits,
  onCommit: (events: readonly MachineEvent[]) => void,
): Outcome {
  const succeeded = allHold(txn.compares, state.tree);
  const ops = succeeded ? txn.then : txn.else;
  const budget: ResultBudget = { bytes: limits.resultBytesMax };
  const results: OpResult[] = [];
  for (const op of ops) {
    const result =
      op.kind === "get" || op.kind === "range" ? readOp(op, state.tree, budget, limits) : writeOp(op, state, budget, limits);
    if (result.kind === "error") {
      state.rollback();
      return result;
    }
    results.push(result);
  }
  const events = state.commit();
  if (events.length > 0) onCommit(events);
  return { kind: "txn", result: { succeeded, revision: state.revision, results } };
}

/** A get or a range on one state. */
export function readOp(
  op: Exclude<ResolvedOp, WritingOp>,
  tree: Tree<Entry>,
  budget: ResultBudget,
  limits: Limits,
): OpResult | ErrorOutcome {
  if (op.kind === "range") return readRange(op, tree, budget) ?? resultTooLarge(op, limits);
  const entry = tree.get(op.key) ?? null;
  return spend(budget, entry) ? { kind: "get", entry } : resultTooLarge(op, limits);
}

/** One for all: the answer to most writes, kept by the claim of each. */
const putWithoutPrevious: OpResult = Object.freeze({ kind: "put", previous: null });

function writeOp(op: WritingOp, state: State, budget: ResultBudget, limits: Limits): OpResult | ErrorOutcome {
  switch (op.kind) {
    case "put":
      return put(op, state, budget, limits);
    case "delete":
      return remove(op, state, budget, limits);
    case "add":
      return add(op, state);
    default:
      return unreachable(op);
  }
}

function put(
  op: Extract<ResolvedOp, { readonly kind: "put" }>,
  state: State,
  budget: ResultBudget,
  limits: Limits,
): OpResult | ErrorOutcome {
  let session: SessionId | null = null;
  if (op.session !== null) {
    const alive = state.sessions.get(op.session);
    if (alive === undefined) {
      return errorOutcome("SESSION_EXPIRED", `Key ${shown(op.key)} was not written: its session ${op.session} is not alive.`);
    }
    session = alive.id;
  }
  if (state.revision >= revisionMax) return revisionLimit(op.key);
  const previous = state.put(op.key, op.value, session);
  if (!op.returnPrevious) return putWithoutPrevious;
  return spend(budget, previous) ? { kind: "put", previous } : resultTooLarge(op, limits);
}

function remove(
  op: Extract<ResolvedOp, { readonly kind: "delete" }>,
  state: State,
  budget: ResultBudget,
  limits: Limits,
): OpResult | ErrorOutcome {
  // Collected first: a tree is not walked while it changes.
  const keys: string[] = [];
  state.tree.visit(op.range.from, op.range.to, (_, key) => {
    keys.push(key);
    return true;
  });
  if (keys.length > 0 && state.revision >= revisionMax) return revisionLimit(op.range.from);
  const previous: Entry[] = [];
  for (const key of keys) {
    const entry = state.remove(key);
    if (!op.returnPrevious) continue;
    if (!spend(budget, entry)) return resultTooLarge(op, limits);
    previous.push(entry);
  }
  return { kind: "delete", count: keys.length, previous };
}

function add(op: Extract<ResolvedOp, { readonly kind: "add" }>, state: State): OpResult | ErrorOutcome {
  const previous = state.tree.get(op.key);
  const before = previous === undefined ? 0 : wholeNumber(previous.value);
  if (before === undefined) return errorOutcome("NOT_A_NUMBER", `The value of key ${shown(op.key)} is no whole number.`);
  const value = before + op.delta;
  if (!Number.isSafeInteger(value)) {
    return errorOutcome("NOT_A_NUMBER", `The sum of ${before} and ${op.delta} for key ${shown(op.key)} leaves 2^53.`);
  }
  if (state.revision >= revisionMax) return revisionLimit(op.key);
  state.put(op.key, utf8Encode(String(value)), previous === undefined ? null : previous.session);
  return { kind: "add", value };
}

/** Decimal digits, perhaps with a minus sign; undefined for anything else. */
function wholeNumber(value: Uint8Array): number | undefined {
  if (value.length > digitsMax) return undefined;
  const text = utf8Decode(value);
  if (!/^-?[0-9]+$/.test(text)) return undefined;
  const number = Number(text);
  return Number.isSafeInteger(number) ? number : undefined;
}

function spend(budget: ResultBudget, entry: Entry | null): boolean {
  if (entry !== null) budget.bytes -= resultBytes(entry);
  return budget.bytes >= 0;
}

function resultTooLarge(op: Exclude<ResolvedOp, { readonly kind: "add" }> | ResolvedRange, limits: Limits): ErrorOutcome {
  const from = "range" in op ? op.range.from : op.key;
  return errorOutcome("TXN_TOO_LARGE", `The answer at ${shown(from)} exceeds ${limits.resultBytesMax} bytes; nothing was done.`);
}

function revisionLimit(key: string): ErrorOutcome {
  return errorOutcome("REVISION_LIMIT", `Key ${shown(key)} was not written: no revision is left.`);
}

function shown(key: string): string {
  return JSON.stringify(binaryStringToUtf8(stripNamespace(key)));
}
