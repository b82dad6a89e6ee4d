/**
 * One line for each point that was run, on disk at once: a run that is cut off goes on where it was.
 */
import { appendFileSync, existsSync, readFileSync } from "node:fs";
import type { Judgement } from "./checker.ts";
import type { Clearing } from "./fences.ts";

export interface Row extends Judgement {
  readonly id: string;
  readonly what: string;
  readonly asked: number;
  /** How often a process or server really came to the point. */
  readonly served: number;
  readonly heuristics: number;
  readonly seconds: number;
  readonly clearing: Clearing;
  readonly binaryLog: boolean;
  readonly members: number;
}

export function isClean({ violations, heuristics, served, asked }: Row): boolean {
  return violations.length === 0 && heuristics === 0 && served >= asked;
}

export function readRows(file: string | undefined): readonly Row[] {
  if (file === undefined || !existsSync(file)) return [];
  const lines = readFileSync(file, "utf8").split("\n").filter(Boolean);
  return lines.map((line) => JSON.parse(line) as Row);
}

export function writeRow(file: string | undefined, row: Row): void {
  if (file !== undefined) appendFileSync(file, `${JSON.stringify(row)}\n`);
}

export function printRow(row: Row): void {
  const { id, what, served, violations, heuristics, clearing } = row;
  console.log(
    `${id.padEnd(4)} ${what.padEnd(50)} ${served}x  ${violations.length} violations, ${heuristics} heuristics  ${row.seconds.toFixed(1)} s` +
      `  (${row.transfers} transfers so far; branches of ${clearing.count} dead cleared in ${clearing.medianMs} ms, p99 ${clearing.p99Ms}, worst ${clearing.worstMs})`,
  );
  for (const violation of violations.slice(0, 5)) console.log(`     ${violation}`);
}

/** Rows of one point that were run at several times, as one: what one of them found stays found. */
export function merged(rows: readonly Row[]): readonly Row[] {
  const byPoint = new Map<string, Row>();
  for (const row of rows) {
    const name = `${row.id} ${row.binaryLog}`;
    const before = byPoint.get(name);
    if (before === undefined) byPoint.set(name, row);
    else {
      byPoint.set(name, {
        ...row,
        served: before.served + row.served,
        violations: [...before.violations, ...row.violations],
        heuristics: before.heuristics + row.heuristics,
        clearing: {
          count: before.clearing.count + row.clearing.count,
          medianMs: Math.max(before.clearing.medianMs, row.clearing.medianMs),
          p99Ms: Math.max(before.clearing.p99Ms, row.clearing.p99Ms),
          worstMs: Math.max(before.clearing.worstMs, row.clearing.worstMs),
        },
      });
    }
  }
  return [...byPoint.values()];
}

/** For the pages: the rows of a file as a table. */
export function printTable(rows: readonly Row[]): void {
  console.log("| point | | times | violations | heuristics | left prepared after the fence: count, median, worst ms |");
  console.log("|---|---|---|---|---|---|");
  for (const { id, what, served, violations, heuristics, clearing, binaryLog } of merged(rows)) {
    const log = binaryLog ? ", binary log on" : "";
    const left = clearing.count === 0 ? "" : `${clearing.count}, ${clearing.medianMs}, ${clearing.worstMs}`;
    console.log(`| ${id} | ${what}${log} | ${served} | ${violations.length} | ${heuristics} | ${left} |`);
  }
}
