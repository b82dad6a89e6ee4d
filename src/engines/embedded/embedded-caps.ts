/**
 * What the embedded engine promises, in its three shapes. Read by `conclave doctor`, the docs and the contract suite.
 */
import { type Caps, embeddedLimits } from "../../store/caps.ts";

const clock =
  "the leader's monotonic clock, and each holder's own; wall clocks decide nothing. Holders stop first while clock rates differ by less than a third";

const shared = {
  linearizable: "always",
  watch: "log",
  handOff: "server",
  clock,
  fair: true,
  crossNamespace: true,
  claims: true,
  olderReads: true,
  limits: embeddedLimits,
} as const;

/** In this process, gone with it. */
export const memoryCaps: Caps = {
  ...shared,
  engine: "embedded (memory)",
  durability: "memory",
  tokenSurvives: ["restart", "restore"],
};

/** In this process, on this disk. */
export const fileCaps: Caps = {
  ...shared,
  engine: "embedded (file)",
  durability: "local-fsync",
  tokenSurvives: ["restart", "restore"],
};

/** A cluster: what a majority has on disk. */
export const clusterCaps: Caps = {
  ...shared,
  engine: "embedded (cluster)",
  durability: "quorum",
  tokenSurvives: ["restart", "failover", "restore"],
};
