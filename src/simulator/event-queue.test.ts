import { expect, test } from "vitest";
import { EventQueue, type ScheduledEvent } from "./event-queue.ts";
import { Random } from "./random.ts";

test("events come by time, and by the order of scheduling where times are equal", () => {
  const queue = new EventQueue();
  const seen: string[] = [];
  for (const [delayMs, name] of [
    [5, "b"],
    [1, "a"],
    [5, "c"],
  ] as const)
    queue.schedule(delayMs, () => seen.push(name));
  while (queue.step());
  expect(seen).toEqual(["a", "b", "c"]);
  expect(queue.nowMs).toBe(5);
});

test("an event that is rescheduled comes when a cancelled one and a new one would have come", () => {
  for (let seed = 1; seed <= 200; seed++) {
    const moved = run(seed, (queue, event, delayMs, callback) => queue.reschedule(event, delayMs, callback));
    const replaced = run(seed, (queue, event, delayMs, callback) => {
      if (event !== undefined) queue.cancel(event);
      return queue.schedule(delayMs, callback);
    });
    expect(moved, `seed ${seed}`).toEqual(replaced);
  }
});

/** Ten timers that are set anew at random, by each other and by themselves, among events that stay. */
function run(
  seed: number,
  set: (queue: EventQueue, event: ScheduledEvent | undefined, delayMs: number, callback: () => void) => ScheduledEvent,
): string[] {
  const random = new Random(seed);
  const queue = new EventQueue();
  const timers: (ScheduledEvent | undefined)[] = Array.from({ length: 10 }, () => undefined);
  const seen: string[] = [];
  const note = (what: string): void => {
    seen.push(`${what} at ${queue.nowMs}`);
    for (let count = random.integer(0, 2); count > 0; count--) {
      const number = random.integer(0, 9);
      timers[number] = set(queue, timers[number], random.integer(0, 20), () => note(`timer ${number}`));
    }
    if (random.chance(0.3)) queue.schedule(random.integer(0, 20), () => note("other"));
  };
  for (let count = 0; count < 5; count++) queue.schedule(random.integer(0, 20), () => note("first"));
  while (seen.length < 300 && queue.step());
  return seen;
}
