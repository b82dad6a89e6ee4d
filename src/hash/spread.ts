/**
 * Picks the replicas of a key from the nodes in order of preference: distinct nodes first of distinct zones.
 *
 * Intuition: seating a jury. The first of each family takes a seat; relatives wait at the side and come in only when the
 * families are used up. A node that leaves makes room for one other and unseats nobody (Cassandra's
 * NetworkTopologyStrategy walks its ring in the same way).
 */
import { conclaveError } from "../base/errors.ts";
import type { Roster } from "./roster.ts";

export class Spread {
  readonly #roster: Roster;
  readonly #count: number;
  readonly #zonesWanted: number;
  readonly #seen = new Set<number>();
  readonly #zonesTaken = new Set<number>();
  readonly #seated: number[] = [];
  readonly #aside: number[] = [];

  /** @throws INVALID_OPTION */
  constructor(roster: Roster, count: number) {
    if (!Number.isSafeInteger(count) || count < 1) {
      throw conclaveError("INVALID_OPTION", `\`count\` of owners must be a whole number from 1; got ${count}.`);
    }
    this.#roster = roster;
    this.#count = Math.min(count, roster.owningCount);
    this.#zonesWanted = Math.min(this.#count, roster.owningZonesCount);
  }

  /** Offers the next node in order of preference, again and again the same if need be. True: enough were offered. */
  offer(rank: number): boolean {
    if (!this.#seen.has(rank)) {
      this.#seen.add(rank);
      const zone = this.#roster.zones[rank] as number;
      if (this.#zonesTaken.has(zone)) {
        this.#aside.push(rank);
      } else {
        this.#zonesTaken.add(zone);
        this.#seated.push(rank);
      }
    }
    return this.#seated.length === this.#zonesWanted && this.#seated.length + this.#aside.length >= this.#count;
  }

  ids(): string[] {
    return [...this.#seated, ...this.#aside].slice(0, this.#count).map((rank) => this.#roster.ids[rank] as string);
  }
}
