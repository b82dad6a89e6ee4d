/**
 * "Once persist n is on disk, everything up to slot s is": marks that wait for the disk, and the highest that it reached.
 */
import type { Index, PersistSequence } from "../core.ts";

export class DurableMarks {
  #waiting: { readonly sequence: PersistSequence; slot: Index }[] = [];
  /** Invariant: never falls between two calls of `reset`. */
  #reached: Index = 0;

  get reached(): Index {
    return this.#reached;
  }

  /** A new count begins; marks from before it say nothing about it. */
  reset(reached: Index): void {
    this.#waiting = [];
    this.#reached = reached;
  }

  mark(sequence: PersistSequence, slot: Index): void {
    const last = this.#waiting.at(-1);
    if (slot <= (last?.slot ?? this.#reached)) return;
    if (last?.sequence === sequence) last.slot = slot;
    else this.#waiting.push({ sequence, slot });
  }

  onDurable(sequence: PersistSequence): void {
    let done = 0;
    while (done < this.#waiting.length) {
      const mark = this.#waiting[done] as { sequence: PersistSequence; slot: Index };
      if (mark.sequence > sequence) break;
      this.#reached = Math.max(this.#reached, mark.slot);
      done++;
    }
    if (done > 0) this.#waiting.splice(0, done);
  }
}
