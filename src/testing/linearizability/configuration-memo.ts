/**
 * Remembers the configurations a search has been in, so that no part of it is done twice.
 *
 * A configuration is what the future depends on and nothing else: which required operations are placed, which optional ones are used
 * up, and the state. The first of these is the pair (first id not placed, mask of the open operations placed); see `timeline.ts`.
 *
 *     row:  placedBelow | stateId | mask words … | used words … | next row of the same bucket
 *
 * Source: the memo of Lowe 2017, with one thing added. Having used fewer optional operations is never worse, since an optional
 * operation may be left out. A configuration that differs from a remembered one only by having used more is therefore not new.
 */

/** Where a search stands. The memo copies what it keeps, so one object can be reused for every call. */
export interface Configuration {
  /** Every required id below this one is placed, and this one is not. */
  placedBelow: number;
  stateId: number;
  /** By slot: the open required operations that are placed. */
  readonly mask: Int32Array;
  /** By optional id: the optional operations that are placed. */
  readonly used: Int32Array;
}

/** A hash table of configurations in flat arrays: no object and no text per entry. */
export class ConfigurationMemo {
  readonly #maskWords: number;
  readonly #rowWords: number;
  #rows: Int32Array;
  /** Invariant: a power of two long, and longer than the number of rows. Holds the latest row of each bucket, or -1. */
  #buckets: Int32Array;
  #count = 0;

  constructor(words: { readonly mask: number; readonly used: number }) {
    this.#maskWords = words.mask;
    this.#rowWords = 2 + words.mask + words.used + 1;
    this.#rows = new Int32Array(rowsAtFirst * this.#rowWords);
    this.#buckets = new Int32Array(rowsAtFirst * 2).fill(-1);
  }

  /** How many configurations are kept. */
  get count(): number {
    return this.#count;
  }

  /** Keeps the configuration and returns true, unless one at least as good is kept already. */
  add(configuration: Configuration): boolean {
    const { placedBelow, stateId, mask } = configuration;
    let hash = mix(mix(0, placedBelow), stateId);
    for (let i = 0; i < mask.length; i++) hash = mix(hash, mask[i] as number);
    const bucket = finish(hash) & (this.#buckets.length - 1);
    for (let row = this.#buckets[bucket] as number; row !== -1; row = this.#nextOf(row)) {
      if (this.#covers(row, configuration)) return false;
    }
    this.#append(configuration, bucket);
    return true;
  }

  #nextOf(row: number): number {
    return this.#rows[(row + 1) * this.#rowWords - 1] as number;
  }

  #covers(row: number, { placedBelow, stateId, mask, used }: Configuration): boolean {
    const rows = this.#rows;
    let word = row * this.#rowWords;
    if (rows[word++] !== placedBelow || rows[word++] !== stateId) return false;
    for (let i = 0; i < mask.length; i++) if (rows[word++] !== mask[i]) return false;
    for (let i = 0; i < used.length; i++) if (((rows[word++] as number) & ~(used[i] as number)) !== 0) return false;
    return true;
  }

  #append({ placedBelow, stateId, mask, used }: Configuration, bucket: number): void {
    const word = this.#count * this.#rowWords;
    this.#rows[word] = placedBelow;
    this.#rows[word + 1] = stateId;
    this.#rows.set(mask, word + 2);
    this.#rows.set(used, word + 2 + mask.length);
    this.#link(this.#count, bucket);
    this.#count += 1;
    // Grown after the append: the bucket at hand was computed for the size before.
    if (this.#count * 2 === this.#buckets.length) this.#grow();
  }

  #link(row: number, bucket: number): void {
    this.#rows[(row + 1) * this.#rowWords - 1] = this.#buckets[bucket] as number;
    this.#buckets[bucket] = row;
  }

  #grow(): void {
    const rows = new Int32Array(this.#rows.length * 2);
    rows.set(this.#rows);
    this.#rows = rows;
    this.#buckets = new Int32Array(this.#buckets.length * 2).fill(-1);
    for (let row = 0; row < this.#count; row++) this.#link(row, this.#hashOf(row) & (this.#buckets.length - 1));
  }

  #hashOf(row: number): number {
    const start = row * this.#rowWords;
    let hash = 0;
    for (let i = 0; i < 2 + this.#maskWords; i++) hash = mix(hash, this.#rows[start + i] as number);
    return finish(hash);
  }
}

const rowsAtFirst = 1024;

/** One round of MurmurHash3 over a word. */
function mix(hash: number, word: number): number {
  let k = Math.imul(word, 0xcc9e2d51);
  k = Math.imul((k << 15) | (k >>> 17), 0x1b873593);
  const h = hash ^ k;
  return Math.imul((h << 13) | (h >>> 19), 5) + 0xe6546b64;
}

/** The finalizer of MurmurHash3: spreads every bit over the low ones, which choose the bucket. */
function finish(hash: number): number {
  let h = hash ^ (hash >>> 16);
  h = Math.imul(h, 0x85ebca6b);
  h ^= h >>> 13;
  h = Math.imul(h, 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
