/**
 * The clock of the hit path: exact for ordinary use, cheap in a storm of reads.
 *
 * Reading the clock costs more than a hit. The first reads of a turn of the event loop each look; from the 64th on, only
 * every eighth does. So in one turn that reads more than 64 times a time may be old by as long as seven reads took; in
 * any other, and in the first line after a stall, it is the time.
 */
import type { Platform } from "../base/ports.ts";

const exactReads = 64;
const armAt = 32;

export class TurnClock {
  readonly #platform: Platform;
  readonly #reset = (): void => {
    this.#reads = 0;
  };
  #reads = 0;
  #nowMs = 0;

  constructor(platform: Platform) {
    this.#platform = platform;
  }

  now(): number {
    const reads = ++this.#reads;
    if (reads > exactReads && (reads & 7) !== 0) return this.#nowMs;
    // The turn ends before `exactReads` is reached, or the reset was ordered within it.
    if (reads === armAt) this.#platform.defer(this.#reset);
    this.#nowMs = this.#platform.now();
    return this.#nowMs;
  }
}
