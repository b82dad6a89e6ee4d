/**
 * `npm run torture`: real processes, real signals, and a judge. See `options.ts` for what it takes and answers.
 */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { monotonicMs } from "./clock.ts";
import { judge } from "./judge.ts";
import { help, parseOptions, type TortureOptions } from "./options.ts";
import { reportOf, textOf } from "./report.ts";
import { torture } from "./run.ts";

const exitCodes = { kept: 0, violated: 1, failed: 2, interrupted: 130 } as const;
/** Of the checker, per register. */
const judgeMsMax = 120_000;

// `exit` runs the nursery's own handler, which leaves nobody behind.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => process.exit(exitCodes.interrupted));

process.exit(await main(process.argv.slice(2)));

async function main(args: readonly string[]): Promise<number> {
  try {
    const options = parseOptions(args);
    if (options !== null) return await tortureAndJudge(options);
    console.log(help);
    return exitCodes.kept;
  } catch (error) {
    console.error(error instanceof Error ? (error.stack ?? error.message) : error);
    return exitCodes.failed;
  }
}

async function tortureAndJudge(options: TortureOptions): Promise<number> {
  if (process.platform === "win32") throw new Error("The torture run stops processes with SIGSTOP, which Windows does not have.");
  console.error(`seed ${options.seed}`);
  const run = await torture(options, (line) => console.error(line));
  const verdict = judge(run.evidence, { timeLimit: { now: monotonicMs, maxMs: judgeMsMax } });
  const report = reportOf(options, run, verdict);
  if (options.historyFile !== undefined) save(options.historyFile, verdict.registers.history);
  if (options.jsonFile !== undefined) save(options.jsonFile, `${JSON.stringify(report, null, 2)}\n`);
  console.log(textOf(report, run.evidence.startedAtMs));
  const isViolated = report.violations.length > 0;
  if (isViolated || options.keep) console.log(`kept        ${run.directory}`);
  else rmSync(run.directory, { recursive: true, force: true });
  if (isViolated) return exitCodes.violated;
  // Not proven is not kept.
  return report.registers.undecided === undefined ? exitCodes.kept : exitCodes.failed;
}

function save(path: string, text: string): void {
  mkdirSync(dirname(resolve(path)), { recursive: true });
  writeFileSync(path, text);
}
