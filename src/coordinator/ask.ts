/**
 * One question to a participant, with a deadline: silence and a thrown error are both "unreachable".
 *
 * Questions that are open share one timer, set for the first that is due: most are answered long before, and a timer of its own
 * costs each of them more than the wait. It holds the process while a question is open, and no longer.
 */
import { Bag, type InBag } from "../base/bag.ts";
import type { Platform, Timer } from "../base/ports.ts";

export const silent = "silent";

/** What the promise resolves with; `silent` when it rejects, or has not settled in time. What was sent stays sent. */
export function ask<T>(platform: Platform, waitMs: number, question: () => Promise<T>): Promise<T | typeof silent> {
  return new Promise((resolve) => {
    const questions = questionsOf(platform);
    const asked: Asked = { dueMs: platform.now() + Math.max(0, waitMs), onLate: () => resolve(silent), place: -1 };
    questions.add(asked);
    const end = (answer: T | typeof silent): void => {
      questions.delete(asked);
      resolve(answer);
    };
    try {
      question().then(end, () => end(silent));
    } catch {
      end(silent);
    }
  });
}

/** What somebody waits for no longer than until then. */
export interface Asked extends InBag {
  readonly dueMs: number;
  readonly onLate: () => void;
}

/** Those that are open by one clock. */
export class Questions {
  readonly #platform: Clock;
  readonly #open = new Bag<Asked>();
  /** Rings when the first was due that was open when it was set. */
  #timer: Timer | undefined;
  #ringsMs = Number.POSITIVE_INFINITY;

  constructor(platform: Clock) {
    this.#platform = platform;
  }

  add(asked: Asked): void {
    this.#open.add(asked);
    if (asked.dueMs < this.#ringsMs) this.#ringAt(asked.dueMs);
  }

  delete(asked: Asked): void {
    if (this.#open.delete(asked) && this.#open.size === 0) this.#silence();
  }

  #ringAt(dueMs: number): void {
    this.#timer?.cancel();
    this.#ringsMs = dueMs;
    this.#timer = this.#platform.setTimer(Math.max(0, dueMs - this.#platform.now()), () => this.#onRing(), { ref: true });
  }

  #silence(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#ringsMs = Number.POSITIVE_INFINITY;
  }

  #onRing(): void {
    this.#silence();
    const nowMs = this.#platform.now();
    for (const asked of this.#open.all.filter(({ dueMs }) => dueMs <= nowMs)) {
      this.#open.delete(asked);
      asked.onLate();
    }
    const next = this.#open.all.reduce((least, { dueMs }) => Math.min(least, dueMs), Number.POSITIVE_INFINITY);
    if (next !== Number.POSITIVE_INFINITY) this.#ringAt(next);
  }
}

type Clock = Pick<Platform, "now" | "setTimer">;

/** By the clock that they are measured with: a process has one, a simulated world many. */
const byPlatform = new WeakMap<Platform, Questions>();

function questionsOf(platform: Platform): Questions {
  let questions = byPlatform.get(platform);
  if (questions === undefined) {
    questions = new Questions(platform);
    byPlatform.set(platform, questions);
  }
  return questions;
}
