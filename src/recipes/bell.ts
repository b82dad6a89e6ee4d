/**
 * A bell to sleep by: one waiter, woken by the first ring, by the time, or by a signal.
 *
 * Intuition: the bell on a counter. Whoever waits need not know who will ring it, and a ring before anybody waits is
 * not lost. Recipes let every source of news ring one bell, and ask the store what is true once awake.
 */
import type { Platform } from "../base/ports.ts";

/** Longer delays overflow the timers of most hosts. */
const delayMsMax = 2_147_483_647;

export interface BellWait {
  readonly platform: Platform;
  /** Infinity: no timer. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  /** Whether the wait keeps the process alive. Default true: a call is open while somebody waits. */
  readonly ref?: boolean;
}

export class Bell<T> {
  /** The first ring that nobody has heard yet. Later ones are dropped: a waiter asks for the whole truth anyway. */
  #unheard: { readonly value: T } | undefined;
  #wake: ((value: T) => void) | undefined;

  ring(value: T): void {
    if (this.#wake !== undefined) this.#wake(value);
    else this.#unheard ??= { value };
  }

  /** What was rung, or undefined when the time is up. Rejects with the signal's reason. One waiter at a time. */
  wait({ platform, timeoutMs, signal, ref = true }: BellWait): Promise<T | undefined> {
    if (signal.aborted) return Promise.reject(signal.reason);
    const unheard = this.#unheard;
    if (unheard !== undefined) {
      this.#unheard = undefined;
      return Promise.resolve(unheard.value);
    }
    return new Promise((resolve, reject) => {
      const finish = (): void => {
        this.#wake = undefined;
        timer?.cancel();
        signal.removeEventListener("abort", onAbort);
      };
      const onAbort = (): void => {
        finish();
        reject(signal.reason);
      };
      const wake = (value: T | undefined): void => {
        finish();
        resolve(value);
      };
      const timer =
        timeoutMs === Number.POSITIVE_INFINITY
          ? undefined
          : platform.setTimer(Math.min(timeoutMs, delayMsMax), () => wake(undefined), { ref });
      this.#wake = wake;
      signal.addEventListener("abort", onAbort, { once: true });
    });
  }
}

/** Lets the time pass, or rejects with the signal's reason. */
export async function sleep(wait: BellWait): Promise<void> {
  await new Bell<never>().wait(wait);
}
