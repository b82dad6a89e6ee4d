/**
 * The latest flight of each key.
 *
 * The map holds numbers, and the flights stand in an array beside it: a map under constant setting and deleting grows a new
 * table every few dozen calls, and a table that V8 has once promoted keeps from its collector whatever the tables after it hold
 * - with numbers in them, nothing.
 */
import type { Flight } from "./flight.ts";

export class Flights<V> {
  readonly #places = new Map<string, number>();
  readonly #flights: (Flight<V> | undefined)[] = [];
  readonly #free: number[] = [];

  get size(): number {
    return this.#places.size;
  }

  get(key: string): Flight<V> | undefined {
    const place = this.#places.get(key);
    return place === undefined ? undefined : this.#flights[place];
  }

  /** In place of the one before, which nobody joins any more. */
  set(flight: Flight<V>): void {
    const place = this.#places.get(flight.key) ?? this.#free.pop() ?? this.#flights.length;
    this.#places.set(flight.key, place);
    this.#flights[place] = flight;
    flight.place = place;
  }

  /** Unless another one has taken its place. */
  delete(flight: Flight<V>): void {
    const { place } = flight;
    if (this.#flights[place] !== flight) return;
    this.#places.delete(flight.key);
    this.#flights[place] = undefined;
    this.#free.push(place);
  }
}
