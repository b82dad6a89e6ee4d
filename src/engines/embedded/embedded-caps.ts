/**
 * What the embedded engine promises, in its three shapes. Read by `conclave doctor`, the docs and the contract suite.
 */
import type { ProtocolName } from "../../base/protocol-name.ts";
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
const memoryCaps: Caps = {
  ...shared,
  engine: "embedded (memory)",
  durability: "memory",
  tokenSurvives: ["restart", "restore"],
};

/** In this process, on this disk. */
const fileCaps: Caps = {
  ...shared,
  engine: "embedded (file)",
  durability: "local-fsync",
  tokenSurvives: ["restart", "restore"],
};

/** A cluster: what a majority has on disk. */
const clusterCaps: Caps = {
  ...shared,
  engine: "embedded (cluster)",
  durability: "quorum",
  tokenSurvives: ["restart", "failover", "restore"],
};

const shapes = { memory: memoryCaps, file: fileCaps, cluster: clusterCaps } as const;

/** What a shape promises when its members agree by this protocol. */
export function embeddedCaps(shape: keyof typeof shapes, protocol: ProtocolName): Caps {
  return { ...shapes[shape], protocol };
}
