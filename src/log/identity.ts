/**
 * The identity file: whose directory this is.
 *
 * A member's promises (its vote, the entries it acknowledged) live in its directory, so the directory is the member: an
 * empty one is a new member, and another's is refused. `incarnation` is drawn once, when the directory is formatted; every
 * record carries it, so nothing of an earlier life of the directory can be read as part of this one.
 *
 *   "CONCLAVE" | version u16 (u8, u8) | formatted u8 | incarnation u32 | group u32 | member | cluster | protocol | checksum u32
 *
 * The first ten bytes and the checksum at the end keep their place in every version. `formatted` is set once the first
 * segment is durable: from then on a directory without segments has lost them, and is not new.
 * `protocol` is left out for raft, as it was before there was a choice (version 1). With any other the version is 2, so
 * that a program that knows no other refuses the directory instead of reading it as its own.
 */
import { ByteReader, ByteWriter } from "../base/byte-codec.ts";
import { utf8Decode, utf8Encode } from "../base/bytes.ts";
import { conclaveError } from "../base/errors.ts";
import type { Checksum, Disk } from "../base/ports.ts";
import { protocolDefault } from "../base/protocol-name.ts";
import { formatVersion } from "./record.ts";

export interface Identity {
  readonly member: string;
  readonly cluster: string;
  readonly group: number;
  /** How its owner agrees with the other members; its log means nothing to another protocol. */
  readonly protocol: string;
  readonly incarnation: number;
  readonly formatted: boolean;
}

export const identityFile = "identity";
const temporaryFile = "identity.tmp";
const magic = "CONCLAVE";
/** The version that names its protocol. */
const identityVersion = 2;

/** Durable once resolved; atomic. */
export async function writeIdentity(disk: Disk, identity: Identity, checksum: Checksum): Promise<void> {
  await disk.remove(temporaryFile);
  const file = await disk.open(temporaryFile, { create: true });
  try {
    await file.write(0, [encodeIdentity(identity, checksum)], { durable: true });
  } finally {
    await file.close();
  }
  await disk.rename(temporaryFile, identityFile);
}

/**
 * Makes a name that was found durable. A process killed between a rename and the sync of its directory leaves a name that
 * the next one can read and a power cut still takes away; nothing may be built on it before.
 */
export function confirmName(disk: Disk, name: string): Promise<void> {
  return disk.rename(name, name);
}

/** @throws LOG_CORRUPT, DIRECTORY_NEWER */
export async function readIdentity(disk: Disk, checksum: Checksum): Promise<Identity> {
  const file = await disk.open(identityFile);
  try {
    return decodeIdentity(await file.read(0, await file.sizeBytes()), checksum);
  } finally {
    await file.close();
  }
}

/** Refuses a directory that belongs to somebody else. @throws DIRECTORY_FOREIGN, DIRECTORY_OTHER_PROTOCOL */
export function checkIdentity(found: Identity, wanted: Pick<Identity, "member" | "cluster" | "group" | "protocol">): void {
  if (found.member !== wanted.member || found.cluster !== wanted.cluster || found.group !== wanted.group) {
    throw conclaveError(
      "DIRECTORY_FOREIGN",
      `The data directory belongs to ${describe(found)} and cannot be opened as ${describe(wanted)}.`,
    );
  }
  if (found.protocol !== wanted.protocol) {
    throw conclaveError(
      "DIRECTORY_OTHER_PROTOCOL",
      `The data directory of ${describe(found)} was written by ${found.protocol} and cannot be opened with ${wanted.protocol}.`,
    );
  }
}

function describe({ member, cluster, group }: Pick<Identity, "member" | "cluster" | "group">): string {
  return `member "${member}" of cluster "${cluster}" (group ${group})`;
}

function encodeIdentity(identity: Identity, checksum: Checksum): Uint8Array {
  const writer = new ByteWriter();
  writer.raw(utf8Encode(magic));
  const version = identity.protocol === protocolDefault ? formatVersion : identityVersion;
  writer.u8(version & 0xff);
  writer.u8(version >>> 8);
  writer.u8(identity.formatted ? 1 : 0);
  writer.u32(identity.incarnation);
  writer.u32(identity.group);
  writer.utf8(identity.member);
  writer.utf8(identity.cluster);
  if (version === identityVersion) writer.utf8(identity.protocol);
  writer.u32(checksum(writer.view()));
  return writer.finish();
}

function decodeIdentity(bytes: Uint8Array, checksum: Checksum): Identity {
  const bodyBytes = bytes.length - 4;
  const whole =
    bodyBytes > magic.length + 2 &&
    utf8Decode(bytes.subarray(0, magic.length)) === magic &&
    new ByteReader(bytes, bodyBytes).u32() === checksum(bytes.subarray(0, bodyBytes));
  if (!whole) throw conclaveError("LOG_CORRUPT", `The file "${identityFile}" is damaged at offset 0.`);
  const reader = new ByteReader(bytes, magic.length, bodyBytes);
  const version = reader.u8() + reader.u8() * 256;
  if (version > identityVersion) throw newerFormat(identityFile, version);
  return {
    formatted: reader.u8() === 1,
    incarnation: reader.u32(),
    group: reader.u32(),
    member: reader.utf8(),
    cluster: reader.utf8(),
    protocol: version === identityVersion ? reader.utf8() : protocolDefault,
  };
}

export function newerFormat(file: string, version: number): Error {
  return conclaveError(
    "DIRECTORY_NEWER",
    `The file "${file}" has format ${version}; this version of Conclave reads up to ${formatVersion}.`,
  );
}
