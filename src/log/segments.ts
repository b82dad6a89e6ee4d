/**
 * The files behind the log: one that is written, one that waits, and older ones that a snapshot will let go.
 *
 *   segment-0000000007.log   older: kept while it holds an entry above the snapshot
 *   segment-0000000008.log   active: records are appended at `offset`
 *   segment-0000000009.log   spare: zeros, made in the background once the active one is half full
 *
 * A segment is filled with zeros when it is made, so that a commit changes no metadata: appending to a growing file costs
 * six to ten times the tail latency (`research/consensus.md` §5). Segments go oldest first, so what is left is always a
 * contiguous end of the log.
 */
import { assert } from "../base/assert.ts";
import type { Disk, DiskFile } from "../base/ports.ts";
import type { Index } from "../consensus/core.ts";
import { type SegmentSummary, segmentName } from "./recovery.ts";

interface SegmentsOptions {
  readonly disk: Disk;
  readonly segmentBytes: number;
}

interface ActiveSegment {
  readonly sequence: number;
  readonly file: DiskFile;
  readonly sizeBytes: number;
  offset: number;
  lastIndex: Index;
}

interface PreparedSegment {
  readonly file: DiskFile;
  readonly sizeBytes: number;
}

export class Segments {
  readonly #disk: Disk;
  readonly #segmentBytes: number;
  /** Told when the spare could not be made in the background. */
  onSpareFailure: (error: unknown) => void = () => undefined;
  /** Oldest first; the active one is not among them. */
  #older: SegmentSummary[];
  #active: ActiveSegment;
  #spare: Promise<PreparedSegment | undefined> | undefined;

  private constructor(options: SegmentsOptions, older: readonly SegmentSummary[], active: ActiveSegment) {
    this.#disk = options.disk;
    this.#segmentBytes = options.segmentBytes;
    this.#older = [...older];
    this.#active = active;
  }

  /** The first segment of a new directory. */
  static async format(options: SegmentsOptions): Promise<Segments> {
    const { file, sizeBytes } = await makeSegment(options.disk, 1, options.segmentBytes);
    return new Segments(options, [], { sequence: 1, file, sizeBytes, offset: 0, lastIndex: 0 });
  }

  /** Goes on where recovery found the end. */
  static async resume(
    options: SegmentsOptions,
    recovered: {
      readonly segments: readonly SegmentSummary[];
      readonly tail: { readonly file: DiskFile; readonly sequence: number; readonly offset: number };
    },
  ): Promise<Segments> {
    const { file, sequence, offset } = recovered.tail;
    // Shorter only where the file was cut; recovery has synced what is there.
    if ((await file.sizeBytes()) < options.segmentBytes) {
      await file.preallocate(options.segmentBytes);
      await file.sync();
    }
    const sizeBytes = await file.sizeBytes();
    const lastIndex = recovered.segments.at(-1)?.lastIndex ?? 0;
    return new Segments(options, recovered.segments.slice(0, -1), { sequence, file, sizeBytes, offset, lastIndex });
  }

  get sequence(): number {
    return this.#active.sequence;
  }

  get remainingBytes(): number {
    return this.#active.sizeBytes - this.#active.offset;
  }

  /** One durable write at the end. The caller has at most one in flight. */
  async append(buffers: readonly Uint8Array[], lengthBytes: number, lastIndex: Index): Promise<void> {
    const active = this.#active;
    assert(lengthBytes <= active.sizeBytes - active.offset, "a write fits into its segment");
    if (active.offset + lengthBytes > active.sizeBytes / 2) this.#prepareSpare();
    await active.file.write(active.offset, buffers, { durable: true });
    active.offset += lengthBytes;
    active.lastIndex = Math.max(active.lastIndex, lastIndex);
  }

  /** Goes to the next segment, with room for at least this much. Every write before must have been acknowledged. */
  async roll(neededBytes: number): Promise<void> {
    const { file, sequence, lastIndex } = this.#active;
    const spare = await this.#spare;
    this.#spare = undefined;
    const next = spare ?? (await makeSegment(this.#disk, sequence + 1, Math.max(this.#segmentBytes, neededBytes)));
    let sizeBytes = next.sizeBytes;
    if (sizeBytes < neededBytes) {
      // One record longer than a segment gets a longer segment.
      await next.file.preallocate(neededBytes);
      await next.file.sync();
      sizeBytes = neededBytes;
    }
    this.#older.push({ sequence, lastIndex });
    this.#active = { sequence: sequence + 1, file: next.file, sizeBytes, offset: 0, lastIndex: 0 };
    await file.close();
  }

  /**
   * Removes segments that hold no entry above the index, oldest first. Never the active one, and nothing before it until
   * it has a durable record: that record carries the meta that the older ones hold, and proves their end.
   */
  async dropCovered(index: Index): Promise<void> {
    while (this.#active.offset > 0) {
      const oldest = this.#older[0];
      if (oldest === undefined || oldest.lastIndex > index) return;
      await this.#disk.remove(segmentName(oldest.sequence));
      this.#older.shift();
    }
  }

  async close(): Promise<void> {
    const spare = await this.#spare;
    await spare?.file.close();
    await this.#active.file.close();
  }

  #prepareSpare(): void {
    if (this.#spare !== undefined) return;
    const sequence = this.#active.sequence + 1;
    this.#spare = makeSegment(this.#disk, sequence, this.#segmentBytes).catch((error: unknown) => {
      // Not needed yet: made anew when it is, and then a failure counts.
      this.onSpareFailure(error);
      return undefined;
    });
  }
}

/** Durable zeros under the final name. A left-over of an earlier attempt is replaced. */
async function makeSegment(disk: Disk, sequence: number, sizeBytes: number): Promise<PreparedSegment> {
  await disk.remove(segmentName(sequence));
  const file = await disk.open(segmentName(sequence), { create: true });
  await file.preallocate(sizeBytes);
  await file.sync();
  return { file, sizeBytes };
}
