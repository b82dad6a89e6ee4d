/**
 * SIEVE: a queue in order of arrival and a hand that takes out the first entry nobody asked for since it last came by.
 *
 * Intuition: a librarian walks along the shelf from the oldest book, wipes the thumb marks off those that were read, and
 * takes the first clean one. A hit is one byte written, which makes it the fastest of the policies.
 * Source: Zhang et al., "SIEVE is Simpler than LRU", NSDI 2024, Algorithm 1. Not scan-proof: its paper says so (§6).
 */
import type { Policy } from "./policy.ts";
import { grown, SlotLists } from "./slot-lists.ts";

const all = 0;

export class Sieve implements Policy {
  readonly needsHash = false;
  readonly #lists = new SlotLists();
  #visited = new Uint8Array(0);
  /** Where the hand goes on; `all` (the head): at the oldest. */
  #hand = all;

  grow(slots: number): void {
    this.#lists.grow(slots);
    this.#visited = grown(this.#visited, slots);
  }

  insert(slot: number): void {
    this.#lists.add(all, slot);
    this.#visited[slot] = 0;
  }

  hit(slot: number): void {
    this.#visited[slot] = 1;
  }

  reweigh(): void {
    // Every weight is the same to it.
  }

  victim(): number {
    for (let slot = this.#hand; ; slot = this.#lists.newerThan(slot)) {
      if (slot === all) slot = this.#lists.oldest(all);
      if (this.#visited[slot] === 0) {
        this.#hand = slot;
        return slot;
      }
      this.#visited[slot] = 0;
    }
  }

  remove(slot: number): void {
    if (this.#hand === slot) this.#hand = this.#lists.newerThan(slot);
    this.#lists.remove(slot);
  }

  clear(): void {
    this.#lists.clear();
    this.#hand = all;
  }
}
