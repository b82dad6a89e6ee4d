/**
 * Ordered lists of ids that give up an id and take it back in O(1), as often as a backtracking search likes.
 *
 * Intuition: Knuth's dancing links. An id that was lifted still remembers its neighbours, so putting it back is two writes.
 *
 *     end of list 0 ⇄ 4 ⇄ 0 ⇄ 7 ⇄ end of list 0        a ring per list; an id in no list is a ring of itself
 *
 * Source: the `lift` and `unlift` of Lowe, "Testing for linearizability", Concurrency and Computation 2017.
 * Assumes ids come back in the opposite order of their leaving.
 */

/** Lists over the ids `0..idsCount-1`; every id is in one list at most. */
export class DancingLists {
  readonly #idsCount: number;
  readonly #next: Int32Array;
  readonly #previous: Int32Array;

  constructor(idsCount: number, lists: readonly Iterable<number>[]) {
    this.#idsCount = idsCount;
    this.#next = Int32Array.from({ length: idsCount + lists.length }, (_, id) => id);
    this.#previous = this.#next.slice();
    for (const [list, ids] of lists.entries()) for (const id of ids) this.#putBefore(this.endOf(list), id);
  }

  /** What `first` and `after` return behind the last id of the list. */
  endOf(list: number): number {
    return this.#idsCount + list;
  }

  first(list: number): number {
    return this.#next[this.#idsCount + list] as number;
  }

  after(id: number): number {
    return this.#next[id] as number;
  }

  lift(id: number): void {
    const next = this.#next[id] as number;
    const previous = this.#previous[id] as number;
    this.#next[previous] = next;
    this.#previous[next] = previous;
  }

  unlift(id: number): void {
    this.#next[this.#previous[id] as number] = id;
    this.#previous[this.#next[id] as number] = id;
  }

  #putBefore(end: number, id: number): void {
    this.#previous[id] = this.#previous[end] as number;
    this.#next[id] = end;
    this.unlift(id);
  }
}
