/**
 * The snapshots of one directory: at most one that counts, the newest; one being saved and one being received aside.
 *
 * The order is always: write aside, sync, check, rename, note it in the log, and only then remove what it replaces. A crash
 * between any two steps leaves either the old state whole or the new one whole, and left-over files that `open` sweeps.
 *
 *   saving.tmp    --sync--------> rename --> snapshot-<index>.snap --> remove older snapshots --> drop segments
 *   incoming.tmp  --sync, check-> rename --> snapshot-<index>.snap --> note in the log        --> the same
 */
import { ConclaveError, conclaveError } from "../base/errors.ts";
import type { Checksum, Disk, DiskFile } from "../base/ports.ts";
import type { Configuration, Index, Term } from "../consensus/core.ts";
import { confirmName } from "./identity.ts";
import {
  readChunks,
  readSnapshotHeader,
  type SnapshotContent,
  type SnapshotInfo,
  snapshotIndex,
  snapshotName,
  writeSnapshot,
} from "./snapshot-file.ts";

/** A piece of a snapshot file that a leader sent. */
export interface SnapshotPiece {
  readonly index: Index;
  readonly term: Term;
  readonly configuration: Configuration;
  readonly offset: number;
  /** Must not change afterwards. */
  readonly bytes: Uint8Array;
  readonly done: boolean;
}

export type ReceivedPiece =
  | { readonly kind: "more"; readonly nextOffset: number }
  /** Durable: this one (`renamed`), or a newer one that was there before. */
  | { readonly kind: "installed"; readonly snapshot: SnapshotInfo; readonly renamed: boolean }
  /** Not the next piece, or the file is damaged; the sender starts again at 0. */
  | { readonly kind: "refused"; readonly why: string };

/** A part of the newest snapshot's file. */
export interface SnapshotPart {
  readonly index: Index;
  readonly term: Term;
  readonly lengthBytes: number;
  readonly offset: number;
  readonly bytes: Uint8Array;
  /** The part reaches the end of the file. */
  readonly done: boolean;
}

interface Incoming {
  readonly index: Index;
  readonly term: Term;
  readonly file: DiskFile;
  nextOffset: number;
}

interface SnapshotsOptions {
  readonly disk: Disk;
  readonly group: number;
  readonly checksum: Checksum;
}

const savingFile = "saving.tmp";
const incomingFile = "incoming.tmp";

export class Snapshots {
  readonly #options: SnapshotsOptions;
  #newest: SnapshotInfo | undefined;
  #incoming: Incoming | undefined;
  /** One file step after another: a save and a receive may overlap, their renames may not. */
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(options: SnapshotsOptions) {
    this.#options = options;
  }

  /** Sweeps unfinished files and reads the newest header. A damaged newest snapshot is not passed over for an older one:
   * the member promised what is in it. */
  static async open(options: SnapshotsOptions, names: readonly string[]): Promise<Snapshots> {
    const snapshots = new Snapshots(options);
    for (const name of [savingFile, incomingFile]) if (names.includes(name)) await options.disk.remove(name);
    const newest = Math.max(0, ...names.map((name) => snapshotIndex(name) ?? 0));
    if (newest > 0) {
      const info = await snapshots.#withFile(newest, (file) => readSnapshotHeader(file, options));
      if (info.index !== newest) {
        const why = `the header says ${info.index}`;
        throw conclaveError("SNAPSHOT_CORRUPT", `The snapshot "${snapshotName(newest)}" is damaged at offset 0: ${why}.`);
      }
      await confirmName(options.disk, snapshotName(newest));
      snapshots.#newest = info;
    }
    return snapshots;
  }

  get newest(): SnapshotInfo | undefined {
    return this.#newest;
  }

  /** Resolves with the newest snapshot: this one, or a newer one that arrived meanwhile. */
  async save(content: SnapshotContent): Promise<SnapshotInfo> {
    const { disk } = this.#options;
    await disk.remove(savingFile);
    const file = await disk.open(savingFile, { create: true });
    let lengthBytes: number;
    try {
      lengthBytes = await writeSnapshot(file, content, this.#options);
    } finally {
      await file.close();
    }
    const { index, term, configuration, stampMs } = content;
    await this.#publish(savingFile, { index, term, configuration, stampMs, lengthBytes });
    return this.#newest as SnapshotInfo;
  }

  /** Removes what could not be finished; keeps quiet about a disk that cannot even do that: `open` sweeps again. */
  async discardSaving(): Promise<void> {
    await this.#options.disk.remove(savingFile).catch(() => undefined);
  }

  /** Pieces in order; piece 0 starts anew. */
  receive(piece: SnapshotPiece): Promise<ReceivedPiece> {
    return this.#inTurn(() => this.#receive(piece));
  }

  async read(offset: number, lengthBytes: number): Promise<SnapshotPart | undefined> {
    for (;;) {
      const newest = this.#newest;
      if (newest === undefined) return undefined;
      const { index, term } = newest;
      try {
        const bytes = await this.#withFile(index, (file) => file.read(offset, lengthBytes));
        const done = offset + bytes.length >= newest.lengthBytes;
        return { index, term, lengthBytes: newest.lengthBytes, offset, bytes, done };
      } catch (error) {
        // Replaced and removed between the look and the read: read the newer one.
        if (this.#newest === newest) throw error;
      }
    }
  }

  load(): { readonly header: SnapshotInfo; readonly chunks: AsyncIterable<Uint8Array> } | undefined {
    const header = this.#newest;
    if (header === undefined) return undefined;
    return { header, chunks: this.#chunks(header.index) };
  }

  /** Removes every snapshot but the newest. */
  async removeOlder(): Promise<void> {
    const newest = this.#newest?.index ?? 0;
    for (const name of await this.#options.disk.list()) {
      const index = snapshotIndex(name);
      if (index !== undefined && index < newest) await this.#options.disk.remove(name);
    }
  }

  async close(): Promise<void> {
    await this.#inTurn(() => this.#forgetIncoming());
  }

  async #receive(piece: SnapshotPiece): Promise<ReceivedPiece> {
    const newest = this.#newest;
    if (newest !== undefined && piece.index <= newest.index) return { kind: "installed", snapshot: newest, renamed: false };
    if (piece.offset === 0) await this.#startIncoming(piece);
    const incoming = this.#incoming;
    if (incoming?.index !== piece.index || incoming.term !== piece.term || incoming.nextOffset !== piece.offset) {
      const expected = incoming === undefined ? "none" : `${incoming.nextOffset} of snapshot ${incoming.index}`;
      return { kind: "refused", why: `piece ${piece.offset} of snapshot ${piece.index} is not the next one (${expected})` };
    }
    if (piece.bytes.length > 0) await incoming.file.write(piece.offset, [piece.bytes], { durable: false });
    incoming.nextOffset += piece.bytes.length;
    return piece.done ? this.#install(incoming) : { kind: "more", nextOffset: incoming.nextOffset };
  }

  async #startIncoming(piece: SnapshotPiece): Promise<void> {
    await this.#forgetIncoming();
    await this.#options.disk.remove(incomingFile);
    const file = await this.#options.disk.open(incomingFile, { create: true });
    this.#incoming = { index: piece.index, term: piece.term, file, nextOffset: 0 };
  }

  async #forgetIncoming(): Promise<void> {
    const incoming = this.#incoming;
    this.#incoming = undefined;
    await incoming?.file.close();
  }

  async #install(incoming: Incoming): Promise<ReceivedPiece> {
    await incoming.file.sync();
    const checked = await check(incoming, this.#options);
    await this.#forgetIncoming();
    if (checked.kind === "refused") {
      await this.#options.disk.remove(incomingFile);
      return checked;
    }
    await this.#replaceNewest(incomingFile, checked.snapshot);
    return checked;
  }

  #publish(from: string, info: SnapshotInfo): Promise<void> {
    return this.#inTurn(() => this.#replaceNewest(from, info));
  }

  async #replaceNewest(from: string, info: SnapshotInfo): Promise<void> {
    const { disk } = this.#options;
    if (this.#newest !== undefined && info.index <= this.#newest.index) return disk.remove(from);
    await disk.rename(from, snapshotName(info.index));
    this.#newest = info;
  }

  async *#chunks(index: Index): AsyncGenerator<Uint8Array, void, undefined> {
    const file = await this.#options.disk.open(snapshotName(index));
    try {
      yield* readChunks(file, this.#options);
    } finally {
      await file.close();
    }
  }

  async #withFile<T>(index: Index, use: (file: DiskFile) => Promise<T>): Promise<T> {
    const file = await this.#options.disk.open(snapshotName(index));
    try {
      return await use(file);
    } finally {
      await file.close();
    }
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(work);
    // The next one runs whether or not this one failed; its caller hears of the failure.
    this.#turn = done.catch(() => undefined);
    return done;
  }
}

/** Reads every byte back: what counts is what the disk holds, not what was sent. */
async function check(
  incoming: Incoming,
  options: SnapshotsOptions,
): Promise<Extract<ReceivedPiece, { kind: "installed" | "refused" }>> {
  try {
    const snapshot = await readSnapshotHeader(incoming.file, options);
    if (snapshot.index !== incoming.index || snapshot.term !== incoming.term) {
      return { kind: "refused", why: `the file is snapshot ${snapshot.index} of term ${snapshot.term}` };
    }
    for await (const _chunk of readChunks(incoming.file, options)) {
      // The checks are in the reader.
    }
    return { kind: "installed", snapshot, renamed: true };
  } catch (error) {
    if (error instanceof ConclaveError && !error.code.startsWith("DISK_")) return { kind: "refused", why: error.message };
    throw error;
  }
}
