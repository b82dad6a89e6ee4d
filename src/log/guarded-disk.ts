/**
 * The disk as the log sees it: a rejection is DISK_FULL or DISK_FAILED and names the file, the place and what was tried.
 *
 * Here is the one boundary where a platform's error gets its meaning; above it no error needs wrapping again.
 */
import { type ConclaveError, conclaveError } from "../base/errors.ts";
import type { Disk, DiskFile } from "../base/ports.ts";

export function guardDisk(disk: Disk): Disk {
  return {
    list: () => guard("Listing the data directory", () => disk.list()),
    open: (name, options) => guard(`Opening "${name}"`, async () => guardFile(await disk.open(name, options))),
    rename: (from, to) => guard(`Renaming "${from}" to "${to}"`, () => disk.rename(from, to)),
    remove: (name) => guard(`Removing "${name}"`, () => disk.remove(name)),
  };
}

function guardFile(file: DiskFile): DiskFile {
  const { name } = file;
  return {
    name,
    sizeBytes: () => guard(`Measuring "${name}"`, () => file.sizeBytes()),
    read: (offset, lengthBytes) => guard(`Reading "${name}" at offset ${offset}`, () => file.read(offset, lengthBytes)),
    write: (offset, bytes, options) => guard(`Writing "${name}" at offset ${offset}`, () => file.write(offset, bytes, options)),
    sync: () => guard(`Syncing "${name}"`, () => file.sync()),
    preallocate: (sizeBytes) => guard(`Allocating ${sizeBytes} bytes for "${name}"`, () => file.preallocate(sizeBytes)),
    close: () => guard(`Closing "${name}"`, () => file.close()),
  };
}

async function guard<T>(what: string, act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    throw diskError(what, error);
  }
}

function diskError(what: string, cause: unknown): ConclaveError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return conclaveError(isFull(cause) ? "DISK_FULL" : "DISK_FAILED", `${what} failed: ${why}.`, { cause });
}

/** No space, or no more of it for this user. */
function isFull(error: unknown): boolean {
  const code = typeof error === "object" && error !== null && "code" in error ? error.code : undefined;
  return code === "ENOSPC" || code === "EDQUOT" || code === "DISK_FULL";
}
