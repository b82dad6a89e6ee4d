/**
 * Linked signals: many children on one parent cost it one listener, and none once they are gone.
 */
import { getEventListeners } from "node:events";
import { expect, test } from "vitest";
import { linkSignal, onAbort, raceSignal } from "./link-signal.ts";

test("a child aborts with its parent and its parent's reason", () => {
  const parent = new AbortController();
  const link = linkSignal(parent.signal);
  parent.abort("enough");
  expect(link.signal.reason).toBe("enough");
});

test("a child of an aborted parent is aborted at once", () => {
  expect(linkSignal(AbortSignal.abort("before")).signal.reason).toBe("before");
});

test("a thousand children are one listener on the parent, and none once they are unlinked", () => {
  const parent = new AbortController();
  const links = Array.from({ length: 1_000 }, () => linkSignal(parent.signal));
  expect(getEventListeners(parent.signal, "abort")).toHaveLength(1);
  for (const link of links) {
    link.unlink();
    link.unlink();
  }
  expect(getEventListeners(parent.signal, "abort")).toHaveLength(0);
  parent.abort();
  expect(links.some((link) => link.signal.aborted)).toBe(false);
});

test("a child that is unlinked while the parent aborts its siblings stays as it is", () => {
  const parent = new AbortController();
  const calls: string[] = [];
  onAbort(parent.signal, () => calls.push("first"));
  onAbort(parent.signal, () => calls.push("second"));
  parent.abort();
  expect(calls).toEqual(["first", "second"]);
});

test("a child of a child follows without an event, until it is unlinked; a signal asked for late has aborted", () => {
  const parent = linkSignal(undefined);
  const [child, unlinked, unasked] = [linkSignal(parent.signal), linkSignal(parent.signal), linkSignal(parent.signal)];
  expect(getEventListeners(parent.signal, "abort")).toHaveLength(0);
  const { signal } = child;
  unlinked.unlink();
  parent.abort("enough");
  expect(signal.reason).toBe("enough");
  expect(unasked.signal.reason).toBe("enough");
  expect(unlinked.signal.aborted).toBe(false);
  expect(linkSignal(parent.signal).signal.aborted).toBe(true);
  const plain = linkSignal(undefined);
  plain.abort();
  plain.abort("late");
  expect(plain.signal.reason).toMatchObject({ name: "AbortError" });
});

test("a callback that throws keeps the others from nothing", () => {
  const parent = linkSignal(undefined);
  const told: string[] = [];
  onAbort(parent.signal, () => told.push("first"));
  onAbort(parent.signal, () => {
    throw new Error("broken");
  });
  onAbort(parent.signal, () => told.push("third"));
  expect(() => parent.abort()).toThrow("broken");
  expect(told).toEqual(["first", "third"]);
});

test("a race ends with the signal's reason, and leaves no listener when the promise was first", async () => {
  const parent = new AbortController();
  await expect(raceSignal(Promise.resolve(7), parent.signal)).resolves.toBe(7);
  await new Promise((done) => setImmediate(done));
  expect(getEventListeners(parent.signal, "abort")).toHaveLength(0);
  const lost = raceSignal(new Promise(() => undefined), parent.signal);
  parent.abort(new Error("stop"));
  await expect(lost).rejects.toThrow("stop");
});
