/**
 * The consistent-hash ring: every node stands at many points of a circle and owns the keys up to each of them.
 *
 * Intuition: parishes along a ring road. Everybody belongs to the next church clockwise; a new church takes people only
 * from the next one along. With one church per node parishes differ wildly, with 256 the largest of 100 nodes owns about
 * 1.16 times its part (the spread falls as one over the root of the points).
 *
 *        place 0
 *       b    a           point i of a node: murmur3(id, seed = fmix32(i)), so nothing is glued together that two
 *     a        c         names could share, and all points of one node differ. Key: murmur3(key).
 *       c    b
 *
 * Source: Karger et al., "Consistent Hashing and Random Trees", STOC 1997, §4; virtual nodes as in Dynamo (SOSP 2007 §4.2).
 * The number of a node's points depends on that node's weight and on nothing else (npm's hashring counts them by a share
 * of the whole and so moves points of bystanders). Which algorithm for what: docs/hash.md.
 */
import { conclaveError } from "../base/errors.ts";
import { diffOf } from "./diff.ts";
import { fmix32, murmur3 } from "./murmur3.ts";
import type { Arcs, Diff, KeyHash, Placement } from "./placement.ts";
import { Points } from "./points.ts";
import { type NodeLike, noNodes, notAKey, type PlacementNode, Roster } from "./roster.ts";
import { Spread } from "./spread.ts";

export interface RingOptions {
  /** Points of a node of weight 1, 1-65_536. Default 256. More: evener, larger, slower to build. All processes alike. */
  readonly virtualNodes?: number;
  /** From a key to its place. Default `murmur3`. For rings of other systems; all processes alike. */
  readonly keyHash?: KeyHash;
  /** From a node's id and the number of its point to the point's place. Default: `murmur3(id, fmix32(index))`. */
  readonly pointHash?: (id: string, index: number) => number;
}

export const ringDefaults = { virtualNodes: 256, keyHash: murmur3 as KeyHash, pointHash: placeOf } as const;

/**
 * Makes a ring; nothing is stored or sent. Moves least on a change, with no word between processes.
 *
 * ```ts
 * const before = ring(["a", "b", { id: "c", weight: 2, zone: "eu-1" }]);
 * before.owner("user:42");
 * const after = before.with("d");
 * before.diff(after).ranges; // which keys to copy, from whom, to whom
 * ```
 * @throws INVALID_OPTION @since 0.2.0
 */
export function ring(nodes: Iterable<NodeLike> = [], options: RingOptions = {}): Ring {
  return new Ring("ring", new Roster(nodes), virtualNodePoints(options), options.keyHash ?? ringDefaults.keyHash);
}

/** By rank: the places of a node's points. */
export type PointPlan = (nodes: readonly PlacementNode[]) => readonly ArrayLike<number>[];

/** @since 0.2.0 */
export class Ring implements Placement {
  readonly algorithm: "ring" | "ketama";
  readonly keyHash: KeyHash;
  readonly #roster: Roster;
  readonly #plan: PointPlan;
  readonly #points: Points;

  /** Use `ring` or `ketama`, which check the options. */
  constructor(algorithm: "ring" | "ketama", roster: Roster, plan: PointPlan, keyHash: KeyHash) {
    this.algorithm = algorithm;
    this.keyHash = keyHash;
    this.#roster = roster;
    this.#plan = plan;
    this.#points = new Points(plan(roster.nodes));
  }

  get nodes(): readonly PlacementNode[] {
    return this.#roster.nodes;
  }

  owner(key: string): string {
    if (typeof key !== "string") throw notAKey(key);
    return this.#roster.ids[this.rankAt(this.keyHash(key))] as string;
  }

  owners(key: string, count: number): readonly string[] {
    const spread = new Spread(this.#roster, count);
    if (this.#points.count === 0) throw noNodes(this.algorithm);
    const { ranks } = this.#points;
    if (typeof key !== "string") throw notAKey(key);
    const first = this.#points.successor(this.keyHash(key) >>> 0);
    for (let step = 0, point = first; step < ranks.length; step++, point = point + 1 === ranks.length ? 0 : point + 1) {
      if (spread.offer(ranks[point] as number)) break;
    }
    return spread.ids();
  }

  with(node: NodeLike): Ring {
    return new Ring(this.algorithm, this.#roster.with(node), this.#plan, this.keyHash);
  }

  without(id: string): Ring {
    return new Ring(this.algorithm, this.#roster.without(id), this.#plan, this.keyHash);
  }

  diff(next: Placement): Diff {
    return diffOf(this, next);
  }

  rankAt(hash: number): number {
    if (this.#points.count === 0) throw noNodes(this.algorithm);
    return this.#points.ranks[this.#points.successor(hash >>> 0)] as number;
  }

  arcs(): Arcs {
    const { places, ranks, count } = this.#points;
    const [last] = places.slice(-1);
    if (last === undefined || last === 2 ** 32 - 1) return { ends: places, ranks };
    // Beyond the last point the ring begins again.
    const ends = new Uint32Array(count + 1);
    ends.set(places);
    ends[count] = 2 ** 32 - 1;
    return { ends, ranks: [...ranks, ranks[0] as number] };
  }

  /** What the tables take. */
  get bytes(): number {
    return this.#points.bytes;
  }
}

function placeOf(id: string, index: number): number {
  // The seed is mixed: with neighbouring seeds the points of two short ids could fall together all at once.
  return murmur3(id, fmix32(index));
}

function virtualNodePoints({
  virtualNodes = ringDefaults.virtualNodes,
  pointHash = ringDefaults.pointHash,
}: RingOptions): PointPlan {
  if (!Number.isSafeInteger(virtualNodes) || virtualNodes < 1 || virtualNodes > 65_536) {
    throw conclaveError("INVALID_OPTION", `\`virtualNodes\` must be a whole number from 1 to 65,536; got ${virtualNodes}.`);
  }
  return (nodes) =>
    nodes.map(({ id, weight }) => {
      // Whoever counts at all owns something.
      const count = weight === 0 ? 0 : Math.max(1, Math.round(virtualNodes * weight));
      return Array.from({ length: Math.min(count, 2 ** 23) }, (_, index) => pointHash(id, index) >>> 0);
    });
}
