/**
 * Doubly linked lists of slots in two typed arrays: no object per entry, nothing for the garbage collector.
 *
 * Each list is a ring through its head, a slot below `firstSlot`: so no link has an end to test for.
 *
 *     head -> newest -> ... -> oldest -> head
 */
import { firstSlot } from "./policy.ts";

export class SlotLists {
  #next = new Uint32Array(firstSlot);
  #previous = new Uint32Array(firstSlot);

  constructor() {
    this.clear();
  }

  grow(slots: number): void {
    this.#next = grown(this.#next, slots);
    this.#previous = grown(this.#previous, slots);
  }

  clear(): void {
    for (let head = 0; head < firstSlot; head++) {
      this.#next[head] = head;
      this.#previous[head] = head;
    }
  }

  /** The head itself when the list is empty. */
  newest(head: number): number {
    return this.#next[head] as number;
  }

  /** The head itself when the list is empty. */
  oldest(head: number): number {
    return this.#previous[head] as number;
  }

  /** The next newer one; the head after the newest. */
  newerThan(slot: number): number {
    return this.#previous[slot] as number;
  }

  add(head: number, slot: number): void {
    const next = this.#next;
    const previous = this.#previous;
    const first = next[head] as number;
    next[slot] = first;
    previous[slot] = head;
    previous[first] = slot;
    next[head] = slot;
  }

  remove(slot: number): void {
    const next = this.#next;
    const previous = this.#previous;
    const after = next[slot] as number;
    const before = previous[slot] as number;
    next[before] = after;
    previous[after] = before;
  }

  /** To the front of a list, the same or another. */
  move(head: number, slot: number): void {
    if (this.#next[head] === slot) return;
    this.remove(slot);
    this.add(head, slot);
  }
}

/** A longer array that begins with the same numbers. */
export function grown<T extends Uint8Array | Uint32Array | Float64Array>(array: T, length: number): T {
  const longer = new (array.constructor as new (length: number) => T)(length);
  longer.set(array);
  return longer;
}
