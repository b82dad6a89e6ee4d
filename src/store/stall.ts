/**
 * How long an event loop may be blocked before its session ends: the option `maxStallMs`, checked at the door.
 */
import { conclaveError } from "../base/errors.ts";
import type { Caps } from "./caps.ts";

/** Shorter ones could not be told from a busy loop. */
const maxStallMsMin = 1_000;
const maxStallMsMax = 600_000;

/** @throws INVALID_OPTION, UNSUPPORTED (the engine has no thread that could keep a session) */
export function checkMaxStall(maxStallMs: number | undefined, caps: Caps): void {
  if (maxStallMs === undefined) return;
  if (!Number.isSafeInteger(maxStallMs) || maxStallMs < maxStallMsMin || maxStallMs > maxStallMsMax) {
    throw conclaveError(
      "INVALID_OPTION",
      `\`maxStallMs\` is ${maxStallMs}; it must be whole milliseconds from ${maxStallMsMin} to ${maxStallMsMax}.`,
    );
  }
  if (caps.stallKeeper === true) return;
  throw conclaveError(
    "UNSUPPORTED",
    `\`maxStallMs\`: a session of ${caps.engine}, as it was opened, cannot be kept alive from another thread. That needs a server ` +
      "outside of this process, sessions that are not bound to one connection, and a connection of our own.",
  );
}
