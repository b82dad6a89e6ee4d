/**
 * Which term each entry of the log has, kept as runs: terms change with elections, not with entries.
 *
 *   index   1 ........ 40  41 ...... 97  98 .. 120
 *   runs    (1, term 1)    (41, term 2)  (98, term 5)      last 120
 *
 * The log asks it one thing: does a received snapshot contradict the entry that stands at its index?
 */
import type { Index, Term } from "../consensus/core.ts";

export class TermRuns {
  /** Rising in `from`; each reaches to the next one, the last to #last. */
  #runs: { readonly from: Index; readonly term: Term }[] = [];
  #last: Index = 0;

  /** As in `Replay`: another term at a slot drops what stands behind it. */
  put(index: Index, term: Term): void {
    if (index <= this.#last) {
      if (this.termAt(index) === term) return;
      this.truncate(index);
    }
    // A gap is lawful only behind a snapshot that replaced everything before it.
    if (index > this.#last + 1) this.#runs = [];
    if (this.#runs.at(-1)?.term !== term) this.#runs.push({ from: index, term });
    this.#last = index;
  }

  truncate(from: Index): void {
    while ((this.#runs.at(-1)?.from ?? -1) >= from) this.#runs.pop();
    this.#last = Math.min(this.#last, from - 1);
  }

  /** Forgets what a snapshot covers. */
  forgetBelow(index: Index): void {
    while ((this.#runs[1]?.from ?? Number.POSITIVE_INFINITY) <= index) this.#runs.shift();
  }

  /** Undefined where the log holds no entry. */
  termAt(index: Index): Term | undefined {
    if (index > this.#last) return undefined;
    return this.#runs.findLast((run) => run.from <= index)?.term;
  }
}
