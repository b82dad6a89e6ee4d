/**
 * Reading several databases at once without seeing half of a transaction.
 *
 * Each database gives a snapshot of its own, and their moments differ: one may show a transaction that the other does not show
 * yet. The markers tell: each names all branches of its transaction, so one that is seen here and missing there is a fracture,
 * and the snapshots are taken again.
 * Source: Bailis et al., "Scalable atomic visibility with RAMP transactions", SIGMOD 2014, §3 (read-atomic isolation).
 * Assumes that a transaction is in doubt for less than `withinMs`; an older one is not compared.
 */
import { conclaveError } from "../base/errors.ts";
import type { Resources } from "./manager.ts";
import type { HandleOf, MarkerRow, Snapshot, SqlResource } from "./resource.ts";

export interface ReadAtomicOptions {
  /** Snapshots that are taken at most. Default 5. */
  readonly attemptsMax?: number;
  /** Markers that are compared: those younger than this. Milliseconds. Default 60_000. */
  readonly withinMs?: number;
}

export interface SnapshotReader<R extends Resources> {
  on<Name extends keyof R & string>(name: Name): HandleOf<R[Name]>;
}

export async function readAtomic<R extends Resources, T>({
  sql,
  names,
  read,
  options: { attemptsMax = 5, withinMs = 60_000 },
}: {
  // biome-ignore lint/suspicious/noExplicitAny: any handle; `on` gives back the exact one.
  readonly sql: ReadonlyMap<string, SqlResource<any>>;
  readonly names: readonly string[];
  readonly read: (reader: SnapshotReader<R>) => Promise<T>;
  readonly options: ReadAtomicOptions;
}): Promise<T> {
  let fractured: readonly string[] = [];
  for (let attempt = 0; attempt < attemptsMax; attempt++) {
    const opened = await Promise.allSettled(
      names.map(async (name) => {
        const resource = sql.get(name);
        if (resource === undefined)
          throw conclaveError("INVALID_OPTION", `${JSON.stringify(name)} is no database of this manager.`);
        return [name, await resource.snapshot()] as const;
      }),
    );
    const snapshots = new Map(opened.flatMap((each) => (each.status === "fulfilled" ? [each.value] : [])));
    try {
      const failed = opened.find((each) => each.status === "rejected");
      if (failed !== undefined) throw failed.reason;
      fractured = await fracturesOf(snapshots, withinMs);
      if (fractured.length === 0) return await read({ on: (name) => snapshots.get(name)?.handle as never });
    } finally {
      await Promise.all([...snapshots.values()].map((snapshot) => snapshot.close()));
    }
  }
  throw conclaveError(
    "TRANSACTION_ABORTED",
    `${attemptsMax} snapshots of ${names.join(", ")} each showed half of a transaction, the last of ${fractured.slice(0, 3).join(", ")}.`,
  );
}

async function fracturesOf(snapshots: ReadonlyMap<string, Snapshot<unknown>>, withinMs: number): Promise<readonly string[]> {
  const seen = new Map<string, ReadonlyMap<string, MarkerRow>>();
  await Promise.all(
    [...snapshots].map(async ([name, snapshot]) => {
      // Wider on each look than the markers that ask for it, so that an edge of the window is no fracture.
      seen.set(name, new Map((await snapshot.markers(withinMs * 2)).map((marker) => [marker.gid, marker])));
    }),
  );
  const fractured = new Set<string>();
  for (const [name, snapshot] of snapshots) {
    const recent = await snapshot.markers(withinMs);
    for (const { gid, parts } of recent) {
      const isHalf = parts.some(
        ({ resource }) => resource !== name && seen.has(resource) && seen.get(resource)?.has(gid) !== true,
      );
      if (isHalf) fractured.add(gid);
    }
  }
  return [...fractured];
}
