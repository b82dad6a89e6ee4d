/**
 * What benches share: medians, and the file `bench/results/NAME.json` that every figure in the docs comes from.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";

/** One line of a result file. `ratio` says how many times better ours is: above 1 is ahead, also for times. */
export interface Figure {
  readonly case: string;
  readonly ours: number;
  readonly peer: number | null;
  readonly peerName: string | null;
  readonly peerVersion: string | null;
  readonly ratio: number | null;
  readonly unit: string;
  /** The lowest and the highest of the rounds. */
  readonly oursSpread?: readonly [number, number];
  readonly peerSpread?: readonly [number, number];
  /** Where a file holds figures of several runs. */
  readonly commit?: string;
  readonly note?: string;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((left, right) => left - right);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? (sorted[middle] as number) : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2;
}

export function spread(values: readonly number[]): readonly [number, number] {
  return [Math.min(...values), Math.max(...values)];
}

export function percentile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}

/** Three digits are what a noisy machine can vouch for. */
export function rounded(value: number): number {
  return Number(value.toPrecision(4));
}

export function machine(): string {
  const [first] = cpus();
  return `${cpus().length} cores of ${first?.model ?? "an unknown processor"}, Node ${process.versions.node}, ${process.platform}`;
}

export function commit(): string {
  try {
    return execFileSync("git", ["rev-parse", "--short", "HEAD"], { encoding: "utf8" }).trim();
  } catch {
    return "unknown";
  }
}

export function writeFigures(name: string, figures: readonly Figure[]): void {
  mkdirSync("bench/results", { recursive: true });
  writeFileSync(`bench/results/${name}.json`, `${JSON.stringify(figures, null, 2)}\n`);
  console.log(`\nbench/results/${name}.json written; ${machine()}; commit ${commit()}`);
}

/** Of a bench that is run in pieces: cases that this run has not measured stay as they are. Answers all of them, in the order that is given. */
export function writeFiguresInto(
  name: string,
  figures: readonly Figure[],
  { order = [] }: { readonly order?: readonly string[] } = {},
): readonly Figure[] {
  const path = `bench/results/${name}.json`;
  const measured = new Set(figures.map((figure) => figure.case));
  const earlier: readonly Figure[] = existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : [];
  const placeOf = (figure: Figure): number => order.indexOf(figure.case);
  const all = [...earlier.filter((figure) => !measured.has(figure.case)), ...figures].sort(
    (left, right) => placeOf(left) - placeOf(right),
  );
  writeFigures(name, all);
  return all;
}
