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
  /** It wants to hear of uses of keys whose hash is below this, and of no other. 0 until it knows; then it stays as it is. */
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
/**
 * What is known of a slot, in one byte, because each further array that a hit reads is one more place of memory:
 *
 *     | - | sampled | region (2 bits) | frequency (4 bits) |
 */
const frequencyBits = 0x0f;
const regionShift = 4;
const regionBits = 0x30;
const sampledBit = 0x40;
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
  /** By slot: how often it was used, the head of the list that it stands in, and whether the tuner hears of it. */
  #marks = new Uint8Array(0);
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
  #sampledBelow = 0;

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
    this.#marks = grown(this.#marks, slots);
    this.#weights = grown(this.#weights, slots);
    // What was counted before is little, and of a cache that was not yet full.
    this.#sketch = new FrequencySketch(slots);
  }

  insert(slot: number, hash: number, weight: number): void {
    this.#hashes[slot] = hash;
    this.#weights[slot] = weight;
    this.#marks[slot] = this.#sketch.add(hash) | (hash < this.#sampledBelow ? sampledBit : 0);
    this.#resize(this.#count + 1, weight);
    this.#enter(window, slot);
    this.#used(slot);
  }

  hit(slot: number): void {
    if (this.#isRoomy) return;
    const mark = this.#marks[slot] as number;
    if ((mark & frequencyBits) < frequencyMax) this.#marks[slot] = mark + 1;
    const region = regionOf(mark);
    if (region === probation) this.#promote(slot);
    else this.#lists.move(region, slot);
    this.#used(slot);
  }

  reweigh(slot: number, weight: number): void {
    this.#regionWeights[regionOf(this.#marks[slot] as number)]! += weight - (this.#weights[slot] as number);
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
    this.#sketch.raise(this.#hashes[slot] as number, this.#frequencyOf(slot));
    if (this.#tuner !== undefined && this.#sampledBelow === 0) this.#startSampling(this.#tuner);
  }

  clear(): void {
    this.#lists.clear();
    this.#sketch.clear();
    this.#regionWeights.fill(0);
    this.#resize(0, -this.#weight);
    this.#uses = 0;
  }

  #isAdmitted(candidate: number, victim: number): boolean {
    const frequency = this.#frequencyOf(candidate);
    if (frequency > this.#frequencyOf(victim)) return true;
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
    this.#marks[slot] = ((this.#marks[slot] as number) & ~regionBits) | (region << regionShift);
    this.#regionWeights[region]! += this.#weights[slot] as number;
  }

  #leave(slot: number): void {
    this.#lists.remove(slot);
    this.#regionWeights[regionOf(this.#marks[slot] as number)]! -= this.#weights[slot] as number;
  }

  #frequencyOf(slot: number): number {
    return (this.#marks[slot] as number) & frequencyBits;
  }

  #used(slot: number): void {
    if (++this.#uses >= this.#agingAt) this.#age();
    if (((this.#marks[slot] as number) & sampledBit) !== 0) this.#tune(slot);
  }

  #tune(slot: number): void {
    const share = this.#tuner?.use(this.#hashes[slot] as number, this.#weights[slot] as number);
    if (share !== undefined) this.#setWindow(share);
  }

  /** The tuner knows by the first entry that is displaced. */
  #startSampling(tuner: WindowTuner): void {
    tuner.noteFull(this.#count);
    const below = tuner.sampledBelow;
    this.#sampledBelow = below;
    for (let slot = firstSlot; slot < this.#capacity; slot++) {
      if ((this.#hashes[slot] as number) < below) this.#marks[slot]! |= sampledBit;
    }
  }

  #age(): void {
    this.#uses >>= 1;
    this.#sketch.halve();
    const marks = this.#marks;
    for (let slot = firstSlot; slot < this.#capacity; slot++) {
      const mark = marks[slot] as number;
      marks[slot] = (mark & ~frequencyBits) | ((mark & frequencyBits) >> 1);
    }
  }

  #setWindow(share: number): void {
    this.#windowMax = Math.max(1, Math.floor(this.#weightMax * share));
    this.#guardedMax = Math.floor((this.#weightMax - this.#windowMax) * protectedShare);
    this.#demote();
  }
}

function regionOf(mark: number): number {
  return (mark & regionBits) >> regionShift;
}
