/**
 * Flips one bit in the middle of a stopped member's log, as a decaying disk does.
 *
 * In the middle: enough whole records stand behind it that nobody can take it for a write that the power interrupted.
 */
import { closeSync, openSync, readdirSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";

export interface Flipped {
  /** The segment. */
  readonly file: string;
  readonly where: string;
  /** Flips it back: the disk as it was, from a copy that somebody had. */
  restore(): void;
}

/** Less than this and the middle is too near the end. */
const writtenBytesMin = 8_192;

/** Undefined: no segment is long enough yet. */
export function flipByte(directory: string, float: () => number): Flipped | undefined {
  const names = readdirSync(directory).filter((name) => name.startsWith("segment-"));
  for (const file of names.sort()) {
    const path = join(directory, file);
    const bytes = readFileSync(path);
    // Segments are preallocated: what follows the last record is zeros.
    let written = bytes.length;
    while (written > 0 && bytes[written - 1] === 0) written--;
    if (written < writtenBytesMin) continue;
    let at = Math.floor(written * (0.1 + 0.5 * float()));
    // A record's padding is not part of what it promises.
    while (bytes[at] === 0) at--;
    const before = bytes[at] as number;
    const bit = 1 << Math.floor(float() * 8);
    overwrite(path, at, before ^ bit);
    return { file, where: `${path}, byte ${at}, bit ${bit}`, restore: () => overwrite(path, at, before) };
  }
  return undefined;
}

function overwrite(path: string, at: number, value: number): void {
  const descriptor = openSync(path, "r+");
  writeSync(descriptor, Uint8Array.of(value), 0, 1, at);
  closeSync(descriptor);
}
