/**
 * What is wrong with the disk and the wall clock of one member at the moment: a small file that the runner writes and the
 * member's process reads (`afflict.ts`).
 */
import { readFileSync, renameSync, writeFileSync } from "node:fs";

export interface Affliction {
  /** Writes and syncs answer so much later, at most. */
  readonly diskDelayMsMax: number;
  readonly isDiskFull: boolean;
  readonly isDiskFailing: boolean;
  /** Added to `Date.now()`. */
  readonly wallOffsetMs: number;
}

export const healthy: Affliction = { diskDelayMsMax: 0, isDiskFull: false, isDiskFailing: false, wallOffsetMs: 0 };

export const afflictionPathVariable = "CONCLAVE_TORTURE_AFFLICTION";
/** How fast the monotonic clock runs; for the life of the process. */
export const afflictionRateVariable = "CONCLAVE_TORTURE_CLOCK_RATE";

export function readAffliction(path: string): Affliction {
  return JSON.parse(readFileSync(path, "utf8")) as Affliction;
}

/** Whole or not at all: it is read at any moment. */
export function writeAffliction(path: string, affliction: Affliction): void {
  writeFileSync(`${path}.new`, JSON.stringify(affliction));
  renameSync(`${path}.new`, path);
}
