/**
 * The planner's arithmetic: which table should follow, given who is there, who holds what, and how much may move at once.
 *
 * A partition that nobody alive should hold is given away at once: it serves nobody. All other moves only even out, and
 * wait their turn: no more than `movesMax` are under way at a time. Since `assigned` moves nothing without need, a plan
 * that is carried out bit by bit, and computed anew each time, arrives where the first one pointed.
 */
import { assigned } from "../hash/assignment.ts";
import type { PartitionsState, Table } from "./state.ts";

/** A partition that should change hands. */
export interface PlannedMove {
  readonly partition: number;
  /** Who holds it; null when nobody does. */
  readonly from: string | null;
  readonly to: string;
  /** As the migration reports it, 0-1; null while it has not begun. */
  readonly progress: number | null;
}

/** How things stand and what comes next. @since 0.2.0 */
export interface PartitionPlan {
  /** Of the table: one higher with each change. 0: there is none yet. */
  readonly epoch: number;
  readonly members: readonly { readonly id: string; readonly weight: number; readonly holds: number; readonly will: number }[];
  /** Assigned and on their way. */
  readonly underWay: readonly PlannedMove[];
  /** To be assigned as others arrive. */
  readonly waiting: readonly PlannedMove[];
  /** The largest part of a member by its weight, over its exact part, once all moves are done. */
  readonly maxOverAverage: number;
}

/** The table to write now; null: the present one may stay. */
export function nextTable(
  state: PartitionsState,
  { count, movesMax }: { readonly count: number; readonly movesMax: number },
): Table | null {
  if (state.members.length === 0) return null;
  const present = presentOwners(state, count);
  const target = assigned(present, state.members);
  let room = movesMax - underWay(state).length;
  const next = present.map((owner, partition) => {
    const wanted = target[partition] ?? null;
    if (owner === wanted) return owner;
    // Nobody serves it: no reason to wait.
    if (owner === null) return wanted;
    return room-- > 0 ? wanted : owner;
  });
  const before = state.table?.owners;
  if (before !== undefined && next.every((owner, partition) => owner === before[partition])) return null;
  return { epoch: (state.table?.epoch ?? 0) + 1, owners: next };
}

export function planOf(state: PartitionsState, count: number): PartitionPlan {
  const present = presentOwners(state, count);
  const target = assigned(present, state.members);
  const total = state.members.reduce((sum, { weight }) => sum + weight, 0);
  const members = state.members.map(({ id, weight }) => ({
    id,
    weight,
    holds: [...state.claims.values()].filter(({ member }) => member === id).length,
    will: target.filter((owner) => owner === id).length,
  }));
  const moves = target.flatMap((to, partition) =>
    to === null || to === present[partition]
      ? []
      : [{ partition, from: state.claims.get(partition)?.member ?? null, to, progress: null }],
  );
  const loads = members.flatMap(({ weight, will }) => (weight > 0 ? [will / ((count * weight) / total)] : []));
  return {
    epoch: state.table?.epoch ?? 0,
    members,
    underWay: underWay(state),
    waiting: moves,
    maxOverAverage: Math.max(0, ...loads),
  };
}

/** The table's owners that are there; of one that is not, who still holds it (it was to give it away, and keeps it). */
function presentOwners(state: PartitionsState, count: number): readonly (string | null)[] {
  const alive = new Set(state.members.map(({ id }) => id));
  return Array.from({ length: state.table?.owners.length ?? count }, (_, partition) => {
    const owner = state.table?.owners[partition] ?? null;
    if (owner !== null && alive.has(owner)) return owner;
    const holder = state.claims.get(partition)?.member;
    return holder !== undefined && alive.has(holder) ? holder : null;
  });
}

/** Held by one that is there and meant for another that is there. */
function underWay({ table, members, claims, moves }: PartitionsState): readonly PlannedMove[] {
  const alive = new Set(members.map(({ id }) => id));
  return [...claims].flatMap(([partition, { member }]) => {
    const to = table?.owners[partition] ?? null;
    if (to === null || to === member || !alive.has(to) || !alive.has(member)) return [];
    return [{ partition, from: member, to, progress: moves.get(partition)?.progress ?? null }];
  });
}
