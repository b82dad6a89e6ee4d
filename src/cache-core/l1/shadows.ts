/**
 * Small caches beside the real one that try out how large its window should be.
 *
 * Intuition: test kitchens. A fixed sample of the keys (chosen by hash) goes through miniature caches, each with another
 * size of window and room in proportion to the sample; whichever serves its sample best shows what the real one would do.
 * From a window of 1 % (frequency rules) to nearly all (LRU), so the real cache is never much worse than either.
 * Source: Waldspurger, Saemundsson, Ahmad and Park, "Cache Modeling and Optimization using Miniature Simulations",
 * USENIX ATC 2017, §3; used for W-TinyLFU's window by Einziger et al., Middleware 2018, §3.3 (there "mini-sim").
 */
import { firstSlot } from "./policy.ts";
import { SlotsByHash } from "./slots-by-hash.ts";
import { type WindowTuner, WTinyLfu, windowShareAtFirst } from "./w-tiny-lfu.ts";

/** The sizes that are tried. */
export const windowShares: readonly number[] = [windowShareAtFirst, 0.2, 0.6, 0.99];
/** Entries of a shadow: enough to be right to a point, few enough to cost little. */
const entriesOfShadow = 256;
/** Sampled uses between two decisions, as a multiple of a shadow's entries. */
const usesPerDecision = 2;
/** What of the past counts in the next decision. */
const memory = 0.8;
/** By how much of the uses another size must be better before the window moves: else noise would move it. */
const margin = 0.005;

export class Shadows implements WindowTuner {
  readonly #weightMax: number;
  #shadows: readonly Shadow[] = [];
  /** Keys whose hash is below it are in the sample. 0 until the cache is full for the first time. */
  sampledBelow = 0;
  #current = 0;
  #uses = 0;
  #usesRemembered = 0;
  #usesPerDecision = 0;

  constructor(weightMax: number) {
    this.#weightMax = weightMax;
  }

  use(hash: number, weight: number): number | undefined {
    if (hash >= this.sampledBelow) return undefined;
    for (const shadow of this.#shadows) shadow.use(hash, weight);
    return ++this.#uses < this.#usesPerDecision ? undefined : this.#decide();
  }

  /** The first time, it becomes known how many entries fit. */
  noteFull(count: number): void {
    if (this.sampledBelow !== 0 || count === 0) return;
    const share = Math.min(1, entriesOfShadow / count);
    this.sampledBelow = Math.floor(share * 2 ** 32);
    this.#usesPerDecision = usesPerDecision * Math.ceil(share * count);
    this.#shadows = windowShares.map((windowShare) => new Shadow(Math.max(1, this.#weightMax * share), windowShare));
  }

  #decide(): number | undefined {
    this.#usesRemembered = this.#usesRemembered * memory + this.#uses;
    this.#uses = 0;
    const scores = this.#shadows.map((shadow) => shadow.score());
    const best = scores.indexOf(Math.max(...scores));
    const lead = (scores[best] as number) - (scores[this.#current] as number);
    if (best === this.#current || lead <= margin * this.#usesRemembered) return undefined;
    this.#current = best;
    return windowShares[best];
  }
}

class Shadow {
  readonly #policy: WTinyLfu;
  readonly #slots = new SlotsByHash();
  readonly #free: number[] = [];
  readonly #weightMax: number;
  #hashes: number[] = [];
  #weights: number[] = [];
  #slotsEnd = firstSlot;
  #capacity = 2 * entriesOfShadow;
  #weight = 0;
  #hits = 0;
  #hitsRemembered = 0;

  constructor(weightMax: number, windowShare: number) {
    this.#weightMax = weightMax;
    this.#policy = new WTinyLfu({ weightMax, windowShare });
    this.#policy.grow(this.#capacity);
  }

  use(hash: number, weight: number): void {
    const slot = this.#slots.get(hash);
    if (slot !== 0) {
      this.#hits++;
      this.#policy.hit(slot);
      return;
    }
    if (weight > this.#weightMax) return;
    this.#insert(hash, weight);
    while (this.#weight > this.#weightMax) this.#displace(this.#policy.victim());
  }

  /** Hits, those of long ago counting less. */
  score(): number {
    this.#hitsRemembered = this.#hitsRemembered * memory + this.#hits;
    this.#hits = 0;
    return this.#hitsRemembered;
  }

  #insert(hash: number, weight: number): void {
    const slot = this.#free.pop() ?? this.#slotsEnd++;
    if (slot >= this.#capacity) {
      this.#capacity *= 2;
      this.#policy.grow(this.#capacity);
    }
    this.#slots.set(hash, slot);
    this.#hashes[slot] = hash;
    this.#weights[slot] = weight;
    this.#weight += weight;
    this.#policy.insert(slot, hash, weight);
  }

  #displace(slot: number): void {
    this.#slots.delete(this.#hashes[slot] as number);
    this.#weight -= this.#weights[slot] as number;
    this.#policy.remove(slot, true);
    this.#free.push(slot);
  }
}
