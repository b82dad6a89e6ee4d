/**
 * The nodes of a placement, checked at the door: who may own keys, how much of them, and where it stands.
 *
 * A placement is a function of the set of its nodes. They are sorted by id, so neither the order in which they were named
 * nor the history of joins and leaves leaves a trace (only `jump`, whose shards are numbered, keeps the order as listed).
 * Inside, a node is its rank in this order: a small number that fits into typed arrays.
 */
import { conclaveError } from "../base/errors.ts";

/** A node as callers write it: its id alone, or with a weight and a zone. */
export type NodeLike = string | { readonly id: string; readonly weight?: number; readonly zone?: string };

/** A node with its defaults filled in. @since 0.2.0 */
export interface PlacementNode {
  /** A name that stays the node's across restarts (`cache-3`, not an address that changes). Any well-formed text but "". */
  readonly id: string;
  /** How much it owns relative to the others, 0-1_000_000. Default 1. 0: it stays listed and owns nothing (drained). */
  readonly weight: number;
  /** What fails together (a rack, a data centre). `owners` spreads over zones. Undefined: the node is a zone of its own. */
  readonly zone: string | undefined;
}

export class Roster {
  readonly nodes: readonly PlacementNode[];
  /** By rank. */
  readonly ids: readonly string[];
  /** By rank: equal numbers are one zone. */
  readonly zones: Int32Array;
  /** How many own anything. */
  readonly owningCount: number;
  readonly owningZonesCount: number;
  readonly #isSorted: boolean;

  /** @throws INVALID_OPTION */
  constructor(nodes: Iterable<NodeLike>, options: { readonly isSorted: boolean } = { isSorted: true }) {
    this.#isSorted = options.isSorted;
    const checked = checkedNodes(nodes);
    this.nodes = Object.freeze(options.isSorted ? checked.sort((left, right) => (left.id < right.id ? -1 : 1)) : checked);
    this.ids = this.nodes.map((node) => node.id);
    this.zones = numberedZones(this.nodes);
    const owning = this.nodes.flatMap((node, rank) => (node.weight > 0 ? [this.zones[rank]] : []));
    this.owningCount = owning.length;
    this.owningZonesCount = new Set(owning).size;
  }

  /** Joined by the node, which takes the place of the one of the same id. @throws INVALID_OPTION */
  with(node: NodeLike): Roster {
    const added = checkedNode(node);
    const isKnown = this.ids.includes(added.id);
    const nodes = isKnown ? this.nodes.map((each) => (each.id === added.id ? added : each)) : [...this.nodes, added];
    return new Roster(nodes as readonly NodeLike[], { isSorted: this.#isSorted });
  }

  /** @throws INVALID_OPTION when no node has this id: a typing error must not look like a departure */
  without(id: string): Roster {
    const rest = this.nodes.filter((each) => each.id !== id);
    if (rest.length === this.nodes.length) throw conclaveError("INVALID_OPTION", `No node is called ${JSON.stringify(id)}.`);
    return new Roster(rest as readonly NodeLike[], { isSorted: this.#isSorted });
  }

  /** By rank: the share of the keys that the node ought to own. */
  idealShares(): readonly number[] {
    const total = this.nodes.reduce((sum, node) => sum + node.weight, 0);
    return this.nodes.map((node) => (total === 0 ? 0 : node.weight / total));
  }
}

/** The error of who asks an empty placement for an owner. */
export function noNodes(algorithm: string): Error {
  return conclaveError("NO_NODES", `This ${algorithm} has no node with a weight above 0, so no key has an owner.`);
}

export function notAKey(key: unknown): Error {
  return conclaveError("KEY_INVALID", `A key must be a string; got ${key === null ? "null" : typeof key}.`);
}

/** Beyond it a point and its node no longer fit into one exact number. */
const nodesMax = 2 ** 20;
const weightMax = 1e6;

/** In the order given, each once. Naming a node twice alike is naming it once; twice differently is a mistake. */
function checkedNodes(nodes: Iterable<NodeLike>): PlacementNode[] {
  const byId = new Map<string, PlacementNode>();
  for (const each of nodes) {
    const node = checkedNode(each);
    const earlier = byId.get(node.id);
    if (earlier !== undefined && (earlier.weight !== node.weight || earlier.zone !== node.zone)) {
      throw conclaveError("INVALID_OPTION", `Node ${JSON.stringify(node.id)} is named twice, with different weights or zones.`);
    }
    byId.set(node.id, node);
  }
  if (byId.size > nodesMax) throw conclaveError("INVALID_OPTION", `${byId.size} nodes are more than ${nodesMax}.`);
  return [...byId.values()];
}

function checkedNode(node: NodeLike): PlacementNode {
  const { id, weight = 1, zone } = typeof node === "string" ? { id: node } : (node ?? {});
  if (typeof id !== "string" || id === "") {
    throw conclaveError(
      "INVALID_OPTION",
      `A node needs an \`id\` that is a non-empty string; got ${id === "" ? '""' : typeof id}.`,
    );
  }
  // Every such half encodes as U+FFFD: two different ids would stand at the same points.
  if (/\p{Surrogate}/u.test(id)) {
    throw conclaveError("INVALID_OPTION", `Node id ${JSON.stringify(id)} holds half a surrogate pair.`);
  }
  if (typeof weight !== "number" || !(weight >= 0 && weight <= weightMax)) {
    throw conclaveError(
      "INVALID_OPTION",
      `\`weight\` of node ${JSON.stringify(id)} must be from 0 to ${weightMax}; got ${weight}.`,
    );
  }
  if (zone !== undefined && typeof zone !== "string") {
    throw conclaveError("INVALID_OPTION", `\`zone\` of node ${JSON.stringify(id)} must be a string.`);
  }
  return Object.freeze({ id, weight, zone });
}

function numberedZones(nodes: readonly PlacementNode[]): Int32Array {
  const numbers = new Map<string, number>();
  return Int32Array.from(nodes, ({ zone }, rank) => {
    // Negative numbers are the zones of those that stand alone.
    if (zone === undefined) return -1 - rank;
    const known = numbers.get(zone);
    if (known !== undefined) return known;
    numbers.set(zone, numbers.size);
    return numbers.size - 1;
  });
}
