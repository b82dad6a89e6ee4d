/**
 * The numbers of one session's claims: which is next, and which is the lowest whose answer is still awaited.
 *
 * Intuition: a coat check with numbered hooks in a row. The next guest gets the next number; the attendant forgets hooks from
 * the low end once they are empty, and the row is only so long: while the oldest coat hangs, at most `capacity` hang with it.
 */
import { assert } from "../base/assert.ts";

export class ClaimWindow {
  /** The session by which the claims are made. */
  readonly session: string;
  /** One byte for each sequence in the window, by its remainder: 1 while its answer is awaited. */
  readonly #open: Uint8Array;
  /** Invariant: lowestOpen <= next <= lowestOpen + capacity. Everything below `lowestOpen` is settled. */
  #lowestOpen = 1;
  #next = 1;

  constructor(session: string, capacity: number) {
    this.session = session;
    this.#open = new Uint8Array(capacity);
  }

  get isFull(): boolean {
    return this.#next - this.#lowestOpen >= this.#open.length;
  }

  get lowestOpen(): number {
    return this.#lowestOpen;
  }

  /** The next sequence, open until it is settled. Not when full. */
  take(): number {
    assert(!this.isFull, "a claim is taken only while the window has room");
    const sequence = this.#next++;
    this.#open[sequence % this.#open.length] = 1;
    return sequence;
  }

  /**
   * Nobody waits for this answer any more. A copy of it that is still under way will be refused with CLAIM_TOO_OLD once a
   * claim with the raised `lowestOpen` has arrived. Idempotent.
   */
  settle(sequence: number): void {
    if (sequence < this.#lowestOpen) return;
    const capacity = this.#open.length;
    this.#open[sequence % capacity] = 0;
    while (this.#lowestOpen < this.#next && this.#open[this.#lowestOpen % capacity] === 0) this.#lowestOpen++;
  }
}
