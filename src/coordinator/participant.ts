/**
 * What the coordinator may ask of a database or a service that takes part in a transaction.
 *
 * Intuition: a witness, not a judge. A participant does what it is told and says what it sees; it never retries and never
 * guesses. "Does not exist" is not "done": the coordinator asks for evidence, and evidence is a row in the branch itself
 * (the marker), visible if and only if the branch committed.
 *
 * No method rejects on purpose: what cannot be asked is `unreachable`. One that rejects all the same counts as that.
 */

/** `read-only` has nothing to commit and has ended already. */
export type Vote = "yes" | "no" | "read-only";

export type Outcome = "commit" | "rollback";

/** One branch: the part of a transaction in one resource. */
export interface BranchRef {
  readonly gid: string;
  /** Unique within the transaction. 0 is the last agent's. */
  readonly branch: number;
  readonly resource: string;
  /** The session that prepared it, where the database binds a branch to its session (MariaDB). */
  readonly owner?: string;
}

/**
 * - `not-found`: no prepared branch of that name; says nothing about what became of it.
 * - `held`: it is there, and another living session holds it.
 * - `rolled-back`: the resource has rolled it back by itself.
 * - `unreachable`: no answer; it may have happened.
 * - `misconfigured`: this user or database may not finish it.
 */
export type FinishReply = "done" | "not-found" | "held" | "rolled-back" | "unreachable" | "misconfigured";

/** `absent`: neither prepared nor committed at the moment of asking. */
export type EvidenceState = "committed" | "prepared" | "absent" | "unreachable";

export interface Evidence {
  readonly state: EvidenceState;
  /** Of a committed one: the branches of the whole transaction, as its marker names them. */
  readonly parts?: readonly BranchRef[];
}

/** `fenced`: it can never commit any more. `busy`: it is alive at this moment; ask again. */
export type FenceReply = "fenced" | "committed" | "busy" | "unreachable";

export interface Participant {
  /** Finishes a prepared branch from any session. Idempotent. */
  finish(ref: BranchRef, outcome: Outcome): Promise<FinishReply>;
  /** Looks for the prepared branch first and for the marker second: the other order misses a commit in between. */
  evidence(ref: BranchRef): Promise<Evidence>;
  /** Claims the marker's place, so that a branch that has not committed never will. */
  fence(ref: BranchRef): Promise<FenceReply>;
  /** Ends the session that holds the branch. False when there is none, or it could not be ended. */
  evict(ref: BranchRef): Promise<boolean>;
  /** Every prepared branch of the domain. */
  scan(domain: string): Promise<readonly BranchRef[] | "unreachable">;
}

/** A branch on the session that runs it. */
export interface Branch {
  readonly ref: BranchRef;
  /**
   * Opened for reading only: it votes "read-only", leaves no marker and is no part of the transaction's outcome. Said when it
   * is opened, because the markers of the others name everyone that must be in.
   */
  readonly isReadOnly: boolean;
  /**
   * Writes the marker and prepares. A vote other than "yes" leaves nothing behind. Rejects when the answer did not come:
   * then the branch may be prepared, now or in a moment.
   * @param parts All writing branches of the transaction, for the marker.
   */
  prepare(parts: readonly BranchRef[]): Promise<{ readonly vote: Vote; readonly why?: string }>;
  /** After a "yes", on the same session: the fast path. */
  commit(): Promise<FinishReply>;
  /** In any state; ends the session where its state is in doubt. */
  rollback(): Promise<FinishReply>;
  /** Marker and commit in one, without preparing: one-phase commit, and the last agent's decision. */
  commitAlone(parts: readonly BranchRef[]): Promise<"done" | "rolled-back" | "unknown">;
}
