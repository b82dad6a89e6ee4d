/**
 * The ports of time and dice, on Node.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import { randomFillSync } from "node:crypto";
import type { ContextVariable, Platform } from "../base/ports.ts";

/** Longer timers overflow a signed 32-bit number in Node, and would fire at once. */
const timerMsMax = 2 ** 31 - 1;
const dice = new Uint32Array(256);
let diceLeft = 0;

export const nodePlatform: Platform = {
  now: () => performance.now(),
  wallMs: () => Date.now(),
  setTimer(delayMs, callback, options) {
    const timer = setTimeout(callback, Math.min(Math.max(0, Math.ceil(delayMs)), timerMsMax));
    if (options?.ref !== true) timer.unref();
    return { cancel: () => clearTimeout(timer) };
  },
  defer: (callback) => {
    setImmediate(callback);
  },
  randomUint32() {
    if (diceLeft === 0) {
      randomFillSync(dice);
      diceLeft = dice.length;
    }
    return dice[--diceLeft] as number;
  },
  contextVariable<T>(): ContextVariable<T> {
    const storage = new AsyncLocalStorage<T>();
    return { get: () => storage.getStore(), run: (value, act) => storage.run(value, act) };
  },
};
