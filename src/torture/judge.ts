/**
 * The judge: takes what a run left behind, and answers whether every promise was kept.
 */
import type { CheckOptions } from "../testing/linearizability/check-linearizable.ts";
import type { Evidence, LateWrite, Violation } from "./evidence.ts";
import { judgeFile } from "./judge-file.ts";
import { Grants, grantsOf, judgeHolds } from "./judge-holds.ts";
import { judgeRegisters, type RegistersVerdict } from "./judge-registers.ts";
import { judgeSet } from "./judge-set.ts";
import type { Probe } from "./prober.ts";

export interface Verdict {
  readonly violations: readonly Violation[];
  readonly lateWrites: readonly LateWrite[];
  readonly registers: RegistersVerdict;
  readonly counts: Counts;
}

export interface Counts {
  readonly fileGrants: number;
  readonly setGrants: number;
  readonly increments: number;
  /** Increments that the final number lacks, because a late write went over them. */
  readonly overwritten: number;
  readonly additions: number;
  /** Additions of holders that came too late, and which their guard refused. */
  readonly refusedAdditions: number;
  /** Holders that noticed by their own clock that their time was over, before they wrote to the file. */
  readonly refusedIncrements: number;
  readonly probes: number;
}

export function judge(evidence: Evidence, options: CheckOptions = {}): Verdict {
  const { clients, final, incidents, probes, ttlMs } = evidence;
  const fileGrants = grantsOf(clients, "file");
  const file = final === undefined ? undefined : judgeFile({ clients, grants: new Grants(fileGrants), final, ttlMs });
  const registers = judgeRegisters(evidence, options);
  const violations = [
    ...incidents,
    ...judgeHolds(clients, "file"),
    ...judgeHolds(clients, "set"),
    ...(file?.violations ?? []),
    ...(final === undefined ? [] : judgeSet(clients, final)),
    ...registers.violations,
    ...(final === undefined ? [] : judgeProbe(probes, final.probe)),
  ];
  const events = clients.flatMap((client) => client.events);
  const counts: Counts = {
    fileGrants: fileGrants.length,
    setGrants: grantsOf(clients, "set").length,
    increments: file?.writeCount ?? 0,
    overwritten: file?.overwrittenCount ?? 0,
    additions: final?.set.length ?? 0,
    refusedAdditions: events.filter((event) => event.kind === "set.end" && event.outcome === "refused").length,
    refusedIncrements: events.filter((event) => event.kind === "file.end" && event.outcome === "not-held").length,
    probes: probes.filter(({ ackedAtMs }) => ackedAtMs !== undefined).length,
  };
  return { violations, lateWrites: file?.lateWrites ?? [], registers, counts };
}

/** The last value of the prober's key must be of a write that no acknowledged one came after. */
export function judgeProbe(probes: readonly Probe[], value: string | null): Violation[] {
  const index = value === null ? -1 : Number(value);
  const last = probes[index];
  if (value !== null && (last === undefined || last.hasFailed))
    return [{ kind: "probe-lost", text: `the prober's key holds ${value}, which was not written` }];
  // Unanswered, it may have come at any time; absent, it was never written.
  const lastMs = last === undefined ? Number.NEGATIVE_INFINITY : (last.ackedAtMs ?? Number.POSITIVE_INFINITY);
  const later = probes.findIndex(({ startedAtMs, ackedAtMs }) => ackedAtMs !== undefined && startedAtMs > lastMs);
  return later < 0
    ? []
    : [
        {
          kind: "probe-lost",
          text: `the prober's key ends with ${value}, though write ${later} began after that and was acknowledged`,
        },
      ];
}
