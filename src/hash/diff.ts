/**
 * What moves between two placements: the exact ranges where both cut the line into arcs, else a count over fixed places.
 *
 * Two lists of arcs are walked side by side, as one merges sorted lists; wherever the owners differ, that stretch moves.
 *
 *     before   a a a a|b b b b b b|c c c|a
 *     after    a a a a|b b|d d d d|c c c|a        moved: one range, from b to d
 *
 * `collateral` is what consistent hashing exists to avoid: keys that wander between two nodes that nothing happened to.
 */
import { conclaveError } from "../base/errors.ts";
import type { Arcs, Diff, Flow, MovedRange, Placement } from "./placement.ts";
import type { PlacementNode } from "./roster.ts";

/** @throws INVALID_OPTION */
export function diffOf(previous: Placement, next: Placement): Diff {
  if (previous.keyHash !== next.keyHash) {
    throw conclaveError(
      "INVALID_OPTION",
      "The two placements hash keys differently, so nearly every key moves: nothing to compare.",
    );
  }
  const before = previous.arcs();
  const after = next.arcs();
  const ranges = before !== null && after !== null ? movedRanges({ previous, before, next, after }) : null;
  const flows = ranges === null ? sampledFlows(previous, next) : flowsOf(ranges);
  const touched = touchedIds(previous.nodes, next.nodes);
  return {
    moved: sum(flows),
    optimum: leastMove(previous.nodes, next.nodes),
    collateral: sum(flows.filter(({ source, target }) => !touched.has(source) && !touched.has(target))),
    flows,
    ranges,
    isExact: ranges !== null,
    moveOf(key) {
      const hash = previous.keyHash(key);
      const source = ownerAt(previous, hash);
      const target = ownerAt(next, hash);
      return source === target ? null : { source, target };
    },
  };
}

const line = 2 ** 32;
/** Enough for two digits of a share of one in a hundred; the places are the middles of equal parts of the line. */
const samplesCount = 65_536;

interface Sides {
  readonly previous: Placement;
  readonly before: Arcs;
  readonly next: Placement;
  readonly after: Arcs;
}

function movedRanges({ previous, before, next, after }: Sides): readonly MovedRange[] {
  const ranges: MovedRange[] = [];
  let open: { readonly from: number; to: number; readonly source: string | null; readonly target: string | null } | undefined;
  let from = 0;
  for (let left = 0, right = 0; from < line; ) {
    const leftEnd = endOf(before, left);
    const rightEnd = endOf(after, right);
    const to = Math.min(leftEnd, rightEnd) + 1;
    const source = idOf(previous, before, left);
    const target = idOf(next, after, right);
    if (source !== target && to > from) {
      if (open !== undefined && open.to === from && open.source === source && open.target === target) {
        open.to = to;
      } else {
        if (open !== undefined) ranges.push({ ...open, share: (open.to - open.from) / line });
        open = { from, to, source, target };
      }
    }
    if (leftEnd < to) left++;
    if (rightEnd < to) right++;
    from = to;
  }
  if (open !== undefined) ranges.push({ ...open, share: (open.to - open.from) / line });
  return ranges;
}

/** An empty placement is one arc that nobody owns. */
function endOf(arcs: Arcs, at: number): number {
  return arcs.ends.length === 0 ? line - 1 : (arcs.ends[at] as number);
}

function idOf(placement: Placement, arcs: Arcs, at: number): string | null {
  return arcs.ends.length === 0 ? null : (placement.nodes[arcs.ranks[at] as number]?.id ?? null);
}

function sampledFlows(previous: Placement, next: Placement): readonly Flow[] {
  const step = line / samplesCount;
  const moves: { source: string | null; target: string | null; share: number }[] = [];
  for (let hash = step / 2; hash < line; hash += step) {
    const source = ownerAt(previous, hash);
    const target = ownerAt(next, hash);
    if (source !== target) moves.push({ source, target, share: 1 / samplesCount });
  }
  return flowsOf(moves);
}

function ownerAt(placement: Placement, hash: number): string | null {
  if (!placement.nodes.some((node) => node.weight > 0)) return null;
  return placement.nodes[placement.rankAt(hash)]?.id ?? null;
}

function flowsOf(moves: readonly Flow[]): readonly Flow[] {
  const bySource = new Map<string | null, Map<string | null, number>>();
  for (const { source, target, share } of moves) {
    let byTarget = bySource.get(source);
    if (byTarget === undefined) {
      byTarget = new Map();
      bySource.set(source, byTarget);
    }
    byTarget.set(target, (byTarget.get(target) ?? 0) + share);
  }
  const flows = [...bySource].flatMap(([source, byTarget]) =>
    [...byTarget].map(([target, share]) => ({ source, target, share })),
  );
  return flows.sort((left, right) => right.share - left.share);
}

/** Those that joined, left, or count for more or less than before; and nobody (null). */
function touchedIds(previous: readonly PlacementNode[], next: readonly PlacementNode[]): ReadonlySet<string | null> {
  const before = weights(previous);
  const after = weights(next);
  const touched = new Set<string | null>([null]);
  for (const id of new Set([...before.keys(), ...after.keys()])) if (before.get(id) !== after.get(id)) touched.add(id);
  return touched;
}

/** What the nodes whose part grows must receive at least. */
function leastMove(previous: readonly PlacementNode[], next: readonly PlacementNode[]): number {
  const before = weights(previous);
  const after = weights(next);
  const [totalBefore, totalAfter] = [total(before), total(after)];
  if (totalBefore === 0 || totalAfter === 0) return totalBefore === totalAfter ? 0 : 1;
  let least = 0;
  for (const [id, weight] of after) least += Math.max(0, weight / totalAfter - (before.get(id) ?? 0) / totalBefore);
  return least;
}

function weights(nodes: readonly PlacementNode[]): ReadonlyMap<string, number> {
  return new Map(nodes.flatMap((node) => (node.weight > 0 ? [[node.id, node.weight]] : [])));
}

function total(weightsById: ReadonlyMap<string, number>): number {
  let result = 0;
  for (const weight of weightsById.values()) result += weight;
  return result;
}

function sum(flows: readonly Flow[]): number {
  return flows.reduce((whole, flow) => whole + flow.share, 0);
}
