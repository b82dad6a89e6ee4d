/**
 * Seeded dice for the plan of faults and the mix of operations. Real processes are never twice the same: a seed repeats
 * what was thrown, not what came of it.
 *
 * Source: mulberry32, Tommy Ettinger, public domain.
 */
export class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** In [0, 1). */
  float(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  /** In [low, high). */
  between(low: number, high: number): number {
    return low + this.float() * (high - low);
  }

  /** In [low, high), short ones as likely as long ones: each doubling of the length has the same chance. */
  betweenLogarithmic(low: number, high: number): number {
    return low * (high / low) ** this.float();
  }

  /** A whole number in [low, high]. */
  integer(low: number, high: number): number {
    return low + Math.floor(this.float() * (high - low + 1));
  }

  chance(probability: number): boolean {
    return this.float() < probability;
  }

  /** @throws when there is nothing to pick from */
  pick<T>(items: readonly T[]): T {
    if (items.length === 0) throw new Error("There is nothing to pick from.");
    return items[Math.floor(this.float() * items.length)] as T;
  }

  /** Dice of their own, so that one consumer more does not change what the others throw. */
  fork(): Dice {
    return new Dice(Math.floor(this.float() * 2 ** 32));
  }
}
