/**
 * What a saga writes: its beginning, its turn, a take-over, its end.
 *
 *   s/<gid>            the record, while it runs; every write of it compares the writer's epoch and the record as it was read
 *   k/<key>            the gid that runs under the key
 *   i/saga/<key>       how the saga of the key ended, i/sagas/<gid> the same by name: bounded, as all idempotency keys
 *
 * So a zombie writes nothing: its epoch is over, and the record has another revision. The end is written in batches; who dies
 * before it is followed by somebody who asks every step again, is answered from the barriers, and ends alike.
 */
import { assert } from "../base/assert.ts";
import { background } from "../base/background.ts";
import { insist } from "../recipes/insist.ts";
import type { Entry } from "../store/entry.ts";
import type { Compare, Op, OpResult, Store, Txn } from "../store/store.ts";
import type { Epoch } from "./epoch.ts";
import { decodeRecord, encodeRecord, type IdempotencyRecord, recordKeys, type SagaRecord } from "./records.ts";

/** A record with the revision that the next write compares. */
export interface SagaEntry {
  readonly gid: string;
  readonly record: SagaRecord;
  readonly revision: number;
}

export type SagaEnd =
  | { readonly kind: "completed"; readonly results: Readonly<Record<string, unknown>> }
  | { readonly kind: "compensated"; readonly why: string; readonly details?: unknown };

export type Begun =
  | { readonly kind: "begun"; readonly entry: SagaEntry }
  /** The key's saga runs already. */
  | { readonly kind: "running"; readonly gid: string }
  | { readonly kind: "ended"; readonly record: IdempotencyRecord }
  /** The epoch is over. */
  | { readonly kind: "fenced" };

interface Ending {
  readonly entry: SagaEntry;
  readonly end: SagaEnd;
  readonly settle: () => void;
}

const endAfterMs = 200;
const endsAtOnce = 25;
const resultMax = 65_536;

export const sagaKeys = {
  byKey: (key: string) => recordKeys.idempotency(`saga/${key}`),
  byGid: (gid: string) => recordKeys.idempotency(`sagas/${gid}`),
} as const;

export class SagaLog {
  readonly #store: Store;
  readonly #signal: AbortSignal;
  #ending: Ending[] = [];
  #isTimed = false;

  constructor(store: Store, signal: AbortSignal) {
    this.#store = store;
    this.#signal = signal;
  }

  async begin(epoch: Epoch, gid: string, record: SagaRecord): Promise<Begun> {
    const own = recordKeys.saga(gid);
    const { key } = record;
    // Also its end must not be there: a late copy of this write would begin it a second time (services world, seed 19).
    const free: Compare[] = [epoch.guard(), absent(own), absent(sagaKeys.byGid(gid))];
    const then: Op[] = [{ kind: "put", key: own, value: encodeRecord(record) }];
    const look: Op[] = [{ kind: "get", key: own }];
    if (key !== undefined) {
      free.push(absent(recordKeys.sagaKey(key)), absent(sagaKeys.byKey(key)));
      then.push({ kind: "put", key: recordKeys.sagaKey(key), value: gid });
      look.push({ kind: "get", key: recordKeys.sagaKey(key) }, { kind: "get", key: sagaKeys.byKey(key) });
    }
    const { succeeded, revision, results } = await this.#insist({ if: free, then, else: look });
    if (succeeded) return { kind: "begun", entry: { gid, record, revision } };
    const [mine, running, ended] = results.map(entryOf);
    // An unanswered first attempt had written it.
    if (mine != null) return { kind: "begun", entry: { gid, record, revision: mine.modRevision } };
    if (ended != null) return { kind: "ended", record: decodeRecord<IdempotencyRecord>(ended.text) };
    if (running != null) return { kind: "running", gid: running.text };
    return { kind: "fenced" };
  }

  /** Null: the epoch is over, or the saga is somebody else's by now. Else what stands there, which may be another's turn. */
  async rewrite(epoch: Epoch, { gid, revision }: SagaEntry, record: SagaRecord): Promise<SagaEntry | null> {
    const own = recordKeys.saga(gid);
    const {
      succeeded,
      revision: written,
      results,
    } = await this.#insist({
      if: [epoch.guard(), { key: own, target: "modRevision", is: "equal", to: revision }],
      then: [{ kind: "put", key: own, value: encodeRecord(record) }],
      else: [
        { kind: "get", key: own },
        { kind: "get", key: recordKeys.coordinator(epoch.coordinator) },
      ],
    });
    if (succeeded) return { gid, record, revision: written };
    const [found, coordinator] = results.map(entryOf);
    if (found == null || coordinator?.createRevision !== epoch.number) return null;
    const now = decodeRecord<SagaRecord>(found.text);
    const isMine = now.owner.coordinator === epoch.coordinator && now.owner.epoch === epoch.number;
    return isMine ? { gid, record: now, revision: found.modRevision } : null;
  }

  /** Resolves when it is written, or when that is nobody's business here any more. */
  end(entry: SagaEntry, end: SagaEnd): Promise<void> {
    return new Promise((resolve) => {
      this.#ending.push({ entry, end, settle: resolve });
      if (this.#ending.length >= endsAtOnce) background(this.flush(), "ends of sagas");
      else if (!this.#isTimed) {
        this.#isTimed = true;
        this.#store.platform.setTimer(endAfterMs, () => {
          this.#isTimed = false;
          background(this.flush(), "ends of sagas");
        });
      }
    });
  }

  async flush(): Promise<void> {
    while (this.#ending.length > 0) {
      const batch = this.#ending.splice(0, endsAtOnce);
      try {
        const txns = batch.map((each) => this.#endTxn(each));
        const all = { if: txns.flatMap((txn) => [...(txn.if ?? [])]), then: txns.flatMap(({ then }) => [...then]) };
        const { succeeded } = await this.#insist(all);
        // One of them was taken over: each by itself.
        if (!succeeded) for (const txn of txns) await this.#insist(txn);
      } catch {
        // Closing, or the store refuses: whoever takes over ends them.
      } finally {
        for (const { settle } of batch) settle();
      }
    }
  }

  /** How a saga ended; null while it runs, or where nothing is known of it. */
  async ended(gid: string): Promise<{ readonly end: SagaEnd | null; readonly isRunning: boolean }> {
    const { results } = await this.#store.txn({
      then: [
        { kind: "get", key: sagaKeys.byGid(gid) },
        { kind: "get", key: recordKeys.saga(gid) },
      ],
    });
    const [ended, running] = results.map(entryOf);
    const end = ended == null ? null : endOf(decodeRecord<IdempotencyRecord>(ended.text));
    return { end, isRunning: running != null };
  }

  #endTxn({ entry, end }: Ending): Txn {
    const { gid, record, revision } = entry;
    let result = JSON.stringify(end);
    if (result.length > resultMax) result = JSON.stringify({ ...end, results: {}, details: undefined });
    const kept = encodeRecord({ gid, fingerprint: record.fingerprint, result, atMs: this.#store.platform.wallMs() });
    const own = recordKeys.saga(gid);
    const then: Op[] = [
      { kind: "delete", range: { key: own } },
      { kind: "put", key: sagaKeys.byGid(gid), value: kept },
    ];
    if (record.key !== undefined) {
      then.push({ kind: "delete", range: { key: recordKeys.sagaKey(record.key) } });
      then.push({ kind: "put", key: sagaKeys.byKey(record.key), value: kept });
    }
    return { if: [{ key: own, target: "modRevision", is: "equal", to: revision }], then };
  }

  #insist(txn: Txn) {
    const { platform } = this.#store;
    return insist(() => this.#store.txn(txn, { timeoutMs: 2_000, signal: this.#signal }), { platform, signal: this.#signal });
  }
}

export function endOf({ result }: IdempotencyRecord): SagaEnd {
  return JSON.parse(result) as SagaEnd;
}

function absent(key: string): Compare {
  return { key, target: "exists", is: "equal", to: false };
}

function entryOf(result: OpResult): Entry | null {
  assert(result.kind === "get", "a look is answered with what was looked at");
  return result.entry;
}
