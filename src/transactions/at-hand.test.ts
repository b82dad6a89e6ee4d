import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { AtHand } from "./at-hand.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

function open() {
  const given: string[] = [];
  const waiting = { count: 0 };
  const atHand = new AtHand<string>({ isWaitedFor: () => waiting.count > 0, giveBack: (each) => given.push(each) });
  return { given, waiting, atHand };
}

test("the last one laid down is the first one taken", () => {
  const { atHand } = open();
  atHand.lay("a");
  atHand.lay("b");
  expect([atHand.take(), atHand.take(), atHand.take()]).toEqual(["b", "a", undefined]);
});

test("what nobody took up for a second goes back, and what is used stays", () => {
  const { atHand, given } = open();
  for (const each of ["a", "b", "c"]) atHand.lay(each);
  // Counted from the first look: those that came after it have not lain for a second yet.
  vi.advanceTimersByTime(1_000);
  expect(given).toEqual(["a"]);
  atHand.lay(atHand.take() as string);
  vi.advanceTimersByTime(1_000);
  expect(given).toEqual(["a", "b"]);
  vi.advanceTimersByTime(1_000);
  expect(given).toEqual(["a", "b", "c"]);
  expect(vi.getTimerCount()).toBe(0);
});

test("nothing is kept from somebody who waits in the pool", () => {
  const { atHand, given, waiting } = open();
  waiting.count = 1;
  atHand.lay("a");
  expect(given).toEqual(["a"]);
  expect(atHand.take()).toBeUndefined();
});

test("one that broke is given out no more", () => {
  const { atHand, given } = open();
  for (const each of ["a", "b"]) atHand.lay(each);
  expect(atHand.remove("b")).toBe(true);
  expect(atHand.remove("b")).toBe(false);
  expect([atHand.take(), atHand.take()]).toEqual(["a", undefined]);
  expect(given).toEqual([]);
});

test("after the close everything goes back, also what is laid down later", () => {
  const { atHand, given } = open();
  atHand.lay("a");
  const late = atHand.take() as string;
  atHand.lay("b");
  atHand.close();
  atHand.lay(late);
  expect(given).toEqual(["b", "a"]);
  expect(vi.getTimerCount()).toBe(0);
});
