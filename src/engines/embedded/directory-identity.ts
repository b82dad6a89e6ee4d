/**
 * Whose data directory this is, read from outside: so that `conclave serve --data DIR` needs no names.
 * Only looks; it takes no lock, makes nothing, and the member that opens the directory checks again.
 */
import { access } from "node:fs/promises";
import { join } from "node:path";
import { type Identity, identityFile, readIdentity } from "../../log/identity.ts";
import { checksum } from "./host.ts";
import { NodeDisk } from "./node-disk.ts";

/** Undefined where no member has lived yet. @throws LOG_CORRUPT, DIRECTORY_NEWER */
export async function identityOf(directory: string): Promise<Pick<Identity, "member" | "cluster"> | undefined> {
  try {
    await access(join(directory, identityFile));
  } catch {
    // Absent, or not to be seen: opening the directory will say which.
    return undefined;
  }
  return readIdentity(await NodeDisk.open(directory), checksum);
}
