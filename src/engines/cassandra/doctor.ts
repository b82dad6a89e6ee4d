/**
 * What in a Cassandra's set-up weakens the promise of a lock on it, and what to do. Pure: judges a report.
 * Sources: CASSANDRA-12126 (serial reads), Cassandra's documentation (commitlog_sync, lightweight transactions).
 */
import type { Finding } from "../../store/finding.ts";

export interface ClusterReport {
  readonly version: string;
  /** Copies in each data centre; under `SimpleStrategy` one number for all. */
  readonly replication: readonly number[];
  readonly isSimpleStrategy: boolean;
  readonly dataCenters: number;
  /** Undefined: it does not tell. */
  readonly commitlogSync: string | undefined;
  readonly serial: "serial" | "local-serial";
}

export function examine(report: ClusterReport): Finding[] {
  const copies = report.replication.reduce((sum, each) => sum + each, 0);
  const findings: (Finding | false)[] = [
    copies < 3 && {
      severity: copies === 1 ? "danger" : "warning",
      code: "FEW_REPLICAS",
      message: `The keyspace keeps ${copies} copies: ${copies === 1 ? "the loss of one node loses every lock" : "no node may be down"}.`,
      remedy: "ALTER KEYSPACE … WITH replication of 3 or more in each data centre, then repair.",
    },
    Number.parseInt(report.version, 10) < 4 && {
      severity: "danger",
      code: "SERIAL_READS_LIE",
      message: `Cassandra ${report.version} may let a set that timed out appear after a serial read did not see it (CASSANDRA-12126).`,
      remedy: "Upgrade to 4.0 or newer.",
    },
    report.serial === "local-serial" &&
      report.dataCenters > 1 && {
        severity: "danger",
        code: "LOCAL_SERIAL",
        message: `Agreement is within one of ${report.dataCenters} data centres: two clients in two of them hold the same lock.`,
        remedy: "Use `?serial=serial`, or let every client of a lock name the same data centre.",
      },
    report.isSimpleStrategy &&
      report.dataCenters > 1 && {
        severity: "warning",
        code: "SIMPLE_STRATEGY",
        message: "The keyspace uses SimpleStrategy over several data centres: copies lie anywhere.",
        remedy: "ALTER KEYSPACE … WITH replication = {'class': 'NetworkTopologyStrategy', …}.",
      },
    report.commitlogSync === "periodic" && {
      severity: "warning",
      code: "SYNCS_LATE",
      message:
        "commitlog_sync is periodic: answered sets are on disk up to ten seconds later. If a majority of the copies loses power at once, a lock is granted again while its holder still believes in it.",
      remedy: "Set commitlog_sync: batch (or group) on the nodes of this keyspace.",
    },
  ];
  return findings.filter((finding) => finding !== false);
}
