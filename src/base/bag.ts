/**
 * Things that come and go, in no order: each knows its place, and the last one takes the place of one that leaves.
 *
 * Not a `Set`: one that many enter and leave grows a new table every few dozen times, and a table that V8 has once promoted keeps
 * its members and its successors from the young generation's collector, without end.
 */
export interface InBag {
  /** Its place in the bag; -1: in none. Set by the bag alone. */
  place: number;
}

export class Bag<T extends InBag> {
  /** Invariant: `#all[n].place === n`. */
  readonly #all: T[] = [];

  get size(): number {
    return this.#all.length;
  }

  get all(): readonly T[] {
    return this.#all;
  }

  add(item: T): void {
    item.place = this.#all.length;
    this.#all.push(item);
  }

  /** False: it had left. */
  delete(item: T): boolean {
    const { place } = item;
    if (place === -1) return false;
    const last = this.#all.pop() as T;
    if (last !== item) {
      this.#all[place] = last;
      last.place = place;
    }
    item.place = -1;
    return true;
  }

  /** Everybody leaves. */
  empty(): readonly T[] {
    const left = this.#all.splice(0);
    for (const item of left) item.place = -1;
    return left;
  }
}
