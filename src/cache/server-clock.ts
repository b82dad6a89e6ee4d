/**
 * How far a server's clock is ahead of ours, as an interval that every answer narrows.
 *
 *   sent ............ the server reads its clock, somewhere in here ............ answered
 *
 * One answer bounds the difference from both sides, by as much as it was long under way; what all answers leave is narrower
 * than the best of them. Between answers the interval widens, because two clocks drift apart. Where nothing is left the server's
 * clock was set, and the latest answer counts alone.
 * Source: Marzullo, Owicki, "Maintaining the Time in a Distributed System", PODC 1983, §4 (intersection of intervals).
 * Pure: the caller passes the moments, of a monotonic clock.
 */
export interface ClockReading {
  /** What the server read, rounded down to its step. */
  readonly readMs: number;
  readonly stepMs: number;
  readonly sentMs: number;
  readonly nowMs: number;
}

/** Milliseconds per millisecond: a tenth of a per mille. */
const drift = 1e-4;

export class ServerClock {
  #range: { readonly from: number; readonly to: number; readonly learntMs: number } | undefined;

  /** Undefined: nobody has answered yet. */
  get aheadMs(): number | undefined {
    return this.#range === undefined ? undefined : (this.#range.from + this.#range.to) / 2;
  }

  /** `aheadMs` is wrong by half of it at most. */
  widthMs(nowMs: number): number {
    if (this.#range === undefined) return Number.POSITIVE_INFINITY;
    return this.#range.to - this.#range.from + 2 * drift * (nowMs - this.#range.learntMs);
  }

  learn({ readMs, stepMs, sentMs, nowMs }: ClockReading): void {
    const told = { from: readMs - nowMs, to: readMs + stepMs - sentMs, learntMs: nowMs };
    const known = this.#range;
    if (known === undefined) {
      this.#range = told;
      return;
    }
    const drifted = drift * (nowMs - known.learntMs);
    const from = Math.max(told.from, known.from - drifted);
    const to = Math.min(told.to, known.to + drifted);
    this.#range = from < to ? { from, to, learntMs: nowMs } : told;
  }
}
