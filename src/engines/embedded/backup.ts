/**
 * A backup of a whole cluster in one file, and a new store out of it.
 *
 * The file is a snapshot as members keep and send it (`log/snapshot-file.ts`): every byte is under a chain of checksums, which
 * is read back before the file gets its name. A restored store is a new one: a single member, whose revisions go on above
 * those that the lost one gave out, because its first act is to leap to the wall clock in microseconds. (A store gains less
 * than one revision in a microsecond; a wall clock set back by more than the store's age would break this.) Tokens and
 * watchers of before are therefore never mistaken for present ones. Sessions are in it, and end as their owners stay away.
 */
import { rename, rm } from "node:fs/promises";
import { basename, dirname, resolve } from "node:path";
import { conclaveError, hasCode } from "../../base/errors.ts";
import type { Client } from "../../client/client.ts";
import { nodePlatform } from "../../host/node-platform.ts";
import { Log } from "../../log/log.ts";
import { readChunks, readSnapshotHeader } from "../../log/snapshot-file.ts";
import { protocolNamed } from "../../replica/protocols.ts";
import { embeddedLimits } from "../../store/caps.ts";
import { Machine } from "../../store/machine.ts";
import { decodePiece, type SavedSnapshot } from "../../wire/admin.ts";
import { identityOf } from "./directory-identity.ts";
import { lockDirectory } from "./directory-lock.ts";
import { checksum } from "./native-checksum.ts";
import { NodeDisk } from "./node-disk.ts";

export interface Backup {
  readonly file: string;
  readonly bytes: number;
  readonly revision: number;
  readonly keys: number;
}

const group = 0;
/** A snapshot may be replaced by a newer one, or another leader take over, while it is read. */
const attemptsMax = 5;

/**
 * Writes everything that is committed at this moment into the file, which appears whole or not at all.
 * @throws BUSY (the store moved on too fast; again), SNAPSHOT_CORRUPT, UNAUTHORIZED, TIMEOUT, NO_QUORUM
 */
export async function saveBackup(client: Client, file: string, options: { readonly timeoutMs?: number } = {}): Promise<Backup> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await save(client, resolve(file), options);
    } catch (error) {
      if (attempt === attemptsMax || !(hasCode(error, "BUSY") || hasCode(error, "SNAPSHOT_CORRUPT"))) throw error;
    }
  }
}

async function save(client: Client, file: string, options: { readonly timeoutMs?: number }): Promise<Backup> {
  const saved = JSON.parse(await client.administer({ kind: "save-snapshot" }, options)) as SavedSnapshot;
  const disk = await NodeDisk.open(dirname(file));
  const partial = `${basename(file)}.partial`;
  await disk.remove(partial);
  const out = await disk.open(partial, { create: true });
  try {
    for (let offset = 0, done = false; !done; ) {
      const piece = decodePiece(await client.administer({ kind: "read-snapshot", index: saved.index, offset }, options));
      if (piece.bytes.length > 0) await out.write(offset, [piece.bytes], { durable: false });
      offset += piece.bytes.length;
      done = piece.done;
    }
    await out.sync();
  } catch (error) {
    await out.close();
    await rm(`${file}.partial`, { force: true });
    throw error;
  }
  await out.close();
  const machine = await readMachine(`${file}.partial`, { asNew: false });
  await rename(`${file}.partial`, file);
  return { file, bytes: saved.lengthBytes, revision: machine.revision, keys: machine.entryCount };
}

/**
 * Makes the data directory of a new single member out of a backup. The directory must be empty.
 * @throws INVALID_OPTION, DIRECTORY_IN_USE, SNAPSHOT_CORRUPT, DIRECTORY_NEWER, DISK_FULL, DISK_FAILED
 */
export async function restoreBackup(options: {
  readonly file: string;
  readonly directory: string;
  readonly member: string;
  readonly cluster: string;
}): Promise<Backup> {
  const { directory, member, cluster } = options;
  const file = resolve(options.file);
  const found = await identityOf(directory);
  if (found !== undefined) {
    throw conclaveError(
      "INVALID_OPTION",
      `"${directory}" belongs to member "${found.member}"; a backup is restored into an empty directory.`,
    );
  }
  const machine = await readMachine(file, { asNew: true });
  const lock = await lockDirectory(directory);
  try {
    const protocol = protocolNamed("raft");
    const { log } = await Log.open({
      disk: await NodeDisk.open(directory),
      member,
      cluster,
      group,
      protocol: protocol.name,
      slots: protocol.slots,
      incarnation: () => nodePlatform.randomUint32(),
      checksum,
      now: () => nodePlatform.now(),
    });
    try {
      // Term 0: whatever the new store decides comes after.
      const saved = await log.saveSnapshot({
        index: Math.max(1, machine.appliedIndex),
        term: 0,
        configuration: { voters: [member], learners: [] },
        stampMs: machine.elapsedMs,
        chunks: machine.snapshot(),
      });
      return { file, bytes: saved.lengthBytes, revision: machine.revision, keys: machine.entryCount };
    } finally {
      await log.close();
    }
  } finally {
    await lock.release();
  }
}

async function readMachine(file: string, { asNew }: { readonly asNew: boolean }): Promise<Machine> {
  const disk = await NodeDisk.open(dirname(file));
  const source = await disk.open(basename(file));
  try {
    const { index } = await readSnapshotHeader(source, { group, checksum });
    const chunks: Uint8Array[] = [];
    for await (const chunk of readChunks(source, { group, checksum })) chunks.push(chunk);
    return Machine.restore(chunks, { limits: embeddedLimits, appliedIndex: index, asNew });
  } finally {
    await source.close();
  }
}
