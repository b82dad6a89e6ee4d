/**
 * How often keys were asked for lately, in a few bytes per entry: a count-min sketch of small counters that age.
 *
 * Intuition: four walls of tally marks. A key has one place on each wall, others may share it, so the lowest of its four
 * counts is the nearest to the truth; now and then every count is halved, so that old fame fades.
 * Sources: Cormode and Muthukrishnan, "An Improved Data Stream Summary", J. Algorithms 55 (2005); conservative update:
 * Estan and Varghese, SIGCOMM 2002 §3.3; aging: Einziger, Friedman and Manes, "TinyLFU", ACM ToS 13(4), 2017, §3.
 */
import { fmix32 } from "../../hash/murmur3.ts";

export const frequencyMax = 15;
const rows = 4;

export class FrequencySketch {
  readonly #counters: Uint8Array;
  readonly #mask: number;

  constructor(entries: number) {
    const width = 2 ** Math.ceil(Math.log2(Math.max(64, entries * 4)));
    this.#mask = width - 1;
    this.#counters = new Uint8Array(width * rows);
  }

  /** One more; answers the count it then has. */
  add(hash: number): number {
    const count = Math.min(frequencyMax, this.count(hash) + 1);
    this.raise(hash, count);
    return count;
  }

  count(hash: number): number {
    const [counters, mask] = [this.#counters, this.#mask];
    const spread = fmix32(hash ^ 0x3c6ef372);
    let lowest = frequencyMax;
    for (let row = 0; row < rows; row++) {
      const counter = counters[row * (mask + 1) + ((hash + row * spread) & mask)] as number;
      if (counter < lowest) lowest = counter;
    }
    return lowest;
  }

  /** Says that it was at least this many. */
  raise(hash: number, count: number): void {
    const [counters, mask] = [this.#counters, this.#mask];
    const spread = fmix32(hash ^ 0x3c6ef372);
    for (let row = 0; row < rows; row++) {
      const at = row * (mask + 1) + ((hash + row * spread) & mask);
      if ((counters[at] as number) < count) counters[at] = count;
    }
  }

  halve(): void {
    const counters = this.#counters;
    for (let at = 0; at < counters.length; at++) counters[at] = (counters[at] as number) >> 1;
  }

  clear(): void {
    this.#counters.fill(0);
  }
}
