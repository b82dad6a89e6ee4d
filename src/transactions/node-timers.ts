/**
 * Node's timers, as cancellable as the port's: for this room's waits on drivers, which the coordinator's clock does not see.
 */
export const nodeTimers = {
  after(delayMs: number, callback: () => void): { cancel(): void } {
    const timer = setTimeout(callback, Math.max(0, delayMs));
    return { cancel: () => clearTimeout(timer) };
  },
} as const;

/** Rejects with `onLate()` when the promise has not settled in time. What was sent stays sent. */
export function within<T>(promise: Promise<T>, timeoutMs: number, onLate: () => Error): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = nodeTimers.after(timeoutMs, () => reject(onLate()));
    promise.then(
      (value) => {
        timer.cancel();
        resolve(value);
      },
      (error: unknown) => {
        timer.cancel();
        reject(error);
      },
    );
  });
}
