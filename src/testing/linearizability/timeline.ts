/**
 * The operations of one key, arranged for the search: numbers and typed arrays in place of objects.
 *
 * Operations that returned are *required*: the search must place each of them. Their id is the rank of their return, so "the first
 * return not explained yet" is simply the least id not placed yet. The others are *optional*: they may be placed, after their
 * invocation, or left out.
 *
 *     id 1   ├──────────────┤            slot 0
 *     id 0        ├────┤                 slot 1
 *     id 2                    ├────┤     slot 0, free again since the return of id 1
 *     optional         ├─ ─ ─ ─ ─ ─ ─    no slot
 *
 * At any moment the open operations hold different slots, so a set of open operations is a bit mask as wide as the concurrency,
 * however long the history (Lowe 2017, just-in-time linearization).
 */

import { conclaveError } from "../../base/errors.ts";
import type { Model } from "./model.ts";
import type { Operation } from "./operation.ts";

/** One key's history, ready to be searched. */
export interface Timeline<I, O> {
  /** Operations with a return, in the order of their returns. */
  readonly required: readonly Operation<I, O>[];
  /** Operations without one, in the order of their invocations. Reads are left out: they would prove nothing. */
  readonly optional: readonly Operation<I, O>[];
  readonly requiredInvokedAt: Float64Array;
  readonly requiredReturnedAt: Float64Array;
  readonly optionalInvokedAt: Float64Array;
  /** Required ids in the order of their invocations. */
  readonly callOrder: Int32Array;
  /** 1 for a required read, by id. */
  readonly reads: Uint8Array;
  /** The slot of each required operation. */
  readonly slots: Int32Array;
  readonly slotsCount: number;
  /** For each optional operation the one before it with the same input, or -1. */
  readonly twins: Int32Array;
}

/**
 * Arranges operations for the search.
 *
 * @throws INVALID_OPTION (an operation's times or output contradict each other).
 */
export function buildTimeline<S, I, O>(model: Model<S, I, O>, operations: readonly Operation<I, O>[]): Timeline<I, O> {
  for (const operation of operations) assertConsistent(operation);
  const isRead = (input: I, output: O | undefined) => model.hint?.(input, output).isRead === true;
  const required = operations.filter((o) => o.returnedAt !== undefined).sort((a, b) => returnOf(a) - returnOf(b));
  const optional = operations
    .filter((o) => o.returnedAt === undefined && !isRead(o.input, undefined))
    .sort((a, b) => a.invokedAt - b.invokedAt);
  const requiredInvokedAt = Float64Array.from(required, (o) => o.invokedAt);
  const requiredReturnedAt = Float64Array.from(required, returnOf);
  const callOrder = Int32Array.from(required.keys()).sort((a, b) => at(requiredInvokedAt, a) - at(requiredInvokedAt, b) || a - b);
  return {
    required,
    optional,
    requiredInvokedAt,
    requiredReturnedAt,
    optionalInvokedAt: Float64Array.from(optional, (o) => o.invokedAt),
    callOrder,
    reads: Uint8Array.from(required, (o) => (isRead(o.input, o.output) ? 1 : 0)),
    ...assignSlots({ callOrder, requiredInvokedAt, requiredReturnedAt }),
    twins: findTwins(optional.map((o) => o.input)),
  };
}

function assertConsistent(operation: Operation<unknown, unknown>): void {
  const { invokedAt, returnedAt, output } = operation;
  const problem = Number.isNaN(invokedAt)
    ? "was invoked at no time"
    : returnedAt === undefined
      ? output !== undefined && "has an output and yet never returned"
      : !(returnedAt >= invokedAt) && "returned before it was invoked";
  if (problem !== false) {
    const which = `the operation of process ${operation.process} invoked at ${invokedAt}`;
    throw conclaveError("INVALID_OPTION", `checkLinearizable: in operations, ${which} ${problem}.`);
  }
}

function returnOf(operation: Operation<unknown, unknown>): number {
  return operation.returnedAt as number;
}

function assignSlots(calls: Pick<Timeline<never, never>, "callOrder" | "requiredInvokedAt" | "requiredReturnedAt">) {
  const { callOrder, requiredInvokedAt, requiredReturnedAt } = calls;
  const slots = new Int32Array(callOrder.length);
  const free: number[] = [];
  let slotsCount = 0;
  let returned = 0;
  for (const id of callOrder) {
    // A return at the very time of this invocation keeps its slot: the two are concurrent.
    while (at(requiredReturnedAt, returned) < at(requiredInvokedAt, id)) free.push(at(slots, returned++));
    slots[id] = free.pop() ?? slotsCount++;
  }
  return { slots, slotsCount };
}

/**
 * Of two optional operations that ask the same, the earlier can stand in for the later wherever the later could be placed.
 * So the search places twins in order only, and n equal retries cost n + 1 choices in place of 2^n.
 * The look-back is bounded: a twin that is missed costs speed and never truth.
 */
function findTwins(inputs: readonly unknown[]): Int32Array {
  return Int32Array.from(inputs, (input, index) => {
    for (let i = index - 1; i >= Math.max(0, index - twinLookBack); i--) if (isSame(inputs[i], input)) return i;
    return -1;
  });
}

const twinLookBack = 256;

/** Structural equality of plain data. Anything else is the same only as itself, which costs speed and never truth. */
function isSame(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  const prototype: unknown = Object.getPrototypeOf(a);
  if (prototype !== Object.getPrototypeOf(b) || (prototype !== Object.prototype && prototype !== Array.prototype)) return false;
  const entries = Object.entries(a);
  return (
    entries.length === Object.keys(b).length &&
    entries.every(([name, value]) => Object.hasOwn(b, name) && isSame(value, (b as Record<string, unknown>)[name]))
  );
}

function at(array: Float64Array | Int32Array, index: number): number {
  return array[index] as number;
}
