/**
 * The disk of the core world: what one member has made durable, at the level of log operations instead of bytes.
 *
 * Gapless logs and sparse slots differ in one rule: a gapless put drops everything behind it, a sparse one nothing.
 */
import type { Index, LogEntry, LogOperation, Recovered } from "../consensus/core.ts";

export type AbstractSnapshot = NonNullable<Recovered["snapshot"]>;

export class AbstractDisk {
  snapshot: AbstractSnapshot | undefined;
  readonly #sparseSlots: boolean;
  readonly #meta = new Map<string, string>();
  /** Gapless: in the order of the indexes, from the one behind the snapshot. */
  #entries: LogEntry[] = [];
  readonly #slots = new Map<Index, LogEntry>();

  constructor(sparseSlots: boolean) {
    this.#sparseSlots = sparseSlots;
  }

  recovered(): Recovered {
    const entries = this.#sparseSlots
      ? [...this.#slots.values()].sort((left, right) => left.index - right.index)
      : [...this.#entries];
    return { meta: new Map(this.#meta), entries, ...(this.snapshot === undefined ? {} : { snapshot: this.snapshot }) };
  }

  apply(operations: readonly LogOperation[]): void {
    for (const operation of operations) {
      if (operation.kind === "meta") for (const [name, value] of Object.entries(operation.values)) this.#meta.set(name, value);
      else if (operation.kind === "truncate") this.#truncate(operation.from);
      else this.#put(operation.entry);
    }
  }

  /** Everything up to the index lives in the snapshot now. */
  takeSnapshot(snapshot: AbstractSnapshot): void {
    this.snapshot = snapshot;
    this.#entries = this.#entries.filter((entry) => entry.index > snapshot.index);
    for (const index of [...this.#slots.keys()]) if (index <= snapshot.index) this.#slots.delete(index);
  }

  /** Like `takeSnapshot`, for one that came from elsewhere: a log that contradicts it goes (Raft Fig. 13, steps 6 and 7). */
  installSnapshot(snapshot: AbstractSnapshot): void {
    const kept = this.#entries.find((entry) => entry.index === snapshot.index)?.term === snapshot.term;
    if (!kept) this.#entries = [];
    this.takeSnapshot(snapshot);
  }

  #truncate(from: Index): void {
    if (this.#sparseSlots) for (const index of [...this.#slots.keys()]) if (index >= from) this.#slots.delete(index);
    this.#entries = this.#entries.filter((entry) => entry.index < from);
  }

  #put(entry: LogEntry): void {
    const base = this.snapshot?.index ?? 0;
    if (entry.index <= base) return;
    if (this.#sparseSlots) {
      this.#slots.set(entry.index, entry);
      return;
    }
    if (entry.index > base + this.#entries.length + 1) return;
    this.#entries.length = entry.index - base - 1;
    this.#entries.push(entry);
  }
}
