/**
 * How two histories compare, and how far they agree.
 *
 * Two histories that hold the same zxid agree in everything before it: an epoch has one primary, who numbers its proposals
 * one after another, and whoever took one of them had first made the primary's initial history its own (Zab's phase 2). So
 * the latest common zxid is found from where each epoch begins, without looking at any entry.
 */
import type { Index, Term } from "../core.ts";
import type { RaftLog } from "../raft/raft-log.ts";
import type { EpochStart, Vote } from "./messages.ts";

/** Whether the left one's history must win: by the epoch it last belonged to, then by its last zxid (ZooKeeper's `totalOrderPredicate`). */
export function isAhead(left: Omit<Vote, "leader">, right: Omit<Vote, "leader">): boolean {
  if (left.epoch !== right.epoch) return left.epoch > right.epoch;
  if (left.lastTerm !== right.lastTerm) return left.lastTerm > right.lastTerm;
  return left.lastIndex > right.lastIndex;
}

/** The epochs of the kept history, oldest first. All of them: an agreement that is set too low would cut off what counts. */
export function epochStarts(log: RaftLog): EpochStart[] {
  const starts: EpochStart[] = [];
  for (let index = log.lastIndex; index >= log.firstIndex; index--) {
    const term = log.termAt(index) as Term;
    const newest = starts.at(-1);
    if (newest?.term === term) starts[starts.length - 1] = { term, first: index };
    else starts.push({ term, first: index });
  }
  return starts.reverse();
}

/** Up to where the other's history equals ours, as far as the kept log can tell; never below what it knows as committed. */
export function agreementWith(
  log: RaftLog,
  other: { readonly lastIndex: Index; readonly committed: Index; readonly starts: readonly EpochStart[] },
): Index {
  const floor = Math.min(other.committed, log.lastIndex);
  for (let index = Math.min(other.lastIndex, log.lastIndex); index > floor; index--) {
    const term = log.termAt(index);
    if (term === undefined) return floor;
    if (term === termIn(other.starts, index)) return index;
  }
  return floor;
}

/** 0 where the starts do not reach. */
function termIn(starts: readonly EpochStart[], index: Index): Term {
  for (let at = starts.length - 1; at >= 0; at--) {
    const start = starts[at] as EpochStart;
    if (start.first <= index) return start.term;
  }
  return 0;
}
