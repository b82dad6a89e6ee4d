/**
 * What this member accepted, slot by slot, with holes.
 *
 * ```
 *            base           snapshot       chosen              last
 *   dropped   | kept for laggards | chosen    | accepted, with holes
 *   ..........|-------------------|-----------|--- ---- -- -----
 * ```
 * Invariant: every slot from `base + 1` to the chosen index is there, and holds the chosen value.
 */
import { assert } from "../../base/assert.ts";
import type { Index, LogEntry } from "../core.ts";

/** What an entry weighs beside its payload, for every bound that counts bytes. */
const entryOverheadBytes = 64;

export function entryBytes(entry: LogEntry): number {
  return entry.payload.length + entryOverheadBytes;
}

/** One leader proposes one value per slot: the slot and the ballot of its birth name a value (PMMC, invariant A4). */
export function isSameValue(left: LogEntry, right: LogEntry): boolean {
  return left.index === right.index && left.term === right.term;
}

export class SlotLog {
  readonly #slots = new Map<Index, LogEntry>();
  #base: Index = 0;
  #last: Index = 0;
  /** Up to here everything is chosen. */
  #chosen: Index = 0;
  /** Of the slots above it. */
  #openBytes = 0;

  /** The slots up to here are dropped; a snapshot covers them. */
  get base(): Index {
    return this.#base;
  }

  /** The highest slot that holds something. */
  get last(): Index {
    return this.#last;
  }

  /** What is accepted and not known to be chosen. */
  get openBytes(): number {
    return this.#openBytes;
  }

  at(index: Index): LogEntry | undefined {
    return this.#slots.get(index);
  }

  put(entry: LogEntry): void {
    assert(entry.index > this.#base, "a dropped slot is never written again");
    if (entry.index > this.#chosen) this.#openBytes += entryBytes(entry) - this.#bytesAt(entry.index);
    this.#slots.set(entry.index, entry);
    if (entry.index > this.#last) this.#last = entry.index;
  }

  /** Everything up to the index is chosen. */
  choose(index: Index): void {
    while (this.#chosen < index) this.#openBytes -= this.#bytesAt(++this.#chosen);
  }

  /** What there is from a slot on, at most so many bytes but at least one entry; `next` is where to go on, 0 at the end. */
  page(from: Index, to: Index, bytesMax: number): { readonly entries: LogEntry[]; readonly next: Index } {
    const entries: LogEntry[] = [];
    let bytes = 0;
    for (let index = from; index <= to; index++) {
      const entry = this.#slots.get(index);
      if (entry === undefined) continue;
      bytes += entryBytes(entry);
      if (entries.length > 0 && bytes > bytesMax) return { entries, next: index };
      entries.push(entry);
    }
    return { entries, next: 0 };
  }

  /** A durable snapshot covers everything up to the index: keep at most so many bytes of it. */
  compact(index: Index, retainedBytesMax: number): void {
    let keptBytes = 0;
    let base = index;
    while (base > this.#base) {
      const entry = this.#slots.get(base);
      if (entry === undefined) break;
      keptBytes += entryBytes(entry);
      if (keptBytes > retainedBytesMax) break;
      base--;
    }
    this.#dropTo(base);
  }

  /** A snapshot from elsewhere took the place of everything up to the index. What was accepted above it stays accepted. */
  coveredBy(index: Index): void {
    this.choose(index);
    this.#dropTo(index);
  }

  #dropTo(base: Index): void {
    if (base - this.#base <= this.#slots.size) {
      for (let index = this.#base + 1; index <= base; index++) this.#slots.delete(index);
    } else {
      for (const index of this.#slots.keys()) if (index <= base) this.#slots.delete(index);
    }
    this.#base = Math.max(this.#base, base);
    this.#last = Math.max(this.#last, this.#base);
  }

  #bytesAt(index: Index): number {
    const entry = this.#slots.get(index);
    return entry === undefined ? 0 : entryBytes(entry);
  }
}
