/**
 * Hashes of keys that are no longer there, in the order in which they went.
 *
 * Not in a `Set`, although one keeps that order: its first item lies behind all that were deleted since its table was last
 * made anew, so taking the oldest from a large one costs a walk, and each eviction takes one.
 */
import { firstSlot } from "./policy.ts";
import { grown, SlotLists } from "./slot-lists.ts";
import { SlotsByHash } from "./slots-by-hash.ts";

const list = 0;

export class Ghosts {
  readonly #slots = new SlotsByHash();
  readonly #order = new SlotLists();
  #hashes = new Uint32Array(firstSlot);
  #used = firstSlot;
  readonly #free: number[] = [];

  get size(): number {
    return this.#slots.size;
  }

  /** One that is there already keeps its place. */
  add(hash: number): void {
    if (this.#slots.get(hash) !== 0) return;
    const slot = this.#free.pop() ?? this.#newSlot();
    this.#hashes[slot] = hash;
    this.#slots.set(hash, slot);
    this.#order.add(list, slot);
  }

  /** Whether it was there. */
  delete(hash: number): boolean {
    const slot = this.#slots.get(hash);
    if (slot === 0) return false;
    this.#slots.delete(hash);
    this.#order.remove(slot);
    this.#free.push(slot);
    return true;
  }

  deleteOldest(): void {
    if (this.size > 0) this.delete(this.#hashes[this.#order.oldest(list)] as number);
  }

  clear(): void {
    this.#slots.clear();
    this.#order.clear();
    this.#free.length = 0;
    this.#used = firstSlot;
  }

  #newSlot(): number {
    if (this.#used === this.#hashes.length) {
      const length = this.#hashes.length * 2;
      this.#hashes = grown(this.#hashes, length);
      this.#order.grow(length);
    }
    return this.#used++;
  }
}
