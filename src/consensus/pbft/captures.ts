/**
 * The states that a replica can still hand out: of its stable checkpoint, of later ones, and for a while of earlier ones.
 *
 * A replica that lags asks for the checkpoint that it has heard of. Under load that one is old before the question arrives;
 * were it gone, the laggard would chase a state that is always the last but one. Parts that did not change are shared, so
 * an old capture costs what has changed since.
 */
import type { Sequence } from "./messages.ts";
import type { Capture } from "./state.ts";

/** Superseded captures that are kept; those that nobody asks for go first. */
const supersededMax = 4;

interface Kept {
  readonly capture: Capture;
  usedMs: number;
}

export class Captures {
  readonly #kept = new Map<Sequence, Kept>();

  set(sequence: Sequence, capture: Capture, nowMs: number): void {
    this.#kept.set(sequence, { capture, usedMs: nowMs });
  }

  get(sequence: Sequence): Capture | undefined {
    return this.#kept.get(sequence)?.capture;
  }

  /** For somebody who fetches it, and will come again. */
  handOut(sequence: Sequence, nowMs: number): Capture | undefined {
    const kept = this.#kept.get(sequence);
    if (kept !== undefined) kept.usedMs = nowMs;
    return kept?.capture;
  }

  above(sequence: Sequence): readonly (readonly [Sequence, Capture])[] {
    return [...this.#kept].flatMap(([at, { capture }]) => (at > sequence ? [[at, capture] as const] : []));
  }

  /** A later checkpoint is stable. */
  supersede(stable: Sequence, options: { readonly nowMs: number; readonly keptMs: number }): void {
    const old = [...this.#kept]
      .filter(([sequence]) => sequence < stable)
      .sort(([, left], [, right]) => right.usedMs - left.usedMs);
    for (const [at, [sequence, { usedMs }]] of old.entries()) {
      if (at >= supersededMax || usedMs + options.keptMs < options.nowMs) this.#kept.delete(sequence);
    }
  }
}
