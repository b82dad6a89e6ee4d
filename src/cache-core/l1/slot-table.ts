/**
 * The entries of an L1: a map from keys to slots, and parallel arrays for what belongs to a slot.
 *
 * Intuition: a cloakroom. The map remembers the number on the ticket; everything else hangs on numbered hooks, and the
 * policy reads hook numbers only. A hit is one look into the map and a few bytes in typed arrays.
 * Expiry costs no timer: it is checked when an entry is read, and every `set` looks at the next few hooks for what is over.
 */
import { conclaveError } from "../../base/errors.ts";
import { murmur3 } from "../../hash/murmur3.ts";
import type { L1 } from "./l1.ts";
import { firstSlot, type Policy } from "./policy.ts";
import { grown } from "./slot-lists.ts";

export interface SlotTableOptions {
  readonly policy: Policy;
  readonly weightMax: number;
  /** Every entry weighs 1, whatever `set` says. */
  readonly isCounting: boolean;
  readonly now: () => number;
  readonly onRemove: ((key: string, value: unknown) => void) | undefined;
}

/** Hooks that each `set` looks at for entries that are over: in the time of a quarter of the entries' arrivals all are seen. */
const sweptPerSet = 4;
const slotsAtFirst = 64;
const never = Number.POSITIVE_INFINITY;

export class SlotTable<V> implements L1<V> {
  readonly #slots = new Map<string, number>();
  readonly #policy: Policy;
  readonly #weightMax: number;
  readonly #isCounting: boolean;
  readonly #now: () => number;
  readonly #onRemove: ((key: string, value: unknown) => void) | undefined;
  #keys: (string | undefined)[] = [];
  #values: (V | undefined)[] = [];
  /** Undefined while every entry weighs 1. */
  #weights: Float64Array | undefined;
  /** Undefined while nothing can expire. */
  #expiries: Float64Array | undefined;
  readonly #free: number[] = [];
  #slotsEnd = firstSlot;
  #capacity = 0;
  #weight = 0;
  #hand = firstSlot;
  /**
   * A key that was looked for in vain, and is not there: whoever stores it next, as most do, need not look again, which is a
   * tenth of what a miss costs. Forgotten when something is stored.
   */
  #absent: string | undefined;

  constructor({ policy, weightMax, isCounting, now, onRemove }: SlotTableOptions) {
    this.#policy = policy;
    this.#weightMax = weightMax;
    this.#isCounting = isCounting;
    this.#now = now;
    this.#onRemove = onRemove;
    this.#grow(slotsAtFirst);
  }

  get size(): number {
    return this.#slots.size;
  }

  get weight(): number {
    return this.#weight;
  }

  get(key: string): V | undefined {
    const slot = this.#slots.get(key);
    if (slot === undefined) {
      this.#absent = key;
      return undefined;
    }
    if (this.#expiries !== undefined && this.#isOver(slot, this.#expiries)) {
      this.#remove(key, slot, false);
      return undefined;
    }
    this.#policy.hit(slot);
    return this.#values[slot];
  }

  peek(key: string): V | undefined {
    const slot = this.#slots.get(key);
    if (slot === undefined) {
      this.#absent = key;
      return undefined;
    }
    if (this.#expiries !== undefined && this.#isOver(slot, this.#expiries)) return undefined;
    return this.#values[slot];
  }

  set(key: string, value: V, weight = 1, expiresMs = never): void {
    const weighs = this.#isCounting ? 1 : weight;
    if (!(weighs >= 0)) throw conclaveError("INVALID_OPTION", `The weight of an entry must be a number from 0; got ${weighs}.`);
    if (Number.isNaN(expiresMs)) throw conclaveError("INVALID_OPTION", "`expiresMs` of an entry is NaN.");
    const slot = key === this.#absent ? undefined : this.#slots.get(key);
    if (weighs > this.#weightMax || (expiresMs !== never && expiresMs <= this.#now())) {
      if (slot !== undefined) this.#remove(key, slot, false);
      return;
    }
    if (slot === undefined) this.#insert(key, value, weighs, expiresMs);
    else this.#replace(slot, key, value, weighs, expiresMs);
    while (this.#weight > this.#weightMax) {
      const victim = this.#policy.victim();
      this.#remove(this.#keys[victim] as string, victim, true);
    }
    if (this.#expiries !== undefined) this.#sweepSlots(sweptPerSet, sweptPerSet);
  }

  delete(key: string): boolean {
    const slot = this.#slots.get(key);
    if (slot === undefined) return false;
    const wasThere = this.#expiries === undefined || !this.#isOver(slot, this.#expiries);
    this.#remove(key, slot, false);
    return wasThere;
  }

  clear(): void {
    if (this.#onRemove !== undefined) {
      for (const [key, slot] of this.#slots) this.#onRemove(key, this.#values[slot]);
    }
    this.#slots.clear();
    this.#policy.clear();
    this.#keys = [];
    this.#values = [];
    this.#free.length = 0;
    this.#slotsEnd = firstSlot;
    this.#weight = 0;
    this.#hand = firstSlot;
  }

  sweep(limit: number = never): number {
    return this.#expiries === undefined ? 0 : this.#sweepSlots(this.#slotsEnd, limit);
  }

  keys(): IterableIterator<string> {
    return this.#slots.keys();
  }

  #insert(key: string, value: V, weight: number, expiresMs: number): void {
    const slot = this.#free.pop() ?? this.#slotsEnd++;
    if (slot >= this.#capacity) this.#grow(this.#capacity * 2);
    this.#absent = undefined;
    this.#slots.set(key, slot);
    this.#keys[slot] = key;
    this.#values[slot] = value;
    this.#note(slot, weight, expiresMs);
    this.#weight += weight;
    this.#policy.insert(slot, this.#policy.needsHash ? murmur3(key) : 0, weight);
  }

  #replace(slot: number, key: string, value: V, weight: number, expiresMs: number): void {
    this.#onRemove?.(key, this.#values[slot]);
    this.#values[slot] = value;
    const before = this.#weights?.[slot] ?? 1;
    this.#note(slot, weight, expiresMs);
    if (weight !== before) {
      this.#weight += weight - before;
      this.#policy.reweigh(slot, weight);
    }
    this.#policy.hit(slot);
  }

  #note(slot: number, weight: number, expiresMs: number): void {
    if (this.#weights !== undefined) this.#weights[slot] = weight;
    else if (weight !== 1) this.#startWeighing(slot, weight);
    if (this.#expiries !== undefined) this.#expiries[slot] = expiresMs;
    else if (expiresMs !== never) this.#startExpiring(slot, expiresMs);
  }

  #startWeighing(slot: number, weight: number): void {
    this.#weights = new Float64Array(this.#capacity).fill(1);
    this.#weights[slot] = weight;
  }

  #startExpiring(slot: number, expiresMs: number): void {
    this.#expiries = new Float64Array(this.#capacity).fill(never);
    this.#expiries[slot] = expiresMs;
  }

  #remove(key: string, slot: number, isDisplaced: boolean): void {
    const value = this.#values[slot];
    this.#slots.delete(key);
    this.#keys[slot] = undefined;
    this.#values[slot] = undefined;
    this.#weight -= this.#weights?.[slot] ?? 1;
    if (this.#expiries !== undefined) this.#expiries[slot] = never;
    this.#policy.remove(slot, isDisplaced);
    this.#free.push(slot);
    this.#onRemove?.(key, value);
  }

  #isOver(slot: number, expiries: Float64Array): boolean {
    const expiresMs = expiries[slot] as number;
    return expiresMs !== never && expiresMs <= this.#now();
  }

  /** Looks at the next `looks` slots, all around at most, and takes out up to `limit`. */
  #sweepSlots(looks: number, limit: number): number {
    const expiries = this.#expiries as Float64Array;
    const nowMs = this.#now();
    let swept = 0;
    for (let look = 0; look < looks && swept < limit; look++) {
      if (this.#hand >= this.#slotsEnd) this.#hand = firstSlot;
      const slot = this.#hand++;
      // A free slot never expires, so what is over has a key.
      if ((expiries[slot] as number) > nowMs || slot >= this.#slotsEnd) continue;
      this.#remove(this.#keys[slot] as string, slot, false);
      swept++;
    }
    return swept;
  }

  #grow(capacity: number): void {
    this.#capacity = capacity;
    if (this.#weights !== undefined) this.#weights = grown(this.#weights, capacity);
    if (this.#expiries !== undefined) {
      const before = this.#expiries.length;
      this.#expiries = grown(this.#expiries, capacity).fill(never, before);
    }
    this.#policy.grow(capacity);
  }
}
