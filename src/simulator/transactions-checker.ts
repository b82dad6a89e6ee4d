/**
 * The judge of the transactions' world: it sees what the databases and the store really did, and what the clients were told.
 *
 * During the run: a decision is written once; nothing prepared commits without one, and nothing prepared rolls back against one.
 * At the end: every answer is true, every transaction is whole or absent, the store's part happened exactly once, and nothing
 * is left behind.
 */
import type { Verdict } from "../coordinator/coordinator.ts";
import type { BranchRef } from "../coordinator/participant.ts";
import { type DecisionRecord, type IdempotencyRecord, recordKeys } from "../coordinator/records.ts";
import type { Txn } from "../store/store.ts";
import { InvariantViolation, must } from "./invariant-violation.ts";

interface Call {
  readonly branches: readonly BranchRef[];
  readonly agent: string | undefined;
  readonly writesStore: boolean;
}

export interface EndState {
  /** Keys of the coordinator's namespace that should not be there. */
  readonly keys: readonly string[];
  readonly prepared: readonly string[];
  /** By resource: the markers, as `gid/branch`. */
  readonly committed: ReadonlyMap<string, ReadonlyMap<string, unknown>>;
  /** How often the store's part of each transaction happened. */
  readonly applied: ReadonlyMap<string, number>;
}

export class TransactionsChecker {
  readonly #calls = new Map<string, Call>();
  readonly #decided = new Map<string, "commit" | "abort">();
  readonly #cells = new Map<string, DecisionRecord>();
  readonly #alone = new Set<string>();
  readonly #answers = new Map<string, Verdict["kind"]>();
  readonly #keys = new Map<string, string>();
  /** Those that voted "yes": a branch that only read has nothing to commit. */
  readonly #prepared = new Set<string>();

  readonly #note: (text: string) => void;

  /** `note` hears what happens, for the trace. */
  constructor(note: (text: string) => void) {
    this.#note = note;
  }

  onCommitCall(gid: string, branches: readonly BranchRef[], how: Omit<Call, "branches">): void {
    this.#calls.set(gid, { branches, ...how });
  }

  /** Each transaction that the store executed. */
  onStore(txn: Txn, succeeded: boolean): void {
    if (!succeeded) return;
    for (const op of txn.then) {
      if (op.kind === "delete" && "key" in op.range) this.#note(`store: ${String(op.range.key)} is deleted`);
      if (op.kind !== "put" || op.namespace !== undefined || typeof op.key !== "string" || typeof op.value !== "string") continue;
      if (op.key.startsWith(recordKeys.decisions)) {
        const gid = op.key.slice(recordKeys.decisions.length);
        const record = JSON.parse(op.value) as DecisionRecord;
        const before = this.#decided.get(gid);
        this.#note(`store: ${gid} is decided to ${record.outcome}`);
        must(before === undefined, "WriteOnce", () => `${gid} was decided to ${before} and is decided to ${record.outcome}`);
        this.#decided.set(gid, record.outcome);
        this.#cells.set(gid, record);
      }
      if (op.key.startsWith(recordKeys.idempotencies)) {
        const { gid } = JSON.parse(op.value) as IdempotencyRecord;
        const before = this.#keys.get(op.key);
        must(before === undefined, "OncePerKey", () => `${op.key} served ${before} and serves ${gid}`);
        this.#keys.set(op.key, gid);
      }
    }
  }

  onPrepared(resource: string, { gid, branch }: BranchRef): void {
    this.#note(`${resource}: ${gid}/${branch} is prepared`);
    this.#prepared.add(`${resource} ${gid}/${branch}`);
  }

  onCommitted(resource: string, { gid, branch }: BranchRef): void {
    this.#note(`${resource}: ${gid}/${branch} commits`);
    must(this.#isCommit(gid), "NoCommitWithoutDecision", () => `${resource} commits ${gid}, which nobody decided to commit`);
  }

  onRolledBack(resource: string, { gid, branch }: BranchRef): void {
    this.#note(`${resource}: ${gid}/${branch} rolls back`);
    must(!this.#isCommit(gid), "NoHalfCommit", () => `${resource} rolls back ${gid}, which was decided to commit`);
  }

  onCommittedAlone(resource: string, { gid, branch }: BranchRef): void {
    this.#note(`${resource}: ${gid}/${branch} commits alone`);
    must(this.#decided.get(gid) === undefined, "WriteOnce", () => `${gid} was decided in the store and by an agent`);
    this.#alone.add(gid);
  }

  onAnswer(gid: string, verdict: Verdict, _key: string | undefined): void {
    this.#answers.set(gid, verdict.kind);
    const isCommit = this.#isCommit(gid);
    const writesNothing = !(this.#calls.get(gid)?.branches ?? []).some((ref) => this.#isWriter(ref));
    if (verdict.kind === "committed") {
      const isRight = isCommit || (writesNothing && this.#calls.get(gid)?.writesStore === false);
      must(isRight, "AcknowledgedIsDecided", () => `${gid} was answered "committed" and nobody decided so`);
    }
    if (verdict.kind === "aborted" || verdict.kind === "replayed") {
      must(!isCommit, "AbortIsTrue", () => `${gid} was answered "${verdict.kind}" and is committed`);
    }
  }

  judge(end: EndState): void {
    must(end.prepared.length === 0, "NothingPrepared", () => `left: ${end.prepared.join(", ")}`);
    must(end.keys.length === 0, "NothingLeft", () => `left in the store: ${end.keys.join(", ")}`);
    for (const [gid, { branches, writesStore }] of this.#calls) {
      const isCommit = this.#isCommit(gid);
      const answer = this.#answers.get(gid);
      must(!(isCommit && answer === "aborted"), "AbortIsTrue", () => `${gid} was answered "aborted" and is committed`);
      for (const ref of branches) {
        const isIn = end.committed.get(ref.resource)?.has(`${gid}/${ref.branch}`) === true;
        const isDue = isCommit && (this.#isWriter(ref) || this.#isAgentOf(gid, ref));
        must(isIn === isDue, "Atomicity", () => `${gid} is ${isIn ? "" : "not "}in ${ref.resource}; decided: ${isCommit}`);
      }
      const times = end.applied.get(gid) ?? 0;
      const due = writesStore && isCommit ? 1 : 0;
      must(times === due, "StoreOnce", () => `the store's part of ${gid} happened ${times} times, due: ${due}`);
    }
    for (const [gid, cell] of this.#cells) {
      const call = this.#calls.get(gid);
      if (call === undefined) throw new InvariantViolation("Known", `${gid} was decided and never asked for`);
      const named = new Set(cell.branches.map(({ resource }) => resource));
      for (const ref of cell.outcome === "commit" ? call.branches : []) {
        must(!this.#isWriter(ref) || named.has(ref.resource), "CellIsWhole", () => `the cell of ${gid} lacks ${ref.resource}`);
      }
    }
  }

  #isCommit(gid: string): boolean {
    return this.#decided.get(gid) === "commit" || this.#alone.has(gid);
  }

  #isWriter({ resource, gid, branch }: BranchRef): boolean {
    return this.#prepared.has(`${resource} ${gid}/${branch}`);
  }

  #isAgentOf(gid: string, ref: BranchRef): boolean {
    return this.#alone.has(gid) && (this.#calls.get(gid)?.agent === ref.resource || this.#calls.get(gid)?.branches.length === 1);
  }
}
