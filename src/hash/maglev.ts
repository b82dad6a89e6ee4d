/**
 * Maglev hashing: a table that is filled by the nodes in turns, each by its own list of preferences.
 *
 * Intuition: picking teams in a schoolyard. Every node has its own order of the slots and takes, when it is its turn, the
 * first that is still free. All get the same number to within one; the price is that a leaving node lets a few slots of
 * others change hands as well (about half a percent at 65,537 slots; `diff` says exactly which).
 * Source: Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, §3.4 (Pseudocode 1);
 * weights by skipped turns, as in Envoy's table. For load balancing, where affinity may break a little; not for data.
 */
import { conclaveError } from "../base/errors.ts";
import { diffOf } from "./diff.ts";
import { murmur3 } from "./murmur3.ts";
import type { Arcs, Diff, KeyHash, Placement } from "./placement.ts";
import { type NodeLike, noNodes, notAKey, type PlacementNode, Roster } from "./roster.ts";
import { Spread } from "./spread.ts";

export interface MaglevOptions {
  /** Slots of the table: a prime, at least a hundred times the nodes. Default 65_537, at most 5_000_011. All alike. */
  readonly tableSize?: number;
}

export const maglevDefaults = { tableSize: 65_537 } as const;

/** Makes a Maglev placement; nothing is stored or sent. @throws INVALID_OPTION @since 0.2.0 */
export function maglev(nodes: Iterable<NodeLike> = [], { tableSize = maglevDefaults.tableSize }: MaglevOptions = {}): Maglev {
  if (!Number.isSafeInteger(tableSize) || tableSize < 2 || tableSize > 5_000_011 || !isPrime(tableSize)) {
    throw conclaveError("INVALID_OPTION", `\`tableSize\` must be a prime of at most 5,000,011; got ${tableSize}.`);
  }
  return new Maglev(new Roster(nodes), tableSize);
}

/** @since 0.2.0 */
export class Maglev implements Placement {
  readonly algorithm = "maglev";
  readonly keyHash: KeyHash = murmur3;
  readonly tableSize: number;
  readonly #roster: Roster;
  /** By slot: the rank of its owner. Empty when nobody owns anything. */
  readonly #slots: Uint16Array | Uint32Array;

  /** Use `maglev`, which checks the options. @throws INVALID_OPTION (more nodes than slots) */
  constructor(roster: Roster, tableSize: number) {
    if (roster.owningCount > tableSize) {
      throw conclaveError("INVALID_OPTION", `${roster.owningCount} nodes do not fit into a \`tableSize\` of ${tableSize}.`);
    }
    this.tableSize = tableSize;
    this.#roster = roster;
    this.#slots = filledTable(roster, tableSize);
  }

  get nodes(): readonly PlacementNode[] {
    return this.#roster.nodes;
  }

  owner(key: string): string {
    if (typeof key !== "string") throw notAKey(key);
    return this.#roster.ids[this.rankAt(murmur3(key))] as string;
  }

  /** The next replica is the next other node along the table. */
  owners(key: string, count: number): readonly string[] {
    const spread = new Spread(this.#roster, count);
    if (typeof key !== "string") throw notAKey(key);
    if (this.#slots.length === 0) throw noNodes(this.algorithm);
    const { tableSize } = this;
    for (
      let step = 0, slot = this.#slotOf(murmur3(key));
      step < tableSize;
      step++, slot = slot + 1 === tableSize ? 0 : slot + 1
    ) {
      if (spread.offer(this.#slots[slot] as number)) break;
    }
    return spread.ids();
  }

  with(node: NodeLike): Maglev {
    return new Maglev(this.#roster.with(node), this.tableSize);
  }

  without(id: string): Maglev {
    return new Maglev(this.#roster.without(id), this.tableSize);
  }

  diff(next: Placement): Diff {
    return diffOf(this, next);
  }

  rankAt(hash: number): number {
    if (this.#slots.length === 0) throw noNodes(this.algorithm);
    return this.#slots[this.#slotOf(hash)] as number;
  }

  arcs(): Arcs {
    if (this.#slots.length === 0) return { ends: [], ranks: [] };
    const ends = Float64Array.from(this.#slots, (_, slot) => Math.ceil(((slot + 1) * 2 ** 32) / this.tableSize) - 1);
    return { ends, ranks: this.#slots };
  }

  /** Equal parts of the line, not the remainder of a division: a slot is then a range of hashes, and cheaper to find. */
  #slotOf(hash: number): number {
    return Math.floor(((hash >>> 0) * this.tableSize) / 2 ** 32);
  }
}

const free = 0xffff_ffff;

function filledTable({ nodes, owningCount }: Roster, tableSize: number): Uint16Array | Uint32Array {
  if (owningCount === 0) return new Uint16Array(0);
  const owners = new Uint32Array(tableSize).fill(free);
  const players = nodes.flatMap(({ id, weight }, rank) => {
    if (weight === 0) return [];
    const skip = (murmur3(id, 0x85ebca6b) % (tableSize - 1)) + 1;
    return [{ rank, weight, skip, next: murmur3(id, 0x9e3779b9) % tableSize, due: 0 }];
  });
  const heaviest = players.reduce((most, { weight }) => Math.max(most, weight), 0);
  for (let filled = 0, turn = 1; ; turn++) {
    for (const player of players) {
      // The heaviest plays every turn, one of half its weight every second.
      if (turn * player.weight < player.due) continue;
      player.due += heaviest;
      while (owners[player.next] !== free) player.next = (player.next + player.skip) % tableSize;
      owners[player.next] = player.rank;
      if (++filled === tableSize) return nodes.length <= 2 ** 16 ? Uint16Array.from(owners) : owners;
    }
  }
}

function isPrime(value: number): boolean {
  for (let divisor = 2; divisor * divisor <= value; divisor++) if (value % divisor === 0) return false;
  return value >= 2;
}
