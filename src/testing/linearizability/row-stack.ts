/**
 * The rows of a search: each a state together with the optional operations used on the way there.
 *
 *     row:  state id | parent row | optional operation placed since the parent | used words …
 *
 * Rows live in one flat array that grows and shrinks at its end.
 */

/** A stack of rows; a row is known by its number from the bottom. */
export class RowStack {
  /** The parent of a base row, and the operation that led to it. */
  static readonly none = -1;
  readonly #rowWords: number;
  #words: Int32Array;
  #count = 0;

  constructor(usedWords: number) {
    this.#rowWords = head + usedWords;
    this.#words = new Int32Array(this.#rowWords * rowsAtFirst);
  }

  get count(): number {
    return this.#count;
  }

  push(row: { readonly stateId: number; readonly parent: number; readonly optional: number; readonly used: Int32Array }): void {
    const word = this.#count * this.#rowWords;
    if (word === this.#words.length) this.#grow();
    this.#words[word] = row.stateId;
    this.#words[word + 1] = row.parent;
    this.#words[word + 2] = row.optional;
    this.#words.set(row.used, word + head);
    this.#count += 1;
  }

  /** Drops this row and all above it. */
  dropFrom(row: number): void {
    this.#count = row;
  }

  stateIdOf(row: number): number {
    return this.#words[row * this.#rowWords] as number;
  }

  parentOf(row: number): number {
    return this.#words[row * this.#rowWords + 1] as number;
  }

  optionalOf(row: number): number {
    return this.#words[row * this.#rowWords + 2] as number;
  }

  copyUsedTo(used: Int32Array, row: number): void {
    const word = row * this.#rowWords + head;
    for (let i = 0; i < used.length; i++) used[i] = this.#words[word + i] as number;
  }

  #grow(): void {
    const words = new Int32Array(this.#words.length * 2);
    words.set(this.#words);
    this.#words = words;
  }
}

const head = 3;
const rowsAtFirst = 1024;
