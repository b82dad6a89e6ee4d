import { expect, test } from "vitest";
import type { Platform } from "../base/ports.ts";
import { ask, silent } from "./ask.ts";

/** A clock that is moved by hand. `early`: its timers ring so much before the clock says so. */
function handClock({ early = 0 } = {}) {
  let nowMs = 0;
  let set = 0;
  const timers = new Set<{ readonly atMs: number; readonly callback: () => void; readonly ref: boolean }>();
  const platform = {
    now: () => nowMs,
    setTimer(delayMs: number, callback: () => void, options?: { readonly ref?: boolean }) {
      set++;
      const timer = { atMs: nowMs + delayMs - early, callback, ref: options?.ref === true };
      timers.add(timer);
      return { cancel: () => void timers.delete(timer) };
    },
  } as unknown as Platform;
  const to = async (ms: number): Promise<void> => {
    for (;;) {
      const [due] = [...timers].filter(({ atMs }) => atMs <= ms).sort((one, other) => one.atMs - other.atMs);
      if (due === undefined) break;
      nowMs = Math.max(nowMs, due.atMs);
      timers.delete(due);
      due.callback();
      if (early > 0) nowMs += early;
    }
    nowMs = ms;
    for (let turn = 0; turn < 5; turn++) await Promise.resolve();
  };
  return { platform, to, timers, count: () => set };
}

const never = () => new Promise<string>(() => undefined);

test("each question is given up at its own time, whatever others wait for", async () => {
  const { platform, to, timers } = handClock();
  const ended: string[] = [];
  const wait = (name: string, waitMs: number) =>
    void ask(platform, waitMs, never).then((answer) => ended.push(`${name} ${answer}`));
  wait("long", 300);
  wait("short", 100);
  await to(50);
  wait("middle", 150);
  expect([...timers].map(({ ref }) => ref)).toEqual([true]);
  await to(99);
  expect(ended).toEqual([]);
  await to(100);
  expect(ended).toEqual(["short silent"]);
  await to(200);
  expect(ended).toEqual(["short silent", "middle silent"]);
  await to(300);
  expect(ended).toEqual(["short silent", "middle silent", "long silent"]);
  expect(timers.size).toBe(0);
});

test("a timer that rings early ends nobody before its time", async () => {
  const { platform, to } = handClock({ early: 0.5 });
  let ended: string | undefined;
  void ask(platform, 100, never).then((answer) => (ended = answer));
  await to(99);
  expect(ended).toBeUndefined();
  await to(101);
  expect(ended).toBe(silent);
});

test("answers and errors end a question; the last one takes the timer along", async () => {
  const { platform, timers, count } = handClock();
  const answers: ((answer: string) => void)[] = [];
  const open = [1, 2, 3].map(() => ask(platform, 1_000, () => new Promise<string>((resolve) => answers.push(resolve))));
  expect(await ask(platform, 1_000, () => Promise.reject(new Error("no")))).toBe(silent);
  expect(
    await ask(platform, 1_000, () => {
      throw new Error("no");
    }),
  ).toBe(silent);
  expect([timers.size, count()]).toEqual([1, 1]);
  for (const answer of answers) answer("yes");
  expect(await Promise.all(open)).toEqual(["yes", "yes", "yes"]);
  expect(timers.size).toBe(0);
});
