/**
 * Jump consistent hash: numbered shards without a table.
 *
 * Intuition: a key hops over the shard numbers in ever longer jumps and stays on the last one before the end. One shard
 * more and it either jumps onto the new one or stays. It takes no memory, and it knows only "how many": shards are added
 * and removed at the end. A shard that leaves the middle renumbers those behind it and moves about half of the keys
 * (`diff` says so beforehand): for membership with failures take `ring`.
 *
 * Source: Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm", arXiv 1406.2294, Figure 1.
 * The paper's multiplication of 64 bits is done here on two halves of 32; `jumpBucket` gives the paper's numbers.
 */
import { conclaveError } from "../base/errors.ts";
import { diffOf } from "./diff.ts";
import { fmix32, murmur3 } from "./murmur3.ts";
import type { Diff, KeyHash, Placement } from "./placement.ts";
import { type NodeLike, noNodes, notAKey, type PlacementNode, Roster } from "./roster.ts";
import { Spread } from "./spread.ts";

/** Makes a jump placement over the nodes in the order listed, all of weight 1. @throws INVALID_OPTION @since 0.2.0 */
export function jump(nodes: Iterable<NodeLike> = []): Jump {
  return new Jump(new Roster(nodes, { isSorted: false }));
}

/** The bucket of a 64-bit key (its high and its low half), from 0 to below `buckets`. */
export function jumpBucket(key: { readonly high: number; readonly low: number }, buckets: number): number {
  let high = key.high >>> 0;
  let low = key.low >>> 0;
  let bucket = 0;
  for (let next = 0; next < buckets; ) {
    bucket = next;
    // key = key * 2862933555777941757 + 1, modulo 2^64; the factor is 0x27BB2EE6_87B0B0FD.
    const product = timesLowFactor(low);
    high = (Math.imul(high, lowFactor) + Math.imul(low, highFactor) + product.high) >>> 0;
    low = (product.low + 1) >>> 0;
    if (low === 0) high = (high + 1) >>> 0;
    next = Math.floor((bucket + 1) * (2 ** 31 / ((high >>> 1) + 1)));
  }
  return bucket;
}

/** @since 0.2.0 */
export class Jump implements Placement {
  readonly algorithm = "jump";
  readonly keyHash: KeyHash = murmur3;
  readonly #roster: Roster;

  /** Use `jump`. */
  constructor(roster: Roster) {
    const heavy = roster.nodes.find((node) => node.weight !== 1);
    if (heavy !== undefined) {
      throw conclaveError(
        "INVALID_OPTION",
        `\`jump\` knows no weights, and node ${JSON.stringify(heavy.id)} has ${heavy.weight}. Use \`ring\` or \`rendezvous\`.`,
      );
    }
    this.#roster = roster;
  }

  get nodes(): readonly PlacementNode[] {
    return this.#roster.nodes;
  }

  owner(key: string): string {
    if (typeof key !== "string") throw notAKey(key);
    return this.#roster.ids[this.rankAt(murmur3(key))] as string;
  }

  /** The next replica is where the key would jump among the shards that are left. */
  owners(key: string, count: number): readonly string[] {
    const spread = new Spread(this.#roster, count);
    if (typeof key !== "string") throw notAKey(key);
    if (this.#roster.owningCount === 0) throw noNodes(this.algorithm);
    const left = [...this.#roster.nodes.keys()];
    for (let hash = murmur3(key); left.length > 0; hash = fmix32(hash + 0x9e3779b9)) {
      const at = jumpBucket(keyOf(hash), left.length);
      const rank = left[at] as number;
      if (spread.offer(rank)) break;
      left.splice(at, 1);
    }
    return spread.ids();
  }

  with(node: NodeLike): Jump {
    return new Jump(this.#roster.with(node));
  }

  without(id: string): Jump {
    return new Jump(this.#roster.without(id));
  }

  diff(next: Placement): Diff {
    return diffOf(this, next);
  }

  rankAt(hash: number): number {
    if (this.#roster.owningCount === 0) throw noNodes(this.algorithm);
    return jumpBucket(keyOf(hash), this.#roster.nodes.length);
  }

  arcs(): null {
    return null;
  }
}

const highFactor = 0x27bb2ee6;
const lowFactor = 0x87b0b0fd;
const halves = { high: 0, low: 0 };

/** The 64 bits of a 32-bit number times the low factor. The answer is overwritten by the next call. */
function timesLowFactor(value: number): { readonly high: number; readonly low: number } {
  const [a, b] = [value >>> 16, value & 0xffff];
  const [c, d] = [lowFactor >>> 16, lowFactor & 0xffff];
  const bd = b * d;
  const middle = a * d + (bd >>> 16);
  const crossed = b * c + (middle & 0xffff);
  halves.low = (((crossed & 0xffff) << 16) | (bd & 0xffff)) >>> 0;
  halves.high = (a * c + Math.floor(middle / 65_536) + Math.floor(crossed / 65_536)) >>> 0;
  return halves;
}

/** 64 bits from 32: the paper's generator wants a key whose high half is mixed as well. */
function keyOf(hash: number): { readonly high: number; readonly low: number } {
  return { high: fmix32(hash ^ 0x5bd1e995), low: hash };
}
