/**
 * What the coordinator keeps in the store, all in one namespace so that one transaction of the store can compare and write it.
 *
 *   domain              six letters, written once
 *   coord/<name>        bound to a session; its create revision is the epoch
 *   d/<gid>             the decision: written once, by whoever may, and the commit point of the transaction
 *   i/<key>             idempotency: the result of the transaction that used the key
 *   h/<gid>             an outcome that is not what was decided; stays until an operator forgets it
 *   o/<gid>             what an operator did, why, and who it was
 *
 * Nothing is written for a transaction that begins, prepares or aborts: its absence is the record (presumed abort: Mohan,
 * Lindsay, Obermarck, "Transaction management in the R* distributed database management system", TODS 1986).
 */
import type { Key } from "../store/store.ts";
import type { BranchRef, EvidenceState } from "./participant.ts";

export const transactionsNamespace = "transactions";

export const recordKeys = {
  domain: "domain",
  coordinators: "coord/",
  coordinator: (name: string) => `coord/${name}`,
  decisions: "d/",
  decision: (gid: string) => `d/${gid}`,
  idempotencies: "i/",
  idempotency: (key: string) => `i/${key}`,
  heuristics: "h/",
  heuristic: (gid: string) => `h/${gid}`,
  operator: (gid: string) => `o/${gid}`,
} as const satisfies Record<string, Key | ((name: string) => Key)>;

export interface CoordinatorRecord {
  readonly host: string;
  readonly pid: number;
  readonly resources: readonly string[];
}

export interface DecisionRecord {
  readonly outcome: "commit" | "abort";
  readonly branches: readonly BranchRef[];
  /** Calendar milliseconds: for people, never for a decision. */
  readonly atMs: number;
  readonly traceparent?: string;
}

export interface IdempotencyRecord {
  readonly gid: string;
  /** Of the request: the same key with another body is refused. */
  readonly fingerprint: string;
  /** JSON of what the work returned. */
  readonly result: string;
  readonly atMs: number;
}

/** What was found instead of what was decided. */
export interface HeuristicRecord {
  /** `rolled-back`: decided to commit, a branch is gone. `committed`: presumed aborted, a branch is in. `mixed`: both. */
  readonly kind: "rolled-back" | "committed" | "mixed";
  readonly branches: readonly (BranchRef & { readonly state: EvidenceState })[];
  readonly atMs: number;
}

export function encodeRecord(
  record: CoordinatorRecord | DecisionRecord | IdempotencyRecord | HeuristicRecord | OperatorRecord,
): string {
  return JSON.stringify(record);
}

/** An operator's action, kept beside the heuristic. */
export interface OperatorRecord {
  readonly action: "resolve" | "forget";
  readonly outcome?: "commit" | "rollback";
  readonly reason: string;
  readonly who: string;
  readonly atMs: number;
}

/** Our own records, written by this code or a newer one: unknown fields are kept out of sight. */
export function decodeRecord<T>(text: string): T {
  return JSON.parse(text) as T;
}
