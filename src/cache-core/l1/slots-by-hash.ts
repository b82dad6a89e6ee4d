/**
 * From hashes to slots: a table of whole numbers by linear probing.
 *
 * Intuition: a coat rack with numbered hooks; whose hook is taken takes the next free one, and when a coat goes those that had
 * to step aside move back (as in flights.ts, which hangs up objects).
 * Not a `Map`: its every look goes through a list of entries in order of arrival, which nobody here asks for, and one that is
 * always added to and deleted from builds itself anew all the time.
 * The hash is taken as it is: whoever hands it in has mixed its lower bits.
 * Source: linear probing, and deletion without gravestones: Knuth, TAOCP vol. 3, §6.4, Algorithms L and R.
 */
const hooksAtFirst = 64;

export class SlotsByHash {
  #hashes = new Uint32Array(hooksAtFirst);
  /** 0: a free hook, since no entry's slot is (see `firstSlot`). Invariant: at most half are taken. */
  #slots = new Uint32Array(hooksAtFirst);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** 0: it is not there. */
  get(hash: number): number {
    return this.#slots[this.#hookOf(hash)] as number;
  }

  /** `slot`: from 1. */
  set(hash: number, slot: number): void {
    const hook = this.#hookOf(hash);
    if (this.#slots[hook] === 0) this.#size++;
    this.#hashes[hook] = hash;
    this.#slots[hook] = slot;
    if (this.#size * 2 > this.#slots.length) this.#grow();
  }

  delete(hash: number): void {
    const hashes = this.#hashes;
    const slots = this.#slots;
    const mask = slots.length - 1;
    let free = this.#hookOf(hash);
    if (slots[free] === 0) return;
    this.#size--;
    for (let hook = (free + 1) & mask; slots[hook] !== 0; hook = (hook + 1) & mask) {
      const next = hashes[hook] as number;
      // Its own hook lies beyond the free one: it stays.
      if (((hook - next) & mask) < ((hook - free) & mask)) continue;
      hashes[free] = next;
      slots[free] = slots[hook] as number;
      free = hook;
    }
    slots[free] = 0;
  }

  clear(): void {
    this.#slots.fill(0);
    this.#size = 0;
  }

  /** Where it hangs, or would. */
  #hookOf(hash: number): number {
    const hashes = this.#hashes;
    const slots = this.#slots;
    const mask = slots.length - 1;
    let hook = hash & mask;
    while (slots[hook] !== 0 && hashes[hook] !== hash) hook = (hook + 1) & mask;
    return hook;
  }

  #grow(): void {
    const hashes = this.#hashes;
    const slots = this.#slots;
    this.#hashes = new Uint32Array(slots.length * 2);
    this.#slots = new Uint32Array(slots.length * 2);
    for (let hook = 0; hook < slots.length; hook++) {
      const slot = slots[hook] as number;
      if (slot === 0) continue;
      const to = this.#hookOf(hashes[hook] as number);
      this.#hashes[to] = hashes[hook] as number;
      this.#slots[to] = slot;
    }
  }
}
