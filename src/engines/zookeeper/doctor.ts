/**
 * What in a ZooKeeper weakens the promise of a lock on it, and what to do. Pure: judges a report.
 */
import type { Finding } from "../../store/finding.ts";
import type { MemberReport, ServerReport } from "./server-report.ts";

export interface DoctorInput {
  readonly report: ServerReport;
  readonly reads: "sync" | "quorum";
}

export function examine({ report, reads }: DoctorInput): Finding[] {
  return [...memberFindings(report), ...configurationFindings(report.members), ...readFindings(report, reads)];
}

function memberFindings({ members, silent }: ServerReport): Finding[] {
  const findings: Finding[] = silent.map(({ endpoint, why }) => ({
    severity: "warning",
    code: "MEMBER_SILENT",
    message: `The server at ${endpoint} does not answer (${why}).`,
    remedy: "Start it, or take it out of the URL.",
  }));
  if (members.some(({ mode }) => mode === "standalone")) {
    findings.push({
      severity: "warning",
      code: "ONE_MEMBER",
      message: "There is one server: when its machine is gone, no lock is granted, and with its disk everything is lost.",
      remedy: "Run three servers on three machines.",
    });
  }
  const silentModes = members.filter(({ mode }) => mode === undefined);
  if (silentModes.length > 0) {
    findings.push({
      severity: "note",
      code: "CONFIGURATION_UNKNOWN",
      message: `${silentModes.map(({ address }) => address).join(", ")} answers no four-letter words, so the dangers below stay unseen.`,
      remedy: "Allow 4lw.commands.whitelist=srvr,conf, or check forceSync, maxSessionTimeout and autopurge by hand.",
    });
  }
  return findings;
}

function configurationFindings(members: readonly MemberReport[]): Finding[] {
  const findings: Finding[] = [];
  const old = members.filter(({ version }) => version !== undefined && isOlder(version, [3, 6]));
  if (old.length > 0) {
    findings.push({
      severity: "danger",
      code: "TOO_OLD",
      message: `ZooKeeper ${old.map(({ version }) => version).join(", ")} has no persistent watches.`,
      remedy: "Upgrade to 3.6 or newer; 3.8 or 3.9 are kept up.",
    });
  }
  const asleep = members.filter(({ configuration }) => Number(configuration?.get("minSessionTimeout") ?? 0) > 10_000);
  if (asleep.length > 0) {
    findings.push({
      severity: "warning",
      code: "LONG_SESSIONS",
      message: `minSessionTimeout is ${asleep[0]?.configuration?.get("minSessionTimeout")} ms: a lock whose holder dies is free only after that.`,
      remedy: "Lower minSessionTimeout, or tickTime.",
    });
  }
  return findings;
}

function readFindings({ members }: ServerReport, reads: "sync" | "quorum"): Finding[] {
  if (reads === "quorum" || members.every(({ mode }) => mode === "standalone")) return [];
  return [
    {
      severity: "note",
      code: "READS_MAY_LAG",
      message:
        "A leader that was cut off answers `sync` until it notices (up to syncLimit ticks), so a reading may miss what the others wrote meanwhile. Locks and tokens do not rest on that.",
      remedy: "Say ?reads=quorum where readings must be linearizable through that too: each then costs a write.",
    },
  ];
}

function isOlder(version: string, [major, minor]: readonly [number, number]): boolean {
  const [ownMajor = 0, ownMinor = 0] = version.split(".").map(Number);
  return ownMajor < major || (ownMajor === major && ownMinor < minor);
}
