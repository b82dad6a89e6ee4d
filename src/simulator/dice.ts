/**
 * Many independent streams of dice from one seed, each found by its name. Who throws more often, or not at all, changes
 * nothing for the others; so a run without one of its events stays close to the run with it.
 *
 * Source of the name's hash: FNV-1a, 32 bits (Fowler, Noll, Vo).
 */
import { Random } from "./random.ts";

export class Dice {
  readonly #seed: number;

  constructor(seed: number) {
    this.#seed = seed;
  }

  stream(name: string): Random {
    let hash = 0x811c9dc5;
    for (let at = 0; at < name.length; at++) hash = Math.imul(hash ^ name.charCodeAt(at), 0x01000193);
    return new Random((Math.imul(this.#seed, 0x9e3779b1) ^ hash) | 0);
  }
}
