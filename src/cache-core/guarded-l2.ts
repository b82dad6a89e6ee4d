/**
 * An L2 that cannot hold anybody up: a deadline around each call, and a breaker that stops asking the dead.
 *
 *   closed --(failuresMax in a row)--> open --(breakerMs)--> half-open: one call is let through --> closed, or open again
 *
 * Writes and deletes go in the background, a bounded number at a time; what does not fit is left out, which costs loads.
 * Source of the states: Nygard, "Release It!", 2nd ed., 2018, ch. 5, "Circuit Breaker".
 */
import { background } from "../base/background.ts";
import type { Platform } from "../base/ports.ts";
import type { L2 } from "./l2.ts";

export type L2Answer = { readonly kind: "hit"; readonly text: string } | { readonly kind: "miss" } | { readonly kind: "failed" };

type State =
  | { readonly kind: "closed"; readonly failures: number }
  | { readonly kind: "open"; readonly untilMs: number }
  | { readonly kind: "half-open" };

export interface GuardedL2Options {
  readonly l2: L2;
  readonly platform: Platform;
  readonly timeoutMs: number;
  readonly breakerMs: number;
  readonly onOpen: (failures: number, why: string) => void;
  readonly onClosed: () => void;
}

const failuresMax = 3;
const backgroundMax = 1_000;
const miss: L2Answer = { kind: "miss" };
const failed: L2Answer = { kind: "failed" };

export class GuardedL2 {
  readonly #options: GuardedL2Options;
  #state: State = { kind: "closed", failures: 0 };
  #inBackground = 0;

  constructor(options: GuardedL2Options) {
    this.#options = options;
  }

  get isOpen(): boolean {
    return this.#state.kind === "open" && this.#options.platform.now() < this.#state.untilMs;
  }

  clockMs(key: string): number | undefined {
    return this.#options.l2.clockMs(key);
  }

  /** Answers within the budget, whatever becomes of the call. */
  get(key: string, budgetMs: number): Promise<L2Answer> {
    const { l2, timeoutMs } = this.#options;
    if (budgetMs <= 0 || !this.#mayCall()) return Promise.resolve(failed);
    return this.#call(() => l2.get(key), Math.min(budgetMs, timeoutMs), answerOf);
  }

  /** `done` is called when it is written, or will not be. */
  set(key: string, { text, ttlMs, done }: { readonly text: string; readonly ttlMs: number; readonly done: () => void }): void {
    this.#later(() => this.#options.l2.set(key, text, ttlMs), done);
  }

  delete(key: string): void {
    this.#later(
      () => this.#options.l2.delete(key),
      () => undefined,
    );
  }

  #later(act: () => Promise<void>, done: () => void): void {
    if (this.#inBackground >= backgroundMax || !this.#mayCall()) {
      done();
      return;
    }
    this.#inBackground++;
    const work = this.#call(act, this.#options.timeoutMs * 10, nothing).finally(() => {
      this.#inBackground--;
      done();
    });
    background(work, "write to L2");
  }

  #mayCall(): boolean {
    const state = this.#state;
    switch (state.kind) {
      case "closed":
        return true;
      case "half-open":
        return false;
      case "open":
        if (this.#options.platform.now() < state.untilMs) return false;
        this.#state = { kind: "half-open" };
        return true;
    }
  }

  /**
   * Never rejects. A deadline that is found to have passed is not yet L2's fault: this process may have slept, and the answer
   * may lie there unread. What has come is read first, which takes a turn of the event loop.
   */
  #call<T>(act: () => Promise<T>, timeoutMs: number, answerOf: (value: T) => L2Answer): Promise<L2Answer> {
    const { platform } = this.#options;
    return new Promise((resolve) => {
      let isAnswered = false;
      const onLate = (): void => {
        if (isAnswered) return;
        this.#onFailure(`no answer within ${timeoutMs} ms`);
        resolve(failed);
      };
      const timer = platform.setTimer(timeoutMs, () => platform.defer(onLate), { ref: true });
      const onAnswer = (): void => {
        isAnswered = true;
        timer.cancel();
      };
      const onError = (error: unknown): void => {
        onAnswer();
        this.#onFailure(error instanceof Error ? error.message : String(error));
        resolve(failed);
      };
      try {
        act().then((value) => {
          onAnswer();
          this.#onSuccess();
          resolve(answerOf(value));
        }, onError);
      } catch (error) {
        onError(error);
      }
    });
  }

  #onSuccess(): void {
    const state = this.#state;
    if (state.kind === "closed" && state.failures === 0) return;
    // A late answer of before does not close what a later silence has opened.
    if (state.kind === "open") return;
    this.#state = { kind: "closed", failures: 0 };
    if (state.kind === "half-open") this.#options.onClosed();
  }

  #onFailure(why: string): void {
    const { platform, breakerMs, onOpen } = this.#options;
    const state = this.#state;
    if (state.kind === "open") return;
    const failures = state.kind === "half-open" ? failuresMax : state.failures + 1;
    if (failures < failuresMax) {
      this.#state = { kind: "closed", failures };
      return;
    }
    this.#state = { kind: "open", untilMs: platform.now() + breakerMs };
    if (state.kind === "closed") onOpen(failures, why);
  }
}

function answerOf(text: string | null): L2Answer {
  return typeof text === "string" ? { kind: "hit", text } : miss;
}

function nothing(): L2Answer {
  return miss;
}
