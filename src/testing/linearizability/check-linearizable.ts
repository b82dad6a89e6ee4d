/**
 * Is a recorded history linearizable: could every operation have happened at one instant between its invocation and its return?
 *
 * The history is taken apart by key first: a history is linearizable exactly when its part for every object is.
 * Sources: Herlihy & Wing, TOPLAS 1990 (locality); Horn & Kroening, "Faster linearizability checking via P-compositionality",
 * FORTE 2015 (checking by key); the search itself is in `search.ts`.
 * Assumes operations on different keys are independent; transactions over several keys need the whole state as one object.
 */

import { assert } from "../../base/assert.ts";
import { conclaveError } from "../../base/errors.ts";
import type { Model } from "./model.ts";
import type { Operation } from "./operation.ts";
import { type DeadEnd, type SearchOptions, searchTimeline } from "./search.ts";
import { findShortestDeadEnd } from "./shortest-prefix.ts";
import { buildTimeline } from "./timeline.ts";

/** The answer of the checker. @since 0.1.0 */
export type Verdict<S = unknown, I = unknown, O = unknown> =
  | { readonly linearizable: true; readonly operations: number; readonly steps: number }
  | {
      readonly linearizable: false;
      /** The key whose part of the history has no order, when the history has keys. */
      readonly key?: string;
      readonly operations: number;
      readonly steps: number;
      readonly witness: Witness<S, I, O>;
    }
  | {
      readonly linearizable: "unknown";
      /** The first key whose search was given up. No other key was found to be wrong. */
      readonly key?: string;
      readonly operations: number;
      readonly steps: number;
      readonly why: string;
    };

/**
 * Why a history has no order: the shortest part of it that has none, how far the best order of that comes, and what it cannot place.
 * Operations that had not returned by then appear as they were: without output and return.
 *
 * @since 0.1.0
 */
export interface Witness<S, I, O> {
  /** The longest order that works, each operation with the state after it. */
  readonly prefix: readonly { readonly operation: Operation<I, O>; readonly state: S }[];
  /** The operation that no order reaches: when it returned, it fitted none of `states`. */
  readonly stuck: Operation<I, O>;
  /** The other operations that were open by then and not placed. They do not help. */
  readonly unplaced: readonly Operation<I, O>[];
  /** The states the object can have been in while `stuck` was due, over all orders; 16 at most. */
  readonly states: readonly S[];
  /** Whether there are, or may be, more states than are listed. */
  readonly hasMoreStates: boolean;
  /**
   * False when the budget sufficed for the verdict and not for the explanation.
   * The fields above then tell where the search turned back, which can be long before the operation at fault.
   */
  readonly isShortest: boolean;
}

/** How long the checker may think. @since 0.1.0 */
export interface CheckOptions {
  /** Calls of `model.step` per key for the verdict, and as many again for the explanation. Default 50_000_000, some ten seconds. */
  readonly maxSteps?: number;
  /** Configurations remembered per key, some 30 bytes each. Default 4_000_000. */
  readonly maxConfigurations?: number;
  /** A limit for the whole check, by the caller's clock. Default: none. */
  readonly timeLimit?: { now(): number; readonly maxMs: number };
}

/** What `checkLinearizable` assumes when an option is left out. @since 0.1.0 */
export const checkDefaults = { maxSteps: 50_000_000, maxConfigurations: 4_000_000 } as const;

/**
 * Checks a history against a model, key by key.
 *
 * The answer is exact. "unknown" means the budget ran out, which happens when very many operations are open at once.
 *
 * @example
 * const verdict = checkLinearizable(registerModel, operations);
 * if (verdict.linearizable !== true) throw new Error(explain(verdict));
 *
 * @throws INVALID_OPTION (an operation returned before it was invoked, or has an output and never returned; a limit is not positive).
 * @since 0.1.0
 */
export function checkLinearizable<S, I, O>(
  model: Model<S, I, O>,
  operations: readonly Operation<I, O>[],
  options: CheckOptions = {},
): Verdict<S, I, O> {
  const searchOptions = searchOptionsOf(options);
  let steps = 0;
  let gaveUp: { readonly key?: string; readonly why: string } | undefined;
  for (const [key, part] of byKey(operations)) {
    const timeline = buildTimeline(model, part);
    const outcome = searchTimeline(model, timeline, searchOptions);
    steps += outcome.steps;
    const about = { ...(key !== undefined && { key }), operations: operations.length, steps };
    if (outcome.kind === "stuck") {
      const shortest = findShortestDeadEnd(model, timeline, searchOptions);
      const witness = witnessOf(model, shortest ?? outcome.deadEnd);
      return { linearizable: false, ...about, witness: { ...witness, isShortest: shortest !== undefined } };
    }
    if (outcome.kind === "stopped") gaveUp ??= { ...(key !== undefined && { key }), why: outcome.why };
  }
  if (gaveUp !== undefined) return { linearizable: "unknown", ...gaveUp, operations: operations.length, steps };
  return { linearizable: true, operations: operations.length, steps };
}

function byKey<I, O>(operations: readonly Operation<I, O>[]): Map<string | undefined, Operation<I, O>[]> {
  const parts = new Map<string | undefined, Operation<I, O>[]>();
  for (const operation of operations) {
    const part = parts.get(operation.key);
    if (part === undefined) parts.set(operation.key, [operation]);
    else part.push(operation);
  }
  return parts;
}

function searchOptionsOf(options: CheckOptions): SearchOptions {
  const { maxSteps = checkDefaults.maxSteps, maxConfigurations = checkDefaults.maxConfigurations, timeLimit } = options;
  assertPositive({ maxSteps, maxConfigurations, ...(timeLimit && { "timeLimit.maxMs": timeLimit.maxMs }) });
  if (timeLimit === undefined) return { maxSteps, maxConfigurations, isOver: () => false };
  const end = timeLimit.now() + timeLimit.maxMs;
  return { maxSteps, maxConfigurations, isOver: () => timeLimit.now() >= end };
}

function assertPositive(limits: Readonly<Record<string, number>>): void {
  for (const [name, limit] of Object.entries(limits)) {
    if (!(limit > 0))
      throw conclaveError("INVALID_OPTION", `checkLinearizable: ${name} is ${limit}, and a limit is more than 0.`);
  }
}

function witnessOf<S, I, O>(model: Model<S, I, O>, deadEnd: DeadEnd<S, I, O>): Omit<Witness<S, I, O>, "isShortest"> {
  const [stuck, ...unplaced] = deadEnd.unplaced;
  assert(stuck !== undefined, "a search that is stuck is stuck at an operation");
  let state = model.initial;
  const prefix = deadEnd.order.map((operation) => {
    // The search has made this very step before, so it is accepted again.
    state = model.step(state, operation.input, operation.output) as S;
    return { operation, state };
  });
  return { prefix, stuck, unplaced, states: deadEnd.states, hasMoreStates: deadEnd.hasMoreStates };
}
