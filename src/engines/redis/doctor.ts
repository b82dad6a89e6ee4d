/**
 * What in a server's configuration weakens the promise of a lock on it, and what to do. Pure: judges a report.
 * Sources: redis.io "Key eviction", "Persistence", "Replication" (min-replicas); research/coordination.md §9.2.
 */
import type { Finding } from "../../store/finding.ts";
import type { ServerReport } from "./server-report.ts";

export interface DoctorInput {
  readonly report: ServerReport;
  readonly wait: number;
  readonly quarantineMs: number;
}

export function examine({ report, wait, quarantineMs }: DoctorInput): Finding[] {
  const { configuration } = report;
  if (configuration === undefined) {
    return [
      {
        severity: "warning",
        code: "CONFIGURATION_UNKNOWN",
        message: "The server does not let us read its configuration (CONFIG GET), so the dangers below it stay unseen.",
        remedy:
          "Allow CONFIG|GET and INFO to this user, or check maxmemory-policy, appendonly and min-replicas-to-write by hand.",
      },
      ...quarantineFindings(quarantineMs),
    ];
  }
  return [
    ...evictionFindings(configuration),
    ...persistenceFindings(report),
    ...replicationFindings(report, wait),
    ...quarantineFindings(quarantineMs),
  ];
}

function evictionFindings(configuration: ReadonlyMap<string, string>): Finding[] {
  const policy = configuration.get("maxmemory-policy") ?? "noeviction";
  if (!policy.startsWith("allkeys")) return [];
  const limit = configuration.get("maxmemory") ?? "0";
  return [
    {
      severity: limit === "0" ? "warning" : "danger",
      code: "MAXMEMORY_EVICTS",
      message: `maxmemory-policy is ${policy}: when memory is full the server deletes any key, locks and sessions too, and a second holder is granted.`,
      remedy: "Set maxmemory-policy noeviction (or volatile-*: our keys never expire), or keep locks on a server of their own.",
    },
  ];
}

function persistenceFindings(report: ServerReport): Finding[] {
  if (report.syncsEachWrite) return [];
  const how = report.persists ? "writes to disk some time after it answers" : "writes nothing to disk";
  return [
    {
      severity: "warning",
      code: report.persists ? "PERSISTS_LATE" : "NOT_PERSISTENT",
      message: `The server ${how}: a restart loses what it had answered. Locks stay exclusive by waiting out the longest TTL after it; stored values are lost.`,
      remedy: "Set appendonly yes and appendfsync always where restarts must lose nothing.",
    },
  ];
}

function replicationFindings(report: ServerReport, wait: number): Finding[] {
  if (!report.failsOver) return [];
  const needed = Number(report.configuration?.get("min-replicas-to-write") ?? 0);
  const findings: Finding[] = [];
  if (needed === 0) {
    findings.push({
      severity: "danger",
      code: "PRIMARY_MAY_BE_ALONE",
      message:
        "min-replicas-to-write is 0: a primary that is cut off goes on confirming sessions while another one is promoted, for longer than anybody waits.",
      remedy: "Set min-replicas-to-write 1 and min-replicas-max-lag 10 or less, and `quarantineMs` to at least that lag.",
    });
  }
  if (wait === 0) {
    findings.push({
      severity: "warning",
      code: "REPLICAS_LAG",
      message:
        "Writes are answered before any replica has them: a failover undoes the last ones. Sessions end, tokens go on rising, values may be lost.",
      remedy: "Pass `wait: 1` (it fails unless so many confirm), and guard what must not happen twice by token.",
    });
  }
  return findings;
}

function quarantineFindings(quarantineMs: number): Finding[] {
  if (quarantineMs >= 0) return [];
  return [
    {
      severity: "danger",
      code: "NO_QUARANTINE",
      message:
        "`quarantineMs` is -1: after a failover or a restart a lock may be granted while its earlier holder still believes in it.",
      remedy: "Leave `quarantineMs` at its default, or check every write by its token.",
    },
  ];
}
