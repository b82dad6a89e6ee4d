/**
 * What in a server's configuration weakens the promise of a lock on it, and what to do. Pure: judges a report.
 * Sources: PostgreSQL's documentation (Reliability, Synchronous Replication), PgBouncer's features page, research/coordination.md §9.5.
 */
import type { Finding } from "../../store/finding.ts";
import type { ServerReport } from "./server-report.ts";

export interface DoctorInput {
  readonly report: ServerReport;
  readonly quarantineMs: number;
}

export function examine({ report, quarantineMs }: DoctorInput): Finding[] {
  const findings: (Finding | false)[] = [
    !report.canListen && {
      severity: "danger",
      code: "TRANSACTION_POOLER",
      message:
        "A pooler that lends connections for one transaction stands before this PostgreSQL: LISTEN, session advisory locks and SET stay on a connection that somebody else gets next. Waiters are not woken; they look four times a second.",
      remedy:
        "Name a way past the pooler for the one connection that listens: `?listen=postgres://…` in the URL. Locks stay exclusive without it. Never use session advisory locks through this pooler.",
    },
    report.canListen &&
      report.isPooled && {
        severity: "note",
        code: "POOLER",
        message: "Something stands between this client and PostgreSQL (a pooler or a proxy); what NOTIFY says did arrive.",
        remedy: "Nothing to do, as long as it lends connections for whole sessions.",
      },
    !report.syncsToDisk && {
      severity: "danger",
      code: "FSYNC_OFF",
      message: "fsync or full_page_writes is off: a crash of the machine loses or corrupts what was answered, locks among it.",
      remedy: "Set fsync = on and full_page_writes = on.",
    },
    report.replicas > 0 &&
      !report.isSynchronous && {
        severity: "danger",
        code: "REPLICAS_LAG",
        message: `${report.replicas} standby(s) follow, and no commit waits for them: a failover undoes the last ones, and a primary that is cut off goes on confirming sessions while another one is promoted.`,
        remedy:
          "Set synchronous_standby_names, so that a primary alone confirms nothing; else rely on tokens at the resource across failovers.",
      },
    !report.tellsTimeline && {
      severity: "danger",
      code: "TIMELINE_UNKNOWN",
      message: "The server does not tell its timeline, so a promoted replica is not known and nobody waits after a failover.",
      remedy: "GRANT EXECUTE ON FUNCTION pg_walfile_name(pg_lsn) and pg_current_wal_insert_lsn() to this user, if it can.",
    },
    report.isolation !== "read committed" && {
      severity: "warning",
      code: "ISOLATION_DEFAULT",
      message: `default_transaction_isolation is ${report.isolation}: calls that meet on one lock fail and are asked again, instead of waiting.`,
      remedy: "ALTER ROLE … SET default_transaction_isolation = 'read committed' for the user of Conclave.",
    },
    quarantineMs < 0 && {
      severity: "danger",
      code: "NO_QUARANTINE",
      message: "`quarantineMs` is -1: after a failover a lock may be granted while its earlier holder still believes in it.",
      remedy: "Leave `quarantineMs` at its default, or check every write by its token.",
    },
  ];
  return findings.filter((finding) => finding !== false);
}
