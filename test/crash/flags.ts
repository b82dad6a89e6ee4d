/**
 * What both crash runners are asked with, and what is answered before anything starts: `--help`, and `--table` of earlier results.
 */
import { isClean, merged, printTable, readRows } from "./results.ts";

/** For `parseArgs`, beside those that a runner has for itself. */
export const commonFlags = {
  points: { type: "string", default: "all" },
  times: { type: "string", default: "20" },
  results: { type: "string" },
  minutes: { type: "string", default: "600" },
  table: { type: "boolean", default: false },
  help: { type: "boolean", default: false },
} as const;

export interface CommonValues {
  readonly points: string;
  readonly results?: string | undefined;
  readonly minutes: string;
  readonly table: boolean;
  readonly help: boolean;
}

/** Which rows are still to be run. */
export interface Plan {
  /** Whether it was asked for, is not in the results yet, and there is time to begin it. */
  wants(id: string): boolean;
  /** The same of what no `--points` names. */
  isOpen(id: string): boolean;
}

/** Ends the process where only words were asked for. `binaryLog`: rows of the other kind do not count as run. */
export function planOf(
  { points, results, minutes, table, help }: CommonValues,
  { usage, binaryLog }: { readonly usage: string; readonly binaryLog: boolean },
): Plan {
  if (help) {
    console.log(
      `${usage}\n` +
        "                 [--results FILE]    each row at once, and what is in it is not run again\n" +
        "                 [--minutes N]       begins no further row after so long\n" +
        "                 [--table]           prints the results of FILE and ends",
    );
    process.exit(0);
  }
  const rows = readRows(results);
  if (table) {
    printTable(rows);
    process.exit(0);
  }
  const untilMs = Date.now() + Number(minutes) * 60_000;
  const done = new Set(merged(rows).flatMap((row) => (isClean(row) && row.binaryLog === binaryLog ? [row.id] : [])));
  const isOpen = (id: string): boolean => !done.has(id) && Date.now() < untilMs;
  return { isOpen, wants: (id) => (points === "all" || points.split(",").includes(id)) && isOpen(id) };
}
