/**
 * Whose data directory this is, read from outside: so that `conclave serve --data DIR` needs no names.
 * Only looks; it takes no lock, makes nothing, and the member that opens the directory checks again.
 */
import { access } from "node:fs/promises";
import { join } from "node:path";
import { conclaveError } from "../../base/errors.ts";
import { isProtocolName, type ProtocolName } from "../../base/protocol-name.ts";
import { type Identity, identityFile, readIdentity } from "../../log/identity.ts";
import { checksum } from "./native-checksum.ts";
import { NodeDisk } from "./node-disk.ts";

export type FoundIdentity = Pick<Identity, "member" | "cluster"> & { readonly protocol: ProtocolName };

/** Undefined where no member has lived yet. @throws LOG_CORRUPT, DIRECTORY_NEWER */
export async function identityOf(directory: string): Promise<FoundIdentity | undefined> {
  try {
    await access(join(directory, identityFile));
  } catch {
    // Absent, or not to be seen: opening the directory will say which.
    return undefined;
  }
  const { member, cluster, protocol } = await readIdentity(await NodeDisk.open(directory), checksum);
  if (!isProtocolName(protocol)) {
    throw conclaveError(
      "DIRECTORY_NEWER",
      `The data directory of member "${member}" was written by "${protocol}", unknown here.`,
    );
  }
  return { member, cluster, protocol };
}
