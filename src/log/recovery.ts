/**
 * Reads the segments of a directory back into meta, entries and the place where writing goes on.
 *
 * Intuition: a diary in numbered lines, written in bursts; a burst counts once its last line is dry. Each line also says
 * "everything up to line k was dry when I was written". If line n cannot be read, look at what follows it:
 *
 *   burst (one write)  |<--- acknowledged --->|<-- in flight -->|
 *   number               4     5     6     7    8     9    10
 *   synced up to         3     3     5     5    7     7     7
 *                                    ^                ^
 *                                    |                '- 9 is unreadable: nobody behind it vouches for it (10 says 7).
 *                                    |                   The power went during the write: TORN. Keep up to 8, wipe the rest.
 *                                    '- 6 is unreadable: 8 vouches for it (7 >= 6). It was durable and is not any more:
 *                                       CORRUPT. The member may have voted or acknowledged by it, so it must stop.
 *
 * One write may reach the disk in any part, so a hole followed by valid records is still torn as long as none of them was
 * written after the hole was known durable. That is exactly what `synced up to` says. The last write of all has nobody
 * behind it: damage there, while the member was down, looks like a torn tail. `Log.close` therefore ends with an empty
 * record, and `Log.open` starts with one, so only the last write before a crash is ever without a witness.
 *
 * Assumes that the disk writes a sector wholly or not at all. Pure: no I/O but the `Disk` port.
 */
import { assert, unreachable } from "../base/assert.ts";
import { conclaveError } from "../base/errors.ts";
import type { Checksum, Disk, DiskFile } from "../base/ports.ts";
import type { Index, LogEntry, Term } from "../consensus/core.ts";
import { newerFormat } from "./identity.ts";
import {
  type DecodedRecord,
  decodeOperations,
  decodeRecord,
  formatVersion,
  type RecordOwner,
  recordAlignmentBytes,
  recordBytesMax,
  type StoredOperation,
} from "./record.ts";

/**
 * `contiguous`: a put over a slot of another term drops every later slot (Raft, Zab), and a gap is corruption.
 * `sparse`: a put sets its slot and nothing else, and slots may be missing (Multi-Paxos, PBFT).
 */
export type Slots = "contiguous" | "sparse";

/** What is known of a segment without opening it. */
export interface SegmentSummary {
  readonly sequence: number;
  /** The greatest index that a put in it ever had: once a snapshot covers it, the segment may go. */
  readonly lastIndex: Index;
}

export interface RecoveredSegments {
  readonly segments: readonly SegmentSummary[];
  /** The last segment, open; writing goes on at `offset` with record `nextNumber`. */
  readonly tail: { readonly file: DiskFile; readonly sequence: number; readonly offset: number };
  readonly nextNumber: number;
  readonly repairedBytes: number;
}

const wipeBytes = 262_144;

export function segmentName(sequence: number): string {
  return `segment-${String(sequence).padStart(10, "0")}.log`;
}

export function segmentSequence(name: string): number | undefined {
  const match = /^segment-(\d{10})\.log$/.exec(name);
  return match === null ? undefined : Number(match[1]);
}

/** Replays every segment, decides torn or corrupt at the first unreadable record, and repairs a torn tail durably. */
export async function recoverSegments(options: {
  readonly disk: Disk;
  readonly sequences: readonly number[];
  readonly owner: RecordOwner;
  readonly checksum: Checksum;
  readonly replay: Replay;
}): Promise<RecoveredSegments> {
  const { disk, replay } = options;
  const sequences = [...options.sequences].sort((left, right) => left - right);
  const read = segmentReader(disk);
  const expect: Expect = (segment) => ({ ...options.owner, segment, checksum: options.checksum });
  const segments: SegmentSummary[] = [];
  let nextNumber: number | undefined;

  for (const [position, sequence] of sequences.entries()) {
    const bytes = await read(sequence);
    const end = replaySegment({ bytes, expected: expect(sequence), nextNumber, replay });
    // A segment starts in a write of its own, after the one before it was acknowledged and before that one may be
    // dropped: the oldest segment therefore always has a durable first record.
    if (end.nextNumber === undefined) throw corruptRecord(sequence, 0, "the oldest segment has no first record");
    nextNumber = end.nextNumber;
    segments.push({ sequence, lastIndex: end.lastIndex });

    const later = sequences.slice(position + 1);
    // The next file starts with exactly the next record: then this segment's end was its real end.
    if (later[0] === sequence + 1) {
      const first = decodeRecord(await read(sequence + 1), 0, expect(sequence + 1));
      if (first?.number === nextNumber) continue;
    }
    await refuseCorruption({ read, expect, bytes, offset: end.offset, sequence, later, number: nextNumber });
    for (const left of later.reverse()) await disk.remove(segmentName(left));
    const file = await disk.open(segmentName(sequence));
    const repairedBytes = await wipe(file, bytes, end.offset);
    // What was read may never have been synced (the process was killed, the page cache survived): it is handed to the
    // core as durable, so it becomes so now.
    await file.sync();
    return { segments, tail: { file, sequence, offset: end.offset }, nextNumber, repairedBytes };
  }
  throw conclaveError("LOG_CORRUPT", `No segment is left; "${segmentName(1)}" or a later one is missing (offset 0).`);
}

type ExpectedRecord = RecordOwner & { readonly segment: number; readonly checksum: Checksum };
type Expect = (segment: number) => ExpectedRecord;
type SegmentReader = (sequence: number) => Promise<Uint8Array>;

/** Keeps the last segment that was read: the successor is looked at twice. */
function segmentReader(disk: Disk): SegmentReader {
  let kept: { readonly sequence: number; readonly bytes: Uint8Array } | undefined;
  return async (sequence) => {
    if (kept?.sequence === sequence) return kept.bytes;
    const file = await disk.open(segmentName(sequence));
    try {
      const bytes = await file.read(0, await file.sizeBytes());
      kept = { sequence, bytes };
      return bytes;
    } finally {
      await file.close();
    }
  };
}

/** Applies records until the first that is not the next one. */
function replaySegment(options: {
  readonly bytes: Uint8Array;
  readonly expected: ExpectedRecord;
  readonly nextNumber: number | undefined;
  readonly replay: Replay;
}): { readonly offset: number; readonly nextNumber: number | undefined; readonly lastIndex: Index } {
  const { bytes, expected, replay } = options;
  let { nextNumber } = options;
  let offset = 0;
  let lastIndex = 0;
  for (;;) {
    const record = decodeRecord(bytes, offset, expected);
    if (record === undefined || (nextNumber !== undefined && record.number !== nextNumber)) break;
    checkVersion(record, expected.segment);
    assert(record.syncedUpTo < record.number, "a record is written before it is synced");
    for (const operation of decodeOperations(bytes, record)) {
      replay.apply(operation);
      if (operation.kind === "put") lastIndex = Math.max(lastIndex, operation.entry.index);
    }
    nextNumber = record.number + 1;
    offset = record.nextOffset;
  }
  return { offset, nextNumber, lastIndex };
}

function checkVersion(record: DecodedRecord, segment: number): void {
  if (record.version > formatVersion) throw newerFormat(segmentName(segment), record.version);
}

/** Looks for a record behind the unreadable one that vouches for it. */
async function refuseCorruption(options: {
  readonly read: SegmentReader;
  readonly expect: Expect;
  readonly bytes: Uint8Array;
  readonly offset: number;
  readonly sequence: number;
  readonly later: readonly number[];
  readonly number: number;
}): Promise<void> {
  const { read, expect, bytes, offset, sequence, later, number } = options;
  const here = findWitness(bytes, offset, number, expect(sequence));
  if (here !== undefined) throw corruptRecord(sequence, offset, vouched(number, here.record, sequence, here.offset));
  for (const next of later) {
    const witness = findWitness(await read(next), 0, number, expect(next));
    if (witness === undefined) continue;
    const why = vouched(number, witness.record, next, witness.offset);
    if (later[0] !== sequence + 1) throw corruptRecord(sequence + 1, 0, `the file is missing, and ${why}`);
    // Nothing but zeros here: this segment ended in order, and the damage is at the start of the next one.
    const endedInOrder = lastUsedByte(bytes, offset) === offset;
    throw endedInOrder ? corruptRecord(sequence + 1, 0, why) : corruptRecord(sequence, offset, why);
  }
}

/** A later record whose writer knew that record `number` was durable. */
function findWitness(
  bytes: Uint8Array,
  from: number,
  number: number,
  expected: ExpectedRecord,
): { readonly record: DecodedRecord; readonly offset: number } | undefined {
  for (let offset = from; offset < bytes.length; offset += recordAlignmentBytes) {
    // Most of a preallocated tail is zeros: look closer only where a record may start.
    if (bytes[offset + 4] === 0) continue;
    const record = decodeRecord(bytes, offset, expected);
    if (record !== undefined && record.syncedUpTo >= number) return { record, offset };
  }
  return undefined;
}

function vouched(number: number, witness: DecodedRecord, segment: number, offset: number): string {
  return `record ${number} was durable when record ${witness.number} ("${segmentName(segment)}", offset ${offset}) was written`;
}

function corruptRecord(segment: number, offset: number, why: string): Error {
  return conclaveError("LOG_CORRUPT", `The log is damaged in "${segmentName(segment)}" at offset ${offset}: ${why}.`);
}

/** Zeros from the offset to the last used byte, durably: a left-over record must never line up behind a new one. */
async function wipe(file: DiskFile, bytes: Uint8Array, from: number): Promise<number> {
  const end = lastUsedByte(bytes, from);
  const zeros = new Uint8Array(Math.min(wipeBytes, end - from));
  for (let at = from; at < end; at += zeros.length) {
    await file.write(at, [zeros.subarray(0, Math.min(zeros.length, end - at))], { durable: true });
  }
  return end - from;
}

/** The end of what is not zero, `from` when everything behind it is. */
function lastUsedByte(bytes: Uint8Array, from: number): number {
  let end = bytes.length;
  while (end > from && bytes[end - 1] === 0) end--;
  return Math.max(end, from);
}

/** What the operations so far add up to. */
export class Replay {
  readonly meta = new Map<string, string>();
  readonly #slots: Slots;
  readonly #snapshot: { readonly index: Index; readonly term: Term };
  readonly #entries = new Map<Index, LogEntry>();
  /** Upper bound of the keys of #entries. */
  #lastIndex: Index = 0;
  /** The log knows that this snapshot took the place of its entries; see `finish`. */
  #snapshotNoted = false;
  #conflict = false;

  constructor(slots: Slots, snapshot: { readonly index: Index; readonly term: Term } | undefined) {
    this.#slots = slots;
    this.#snapshot = snapshot ?? { index: 0, term: 0 };
  }

  apply(operation: StoredOperation): void {
    switch (operation.kind) {
      case "put":
        this.#put(operation.entry);
        return;
      case "truncate":
        this.#dropFrom(operation.from);
        return;
      case "meta":
        for (const [key, value] of Object.entries(operation.values)) this.meta.set(key, value);
        return;
      case "snapshot":
        if (operation.index === this.#snapshot.index) this.#snapshotNoted = true;
        return;
      default:
        unreachable(operation);
    }
  }

  /** True when the entries gave way to the snapshot; known after `finish`. The log has yet to note it. */
  get conflict(): boolean {
    return this.#conflict;
  }

  /** The entries above the snapshot, in order. */
  finish(): readonly LogEntry[] {
    // The snapshot was installed and the power went before the log could note it.
    if (!this.#snapshotNoted) this.#install(this.#snapshot.index, this.#snapshot.term);
    const entries = [...this.#entries.values()]
      .filter((entry) => entry.index > this.#snapshot.index)
      .sort((left, right) => left.index - right.index);
    if (this.#slots === "contiguous") refuseGap(entries, this.#snapshot.index);
    return entries;
  }

  /** About what the entries above the snapshot take in the log. */
  entriesBytes(): number {
    let bytes = 0;
    for (const entry of this.#entries.values()) {
      if (entry.index > this.#snapshot.index) bytes += recordBytesMax([{ kind: "put", entry }]);
    }
    return bytes;
  }

  #put(entry: LogEntry): void {
    // Raft §5.3: an entry of another term at a slot means that everything behind it is another leader's too.
    if (this.#slots === "contiguous" && entry.index <= this.#lastIndex) {
      if (this.#entries.get(entry.index)?.term !== entry.term) this.#dropFrom(entry.index + 1);
    }
    this.#entries.set(entry.index, entry);
    this.#lastIndex = Math.max(this.#lastIndex, entry.index);
  }

  /**
   * Raft §7, Fig. 13 steps 6-7: an entry of the same index and term as the snapshot's last one keeps what follows it,
   * another one means that all of it is another leader's. Only for a snapshot that the log does not know yet: its note
   * says what became of the entries, at its place among the records, and entries put after it are its own history.
   */
  #install(index: Index, term: Term): void {
    const entry = this.#entries.get(index);
    if (this.#slots === "sparse" || entry === undefined || entry.term === term) return;
    this.#conflict = true;
    this.#dropFrom(index);
  }

  #dropFrom(index: Index): void {
    if (this.#lastIndex - index < this.#entries.size) {
      for (let at = index; at <= this.#lastIndex; at++) this.#entries.delete(at);
    } else {
      for (const at of this.#entries.keys()) if (at >= index) this.#entries.delete(at);
    }
    this.#lastIndex = Math.min(this.#lastIndex, index - 1);
  }
}

/** A missing entry was acknowledged once: to go on without it would be to forget it. */
function refuseGap(entries: readonly LogEntry[], snapshotIndex: Index): void {
  let expected = snapshotIndex + 1;
  for (const entry of entries) {
    if (entry.index !== expected) {
      const why = `entries ${expected} to ${entry.index - 1} are missing behind the snapshot at ${snapshotIndex}`;
      throw conclaveError("LOG_CORRUPT", `The log is damaged: ${why}; an older segment or a snapshot was removed (offset 0).`);
    }
    expected++;
  }
}
