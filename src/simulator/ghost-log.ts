/**
 * What a member's log holds, as the checker sees it: one number per index instead of the entry itself.
 *
 * - `ChainLog`, for logs without gaps: the number is a hash of the whole prefix, so one comparison at an index speaks for
 *   everything below it, and an entry of another term is another entry;
 * - `SlotLog`, for slots that are filled in any order (Multi-Paxos): the number is a hash of the value alone, because the
 *   same value may lawfully be accepted under several ballots.
 */
import { crc32 } from "../base/crc32.ts";
import type { Index, LogEntry, Term } from "../consensus/core.ts";

export interface GhostLog {
  /** The index of the snapshot below the first slot. */
  readonly base: Index;
  readonly last: Index;
  /** Undefined where nothing is held. */
  hashAt(index: Index): number | undefined;
  put(entry: LogEntry): void;
  /** Whether a snapshot overtook the entry's write and it hangs on another one than the snapshot's. Asked of each, in order. */
  isOverruled(entry: LogEntry, write: { readonly overtaken: boolean }): boolean;
  truncate(from: Index): void;
  /** A snapshot of chosen entries took the place of everything up to the index. */
  install(index: Index, term: Term, hash: number): void;
  clone(): GhostLog;
  /** Whether both hold the same above the index. */
  equalsAbove(index: Index, other: GhostLog): boolean;
}

/** The same entry always has the same hash; its index and term take no part. */
export function contentHash(entry: LogEntry): number {
  return crc32(entry.payload) ^ Math.imul(entry.kind.length, 0x85ebca6b) ^ Math.imul(entry.stampMs * 1000, 0x27d4eb2f);
}

/** `#hashes[i]` speaks for index `base + i` and everything below. */
export class ChainLog implements GhostLog {
  base: Index = 0;
  #baseTerm: Term = 0;
  #overruled = false;
  #hashes: number[] = [0];

  get last(): Index {
    return this.base + this.#hashes.length - 1;
  }

  hashAt(index: Index): number | undefined {
    return this.#hashes[index - this.base];
  }

  put(entry: LogEntry): void {
    const at = entry.index - this.base;
    this.#hashes.length = at;
    const previous = this.#hashes[at - 1] as number;
    this.#hashes.push(
      (Math.imul(previous ^ contentHash(entry), 0x9e3779b1) + Math.imul(entry.term + 1, 0x85ebca77) + entry.index) | 0,
    );
  }

  isOverruled({ index, term }: LogEntry, { overtaken }: { readonly overtaken: boolean }): boolean {
    if (!overtaken) this.#overruled = false;
    else if (index === this.base) this.#overruled = term !== this.#baseTerm;
    return this.#overruled;
  }

  truncate(from: Index): void {
    if (from <= this.last) this.#hashes.length = Math.max(0, from - this.base);
  }

  /** What follows the index is kept only where the log agrees with the snapshot (Raft Fig. 13, steps 6 and 7). */
  install(index: Index, term: Term, hash: number): void {
    const own = this.hashAt(index);
    if (own !== undefined) this.#overruled = own !== hash;
    this.#hashes = own === hash ? this.#hashes.slice(index - this.base) : [hash];
    this.base = index;
    this.#baseTerm = term;
  }

  clone(): ChainLog {
    const copy = new ChainLog();
    copy.base = this.base;
    copy.#baseTerm = this.#baseTerm;
    copy.#overruled = this.#overruled;
    copy.#hashes = this.#hashes.slice();
    return copy;
  }

  equalsAbove(index: Index, other: GhostLog): boolean {
    return this.last <= index
      ? other.last <= index
      : this.last === other.last && this.hashAt(this.last) === other.hashAt(this.last);
  }
}

/** `#hashes[i]` speaks for slot `base + i` alone. */
export class SlotLog implements GhostLog {
  base: Index = 0;
  #hashes: (number | undefined)[] = [undefined];

  get last(): Index {
    return this.base + this.#hashes.length - 1;
  }

  hashAt(index: Index): number | undefined {
    return index < this.base ? undefined : this.#hashes[index - this.base];
  }

  put(entry: LogEntry): void {
    const at = entry.index - this.base;
    if (at <= 0) return;
    while (this.#hashes.length < at) this.#hashes.push(undefined);
    this.#hashes[at] = contentHash(entry);
  }

  /** Slots do not hang on one another. */
  isOverruled(): boolean {
    return false;
  }

  truncate(from: Index): void {
    const hashes = this.#hashes;
    hashes.length = Math.min(hashes.length, Math.max(1, from - this.base));
    while (hashes.length > 1 && hashes.at(-1) === undefined) hashes.pop();
  }

  install(index: Index, _term: Term, hash: number): void {
    this.#hashes = this.#hashes.slice(index - this.base);
    this.#hashes[0] = hash;
    this.base = index;
  }

  clone(): SlotLog {
    const copy = new SlotLog();
    copy.base = this.base;
    copy.#hashes = this.#hashes.slice();
    return copy;
  }

  equalsAbove(index: Index, other: GhostLog): boolean {
    for (let held = index + 1; held <= Math.max(this.last, other.last); held++)
      if (this.hashAt(held) !== other.hashAt(held)) return false;
    return true;
  }
}
