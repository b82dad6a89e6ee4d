/**
 * What every placement can do, whichever algorithm stands behind it: say who owns a key, and what a change would move.
 *
 * Intuition: a seating plan that anybody can work out at home. Two processes that know the same nodes name the same owner
 * for every key without a word between them. A placement never changes: `with` and `without` give the next one, and
 * `diff` tells exactly which keys sit elsewhere in it, before anything is moved.
 *
 * Keys are texts; a hash turns one into a place on the line from 0 to 2^32. Half a surrogate pair in a key counts as
 * U+FFFD (as it would once encoded); a key may be empty, and of any length.
 */
import type { NodeLike, PlacementNode } from "./roster.ts";

/** Turns a key into an unsigned 32-bit number. */
export type KeyHash = (key: string) => number;

/** @since 0.2.0 */
export interface Placement {
  readonly algorithm: "ring" | "ketama" | "rendezvous" | "jump" | "maglev";
  /** Sorted by id (`jump`: as listed), each once. */
  readonly nodes: readonly PlacementNode[];
  /** The id of the node that owns the key. @throws NO_NODES, KEY_INVALID (no string) */
  owner(key: string): string;
  /**
   * The ids of the first `count` nodes for the key, the owner first: distinct nodes, and distinct zones while there are
   * zones left. Fewer when there are fewer nodes. When one of them leaves, the others stay in the list.
   * @throws NO_NODES, KEY_INVALID, INVALID_OPTION (count)
   */
  owners(key: string, count: number): readonly string[];
  /** The placement with this node added, or changed in weight or zone when one of this id is there. @throws INVALID_OPTION */
  with(node: NodeLike): Placement;
  /** The placement without it. @throws INVALID_OPTION (no such node) */
  without(id: string): Placement;
  /** What moves from this placement to the next one. @throws INVALID_OPTION (they hash keys differently) */
  diff(next: Placement): Diff;
  /** How keys become places on the line. */
  readonly keyHash: KeyHash;
  /** The rank (index in `nodes`) of the owner of a place on the line. @throws NO_NODES */
  rankAt(hash: number): number;
  /** The line as arcs; null for algorithms that scatter each node's keys over the whole line. */
  arcs(): Arcs | null;
}

/** Arc k reaches from the end of arc k-1 (exclusive; the first from 0) to `ends[k]` (inclusive). The last ends at 2^32-1. */
export interface Arcs {
  readonly ends: ArrayLike<number>;
  /** By arc: the rank of its owner. */
  readonly ranks: ArrayLike<number>;
}

/** Keys whose hash h is `from <= h < to` move. */
export interface MovedRange {
  readonly from: number;
  /** At most 2^32. */
  readonly to: number;
  /** The owner before; null when nobody was. */
  readonly source: string | null;
  /** The owner after; null when nobody will be. */
  readonly target: string | null;
  /** Of all keys, 0-1. */
  readonly share: number;
}

/** All that moves between two nodes. */
export interface Flow {
  readonly source: string | null;
  readonly target: string | null;
  readonly share: number;
}

/** @since 0.2.0 */
export interface Diff {
  /** The share of all keys whose owner changes, 0-1. */
  readonly moved: number;
  /** The least share that any placement would have to move to give every node its part by weight. */
  readonly optimum: number;
  /** The share that moves between two nodes although neither joined, left nor changed its weight. A ring has exactly 0. */
  readonly collateral: number;
  /** By pair of nodes, the largest first. */
  readonly flows: readonly Flow[];
  /** In order, none adjacent to one of the same pair. Null where the algorithm has no ranges (rendezvous, jump). */
  readonly ranges: readonly MovedRange[] | null;
  /** Whether the shares are exact. Without ranges they are taken over 65,536 places spread evenly over the line. */
  readonly isExact: boolean;
  /** Exact for every algorithm: where this key moves, or null when it stays. */
  moveOf(key: string): { readonly source: string | null; readonly target: string | null } | null;
}
