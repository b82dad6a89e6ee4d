/**
 * The marker: one row that every SQL branch writes into its own database, in its own transaction.
 *
 * It is visible if and only if the branch committed. So it is the proof of commit that no error code gives, the fence against a
 * branch that comes late (whoever holds the row first wins), and what `audit` and `readAtomic` compare.
 * `parts` names every branch that must be in when this one is: "orders:1,wallet:2".
 * `cls` is 0 for two-phase commit; other numbers are slots of Try/Confirm/Cancel and of sagas.
 */
import type { BranchRef } from "../coordinator/participant.ts";

export const markerTable = "conclave_mark";

/** How long proof is kept. Milliseconds. In-doubt transactions keep theirs as long as they are in doubt. */
export const markersKeptMs = 86_400_000;

export function formatParts(parts: readonly BranchRef[]): string {
  return parts.map(({ resource, branch }) => `${resource}:${branch}`).join(",");
}

export function parseParts(gid: string, text: string): readonly BranchRef[] {
  if (text === "") return [];
  return text.split(",").map((part) => {
    const [resource = "", branch = "0"] = part.split(":");
    return { gid, resource, branch: Number(branch) };
  });
}

/** Ends, begins and the like are the coordinator's, also when an ORM sends them. */
const controls =
  /^\s*(?:begin|commit|rollback(?!\s+to\b)|end|abort|start\s+transaction|prepare\s+transaction|xa|set\s+autocommit)\b/i;

export function isTransactionControl(sql: string): boolean {
  return controls.test(sql);
}
