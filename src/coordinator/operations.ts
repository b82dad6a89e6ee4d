/**
 * What an operator asks and does: list, look, settle by hand, forget. Everything is read from the store and the participants;
 * nothing here depends on a manager that runs.
 *
 * An operator's hand is held by the evidence: what contradicts it is refused, what has consequences says them first, and what was
 * done is written down beside the transaction.
 */
import { assert } from "../base/assert.ts";
import { conclaveError } from "../base/errors.ts";
import type { Store } from "../store/store.ts";
import { ask, silent } from "./ask.ts";
import { evidenceOf, finishBranch } from "./finish.ts";
import { parseGid } from "./gid.ts";
import type { BranchRef, EvidenceState, Outcome, Participant } from "./participant.ts";
import {
  type CoordinatorRecord,
  type DecisionRecord,
  decodeRecord,
  encodeRecord,
  type HeuristicRecord,
  recordKeys,
} from "./records.ts";

export interface OperationsContext {
  readonly store: Store;
  readonly participants: ReadonlyMap<string, Participant>;
  readonly answerMs: number;
}

export interface TransactionRow {
  readonly gid: string;
  /** `in-doubt`: prepared, and nobody decided; `deciding`: the same, and its coordinator lives. */
  readonly state: "deciding" | "in-doubt" | "committing" | "aborting" | "heuristic";
  readonly coordinator: CoordinatorRecord | null;
  readonly branches: readonly (BranchRef & { readonly state: EvidenceState | "listed" })[];
  readonly heuristic: HeuristicRecord | null;
  readonly decidedAtMs: number | null;
}

export interface TransactionList {
  readonly rows: readonly TransactionRow[];
  /** Of these nothing could be seen. */
  readonly unreachable: readonly string[];
}

const listMax = 1_000;

/** Every transaction that is not over: what is decided and not forgotten, what is prepared, what ended otherwise than decided. */
export async function listTransactions({ store, participants, answerMs }: OperationsContext): Promise<TransactionList> {
  const { platform } = store;
  const domain = await readOnlyDomain(store);
  const scans = await Promise.all(
    [...participants].map(async ([name, participant]) => {
      const found = domain === null ? [] : await ask(platform, answerMs, () => participant.scan(domain));
      return [name, found === silent ? ("unreachable" as const) : found] as const;
    }),
  );
  const { results } = await store.txn({
    then: [recordKeys.coordinators, recordKeys.decisions, recordKeys.heuristics].map((prefix) => ({
      kind: "range" as const,
      range: { prefix },
      limit: listMax,
    })),
  });
  const [coordinators, decisions, heuristics] = results.map((result) => {
    assert(result.kind === "range", "a range is answered with entries");
    return result.entries;
  });
  const living = new Map(coordinators?.map((entry) => [entry.createRevision, decodeRecord<CoordinatorRecord>(entry.text)]));
  const cells = new Map(decisions?.map(({ key, text }) => [key.slice(2), decodeRecord<DecisionRecord>(text)]));
  const ends = new Map(heuristics?.map(({ key, text }) => [key.slice(2), decodeRecord<HeuristicRecord>(text)]));
  const listed = new Map<string, BranchRef[]>();
  for (const [, refs] of scans) {
    for (const ref of refs === "unreachable" ? [] : refs) listed.set(ref.gid, [...(listed.get(ref.gid) ?? []), ref]);
  }
  const gids = [...new Set([...cells.keys(), ...ends.keys(), ...listed.keys()])].sort();
  const rows = gids.map((gid): TransactionRow => {
    const cell = cells.get(gid);
    const coordinator = living.get(parseGid(gid)?.epoch ?? 0) ?? null;
    const prepared = listed.get(gid) ?? [];
    // A heuristic outcome outlives its cell, and names the branches itself.
    const others = (cell?.branches ?? ends.get(gid)?.branches ?? []).filter(
      (ref) => !prepared.some((each) => each.branch === ref.branch),
    );
    return {
      gid,
      state: stateOf({ isHeuristic: ends.has(gid), cell, isLiving: coordinator !== null }),
      coordinator,
      branches: [
        ...prepared.map((ref) => ({ ...ref, state: "prepared" as const })),
        ...others.map((ref) => ({ ...ref, state: "listed" as const })),
      ],
      heuristic: ends.get(gid) ?? null,
      decidedAtMs: cell?.atMs ?? null,
    };
  });
  return { rows, unreachable: scans.flatMap(([name, refs]) => (refs === "unreachable" ? [name] : [])) };
}

/** One transaction with the evidence of each branch that is known. */
export async function showTransaction(context: OperationsContext, gid: string): Promise<TransactionRow | null> {
  const { rows } = await listTransactions(context);
  const row = rows.find((each) => each.gid === gid);
  const known = row?.branches ?? (await branchesByMarker(context, gid));
  if (row === undefined && known.length === 0) return null;
  const branches = await Promise.all(known.map(async (ref) => ({ ...ref, state: (await evidence(context, ref)).state })));
  return row === undefined
    ? { gid, state: "committing", coordinator: null, branches, heuristic: null, decidedAtMs: null }
    : { ...row, branches };
}

export interface Resolution {
  readonly gid: string;
  readonly outcome: Outcome;
  /** What becomes of each branch. */
  readonly consequences: readonly string[];
  readonly isDone: boolean;
}

/**
 * Finishes the prepared branches of a transaction by hand. Without `isConfirmed` it only says what would happen.
 * @throws TRANSACTION_EVIDENCE (its coordinator lives, a decision says otherwise, or a branch has ended the other way)
 */
export async function resolveTransaction(
  context: OperationsContext,
  order: {
    readonly gid: string;
    readonly outcome: Outcome;
    readonly reason: string;
    readonly who: string;
    readonly isConfirmed: boolean;
  },
): Promise<Resolution> {
  const { gid, outcome, isConfirmed } = order;
  const row = await showTransaction(context, gid);
  const against = (why: string): Error =>
    conclaveError("TRANSACTION_EVIDENCE", `Transaction ${gid} cannot be resolved to ${outcome}: ${why}.`);
  if (row === null) throw against("nothing is known of it, and nothing of it is prepared");
  if (row.coordinator !== null) {
    throw against(`its coordinator lives (${row.coordinator.host}, process ${row.coordinator.pid}) and will decide it`);
  }
  if (row.state === "committing" && outcome === "rollback") throw against("it was decided to commit");
  if (row.state === "aborting" && outcome === "commit") throw against("it was decided to abort");
  const opposite = row.branches.find(({ state }) => state === (outcome === "commit" ? "absent" : "committed"));
  if (opposite !== undefined)
    throw against(`its branch in ${opposite.resource} is ${opposite.state === "absent" ? "gone" : "committed"}`);
  const isGuess = row.state === "in-doubt" && outcome === "commit";
  const consequences = row.branches.map(({ resource, state }) =>
    state === "prepared"
      ? `${resource}: its prepared branch is ${outcome === "commit" ? "committed" : "rolled back"}`
      : `${resource}: ${state}, stays as it is`,
  );
  if (isGuess)
    consequences.push("nobody decided to commit it: others take it for aborted, and parts that are not seen here are lost");
  if (!isConfirmed) return { gid, outcome, consequences, isDone: false };
  const record = {
    action: "resolve",
    outcome,
    reason: order.reason,
    who: order.who,
    atMs: context.store.platform.wallMs(),
  } as const;
  await context.store.txn({ then: [{ kind: "put", key: recordKeys.operator(gid), value: encodeRecord(record) }] });
  let isDone = true;
  for (const ref of row.branches) {
    const participant = context.participants.get(ref.resource);
    if (ref.state !== "prepared" || participant === undefined) continue;
    const ending = await finishBranch(
      { platform: context.store.platform, participant, answerMs: context.answerMs },
      ref,
      outcome,
    );
    if (ending.kind !== "settled") isDone = false;
  }
  return { gid, outcome, consequences, isDone };
}

/** Takes an outcome that was not as decided off the list, once every branch has ended. @throws TRANSACTION_EVIDENCE */
export async function forgetHeuristic(
  context: OperationsContext,
  order: { readonly gid: string; readonly reason: string; readonly who: string },
): Promise<void> {
  const row = await showTransaction(context, order.gid);
  if (row?.heuristic == null) throw conclaveError("TRANSACTION_EVIDENCE", `There is no heuristic outcome of ${order.gid}.`);
  const open = row.branches.find(({ state }) => state === "prepared" || state === "unreachable");
  if (open !== undefined)
    throw conclaveError("TRANSACTION_EVIDENCE", `The branch of ${order.gid} in ${open.resource} is ${open.state}.`);
  const record = { action: "forget", reason: order.reason, who: order.who, atMs: context.store.platform.wallMs() } as const;
  await context.store.txn({
    then: [
      { kind: "put", key: recordKeys.operator(order.gid), value: encodeRecord(record) },
      { kind: "delete", range: { key: recordKeys.heuristic(order.gid) } },
    ],
  });
}

async function evidence({ store, participants, answerMs }: OperationsContext, ref: BranchRef) {
  const participant = participants.get(ref.resource);
  if (participant === undefined) return { state: "unreachable" as const };
  return evidenceOf({ platform: store.platform, participant, answerMs }, ref);
}

/** Of a transaction that is over: any branch's marker names all. */
async function branchesByMarker(context: OperationsContext, gid: string): Promise<readonly BranchRef[]> {
  for (const resource of context.participants.keys()) {
    for (const branch of [0, 1, 2, 3]) {
      const found = await evidence(context, { gid, branch, resource });
      if (found.state === "committed")
        return "parts" in found && found.parts !== undefined ? found.parts : [{ gid, branch, resource }];
    }
  }
  return [];
}

function stateOf({
  isHeuristic,
  cell,
  isLiving,
}: {
  readonly isHeuristic: boolean;
  readonly cell: DecisionRecord | undefined;
  readonly isLiving: boolean;
}): TransactionRow["state"] {
  if (isHeuristic) return "heuristic";
  if (cell !== undefined) return cell.outcome === "commit" ? "committing" : "aborting";
  return isLiving ? "deciding" : "in-doubt";
}

async function readOnlyDomain(store: Store): Promise<string | null> {
  const { results } = await store.txn({ then: [{ kind: "get", key: recordKeys.domain }] });
  const [found] = results;
  return found?.kind === "get" ? (found.entry?.text ?? null) : null;
}
