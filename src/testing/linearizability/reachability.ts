/**
 * Where operations build a state step by step (appends), asks before every step whether the next state that is needed can still come
 * of the one at hand.
 *
 * Intuition: a bricklayer looks at the photograph of the wall. A get that returned "xyz" is the photograph; once "xz" stands there, no
 * further brick makes it "xyz", and only a fresh start can, a put that is yet to come in time.
 *
 * Looks at one need only, the one that is due first. Lives on `Model.canBecome`; without it every state is within reach.
 */

import { hasBit } from "./bits.ts";
import type { Configuration } from "./configuration-memo.ts";
import { DancingLists } from "./dancing-lists.ts";
import { type Effects, noState } from "./effects.ts";
import type { Model } from "./model.ts";
import type { StateTable } from "./state-table.ts";
import type { Timeline } from "./timeline.ts";

/** What reachability is judged by. */
export interface ReachabilityOptions<S> {
  readonly timeline: Timeline<unknown, unknown>;
  readonly effects: Effects;
  readonly states: StateTable<S>;
  readonly canBecome: NonNullable<Model<S, unknown, unknown>["canBecome"]>;
}

/** The reachability of needed states in a search over one timeline. Every `place` is undone by an `unplace`, last first. */
export class Reachability<S> {
  readonly #options: ReachabilityOptions<S>;
  /** One list: the required operations that need some state, those that return first before the others. */
  readonly #needers: DancingLists;
  /** One list: the required operations that make some state, those that are invoked first before the others. */
  readonly #makers: DancingLists;

  constructor(options: ReachabilityOptions<S>) {
    const { needs, makes } = options.effects;
    const needers = [...needs.keys()].filter((id) => needs[id] !== noState);
    const makers = [...options.timeline.callOrder].filter((id) => makes[id] !== noState);
    this.#options = options;
    this.#needers = new DancingLists(needs.length, [needers]);
    this.#makers = new DancingLists(makes.length, [makers]);
  }

  place(call: number): void {
    this.#needers.lift(call);
    this.#makers.lift(call);
  }

  unplace(call: number): void {
    this.#makers.unlift(call);
    this.#needers.unlift(call);
  }

  /** False when the state that is needed first can no longer be reached from here. */
  isNextNeedInReach({ stateId, used }: Configuration): boolean {
    const { timeline, effects } = this.#options;
    const needer = this.#needers.first(0);
    if (needer === this.#needers.endOf(0)) return true;
    const goal = effects.needs[needer] as number;
    if (this.#canBecome(stateId, goal)) return true;
    const latest = timeline.requiredReturnedAt[needer] as number;
    return this.#canBeMadeBy(goal, latest) || this.#canBeMadeByOptional({ goal, latest, used });
  }

  #canBeMadeBy(goal: number, latest: number): boolean {
    const { timeline, effects } = this.#options;
    const end = this.#makers.endOf(0);
    for (let id = this.#makers.first(0); id !== end; id = this.#makers.after(id)) {
      if ((timeline.requiredInvokedAt[id] as number) > latest) return false;
      if (this.#canBecome(effects.makes[id] as number, goal)) return true;
    }
    return false;
  }

  #canBeMadeByOptional({ goal, latest, used }: { goal: number; latest: number; used: Int32Array }): boolean {
    const { timeline, effects } = this.#options;
    return effects.optionalMakes.some(
      (made, id) =>
        made !== noState &&
        (timeline.optionalInvokedAt[id] as number) <= latest &&
        !hasBit(used, id) &&
        this.#canBecome(made, goal),
    );
  }

  #canBecome(stateId: number, goal: number): boolean {
    const { states, canBecome } = this.#options;
    return stateId === goal || canBecome(states.stateOf(stateId), states.stateOf(goal));
  }
}
