/**
 * When a durable write may block the event loop instead of going through the thread pool.
 *
 * Intuition: you do not hand a letter to a courier who needs longer to come than you need to the letter-box. On a fast disk
 * a synced write takes 40 us; handing it to a thread and being woken again takes as long, and two wake-ups of a processor.
 * A member blocks only on a disk that has just shown itself fast many times in a row, and stops at the first slow write: so
 * a stall costs at most one write, and a slow disk is never blocked on at all. Decision record 6.
 * Pure: the caller measures.
 */

/** A write within this is fast. A few of them in a row are what one heartbeat interval can lose. */
const fastMsMax = 1;
/** A blocking write above this ends blocking. */
const slowMs = 3;
/** Fast writes in a row before blocking begins. */
const trialWrites = 16;
/** After a slow write nothing blocks for so long: a disk that stalls now and then costs one stall a second at most. */
const restMs = 1_000;

export class BlockingPolicy {
  #fastInRow = 0;
  #restUntilMs = Number.NEGATIVE_INFINITY;

  mayBlock(nowMs: number): boolean {
    return this.#fastInRow >= trialWrites && nowMs >= this.#restUntilMs;
  }

  /** A durable write took so long, from its start to its end. */
  took(durationMs: number, nowMs: number): void {
    if (durationMs <= fastMsMax) {
      this.#fastInRow++;
      return;
    }
    // Through the thread pool a write may merely have waited its turn: that only starts the count again.
    if (durationMs > slowMs && this.mayBlock(nowMs)) this.#restUntilMs = nowMs + restMs;
    if (durationMs > slowMs || !this.mayBlock(nowMs)) this.#fastInRow = 0;
  }
}
