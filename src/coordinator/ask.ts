/**
 * One question to a participant, with a deadline: silence and a thrown error are both "unreachable".
 */
import type { Platform } from "../base/ports.ts";

export const silent = "silent";

/** What the promise resolves with; `silent` when it rejects, or has not settled in time. What was sent stays sent. */
export function ask<T>(platform: Platform, waitMs: number, question: () => Promise<T>): Promise<T | typeof silent> {
  return new Promise((resolve) => {
    const timer = platform.setTimer(Math.max(0, waitMs), () => resolve(silent), { ref: true });
    const end = (answer: T | typeof silent): void => {
      timer.cancel();
      resolve(answer);
    };
    try {
      question().then(end, () => end(silent));
    } catch {
      end(silent);
    }
  });
}
