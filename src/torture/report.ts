/**
 * What a run says at its end: for people as text, for machines as JSON.
 */
import type { Interval } from "./clock.ts";
import type { LateWrite, Violation } from "./evidence.ts";
import type { Counts, Verdict } from "./judge.ts";
import type { TortureOptions } from "./options.ts";
import { type OutageSummary, type Outages, outagesOf } from "./outages.ts";
import type { Faults, Run } from "./run.ts";

export interface Report {
  readonly seed: number;
  readonly plan: TortureOptions["plan"];
  readonly ttlMs: number;
  readonly protocol: string;
  readonly memberCount: number;
  readonly seconds: number;
  readonly operations: number;
  readonly counts: Counts;
  readonly grants: number;
  readonly faults: Faults;
  readonly outages: Outages;
  readonly registers: {
    readonly keys: number;
    readonly operations: number;
    readonly unknown: number;
    readonly undecided: string | undefined;
  };
  readonly exceptions: readonly LateWrite[];
  readonly violations: readonly Violation[];
}

const violationsShown = 20;

export function reportOf(options: TortureOptions, run: Run, verdict: Verdict): Report {
  const { counts, lateWrites, registers, violations } = verdict;
  return {
    seed: options.seed,
    plan: options.plan,
    ttlMs: options.ttlMs,
    protocol: options.protocol,
    memberCount: options.memberCount,
    seconds: Math.round(run.torturedMs / 100) / 10,
    operations: counts.increments + counts.additions + counts.probes + registers.operationCount,
    counts,
    grants: counts.fileGrants + counts.setGrants,
    faults: run.faults,
    outages: outagesOf(run.leaderKills, run.evidence.probes),
    registers: {
      keys: registers.registerCount,
      operations: registers.operationCount,
      unknown: registers.unknownCount,
      undecided: registers.undecided,
    },
    exceptions: lateWrites,
    violations,
  };
}

export function textOf(report: Report, startedAtMs: number): string {
  const { counts, exceptions, faults, grants, outages, registers, violations } = report;
  const { increments, overwritten, refusedAdditions, refusedIncrements } = counts;
  const lines = [
    `Conclave torture, seed ${report.seed}: ${report.seconds} s, ${report.memberCount} members by ${report.protocol}, 8 clients, lock TTL ${report.ttlMs} ms`,
    `operations  ${report.operations}: ${increments} increments of the file, ${counts.additions} additions to the set, ${registers.operations} on registers, ${counts.probes} probes`,
    `grants      ${grants}: ${counts.fileGrants} for the file, ${counts.setGrants} for the set`,
    `kills       ${faults.leaderKills + faults.memberKills + faults.clientKills}: ${faults.leaderKills} of the leader, ${faults.memberKills} of other members, ${faults.clientKills} of clients`,
    `stops       ${faults.memberStops + faults.clientStops + faults.selfStops}: ${faults.memberStops} of members, ${faults.clientStops} of clients, ${faults.selfStops} by clients themselves at the worst moment`,
    ...(Object.keys(faults.others).length === 0 ? [] : [`others      ${othersText(faults)}`]),
    `outage      ${outageText(outages.all)}`,
    ...(outages.othersUp.count === outages.all.count ? [] : [`            with both others up: ${outageText(outages.othersUp)}`]),
    `late        ${refusedIncrements} holders stopped by their own clock, ${refusedAdditions} by the guard`,
    `registers   ${registers.keys} of them, ${registers.operations} operations, ${registers.unknown} unknown: ${registers.undecided ?? (violations.some(({ kind }) => kind === "registers-not-linearizable") ? "NOT linearizable" : "linearizable")}`,
    `exceptions  ${exceptions.length} late writes to the file by a holder that was stopped after assertHeld(); ${overwritten} increments overwritten by them`,
    ...exceptions.map((late) => `            ${lateText(late, startedAtMs)}`),
    `violations  ${violations.length === 0 ? "none" : violations.length}`,
    ...violations.slice(0, violationsShown).map(({ kind, text }) => `            ${kind}: ${text}`),
    ...(violations.length > violationsShown ? [`            ... and ${violations.length - violationsShown} more`] : []),
  ];
  return lines.join("\n");
}

function othersText({ others, ownEnds }: Faults): string {
  const each = Object.entries(others).map(([name, count]) => `${count} ${name}`);
  return `${each.join(", ")}; ${ownEnds} times a member stopped by itself, as it must`;
}

function outageText({ count, p50Ms, p99Ms, longestMs }: OutageSummary): string {
  return `p50 ${p50Ms.toFixed(0)} ms, p99 ${p99Ms.toFixed(0)} ms, longest ${longestMs.toFixed(0)} ms, over ${count} kills of the leader`;
}

function lateText(
  { assertedAtMs, deadlineMs, overwrote, passedOnAtMs, passedToToken, stops, token, write, writtenAtMs }: LateWrite,
  startedAtMs: number,
): string {
  const at = (momentMs: number): string => `${((momentMs - startedAtMs) / 1_000).toFixed(3)}`;
  const stopText = stops.map(({ fromMs, toMs }: Interval) => `${at(fromMs)}-${at(toMs)}`).join(", ");
  const deadline = deadlineMs === undefined ? "unknown" : at(deadlineMs);
  const harm = overwrote ? "it went over another's write" : "nobody had written meanwhile";
  return `token ${token} (write ${write}): asserted ${at(assertedAtMs)} s, deadline ${deadline}, stopped ${stopText}, passed to token ${passedToToken} by ${at(passedOnAtMs)}, written ${at(writtenAtMs)}; ${harm}`;
}
