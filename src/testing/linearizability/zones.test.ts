import fc from "fast-check";
import { expect, test } from "vitest";
import { checkLinearizable } from "./check-linearizable.ts";
import { effectsOf } from "./effects.ts";
import { type KeyValueInput, type KeyValueOutput, keyValueModel } from "./key-value-model.ts";
import type { Model } from "./model.ts";
import type { Operation } from "./operation.ts";
import { type RegisterInput, type RegisterOutput, registerModel } from "./register-model.ts";
import { StateTable } from "./state-table.ts";
import { buildTimeline } from "./timeline.ts";
import { hasContradiction } from "./zones.ts";

type RegisterOperation = Operation<RegisterInput, RegisterOutput>;

const write = (value: number, invokedAt: number, returnedAt?: number): RegisterOperation => ({
  process: 0,
  input: { f: "write", value },
  output: returnedAt === undefined ? undefined : { f: "write" },
  invokedAt,
  returnedAt,
});
const read = (value: number | null, invokedAt: number, returnedAt: number): RegisterOperation => ({
  process: 1,
  input: { f: "read" },
  output: { f: "read", value },
  invokedAt,
  returnedAt,
});

test.each<[string, boolean, RegisterOperation[]]>([
  ["two zones that overlap", true, [write(1, 0, 1), write(2, 2, 3), read(2, 2, 3), read(1, 4, 5), read(2, 6, 7)]],
  ["a write inside of another's zone", true, [write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)]],
  ["a write that can be moved out of the zone", false, [write(1, 0, 1), write(2, 1, 3), read(1, 4, 5)]],
  ["a value from nowhere", true, [read(1, 0, 1)]],
  ["a value before its write", true, [read(1, 0, 1), write(1, 2, 3)]],
  ["the initial state after a write", true, [write(1, 0, 1), read(null, 2, 3)]],
  ["the initial state during a write", false, [write(1, 0, 2), read(null, 2, 3)]],
  ["an unknown write that was seen, before and after another", true, [write(1, 0), read(1, 2, 3), write(2, 4, 5), read(1, 6, 7)]],
  ["an unknown write that was not seen", false, [write(1, 0, 1), write(2, 2), read(1, 4, 5)]],
  ["a value written twice", false, [write(1, 0, 1), write(2, 2, 3), write(1, 2, 9), read(1, 4, 5)]],
])("%s: contradiction %s", (_, expected, operations) => {
  expect(judge(registerModel, operations)).toBe(expected);
  expect(checkLinearizable(registerModel, operations).linearizable).toBe(!expected);
});

test("a state that an append can make is judged by the search alone", () => {
  const append = {
    process: 0,
    input: { f: "append", value: "a" },
    output: undefined,
    invokedAt: 0,
    returnedAt: undefined,
  } as const;
  const get = { process: 1, input: { f: "get" }, output: { f: "get", value: "a" }, invokedAt: 1, returnedAt: 2 } as const;
  const operations: Operation<KeyValueInput, KeyValueOutput>[] = [append, get];
  expect(judge(keyValueModel, operations)).toBe(false);
  expect(judge(keyValueModel, [get])).toBe(true);
});

test("for reads and writes with values all different the zones alone decide (Gibbons & Korach 1997)", () => {
  const { hint: _, ...plainModel } = registerModel;
  const interval = fc.tuple(fc.nat(12), fc.nat(5));
  const history = fc
    .tuple(fc.array(interval, { maxLength: 4 }), fc.array(fc.tuple(interval, fc.option(fc.nat(3))), { maxLength: 5 }))
    .map(([writes, reads]) => [
      ...writes.map(([at, duration], value) => write(value, at, at + duration)),
      ...reads.map(([[at, duration], value]) => read(value, at, at + duration)),
    ]);
  const seen = { true: 0, false: 0 };
  fc.assert(
    fc.property(history, (operations) => {
      const isContradiction = judge(registerModel, operations);
      seen[`${isContradiction}`] += 1;
      expect(checkLinearizable(plainModel, operations).linearizable).toBe(!isContradiction);
    }),
    { numRuns: 5000 },
  );
  expect(Math.min(seen.true, seen.false), "both verdicts are common").toBeGreaterThan(500);
});

function judge<S, I, O>(model: Model<S, I, O>, operations: readonly Operation<I, O>[]): boolean {
  const timeline = buildTimeline(model, operations);
  return hasContradiction(timeline, effectsOf({ model, timeline, states: new StateTable(model), suspect: undefined }));
}
