/**
 * What etcd promises, as far as its version and the number of its voters tell.
 */
import type { Caps, Limits } from "../../store/caps.ts";
import { losesLeases, type ServerReport } from "./server-report.ts";

export const etcdLimits: Limits = {
  keyBytesMax: 4_096,
  valueBytesMax: 1_048_576,
  // One of ours may be two of etcd's, which takes 128.
  txnOpsMax: 64,
  // etcd takes 1.5 MiB with everything around it (`--max-request-bytes`).
  txnBytesMax: 1_400_000,
  resultBytesMax: 67_108_864,
  ttlMsMin: 2_000,
  ttlMsMax: 600_000,
  claimsOpenMax: 4_096,
  // As much as whoever compacts leaves, which nobody tells.
  historyRevisions: 0,
  historyBytes: 0,
};

export function etcdCaps({ members, voters = members.length }: ServerReport): Caps {
  const versions = [...new Set(members.map(({ version }) => version))].sort();
  const isFaulty = versions.some(losesLeases);
  return {
    engine: `etcd ${versions.join(", ")} (${voters === 1 ? "one member" : `${voters} members`})`,
    // With the fault a deposed leader may end sessions that live: what stood under them is not what was answered.
    linearizable: isFaulty && voters > 1 ? "until-failover" : "always",
    failoverMay: "lets a deposed leader of these versions end sessions that live; no write that was answered is lost",
    durability: voters > 1 ? "quorum" : "local-fsync",
    watch: "log",
    handOff: "client-push",
    clock:
      "the leader's monotonic clock, and each holder's own: a jump of a wall clock changes nothing; a new leader gives every lease its whole TTL again",
    fair: true,
    crossNamespace: true,
    claims: false,
    olderReads: true,
    tokenSurvives: ["restart", "failover"],
    limits: etcdLimits,
  };
}
