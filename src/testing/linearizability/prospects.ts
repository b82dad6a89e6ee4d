/**
 * Knows which states are still needed and which can still be made, so that the search turns back before a dead end, not in it.
 *
 * Intuition: before you take down the scaffold, look whether anybody still has work up there. A read of 5 that is yet to come needs the
 * state 5; when no write of 5 is left to be placed in time, the state 5 must not be overwritten before that read.
 * With a value of its own in every write this settles almost every choice, and the search becomes a walk.
 *
 * Lives on the hints of the model. An operation that can make any state (an append) suspends this judgement until it is placed; as long
 * as one is left, `reachability.ts` judges.
 */

import { hasBit } from "./bits.ts";
import type { Configuration } from "./configuration-memo.ts";
import { DancingLists } from "./dancing-lists.ts";
import type { Effects } from "./effects.ts";
import type { Model } from "./model.ts";
import { Reachability } from "./reachability.ts";
import type { StateTable } from "./state-table.ts";
import type { Timeline } from "./timeline.ts";

/** What the prospects are judged by. */
export interface ProspectsOptions<S, I, O> {
  readonly model: Model<S, I, O>;
  readonly timeline: Timeline<I, O>;
  readonly effects: Effects;
  readonly states: StateTable<S>;
}

/** The prospects of a search over one timeline. Every `place` is undone by an `unplace`, last first. */
export class Prospects<S, I, O> {
  readonly #timeline: Timeline<I, O>;
  readonly #statesCount: number;
  /** By state: the required operations that need it, those that return first before the others. */
  readonly #needers: DancingLists;
  /** By state: the required operations that make it, those that are invoked first before the others. */
  readonly #makers: DancingLists;
  /** By state: the optional operations that make it. */
  readonly #optionalMakers: readonly number[][];
  /** 1 for a required operation that can make more than one state. */
  readonly #isWild: Uint8Array;
  #wildCount: number;
  /** Undefined where it would have nothing to say. */
  readonly #reachability: Reachability<S> | undefined;

  constructor({ model, timeline, effects, states }: ProspectsOptions<S, I, O>) {
    const { needs, makes, optionalMakes, statesCount } = effects;
    this.#timeline = timeline;
    this.#statesCount = statesCount;
    this.#needers = new DancingLists(needs.length, byState(needs, needs.keys(), statesCount));
    this.#makers = new DancingLists(makes.length, byState(makes, timeline.callOrder, statesCount));
    this.#optionalMakers = byState(optionalMakes, optionalMakes.keys(), statesCount);
    this.#isWild = Uint8Array.from(effects.isWild, Number);
    this.#wildCount = [...effects.isWild, ...effects.optionalIsWild].filter(Boolean).length;
    const canBecome = model.canBecome?.bind(model);
    this.#reachability =
      canBecome === undefined || this.#wildCount === 0 ? undefined : new Reachability({ timeline, effects, states, canBecome });
  }

  place(call: number): void {
    this.#needers.lift(call);
    this.#makers.lift(call);
    this.#reachability?.place(call);
    this.#wildCount -= this.#isWild[call] as number;
  }

  unplace(call: number): void {
    this.#wildCount += this.#isWild[call] as number;
    this.#reachability?.unplace(call);
    this.#makers.unlift(call);
    this.#needers.unlift(call);
  }

  /** Whether the search may be `here`, having just left another state. */
  mayLeave(stateId: number, here: Configuration): boolean {
    if (this.#wildCount > 0) return this.#reachability?.isNextNeedInReach(here) ?? true;
    return this.#canDoWithout(stateId, here.used);
  }

  /** False when some operation will need this state, and no operation outside of `used` can bring it back in time. */
  #canDoWithout(stateId: number, used: Int32Array): boolean {
    if (stateId >= this.#statesCount) return true;
    const needer = this.#needers.first(stateId);
    if (needer === this.#needers.endOf(stateId)) return true;
    const { requiredInvokedAt, requiredReturnedAt, optionalInvokedAt } = this.#timeline;
    const latest = requiredReturnedAt[needer] as number;
    const maker = this.#makers.first(stateId);
    if (maker !== this.#makers.endOf(stateId) && (requiredInvokedAt[maker] as number) <= latest) return true;
    for (const id of this.#optionalMakers[stateId] as number[]) {
      if ((optionalInvokedAt[id] as number) <= latest && !hasBit(used, id)) return true;
    }
    return false;
  }
}

function byState(stateIds: readonly number[], order: Iterable<number>, statesCount: number): number[][] {
  const lists: number[][] = Array.from({ length: statesCount }, () => []);
  for (const id of order) lists[stateIds[id] as number]?.push(id);
  return lists;
}
