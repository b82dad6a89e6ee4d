import { describe, expect, test } from "vitest";
import { hasCode } from "../../base/errors.ts";
import { checkLinearizable, type Verdict } from "./check-linearizable.ts";
import { keyValueModel } from "./key-value-model.ts";
import type { Model } from "./model.ts";
import { nil } from "./nil.ts";
import type { Operation } from "./operation.ts";
import { type RegisterInput, type RegisterOutput, type RegisterValue, registerModel } from "./register-model.ts";

type RegisterOperation = Operation<RegisterInput, RegisterOutput>;
type Interval = readonly [invokedAt: number, returnedAt: number | undefined];

const write = (value: RegisterValue, at: Interval, process = 0): RegisterOperation =>
  operation({ input: { f: "write", value }, output: { f: "write" }, at, process });

const read = (value: RegisterValue, at: Interval, process = 1): RegisterOperation =>
  operation({ input: { f: "read" }, output: { f: "read", value }, at, process });

const cas = (from: RegisterValue, to: RegisterValue, swapped: boolean, at: Interval): RegisterOperation =>
  operation({ input: { f: "cas", from, to }, output: { f: "cas", swapped }, at, process: 2 });

/** An interval without an end is an unknown outcome, whatever the output given. */
function operation<I, O>(of: { input: I; output: O; at: Interval; process: number }): Operation<I, O> {
  const [invokedAt, returnedAt] = of.at;
  const output = returnedAt === undefined ? undefined : of.output;
  return { process: of.process, input: of.input, output, invokedAt, returnedAt };
}

const isLinearizable = (...operations: RegisterOperation[]) => checkLinearizable(registerModel, operations).linearizable;

describe("a register", () => {
  test("an empty history is linearizable", () => {
    expect(checkLinearizable(registerModel, [])).toEqual({ linearizable: true, operations: 0, steps: 0 });
  });

  test("an unset register reads as null, and as nothing else", () => {
    expect(isLinearizable(read(null, [0, 1]))).toBe(true);
    expect(isLinearizable(read(1, [0, 1]))).toBe(false);
  });

  test("a read during a write may see the old value or the new one", () => {
    expect(isLinearizable(write(1, [0, 10]), read(null, [2, 3]))).toBe(true);
    expect(isLinearizable(write(1, [0, 10]), read(1, [2, 3]))).toBe(true);
  });

  test("once a read has seen the new value no later read sees the old one", () => {
    expect(isLinearizable(write(1, [0, 10]), read(1, [2, 3]), read(null, [4, 5]))).toBe(false);
    expect(isLinearizable(write(1, [0, 10]), read(1, [2, 4]), read(null, [3, 5]))).toBe(true);
  });

  test("a stale read is rejected", () => {
    expect(isLinearizable(write(1, [0, 1]), write(2, [2, 3]), read(1, [4, 5]))).toBe(false);
    expect(isLinearizable(write(1, [0, 1]), write(2, [2, 3]), read(2, [4, 5]))).toBe(true);
  });

  test("a lost write is rejected", () => {
    expect(isLinearizable(write(1, [0, 1]), read(null, [2, 3]))).toBe(false);
  });

  test("a lost update is rejected: two swaps from the same value cannot both succeed", () => {
    expect(isLinearizable(write(1, [0, 1]), cas(1, 2, true, [2, 5]), cas(1, 3, true, [3, 6]))).toBe(false);
    expect(isLinearizable(write(1, [0, 1]), cas(1, 2, true, [2, 5]), cas(1, 3, false, [3, 6]))).toBe(true);
    expect(isLinearizable(write(1, [0, 1]), cas(1, 2, true, [2, 5]), cas(2, 3, true, [3, 6]), read(3, [7, 8]))).toBe(true);
  });

  test("a swap that reports a mismatch has seen another value", () => {
    expect(isLinearizable(write(1, [0, 1]), cas(1, 2, false, [2, 3]))).toBe(false);
    expect(isLinearizable(write(1, [0, 1]), cas(5, 2, false, [2, 3]), read(1, [4, 5]))).toBe(true);
  });

  test("a value may be written twice, and read again after the second time only", () => {
    expect(isLinearizable(write(1, [0, 1]), write(2, [2, 3]), write(1, [4, 5]), read(1, [6, 7]))).toBe(true);
    expect(isLinearizable(write(1, [0, 1]), write(2, [2, 3]), read(1, [4, 5]), write(1, [6, 7]))).toBe(false);
  });

  test("another start value is one spread away", () => {
    const model = { ...registerModel, initial: 7 };
    expect(checkLinearizable(model, [read(7, [0, 1])]).linearizable).toBe(true);
    expect(checkLinearizable(model, [read(null, [0, 1])]).linearizable).toBe(false);
  });
});

describe("unknown outcomes", () => {
  test("an unknown write may become visible long after, or never", () => {
    const unknown = write(2, [2, undefined]);
    expect(isLinearizable(write(1, [0, 1]), unknown, read(1, [10, 11]), read(2, [20, 21]), read(2, [30, 31]))).toBe(true);
    expect(isLinearizable(write(1, [0, 1]), unknown, read(1, [10, 11]), read(1, [30, 31]))).toBe(true);
  });

  test("an unknown write takes effect once at most", () => {
    const unknown = write(2, [2, undefined]);
    const seenTwice = [read(2, [3, 4]), write(3, [5, 6]), read(2, [7, 8])];
    expect(isLinearizable(write(1, [0, 1]), unknown, ...seenTwice)).toBe(false);
    expect(isLinearizable(write(1, [0, 1]), unknown, write(2, [2, undefined], 5), ...seenTwice)).toBe(true);
  });

  test("an unknown write has no effect before it was asked for", () => {
    expect(isLinearizable(read(2, [0, 1]), write(2, [2, undefined]))).toBe(false);
  });

  test("an unknown swap may succeed, fail, or never happen", () => {
    const history = [write(1, [0, 1]), cas(1, 2, true, [2, undefined])];
    expect(isLinearizable(...history, read(1, [3, 4]), read(2, [5, 6]))).toBe(true);
    expect(isLinearizable(...history, read(1, [3, 4]), read(1, [5, 6]))).toBe(true);
    expect(isLinearizable(...history, write(3, [3, 4]), read(2, [5, 6]))).toBe(false);
  });

  test("unknown swaps can form a chain", () => {
    const chain = [3, 2, 1].map((from) => cas(from, from + 1, true, [2, undefined]));
    expect(isLinearizable(write(1, [0, 1]), ...chain, read(4, [5, 6]))).toBe(true);
    expect(isLinearizable(write(1, [0, 1]), ...chain.slice(0, 2), read(4, [5, 6]))).toBe(false);
  });

  test("an unknown read proves nothing", () => {
    expect(isLinearizable(write(1, [0, 1]), read(9, [2, undefined]), read(1, [3, 4]))).toBe(true);
  });

  test("an operation that returned without a known output took effect before its return", () => {
    const unread = { ...cas(1, 2, true, [2, 3]), output: undefined };
    expect(isLinearizable(write(1, [0, 1]), unread, read(2, [4, 5]))).toBe(true);
    expect(isLinearizable(write(1, [0, 1]), unread, read(1, [4, 5]))).toBe(false);
  });

  test("a thousand retries with unknown outcomes do not blow up the search", () => {
    const retries = Array.from({ length: 1000 }, (_, i) => write(i % 4, [10 + i, undefined], 10 + i));
    const reads = Array.from({ length: 40 }, (_, i) => read(i % 4, [2000 + 10 * i, 2001 + 10 * i]));
    expect(isLinearizable(write(9, [0, 1]), ...retries, ...reads)).toBe(true);
    expect(isLinearizable(write(9, [0, 1]), ...retries, ...reads, read(5, [9000, 9001]))).toBe(false);
  });
});

describe("time", () => {
  test("an invocation at the very time of a return is concurrent with it", () => {
    expect(isLinearizable(write(1, [0, 5]), read(null, [5, 6]))).toBe(true);
    expect(isLinearizable(write(1, [0, 5]), read(null, [5.001, 6]))).toBe(false);
  });

  test("operations that take no time at all are concurrent with those at the same time", () => {
    expect(isLinearizable(read(2, [5, 5]), write(2, [5, 5]), write(1, [5, 5]), read(1, [5, 5]))).toBe(true);
    expect(isLinearizable(write(1, [5, 5]), read(null, [6, 6]))).toBe(false);
  });

  test("the order of the array does not matter", () => {
    const history = [read(2, [20, 21]), write(2, [2, undefined]), read(1, [10, 11]), write(1, [0, 1])];
    expect(isLinearizable(...history)).toBe(true);
  });
});

describe("keys", () => {
  const put = (key: string, value: string, at: Interval) => ({
    ...operation({ input: { f: "put", value } as const, output: { f: "put" } as const, at, process: 0 }),
    key,
  });
  const get = (key: string, value: string | null, at: Interval) => ({
    ...operation({ input: { f: "get" } as const, output: { f: "get", value } as const, at, process: 1 }),
    key,
  });
  const append = (key: string, value: string, at: Interval) => ({
    ...operation({ input: { f: "append", value } as const, output: { f: "append" } as const, at, process: 2 }),
    key,
  });

  test("every key is an object of its own", () => {
    const verdict = checkLinearizable(keyValueModel, [put("a", "1", [0, 1]), get("b", null, [2, 3]), get("a", "1", [2, 3])]);
    expect(verdict.linearizable).toBe(true);
  });

  test("the verdict names the key at fault", () => {
    const verdict = checkLinearizable(keyValueModel, [put("a", "1", [0, 1]), put("b", "1", [0, 1]), get("b", null, [2, 3])]);
    expect(verdict).toMatchObject({ linearizable: false, key: "b", operations: 3 });
  });

  test("appends show the order of all writes", () => {
    const appends = [append("a", "x", [0, 10]), append("a", "y", [0, 10])];
    expect(checkLinearizable(keyValueModel, [...appends, get("a", "yx", [11, 12])]).linearizable).toBe(true);
    expect(checkLinearizable(keyValueModel, [...appends, get("a", "y", [11, 12])]).linearizable).toBe(false);
    expect(checkLinearizable(keyValueModel, [...appends, get("a", "xyx", [11, 12])]).linearizable).toBe(false);
  });

  test("a value that was overwritten can be built again by appends", () => {
    const build = (at: number) => [
      put("a", "x", [at, at + 1]),
      append("a", "y", [at + 2, at + 3]),
      get("a", "xy", [at + 4, at + 5]),
    ];
    expect(checkLinearizable(keyValueModel, [...build(0), ...build(6)]).linearizable).toBe(true);
    expect(checkLinearizable(keyValueModel, [...build(0), ...build(6).toSpliced(1, 1)]).linearizable).toBe(false);
  });
});

describe("the witness", () => {
  const history = [write(1, [0, 1]), write(2, [2, 3]), read(2, [4, 5]), read(1, [6, 7]), read(2, [8, 9]), write(4, [6, 20])];

  test("names the first answer that cannot be true, though later ones are right", () => {
    const { witness } = rejected(checkLinearizable(registerModel, history));
    expect(witness.stuck).toBe(history[3]);
    expect(new Set(witness.states)).toEqual(new Set([2, 4]));
    expect(witness.isShortest).toBe(true);
    expect(witness.prefix.slice(0, 3).map(({ operation }) => operation)).toEqual(history.slice(0, 3));
  });

  test("shows an operation that had not returned by then as open", () => {
    const { witness } = rejected(checkLinearizable(registerModel, history));
    expect(witness.unplaced).toEqual([{ ...history[5], output: undefined, returnedAt: undefined }]);
  });

  test("gives the order of a chain up to the break", () => {
    const verdict = checkLinearizable(registerModel, [write(1, [0, 1]), cas(1, 2, true, [2, 9]), cas(1, 3, true, [2, 10])]);
    expect(rejected(verdict).witness).toMatchObject({ stuck: { output: { swapped: true } }, hasMoreStates: false });
  });
});

describe("the budget", () => {
  const many = Array.from({ length: 24 }, (_, i) => write(i % 3, [0, 100], i));
  const hard = [...many, ...Array.from({ length: 24 }, (_, i) => write(i % 3, [101, 200], i)), read(9, [201, 202])];
  const { hint: _, ...plainModel } = registerModel;

  test("the verdict is unknown when it runs out, and says why", () => {
    expect(checkLinearizable(plainModel, hard, { maxSteps: 1000 })).toMatchObject({
      linearizable: "unknown",
      why: expect.stringContaining("maxSteps"),
    });
    expect(checkLinearizable(plainModel, hard, { maxConfigurations: 1000 })).toMatchObject({
      why: expect.stringContaining("maxConfigurations"),
    });
  });

  test("a time limit uses the clock of the caller", () => {
    let now = 0;
    const timeLimit = { now: () => now++, maxMs: 3 };
    expect(checkLinearizable(plainModel, hard, { timeLimit })).toMatchObject({
      linearizable: "unknown",
      why: expect.stringContaining("timeLimit"),
    });
  });

  test("a key that is wrong for certain outweighs one that is undecided", () => {
    const operations = [...hard.map((o) => ({ ...o, key: "hard" })), { ...read(1, [0, 1]), key: "wrong" }];
    expect(checkLinearizable(plainModel, operations, { maxSteps: 1000 })).toMatchObject({ linearizable: false, key: "wrong" });
    expect(checkLinearizable(plainModel, operations.slice(0, -1), { maxSteps: 1000 })).toMatchObject({ key: "hard" });
  });

  test("hints decide at once what the plain search cannot", () => {
    expect(checkLinearizable(registerModel, hard, { maxSteps: 1000 }).linearizable).toBe(false);
  });

  test("a limit that is not positive is refused", () => {
    expect(codeOf(() => checkLinearizable(registerModel, [], { maxSteps: 0 }))).toBe("INVALID_OPTION");
    expect(codeOf(() => checkLinearizable(registerModel, [], { timeLimit: { now: () => 0, maxMs: Number.NaN } }))).toBe(
      "INVALID_OPTION",
    );
  });
});

describe("a recording that contradicts itself is refused", () => {
  test.each([
    ["a return before the invocation", { ...read(null, [5, 4]) }],
    ["an output without a return", { ...read(null, [0, 1]), returnedAt: undefined }],
    ["a time that is no number", { ...read(null, [Number.NaN, 1]) }],
    ["a return that is no number", { ...read(null, [0, Number.NaN]) }],
  ])("%s", (_, operation) => {
    expect(codeOf(() => checkLinearizable(registerModel, [operation]))).toBe("INVALID_OPTION");
  });
});

describe("other models", () => {
  type QueueInput = { readonly f: "enqueue"; readonly value: number } | { readonly f: "dequeue" };
  const queue: Model<readonly number[], QueueInput, number | null> = {
    initial: [],
    step(state, input, output) {
      if (input.f === "enqueue") return [...state, input.value];
      return output === undefined || output === (state[0] ?? null) ? state.slice(1) : null;
    },
  };
  const enqueue = (value: number, at: Interval) =>
    operation({ input: { f: "enqueue", value } as QueueInput, output: 0, at, process: 0 });
  const dequeue = (value: number | null, at: Interval) =>
    operation({ input: { f: "dequeue" } as QueueInput, output: value, at, process: 1 });

  test("a queue without any hints is checked by its arrays", () => {
    const twoInFlight = [enqueue(1, [0, 10]), enqueue(2, [0, 10])];
    expect(checkLinearizable(queue, [...twoInFlight, dequeue(2, [11, 12]), dequeue(1, [13, 14])]).linearizable).toBe(true);
    expect(checkLinearizable(queue, [...twoInFlight, dequeue(2, [11, 12]), dequeue(2, [13, 14])]).linearizable).toBe(false);
    expect(checkLinearizable(queue, [enqueue(1, [0, 1]), dequeue(null, [2, 3])]).linearizable).toBe(false);
  });

  const set: Model<ReadonlySet<number>, number, boolean> = {
    initial: new Set(),
    step: (state, value, isNew) => (isNew !== undefined && isNew === state.has(value) ? null : new Set([...state, value])),
  };
  const add = (value: number, isNew: boolean, at: Interval) => operation({ input: value, output: isNew, at, process: 0 });

  test("a state that JSON cannot tell apart needs a key of its own", () => {
    const history = [add(1, true, [0, 10]), add(1, false, [0, 10]), add(2, true, [0, 10])];
    expect(codeOf(() => checkLinearizable(set, history))).toBe("INVALID_OPTION");
    const keyed = { ...set, key: (state: ReadonlySet<number>) => [...state].sort().join() };
    expect(checkLinearizable(keyed, history).linearizable).toBe(true);
    expect(checkLinearizable(keyed, [add(1, true, [0, 10]), add(1, true, [0, 10])]).linearizable).toBe(false);
  });

  test("an optional operation that fits no state is simply left out", () => {
    const strict: Model<number, number, true> = { initial: 0, step: (state, next) => (next === state + 1 ? next : null) };
    const count = (value: number, at: Interval) => operation({ input: value, output: true as const, at, process: 0 });
    expect(checkLinearizable(strict, [count(7, [0, undefined]), count(1, [1, 2]), count(2, [3, 4])]).linearizable).toBe(true);
    expect(checkLinearizable(strict, [count(2, [0, undefined]), count(1, [1, 2]), count(3, [3, 4])]).linearizable).toBe(true);
  });

  test("nil is a state like any other", () => {
    expect(registerModel.step(nil, { f: "read" }, { f: "read", value: null })).toBe(nil);
    expect(registerModel.step(3, { f: "write", value: null }, { f: "write" })).toBe(nil);
    expect(registerModel.step(3, { f: "read" }, { f: "write" })).toBe(null);
  });
});

function rejected<S, I, O>(verdict: Verdict<S, I, O>) {
  if (verdict.linearizable !== false) throw new Error(`The verdict is ${verdict.linearizable}.`);
  return verdict;
}

function codeOf(act: () => unknown): string | undefined {
  try {
    act();
    return undefined;
  } catch (error) {
    return hasCode(error, "INVALID_OPTION") ? error.code : String(error);
  }
}
