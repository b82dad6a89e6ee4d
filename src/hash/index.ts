/**
 * The door `conclave/hash`: who owns a key, worked out alike by everybody who knows the nodes.
 */
export { BoundedLoad, type BoundedLoadOptions, boundedLoadDefaults } from "./bounded-load.ts";
export { type Jump, jump, jumpBucket } from "./jump.ts";
export { ketama } from "./ketama.ts";
export { type Maglev, type MaglevOptions, maglev, maglevDefaults } from "./maglev.ts";
export { fmix32, murmur3 } from "./murmur3.ts";
export type { Arcs, Diff, Flow, KeyHash, MovedRange, Placement } from "./placement.ts";
export { type Rendezvous, rendezvous } from "./rendezvous.ts";
export { type Ring, type RingOptions, ring, ringDefaults } from "./ring.ts";
export type { NodeLike, PlacementNode } from "./roster.ts";
export { shares } from "./shares.ts";
