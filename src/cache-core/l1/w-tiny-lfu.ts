/**
 * W-TinyLFU: a small window for newcomers, and a main part that lets in only what is asked for more often than what leaves.
 *
 *     new ──► window (LRU) ──► candidate ──┐ asked for more often?   main: probation ──hit──► protected
 *                                          └── yes: the victim goes ──►       ▲◄───── overflow ─────┘
 *                                              no: the candidate goes
 *
 * Sources: Einziger, Friedman and Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", ACM ToS 13(4), 2017, §4;
 * an adaptive window: Einziger, Eytan, Friedman and Manes, "Adaptive Software Cache Management", Middleware 2018.
 * Ours differs in two things. A resident's frequency lives in a byte of its slot and goes to the sketch when it leaves, so
 * a hit hashes nothing. And the window's size is not climbed to in steps: small shadow caches try sizes beside it (see
 * `shadows.ts`), because climbing reacts only after ten times the cache's size.
 */
import { FrequencySketch, frequencyMax } from "./frequency-sketch.ts";
import { firstSlot, type Policy } from "./policy.ts";
import { grown, SlotLists } from "./slot-lists.ts";

/** Finds out how large the window should be. */
export interface WindowTuner {
  /** It wants to hear of uses of keys whose hash is below this, and of no other. */
  readonly sampledBelow: number;
  /** Of a use of a key. Answers the share that the window should have from now on, where that changes. */
  use(hash: number, weight: number): number | undefined;
  /** An entry was displaced for want of room, and `count` are left. */
  noteFull(count: number): void;
}

export interface WTinyLfuOptions {
  readonly weightMax: number;
  readonly random?: (() => number) | undefined;
  /** The window's share of the whole, to begin with. Default 0.01. */
  readonly windowShare?: number | undefined;
  /** Default: the window stays as it is. */
  readonly tuner?: WindowTuner | undefined;
}

const window = 0;
const probation = 1;
const guarded = 2;
/** Of the main part (Caffeine's figure). */
const protectedShare = 0.8;
/** Caffeine's figure. */
export const windowShareAtFirst = 0.01;
/** Uses, as a multiple of the entries, after which all counts are halved (TinyLFU §3.3). */
const agingUses = 10;
/** The cache is roomy until it holds this part of what fits. */
const roomyPart = 8;
/** Counts from which a refused candidate gets in by luck, once in 128: else a collision could be turned into a lock-out. */
const luckyFrequency = 6;

export class WTinyLfu implements Policy {
  readonly needsHash = true;
  readonly #lists = new SlotLists();
  readonly #weightMax: number;
  readonly #random: (() => number) | undefined;
  readonly #tuner: WindowTuner | undefined;
  #sketch = new FrequencySketch(firstSlot);
  #capacity = 0;
  #hashes = new Uint32Array(0);
  #frequencies = new Uint8Array(0);
  /** By slot: the head of the list that it stands in. */
  #regions = new Uint8Array(0);
  #weights = new Float64Array(0);
  readonly #regionWeights = new Float64Array(3);
  #windowMax = 0;
  #guardedMax = 0;
  #count = 0;
  #uses = 0;
  #agingAt = agingUses * firstSlot;
  #weight = 0;
  /**
   * At most an eighth of the room is taken: nobody will have to go soon, and a hit notes nothing, which is a quarter of what it
   * costs. By the time that the room is full most have been asked for again. (A half cost eight tenths of a point on one trace.)
   */
  #isRoomy = true;

  constructor({ weightMax, random, windowShare = windowShareAtFirst, tuner }: WTinyLfuOptions) {
    this.#weightMax = weightMax;
    this.#random = random;
    this.#tuner = tuner;
    this.#setWindow(windowShare);
  }

  grow(slots: number): void {
    this.#capacity = slots;
    this.#lists.grow(slots);
    this.#hashes = grown(this.#hashes, slots);
    this.#frequencies = grown(this.#frequencies, slots);
    this.#regions = grown(this.#regions, slots);
    this.#weights = grown(this.#weights, slots);
    // What was counted before is little, and of a cache that was not yet full.
    this.#sketch = new FrequencySketch(slots);
  }

  insert(slot: number, hash: number, weight: number): void {
    this.#hashes[slot] = hash;
    this.#weights[slot] = weight;
    this.#frequencies[slot] = this.#sketch.add(hash);
    this.#resize(this.#count + 1, weight);
    this.#enter(window, slot);
    this.#used(slot);
  }

  hit(slot: number): void {
    if (this.#isRoomy) return;
    const frequency = this.#frequencies[slot] as number;
    if (frequency < frequencyMax) this.#frequencies[slot] = frequency + 1;
    const region = this.#regions[slot] as number;
    if (region === probation) this.#promote(slot);
    else this.#lists.move(region, slot);
    this.#used(slot);
  }

  reweigh(slot: number, weight: number): void {
    this.#regionWeights[this.#regions[slot] as number]! += weight - (this.#weights[slot] as number);
    this.#resize(this.#count, weight - (this.#weights[slot] as number));
    this.#weights[slot] = weight;
  }

  victim(): number {
    const candidate = this.#overflow();
    const victim = this.#oldestOfMain();
    if (victim === undefined) return this.#lists.oldest(window);
    if (candidate === undefined || candidate === victim) return victim;
    return this.#isAdmitted(candidate, victim) ? victim : candidate;
  }

  remove(slot: number, isDisplaced: boolean): void {
    this.#leave(slot);
    this.#resize(this.#count - 1, -(this.#weights[slot] as number));
    if (!isDisplaced) return;
    this.#sketch.raise(this.#hashes[slot] as number, this.#frequencies[slot] as number);
    this.#tuner?.noteFull(this.#count);
  }

  clear(): void {
    this.#lists.clear();
    this.#sketch.clear();
    this.#regionWeights.fill(0);
    this.#resize(0, -this.#weight);
    this.#uses = 0;
  }

  #isAdmitted(candidate: number, victim: number): boolean {
    const frequency = this.#frequencies[candidate] as number;
    if (frequency > (this.#frequencies[victim] as number)) return true;
    return frequency >= luckyFrequency && this.#random !== undefined && (this.#random() & 127) === 0;
  }

  /** The window gives up what it has too much; the last that left it is the candidate. */
  #overflow(): number | undefined {
    let candidate: number | undefined;
    while ((this.#regionWeights[window] as number) > this.#windowMax) {
      candidate = this.#lists.oldest(window);
      this.#leave(candidate);
      this.#enter(probation, candidate);
    }
    return candidate;
  }

  #oldestOfMain(): number | undefined {
    const oldest = this.#lists.oldest(probation);
    if (oldest !== probation) return oldest;
    const kept = this.#lists.oldest(guarded);
    return kept === guarded ? undefined : kept;
  }

  /** Another count of entries, and so much more weight. */
  #resize(count: number, more: number): void {
    this.#count = count;
    this.#agingAt = agingUses * Math.max(count, firstSlot);
    this.#weight += more;
    this.#isRoomy = this.#weight <= this.#weightMax / roomyPart;
  }

  #promote(slot: number): void {
    this.#leave(slot);
    this.#enter(guarded, slot);
    this.#demote();
  }

  #demote(): void {
    while ((this.#regionWeights[guarded] as number) > this.#guardedMax) {
      const slot = this.#lists.oldest(guarded);
      this.#leave(slot);
      this.#enter(probation, slot);
    }
  }

  #enter(region: number, slot: number): void {
    this.#lists.add(region, slot);
    this.#regions[slot] = region;
    this.#regionWeights[region]! += this.#weights[slot] as number;
  }

  #leave(slot: number): void {
    this.#lists.remove(slot);
    this.#regionWeights[this.#regions[slot] as number]! -= this.#weights[slot] as number;
  }

  #used(slot: number): void {
    if (++this.#uses >= this.#agingAt) this.#age();
    const tuner = this.#tuner;
    if (tuner !== undefined && tuner.sampledBelow !== 0) this.#tune(tuner, slot);
  }

  #tune(tuner: WindowTuner, slot: number): void {
    const hash = this.#hashes[slot] as number;
    if (hash >= tuner.sampledBelow) return;
    const share = tuner.use(hash, this.#weights[slot] as number);
    if (share !== undefined) this.#setWindow(share);
  }

  #age(): void {
    this.#uses >>= 1;
    this.#sketch.halve();
    const frequencies = this.#frequencies;
    for (let slot = firstSlot; slot < this.#capacity; slot++) frequencies[slot] = (frequencies[slot] as number) >> 1;
  }

  #setWindow(share: number): void {
    this.#windowMax = Math.max(1, Math.floor(this.#weightMax * share));
    this.#guardedMax = Math.floor((this.#weightMax - this.#windowMax) * protectedShare);
    this.#demote();
  }
}
