/**
 * Narrows a history without an order down to the first return that makes it one, for the sake of the person who reads the verdict.
 *
 * Intuition: rewind the film until the story still adds up. The answer that came next is the one that cannot be true.
 * An order of a history gives one of every prefix, where what had not returned yet may have happened or not (Herlihy & Wing 1990,
 * §2: linearizability is prefix-closed). So bisection finds the shortest prefix that has none.
 */

import type { Model } from "./model.ts";
import type { Operation } from "./operation.ts";
import { type DeadEnd, type SearchOptions, type SearchOutcome, searchTimeline } from "./search.ts";
import { buildTimeline, type Timeline } from "./timeline.ts";

/**
 * The dead end at the end of the shortest prefix without an order, or undefined when the budget does not suffice.
 * The searches share `maxSteps`. Operations that had not returned by then appear as they were: without output and return.
 */
export function findShortestDeadEnd<S, I, O>(
  model: Model<S, I, O>,
  timeline: Timeline<I, O>,
  options: SearchOptions,
): DeadEnd<S, I, O> | undefined {
  let stepsLeft = options.maxSteps;
  let stepsToPlaceMax = 0;
  const searchPrefix = (last: number, more: Partial<SearchOptions> = {}, by = model) => {
    const prefix = buildTimeline(by, prefixOf(timeline, last));
    const outcome = searchTimeline(by, prefix, { ...options, maxSteps: stepsLeft, ...more });
    stepsLeft -= outcome.steps;
    if (outcome.kind === "placed") stepsToPlaceMax = Math.max(stepsToPlaceMax, outcome.steps);
    return outcome;
  };
  let low = 0;
  let high = timeline.required.length - 1;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const { kind } = searchPrefix(middle);
    if (kind === "stopped") return undefined;
    if (kind === "stuck") high = middle;
    else low = middle + 1;
  }
  // This search has nothing to shorten it: it must meet every state that an order can lead to. It meets most of them soon after it has
  // come to the end for the first time, so it is cut off where a reader would not wait for the rest.
  const maxSteps = Math.min(stepsLeft, 4 * stepsToPlaceMax + stepsForMoreStates);
  const deadEnd = deadEndOf(searchPrefix(high, { suspect: high, maxSteps }), timeline.required[high]);
  if (deadEnd === undefined || !fits(model, deadEnd)) return deadEnd;
  // With foresight the search stops before an operation that fits and leads nowhere, which explains nothing. Without, it goes on to
  // the one that does not fit.
  const { hint: _, canBecome: __, ...withoutForesight } = model;
  const steps = Math.min(stepsLeft, maxSteps);
  return deadEndOf(searchPrefix(high, { suspect: high, maxSteps: steps }, withoutForesight), timeline.required[high]) ?? deadEnd;
}

/** Whether the operation that is said to be stuck could have been placed in a state that was met. */
function fits<S, I, O>(model: Model<S, I, O>, { states, unplaced: [stuck] }: DeadEnd<S, I, O>): boolean {
  return stuck !== undefined && states.some((state) => model.step(state, stuck.input, stuck.output) !== null);
}

const stepsForMoreStates = 200_000;

function deadEndOf<S, I, O>(outcome: SearchOutcome<S, I, O>, suspect: Operation<I, O> | undefined): DeadEnd<S, I, O> | undefined {
  switch (outcome.kind) {
    case "placed":
      return undefined;
    case "stuck":
      return outcome.deadEnd;
    case "stopped":
      return outcome.deadEnd.unplaced[0] === suspect ? { ...outcome.deadEnd, hasMoreStates: true } : undefined;
  }
}

/** What was known when the required operation `last` had just returned. */
function prefixOf<I, O>({ required, optional }: Timeline<I, O>, last: number): Operation<I, O>[] {
  const now = required[last]?.returnedAt ?? Number.POSITIVE_INFINITY;
  const open = required.slice(last + 1).map((operation) => ({ ...operation, output: undefined, returnedAt: undefined }));
  return [...required.slice(0, last + 1), ...[...open, ...optional].filter((operation) => operation.invokedAt <= now)];
}
