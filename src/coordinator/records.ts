/**
 * What the coordinator keeps in the store, all in one namespace so that one transaction of the store can compare and write it.
 *
 *   domain              six letters, written once
 *   coord/<name>        bound to a session; its create revision is the epoch
 *   d/<gid>             the decision: written once, by whoever may, and the commit point of the transaction
 *   i/<key>             idempotency: the result of the transaction that used the key
 *   h/<gid>             an outcome that is not what was decided; stays until an operator forgets it
 *   o/<gid>             what an operator did, why, and who it was
 *   m/<gid>/<branch>    a branch in a service that cannot list its own: written before its Try, gone before the decision is
 *   s/<gid>             a saga that runs; k/<key> the one that runs under a key
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
  members: "m/",
  member: (gid: string, branch: number) => `m/${gid}/${branch}`,
  sagas: "s/",
  saga: (gid: string) => `s/${gid}`,
  sagaKey: (key: string) => `k/${key}`,
} as const satisfies Record<string, Key | ((name: string, branch: number) => Key)>;

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
  readonly traceparent?: string | undefined;
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
  record: CoordinatorRecord | DecisionRecord | IdempotencyRecord | HeuristicRecord | OperatorRecord | MemberRecord | SagaRecord,
): string {
  return JSON.stringify(record);
}

/** The same of a decision, which is all names of ours and is written for every transaction: a third of the time. */
export function encodeDecision({ outcome, branches, atMs, traceparent }: DecisionRecord): string {
  let list = "";
  for (const { gid, branch, resource, owner } of branches) {
    const by = owner === undefined ? "" : `,"owner":"${owner}"`;
    list += `${list === "" ? "" : ","}{"gid":"${gid}","branch":${branch},"resource":"${resource}"${by}}`;
  }
  const trace = traceparent === undefined ? "" : `,"traceparent":${JSON.stringify(traceparent)}`;
  return `{"outcome":"${outcome}","branches":[${list}],"atMs":${atMs}${trace}}`;
}

/** A branch in a service, before its Try is sent. */
export interface MemberRecord {
  readonly resource: string;
  /** For people. */
  readonly action: string;
}

/**
 * A saga that runs. `turn`: `none` while it may still go either way; `pivot`: the pivot's answer decides, time does not any more;
 * `back`: it compensates. Written at the beginning and at the turn, and by whoever takes over.
 */
export interface SagaRecord {
  /** With its version: "checkout@3". */
  readonly name: string;
  /** JSON. */
  readonly input: string;
  readonly owner: { readonly coordinator: string; readonly epoch: number };
  readonly turn: "none" | "pivot" | "back";
  /** Of a turn back: why. */
  readonly why?: string;
  readonly takeOvers: number;
  readonly key?: string;
  readonly fingerprint: string;
  readonly atMs: number;
  /** Calendar milliseconds: then it turns back, unless it has reached its pivot. */
  readonly deadlineAtMs: number;
  readonly traceparent?: string;
  /** The step that does not get through, and has been told about. */
  readonly attention?: string;
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
