/**
 * What PostgreSQL promises, as far as its settings tell.
 */
import type { Caps, Limits } from "../../store/caps.ts";
import type { ServerReport } from "./server-report.ts";

export const postgresLimits: Limits = {
  // A row of an index takes a third of a page at most, namespace and key together.
  keyBytesMax: 2_048,
  valueBytesMax: 1_048_576,
  txnOpsMax: 128,
  txnBytesMax: 2_097_152,
  resultBytesMax: 8_388_608,
  ttlMsMin: 1_000,
  // Every failover is waited out for the longest TTL that was ever asked for.
  ttlMsMax: 120_000,
  claimsOpenMax: 4_096,
  historyRevisions: 0,
  historyBytes: 0,
};

export function postgresCaps(report: ServerReport, { ttlMsMax }: { readonly ttlMsMax: number }): Caps {
  const losesInFailover = report.replicas > 0 && !report.isSynchronous;
  return {
    engine: `PostgreSQL ${report.version}`,
    linearizable: losesInFailover || !report.syncsToDisk ? "until-failover" : "always",
    failoverMay: report.syncsToDisk
      ? "may lose writes that were answered"
      : "may lose writes that were answered, as a crash of the server may",
    durability: !report.syncsToDisk
      ? "memory"
      : report.isSynchronous
        ? "quorum"
        : losesInFailover
          ? "async-replica"
          : "local-fsync",
    watch: report.canListen ? "log" : "poll",
    handOff: report.canListen ? "server" : "poll",
    clock:
      "the database's wall clock, and each holder's own monotonic one: a jump forward of the database's ends leases early, by as much as it jumps; backward it makes them last longer",
    fair: true,
    crossNamespace: true,
    orderPerNamespace: true,
    claims: false,
    olderReads: false,
    // On a new timeline every revision goes on above the database's clock in microseconds.
    tokenSurvives: ["restart", "failover", "restore"],
    limits: { ...postgresLimits, ttlMsMax },
  };
}
