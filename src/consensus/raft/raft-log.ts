/**
 * The part of the log that is kept in memory: everything after the snapshot, and a bounded tail before it for followers
 * that lag a little. Whoever lags more is sent the snapshot.
 *
 * ```
 *            base                    snapshot            last
 *   dropped   |  kept for laggards       |   not in any    |
 *   ..........|--------------------------|--- snapshot ----|
 * ```
 * Invariant: entries are contiguous, `entries[0].index === base + 1`, and `base <= snapshot index <= last`.
 */
import { assert } from "../../base/assert.ts";
import type { Index, LogEntry, Term } from "../core.ts";

/** What an entry weighs beside its payload, for every bound that counts bytes. */
export const entryOverheadBytes = 64;

export function entryBytes(entry: LogEntry): number {
  return entry.payload.length + entryOverheadBytes;
}

export class RaftLog {
  #entries: LogEntry[] = [];
  #base: Index = 0;
  #baseTerm: Term = 0;
  #baseStampMs = 0;
  #snapshotIndex: Index = 0;
  #bytes = 0;

  get firstIndex(): Index {
    return this.#base + 1;
  }

  get lastIndex(): Index {
    return this.#base + this.#entries.length;
  }

  get lastTerm(): Term {
    return this.#entries.at(-1)?.term ?? this.#baseTerm;
  }

  get lastStampMs(): number {
    return this.#entries.at(-1)?.stampMs ?? this.#baseStampMs;
  }

  get snapshotIndex(): Index {
    return this.#snapshotIndex;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Undefined: dropped long ago, or not there yet. */
  termAt(index: Index): Term | undefined {
    if (index === this.#base) return this.#baseTerm;
    return this.#entries[index - this.#base - 1]?.term;
  }

  entryAt(index: Index): LogEntry | undefined {
    return this.#entries[index - this.#base - 1];
  }

  append(entry: LogEntry): void {
    assert(entry.index === this.lastIndex + 1, "an appended entry follows the last one");
    assert(entry.term >= this.lastTerm, "terms never fall along the log");
    this.#entries.push(entry);
    this.#bytes += entryBytes(entry);
  }

  /** Drops every entry from the index on. */
  truncate(from: Index): void {
    assert(from > this.#snapshotIndex, "what a snapshot covers is committed and never truncated");
    for (const dropped of this.#entries.splice(from - this.#base - 1)) this.#bytes -= entryBytes(dropped);
  }

  /** Consecutive entries from the index on, at least one where there is one, at most so many bytes. */
  slice(from: Index, bytesMax: number, to: Index = this.lastIndex): LogEntry[] {
    const slice: LogEntry[] = [];
    let bytes = 0;
    for (let index = from; index <= to; index++) {
      const entry = this.entryAt(index);
      assert(entry !== undefined, "a slice lies inside the kept log");
      bytes += entryBytes(entry);
      if (slice.length > 0 && bytes > bytesMax) break;
      slice.push(entry);
    }
    return slice;
  }

  /**
   * The highest index up to `index` whose term is at most `term`: below it the logs may agree, above it they cannot.
   * One answer skips a whole term instead of one entry (Raft §5.3, last paragraph but two).
   */
  agreementHint(index: Index, term: Term): Index {
    let hint = Math.min(index, this.lastIndex);
    while (hint > this.#base && (this.termAt(hint) as Term) > term) hint--;
    return hint;
  }

  /** A durable snapshot covers everything up to the index: keep at most so many bytes of it. */
  compact(index: Index, retainedBytesMax: number): void {
    assert(index <= this.lastIndex, "a snapshot of one's own state does not run ahead of the log");
    this.#snapshotIndex = Math.max(this.#snapshotIndex, index);
    let keptBytes = 0;
    let keepFrom = this.#snapshotIndex - this.#base;
    while (keepFrom > 0) {
      keptBytes += entryBytes(this.#entries[keepFrom - 1] as LogEntry);
      if (keptBytes > retainedBytesMax) break;
      keepFrom--;
    }
    if (keepFrom === 0) return;
    const dropped = this.#entries.splice(0, keepFrom);
    for (const entry of dropped) this.#bytes -= entryBytes(entry);
    const last = dropped.at(-1) as LogEntry;
    this.#base = last.index;
    this.#baseTerm = last.term;
    this.#baseStampMs = last.stampMs;
  }

  /** Starts again behind a snapshot that came from elsewhere. */
  reset(snapshot: { readonly index: Index; readonly term: Term; readonly stampMs: number }): void {
    this.#entries = [];
    this.#bytes = 0;
    this.#base = snapshot.index;
    this.#baseTerm = snapshot.term;
    this.#baseStampMs = snapshot.stampMs;
    this.#snapshotIndex = snapshot.index;
  }
}
