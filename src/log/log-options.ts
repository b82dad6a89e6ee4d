/**
 * What a log is opened with, who hears of it, and the check at the door.
 */
import { type ConclaveError, conclaveError } from "../base/errors.ts";
import type { ConclaveEvent } from "../base/event.ts";
import type { Checksum, Disk, Telemetry } from "../base/ports.ts";
import type { PersistSequence } from "../consensus/core.ts";
import type { Slots } from "./recovery.ts";

export interface LogLimits {
  /** Size of a segment file, in bytes. A longer record gets a longer segment. */
  readonly segmentBytes: number;
  /** Most that one write takes, in bytes; a single longer persist goes alone. */
  readonly batchBytes: number;
}

export const logDefaults: LogLimits = { segmentBytes: 16 * 1_048_576, batchBytes: 8 * 1_048_576 };

export interface LogOptions {
  readonly disk: Disk;
  readonly member: string;
  readonly cluster: string;
  /** Which of the process's groups; unsigned 32 bits. Default 0. */
  readonly group?: number;
  /** Whose records these are: a directory of one protocol is not opened by another. Default "raft". */
  readonly protocol?: string;
  /** A random unsigned 32-bit number; asked once, when an empty directory is formatted. */
  readonly incarnation: () => number;
  /** CRC-32. A host may hand in a native one; see `base/crc32.ts`. */
  readonly checksum: Checksum;
  readonly limits?: Partial<LogLimits>;
  /** Whether slots may be missing and survive a put below them. Default "contiguous". */
  readonly slots?: Slots;
  readonly telemetry?: Telemetry<ConclaveEvent>;
  /** Monotonic milliseconds, for the latency that telemetry reports. */
  readonly now?: () => number;
}

export interface LogListener {
  /** Every persist up to this one is durable. Rises; one call for each write. */
  onDurable(sequence: PersistSequence): void;
  /** DISK_FULL or DISK_FAILED. Once; nothing is written after it. */
  onFailed(error: ConclaveError): void;
}

/** @throws INVALID_OPTION */
export function validateLogOptions(options: LogOptions, limits: LogLimits): void {
  const group = options.group ?? 0;
  if (!(Number.isInteger(group) && group >= 0 && group <= 0xffff_ffff)) {
    throw conclaveError("INVALID_OPTION", `group is ${group}, not an unsigned 32-bit number.`);
  }
  for (const [name, value] of Object.entries(limits)) {
    if (!(Number.isInteger(value) && value >= 4096 && value <= 2 ** 31)) {
      throw conclaveError("INVALID_OPTION", `limits.${name} is ${value}, not a whole number from 4096 to 2^31.`);
    }
  }
}
