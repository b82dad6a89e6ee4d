/**
 * What a restart may leave: of everything that a member persisted, exactly a prefix, whole steps, with nothing missing that
 * was reported durable (host duty H1 of `research/consensus.md` §6.1).
 *
 * The member's disk as the checker last knew it is the shortest lawful answer; each step that was under way makes one more.
 */
import type { LogOperation, Recovered } from "../consensus/core.ts";
import type { GhostLog } from "./ghost-log.ts";

export interface Persisted {
  /** Everything that was reported durable. */
  readonly disk: GhostLog;
  readonly meta: ReadonlyMap<string, string>;
  /** Under way, in order. */
  readonly pending: readonly { readonly operations: readonly LogOperation[]; readonly overtaken?: true }[];
}

/** `snapshotHash`: of the entry at the recovered snapshot's index; undefined for slots, where nothing hangs on what is below (seed 269). `log`: what was recovered. */
export function isPrefix(
  before: Persisted,
  after: { readonly recovered: Recovered; readonly log: GhostLog; readonly snapshotHash: number | undefined },
  toDisk: (disk: GhostLog, operation: LogOperation, step: { readonly overtaken?: true }) => void,
): boolean {
  const disk = before.disk.clone();
  const meta = new Map(before.meta);
  if (isSame(disk, meta, after)) return true;
  for (const step of before.pending) {
    for (const operation of step.operations) {
      toDisk(disk, operation, step);
      if (operation.kind === "meta") for (const [name, value] of Object.entries(operation.values)) meta.set(name, value);
    }
    if (isSame(disk, meta, after)) return true;
  }
  return false;
}

function isSame(
  disk: GhostLog,
  meta: ReadonlyMap<string, string>,
  {
    recovered,
    log,
    snapshotHash,
  }: { readonly recovered: Recovered; readonly log: GhostLog; readonly snapshotHash: number | undefined },
): boolean {
  for (const [name, value] of meta) if (recovered.meta.get(name) !== value) return false;
  const index = recovered.snapshot?.index ?? 0;
  // A snapshot that contradicts the log took its place (Raft Fig. 13, steps 6 and 7); one from above it as well.
  const own = disk.hashAt(index);
  if (snapshotHash !== undefined && index > disk.base && own !== undefined && own !== snapshotHash) return log.last === index;
  return disk.equalsAbove(index, log);
}
