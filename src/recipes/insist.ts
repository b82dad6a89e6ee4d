/**
 * Asks again while the answer is "try again": the one retry loop of the recipes.
 *
 * Only for acts that may happen twice without harm; recipes see to that by key names that are never used again.
 */
import { ConclaveError } from "../base/errors.ts";
import type { Platform } from "../base/ports.ts";
import { sleep } from "./bell.ts";

const firstDelayMs = 20;
const delayMsMax = 1_000;

/** Retries what is `retryable`, with growing pauses, until the signal aborts; then rejects with its reason. */
export async function insist<T>(
  attempt: () => Promise<T>,
  { platform, signal, ref = true }: { readonly platform: Platform; readonly signal: AbortSignal; readonly ref?: boolean },
): Promise<T> {
  for (let delayMs = firstDelayMs; ; delayMs = Math.min(delayMs * 2, delayMsMax)) {
    try {
      signal.throwIfAborted();
      return await attempt();
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof ConclaveError) || !error.retryable) throw error;
      // Half of the pause is drawn: those who failed together do not come back together.
      const jitter = 0.5 + platform.randomUint32() / 2 ** 33;
      await sleep({ platform, timeoutMs: delayMs * jitter, signal, ref });
    }
  }
}
