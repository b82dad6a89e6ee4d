/**
 * The log of one member: what it persisted, in order, whole, or a refusal to start.
 *
 * Intuition: a notary with one pen. Whoever comes while the pen is writing waits on the bench; when it is free, everybody
 * on the bench is written down in one go. So the price of a sync is shared, and one visitor alone never waits for others.
 *
 *   persist 1        persist 2,3,4          persist 5
 *      |                 |||                   |
 *      '- write+sync 1 --''- write+sync 2,3,4 -''- write+sync 5 -
 *                     '- onDurable(1)          '- onDurable(4)
 *
 * Promises, after a crash at any moment: everything that `onDurable` named is there, and what is there is a prefix of what
 * was persisted (a record is taken whole or not at all). See `recovery.ts` for torn and corrupt, `record.ts` for the
 * bytes, `snapshots.ts` for snapshots. The first failed write is the last: `onFailed` once, then silence. A failed sync is
 * never repeated, because the kernel may have dropped the dirty pages and report success the second time.
 * Leaves out: several groups on one log (records and snapshots carry the group's number for it), encryption.
 */
import { assert } from "../base/assert.ts";
import { ConclaveError, conclaveError, hasCode } from "../base/errors.ts";
import type { Index, LogOperation, PersistSequence, Recovered } from "../consensus/core.ts";
import { guardDisk } from "./guarded-disk.ts";
import { type Identity, writeIdentity } from "./identity.ts";
import { type LogLimits, type LogListener, type LogOptions, logDefaults, validateLogOptions } from "./log-options.ts";
import { openIdentity } from "./open-identity.ts";
import { RecordBatch, recordBytesMax, type StoredOperation } from "./record.ts";
import { Replay, recoverSegments, segmentSequence } from "./recovery.ts";
import { Segments } from "./segments.ts";
import type { SnapshotContent, SnapshotInfo } from "./snapshot-file.ts";
import { type ReceivedPiece, type SnapshotPart, type SnapshotPiece, Snapshots } from "./snapshots.ts";
import { TermRuns } from "./term-runs.ts";

export type { LogLimits, LogListener, LogOptions } from "./log-options.ts";

/** Why an item waits for the pen. */
interface Waiting {
  readonly operations: readonly StoredOperation[];
  readonly bytesMax: number;
  /** Absent for the log's own records. */
  readonly sequence?: PersistSequence;
  readonly resolve?: () => void;
  readonly reject?: (error: ConclaveError) => void;
}

type LogState =
  | { readonly kind: "open" }
  | { readonly kind: "closed" }
  | { readonly kind: "failed"; readonly error: ConclaveError };

/** What `open` knows before it looks at the segments. */
interface Found {
  readonly limits: LogLimits;
  readonly identity: Identity;
  readonly snapshots: Snapshots;
  readonly names: readonly string[];
}

interface LogParts extends Found {
  readonly segments: Segments;
  readonly meta: Map<string, string>;
  readonly nextNumber: number;
  readonly bytesSinceSnapshot: number;
}

export class Log {
  readonly #options: LogOptions;
  readonly #limits: LogLimits;
  readonly #identity: Identity;
  readonly #segments: Segments;
  readonly #snapshots: Snapshots;
  readonly #batch: RecordBatch;
  /** Current values as of the last encoded record. */
  readonly #meta: Map<string, string>;
  /** As of the last queued record. Not kept for sparse slots, where entries do not follow from one another. */
  readonly #terms = new TermRuns();
  #listener: LogListener | undefined;
  #state: LogState = { kind: "open" };
  #closing: Promise<void> | undefined;

  #queue: Waiting[] = [];
  #queuedBytes = 0;
  #inFlight: readonly Waiting[] = [];
  /** Snapshots that are saved or received now. */
  readonly #work = new Set<Promise<unknown>>();
  #saving = false;
  #cleaning: Promise<void> = Promise.resolve();
  #pumping: Promise<void> | undefined;
  #nextNumber: number;
  /** Invariant: every record up to it is on disk. Moves only when a write was acknowledged. */
  #syncedNumber: number;
  #lastSequence: PersistSequence = 0;
  #bytesSinceSnapshot: number;
  /**
   * Segments up to this index may go. Trails the newest snapshot while a received one is not yet noted, or what was persisted
   * before one of its own is under way: until then the segments still tell whether the entry at its index contradicts it.
   */
  #coveredIndex: Index;

  private constructor(options: LogOptions, parts: LogParts) {
    this.#options = options;
    this.#limits = parts.limits;
    this.#identity = parts.identity;
    this.#segments = parts.segments;
    this.#snapshots = parts.snapshots;
    this.#meta = parts.meta;
    this.#nextNumber = parts.nextNumber;
    this.#syncedNumber = parts.nextNumber - 1;
    this.#bytesSinceSnapshot = parts.bytesSinceSnapshot;
    this.#coveredIndex = parts.snapshots.newest?.index ?? 0;
    const retainedBytesMax = 2 * parts.limits.batchBytes;
    this.#batch = new RecordBatch(parts.identity, { checksum: options.checksum, retainedBytesMax });
    // A full disk cannot make the spare yet; anything else says that the disk is failing.
    parts.segments.onSpareFailure = (error) => {
      if (!hasCode(error, "DISK_FULL")) this.#fail(error);
    };
  }

  /**
   * Formats an empty directory, or recovers one. Everything in `recovered` is durable.
   * @throws DIRECTORY_FOREIGN, DIRECTORY_OTHER_PROTOCOL, DIRECTORY_NEWER, LOG_CORRUPT, SNAPSHOT_CORRUPT, DISK_FULL, DISK_FAILED
   */
  static async open(options: LogOptions): Promise<{ readonly log: Log; readonly recovered: Recovered }> {
    const limits = { ...logDefaults, ...options.limits };
    validateLogOptions(options, limits);
    const { checksum } = options;
    const disk = guardDisk(options.disk);
    const names = await disk.list();
    const identity = await openIdentity({ ...options, disk }, names);
    const snapshots = await Snapshots.open({ disk, group: identity.group, checksum }, names);
    const open = identity.formatted ? Log.#recover : Log.#format;
    return open({ ...options, disk }, { limits, identity, snapshots, names });
  }

  static async #format(options: LogOptions, found: Found): Promise<{ log: Log; recovered: Recovered }> {
    const { disk, checksum } = options;
    const segments = await Segments.format({ disk, segmentBytes: found.limits.segmentBytes });
    const log = new Log(options, { ...found, segments, meta: new Map(), nextNumber: 1, bytesSinceSnapshot: 0 });
    await log.#note([]);
    await writeIdentity(disk, { ...found.identity, formatted: true }, checksum);
    return { log, recovered: { meta: new Map(), entries: [] } };
  }

  static async #recover(options: LogOptions, found: Found): Promise<{ log: Log; recovered: Recovered }> {
    const { disk, checksum, member } = options;
    const snapshot = found.snapshots.newest;
    const replay = new Replay(options.slots ?? "contiguous", snapshot);
    const sequences = found.names.flatMap((name) => segmentSequence(name) ?? []);
    const owner = found.identity;
    const { nextNumber, repairedBytes, ...place } = await recoverSegments({ disk, sequences, owner, checksum, replay });
    const entries = replay.finish();
    const segments = await Segments.resume({ disk, segmentBytes: found.limits.segmentBytes }, place);
    const recovered = { meta: new Map(replay.meta), entries, ...(snapshot === undefined ? {} : { snapshot }) };
    const bytesSinceSnapshot = replay.entriesBytes();
    const log = new Log(options, { ...found, segments, meta: replay.meta, nextNumber, bytesSinceSnapshot });
    for (const entry of entries) log.#terms.put(entry.index, entry.term);
    // The first record of this run vouches for everything that was recovered, and shows that the disk takes writes.
    await log.#note(snapshot === undefined ? [] : snapshotNote(snapshot, { conflict: replay.conflict }));
    await log.#clean();
    options.telemetry?.emit({
      kind: "log.recovered",
      member,
      firstIndex: entries[0]?.index ?? 0,
      lastIndex: entries.at(-1)?.index ?? snapshot?.index ?? 0,
      repairedBytes,
    });
    return { log, recovered };
  }

  /** Drawn when the directory was formatted: a wiped directory has another one. */
  get incarnation(): number {
    return this.#identity.incarnation;
  }

  /** Bytes that wait for a write; a host bounds its intake by it. */
  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /** Log bytes that a new snapshot would let go of, about. */
  get bytesSinceSnapshot(): number {
    return this.#bytesSinceSnapshot;
  }

  /** The newest durable snapshot. */
  get snapshot(): SnapshotInfo | undefined {
    return this.#snapshots.newest;
  }

  /** Who is told. Set it before the first `persist`. */
  listen(listener: LogListener): void {
    this.#listener = listener;
  }

  /** Queues one atomic record. Ignored after a failure or `close`: the listener was told, and nothing is acknowledged. */
  persist(sequence: PersistSequence, operations: readonly LogOperation[]): void {
    assert(sequence > this.#lastSequence, "persists come in the order of their sequence");
    this.#lastSequence = sequence;
    if (this.#state.kind !== "open" || this.#closing !== undefined) return;
    for (const operation of this.#options.slots === "sparse" ? [] : operations) {
      if (operation.kind === "put") this.#terms.put(operation.entry.index, operation.entry.term);
      else if (operation.kind === "truncate") this.#terms.truncate(operation.from);
    }
    this.#enqueue({ operations, sequence, bytesMax: recordBytesMax(operations) });
  }

  /**
   * Writes a snapshot aside, one chunk after another, and puts it in the place of what it covers: older snapshots, and the
   * segments without an entry above it. Resolves with the newest snapshot once it is durable. One at a time.
   * @throws DISK_FULL, DISK_FAILED (the log itself goes on)
   */
  async saveSnapshot(content: SnapshotContent): Promise<SnapshotInfo> {
    assert(content.index > 0, "a snapshot covers at least one entry");
    assert(!this.#saving, "one snapshot is saved at a time");
    this.#refuseUnlessOpen();
    this.#saving = true;
    try {
      return await this.#track(this.#save(content));
    } finally {
      this.#saving = false;
    }
  }

  /** Bytes of the newest snapshot's file, header and checksums included, for a follower. Undefined without a snapshot. */
  readSnapshot(offset: number, lengthBytes: number): Promise<SnapshotPart | undefined> {
    return this.#snapshots.read(offset, lengthBytes);
  }

  /**
   * Takes a piece of another member's snapshot file, in order. With `done` the file is checked from end to end and, in one
   * rename, becomes the newest snapshot. Entries up to its index count as replaced from then on; where the log's own entry
   * at the index has another term, everything behind it does too (Raft §7). Damage is an answer, a failing disk an error.
   * @throws DISK_FULL, DISK_FAILED
   */
  async receiveSnapshot(piece: SnapshotPiece): Promise<ReceivedPiece> {
    this.#refuseUnlessOpen();
    return this.#track(this.#receive(piece));
  }

  /**
   * The newest snapshot for the machine: its header and its chunks as they were saved, each checked before it is handed out.
   * @throws SNAPSHOT_CORRUPT while the chunks are read
   */
  loadSnapshot(): { readonly header: SnapshotInfo; readonly chunks: AsyncIterable<Uint8Array> } | undefined {
    return this.#snapshots.load();
  }

  /** Writes what waits, then an empty record that vouches for all before it, and closes the files. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    // Snapshots that are under way still rename and remove: whoever opens the directory next must not meet them.
    await Promise.allSettled(this.#work);
    // A failure was reported to the listener; closing goes on.
    await this.#note([]).catch(() => undefined);
    await this.#pumping;
    if (this.#state.kind === "open") this.#state = { kind: "closed" };
    await this.#snapshots.close();
    await this.#segments.close();
  }

  async #save(content: SnapshotContent): Promise<SnapshotInfo> {
    const bytesBefore = this.#bytesSinceSnapshot;
    let saved: SnapshotInfo;
    try {
      saved = await this.#snapshots.save(content);
    } catch (error) {
      await this.#snapshots.discardSaving();
      throw error;
    }
    this.#bytesSinceSnapshot = Math.max(0, this.#bytesSinceSnapshot - bytesBefore);
    // A follower hands out what is committed before its own disk has it, so the rename may have overtaken the truncation of
    // another leader's entries. Until that is durable, the entry at the index shows that what stands behind it is overruled.
    if (this.#pumping !== undefined) await this.#note([]);
    this.#coveredIndex = Math.max(this.#coveredIndex, content.index);
    this.#terms.forgetBelow(this.#coveredIndex);
    await this.#clean();
    const { member, telemetry } = this.#options;
    telemetry?.emit({ kind: "snapshot.built", member, index: saved.index, bytes: saved.lengthBytes });
    return saved;
  }

  async #receive(piece: SnapshotPiece): Promise<ReceivedPiece> {
    const received = await this.#snapshots.receive(piece);
    if (received.kind !== "installed" || !received.renamed) return received;
    const { snapshot } = received;
    const present = this.#terms.termAt(snapshot.index);
    const conflict = this.#options.slots !== "sparse" && present !== undefined && present !== snapshot.term;
    if (conflict) this.#terms.truncate(snapshot.index);
    await this.#note(snapshotNote(snapshot, { conflict }));
    this.#bytesSinceSnapshot = 0;
    this.#coveredIndex = snapshot.index;
    this.#terms.forgetBelow(snapshot.index);
    await this.#clean();
    return received;
  }

  async #track<T>(work: Promise<T>): Promise<T> {
    this.#work.add(work);
    try {
      return await work;
    } finally {
      this.#work.delete(work);
    }
  }

  /** A record of the log's own. */
  #note(operations: readonly StoredOperation[]): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#state.kind === "failed") reject(this.#state.error);
      else this.#enqueue({ operations, bytesMax: recordBytesMax(operations), resolve, reject });
    });
  }

  #enqueue(item: Waiting): void {
    this.#queue.push(item);
    this.#queuedBytes += item.bytesMax;
    this.#pumping ??= this.#pump();
  }

  /** The pen: one write in flight, until nobody waits. */
  async #pump(): Promise<void> {
    // Whatever is persisted in the same turn shares the first write.
    await undefined;
    try {
      while (this.#queue.length > 0) await this.#writeBatch();
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#pumping = undefined;
    }
  }

  async #writeBatch(): Promise<void> {
    const first = this.#queue[0] as Waiting;
    this.#batch.clear();
    if (first.bytesMax > this.#segments.remainingBytes) {
      const meta = this.#metaRecord();
      await this.#segments.roll(first.bytesMax + recordBytesMax(meta));
      // A segment starts with all meta: the ones before it can go without taking the vote along.
      this.#append(meta);
    }
    this.#inFlight = this.#takeBatch();
    const lengthBytes = this.#batch.lengthBytes;
    const startedMs = this.#options.now?.() ?? 0;
    await this.#segments.append(this.#batch.buffers(), lengthBytes, lastPutIndex(this.#inFlight));
    if (this.#state.kind === "failed") return;
    this.#syncedNumber = this.#nextNumber - 1;
    this.#bytesSinceSnapshot += lengthBytes;
    const taken = this.#inFlight;
    this.#inFlight = [];
    this.#acknowledge(taken, { lengthBytes, latencyMs: (this.#options.now?.() ?? 0) - startedMs });
  }

  /** Encodes from the front of the queue what fits into the segment and into one write. */
  #takeBatch(): readonly Waiting[] {
    const room = Math.min(this.#limits.batchBytes, this.#segments.remainingBytes);
    let count = 0;
    for (const item of this.#queue) {
      const fits = this.#batch.lengthBytes + item.bytesMax <= room;
      if (!fits && count > 0) break;
      this.#append(item.operations);
      this.#queuedBytes -= item.bytesMax;
      count++;
    }
    return this.#queue.splice(0, count);
  }

  #append(operations: readonly StoredOperation[]): void {
    const place = { segment: this.#segments.sequence, number: this.#nextNumber, syncedUpTo: this.#syncedNumber };
    this.#batch.append(place, operations);
    this.#nextNumber++;
    for (const operation of operations) {
      if (operation.kind !== "meta") continue;
      for (const [key, value] of Object.entries(operation.values)) this.#meta.set(key, value);
    }
  }

  #metaRecord(): StoredOperation[] {
    return [{ kind: "meta", values: Object.fromEntries(this.#meta) }];
  }

  #acknowledge(taken: readonly Waiting[], write: { readonly lengthBytes: number; readonly latencyMs: number }): void {
    const { member, telemetry } = this.#options;
    telemetry?.emit({
      kind: "log.synced",
      member,
      records: taken.length,
      bytes: write.lengthBytes,
      latencyMs: write.latencyMs,
    });
    let durable: PersistSequence | undefined;
    for (const item of taken) {
      durable = item.sequence ?? durable;
      item.resolve?.();
    }
    if (durable !== undefined) this.#listener?.onDurable(durable);
  }

  /** The first failure is the last thing that happens. */
  #fail(cause: unknown): void {
    if (this.#state.kind === "failed") return;
    const why = `The log stopped on a defect: ${String(cause)}.`;
    const error = cause instanceof ConclaveError ? cause : conclaveError("INVARIANT", why, { cause });
    this.#state = { kind: "failed", error };
    const waiting = [...this.#inFlight, ...this.#queue];
    this.#inFlight = [];
    this.#queue = [];
    this.#queuedBytes = 0;
    for (const item of waiting) item.reject?.(error);
    this.#listener?.onFailed(error);
  }

  /** Removes what the newest snapshot replaces. What cannot be removed now is removed at the next snapshot or start. */
  #clean(): Promise<void> {
    // One after another: segments go oldest first, or what is left would have a hole.
    this.#cleaning = this.#cleaning.then(() => this.#cleanNow());
    return this.#cleaning;
  }

  async #cleanNow(): Promise<void> {
    if (this.#coveredIndex === 0) return;
    try {
      await this.#snapshots.removeOlder();
      await this.#segments.dropCovered(this.#coveredIndex);
    } catch {
      // Left-over files cost space and nothing else: recovery takes the newest snapshot and ignores what it covers.
    }
  }

  #refuseUnlessOpen(): void {
    if (this.#state.kind === "failed") throw this.#state.error;
    if (this.#state.kind === "closed" || this.#closing !== undefined) throw conclaveError("CLOSED", "The log was closed.");
  }
}

/** The truncation stands in the record itself: the entry that shows the conflict goes with the segments. */
function snapshotNote({ index, term }: SnapshotInfo, { conflict }: { readonly conflict: boolean }): StoredOperation[] {
  const note: StoredOperation = { kind: "snapshot", index, term };
  return conflict ? [note, { kind: "truncate", from: index }] : [note];
}

function lastPutIndex(items: readonly Waiting[]): Index {
  let last = 0;
  for (const item of items) {
    for (const operation of item.operations) if (operation.kind === "put") last = Math.max(last, operation.entry.index);
  }
  return last;
}
