import { expect, test } from "vitest";
import { VirtualPlatform } from "./virtual-platform.ts";

test("timers fire at their own moment, in order, and what follows from one happens before the next", async () => {
  const platform = new VirtualPlatform({ nowMs: 100 });
  const told: string[] = [];
  const tell = (what: string) => () => {
    told.push(`${what} ${platform.now()}`);
    void Promise.resolve().then(() => told.push(`after ${what}`));
  };
  platform.setTimer(20, tell("c"));
  platform.setTimer(10, tell("a"));
  platform.setTimer(10, tell("b"));
  platform.setTimer(15, tell("cancelled")).cancel();
  platform.setTimer(11, () => platform.setTimer(1, tell("nested")));
  platform.setTimer(31, tell("later"));
  await platform.advance(30);
  expect(told).toEqual(["a 110", "after a", "b 110", "after b", "nested 112", "after nested", "c 120", "after c"]);
  expect(platform.now()).toBe(130);
});

test("a stall moves the clock without the timers, which then fire late", async () => {
  const platform = new VirtualPlatform();
  let firedAt = 0;
  platform.setTimer(10, () => {
    firedAt = platform.now();
  });
  platform.stall(50);
  expect(firedAt).toBe(0);
  await platform.advance(0);
  expect(firedAt).toBe(50);
});

test("the same seed throws the same dice, and wall and monotonic clock move together", async () => {
  const throws = (seed: number) =>
    Array.from(
      { length: 5 },
      (
        (platform) => () =>
          platform.randomUint32()
      )(new VirtualPlatform({ seed })),
    );
  expect(throws(1)).toEqual(throws(1));
  expect(throws(1)).not.toEqual(throws(2));
  const platform = new VirtualPlatform({ nowMs: 5, wallMs: 1_000 });
  await platform.advance(10);
  expect([platform.now(), platform.wallMs()]).toEqual([15, 1_010]);
});
