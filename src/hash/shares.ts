/**
 * How much of the line each node owns: the balance of a placement, before any key is placed.
 */
import type { Placement } from "./placement.ts";

/** By id, 0-1; exact where the placement has arcs, else over 65,536 places spread evenly. Empty: nobody owns anything. */
export function shares(placement: Placement): ReadonlyMap<string, number> {
  const parts = new Float64Array(placement.nodes.length);
  const arcs = placement.arcs();
  if (arcs !== null) {
    let last = -1;
    for (let arc = 0; arc < arcs.ends.length; arc++) {
      const end = arcs.ends[arc] as number;
      parts[arcs.ranks[arc] as number]! += (end - last) / 2 ** 32;
      last = end;
    }
  } else if (placement.nodes.some((node) => node.weight > 0)) {
    for (let sample = 0; sample < 2 ** 16; sample++) parts[placement.rankAt((sample + 0.5) * 2 ** 16)]! += 2 ** -16;
  }
  return new Map(placement.nodes.flatMap(({ id, weight }, rank) => (weight > 0 ? [[id, parts[rank] as number]] : [])));
}
