/**
 * Letters that wait for the disk. A letter leaves when the persist that it names is durable, never before; that a vote or
 * an acknowledgement runs ahead of the disk is impossible here, whatever the core does (`consensus/core.ts`, `send`).
 */
import { assert } from "../base/assert.ts";
import type { Lane, MemberId, PersistSequence } from "../consensus/core.ts";

export interface Letter {
  readonly to: MemberId;
  readonly after: PersistSequence;
  readonly lane: Lane;
  readonly frame: Uint8Array;
}

export class Outbox {
  readonly #post: (letter: Letter) => void;
  #waiting: Letter[] = [];
  #durable: PersistSequence = 0;

  constructor(post: (letter: Letter) => void) {
    this.#post = post;
  }

  put(letter: Letter): void {
    if (letter.after <= this.#durable) this.#post(letter);
    else this.#waiting.push(letter);
  }

  onDurable(sequence: PersistSequence): void {
    assert(sequence >= this.#durable, "durability never falls");
    this.#durable = sequence;
    if (this.#waiting.length === 0) return;
    const still: Letter[] = [];
    for (const letter of this.#waiting) {
      if (letter.after <= sequence) this.#post(letter);
      else still.push(letter);
    }
    this.#waiting = still;
  }
}
