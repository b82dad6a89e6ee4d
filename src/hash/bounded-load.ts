/**
 * Consistent hashing with bounded loads: no node carries more than a factor above its part, and keys stay put otherwise.
 *
 * Intuition: a host who seats you at your usual table, unless it is full; then at the next one you would like. With a
 * factor of 1.25 about one key in ten thousand sits elsewhere than its owner (100 nodes of 160 points).
 * Source: Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", arXiv 1608.01350, §2: the capacity
 * of a node is the ceiling of factor * (load + 1) * share; the +1 counts the one who asks.
 * Loads are this process's own count: processes that share nothing bound what each of them sends, not the sum.
 */
import { assert } from "../base/assert.ts";
import { conclaveError } from "../base/errors.ts";
import type { Placement } from "./placement.ts";
import { noNodes } from "./roster.ts";

export interface BoundedLoadOptions {
  /** How far above its part a node may be loaded: above 1, at most 100. Default 1.25. Lower: evener, more moves. */
  readonly factor?: number;
}

export const boundedLoadDefaults = { factor: 1.25 } as const;

/** Counts loads beside a placement. Mutable, unlike the placement; `moveTo` takes a new one and keeps the counts. */
export class BoundedLoad {
  readonly factor: number;
  #placement: Placement;
  readonly #loads = new Map<string, number>();
  #shares: ReadonlyMap<string, number>;
  #total = 0;

  /** @throws INVALID_OPTION @since 0.2.0 */
  constructor(placement: Placement, { factor = boundedLoadDefaults.factor }: BoundedLoadOptions = {}) {
    if (typeof factor !== "number" || !(factor > 1 && factor <= 100)) {
      throw conclaveError("INVALID_OPTION", `\`factor\` must be above 1 and at most 100; got ${factor}.`);
    }
    this.factor = factor;
    this.#placement = placement;
    this.#shares = sharesOf(placement);
  }

  get placement(): Placement {
    return this.#placement;
  }

  /** What is taken and not yet given back, of one node or of all. */
  load(id?: string): number {
    return id === undefined ? this.#total : (this.#loads.get(id) ?? 0);
  }

  /** The first node in the key's order that has room, counted as loaded by one until `giveBack`. @throws NO_NODES, KEY_INVALID */
  take(key: string): string {
    const owner = this.#placement.owner(key);
    const id = this.#hasRoom(owner) ? owner : this.#placement.owners(key, this.#shares.size).find((each) => this.#hasRoom(each));
    assert(id !== undefined, "not every node can be above its part at once");
    this.#loads.set(id, this.load(id) + 1);
    this.#total++;
    return id;
  }

  /** The load that `take` put on the node is over. @throws INVALID_OPTION (nothing was taken) */
  giveBack(id: string): void {
    const load = this.load(id);
    if (load === 0) throw conclaveError("INVALID_OPTION", `Node ${JSON.stringify(id)} carries nothing to give back.`);
    if (load === 1) this.#loads.delete(id);
    else this.#loads.set(id, load - 1);
    this.#total--;
  }

  /** From now on by this placement. Loads of nodes that left count until they are given back. */
  moveTo(placement: Placement): void {
    this.#placement = placement;
    this.#shares = sharesOf(placement);
  }

  #hasRoom(id: string): boolean {
    const share = this.#shares.get(id) ?? 0;
    return this.load(id) < Math.ceil(this.factor * (this.#total + 1) * share);
  }
}

function sharesOf(placement: Placement): ReadonlyMap<string, number> {
  const owning = placement.nodes.filter((node) => node.weight > 0);
  const total = owning.reduce((sum, node) => sum + node.weight, 0);
  if (total === 0) throw noNodes(placement.algorithm);
  return new Map(owning.map((node) => [node.id, node.weight / total]));
}
