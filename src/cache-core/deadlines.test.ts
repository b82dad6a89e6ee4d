/**
 * One timer for many deadlines: each is kept, none that was met is called, and an earlier one is not held up by a later one.
 */
import { expect, test } from "vitest";
import { VirtualPlatform } from "../testing/virtual-platform.ts";
import { type Deadline, Deadlines } from "./deadlines.ts";

test("each deadline is told once its time is up, in any order of their coming, and none that was met", async () => {
  const platform = new VirtualPlatform();
  const deadlines = new Deadlines(platform);
  const told: string[] = [];
  const add = (delayMs: number, name: string): Deadline => {
    const deadline = { dueMs: platform.now() + delayMs, place: -1, onLate: () => told.push(name) };
    deadlines.add(deadline);
    return deadline;
  };
  add(100, "late");
  const met = add(50, "met");
  add(20, "early");
  deadlines.delete(met);
  await platform.advance(19);
  expect(told).toEqual([]);
  await platform.advance(2);
  expect(told).toEqual(["early"]);
  await platform.advance(60);
  expect(told).toEqual(["early"]);
  add(10, "next");
  await platform.advance(20);
  expect([...told].sort()).toEqual(["early", "late", "next"]);
  await platform.advance(500);
  expect(told).toHaveLength(3);
});
