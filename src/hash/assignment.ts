/**
 * Who should own which of Q partitions: even to within one, by weight, and as few moves as that allows.
 *
 * Intuition: dealing out a pack to players who already hold cards. First it is settled how many each may hold; whoever has
 * too many lays the last ones down, whoever has too few picks up. Nobody swaps a card for another.
 * Every node gets its part rounded down or up. Where roundings are free, who holds one more already keeps it, so that
 * the same nodes and weights, asked again, move nothing.
 * Source: partitions of equal size as in DeCandia et al., "Dynamo", SOSP 2007 §6.2 (strategy 3).
 */
import { murmur3 } from "./murmur3.ts";

export interface WeighedNode {
  readonly id: string;
  readonly weight: number;
}

/** The partition of a key, from 0 to below `count`: equal parts of the line of hashes. */
export function partitionOf(key: string, count: number): number {
  return Math.floor((murmur3(key) * count) / 2 ** 32);
}

/**
 * The next owner of each partition. `owners[p]` is the present one's id; null, or an id that is not among the nodes:
 * nobody. With no weight above 0 everything stays as it is.
 */
export function assigned(owners: readonly (string | null)[], nodes: readonly WeighedNode[]): readonly (string | null)[] {
  const owned = new Map<string, number>(nodes.map(({ id }) => [id, 0]));
  for (const owner of owners) if (owner !== null && owned.has(owner)) owned.set(owner, (owned.get(owner) as number) + 1);
  const quotas = quotasOf(owners.length, nodes, owned);
  if (quotas === null) return owners;
  const kept = new Map<string, number>();
  const next = owners.map((owner) => {
    const quota = owner === null ? undefined : quotas.get(owner);
    if (owner === null || quota === undefined) return null;
    const count = kept.get(owner) ?? 0;
    if (count >= quota) return null;
    kept.set(owner, count + 1);
    return owner;
  });
  const takers = [...quotas].map(([id, quota]) => ({ id, wants: quota - (kept.get(id) ?? 0) })).filter(({ wants }) => wants > 0);
  let at = 0;
  return next.map((owner) => {
    if (owner !== null) return owner;
    // In turns, so that neighbouring partitions of one that left go to different nodes.
    while ((takers[at % takers.length] as (typeof takers)[number]).wants === 0) at++;
    const taker = takers[at++ % takers.length] as (typeof takers)[number];
    taker.wants--;
    return taker.id;
  });
}

/** By id: its part, rounded down, or up for as many as are needed to make the sum right. Null: nobody weighs anything. */
function quotasOf(
  count: number,
  nodes: readonly WeighedNode[],
  owned: ReadonlyMap<string, number>,
): ReadonlyMap<string, number> | null {
  const total = nodes.reduce((sum, { weight }) => sum + weight, 0);
  if (total === 0) return null;
  const parts = nodes.map(({ id, weight }) => {
    const exact = (count * weight) / total;
    const whole = Math.floor(exact);
    return { id, whole, fraction: exact - whole, hasMore: (owned.get(id) as number) > whole };
  });
  const free = count - parts.reduce((sum, { whole }) => sum + whole, 0);
  const order = [...parts].sort(
    (left, right) =>
      Number(right.fraction > 0 && right.hasMore) - Number(left.fraction > 0 && left.hasMore) ||
      right.fraction - left.fraction ||
      (left.id < right.id ? -1 : 1),
  );
  const rounded = new Set(order.slice(0, free).map(({ id }) => id));
  return new Map(parts.map(({ id, whole }) => [id, whole + (rounded.has(id) ? 1 : 0)]));
}
