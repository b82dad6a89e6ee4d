/**
 * The deadline around L2: strict with a silent L2, and not fooled by a process that slept itself.
 */
import { describe, expect, test } from "vitest";
import type { Platform } from "../base/ports.ts";
import { failed, GuardedL2 } from "./guarded-l2.ts";
import type { L2Reader } from "./l2.ts";

/** Timers and deferred work run when the test says so: as after a stall, where a timer runs before what lies in a socket. */
function scene(port: "get" | "read") {
  const timers: (() => void)[] = [];
  const deferred: (() => void)[] = [];
  const answers: ((text: string) => void)[] = [];
  const failures: ((error: Error) => void)[] = [];
  const heard: unknown[] = [];
  const opened: string[] = [];
  let nowMs = 0;
  const platform: Platform = {
    now: () => nowMs,
    wallMs: () => 0,
    setTimer: (_, callback) => {
      let isOn = true;
      timers.push(() => {
        if (isOn) callback();
      });
      return {
        cancel: () => {
          isOn = false;
        },
      };
    },
    defer: (callback) => {
      deferred.push(callback);
    },
    randomUint32: () => 0,
  };
  const get = (): Promise<string | null> =>
    new Promise((resolve, reject) => {
      answers.push(resolve);
      failures.push(reject);
    });
  const read = (_: string, reader: L2Reader): void => {
    answers.push((text) => reader.onAnswer(text));
    failures.push((error) => reader.onError(error));
  };
  const guarded = new GuardedL2({
    l2: {
      name: "by hand",
      ...(port === "get" ? { get } : { get: () => Promise.reject(new Error("there is a `read`")), read }),
      set: async () => undefined,
      delete: async () => undefined,
      clockMs: () => 0,
    },
    platform,
    timeoutMs: 100,
    breakerMs: 1_000,
    onOpen: (_, why) => opened.push(why),
    onClosed: () => undefined,
  });
  const runAll = (callbacks: (() => void)[]): void => {
    for (const callback of callbacks.splice(0)) callback();
  };
  return {
    read: (key: string): Promise<unknown> =>
      new Promise((resolve) => {
        const onText = (_: unknown, answer: unknown): void => {
          heard.push(answer);
          resolve(answer);
        };
        guarded.get({ key }, { sentMs: nowMs, budgetMs: 100 }, { onText });
      }),
    heard,
    failures,
    answers,
    opened,
    wake: (atMs = 100) => {
      nowMs = atMs;
      runAll(timers);
    },
    endTurn: () => runAll(deferred),
  };
}

describe.each(["get", "read"] as const)("an L2 that is asked by `%s`", (port) => {
  test("answers that lay unread while the process slept are answers, and open no breaker", async () => {
    const { read, answers, opened, wake, endTurn } = scene(port);
    const reads = Array.from({ length: 50 }, (_, at) => read(`k${at}`));
    wake();
    for (const answer of answers) answer("v");
    await Promise.resolve();
    endTurn();
    expect(await Promise.all(reads)).toEqual(reads.map(() => "v"));
    expect(opened).toEqual([]);
  });

  test("an L2 that has said nothing in that turn either has failed, and three in a row open the breaker", async () => {
    const { read, opened, wake, endTurn } = scene(port);
    const reads = Array.from({ length: 3 }, (_, at) => read(`k${at}`));
    wake();
    endTurn();
    expect(await Promise.all(reads)).toEqual(reads.map(() => failed));
    expect(opened).toEqual(["no answer within 100 ms"]);
    expect(await read("next")).toBe(failed);
  });

  test("a call that was silent and fails afterwards has failed once", async () => {
    const { read, failures, opened, wake, endTurn } = scene(port);
    const reads = [read("a"), read("b")];
    wake();
    endTurn();
    expect(await Promise.all(reads)).toEqual([failed, failed]);
    for (const fail of failures) fail(new Error("the connection is gone"));
    await new Promise((resolve) => setImmediate(resolve));
    expect(opened).toEqual([]);
  });

  test("an answer after the deadline is heard by nobody, and says that L2 lives", async () => {
    const { read, answers, heard, opened, wake, endTurn } = scene(port);
    const reads = Array.from({ length: 2 }, (_, at) => read(`k${at}`));
    wake();
    endTurn();
    for (const answer of answers) answer("late");
    await new Promise((resolve) => setImmediate(resolve));
    expect(await Promise.all(reads)).toEqual([failed, failed]);
    expect(heard).toEqual([failed, failed]);
    const third = read("k3");
    wake(300);
    endTurn();
    expect(await third).toBe(failed);
    expect(opened).toEqual([]);
  });
});
