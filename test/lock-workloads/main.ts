/**
 * `npm run lock-workloads -- [--engines redis,etcd,...] [--seconds 20] [--seed N] [--ttl 2000] [--json FILE] [--keep]`
 *
 * Exit codes: 0 every promise was kept on each engine that ran, 1 a violation, 2 the run itself failed or nothing ran.
 */
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { rigs } from "./rigs.ts";
import { runWorkloads, type WorkloadResult } from "./run.ts";

const string = { type: "string" } as const;
const { values } = parseArgs({
  options: { engines: string, seconds: string, seed: string, ttl: string, json: string, keep: { type: "boolean" } },
});

interface Line {
  readonly engine: string;
  readonly skipped?: string;
  readonly seed?: number;
  readonly faults?: WorkloadResult["faults"];
  readonly counts?: WorkloadResult["verdict"]["counts"];
  readonly lateWrites?: number;
  readonly registers?: string;
  readonly violations?: WorkloadResult["verdict"]["violations"];
  readonly excused?: WorkloadResult["excused"];
}

process.exit(await main());

async function main(): Promise<number> {
  const engines = values.engines?.split(",") ?? Object.keys(rigs);
  const unknown = engines.find((engine) => !(engine in rigs));
  if (unknown !== undefined) {
    console.error(`No engine is called "${unknown}". There are: ${Object.keys(rigs).join(", ")}.`);
    return 2;
  }
  const lines: Line[] = [];
  try {
    for (const engine of engines) {
      const line = await runOn(engine);
      lines.push(line);
      console.log(textOf(line));
    }
  } catch (error) {
    console.error(error);
    return 2;
  }
  if (values.json !== undefined) writeFileSync(values.json, JSON.stringify(lines, null, 2));
  if (lines.some(({ violations = [] }) => violations.length > 0)) return 1;
  return lines.some(({ skipped }) => skipped === undefined) ? 0 : 2;
}

async function runOn(engine: string): Promise<Line> {
  const ttlMs = Number(values.ttl ?? 2_000);
  const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
  const rig = await rigs[engine]?.(ttlMs);
  if (rig === undefined || "skipped" in rig) return { engine, skipped: rig?.skipped ?? "unknown" };
  try {
    const durationMs = Number(values.seconds ?? 20) * 1_000;
    const { directory, excused, faults, verdict } = await runWorkloads({
      rig,
      ttlMs,
      seed,
      durationMs,
      keep: values.keep ?? false,
    });
    if (directory !== undefined) console.error(`kept ${directory}`);
    const { counts, lateWrites, registers, violations } = verdict;
    const registersText = registers.undecided ?? `${registers.registerCount} of them, ${registers.operationCount} operations`;
    return { engine, seed, faults, counts, lateWrites: lateWrites.length, registers: registersText, violations, excused };
  } finally {
    await rig.stop();
  }
}

function textOf({ counts, engine, excused = [], faults, lateWrites, registers, seed, skipped, violations = [] }: Line): string {
  if (skipped !== undefined) return `${engine}: skipped, ${skipped}`;
  const told = Object.entries(faults ?? {}).map(([fault, count]) => `${count} ${fault}`);
  return [
    `${engine}, seed ${seed}: ${told.join(", ")}`,
    `  lock        ${counts?.fileGrants} and ${counts?.setGrants} grants`,
    `  unguarded   ${counts?.increments} increments, ${counts?.refusedIncrements} holders stopped by their own clock; ${lateWrites} came late, ${counts?.overwritten} updates lost to them`,
    `  guarded     ${counts?.additions} elements, ${counts?.refusedAdditions} late ones refused`,
    `  registers   ${registers}`,
    `  violations  ${violations.length === 0 ? "none" : violations.length}`,
    ...violations.slice(0, 10).map(({ kind, text }) => `    ${kind}: ${text}`),
    ...(excused.length === 0 ? [] : [`  excused     ${excused.length}: this server may end leases that live, as doctor says`]),
    ...excused.slice(0, 5).map(({ kind, text }) => `    ${kind}: ${text}`),
  ].join("\n");
}
