/**
 * The clock of the hit path: exact at first, then every eighth time, then more seldom, and exact again in the next turn.
 */
import { expect, test } from "vitest";
import { VirtualPlatform } from "../testing/virtual-platform.ts";
import { TurnClock } from "./turn-clock.ts";

test("the first 64 reads of a turn look at the clock, later ones every eighth time, and the next turn begins anew", async () => {
  const platform = new VirtualPlatform();
  const clock = new TurnClock(platform);
  const late: number[] = [];
  for (let read = 1; read <= 200; read++) {
    platform.stall(1);
    if (clock.now() !== platform.now()) late.push(read);
  }
  expect(late[0]).toBe(65);
  expect(late.every((read) => read % 8 !== 0)).toBe(true);
  expect(late.length).toBe(119);
  await platform.settle();
  platform.stall(5_000);
  expect(clock.now()).toBe(platform.now());
});

test("from the 1,024th read of a turn on only every 64th looks", async () => {
  const platform = new VirtualPlatform();
  const clock = new TurnClock(platform);
  let looks = 0;
  let oldestMs = 0;
  for (let read = 1; read <= 1_024 + 6_400; read++) {
    platform.stall(1);
    const ageMs = platform.now() - clock.now();
    if (ageMs === 0) looks++;
    oldestMs = Math.max(oldestMs, ageMs);
  }
  expect(looks).toBe(64 + (1_024 - 64) / 8 + 100);
  expect(oldestMs).toBe(63);
  await platform.settle();
  platform.stall(5_000);
  expect(clock.now()).toBe(platform.now());
});

test("reads spread over turns are all exact", async () => {
  const platform = new VirtualPlatform();
  const clock = new TurnClock(platform);
  for (let read = 0; read < 300; read++) {
    platform.stall(1);
    expect(clock.now()).toBe(platform.now());
    await platform.settle();
  }
});
