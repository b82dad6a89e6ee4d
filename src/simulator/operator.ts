/**
 * Somebody with access to the command line: adds, promotes and removes members, hands leadership over, asks for reads by
 * lease. Each run decides whether it has one at all, and how busy. What makes no sense is asked for too, and must be refused.
 */
import type { Input, MemberId, Probe, ReadLevel } from "../consensus/core.ts";
import type { Random } from "./random.ts";

type Wish =
  | Pick<Extract<Input<unknown>, { kind: "change" }>, "kind" | "change">
  | Pick<Extract<Input<unknown>, { kind: "transfer" }>, "kind" | "to">;

export class Operator {
  readonly #random: Random;
  readonly #changeChance: number;
  readonly #transferChance: number;
  readonly #leaseChance: number;
  #isResting = false;

  constructor(random: Random) {
    this.#random = random;
    this.#changeChance = random.pick([0, 0.02, 0.2]);
    this.#transferChance = random.pick([0, 0, 0.01, 0.05]);
    this.#leaseChance = random.pick([0, 0.5, 1]);
  }

  /** Members that run from the start and belong to nothing yet. */
  spares(voters: readonly MemberId[]): readonly MemberId[] {
    if (this.#changeChance === 0) return [];
    return ["x", "y"].slice(0, this.#random.integer(0, voters.length === 3 ? 2 : 1));
  }

  /** From now on nothing changes any more. */
  rest(): void {
    this.#isResting = true;
  }

  wish(probe: Probe, members: readonly MemberId[]): Wish | undefined {
    if (this.#isResting) return undefined;
    if (this.#random.chance(this.#transferChance)) {
      const to = this.#random.chance(0.5) ? undefined : this.#random.pick(members);
      return { kind: "transfer", to };
    }
    if (!this.#random.chance(this.#changeChance)) return undefined;
    const { learners, voters } = probe.configuration;
    const member = this.#random.pick(members);
    if (learners.includes(member))
      return { kind: "change", change: { kind: this.#random.chance(0.8) ? "promote" : "remove", member } };
    if (!voters.includes(member))
      return { kind: "change", change: { kind: this.#random.chance(0.9) ? "add" : "promote", member } };
    // Two voters are left alone: a group of one has no elections, and a run wants some.
    const isWanted = voters.length !== 2 && this.#random.chance(voters.length > 3 ? 0.5 : 0.2);
    return isWanted ? { kind: "change", change: { kind: "remove", member } } : undefined;
  }

  readLevel(): ReadLevel {
    return this.#random.chance(this.#leaseChance) ? "lease" : "linearizable";
  }
}
