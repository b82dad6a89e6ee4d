import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type RegisterOperation, readJepsenHistory, writeJepsenHistory } from "./jepsen-history.ts";

const lines = (...records: object[]) => records.map((record) => JSON.stringify(record)).join("\n");

describe("readJepsenHistory", () => {
  test("pairs an invocation with the next line of its process, in milliseconds", () => {
    const text = lines(
      { process: 0, type: "invoke", f: "write", key: 7, value: 3, time: 1_000_000, index: 0 },
      { process: 1, type: "invoke", f: "read", key: 7, value: null, time: 1_500_000 },
      { process: 0, type: "ok", f: "write", key: 7, value: 3, time: 2_000_000 },
      { process: 1, type: "ok", f: "read", key: 7, value: 3, time: 2_500_000 },
    );
    expect(readJepsenHistory(text)).toEqual([
      { process: 0, key: "7", input: { f: "write", value: 3 }, output: { f: "write" }, invokedAt: 1, returnedAt: 2 },
      { process: 1, key: "7", input: { f: "read" }, output: { f: "read", value: 3 }, invokedAt: 1.5, returnedAt: 2.5 },
    ]);
  });

  test("a failure did not happen, an info and a missing line are unknown", () => {
    const text = lines(
      { process: 0, type: "invoke", f: "write", value: 1 },
      { process: 0, type: "fail", f: "write", value: 1 },
      { process: 0, type: "invoke", f: "write", value: 2 },
      { process: 0, type: "info", f: "write", value: 2, error: "timeout" },
      { process: 0, type: "invoke", f: "cas", value: [2, 3] },
    );
    expect(readJepsenHistory(text)).toEqual([
      { process: 0, input: { f: "write", value: 2 }, output: undefined, invokedAt: 3, returnedAt: undefined },
      { process: 0, input: { f: "cas", from: 2, to: 3 }, output: undefined, invokedAt: 5, returnedAt: undefined },
    ]);
  });

  test("a failed swap is dropped, unless it says that it saw another value", () => {
    const invoke = { process: 0, type: "invoke", f: "cas", value: [1, 2], time: 0 };
    const fail = { ...invoke, type: "fail", time: 1_000_000 };
    expect(readJepsenHistory(lines(invoke, fail))).toEqual([]);
    expect(readJepsenHistory(lines(invoke, { ...fail, error: "mismatch" }))).toEqual([
      { process: 0, input: { f: "cas", from: 1, to: 2 }, output: { f: "cas", swapped: false }, invokedAt: 0, returnedAt: 1 },
    ]);
  });

  test("the nemesis and blank lines are skipped", () => {
    const text = lines({ process: "nemesis", type: "info", f: "start", value: null, time: 3 });
    expect(readJepsenHistory(`\n${text}\n\n`)).toEqual([]);
  });

  const invoke = { process: 0, type: "invoke", f: "read" };
  test.each([
    ["no JSON", "{"],
    ["no object", "3"],
    ["an unknown type", lines({ ...invoke, type: "done" })],
    ["an unknown function", lines({ ...invoke, f: "append" })],
    ["a time that is no number", lines({ ...invoke, time: "now" })],
    ["times on some lines only", lines({ ...invoke, time: 1 }, { ...invoke, type: "ok" })],
    ["two invocations in a row", lines(invoke, invoke)],
    ["a return out of nowhere", lines({ ...invoke, type: "ok" })],
    ["a return of something else", lines(invoke, { ...invoke, type: "ok", f: "write" })],
    ["a swap without two values", lines({ ...invoke, f: "cas", value: 3 })],
    ["a value that is an object", lines({ ...invoke, f: "write", value: {} })],
  ])("%s is refused with the number of the line", (_, text) => {
    expect(() => readJepsenHistory(text)).toThrow(/readJepsenHistory: line \d+: /);
  });
});

describe("writeJepsenHistory", () => {
  test("what was written reads back the same", () => {
    fc.assert(
      fc.property(histories, (operations) => {
        const byInvocation = operations.toSorted((a, b) => a.invokedAt - b.invokedAt || a.process - b.process);
        const readBack = readJepsenHistory(writeJepsenHistory(operations));
        expect(readBack.toSorted((a, b) => a.invokedAt - b.invokedAt || a.process - b.process)).toEqual(byInvocation);
      }),
    );
  });

  test("every line is one object of Jepsen", () => {
    const operation: RegisterOperation = {
      process: 4,
      key: "x",
      input: { f: "cas", from: 1, to: 2 },
      output: { f: "cas", swapped: false },
      invokedAt: 1.25,
      returnedAt: 2,
    };
    expect(writeJepsenHistory([operation])).toBe(
      `${lines(
        { process: 4, type: "invoke", f: "cas", key: "x", value: [1, 2], time: 1_250_000 },
        { process: 4, type: "fail", f: "cas", key: "x", value: [1, 2], error: "mismatch", time: 2_000_000 },
      )}\n`,
    );
  });

  test("what the format has no words for is refused", () => {
    const read: RegisterOperation = { process: 0, input: { f: "read" }, output: undefined, invokedAt: 0, returnedAt: 5 };
    expect(() => writeJepsenHistory([read])).toThrow(/returned without a known output/);
    const known: RegisterOperation = { ...read, output: { f: "read", value: 1 } };
    expect(() => writeJepsenHistory([known, { ...known, invokedAt: 3 }])).toThrow(/overlaps another one of its process/);
  });
});

const value = fc.constantFrom(null, 1, "two", true);
const action: fc.Arbitrary<Pick<RegisterOperation, "input" | "output">> = fc.oneof(
  value.map((v) => ({ input: { f: "read" as const }, output: { f: "read" as const, value: v } })),
  value.map((v) => ({ input: { f: "write" as const, value: v }, output: { f: "write" as const } })),
  fc.tuple(value, value, fc.boolean()).map(([from, to, swapped]) => ({
    input: { f: "cas" as const, from, to },
    output: { f: "cas" as const, swapped },
  })),
);
const microseconds = fc.integer({ min: 1, max: 5000 }).map((us) => us / 1000);
/** Per process one operation after the other. */
const histories: fc.Arbitrary<RegisterOperation[]> = fc
  .array(fc.array(fc.record({ action, pauseMs: microseconds, durationMs: microseconds, isKnown: fc.boolean() })), {
    maxLength: 4,
  })
  .map((processes) =>
    processes.flatMap((steps, process) => {
      let now = 0;
      return steps.map(({ action, pauseMs, durationMs, isKnown }): RegisterOperation => {
        const invokedAt = inNanoseconds(now + pauseMs);
        now = inNanoseconds(invokedAt + durationMs);
        const end = isKnown ? { output: action.output, returnedAt: now } : { output: undefined, returnedAt: undefined };
        return { process, ...(process % 2 === 0 && { key: `k${process}` }), input: action.input, invokedAt, ...end };
      });
    }),
  );

function inNanoseconds(ms: number): number {
  return Math.round(ms * 1e6) / 1e6;
}
