/**
 * Who takes part, where a participant cannot list its own branches: a service over HTTP has no `pg_prepared_xacts`.
 *
 *   m/<gid>/<branch> written ──► Try sent ──► ... ──► Confirm or Cancel answered ──► m/... deleted ──► the decision forgotten
 *
 * Before the first Try, so that whoever recovers knows whom to tell; under the condition that the epoch lives, so that nobody
 * is added after the fence; and gone before the decision is, because a member without a decision is cancelled.
 * Those that come within one turn travel in one write.
 */
import { conclaveError } from "../base/errors.ts";
import { linkSignal } from "../base/link-signal.ts";
import { insist } from "../recipes/insist.ts";
import type { Op, Store } from "../store/store.ts";
import type { Epoch } from "./epoch.ts";
import type { BranchRef } from "./participant.ts";
import { decodeRecord, encodeRecord, type MemberRecord, recordKeys } from "./records.ts";

interface Pending {
  readonly ops: Op[];
  readonly settled: Promise<void>;
}

const batchMax = 100;
const pageSize = 500;

export class Membership {
  readonly #store: Store;
  readonly #answerMs: number;
  readonly #pending = new Map<Epoch | undefined, Pending>();

  constructor(store: Store, answerMs: number) {
    this.#store = store;
    this.#answerMs = answerMs;
  }

  /** Durable once resolved. @throws TRANSACTION_CLOSED (the epoch is over), TIMEOUT, NO_QUORUM */
  add(epoch: Epoch, { gid, branch, resource }: BranchRef, action: string): Promise<void> {
    const value = encodeRecord({ resource, action });
    return this.#enqueue(epoch, { kind: "put", key: recordKeys.member(gid, branch), value });
  }

  /** Gone once resolved; rejects when the store did not answer, and then it may be there still. */
  remove({ gid, branch }: BranchRef): Promise<void> {
    return this.#enqueue(undefined, { kind: "delete", range: { key: recordKeys.member(gid, branch) } });
  }

  /** All branches of a domain in one resource. */
  async list(domain: string, resource: string): Promise<readonly BranchRef[]> {
    const prefix = `${recordKeys.members}cv1.${domain}.`;
    const found: BranchRef[] = [];
    for (let from = prefix; ; ) {
      const range = { from, to: `${prefix.slice(0, -1)}/` };
      const { results } = await this.#store.txn(
        { then: [{ kind: "range", range, limit: pageSize }] },
        { timeoutMs: this.#answerMs },
      );
      const [listed] = results;
      if (listed?.kind !== "range") return found;
      for (const { key, text } of listed.entries) {
        const record = decodeRecord<MemberRecord>(text);
        const at = key.lastIndexOf("/");
        if (record.resource !== resource) continue;
        found.push({ gid: key.slice(recordKeys.members.length, at), branch: Number(key.slice(at + 1)), resource });
      }
      const last = listed.entries.at(-1);
      if (!listed.more || last === undefined) return found;
      from = `${last.key}\u0000`;
    }
  }

  #enqueue(epoch: Epoch | undefined, op: Op): Promise<void> {
    const open = this.#pending.get(epoch);
    if (open !== undefined && open.ops.length < batchMax) {
      open.ops.push(op);
      return open.settled;
    }
    const ops = [op];
    const settled = new Promise<void>((resolve, reject) => {
      this.#store.platform.defer(() => {
        this.#pending.delete(epoch);
        this.#write(epoch, ops).then(resolve, reject);
      });
    });
    this.#pending.set(epoch, { ops, settled });
    return settled;
  }

  async #write(epoch: Epoch | undefined, ops: readonly Op[]): Promise<void> {
    const { platform } = this.#store;
    const linked = linkSignal(undefined);
    const late = (): void => linked.abort(conclaveError("TIMEOUT", "The store did not write down who takes part."));
    const timer = platform.setTimer(this.#answerMs, late, { ref: true });
    try {
      const txn = epoch === undefined ? { then: ops } : { if: [epoch.guard()], then: ops };
      const options = { signal: linked.signal, timeoutMs: this.#answerMs };
      const { succeeded } = await insist(() => this.#store.txn(txn, options), { platform, signal: linked.signal });
      if (!succeeded) {
        throw conclaveError("TRANSACTION_CLOSED", "The coordinator was taken for dead; nobody can join its transactions.");
      }
    } finally {
      timer.cancel();
    }
  }
}
