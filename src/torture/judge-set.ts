/**
 * Judges the guarded set: exactly what was acknowledged, perhaps more where an answer is missing, in the order of tokens.
 *
 * Nothing is excused here. A holder may sleep as long as it likes: its guard refuses it.
 */
import type { ClientRecord, FinalState, SetElement, Violation } from "./evidence.ts";
import type { SetEnd } from "./journal.ts";

interface Addition {
  readonly token: number;
  /** Undefined: its client was killed before it could tell. */
  readonly outcome: SetEnd["outcome"] | undefined;
}

export function judgeSet(clients: readonly ClientRecord[], { set }: FinalState): Violation[] {
  const additions = additionsOf(clients);
  const found = new Map(set.map((element) => [element.element, element]));
  return [...lost(additions, found), ...set.flatMap((element) => unexpected(element, additions)), ...disorder(set)];
}

function additionsOf(clients: readonly ClientRecord[]): Map<string, Addition> {
  const additions = new Map<string, Addition>();
  for (const { events } of clients) {
    for (const event of events) {
      if (event.kind === "set.begin") additions.set(event.element, { token: event.token, outcome: undefined });
      const begun = event.kind === "set.end" ? additions.get(event.element) : undefined;
      if (event.kind === "set.end" && begun !== undefined)
        additions.set(event.element, { token: begun.token, outcome: event.outcome });
    }
  }
  return additions;
}

function lost(additions: ReadonlyMap<string, Addition>, found: ReadonlyMap<string, SetElement>): Violation[] {
  return [...additions].flatMap(([element, { outcome, token }]) => {
    if (outcome !== "added" || found.has(element)) return [];
    return [{ kind: "set-element-lost", text: `element ${element}, acknowledged under token ${token}, is not in the set` }];
  });
}

function unexpected({ element, token }: SetElement, additions: ReadonlyMap<string, Addition>): Violation[] {
  const addition = additions.get(element);
  const why =
    addition === undefined
      ? "nobody added it"
      : addition.outcome === "refused" || addition.outcome === "failed"
        ? `its client was told that it was not added (${addition.outcome})`
        : addition.token !== token
          ? `it was added with token ${addition.token}`
          : undefined;
  return why === undefined
    ? []
    : [{ kind: "set-element-unexpected", text: `element ${element} is in the set with token ${token}, and ${why}` }];
}

function disorder(set: readonly SetElement[]): Violation[] {
  const inOrder = set.toSorted((a, b) => a.createRevision - b.createRevision);
  return inOrder.flatMap((element, index) => {
    const before = inOrder[index - 1];
    if (before === undefined || before.token <= element.token) return [];
    const text = `element ${element.element} with token ${element.token} was added at revision ${element.createRevision}, after ${before.element} with token ${before.token} at ${before.createRevision}`;
    return [{ kind: "set-order", text }];
  });
}
