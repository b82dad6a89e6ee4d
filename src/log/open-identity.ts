/**
 * The door of a data directory: whose is it, and is it new?
 */
import { conclaveError } from "../base/errors.ts";
import { protocolDefault } from "../base/protocol-name.ts";
import { checkIdentity, confirmName, type Identity, identityFile, readIdentity, writeIdentity } from "./identity.ts";
import type { LogOptions } from "./log-options.ts";
import { segmentSequence } from "./recovery.ts";
import { snapshotIndex } from "./snapshot-file.ts";

/**
 * The identity that is there, or a new one for an empty directory.
 * @throws DIRECTORY_FOREIGN, DIRECTORY_OTHER_PROTOCOL, DIRECTORY_NEWER, LOG_CORRUPT
 */
export async function openIdentity(options: LogOptions, names: readonly string[]): Promise<Identity> {
  const { disk, member, cluster, checksum } = options;
  const wanted = { member, cluster, group: options.group ?? 0, protocol: options.protocol ?? protocolDefault };
  if (names.includes(identityFile)) {
    const found = await readIdentity(disk, checksum);
    checkIdentity(found, wanted);
    await confirmName(disk, identityFile);
    return found;
  }
  const stray = names.find((name) => segmentSequence(name) !== undefined || snapshotIndex(name) !== undefined);
  if (stray !== undefined) {
    throw conclaveError("LOG_CORRUPT", `The file "${identityFile}" is missing (offset 0), yet "${stray}" is there.`);
  }
  const identity: Identity = { ...wanted, incarnation: options.incarnation() >>> 0, formatted: false };
  await writeIdentity(disk, identity, checksum);
  return identity;
}
