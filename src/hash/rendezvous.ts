/**
 * Rendezvous hashing: every node draws a lot for the key, the highest lot owns it.
 *
 * Intuition: a raffle in which a newcomer can win prizes but not make two others swap theirs. Balance is as good as the
 * hash, weights are exact, replicas are simply the next lots; the price is one lot per node and look-up.
 * Source: Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", IEEE/ACM ToN 6(1), 1998; with
 * weights the lot is -w / ln(u), as in Schindelhauer and Schomaker, "Weighted Distributed Hash Tables", SPAA 2005 §4.
 * For up to some 32 nodes; beyond, `ring` or `maglev` answers faster.
 */
import { diffOf } from "./diff.ts";
import { fmix32, murmur3 } from "./murmur3.ts";
import type { Diff, KeyHash, Placement } from "./placement.ts";
import { type NodeLike, noNodes, notAKey, type PlacementNode, Roster } from "./roster.ts";
import { Spread } from "./spread.ts";

/** Makes a rendezvous placement; nothing is stored or sent. @throws INVALID_OPTION @since 0.2.0 */
export function rendezvous(nodes: Iterable<NodeLike> = []): Rendezvous {
  return new Rendezvous(new Roster(nodes));
}

/** @since 0.2.0 */
export class Rendezvous implements Placement {
  readonly algorithm = "rendezvous";
  readonly keyHash: KeyHash = murmur3;
  readonly #roster: Roster;
  /** By place among those that own anything: rank, and the two halves of the node's seed. */
  readonly #ranks: Uint32Array;
  readonly #seeds: Uint32Array;
  readonly #seconds: Uint32Array;
  /** Null when all weigh the same: then the bare draw decides, which orders the lots alike and needs no logarithm. */
  readonly #weights: Float64Array | null;

  /** Use `rendezvous`. */
  constructor(roster: Roster) {
    this.#roster = roster;
    const owning = [...roster.nodes.keys()].filter((rank) => (roster.nodes[rank] as PlacementNode).weight > 0);
    const weights = owning.map((rank) => (roster.nodes[rank] as PlacementNode).weight);
    this.#ranks = Uint32Array.from(owning);
    this.#seeds = Uint32Array.from(owning, (rank) => murmur3(roster.ids[rank] as string, 0x9e3779b9));
    this.#seconds = Uint32Array.from(owning, (rank) => murmur3(roster.ids[rank] as string, 0x85ebca6b));
    this.#weights = weights.every((weight) => weight === weights[0]) ? null : Float64Array.from(weights);
  }

  get nodes(): readonly PlacementNode[] {
    return this.#roster.nodes;
  }

  owner(key: string): string {
    if (typeof key !== "string") throw notAKey(key);
    return this.#roster.ids[this.rankAt(murmur3(key))] as string;
  }

  owners(key: string, count: number): readonly string[] {
    const spread = new Spread(this.#roster, count);
    if (typeof key !== "string") throw notAKey(key);
    if (this.#ranks.length === 0) throw noNodes(this.algorithm);
    const hash = murmur3(key);
    const lots = Float64Array.from(this.#ranks, (_, at) => this.#lot(hash, at));
    // A tie goes to the id that sorts first, here as in `rankAt`: the sort is stable and the ranks ascend.
    const order = [...this.#ranks.keys()].sort((left, right) => (lots[right] as number) - (lots[left] as number));
    for (const at of order) if (spread.offer(this.#ranks[at] as number)) break;
    return spread.ids();
  }

  with(node: NodeLike): Rendezvous {
    return new Rendezvous(this.#roster.with(node));
  }

  without(id: string): Rendezvous {
    return new Rendezvous(this.#roster.without(id));
  }

  diff(next: Placement): Diff {
    return diffOf(this, next);
  }

  rankAt(hash: number): number {
    let best = -1;
    let winner = -1;
    for (let at = 0; at < this.#ranks.length; at++) {
      const lot = this.#lot(hash, at);
      if (lot > best) {
        best = lot;
        winner = at;
      }
    }
    if (winner < 0) throw noNodes(this.algorithm);
    return this.#ranks[winner] as number;
  }

  arcs(): null {
    return null;
  }

  #lot(hash: number, at: number): number {
    const draw = fmix32(fmix32(hash ^ (this.#seeds[at] as number)) + (this.#seconds[at] as number));
    if (this.#weights === null) return draw;
    // The middle of the draw's interval: neither 0 nor 1, whose logarithms would be useless.
    return -(this.#weights[at] as number) / Math.log((draw + 0.5) / 2 ** 32);
  }
}
