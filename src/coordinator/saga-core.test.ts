import { expect, test } from "vitest";
import { SagaCore, type StageShape } from "./saga-core.ts";

const step = (branch: number) => ({ name: `s${branch}`, branch, canUndo: true, isFenced: true });
const plain: readonly StageShape[] = [
  { kind: "step", steps: [step(1)] },
  { kind: "step", steps: [step(2)] },
];

test("a saga without a pivot turns after its last step, and only then has completed", () => {
  const core = new SagaCore(plain, { turn: "none", isTakenOver: false });
  expect(core.begin()).toEqual([{ kind: "do", step: step(1) }]);
  expect(core.onDone(step(1))).toEqual([{ kind: "do", step: step(2) }]);
  expect(core.onDone(step(2))).toEqual([{ kind: "write", turn: "pivot" }]);
  // Its time is over while the turn is on its way: too late.
  expect(core.onCancel()).toEqual([]);
  expect(core.onWritten("pivot")).toEqual([{ kind: "end", outcome: "completed" }]);
});

test("who takes it over after its turn asks every step again, and neither time nor patience turns it back", () => {
  const core = new SagaCore(plain, { turn: "pivot", isTakenOver: true });
  expect(core.begin()).toEqual([{ kind: "do", step: step(1) }]);
  expect(core.onCancel()).toEqual([]);
  expect(core.mayFail(step(1), "given-up")).toBe(false);
  expect(core.onDone(step(1))).toEqual([{ kind: "do", step: step(2) }]);
  expect(core.onDone(step(2))).toEqual([{ kind: "end", outcome: "completed" }]);
});

test("who took it over before its turn, and is told that somebody turned it back, undoes all of it", () => {
  const core = new SagaCore(plain, { turn: "none", isTakenOver: true });
  core.begin();
  core.onDone(step(1));
  expect(core.onDone(step(2))).toEqual([{ kind: "write", turn: "pivot" }]);
  expect(core.onWritten("back")).toEqual([{ kind: "undo", step: step(2) }]);
});
