/**
 * The checker against executions that are atomic by construction, against a checker that tries every permutation, and against itself
 * without hints.
 *
 * A failing property prints its seed; `FC_SEED=<seed> npx vitest run src/testing/linearizability` replays it.
 */

import { performance } from "node:perf_hooks";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { checkLinearizable } from "./check-linearizable.ts";
import { explain } from "./explain.ts";
import { type KeyValueInput, type KeyValueOutput, type KeyValueState, keyValueModel } from "./key-value-model.ts";
import type { Model } from "./model.ts";
import { nil } from "./nil.ts";
import type { Operation } from "./operation.ts";
import { type RegisterInput, type RegisterOutput, type RegisterState, registerModel } from "./register-model.ts";

const seed = process.env.FC_SEED === undefined ? {} : { seed: Number(process.env.FC_SEED) };
const { hint: _, ...registerWithoutHints } = registerModel;
const { hint: __, canBecome: ___, ...keyValueWithoutHints } = keyValueModel;

describe("small histories, against every permutation", { timeout: 120_000 }, () => {
  test("registers: the verdicts agree, with hints and without", () => {
    const seen = { true: 0, false: 0 };
    fc.assert(
      fc.property(smallHistories(registerObject), (operations) => {
        const expected = hasOrder(registerModel, operations);
        seen[`${expected}`] += 1;
        expect(checkLinearizable(registerModel, operations).linearizable).toBe(expected);
        expect(checkLinearizable(registerWithoutHints, operations).linearizable).toBe(expected);
      }),
      { numRuns: 4000, ...seed },
    );
    expect(Math.min(seen.true, seen.false), "both verdicts are common").toBeGreaterThan(1000);
  });

  test("keys with appends: the verdicts agree", () => {
    const seen = { true: 0, false: 0 };
    fc.assert(
      fc.property(smallHistories(keyValueObject), (operations) => {
        const expected = hasOrder(keyValueModel, operations);
        seen[`${expected}`] += 1;
        expect(checkLinearizable(keyValueModel, operations).linearizable).toBe(expected);
        expect(checkLinearizable(keyValueWithoutHints, operations).linearizable).toBe(expected);
      }),
      { numRuns: 3000, ...seed },
    );
    expect(Math.min(seen.true, seen.false), "both verdicts are common").toBeGreaterThan(300);
  });

  test("a write that fits and leads nowhere is no witness: the read that it makes impossible is", () => {
    const verdict = checkLinearizable(registerModel, [
      { process: 0, input: { f: "cas", from: null, to: 1 }, output: { f: "cas", swapped: true }, invokedAt: 0, returnedAt: 0 },
      { process: 1, input: { f: "write", value: null }, output: { f: "write" }, invokedAt: 1, returnedAt: 1 },
      { process: 3, input: { f: "cas", from: null, to: 1 }, output: { f: "cas", swapped: false }, invokedAt: 0, returnedAt: 3 },
      { process: 2, input: { f: "read" }, output: { f: "read", value: 1 }, invokedAt: 2, returnedAt: 2 },
    ]);
    expect(verdict).toMatchObject({ linearizable: false, witness: { isShortest: true } });
    if (verdict.linearizable !== false) return;
    const { states, stuck } = verdict.witness;
    expect(states.every((state) => registerModel.step(state, stuck.input, stuck.output) === null)).toBe(true);
  });

  test("a witness is a real order of what came before, and its operation fits none of its states", () => {
    fc.assert(
      fc.property(smallHistories(registerObject), (operations) => {
        const verdict = checkLinearizable(registerModel, operations);
        if (verdict.linearizable !== false) return;
        const { prefix, stuck, states, unplaced, isShortest } = verdict.witness;
        const order = prefix.map(({ operation }) => operation);
        expect(isShortest).toBe(true);
        expect(isOrder(registerModel, order)).toBe(true);
        expect(states.every((state) => registerModel.step(state, stuck.input, stuck.output) === null)).toBe(true);
        const inputs = [...order, stuck, ...unplaced].map(({ input }) => input);
        expect(inputs.every((input) => operations.some((operation) => operation.input === input))).toBe(true);
        expect(new Set(inputs).size).toBe(inputs.length);
      }),
      { numRuns: 3000, ...seed },
    );
  });

  test("a verdict does not depend on the order of the array", () => {
    fc.assert(
      fc.property(smallHistories(registerObject), (operations) => {
        const { linearizable } = checkLinearizable(registerModel, operations);
        expect(checkLinearizable(registerModel, operations.toReversed()).linearizable).toBe(linearizable);
      }),
      { numRuns: 1000, ...seed },
    );
  });
});

describe("atomic executions", { timeout: 120_000 }, () => {
  const shapes = {
    "a value of its own in every write": { processes: 20, keys: 3, valuesCount: 0 },
    "few values": { processes: 8, keys: 2, valuesCount: 3 },
    "many swaps": { processes: 8, keys: 1, valuesCount: 3, swapShare: 0.6 },
    "more open operations than a word has bits": { processes: 70, keys: 1, valuesCount: 0, readShare: 0.8 },
    "a third of the outcomes unknown": { processes: 6, keys: 2, valuesCount: 0, unknownShare: 0.3 },
    "a clock that stands still most of the time": { processes: 4, keys: 1, valuesCount: 3, tickMs: 10 },
  };

  test.each(Object.entries(shapes))("of a register are accepted: %s", (_, shape) => {
    fc.assert(
      fc.property(fc.integer(), (historySeed) => {
        const verdict = checkLinearizable(registerModel, executeRegister({ seed: historySeed, operations: 400, ...shape }));
        expect(verdict.linearizable, explain(verdict)).toBe(true);
      }),
      { numRuns: 30, ...seed },
    );
  });

  test("of a small register get the same verdict without hints, whole or damaged", () => {
    const seen = { true: 0, false: 0, unknown: 0 };
    fc.assert(
      fc.property(fc.integer(), fc.nat(59), fc.nat(3), (historySeed, position, value) => {
        const history = executeRegister({
          seed: historySeed,
          operations: 60,
          processes: 5,
          keys: 1,
          valuesCount: 4,
          unknownShare: 0.1,
        });
        const damaged = history.with(position, answerDifferently(history[position] as RegisterOperation, value));
        for (const operations of [history, damaged]) {
          const { linearizable } = checkLinearizable(registerModel, operations);
          seen[`${linearizable}`] += 1;
          expect(checkLinearizable(registerWithoutHints, operations).linearizable).toBe(linearizable);
        }
      }),
      { numRuns: 1000, ...seed },
    );
    expect(seen.unknown).toBe(0);
    expect(seen.false, "damage is often visible").toBeGreaterThan(100);
  });
});

describe("atomic executions with appends", { timeout: 120_000 }, () => {
  test("get the same verdict without hints, whole or damaged", () => {
    const seen = { true: 0, false: 0, unknown: 0 };
    fc.assert(
      fc.property(fc.integer(), fc.nat(29), (historySeed, position) => {
        const history = executeKeyValue({ seed: historySeed, operations: 30, processes: 4, keys: 1, unknownShare: 0.05 });
        const victim = history[position] as (typeof history)[number];
        // A get whose answer lacks its first append, as a reader of a truncated log would see it.
        const text = victim.output?.f === "get" ? victim.output.value : null;
        const damaged =
          text === null ? victim : { ...victim, output: { f: "get" as const, value: text.replace(/^\d+ /, "") || null } };
        for (const operations of [history, history.with(position, damaged)]) {
          const { linearizable } = checkLinearizable(keyValueModel, operations);
          seen[`${linearizable}`] += 1;
          expect(checkLinearizable(keyValueWithoutHints, operations).linearizable).toBe(linearizable);
        }
      }),
      { numRuns: 300, ...seed },
    );
    expect(seen.unknown).toBe(0);
    expect(seen.false, "damage is often visible").toBeGreaterThan(50);
  });
});

describe("planted bugs", { timeout: 120_000 }, () => {
  const shape = { operations: 600, processes: 6, keys: 2, valuesCount: 0 };

  test("a store whose reads lag behind is rejected", () => {
    fc.assert(
      fc.property(fc.integer(), (historySeed) => {
        const verdict = checkLinearizable(registerModel, executeRegister({ seed: historySeed, ...shape, staleReadShare: 0.05 }));
        expect(verdict.linearizable).toBe(false);
      }),
      { numRuns: 30, ...seed },
    );
  });

  test("a store that forgets writes it has confirmed is rejected", () => {
    fc.assert(
      fc.property(fc.integer(), (historySeed) => {
        const verdict = checkLinearizable(
          registerModel,
          executeRegister({ seed: historySeed, ...shape, processes: 3, lostWriteShare: 0.3 }),
        );
        expect(verdict.linearizable).toBe(false);
      }),
      { numRuns: 30, ...seed },
    );
  });

  test("a single stale read is found and named", () => {
    const history = executeRegister({ seed: 5, operations: 2000, processes: 5, keys: 1, valuesCount: 0 });
    const position = history.findIndex(({ input, output }, i) => i > 1000 && input.f === "read" && output !== undefined);
    const victim = history[position] as RegisterOperation;
    const overwritten = history.filter(
      ({ input, returnedAt }) => input.f === "write" && (returnedAt ?? Infinity) < victim.invokedAt,
    );
    const stale = overwritten.at(-10)?.input as RegisterInput & { readonly f: "write" };
    const wrong: RegisterOperation = { ...victim, output: { f: "read", value: stale.value } };
    const verdict = checkLinearizable(registerModel, history.with(position, wrong));
    expect(verdict).toMatchObject({ linearizable: false, witness: { stuck: wrong, isShortest: true } });
  });
});

describe("ten thousand operations, 1 % of unknown outcome, in less than 5 s", { timeout: 120_000 }, () => {
  const tenKeys = { operations: 10_000, processes: 20, keys: 10, unknownShare: 0.01 };
  test.each([
    ["10 keys, every value written once", { ...tenKeys, valuesCount: 0 }],
    ["10 keys, 5 values", { ...tenKeys, valuesCount: 5 }],
    ["10 keys, 5 values, mostly swaps", { ...tenKeys, valuesCount: 5, swapShare: 0.5 }],
    ["10 keys, every value written once, stale reads", { ...tenKeys, valuesCount: 0, staleReadShare: 0.002 }],
    ["1 key, every value written once", { ...tenKeys, keys: 1, valuesCount: 0 }],
    ["1 key, every value written once, stale reads", { ...tenKeys, keys: 1, valuesCount: 0, staleReadShare: 0.002 }],
  ])("%s", (name, shape) => {
    const { linearizable, elapsedMs } = timeCheck(name, registerModel, executeRegister({ seed: 1, ...shape }));
    expect(linearizable).toBe(!("staleReadShare" in shape));
    expect(elapsedMs).toBeLessThan(5000);
  });

  test.each([
    ["10 keys with appends", tenKeys],
    ["10 keys with appends, stale reads", { ...tenKeys, staleReadShare: 0.002 }],
  ])("%s", (name, shape) => {
    const { linearizable, elapsedMs } = timeCheck(name, keyValueModel, executeKeyValue({ seed: 1, ...shape }));
    expect(linearizable).toBe(!("staleReadShare" in shape));
    expect(elapsedMs).toBeLessThan(5000);
  });

  function timeCheck<S, I, O>(name: string, model: Model<S, I, O>, history: readonly Operation<I, O>[]) {
    const start = performance.now();
    const { linearizable, steps } = checkLinearizable(model, history);
    const elapsedMs = performance.now() - start;
    console.log(`${name}: linearizable ${linearizable}, ${steps} steps, ${elapsedMs.toFixed(0)} ms`);
    return { linearizable, elapsedMs };
  }
});

/** Tries every order of every choice of the unknown operations. */
function hasOrder<S, I, O>(
  model: Model<S, I, O>,
  operations: readonly Operation<I, O>[],
  order: Operation<I, O>[] = [],
): boolean {
  if (!isOrder(model, order)) return false;
  const rest = operations.filter((operation) => !order.includes(operation));
  if (rest.every((operation) => operation.returnedAt === undefined)) return true;
  return rest.some((operation) => hasOrder(model, operations, [...order, operation]));
}

/** Whether the model accepts these operations in this order and none of them returned before one to its left was invoked. */
function isOrder<S, I, O>(model: Model<S, I, O>, order: readonly Operation<I, O>[]): boolean {
  const contradictsClock = order.some(({ invokedAt }, i) =>
    order.slice(i + 1).some(({ returnedAt }) => returnedAt !== undefined && returnedAt < invokedAt),
  );
  if (contradictsClock) return false;
  let state: S | null = model.initial;
  for (const { input, output } of order) {
    if (state !== null) state = model.step(state, input, output);
  }
  return state !== null;
}

/** An object that is used and not judged: what it answers, and where that leads. */
interface LiveObject<S, I, O> {
  readonly initial: S;
  readonly inputs: fc.Arbitrary<I>;
  readonly outputs: (input: I) => fc.Arbitrary<O>;
  apply(state: S, input: I): { readonly output: O; readonly next: S };
}

const registerObject: LiveObject<RegisterState, RegisterInput, RegisterOutput> = {
  initial: nil,
  inputs: fc.oneof(
    fc.constant({ f: "read" as const }),
    fc.record({ f: fc.constant("write" as const), value: fc.constantFrom(1, 2, 3, null) }),
    fc.record({ f: fc.constant("cas" as const), from: fc.constantFrom(1, 2, null), to: fc.constantFrom(1, 2, 3) }),
  ),
  outputs(input) {
    if (input.f === "read") return fc.constantFrom(1, 2, 3, null).map((value) => ({ f: "read", value }));
    if (input.f === "cas") return fc.boolean().map((swapped) => ({ f: "cas", swapped }));
    return fc.constant({ f: "write" });
  },
  apply(state, input) {
    const value = state === nil ? null : state;
    if (input.f === "read") return { output: { f: "read", value }, next: state };
    if (input.f === "write") return { output: { f: "write" }, next: input.value === null ? nil : input.value };
    const swapped = value === input.from;
    return { output: { f: "cas", swapped }, next: !swapped ? state : input.to === null ? nil : input.to };
  },
};

const keyValueObject: LiveObject<KeyValueState, KeyValueInput, KeyValueOutput> = {
  initial: nil,
  inputs: fc.oneof(
    fc.constant({ f: "get" as const }),
    fc.record({ f: fc.constantFrom("put" as const, "append" as const), value: fc.constantFrom("a", "b") }),
  ),
  outputs(input) {
    if (input.f === "get") return fc.constantFrom("a", "b", "ab", "ba", null).map((value) => ({ f: "get", value }));
    return fc.constant({ f: input.f });
  },
  apply(state, input) {
    if (input.f === "get") return { output: { f: "get", value: state === nil ? null : state }, next: state };
    if (input.f === "put") return { output: { f: "put" }, next: input.value };
    return { output: { f: "append" }, next: state === nil ? input.value : state + input.value };
  },
};

/** Up to seven operations executed atomically on a coarse clock, some of unknown outcome, and up to two answers made up afterwards. */
function smallHistories<S, I extends object, O>(object: LiveObject<S, I, O>): fc.Arbitrary<Operation<I, O>[]> {
  const fate = fc.constantFrom("known" as const, "known" as const, "known" as const, "unknown" as const, "unheard" as const);
  const step = object.inputs.chain((input) =>
    fc.record({
      input: fc.constant(input),
      fate,
      invokedAt: fc.nat(12),
      effectAfter: fc.nat(3),
      returnAfter: fc.nat(3),
      // An unknown operation may have its effect at any later time.
      lateness: fc.nat(12),
      lie: fc.option(object.outputs(input), { freq: 8 }),
    }),
  );
  return fc.array(step, { maxLength: 7 }).map((steps) => {
    const effectOf = (s: (typeof steps)[number]) => s.invokedAt + s.effectAfter + (s.fate === "unknown" ? s.lateness : 0);
    let state = object.initial;
    const operations: Operation<I, O>[] = [];
    for (const [process, s] of [...steps.entries()].sort(([, a], [, b]) => effectOf(a) - effectOf(b))) {
      const { output, next } = object.apply(state, s.input);
      const didHappen = s.fate !== "unknown" || s.lateness % 3 !== 0;
      if (didHappen) state = next;
      operations.push({
        process,
        input: { ...s.input },
        output: s.fate === "known" ? (s.lie ?? output) : undefined,
        invokedAt: s.invokedAt,
        returnedAt: s.fate === "unknown" ? undefined : s.invokedAt + s.effectAfter + s.returnAfter,
      });
    }
    return operations;
  });
}

type RegisterOperation = Operation<RegisterInput, RegisterOutput>;

function answerDifferently(operation: RegisterOperation, value: number): RegisterOperation {
  if (operation.output === undefined || operation.output.f === "write") return operation;
  if (operation.output.f === "read") return { ...operation, output: { f: "read", value } };
  return { ...operation, output: { f: "cas", swapped: !operation.output.swapped } };
}

interface Shape {
  readonly seed: number;
  readonly operations: number;
  readonly processes: number;
  readonly keys: number;
  readonly unknownShare?: number;
  readonly staleReadShare?: number;
  readonly lostWriteShare?: number;
  /** How coarse the clock is. */
  readonly tickMs?: number;
}

interface RegisterShape extends Shape {
  /** 0: every write has a value of its own. */
  readonly valuesCount: number;
  readonly readShare?: number;
  readonly swapShare?: number;
}

function executeRegister(shape: RegisterShape): RegisterOperation[] {
  const { valuesCount, readShare = 0.5, swapShare = 0.1 } = shape;
  const random = randomFrom(shape.seed);
  let lastValue = 0;
  const newValue = () => (valuesCount === 0 ? ++lastValue : Math.floor(random() * valuesCount));
  const oldValue = () => (valuesCount === 0 ? Math.max(1, lastValue - Math.floor(random() * 3)) : newValue());
  return execute(registerObject, shape, () => {
    const choice = random();
    if (choice < swapShare) return { f: "cas", from: oldValue(), to: newValue() };
    return choice < swapShare + (1 - swapShare) * readShare ? { f: "read" } : { f: "write", value: newValue() };
  });
}

function executeKeyValue(shape: Shape): Operation<KeyValueInput, KeyValueOutput>[] {
  const random = randomFrom(shape.seed);
  let lastValue = 0;
  return execute(keyValueObject, shape, () => {
    if (random() < 0.5) return { f: "get" };
    return { f: random() < 0.05 ? "put" : "append", value: `${++lastValue} ` };
  });
}

/**
 * Executes operations of processes that each wait for their answer, at one instant each between invocation and return.
 * Half of the operations of unknown outcome never happen; the others do so long after.
 */
function execute<S, I extends { readonly f: string }, O>(object: LiveObject<S, I, O>, shape: Shape, newInput: () => I) {
  const { unknownShare = 0.02, staleReadShare = 0, lostWriteShare = 0, tickMs = 0 } = shape;
  const random = randomFrom(shape.seed + 1);
  const clocks = Array.from({ length: shape.processes }, () => random() * 10);
  const steps = Array.from({ length: shape.operations }, () => {
    const process = clocks.indexOf(Math.min(...clocks));
    const invokedAt = clocks[process] as number;
    const durationMs = 1 + random() * (random() < 0.05 ? 100 : 10);
    clocks[process] = invokedAt + durationMs + random();
    const isUnknown = random() < unknownShare;
    const effectAt = isUnknown ? invokedAt + (random() < 0.5 ? Infinity : random() * 200) : invokedAt + random() * durationMs;
    const key = `k${Math.floor(random() * shape.keys)}`;
    return { process, key, input: newInput(), invokedAt, returnedAt: invokedAt + durationMs, effectAt, isUnknown };
  });
  const lately = new Map<string, S[]>();
  const outputs = new Map<object, O>();
  for (const step of steps.filter(({ effectAt }) => effectAt < Infinity).sort((a, b) => a.effectAt - b.effectAt)) {
    const states = lately.get(step.key) ?? [object.initial];
    const isRead = step.input.f === "read" || step.input.f === "get";
    const isStale = isRead && states.length > staleness && random() < staleReadShare;
    const isLost = step.input.f === "write" && random() < lostWriteShare;
    const { output, next } = object.apply(states.at(isStale ? -staleness : -1) as S, step.input);
    outputs.set(step, output);
    if (!isRead && !isLost) lately.set(step.key, [...states.slice(-staleness), next]);
  }
  const stamp = (ms: number) => (tickMs === 0 ? ms : Math.floor(ms / tickMs) * tickMs);
  return steps.map(
    (step): Operation<I, O> => ({
      process: step.process,
      key: step.key,
      input: step.input,
      output: step.isUnknown ? undefined : outputs.get(step),
      invokedAt: stamp(step.invokedAt),
      returnedAt: step.isUnknown ? undefined : stamp(step.returnedAt),
    }),
  );
}

/** How many changes a stale read lags behind: more than can be in flight at once. */
const staleness = 40;

/** Mulberry32. */
function randomFrom(seed: number): () => number {
  let a = seed | 0;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
