/**
 * The disk of the core world: what one member has made durable, at the level of log operations instead of bytes.
 *
 * Gapless logs and sparse slots differ in one rule: a gapless put drops everything behind it, a sparse one nothing.
 *
 * A snapshot is a file of its own and overtakes writes that are under way. Those of a log that contradicts it may still come,
 * and a power cut may fall before the truncation that ends them (seed 1991): `src/log/recovery.ts` drops them by the term of
 * the log's own entry at the snapshot's index, and so does this disk.
 */
import type { Index, LogEntry, LogOperation, Recovered } from "../consensus/core.ts";

export type AbstractSnapshot = NonNullable<Recovered["snapshot"]>;

export class AbstractDisk {
  snapshot: AbstractSnapshot | undefined;
  readonly #sparseSlots: boolean;
  readonly #meta = new Map<string, string>();
  /** Gapless: in the order of the indexes, from the one behind the snapshot. */
  #entries: LogEntry[] = [];
  /** Steps under way that the snapshot overtook. */
  #overtaken = 0;
  /** What they wrote last at the snapshot's index is another entry than the snapshot's. */
  #overruled = false;
  readonly #slots = new Map<Index, LogEntry>();

  constructor(sparseSlots: boolean) {
    this.#sparseSlots = sparseSlots;
  }

  /** After a power cut. What a new incarnation writes stands behind what it found. */
  recovered(): Recovered {
    this.#overtaken = 0;
    const entries = this.#sparseSlots
      ? [...this.#slots.values()].sort((left, right) => left.index - right.index)
      : [...this.#entries];
    return { meta: new Map(this.#meta), entries, ...(this.snapshot === undefined ? {} : { snapshot: this.snapshot }) };
  }

  apply(operations: readonly LogOperation[]): void {
    if (this.#overtaken > 0) this.#overtaken--;
    else this.#overruled = false;
    for (const operation of operations) {
      if (operation.kind === "meta") for (const [name, value] of Object.entries(operation.values)) this.#meta.set(name, value);
      else if (operation.kind === "truncate") this.#truncate(operation.from);
      else this.#put(operation.entry);
    }
  }

  /**
   * Everything up to the index lives in the snapshot now, the member's own or one that came from elsewhere; a log that
   * contradicts it goes (Raft Fig. 13, steps 6 and 7). `underWay`: how many steps have yet to come to the disk.
   */
  putSnapshot(snapshot: AbstractSnapshot, { underWay }: { readonly underWay: number }): void {
    const own = this.#entries.find((entry) => entry.index === snapshot.index);
    if (own?.term !== snapshot.term) this.#entries = [];
    if (own !== undefined) this.#overruled = own.term !== snapshot.term;
    this.#overtaken = underWay;
    this.snapshot = snapshot;
    this.#entries = this.#entries.filter((entry) => entry.index > snapshot.index);
    for (const index of [...this.#slots.keys()]) if (index <= snapshot.index) this.#slots.delete(index);
  }

  #truncate(from: Index): void {
    if (this.#sparseSlots) for (const index of [...this.#slots.keys()]) if (index >= from) this.#slots.delete(index);
    this.#entries = this.#entries.filter((entry) => entry.index < from);
  }

  #put(entry: LogEntry): void {
    const { index: base = 0, term = 0 } = this.snapshot ?? {};
    if (entry.index === base) this.#overruled = entry.term !== term;
    if (entry.index <= base) return;
    if (this.#sparseSlots) {
      this.#slots.set(entry.index, entry);
      return;
    }
    if (this.#overruled) return;
    if (entry.index > base + this.#entries.length + 1) return;
    this.#entries.length = entry.index - base - 1;
    this.#entries.push(entry);
  }
}
