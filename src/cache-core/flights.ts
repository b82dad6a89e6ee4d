/**
 * The latest flight of each key: a table by the key's hash, which is at hand wherever a flight is asked for.
 *
 * Intuition: a coat rack with numbered hooks; whose hook is taken takes the next free one, and when a coat goes those that had to
 * step aside move back.
 * Not a Map: one that is always set and deleted in builds itself anew every few dozen calls, a twentieth of a hit in L2,
 * and a table that V8 has once promoted keeps from its collector whatever the tables after it hold.
 * Source: linear probing, and deletion without gravestones: Knuth, TAOCP vol. 3, §6.4, Algorithms L and R.
 */
import type { Flight } from "./flight.ts";

/** A power of two. */
const hooksAtFirst = 64;

export class Flights<V> {
  /** Invariant: at most half are taken, and between a flight's own hook and the one it hangs on none is free. */
  #hooks: (Flight<V> | undefined)[] = freeHooks(hooksAtFirst);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(key: string, hash: number): Flight<V> | undefined {
    return this.#hooks[this.#hookOf(key, hash)];
  }

  /** In place of the one before, which nobody joins any more. */
  set(flight: Flight<V>): void {
    const hook = this.#hookOf(flight.key, flight.keyHash);
    if (this.#hooks[hook] === undefined) this.#size++;
    this.#hooks[hook] = flight;
    if (this.#size * 2 > this.#hooks.length) this.#grow();
  }

  /** Unless another one has taken its place. */
  delete(flight: Flight<V>): void {
    const hooks = this.#hooks;
    const mask = hooks.length - 1;
    let free = this.#hookOf(flight.key, flight.keyHash);
    if (hooks[free] !== flight) return;
    this.#size--;
    for (let hook = (free + 1) & mask; ; hook = (hook + 1) & mask) {
      const next = hooks[hook];
      if (next === undefined) break;
      // Its own hook lies beyond the free one: it stays.
      if (((hook - next.keyHash) & mask) < ((hook - free) & mask)) continue;
      hooks[free] = next;
      free = hook;
    }
    hooks[free] = undefined;
  }

  /** Where it hangs, or would. */
  #hookOf(key: string, hash: number): number {
    const hooks = this.#hooks;
    const mask = hooks.length - 1;
    for (let hook = hash & mask; ; hook = (hook + 1) & mask) {
      const flight = hooks[hook];
      if (flight === undefined || (flight.keyHash === hash && flight.key === key)) return hook;
    }
  }

  #grow(): void {
    const flights = this.#hooks;
    this.#hooks = freeHooks(flights.length * 2);
    for (const flight of flights) if (flight !== undefined) this.#hooks[this.#hookOf(flight.key, flight.keyHash)] = flight;
  }
}

function freeHooks(count: number): undefined[] {
  return Array.from({ length: count }, () => undefined);
}
