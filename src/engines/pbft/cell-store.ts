/**
 * A replica's durable cells and its snapshot, on the write-ahead log of the house.
 *
 * Each persist of the core is one entry of the log: a list of cells with their new bytes. A snapshot holds the state of a
 * checkpoint, its proof, and the cells that lie above it; entries before it are dropped. So after a crash the cells are
 * those of a prefix of the persists, which is what `consensus/pbft/core.ts` asks for.
 */
import { ByteReader, ByteWriter } from "../../base/byte-codec.ts";
import { conclaveError } from "../../base/errors.ts";
import type { ConclaveEvent } from "../../base/event.ts";
import type { Disk, Telemetry } from "../../base/ports.ts";
import { cellSequence } from "../../consensus/pbft/cells.ts";
import type { CellChange, PbftRecovered, PbftSnapshot } from "../../consensus/pbft/core.ts";
import type { Checkpoint } from "../../consensus/pbft/messages.ts";
import { type CapturedPart, rootOf } from "../../consensus/pbft/state.ts";
import { readSignedList, writeSignedList } from "../../consensus/pbft/statements.ts";
import { Log } from "../../log/log.ts";
import { checksum } from "../embedded/native-checksum.ts";

const configuration = { voters: [], learners: [] };
const chunkBytes = 262_144;

interface Unsynced {
  readonly sequence: number;
  readonly index: number;
  readonly changes: readonly CellChange[];
}

export interface CellStoreOptions {
  readonly disk: Disk;
  readonly member: string;
  readonly cluster: string;
  readonly incarnation: () => number;
  readonly digest: (bytes: Uint8Array) => string;
  readonly telemetry?: Telemetry<ConclaveEvent>;
  readonly onDurable: (sequence: number) => void;
  readonly onFailed: (error: Error) => void;
}

export class CellStore {
  readonly #log: Log;
  /** As of the last durable entry. */
  readonly #cells: Map<string, Uint8Array>;
  #unsynced: Unsynced[] = [];
  #index: number;
  #durableIndex: number;
  #saving: Promise<void> | undefined;
  #next: { readonly snapshot: PbftSnapshot; readonly onSaved: () => void } | undefined;
  readonly #onFailed: (error: Error) => void;

  private constructor(log: Log, cells: Map<string, Uint8Array>, index: number, options: CellStoreOptions) {
    this.#log = log;
    this.#cells = cells;
    this.#index = index;
    this.#durableIndex = index;
    this.#onFailed = options.onFailed;
    log.listen({
      onDurable: (sequence) => {
        this.#apply(sequence);
        options.onDurable(sequence);
      },
      onFailed: options.onFailed,
    });
  }

  /** @throws DIRECTORY_FOREIGN, DIRECTORY_OTHER_PROTOCOL, DIRECTORY_NEWER, LOG_CORRUPT, SNAPSHOT_CORRUPT, DISK_FULL, DISK_FAILED */
  static async open(options: CellStoreOptions): Promise<{ readonly store: CellStore; readonly recovered: PbftRecovered }> {
    const { disk, member, cluster, incarnation, telemetry, digest } = options;
    const { log, recovered } = await Log.open({
      disk,
      member,
      cluster,
      incarnation,
      checksum,
      protocol: "pbft",
      now: () => performance.now(),
      ...(telemetry === undefined ? {} : { telemetry }),
    });
    const loaded = log.loadSnapshot();
    const cells = new Map<string, Uint8Array>();
    const snapshot = loaded === undefined ? undefined : decodeSnapshot(await joined(loaded.chunks), cells, digest);
    let index = loaded?.header.index ?? 0;
    for (const entry of recovered.entries) {
      if (entry.index <= index) continue;
      index = entry.index;
      for (const change of decodeChanges(entry.payload)) put(cells, change);
    }
    const store = new CellStore(log, cells, index, options);
    return { store, recovered: { cells: new Map(cells), snapshot } };
  }

  persist(sequence: number, changes: readonly CellChange[]): void {
    this.#index++;
    this.#unsynced.push({ sequence, index: this.#index, changes });
    const entry = { index: this.#index, term: 1, kind: "batch", stampMs: 0, payload: encodeChanges(changes) } as const;
    this.#log.persist(sequence, [{ kind: "put", entry }]);
  }

  /** One at a time; of those that come meanwhile the newest is saved. */
  saveSnapshot(snapshot: PbftSnapshot, onSaved: () => void): void {
    this.#next = { snapshot, onSaved };
    this.#startSaving();
  }

  #startSaving(): void {
    this.#saving ??= this.#saveAll().finally(() => {
      this.#saving = undefined;
    });
  }

  async close(): Promise<void> {
    this.#next = undefined;
    await this.#saving;
    await this.#log.close();
  }

  async #saveAll(): Promise<void> {
    try {
      for (;;) {
        const next = this.#next;
        if (next === undefined) return;
        // No entry became durable since the last one, for which a snapshot could stand: the next write comes back to it.
        if (this.#durableIndex <= (this.#log.snapshot?.index ?? 0)) return;
        this.#next = undefined;
        await this.#save(next.snapshot);
        next.onSaved();
      }
    } catch (error) {
      this.#onFailed(error as Error);
    }
  }

  async #save(snapshot: PbftSnapshot): Promise<void> {
    for (const cell of this.#cells.keys()) {
      const sequence = cellSequence(cell);
      if (sequence !== undefined && sequence <= snapshot.sequence) this.#cells.delete(cell);
    }
    const index = this.#durableIndex;
    const chunks = encodeSnapshot(snapshot, this.#cells);
    await this.#log.saveSnapshot({ index, term: 1, configuration, stampMs: 0, chunks });
  }

  #apply(sequence: number): void {
    let count = 0;
    for (const unsynced of this.#unsynced) {
      if (unsynced.sequence > sequence) break;
      for (const change of unsynced.changes) put(this.#cells, change);
      this.#durableIndex = unsynced.index;
      count++;
    }
    this.#unsynced = this.#unsynced.slice(count);
    if (this.#next !== undefined) this.#startSaving();
  }
}

function put(cells: Map<string, Uint8Array>, { cell, bytes }: CellChange): void {
  if (bytes === undefined) cells.delete(cell);
  else cells.set(cell, bytes);
}

/** Changes are encoded in one go, so one writer serves. */
const writer = new ByteWriter();

function encodeChanges(changes: readonly CellChange[]): Uint8Array {
  writer.reset();
  writer.varint(changes.length);
  for (const { cell, bytes } of changes) {
    writer.binaryString(cell);
    writer.u8(bytes === undefined ? 0 : 1);
    writer.bytes(bytes ?? new Uint8Array(0));
  }
  return writer.finish();
}

function decodeChanges(payload: Uint8Array): CellChange[] {
  const reader = new ByteReader(payload);
  const changes: CellChange[] = [];
  for (let left = reader.count(3); left > 0; left--) {
    const [cell, there, bytes] = [reader.binaryString(), reader.u8(), reader.bytesCopied()];
    changes.push({ cell, bytes: there === 1 ? bytes : undefined });
  }
  return changes;
}

/** The proof and the cells first, then the parts; cut into chunks, so that no write holds the thread for long. */
function encodeSnapshot(snapshot: PbftSnapshot, cells: ReadonlyMap<string, Uint8Array>): Uint8Array[] {
  const writer = new ByteWriter();
  const chunks: Uint8Array[] = [];
  const cut = (): void => {
    if (writer.length >= chunkBytes) chunks.push(writer.finish());
  };
  writer.varint(snapshot.sequence);
  writeSignedList(writer, snapshot.checkpoints);
  writer.varint(cells.size);
  for (const [cell, bytes] of cells) {
    writer.binaryString(cell);
    writer.bytes(bytes);
    cut();
  }
  writer.varint(snapshot.capture.parts.length);
  for (const { bytes } of snapshot.capture.parts) {
    writer.bytes(bytes);
    cut();
  }
  chunks.push(writer.finish());
  return chunks;
}

function decodeSnapshot(bytes: Uint8Array, cells: Map<string, Uint8Array>, digest: (bytes: Uint8Array) => string): PbftSnapshot {
  const reader = new ByteReader(bytes);
  const sequence = reader.varint();
  const checkpoints = readSignedList<Checkpoint>(reader, "checkpoint");
  for (let left = reader.count(2); left > 0; left--) cells.set(reader.binaryString(), reader.bytesCopied());
  const parts: CapturedPart[] = [];
  for (let left = reader.count(); left > 0; left--) {
    const part = reader.bytesCopied();
    parts.push({ digest: digest(part), bytes: part });
  }
  const root = rootOf(parts, digest);
  // The checkpoint's own proof judges the file: a disk that lies is found out before the replica speaks.
  if (checkpoints[0]?.statement.digest !== root) {
    throw conclaveError("SNAPSHOT_CORRUPT", `The snapshot of sequence ${sequence} is not the state that its proof names.`);
  }
  return { sequence, checkpoints, capture: { root, parts } };
}

async function joined(chunks: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const list: Uint8Array[] = [];
  for await (const chunk of chunks) list.push(chunk.slice());
  return Buffer.concat(list);
}
