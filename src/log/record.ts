/**
 * One record: the operations of one `persist`, in a frame that can prove who wrote it and what stood before it.
 *
 *  0         4         8         12        16            20         24        32           40
 *  +---------+---------+---------+---------+-------------+----------+---------+------------+--------- - -+-----+
 *  | check-  | marker, | body    | group   | incarnation | segment  | number  | synced     | body        | pad |
 *  | sum u32 | version | bytes   | u32     | u32         | u32      | f64     | up to, f64 | operations  | to 8|
 *  +---------+---------+---------+---------+-------------+----------+---------+------------+--------- - -+-----+
 *            '------------------------- covered by the checksum ------------------------------------'
 *
 * `number` is dense over the whole log, so a left-over record of an older tail is never the next one. `incarnation` was
 * drawn when the directory was formatted and `segment` is the file's own number, so a record of another directory or of
 * another file is none at all. `synced up to` is what recovery tells torn from corrupt by: see `recovery.ts`.
 *
 * Operations: a tag byte, then fields as varints; stamps are f64 because elapsed time has fractions.
 * Payloads up to `copiedBytesMax` are copied once, into the buffer of the batch; longer ones are handed to the disk as
 * they are, so a payload must not change after it was given to the log.
 */
import { assert, unreachable } from "../base/assert.ts";
import { ByteReader, ByteWriter } from "../base/byte-codec.ts";
import type { Checksum } from "../base/ports.ts";
import type { EntryKind, Index, LogEntry, LogOperation, Term } from "../consensus/core.ts";

/** Version of the records, the snapshot files and the identity file. */
export const formatVersion = 1;
export const recordHeaderBytes = 40;
export const recordAlignmentBytes = 8;

/** "CLR" and the version in the last byte. */
const marker = 0x52_4c_43 | (formatVersion << 24);
const markerMask = 0x00_ff_ff_ff;
const copiedBytesMax = 8192;

/** What a record may hold: the core's operations, and the log's own note that a received snapshot took its place. */
export type StoredOperation =
  | LogOperation
  /** The snapshot is there. A `truncate` in the same record drops entries that contradict it; see `Replay.finish`. */
  | { readonly kind: "snapshot"; readonly index: Index; readonly term: Term };

/** Whose records these are. */
export interface RecordOwner {
  readonly group: number;
  readonly incarnation: number;
}

export interface DecodedRecord {
  readonly number: number;
  readonly syncedUpTo: number;
  readonly bodyOffset: number;
  readonly bodyBytes: number;
  /** Where the next record starts. */
  readonly nextOffset: number;
  readonly version: number;
}

const tags = { noop: 1, batch: 2, configuration: 3, truncate: 4, meta: 5, snapshot: 6 } as const;
const kindOfTag: readonly (EntryKind | undefined)[] = [undefined, "noop", "batch", "configuration"];
/** Added to the tag of an entry that keeps its ballot, which then follows the term (Multi-Paxos). */
const withBallot = 16;

/** At least what the record will take in the file, cheap to compute. */
export function recordBytesMax(operations: readonly StoredOperation[]): number {
  let bytes = recordHeaderBytes + recordAlignmentBytes;
  for (const operation of operations) bytes += operationBytesMax(operation);
  return bytes;
}

function operationBytesMax(operation: StoredOperation): number {
  switch (operation.kind) {
    case "put":
      return (operation.entry.ballot === undefined ? 33 : 41) + operation.entry.payload.length;
    case "truncate":
      return 9;
    case "snapshot":
      return 17;
    case "meta": {
      let bytes = 9;
      // UTF-8 takes up to three bytes for each unit of a string.
      for (const [key, value] of Object.entries(operation.values)) bytes += 16 + 3 * (key.length + value.length);
      return bytes;
    }
    default:
      return unreachable(operation);
  }
}

/** Records of one write, joined: few buffers, one checksum call for a record without long payloads. Reused. */
export class RecordBatch {
  readonly #owner: RecordOwner;
  readonly #checksum: Checksum;
  readonly #writer: ByteWriter;
  /** Where long payloads come between the written bytes. */
  readonly #cuts: { readonly at: number; readonly payload: Uint8Array }[] = [];
  #longBytes = 0;
  #records = 0;

  constructor(owner: RecordOwner, options: { readonly checksum: Checksum; readonly retainedBytesMax: number }) {
    this.#owner = owner;
    this.#checksum = options.checksum;
    this.#writer = new ByteWriter({ initialBytes: 65_536, retainedBytesMax: options.retainedBytesMax });
  }

  get lengthBytes(): number {
    return this.#writer.length + this.#longBytes;
  }

  get records(): number {
    return this.#records;
  }

  clear(): void {
    this.#writer.reset();
    this.#cuts.length = 0;
    this.#longBytes = 0;
    this.#records = 0;
  }

  append(
    place: { readonly segment: number; readonly number: number; readonly syncedUpTo: number },
    operations: readonly StoredOperation[],
  ): void {
    const writer = this.#writer;
    const start = writer.length;
    const firstCut = this.#cuts.length;
    const longBefore = this.#longBytes;
    writer.u32(0); // The checksum, known at the end.
    writer.u32(marker);
    writer.u32(0); // The length of the body, known at the end.
    writer.u32(this.#owner.group);
    writer.u32(this.#owner.incarnation);
    writer.u32(place.segment);
    writer.f64(place.number);
    writer.f64(place.syncedUpTo);
    for (const operation of operations) this.#operation(operation);
    const bodyBytes = writer.length - start - recordHeaderBytes + this.#longBytes - longBefore;
    writer.patchU32(start + 8, bodyBytes);
    writer.patchU32(start, this.#checksumOf(start + 4, firstCut));
    for (let pad = -this.lengthBytes & (recordAlignmentBytes - 1); pad > 0; pad--) writer.u8(0);
    this.#records++;
  }

  /** Valid until the next `clear`. */
  buffers(): Uint8Array[] {
    const written = this.#writer.view();
    const buffers: Uint8Array[] = [];
    let from = 0;
    for (const cut of this.#cuts) {
      buffers.push(written.subarray(from, cut.at), cut.payload);
      from = cut.at;
    }
    buffers.push(written.subarray(from));
    return buffers.filter((buffer) => buffer.length > 0);
  }

  #operation(operation: StoredOperation): void {
    const writer = this.#writer;
    switch (operation.kind) {
      case "put":
        this.#put(operation.entry);
        return;
      case "truncate":
        writer.u8(tags.truncate);
        writer.varint(operation.from);
        return;
      case "snapshot":
        writer.u8(tags.snapshot);
        writer.varint(operation.index);
        writer.varint(operation.term);
        return;
      case "meta": {
        const values = Object.entries(operation.values);
        writer.u8(tags.meta);
        writer.varint(values.length);
        for (const [key, value] of values) {
          writer.utf8(key);
          writer.utf8(value);
        }
        return;
      }
      default:
        unreachable(operation);
    }
  }

  #put({ index, term, kind, stampMs, payload, ballot }: LogEntry): void {
    const writer = this.#writer;
    writer.u8(ballot === undefined ? tags[kind] : tags[kind] + withBallot);
    writer.varint(index);
    writer.varint(term);
    if (ballot !== undefined) writer.varint(ballot);
    writer.f64(stampMs);
    writer.varint(payload.length);
    if (payload.length <= copiedBytesMax) {
      writer.raw(payload);
      return;
    }
    this.#cuts.push({ at: writer.length, payload });
    this.#longBytes += payload.length;
  }

  #checksumOf(from: number, firstCut: number): number {
    const written = this.#writer.view();
    let sum = 0;
    for (let index = firstCut; index < this.#cuts.length; index++) {
      const cut = this.#cuts[index] as { at: number; payload: Uint8Array };
      // Two long payloads have a tag between them, so no part is empty: zlib.crc32 forgets the seed on an empty one.
      sum = this.#checksum(cut.payload, this.#checksum(written.subarray(from, cut.at), sum));
      from = cut.at;
    }
    return from === written.length ? sum : this.#checksum(written.subarray(from), sum);
  }
}

/**
 * The record at the offset, or undefined when what stands there was not written, wholly, by this owner for this segment.
 * Takes nothing on trust: the length is checked before it is used.
 */
export function decodeRecord(
  bytes: Uint8Array,
  offset: number,
  expected: RecordOwner & { readonly segment: number; readonly checksum: Checksum },
): DecodedRecord | undefined {
  if (offset + recordHeaderBytes > bytes.length) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset, recordHeaderBytes);
  const mark = view.getUint32(4, true);
  if ((mark & markerMask) !== (marker & markerMask)) return undefined;
  const bodyBytes = view.getUint32(8, true);
  const end = offset + recordHeaderBytes + bodyBytes;
  if (end > bytes.length) return undefined;
  if (view.getUint32(12, true) !== expected.group || view.getUint32(16, true) !== expected.incarnation) return undefined;
  if (view.getUint32(20, true) !== expected.segment) return undefined;
  if (expected.checksum(bytes.subarray(offset + 4, end)) !== view.getUint32(0, true)) return undefined;
  return {
    number: view.getFloat64(24, true),
    syncedUpTo: view.getFloat64(32, true),
    bodyOffset: offset + recordHeaderBytes,
    bodyBytes,
    nextOffset: end + (-end & (recordAlignmentBytes - 1)),
    version: mark >>> 24,
  };
}

/** The operations of a valid record. Payloads are copies, so that one entry does not keep a whole segment in memory. */
export function decodeOperations(bytes: Uint8Array, record: DecodedRecord): StoredOperation[] {
  const reader = new ByteReader(bytes, record.bodyOffset, record.bodyOffset + record.bodyBytes);
  const operations: StoredOperation[] = [];
  while (reader.remaining > 0) operations.push(decodeOperation(reader));
  return operations;
}

function decodeOperation(reader: ByteReader): StoredOperation {
  const tag = reader.u8();
  switch (tag) {
    case tags.truncate:
      return { kind: "truncate", from: reader.varint() };
    case tags.snapshot:
      return { kind: "snapshot", index: reader.varint(), term: reader.varint() };
    case tags.meta: {
      // No prototype: a cell may be called "__proto__".
      const values = Object.create(null) as Record<string, string>;
      for (let count = reader.count(2); count > 0; count--) {
        const key = reader.utf8();
        values[key] = reader.utf8();
      }
      return { kind: "meta", values };
    }
    default: {
      const keepsBallot = tag > withBallot;
      const kind = kindOfTag[keepsBallot ? tag - withBallot : tag];
      assert(kind !== undefined, `a record with a valid checksum holds known operations, not tag ${tag}`);
      const index = reader.varint();
      const term = reader.varint();
      const ballot = keepsBallot ? { ballot: reader.varint() } : undefined;
      const stampMs = reader.f64();
      return { kind: "put", entry: { index, term, kind, stampMs, payload: reader.bytesCopied(), ...ballot } };
    }
  }
}
