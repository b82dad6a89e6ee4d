/**
 * An L2 that cannot hold anybody up: a deadline around each call, and a breaker that stops asking the dead.
 *
 * Writes and deletes go in the background, a bounded number at a time; what does not fit is left out, which costs loads.
 */
import type { Platform } from "../base/ports.ts";
import { Breaker } from "./breaker.ts";
import { type Deadline, Deadlines } from "./deadlines.ts";
import type { L2, L2Reader } from "./l2.ts";

export interface GuardedL2Options {
  readonly l2: L2;
  readonly platform: Platform;
  readonly timeoutMs: number;
  readonly breakerMs: number;
  readonly onOpen: (failures: number, why: string) => void;
  readonly onClosed: () => void;
}

/** Hears what became of calls: of each once, and throws nothing. One for all of them: what is made for each read costs. */
export interface TextListener<Asked> {
  /** null: a miss. */
  onText(asked: Asked, text: string | null | typeof failed): void;
}

const backgroundMax = 1_000;

/** L2 did not answer, or was not asked. */
export const failed = Symbol("L2 failed");

export class GuardedL2 {
  readonly #options: GuardedL2Options;
  readonly #guard: Guard;
  #inBackground = 0;

  constructor(options: GuardedL2Options) {
    const { platform, breakerMs, onOpen, onClosed } = options;
    this.#options = options;
    const breaker = new Breaker({ now: () => platform.now(), breakerMs, onOpen, onClosed });
    this.#guard = { breaker, deadlines: new Deadlines(platform) };
  }

  get isOpen(): boolean {
    return this.#guard.breaker.isOpen;
  }

  clockMs(key: string, nowMs?: number): number | undefined {
    return this.#options.l2.clockMs(key, nowMs);
  }

  /**
   * Tells the listener within the budget, whatever becomes of the call. `sentMs`: now. Calls back instead of promising: a hit
   * in L2 is the path that counts.
   */
  get<Asked extends { readonly key: string }>(
    asked: Asked,
    { sentMs, budgetMs }: { readonly sentMs: number; readonly budgetMs: number },
    listener: TextListener<Asked>,
  ): void {
    const { l2, timeoutMs } = this.#options;
    if (budgetMs <= 0 || !this.#guard.breaker.mayCall()) {
      listener.onText(asked, failed);
      return;
    }
    const call = new ReadCall(this.#guard, { sentMs, timeoutMs: Math.min(budgetMs, timeoutMs) }, asked, listener);
    this.#guard.deadlines.add(call);
    try {
      if (l2.read !== undefined) l2.read(asked.key, call);
      else follow(l2.get(asked.key), call);
    } catch (error) {
      call.onError(error);
    }
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
    if (this.#inBackground >= backgroundMax || !this.#guard.breaker.mayCall()) {
      done();
      return;
    }
    this.#inBackground++;
    const { platform, timeoutMs } = this.#options;
    const onEnd = (): void => {
      this.#inBackground--;
      done();
    };
    const call = new BackgroundCall(this.#guard, { sentMs: platform.now(), timeoutMs: timeoutMs * 10 }, onEnd);
    this.#guard.deadlines.add(call);
    try {
      follow(act(), call);
    } catch (error) {
      call.onError(error);
    }
  }
}

interface Guard {
  readonly breaker: Breaker;
  readonly deadlines: Deadlines;
}

interface Period {
  readonly sentMs: number;
  readonly timeoutMs: number;
}

/**
 * One call that is under way: its own deadline, and who hears the answer.
 *
 * A class, as everything is that lives as long as a read: where hundreds of reads are open at once, V8 finds that what one
 * object literal makes survives, and puts whatever it makes from then on among the old, where it keeps all it points to from the
 * collector of the young. It keeps no such count of a class.
 */
abstract class Call<Answer> implements Deadline {
  place = -1;
  readonly dueMs: number;
  readonly #guard: Guard;
  readonly #timeoutMs: number;

  constructor(guard: Guard, { sentMs, timeoutMs }: Period) {
    this.dueMs = sentMs + timeoutMs;
    this.#guard = guard;
    this.#timeoutMs = timeoutMs;
  }

  abstract onEnd(answer: Answer | typeof failed): void;

  onAnswer(answer: Answer): void {
    const isInTime = this.#guard.deadlines.delete(this);
    this.#guard.breaker.onSuccess();
    if (isInTime) this.onEnd(answer);
  }

  onError(error: unknown): void {
    // Who was told of the silence has counted it: an error that comes after it is the same failure.
    if (this.#guard.deadlines.delete(this)) this.#fail(error instanceof Error ? error.message : String(error));
  }

  onLate(): void {
    this.#fail(`no answer within ${this.#timeoutMs} ms`);
  }

  #fail(why: string): void {
    this.#guard.breaker.onFailure(why);
    this.onEnd(failed);
  }
}

class ReadCall<Asked> extends Call<string | null> implements L2Reader {
  readonly #asked: Asked;
  readonly #listener: TextListener<Asked>;

  constructor(guard: Guard, period: Period, asked: Asked, listener: TextListener<Asked>) {
    super(guard, period);
    this.#asked = asked;
    this.#listener = listener;
  }

  override onEnd(answer: string | null | typeof failed): void {
    this.#listener.onText(this.#asked, answer);
  }
}

class BackgroundCall extends Call<void> {
  readonly #onEnd: () => void;

  constructor(guard: Guard, period: Period, onEnd: () => void) {
    super(guard, period);
    this.#onEnd = onEnd;
  }

  override onEnd(): void {
    this.#onEnd();
  }
}

function follow<Answer>(answer: Promise<Answer>, call: Call<Answer>): void {
  void answer.then(
    (value) => call.onAnswer(value),
    (error: unknown) => call.onError(error),
  );
}
