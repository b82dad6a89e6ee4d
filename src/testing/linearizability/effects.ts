/**
 * The hints of a model about every operation of a timeline, with numbers in place of states.
 */

import type { Hint, Model } from "./model.ts";
import type { Operation } from "./operation.ts";
import type { StateTable } from "./state-table.ts";
import type { Timeline } from "./timeline.ts";

/** No state in particular. */
export const noState = -1;

/** Which states operations need and make; `noState` where nothing is promised. */
export interface Effects {
  readonly initial: number;
  /** How many states are named here, or were known before. Every id below is below this. */
  readonly statesCount: number;
  /** By required id: the only state the operation fits. */
  readonly needs: readonly number[];
  /** By required id: the only state the operation can turn another one into. */
  readonly makes: readonly number[];
  /** By required id: whether the operation leads to the state it makes, without a maybe. */
  readonly isSure: readonly boolean[];
  /** By required id: whether the operation can make more than one state. */
  readonly isWild: readonly boolean[];
  /** By optional id: as `makes`. */
  readonly optionalMakes: readonly number[];
  /** By optional id: as `isWild`. */
  readonly optionalIsWild: readonly boolean[];
}

/** What the effects are made of. */
export interface EffectsOptions<S, I, O> {
  readonly model: Model<S, I, O>;
  readonly timeline: Timeline<I, O>;
  readonly states: StateTable<S>;
  /**
   * The id of a required operation under suspicion. Its answer is not believed here, so that a search fails at this very operation and
   * not at some earlier point, from which the answer can be seen to be impossible.
   */
  readonly suspect: number | undefined;
}

/** Asks the model about every operation. */
export function effectsOf<S, I, O>({ model, timeline, states, suspect }: EffectsOptions<S, I, O>): Effects {
  const hintOf = ({ input, output }: Pick<Operation<I, O>, "input" | "output">): Hint<S> => model.hint?.(input, output) ?? {};
  const idOf = (state: S | undefined) => (state === undefined ? noState : states.idOf(state));
  const required = timeline.required.map((operation, id) =>
    id === suspect ? hintOf({ input: operation.input, output: undefined }) : hintOf(operation),
  );
  const optional = timeline.optional.map(hintOf);
  const effects = {
    initial: states.idOf(model.initial),
    needs: required.map((hint) => idOf(hint.from)),
    makes: required.map((hint) => idOf(madeBy(hint))),
    isSure: required.map((hint, id) => id !== suspect && hint.isRead !== true && hint.to !== undefined),
    isWild: required.map(isWild),
    optionalMakes: optional.map((hint) => idOf(madeBy(hint))),
    optionalIsWild: optional.map(isWild),
  };
  return { ...effects, statesCount: states.count };
}

function madeBy<S>(hint: Hint<S>): S | undefined {
  return hint.isRead === true ? undefined : (hint.to ?? hint.maybeTo);
}

function isWild(hint: Hint<unknown>): boolean {
  return hint.isRead !== true && hint.to === undefined && hint.maybeTo === undefined;
}
