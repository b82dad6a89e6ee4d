/**
 * How long a killed leader was missed: from the kill to the first answer to a write that began after it.
 */
import { monotonicMs } from "./clock.ts";
import type { LeaderKill } from "./nemesis.ts";
import { firstAckAfter, type Probe } from "./prober.ts";

export interface OutageSummary {
  readonly count: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly longestMs: number;
}

export interface Outages {
  /** After every kill of a leader. */
  readonly all: OutageSummary;
  /** After kills at which both others ran: what follows is the election, not the wait for a member to come back. */
  readonly othersUp: OutageSummary;
  /** Kills after which no write was answered any more. */
  readonly endless: number;
  /** Every kill with its wall time, for a look into the members' logs. Undefined length: endless. */
  readonly each: readonly { readonly member: string; readonly at: string; readonly lengthMs: number | undefined }[];
}

export function outagesOf(kills: readonly LeaderKill[], probes: readonly Probe[]): Outages {
  const measured = kills.map((kill) => ({ kill, endMs: firstAckAfter(probes, kill.atMs) }));
  const lengths = (isCounted: (kill: LeaderKill) => boolean): number[] =>
    measured.flatMap(({ kill, endMs }) => (endMs !== undefined && isCounted(kill) ? [endMs - kill.atMs] : []));
  return {
    all: summarise(lengths(() => true)),
    othersUp: summarise(lengths(({ wereOthersUp }) => wereOthersUp)),
    endless: measured.filter(({ endMs }) => endMs === undefined).length,
    each: measured.map(({ kill, endMs }) => ({
      member: kill.member,
      at: new Date(Date.now() - monotonicMs() + kill.atMs).toISOString(),
      lengthMs: endMs === undefined ? undefined : Math.round(endMs - kill.atMs),
    })),
  };
}

function summarise(lengthsMs: readonly number[]): OutageSummary {
  const sorted = lengthsMs.toSorted((a, b) => a - b);
  return { count: sorted.length, p50Ms: percentile(sorted, 50), p99Ms: percentile(sorted, 99), longestMs: sorted.at(-1) ?? 0 };
}

/** The smallest value that at least so many percent do not exceed (nearest rank); 0 of nothing. */
export function percentile(sorted: readonly number[], percent: number): number {
  return sorted[Math.max(0, Math.ceil((sorted.length * percent) / 100) - 1)] ?? 0;
}
