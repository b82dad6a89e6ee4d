/**
 * S3-FIFO: three queues in order of arrival; what is asked for only once never gets past the small one.
 *
 * Intuition: a club with a small lobby. Nine of ten visitors are never seen again, so newcomers wait in the lobby; who is
 * asked for meanwhile, or is remembered from a visit not long ago (the ghosts), may go in.
 * Source: Yang et al., "FIFO Queues are All You Need for Cache Eviction", SOSP 2023, §4, Algorithm 1: a tenth for the
 * small queue, counters up to 3, as many ghosts as the main queue has entries. Weights are counted; ghosts are by number.
 */
import { Ghosts } from "./ghosts.ts";
import type { Policy } from "./policy.ts";
import { grown, SlotLists } from "./slot-lists.ts";

const small = 0;
const main = 1;
const frequencyMax = 3;

export class S3Fifo implements Policy {
  readonly needsHash = true;
  readonly #lists = new SlotLists();
  readonly #smallMax: number;
  /** Never more than entries of the main queue (at least one). */
  readonly #ghosts = new Ghosts();
  #frequency = new Uint8Array(0);
  #isMain = new Uint8Array(0);
  #hashes = new Uint32Array(0);
  #weights = new Float64Array(0);
  #smallWeight = 0;
  #mainCount = 0;

  constructor(weightMax: number) {
    this.#smallMax = Math.max(1, weightMax / 10);
  }

  grow(slots: number): void {
    this.#lists.grow(slots);
    this.#frequency = grown(this.#frequency, slots);
    this.#isMain = grown(this.#isMain, slots);
    this.#hashes = grown(this.#hashes, slots);
    this.#weights = grown(this.#weights, slots);
  }

  insert(slot: number, hash: number, weight: number): void {
    this.#frequency[slot] = 0;
    this.#hashes[slot] = hash;
    this.#weights[slot] = weight;
    if (this.#ghosts.delete(hash)) {
      this.#enterMain(slot);
    } else {
      this.#isMain[slot] = 0;
      this.#lists.add(small, slot);
      this.#smallWeight += weight;
    }
  }

  hit(slot: number): void {
    const frequency = this.#frequency[slot] as number;
    if (frequency < frequencyMax) this.#frequency[slot] = frequency + 1;
  }

  reweigh(slot: number, weight: number): void {
    if (this.#isMain[slot] === 0) this.#smallWeight += weight - (this.#weights[slot] as number);
    this.#weights[slot] = weight;
  }

  victim(): number {
    for (;;) {
      const waiting = this.#lists.oldest(small);
      if (waiting !== small && (this.#smallWeight >= this.#smallMax || this.#mainCount === 0)) {
        // Seen again while it waited: more than once, as in the paper.
        if ((this.#frequency[waiting] as number) <= 1) return waiting;
        this.#lists.remove(waiting);
        this.#smallWeight -= this.#weights[waiting] as number;
        this.#frequency[waiting] = 0;
        this.#enterMain(waiting);
        continue;
      }
      const oldest = this.#lists.oldest(main);
      const frequency = this.#frequency[oldest] as number;
      if (frequency === 0) return oldest;
      this.#frequency[oldest] = frequency - 1;
      this.#lists.move(main, oldest);
    }
  }

  remove(slot: number, isDisplaced: boolean): void {
    this.#lists.remove(slot);
    if (this.#isMain[slot] === 1) {
      this.#mainCount--;
      return;
    }
    this.#smallWeight -= this.#weights[slot] as number;
    if (!isDisplaced) return;
    this.#ghosts.add(this.#hashes[slot] as number);
    if (this.#ghosts.size > Math.max(1, this.#mainCount)) this.#ghosts.deleteOldest();
  }

  clear(): void {
    this.#lists.clear();
    this.#ghosts.clear();
    this.#smallWeight = 0;
    this.#mainCount = 0;
  }

  #enterMain(slot: number): void {
    this.#isMain[slot] = 1;
    this.#lists.add(main, slot);
    this.#mainCount++;
  }
}
