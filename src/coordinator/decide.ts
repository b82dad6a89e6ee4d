/**
 * The decision: one write of one cell, under the condition that the coordinator's epoch still lives and nobody has decided.
 *
 *   write commit ── yes ─────────────────────────────► committed
 *        │  └────── no: epoch gone ──────────────────► fenced (never decided) or, after an unanswered write, doubtful
 *        │  └────── no: a store participant's conflict, or the key is taken ► aborted
 *        └── no answer: write again; once the deadline is past write "abort" instead. One of the two wins the cell.
 *
 * An unanswered write is never guessed about. It may also arrive late: so a transaction with one settles only by what stands
 * in the cell, and the cell stays until the epoch has ended, when the condition refuses every late copy.
 * Source: Lampson & Lomet, "A new presumed commit optimization for two phase commit", VLDB 1993, §2 on presumed abort;
 * Gray & Lamport, "Consensus on transaction commit", TODS 2006: the cell is a register that one proposer may write.
 */
import { assert } from "../base/assert.ts";
import { ConclaveError } from "../base/errors.ts";
import type { LinkedSignal } from "../base/link-signal.ts";
import { sleep } from "../recipes/bell.ts";
import type { Entry } from "../store/entry.ts";
import type { Compare, Op, OpResult, Store, Txn } from "../store/store.ts";
import type { DecisionBatch } from "./decision-batch.ts";
import type { Epoch } from "./epoch.ts";
import {
  type DecisionRecord,
  decodeRecord,
  encodeDecision,
  encodeRecord,
  type IdempotencyRecord,
  recordKeys,
} from "./records.ts";

export interface Proposal {
  readonly gid: string;
  readonly epoch: Epoch;
  readonly record: DecisionRecord;
  /** What the store participant adds: it commits with the decision. */
  readonly compares: readonly Compare[];
  readonly writes: readonly Op[];
  readonly key?: { readonly name: string; readonly record: IdempotencyRecord } | undefined;
  /** Settled transactions whose cells go with this write: forgetting costs no write of its own while others decide. */
  readonly forget: readonly string[];
  /** From then on the only aim is to abort. Of the store's clock. */
  readonly deadlineMs: number;
  /** Gives up asking; nothing is known then. Its signal is made when somebody asks for it: a first try in a batch does not. */
  readonly closing: LinkedSignal;
}

/** `hasForgotten`: the write that also deletes was answered. */
export type Decision =
  | { readonly kind: "committed"; readonly hasForgotten?: boolean }
  | {
      readonly kind: "aborted";
      readonly hasForgotten?: boolean;
      readonly why: "conflict" | "deadline" | "refused" | "fenced";
      readonly cause?: unknown;
    }
  | { readonly kind: "replayed"; readonly record: IdempotencyRecord }
  /** The epoch is gone, the cell is empty, and a write of it went unanswered: only the branches know. */
  | { readonly kind: "doubtful" };

const firstPauseMs = 20;
const pauseMsMax = 500;
export const decisionAnswerMs = 2_000;

/** `batch`: for the first try of what needs nothing of the store but its cell. */
export async function decide(store: Store, proposal: Proposal, batch: DecisionBatch): Promise<Decision> {
  const { platform } = store;
  const { gid, epoch, deadlineMs, closing } = proposal;
  const isPlain = proposal.compares.length === 0 && proposal.writes.length === 0 && proposal.key === undefined;
  let ridesAlong = isPlain;
  let isAmbiguous = false;
  let mustAbort = false;
  let why: "conflict" | "deadline" | "refused" = "deadline";
  let cause: unknown;
  for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(pauseMs * 2, pauseMsMax)) {
    if (platform.now() >= deadlineMs) {
      if (!isAmbiguous) return { kind: "aborted", why: "deadline", cause };
      mustAbort = true;
    }
    try {
      const txn = attempt(proposal, mustAbort);
      const result = ridesAlong
        ? await batch.write(epoch, txn)
        : await store.txn(txn, { timeoutMs: decisionAnswerMs, signal: closing.signal });
      ridesAlong = false;
      if (result === "alone") continue;
      if (result.succeeded) {
        return mustAbort ? { kind: "aborted", hasForgotten: true, why, cause } : { kind: "committed", hasForgotten: true };
      }
      const found = readFound(result.results);
      if (found.cell !== null) return fromCell(found.cell, { why, cause });
      const owner = found.idempotency;
      // Our own key without our cell: decided, settled and forgotten by others after our epoch.
      if (owner?.gid === gid) return { kind: "committed" };
      if (found.epoch !== epoch.number) return isAmbiguous ? { kind: "doubtful" } : { kind: "aborted", why: "fenced" };
      if (!isAmbiguous) return owner === null ? { kind: "aborted", why: "conflict" } : { kind: "replayed", record: owner };
      // The first write may still arrive, and find its conditions true by then: the cell must be taken.
      mustAbort = true;
      why = "conflict";
    } catch (error) {
      closing.signal.throwIfAborted();
      ridesAlong = false;
      cause = error;
      if (!(error instanceof ConclaveError) || !error.definite) {
        isAmbiguous = true;
        epoch.kept.add(gid);
      } else if (!error.retryable) {
        if (!isAmbiguous) return { kind: "aborted", why: "refused", cause: error };
        mustAbort = true;
        why = "refused";
      }
      await sleep({ platform, timeoutMs: pauseMs, signal: closing.signal });
    }
  }
}

function attempt({ gid, epoch, record, compares, writes, key, forget }: Proposal, mustAbort: boolean): Txn {
  const cell = recordKeys.decision(gid);
  const free: Compare[] = [epoch.guard(), { key: cell, target: "exists", is: "equal", to: false }];
  const then: Op[] = [
    { kind: "put", key: cell, value: encodeDecision(mustAbort ? { ...record, outcome: "abort", branches: [] } : record) },
  ];
  if (!mustAbort) {
    free.push(...compares);
    then.push(...writes);
    if (key !== undefined) {
      const name = recordKeys.idempotency(key.name);
      free.push({ key: name, target: "exists", is: "equal", to: false });
      then.push({ kind: "put", key: name, value: encodeRecord(key.record) });
    }
  }
  for (const settled of forget) then.push({ kind: "delete", range: { key: recordKeys.decision(settled) } });
  const look: Op[] = [
    { kind: "get", key: recordKeys.coordinator(epoch.coordinator) },
    { kind: "get", key: cell },
  ];
  if (key !== undefined) look.push({ kind: "get", key: recordKeys.idempotency(key.name) });
  return { if: free, then, else: look };
}

interface Found {
  readonly epoch: number;
  readonly cell: DecisionRecord | null;
  readonly idempotency: IdempotencyRecord | null;
}

function readFound([coordinator, cell, idempotency]: readonly OpResult[]): Found {
  const [coordinatorEntry, cellEntry, idempotencyEntry] = [entryOf(coordinator), entryOf(cell), entryOf(idempotency)];
  return {
    epoch: coordinatorEntry?.createRevision ?? 0,
    cell: cellEntry === null ? null : decodeRecord<DecisionRecord>(cellEntry.text),
    idempotency: idempotencyEntry === null ? null : decodeRecord<IdempotencyRecord>(idempotencyEntry.text),
  };
}

/** Null for what is absent, and for what was not asked. */
function entryOf(result: OpResult | undefined): Entry | null {
  if (result === undefined) return null;
  assert(result.kind === "get", "a look is answered with what was looked at");
  return result.entry;
}

function fromCell(
  cell: DecisionRecord,
  { why, cause }: { readonly why: "conflict" | "deadline" | "refused"; readonly cause: unknown },
): Decision {
  return cell.outcome === "commit" ? { kind: "committed" } : { kind: "aborted", why, cause };
}
