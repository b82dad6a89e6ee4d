/**
 * What an operator sees of sagas: those that run, who carries them, and how far they have turned. Read from the store alone.
 *
 * There is nothing to settle by hand: a saga whose process dies is taken over by any that knows its definition, and one that does
 * not get through tells so by event and figure. What an operator looks for is the one that nobody here knows.
 */
import { assert } from "../base/assert.ts";
import type { Store } from "../store/store.ts";
import { type CoordinatorRecord, decodeRecord, recordKeys, type SagaRecord } from "./records.ts";

export interface SagaView {
  readonly gid: string;
  /** With its version. */
  readonly name: string;
  readonly turn: SagaRecord["turn"];
  readonly why: string | null;
  /** Null: its process is gone, and it waits for one that knows it. */
  readonly owner: CoordinatorRecord | null;
  readonly takeOvers: number;
  readonly key: string | null;
  readonly ageMs: number;
  readonly isLate: boolean;
}

const listMax = 1_000;

/** Oldest first; at most 1_000. */
export async function listSagas(store: Store): Promise<readonly SagaView[]> {
  const { results } = await store.txn({
    then: [
      { kind: "range", range: { prefix: recordKeys.coordinators }, limit: listMax },
      { kind: "range", range: { prefix: recordKeys.sagas }, limit: listMax },
    ],
  });
  const [owners, sagas] = results.map((result) => {
    assert(result.kind === "range", "a range is answered with entries");
    return result.entries;
  });
  const living = new Map(owners?.map((entry) => [entry.createRevision, decodeRecord<CoordinatorRecord>(entry.text)]));
  const nowMs = store.platform.wallMs();
  const views = (sagas ?? []).map(({ key, text }): SagaView => {
    const record = decodeRecord<SagaRecord>(text);
    return {
      gid: key.slice(recordKeys.sagas.length),
      name: record.name,
      turn: record.turn,
      why: record.why ?? null,
      owner: living.get(record.owner.epoch) ?? null,
      takeOvers: record.takeOvers,
      key: record.key ?? null,
      ageMs: Math.max(0, nowMs - record.atMs),
      isLate: nowMs > record.deadlineAtMs,
    };
  });
  return views.sort((left, right) => right.ageMs - left.ageMs);
}
