/**
 * What became of a transaction, asked later: by evidence, and `unknown` where there is none either way.
 *
 *   the decision ─► a marker in a database ─► a service's own word ─► does its coordinator live? ─► nothing was decided: aborted
 *
 * A transaction of the store alone leaves no trace once its decision is forgotten, so where the store is a resource "nothing
 * found" does not mean "aborted". Ask by the idempotency key there: it is kept.
 */
import { conclaveError } from "../base/errors.ts";
import type { Coordinator } from "../coordinator/coordinator.ts";
import { parseGid } from "../coordinator/gid.ts";
import type { Participant } from "../coordinator/participant.ts";
import { type DecisionRecord, decodeRecord, recordKeys } from "../coordinator/records.ts";
import type { Store } from "../store/store.ts";
import type { SqlResource } from "./resource.ts";

/** `pending`: its coordinator lives and has not decided. `unknown`: a resource that may know cannot be asked, or none can know. */
export type OutcomeAnswer = "committed" | "aborted" | "pending" | "unknown";

export interface OutcomeParts {
  readonly coordinator: Coordinator;
  readonly store: Store;
  // biome-ignore lint/suspicious/noExplicitAny: no handle is used here.
  readonly sql: ReadonlyMap<string, SqlResource<any>>;
  /** Services: what they say of their branches is asked of them. */
  readonly services: ReadonlyMap<string, Participant>;
  /** The store is a resource of this manager. */
  readonly hasStore: boolean;
}

/** Branches of services are numbered among all; so many are asked for. */
const branchesAsked = 8;

/** @throws INVALID_OPTION (no name of this store's) */
export async function outcomeOf(
  { coordinator, store, sql, services, hasStore }: OutcomeParts,
  gid: string,
): Promise<OutcomeAnswer> {
  const parts = parseGid(gid);
  if (parts === null || parts.domain !== coordinator.domain) {
    throw conclaveError("INVALID_OPTION", `${JSON.stringify(gid)} is no transaction of this store.`);
  }
  const { results } = await store.txn({
    then: [
      { kind: "get", key: recordKeys.decision(gid) },
      { kind: "get", key: recordKeys.coordinator(parts.coordinator) },
    ],
  });
  const [cell, living] = results.map((result) => (result.kind === "get" ? result.entry : null));
  if (cell != null) return decodeRecord<DecisionRecord>(cell.text).outcome === "commit" ? "committed" : "aborted";
  const markers = await Promise.allSettled([...sql.values()].map((each) => each.marker(gid)));
  // A marker of a branch that was not decided cannot be seen: whoever is in is in by decision.
  if (markers.some((marker) => marker.status === "fulfilled" && marker.value !== null)) return "committed";
  const said = await Promise.all(
    [...services].flatMap(([resource, service]) =>
      Array.from({ length: branchesAsked }, (_, at) => service.evidence({ gid, branch: at + 1, resource })),
    ),
  );
  if (said.some(({ state }) => state === "committed")) return "committed";
  const isOver = living?.createRevision !== parts.epoch;
  const isMinded = coordinator.isInFlight(gid);
  if (!isOver && (isMinded || !coordinator.isOwn(parts.epoch))) return "pending";
  if (said.some(({ state }) => state === "prepared")) return "pending";
  const isSilent = markers.some(({ status }) => status === "rejected") || said.some(({ state }) => state === "unreachable");
  return isSilent || hasStore ? "unknown" : "aborted";
}
