/**
 * Waiting in the runner: for a while, or for a condition, and never past the end of the run.
 */
import { monotonicMs } from "./clock.ts";

/** Resolves after the time, or as soon as the signal aborts. */
export function pause(delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const done = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, delayMs);
    signal?.addEventListener("abort", done, { once: true });
  });
}

/** Asks again and again; answers whether the condition came true within the time. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  { withinMs, everyMs = 50, signal }: { readonly withinMs: number; readonly everyMs?: number; readonly signal?: AbortSignal },
): Promise<boolean> {
  const endMs = monotonicMs() + withinMs;
  for (;;) {
    if (await condition()) return true;
    if (signal?.aborted || monotonicMs() >= endMs) return false;
    await pause(everyMs, signal);
  }
}
