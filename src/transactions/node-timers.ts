/**
 * Node's timers, as cancellable as the port's: for this room's waits on drivers, which the coordinator's clock does not see.
 */
import { type Asked, Questions } from "../coordinator/ask.ts";

export const nodeTimers = {
  after(delayMs: number, callback: () => void): { cancel(): void } {
    const timer = setTimeout(callback, Math.max(0, delayMs));
    return { cancel: () => clearTimeout(timer) };
  },
} as const;

/** Waits on drivers are mostly answered at once: they share a timer, as the coordinator's questions do. */
const waits = new Questions({
  now: () => performance.now(),
  setTimer: (delayMs, callback) => nodeTimers.after(Math.ceil(delayMs), callback),
});

/** Rejects with `onLate()` when the promise has not settled in time. What was sent stays sent. */
export function within<T>(promise: Promise<T>, timeoutMs: number, onLate: () => Error): Promise<T> {
  return new Promise((resolve, reject) => {
    const wait: Asked = { dueMs: performance.now() + timeoutMs, onLate: () => reject(onLate()), place: -1 };
    waits.add(wait);
    promise.then(
      (value) => {
        waits.delete(wait);
        resolve(value);
      },
      (error: unknown) => {
        waits.delete(wait);
        reject(error);
      },
    );
  });
}
