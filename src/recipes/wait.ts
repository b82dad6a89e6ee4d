/**
 * One deadline and one signal around a wait, with an error that says for what.
 */
import { conclaveError } from "../base/errors.ts";
import { linkSignal } from "../base/link-signal.ts";
import type { Platform } from "../base/ports.ts";
import { checkWaitMs } from "./options.ts";

export interface WaitOptions {
  /** How long to wait. Milliseconds, or Infinity. Default 60_000. */
  readonly waitMs?: number;
  /** Ends the wait; rejects with its reason. */
  readonly signal?: AbortSignal;
}

/** @since 0.2.0 */
export const waitDefaults = { waitMs: 60_000 } as const;

const delayMsMax = 2_147_483_647;

/** Calls with a signal that aborts with the caller's and with the time. @throws WAIT_TIMEOUT, INVALID_OPTION */
export async function withinWait<T>(
  platform: Platform,
  { waitMs = waitDefaults.waitMs, signal }: WaitOptions,
  title: string,
  act: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  checkWaitMs(waitMs);
  const link = linkSignal(signal);
  const timeIsUp = Symbol("the time is up");
  const timer =
    waitMs === Number.POSITIVE_INFINITY
      ? undefined
      : platform.setTimer(Math.min(waitMs, delayMsMax), () => link.abort(timeIsUp), { ref: true });
  try {
    link.signal.throwIfAborted();
    return await act(link.signal);
  } catch (error) {
    if (error !== timeIsUp) throw error;
    throw conclaveError("WAIT_TIMEOUT", `${title}: it had not come to that within ${waitMs} ms.`);
  } finally {
    timer?.cancel();
    link.unlink();
  }
}
