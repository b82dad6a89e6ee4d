/**
 * Tells a person what a verdict means: which operation has no place, what the object could have held by then, and how far the best
 * order came.
 *
 * Assumes nothing of the model; requests and answers that carry a name `f` read best, as those of the models beside this file do.
 */

import type { Verdict, Witness } from "./check-linearizable.ts";
import type { Operation } from "./operation.ts";

/** How much `explain` says. @since 0.1.0 */
export interface ExplainOptions {
  /** How many operations of each list are shown: the last ones of the order, the first ones of the rest. Default 10. */
  readonly maxOperations?: number;
}

/**
 * A short text about a verdict, for a failing test or a report.
 *
 * @example
 * console.log(explain(checkLinearizable(registerModel, operations)));
 * // Not linearizable (key "x", 3 operations): no order explains
 * //   process 2: read → 1  [20, 30]
 * // While it was due, the state can only have been: 2.
 * // The longest order that works (2 operations):
 * //   1. process 0: write 1 → ok  [0, 5]  leaves 1
 * //   2. process 1: write 2 → ok  [6, 9]  leaves 2
 *
 * @since 0.1.0
 */
export function explain(verdict: Verdict, options: ExplainOptions = {}): string {
  const { maxOperations = 10 } = options;
  switch (verdict.linearizable) {
    case true:
      return `Linearizable: ${verdict.operations} operations, ${verdict.steps} steps.`;
    case "unknown":
      return `Undecided (${about(verdict)}): ${verdict.why} Record less concurrency or fewer unknown outcomes, or raise the limit.`;
    case false:
      return [`Not linearizable (${about(verdict)}): no order explains`, ...explainWitness(verdict.witness, maxOperations)].join(
        "\n",
      );
  }
}

function about(verdict: { readonly key?: string; readonly operations: number }): string {
  const operations = `${verdict.operations} operations`;
  return verdict.key === undefined ? operations : `key ${JSON.stringify(verdict.key)}, ${operations}`;
}

function explainWitness(witness: Witness<unknown, unknown, unknown>, maxOperations: number): string[] {
  const { prefix, stuck, unplaced } = witness;
  const skipped = Math.max(0, prefix.length - maxOperations);
  const order = prefix
    .slice(skipped)
    .map(({ operation, state }, index) => `  ${skipped + index + 1}. ${describe(operation)}  leaves ${describeValue(state)}`);
  const rest = unplaced.slice(0, maxOperations).map((operation) => `  ${describe(operation)}`);
  return [
    `  ${describe(stuck)}`,
    witness.isShortest
      ? `While it was due, the state can only have been: ${describeStates(witness)}.`
      : "The search turned back there; the budget did not suffice to find the first operation at fault.",
    prefix.length === 0 ? "No operation can come before it." : `The longest order that works (${prefix.length} operations):`,
    ...(skipped > 0 ? [`  … ${skipped} before these`] : []),
    ...order,
    ...(rest.length > 0 ? ["Open by then too, and no help in any order:", ...rest] : []),
    ...(unplaced.length > rest.length ? [`  … and ${unplaced.length - rest.length} more`] : []),
  ];
}

function describeStates({ states, hasMoreStates }: Witness<unknown, unknown, unknown>): string {
  return states.map(describeValue).join(" | ") + (hasMoreStates ? " | …" : "");
}

function describe({ process, input, output, invokedAt, returnedAt }: Operation<unknown, unknown>): string {
  const answer = output === undefined ? "?" : describeParts(output) || "ok";
  const name = hasName(input) ? `${input.f} ` : "";
  const request = `${name}${describeParts(input)}`.trimEnd();
  return `process ${process}: ${request} → ${answer}  [${invokedAt}, ${returnedAt === undefined ? "?)" : `${returnedAt}]`}`;
}

/** The fields beside the name, or the whole value when it has no name. */
function describeParts(value: unknown): string {
  if (!hasName(value)) return describeValue(value);
  const { f: _, ...fields } = value;
  return Object.values(fields).map(describeValue).join(" ");
}

function hasName(value: unknown): value is { readonly f: string } {
  return typeof value === "object" && value !== null && "f" in value && typeof value.f === "string";
}

function describeValue(value: unknown): string {
  if (value === undefined || value === null) return "nil";
  if (typeof value === "symbol") return value.description ?? String(value);
  const text = typeof value === "bigint" ? String(value) : (JSON.stringify(value) ?? String(value));
  if (text.length <= textLengthMax) return text;
  return `${text.slice(0, textLengthMax / 2)} … ${text.slice(-textLengthMax / 2)}`;
}

const textLengthMax = 120;
