/**
 * How often keys were asked for lately, in a few bytes per entry: a count-min sketch of small counters that age.
 *
 * Intuition: four walls of tally marks. A key has one place on each wall, others may share it, so the lowest of its four
 * counts is the nearest to the truth; now and then every count is halved, so that old fame fades.
 *
 *     block of 64 bytes, chosen by the hash:  | row 0: 16 counters | row 1 | row 2 | row 3 |
 *
 * The four places of a key lie in one block, which is one line of the processor's cache (as in Caffeine's sketch).
 * Sources: Cormode and Muthukrishnan, "An Improved Data Stream Summary", J. Algorithms 55 (2005); conservative update:
 * Estan and Varghese, SIGCOMM 2002 §3.3; aging: Einziger, Friedman and Manes, "TinyLFU", ACM ToS 13(4), 2017, §3.
 */
import { fmix32 } from "../../hash/murmur3.ts";

export const frequencyMax = 15;
const blockBytes = 64;
const bytesPerEntry = 16;

export class FrequencySketch {
  readonly #counters: Uint8Array;
  /** The same bytes, four at a time. */
  readonly #quads: Uint32Array;
  readonly #mask: number;

  constructor(entries: number) {
    const blocks = 2 ** Math.ceil(Math.log2(Math.max(16, (entries * bytesPerEntry) / blockBytes)));
    this.#mask = blocks - 1;
    this.#counters = new Uint8Array(blocks * blockBytes);
    this.#quads = new Uint32Array(this.#counters.buffer);
  }

  /** One more; answers the count it then has. */
  add(hash: number): number {
    const counters = this.#counters;
    const spread = fmix32(hash ^ 0x3c6ef372);
    const block = (hash & this.#mask) * blockBytes;
    const first = block + (spread & 15);
    const second = block + 16 + ((spread >>> 8) & 15);
    const third = block + 32 + ((spread >>> 16) & 15);
    const fourth = block + 48 + (spread >>> 28);
    const least = Math.min(
      counters[first] as number,
      counters[second] as number,
      counters[third] as number,
      counters[fourth] as number,
    );
    if (least >= frequencyMax) return frequencyMax;
    // Only the lowest of them rise.
    if (counters[first] === least) counters[first] = least + 1;
    if (counters[second] === least) counters[second] = least + 1;
    if (counters[third] === least) counters[third] = least + 1;
    if (counters[fourth] === least) counters[fourth] = least + 1;
    return least + 1;
  }

  count(hash: number): number {
    const counters = this.#counters;
    const spread = fmix32(hash ^ 0x3c6ef372);
    const block = (hash & this.#mask) * blockBytes;
    const first = counters[block + (spread & 15)] as number;
    const second = counters[block + 16 + ((spread >>> 8) & 15)] as number;
    const third = counters[block + 32 + ((spread >>> 16) & 15)] as number;
    const fourth = counters[block + 48 + (spread >>> 28)] as number;
    return Math.min(first, second, third, fourth);
  }

  /** Says that it was at least this many. */
  raise(hash: number, count: number): void {
    const spread = fmix32(hash ^ 0x3c6ef372);
    const block = (hash & this.#mask) * blockBytes;
    this.#raiseAt(block + (spread & 15), count);
    this.#raiseAt(block + 16 + ((spread >>> 8) & 15), count);
    this.#raiseAt(block + 32 + ((spread >>> 16) & 15), count);
    this.#raiseAt(block + 48 + (spread >>> 28), count);
  }

  halve(): void {
    const quads = this.#quads;
    // What a byte shifts out into its neighbour is masked off.
    for (let at = 0; at < quads.length; at++) quads[at] = ((quads[at] as number) >>> 1) & 0x7f7f7f7f;
  }

  clear(): void {
    this.#counters.fill(0);
  }

  #raiseAt(at: number, count: number): void {
    if ((this.#counters[at] as number) < count) this.#counters[at] = count;
  }
}
