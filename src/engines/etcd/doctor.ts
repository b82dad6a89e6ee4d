/**
 * What in an etcd weakens the promise of a lock on it, and what to do. Pure: judges a report.
 */
import type { Finding } from "../../store/finding.ts";
import { canBumpRevision, losesLeases, type ServerReport } from "./server-report.ts";

export function examine(report: ServerReport): Finding[] {
  return [...versionFindings(report), ...alarmFindings(report), ...memberFindings(report)];
}

function versionFindings({ members }: ServerReport): Finding[] {
  const findings: Finding[] = [];
  const faulty = members.filter(({ version }) => losesLeases(version));
  if (faulty.length > 0) {
    findings.push({
      severity: "danger",
      code: "LEASES_LOST",
      message: `etcd ${versionsOf(faulty)}: a leader that was deposed can still end leases that are kept alive (etcd #15247), so a lock may pass on while its holder believes in it.`,
      remedy: "Upgrade to 3.4.31, 3.5.13 or newer; until then check the token at the resource (`hold.guard()`, conclave/guards).",
    });
  }
  const unbumped = members.filter(({ version }) => !canBumpRevision(version));
  if (unbumped.length > 0) {
    findings.push({
      severity: "warning",
      code: "RESTORE_REPEATS_TOKENS",
      message: `etcd ${versionsOf(unbumped)} restores a snapshot at the revision that it had: tokens given out since are given out again.`,
      remedy:
        "After a restore stop every client first; with 3.4.27, 3.5.10 or newer restore with --bump-revision and --mark-compacted.",
    });
  } else {
    findings.push({
      severity: "note",
      code: "RESTORE_NEEDS_BUMP",
      message:
        "A snapshot is restored at the revision that it had, unless told otherwise: tokens given out since are given out again.",
      remedy: "Restore with --bump-revision 1000000000 --mark-compacted.",
    });
  }
  return findings;
}

function alarmFindings({ alarms }: ServerReport): Finding[] {
  return (alarms ?? []).map((alarm) =>
    alarm === "NOSPACE"
      ? {
          severity: "danger",
          code: "NOSPACE",
          message:
            "The space quota is exceeded: etcd refuses every write, so no lock is granted and none can be released before its TTL ends.",
          remedy:
            "Compact, defragment, then `etcdctl alarm disarm`; raise --quota-backend-bytes, set --auto-compaction-retention.",
        }
      : {
          severity: "danger",
          code: alarm,
          message: `The alarm ${alarm} is raised: members do not agree on what they hold.`,
          remedy: "Replace the member that the alarm names, as etcd's documentation on data corruption tells.",
        },
  );
}

function memberFindings({ members, silent, voters }: ServerReport): Finding[] {
  const findings: Finding[] = silent.map(({ endpoint, why }) => ({
    severity: "warning",
    code: "MEMBER_SILENT",
    message: `The member at ${endpoint} does not answer (${why.slice(0, 160)}).`,
    remedy: "Start it, or take it out of the URL.",
  }));
  if (voters === 1) {
    findings.push({
      severity: "warning",
      code: "ONE_MEMBER",
      message: "There is one member: when its machine is gone, no lock is granted, and with its disk everything is lost.",
      remedy: "Run three members on three machines.",
    });
  }
  const led = members.filter(({ hasLeader }) => !hasLeader);
  if (led.length > 0) {
    findings.push({
      severity: "danger",
      code: "NO_LEADER",
      message: `${led.map(({ endpoint }) => endpoint).join(", ")}: no leader is known.`,
      remedy: "See that a majority of the members runs and that they reach one another.",
    });
  }
  return findings;
}

function versionsOf(members: readonly { readonly version: string }[]): string {
  return [...new Set(members.map(({ version }) => version))].join(", ");
}
