/**
 * The exit codes, in one table that the code, the help and the tests read. The numbers follow sysexits(3) and flock(1).
 */

import { errorTable } from "../base/error-table.ts";
import { ConclaveError, type ErrorCode } from "../base/errors.ts";

export const exitCodes = {
  ok: 0,
  no: 1,
  usage: 64,
  unavailable: 69,
  internal: 70,
  disk: 74,
  busy: 75,
  refused: 77,
  configuration: 78,
  lost: 79,
  cannotExecute: 126,
  notFound: 127,
  interrupted: 130,
} as const;

/** What `conclave help exit-codes` prints. */
export const exitCodeTable: readonly (readonly [code: string, meaning: string])[] = [
  ["0", "done"],
  ["1", "no: no such key, holder, leader or item; `status`: one is missing; `doctor`: a danger"],
  ["64", "the command line is wrong; nothing was sent"],
  ["69", "no answer in time; it may have happened (--json: see `definite`)"],
  ["70", "a defect, or a member that had to halt"],
  ["74", "the data directory: not to be had, full, failing or corrupt"],
  ["75", "not free, or not come to it, in time (another number with -E)"],
  ["77", "the store refused the credential"],
  ["78", "set up otherwise: directory in use, wrong cluster, wrong member, ..."],
  ["79", "the lock was lost while the command ran"],
  ["126, 127", "the command under `lock` cannot be executed, was not found"],
  ["128+n", "signal n ended the command under `lock`, or conclave (130: Ctrl-C)"],
];

/** The code for an error, wherever it was thrown. */
export function exitCodeOf(error: unknown): number {
  // Of the operating system, about a file: a directory that may not be made, say.
  if (error instanceof Error && "syscall" in error && "path" in error) return exitCodes.disk;
  if (!(error instanceof ConclaveError)) return exitCodes.internal;
  return special[error.code] ?? byClass[errorTable[error.code].class];
}

const special: Partial<Record<ErrorCode, number>> = {
  LOCK_TIMEOUT: exitCodes.busy,
  WAIT_TIMEOUT: exitCodes.busy,
  QUEUE_FULL: exitCodes.busy,
  UNAUTHORIZED: exitCodes.refused,
  DISK_FULL: exitCodes.disk,
  DISK_FAILED: exitCodes.disk,
  INVARIANT: exitCodes.internal,
  // The session of a waiter: nothing was held yet.
  SESSION_LOST: exitCodes.unavailable,
};

const byClass = {
  usage: exitCodes.usage,
  conflict: exitCodes.configuration,
  unavailable: exitCodes.unavailable,
  lost: exitCodes.lost,
  corruption: exitCodes.disk,
} as const;
