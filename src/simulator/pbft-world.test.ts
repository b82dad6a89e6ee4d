import { expect, test } from "vitest";
import { PbftWorld } from "./pbft-world.ts";

const floors = { stepsMin: 2_000 };

test("correct replicas agree through crashes, lost writes and a bad network", () => {
  let [restarts, viewChanges, answers] = [0, 0, 0];
  for (const seed of [2, 4, 6]) {
    const report = new PbftWorld(seed).run(floors);
    restarts += report.counts.restarts;
    viewChanges += report.counts.viewsEntered;
    answers += report.answers;
  }
  // A world in which nothing happens proves nothing.
  expect(restarts).toBeGreaterThan(3);
  expect(viewChanges).toBeGreaterThan(5);
  expect(answers).toBeGreaterThan(100);
});

test("correct replicas agree while up to f others lie", () => {
  let [equivocations, refused, stable] = [0, 0, 0];
  for (const seed of [1, 3, 5, 7]) {
    const report = new PbftWorld(seed).run(floors);
    equivocations += report.counts.equivocations;
    refused += report.counts.refused;
    stable += report.counts.stableCheckpoints;
  }
  expect(equivocations).toBeGreaterThan(0);
  expect(refused).toBeGreaterThan(0);
  expect(stable).toBeGreaterThan(10);
});

test("the same seed is the same world", () => {
  const [first, second] = [new PbftWorld(13).run(floors), new PbftWorld(13).run(floors)];
  expect(second).toEqual(first);
});
