/**
 * The clock of the hit path: exact for ordinary use, cheap in a storm of reads.
 *
 * Reading the clock costs more than a hit. The first reads of a turn of the event loop each look; from the 64th on, only
 * every eighth does, and from the 1,024th on every 64th. So in one turn that reads more than 64 times a time may be old by
 * as long as seven reads took, and beyond 1,024 by 63; in any other, and in the first line after a stall, it is the time.
 */
import type { Platform } from "../base/ports.ts";

const armAt = 32;
const exactReads = 64;
const oftenReads = 1_024;
const often = 8;
const seldom = 64;

export class TurnClock {
  readonly #platform: Platform;
  readonly #reset = (): void => {
    this.#reads = 0;
    this.#lookAt = 0;
  };
  #reads = 0;
  /** The read that looks next. */
  #lookAt = 0;
  /** What the last look saw. */
  nowMs = 0;

  constructor(platform: Platform) {
    this.#platform = platform;
  }

  /** One more read. Whether `nowMs` is to be seen afresh: then `look`. */
  isDue(): boolean {
    return ++this.#reads >= this.#lookAt;
  }

  look(): number {
    const reads = this.#reads;
    // The turn ends before `exactReads` is reached, or the reset was ordered within it.
    if (reads === armAt) this.#platform.defer(this.#reset);
    this.#lookAt = reads + (reads < exactReads ? 1 : reads < oftenReads ? often : seldom);
    this.nowMs = this.#platform.now();
    return this.nowMs;
  }

  now(): number {
    return this.isDue() ? this.look() : this.nowMs;
  }
}
