/**
 * Finds the plain contradictions of a history without any search: times during which the object would have to be in two states at once.
 *
 * A state that only one operation makes is held once, without a break. Everything that makes or needs it belongs to one cluster.
 * Where one operation of a cluster has returned before another is invoked, the state holds all the time between: the *zone*.
 *
 *     write 5  ├───┤                               zone of 5, from the first return to the last invocation
 *     read 5       :        ├───┤
 *                  ╞════════╡
 *     write 6         ├─┤                          lies inside: no moment is left for it
 *
 * 1. Two zones that overlap are a contradiction.
 * 2. So is a cluster without a zone of its own whose operations leave it no moment outside of another's zone.
 * 3. So is a state that is needed and that nothing makes, or nothing in time.
 *
 * Source: Gibbons & Korach, "Testing shared memories", SIAM J. Comput. 1997. For reads and writes whose values are all different
 * this test alone decides, in O(n log n); anywhere else it only ever says what the search would find at great length.
 */

import type { Effects } from "./effects.ts";
import type { Timeline } from "./timeline.ts";

/** True when no order can exist. False means nothing was found. */
export function hasContradiction(timeline: Timeline<unknown, unknown>, effects: Effects): boolean {
  if (effects.isWild.includes(true) || effects.optionalIsWild.includes(true)) return false;
  const clusters = clustersOf(timeline, effects);
  if (clusters.some((cluster) => cluster.makerInvokedAt > cluster.neededBy)) return true; // 3
  const held = clusters.filter((cluster) => cluster.makersCount === 1 && cluster.surelyHeld);
  const zones = held.filter(hasZone).sort((a, b) => a.firstReturn - b.firstReturn);
  return (
    doOverlap(zones) ||
    isOneInside(
      zones,
      held.filter((cluster) => !hasZone(cluster)),
    )
  );
}

interface Cluster {
  makersCount: number;
  /** The first invocation of a maker. */
  makerInvokedAt: number;
  /** The first return of an operation that needs the state. */
  neededBy: number;
  /** Whether the object must have been in this state: it is needed, or was made by an operation without a maybe. */
  surelyHeld: boolean;
  /** Over makers and needers alike; they mean something when there is one maker. */
  firstReturn: number;
  lastInvocation: number;
}

function clustersOf(timeline: Timeline<unknown, unknown>, effects: Effects): Cluster[] {
  const { requiredInvokedAt, requiredReturnedAt, optionalInvokedAt } = timeline;
  const clusters = Array.from({ length: effects.statesCount }, emptyCluster);
  // The initial state was made before all time.
  addMaker(clusters[effects.initial], { invokedAt: -Infinity, returnedAt: -Infinity, isSure: true });
  for (const [id, stateId] of effects.makes.entries()) {
    const invokedAt = requiredInvokedAt[id] as number;
    addMaker(clusters[stateId], {
      invokedAt,
      returnedAt: requiredReturnedAt[id] as number,
      isSure: effects.isSure[id] as boolean,
    });
  }
  for (const [id, stateId] of effects.optionalMakes.entries()) {
    addMaker(clusters[stateId], { invokedAt: optionalInvokedAt[id] as number, returnedAt: Infinity, isSure: false });
  }
  for (const [id, stateId] of effects.needs.entries()) {
    addNeeder(clusters[stateId], { invokedAt: requiredInvokedAt[id] as number, returnedAt: requiredReturnedAt[id] as number });
  }
  return clusters;
}

function emptyCluster(): Cluster {
  return {
    makersCount: 0,
    makerInvokedAt: Infinity,
    neededBy: Infinity,
    surelyHeld: false,
    firstReturn: Infinity,
    lastInvocation: -Infinity,
  };
}

interface Interval {
  readonly invokedAt: number;
  readonly returnedAt: number;
}

/** The cluster is undefined for an operation that makes no state in particular. */
function addMaker(cluster: Cluster | undefined, maker: Interval & { readonly isSure: boolean }): void {
  if (cluster === undefined) return;
  cluster.makersCount += 1;
  cluster.makerInvokedAt = Math.min(cluster.makerInvokedAt, maker.invokedAt);
  cluster.surelyHeld ||= maker.isSure;
  widen(cluster, maker);
}

function addNeeder(cluster: Cluster | undefined, needer: Interval): void {
  if (cluster === undefined) return;
  cluster.neededBy = Math.min(cluster.neededBy, needer.returnedAt);
  cluster.surelyHeld = true;
  widen(cluster, needer);
}

function widen(cluster: Cluster, { invokedAt, returnedAt }: Interval): void {
  cluster.firstReturn = Math.min(cluster.firstReturn, returnedAt);
  cluster.lastInvocation = Math.max(cluster.lastInvocation, invokedAt);
}

function hasZone(cluster: Cluster): boolean {
  return cluster.firstReturn < cluster.lastInvocation;
}

/** 1. */
function doOverlap(zones: readonly Cluster[]): boolean {
  // Before the first overlap the zones are disjoint, so each needs to be compared with the one before it only.
  return zones.some((zone, i) => i > 0 && zone.firstReturn < (zones[i - 1] as Cluster).lastInvocation);
}

/** 2. Assumes the zones are disjoint and in order. */
function isOneInside(zones: readonly Cluster[], clusters: readonly Cluster[]): boolean {
  let before = 0;
  return clusters
    .toSorted((a, b) => a.lastInvocation - b.lastInvocation)
    .some((cluster) => {
      while (before < zones.length && (zones[before] as Cluster).firstReturn < cluster.lastInvocation) before++;
      // Only the last zone that begins before the cluster can reach over it.
      const zone = zones[before - 1];
      return zone !== undefined && cluster.firstReturn < zone.lastInvocation;
    });
}
