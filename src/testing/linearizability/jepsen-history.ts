/**
 * Reads and writes histories of registers as Jepsen records them, one JSON object a line.
 *
 *     {"process":0,"type":"invoke","f":"write","key":"x","value":3,"time":1200}
 *     {"process":0,"type":"ok","f":"write","key":"x","value":3,"time":5300}
 *
 * `invoke` opens an operation of a process; the next line of that process closes it: `ok` it happened, `fail` it did not, `info`
 * nobody knows. `time` is in nanoseconds since the start, `value` is `[from, to]` for a compare-and-swap.
 * Source: jepsen.history (github.com/jepsen-io/history), "Operations".
 * A failed operation is dropped. The one exception carries `"error":"mismatch"`: a compare-and-swap that saw another value, which is
 * an observation worth checking. A history without times is ordered by its lines. Lines of the nemesis are skipped.
 */

import { conclaveError } from "../../base/errors.ts";
import type { Operation } from "./operation.ts";
import type { RegisterInput, RegisterOutput, RegisterValue } from "./register-model.ts";

/** An operation on a register. @since 0.1.0 */
export type RegisterOperation = Operation<RegisterInput, RegisterOutput>;

interface Line {
  readonly process: number;
  readonly type: "invoke" | "ok" | "fail" | "info";
  readonly f: RegisterInput["f"];
  readonly key?: string;
  readonly value: unknown;
  readonly error?: unknown;
  /** Milliseconds, or the number of the line in a history without times. */
  readonly at: number;
  readonly number: number;
}

/**
 * Reads a Jepsen history of registers. Operations come in the order of their invocations.
 *
 * @throws INVALID_OPTION (a line is no JSON, names no register operation, or does not follow from the lines before).
 * @since 0.1.0
 */
export function readJepsenHistory(text: string): RegisterOperation[] {
  const operations: (RegisterOperation | undefined)[] = [];
  const open = new Map<number, { readonly index: number; readonly invocation: Line }>();
  for (const line of parseLines(text)) {
    const pending = open.get(line.process);
    if (line.type === "invoke") {
      if (pending !== undefined) throw wrong(line.number, `process ${line.process} has an open operation already`);
      open.set(line.process, { index: operations.length, invocation: line });
      operations.push(operationOf(line));
    } else {
      if (pending === undefined) throw wrong(line.number, `process ${line.process} has no open operation`);
      if (pending.invocation.f !== line.f)
        throw wrong(line.number, `process ${line.process} was asked to ${pending.invocation.f}`);
      open.delete(line.process);
      operations[pending.index] = close(pending.invocation, line);
    }
  }
  return operations.filter((operation) => operation !== undefined);
}

function parseLines(text: string): Line[] {
  const records = text.split("\n").flatMap((source, index) => {
    if (source.trim() === "") return [];
    const record = parseRecord(source, index + 1);
    return typeof record.process === "number" ? [{ record, number: index + 1 }] : [];
  });
  const timedCount = records.filter(({ record }) => record.time !== undefined).length;
  if (timedCount !== 0 && timedCount !== records.length) {
    const { number } = records.find(({ record }) => record.time === undefined) ?? { number: 0 };
    throw wrong(number, "this line has no time and others have one");
  }
  return records.map(({ record, number }) => lineOf(record, number));
}

function parseRecord(source: string, number: number): Record<string, unknown> {
  let record: unknown;
  try {
    record = JSON.parse(source);
  } catch (cause) {
    throw wrong(number, "this is no JSON", cause);
  }
  if (typeof record !== "object" || record === null) throw wrong(number, "this is no JSON object");
  return record as Record<string, unknown>;
}

function lineOf(record: Record<string, unknown>, number: number): Line {
  const { process, type, f, key, value, error, time } = record;
  if (type !== "invoke" && type !== "ok" && type !== "fail" && type !== "info")
    throw wrong(number, `type ${JSON.stringify(type)}`);
  if (f !== "read" && f !== "write" && f !== "cas") throw wrong(number, `f ${JSON.stringify(f)} is no operation of a register`);
  if (time !== undefined && typeof time !== "number") throw wrong(number, `time ${JSON.stringify(time)} is no number`);
  return {
    process: process as number,
    type,
    f,
    ...(key !== undefined && key !== null && { key: String(key) }),
    value: value ?? null,
    error,
    at: time === undefined ? number : time / nanosecondsPerMillisecond,
    number,
  };
}

function operationOf(invocation: Line): RegisterOperation {
  const { process, key, at } = invocation;
  const input = inputOf(invocation);
  return { process, ...(key !== undefined && { key }), input, output: undefined, invokedAt: at, returnedAt: undefined };
}

function inputOf({ f, value, number }: Line): RegisterInput {
  switch (f) {
    case "read":
      return { f };
    case "write":
      return { f, value: registerValue(value, number) };
    case "cas": {
      if (!Array.isArray(value) || value.length !== 2) throw wrong(number, "a cas has the value [from, to]");
      return { f, from: registerValue(value[0] ?? null, number), to: registerValue(value[1] ?? null, number) };
    }
  }
}

/** The closed operation, or undefined when it did not happen. */
function close(invocation: Line, end: Line): RegisterOperation | undefined {
  const operation = operationOf(invocation);
  switch (end.type) {
    case "ok":
      return { ...operation, output: outputOf(end), returnedAt: end.at };
    case "fail":
      if (end.f !== "cas" || end.error !== mismatch) return undefined;
      return { ...operation, output: { f: "cas", swapped: false }, returnedAt: end.at };
    default:
      return operation;
  }
}

function outputOf({ f, value, number }: Line): RegisterOutput {
  switch (f) {
    case "read":
      return { f, value: registerValue(value, number) };
    case "write":
      return { f };
    case "cas":
      return { f, swapped: true };
  }
}

function registerValue(value: unknown, number: number): RegisterValue {
  if (value === null || typeof value === "string" || typeof value === "number" || typeof value === "boolean") return value;
  throw wrong(number, `value ${JSON.stringify(value)} is neither text, number, boolean nor null`);
}

function wrong(number: number, what: string, cause?: unknown): Error {
  return conclaveError("INVALID_OPTION", `readJepsenHistory: line ${number}: ${what}.`, { cause });
}

/**
 * Writes a history of registers as Jepsen would, in the form that `readJepsenHistory` reads.
 *
 * Times are rounded to a nanosecond. An unknown outcome becomes `info` when its process goes on, and stays open otherwise.
 *
 * @throws INVALID_OPTION (two operations of one process overlap, or one returned without a known output: the format has no words for it).
 * @since 0.1.0
 */
export function writeJepsenHistory(operations: readonly RegisterOperation[]): string {
  const lastOf = new Map<number, RegisterOperation>();
  const events: { readonly at: number; readonly record: object }[] = [];
  const add = (operation: RegisterOperation, type: Line["type"], at: number) =>
    events.push({ at, record: recordOf(operation, type, at) });
  const inOrder = operations.toSorted((a, b) => a.invokedAt - b.invokedAt || endOf(a) - endOf(b));
  for (const operation of inOrder) {
    const previous = lastOf.get(operation.process);
    if (previous !== undefined) {
      if (previous.returnedAt === undefined) add(previous, "info", operation.invokedAt);
      else if (previous.returnedAt > operation.invokedAt) throw unwritable(operation, "overlaps another one of its process");
    }
    lastOf.set(operation.process, operation);
    add(operation, "invoke", operation.invokedAt);
    if (operation.returnedAt !== undefined) add(operation, endTypeOf(operation), operation.returnedAt);
  }
  // The sort is stable, so the lines of one process keep their order even where times are equal.
  return events
    .sort((a, b) => a.at - b.at)
    .map(({ record }) => `${JSON.stringify(record)}\n`)
    .join("");
}

function endOf(operation: RegisterOperation): number {
  return operation.returnedAt ?? Number.POSITIVE_INFINITY;
}

function endTypeOf(operation: RegisterOperation): "ok" | "fail" {
  const { output } = operation;
  if (output === undefined) throw unwritable(operation, "returned without a known output");
  return output.f === "cas" && !output.swapped ? "fail" : "ok";
}

function recordOf(operation: RegisterOperation, type: Line["type"], at: number): object {
  const { process, key, input } = operation;
  return {
    process,
    type,
    f: input.f,
    ...(key !== undefined && { key }),
    value: recordedValueOf(operation, type),
    ...(type === "fail" && { error: mismatch }),
    time: Math.round(at * nanosecondsPerMillisecond),
  };
}

function recordedValueOf({ input, output }: RegisterOperation, type: Line["type"]): unknown {
  switch (input.f) {
    case "read":
      return type === "ok" && output?.f === "read" ? output.value : null;
    case "write":
      return input.value;
    case "cas":
      return [input.from, input.to];
  }
}

function unwritable(operation: RegisterOperation, what: string): Error {
  const which = `the operation of process ${operation.process} invoked at ${operation.invokedAt}`;
  return conclaveError("INVALID_OPTION", `writeJepsenHistory: in operations, ${which} ${what}.`);
}

const nanosecondsPerMillisecond = 1_000_000;
const mismatch = "mismatch";
