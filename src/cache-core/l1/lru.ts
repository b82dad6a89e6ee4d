/**
 * Least recently used: what was touched last stays longest. The measure for the others; a scan empties it.
 */
import type { Policy } from "./policy.ts";
import { SlotLists } from "./slot-lists.ts";

const all = 0;

export class Lru implements Policy {
  readonly needsHash = false;
  readonly #lists = new SlotLists();

  grow(slots: number): void {
    this.#lists.grow(slots);
  }

  insert(slot: number): void {
    this.#lists.add(all, slot);
  }

  hit(slot: number): void {
    this.#lists.move(all, slot);
  }

  reweigh(): void {
    // Every weight is the same to it.
  }

  victim(): number {
    return this.#lists.oldest(all);
  }

  remove(slot: number): void {
    this.#lists.remove(slot);
  }

  clear(): void {
    this.#lists.clear();
  }
}
