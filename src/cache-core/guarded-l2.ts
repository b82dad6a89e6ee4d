/**
 * An L2 that cannot hold anybody up: a deadline around each call, and a breaker that stops asking the dead.
 *
 *   closed --(failuresMax in a row)--> open --(breakerMs)--> half-open: one call is let through --> closed, or open again
 *
 * Writes and deletes go in the background, a bounded number at a time; what does not fit is left out, which costs loads.
 * Source of the states: Nygard, "Release It!", 2nd ed., 2018, ch. 5, "Circuit Breaker".
 */
import type { Platform } from "../base/ports.ts";
import { Deadlines } from "./deadlines.ts";
import type { L2 } from "./l2.ts";

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

/** `sentMs`: now. */
export interface GuardedRead {
  readonly key: string;
  readonly sentMs: number;
  readonly budgetMs: number;
}

const failuresMax = 3;
const backgroundMax = 1_000;

/** L2 did not answer, or was not asked. */
export const failed = Symbol("L2 failed");

export class GuardedL2 {
  readonly #options: GuardedL2Options;
  readonly #deadlines: Deadlines;
  #state: State = { kind: "closed", failures: 0 };
  #inBackground = 0;

  constructor(options: GuardedL2Options) {
    this.#options = options;
    this.#deadlines = new Deadlines(options.platform);
  }

  get isOpen(): boolean {
    return this.#state.kind === "open" && this.#options.platform.now() < this.#state.untilMs;
  }

  clockMs(key: string): number | undefined {
    return this.#options.l2.clockMs(key);
  }

  /**
   * Calls back once, within the budget, whatever becomes of the call: with the text (null: a miss) or `failed`.
   * Calls back instead of promising: a hit in L2 is the path that counts.
   */
  get({ key, sentMs, budgetMs }: GuardedRead, onEnd: (text: string | null | typeof failed) => void): void {
    const { l2, timeoutMs } = this.#options;
    if (budgetMs <= 0 || !this.#mayCall()) onEnd(failed);
    else this.#call(() => l2.get(key), { sentMs, timeoutMs: Math.min(budgetMs, timeoutMs) }, onEnd);
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
    const { platform, timeoutMs } = this.#options;
    this.#call(act, { sentMs: platform.now(), timeoutMs: timeoutMs * 10 }, () => {
      this.#inBackground--;
      done();
    });
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

  /** `onEnd` is called once, and throws nothing. */
  #call<A>(
    act: () => Promise<A>,
    { sentMs, timeoutMs }: { readonly sentMs: number; readonly timeoutMs: number },
    onEnd: (answer: A | typeof failed) => void,
  ): void {
    const fail = (why: string): void => {
      this.#onFailure(why);
      onEnd(failed);
    };
    const deadline = this.#deadlines.add(sentMs + timeoutMs, () => fail(`no answer within ${timeoutMs} ms`));
    const onError = (error: unknown): void => {
      // Who was told of the silence has counted it: an error that comes after it is the same failure.
      if (this.#deadlines.delete(deadline)) fail(error instanceof Error ? error.message : String(error));
    };
    const onAnswer = (answer: A): void => {
      const isInTime = this.#deadlines.delete(deadline);
      this.#onSuccess();
      if (isInTime) onEnd(answer);
    };
    try {
      void act().then(onAnswer, onError);
    } catch (error) {
      onError(error);
    }
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
