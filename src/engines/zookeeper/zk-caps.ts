/**
 * What ZooKeeper promises, as far as its servers tell.
 */
import type { Caps, Limits } from "../../store/caps.ts";
import type { ServerReport } from "./server-report.ts";

export const zkLimits: Limits = {
  keyBytesMax: 4_096,
  // A request of ZooKeeper's has a megabyte with everything in it (`jute.maxbuffer`).
  valueBytesMax: 900_000,
  txnOpsMax: 128,
  txnBytesMax: 1_000_000,
  resultBytesMax: 8_388_608,
  ttlMsMin: 4_000,
  ttlMsMax: 40_000,
  claimsOpenMax: 4_096,
  historyRevisions: 0,
  historyBytes: 0,
};

export function zkCaps({ members, ttlMsMax, ttlMsMin }: ServerReport, { reads }: { readonly reads: "sync" | "quorum" }): Caps {
  const versions = [...new Set(members.map(({ version }) => version ?? "of unknown version"))].sort();
  const isAlone = members.every(({ mode }) => mode === "standalone");
  return {
    engine: `ZooKeeper ${versions.join(", ")} (${isAlone ? "standalone" : "ensemble"})`,
    // A deposed leader answers `sync` until it notices.
    linearizable: isAlone || reads === "quorum" ? "always" : "until-failover",
    failoverMay: "lets a deposed leader answer reads until it notices: they may be late; no write that was answered is lost",
    durability: isAlone ? "local-fsync" : "quorum",
    watch: "level",
    handOff: "client-push",
    clock:
      "the leader's monotonic clock, and each holder's own: a jump of a wall clock changes nothing; a new leader gives every session its whole timeout again",
    fair: true,
    crossNamespace: true,
    claims: false,
    olderReads: false,
    tokenSurvives: ["restart", "failover"],
    limits: { ...zkLimits, ttlMsMin, ttlMsMax },
  };
}
