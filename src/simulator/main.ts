/**
 * `npm run sim`: runs seeds and says what they found. The host end of the simulator; everything below it is pure.
 *
 * Seeds are shared out over processes; each seed is one world and depends on nothing but its number, so a failing one is
 * replayed alone and exactly: `npm run sim -- --seed 4711 --trace`.
 */
import { fork } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { coverageOf, type Reached } from "./coverage.ts";
import { type FaultChoice, FaultFilter, faultClassHelp, parseFaultClasses } from "./fault-filter.ts";
import type { CheckerCounts } from "./group-checker.ts";
import type { RunFloors } from "./run-floors.ts";
import { formatSchedule, parseSchedule, type Schedule } from "./schedule.ts";
import { shrink } from "./shrink.ts";
import { type RunReport, type Simulation, simulations, type WorldName } from "./simulations.ts";
import { replaySchedule, scheduleOfSeed } from "./world-schedule.ts";

/** What stands behind "the protocols hold": one after the other by one command. */
const longRuns = [
  ["raft", 50_000_000],
  ["paxos", 20_000_000],
  ["zab", 20_000_000],
  ["pbft", 20_000_000],
] as const;

const usage = `npm run sim -- [options]

  --protocol NAME ${Object.keys(simulations).join(", ")} (default raft), or
                  all: the long run, ${longRuns.map(([name, steps]) => `${name} ${steps / 1e6}`).join(", ")} million steps (or --steps) of the core worlds
  --seed N        replay one seed (whole stack and core) and print its trace hash
  --shrink FILE   with --seed: reduce what breaks the core world (or the stack's, by --world) to a short schedule, and save it
  --replay FILE   run a saved schedule (docs/schedule-format.md)
  --trace         with --seed: print every event of the members
  --seeds N       how many seeds (default 200)
  --from N        the first of them (default 1)
${faultClassHelp}
  --steps N       as many seeds as so many steps take, in each world
  --world WHICH   stack, core or both (default both, as far as the protocol has them)
  --jobs N        processes (default: one per core)
  --twice         run each seed twice and compare the trace hashes
  --until-failure stop at the first violation
  --seconds N     stop after so long, whatever is left (for a budget)
  --cpu-seconds N the same, by the processor time of each process
  --coverage      fail unless every rare branch of the world was reached often enough for so many seeds, and print how often
  --json          print the sums as one JSON object

Exit code: 0 no violation, 1 a violation, 2 wrong usage.`;

interface Settings {
  readonly protocol: string;
  readonly from: number;
  readonly seeds: number;
  /** In each world; a process ends with the seed that reaches it. */
  readonly steps: number;
  readonly worlds: readonly WorldName[];
  readonly twice: boolean;
  readonly seconds: number;
  readonly cpuSeconds: number;
  /** Violations after which a process stops. */
  readonly failuresMax: number;
  readonly faults: FaultChoice;
}

/** Sums of one kind of world over its seeds. */
interface Sums {
  seeds: number;
  steps: number;
  virtualMs: number;
  /** Processor time of the seeds, collector included, whoever else was on the machine. */
  cpuMs: number;
  counts: CheckerCounts;
  operations: number;
  grants: number;
  fewestSteps: number;
  fewestLeaderChanges: number;
  /** Of all seeds, in whatever order they ran: the same on every machine and version of Node. */
  traceHash: number;
  /** How often each rare branch was reached. */
  branches: Record<string, number>;
}

interface Failure {
  readonly seed: number;
  readonly world: WorldName;
  readonly invariant: string;
  readonly message: string;
}

/** The least that a seed goes through, in either world. */
const floors = { stepsMin: 2_000, virtualMsMin: 20_000, leaderChangesMin: 3 } as const;

// A world is done with its promises when the event loop comes round: timers play no part in it.
const drain = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

if (process.env["CONCLAVE_SIM_WORKER"] === undefined) await main();
else process.once("message", (settings: Settings) => void work(settings));

async function main(): Promise<void> {
  const options = readOptions();
  if (options.replay !== undefined) {
    process.exitCode = await replayFile(options.replay);
    return;
  }
  if (options.seed !== undefined && options.shrink !== undefined) {
    process.exitCode = await shrinkSeed(options.seed, options.settings, options.shrink);
    return;
  }
  if (options.seed !== undefined) {
    process.exitCode = await replay(options.seed, options.settings, options.trace);
    return;
  }
  let failed = false;
  for (const settings of options.runs) failed = (await runAll(settings, options)) || failed;
  process.exitCode = failed ? 1 : 0;
}

/** True when something was violated or missed. */
async function runAll(settings: Settings, { jobs, json, coverage }: ReturnType<typeof readOptions>): Promise<boolean> {
  const startedMs = Date.now();
  const results = await Promise.all(share(settings, jobs).map(spawnWorker));
  const failures = results.flatMap((result) => result.failures);
  const sums = settings.worlds.map((world) => [world, addUp(results.map((result) => result.sums[world]))] as const);
  const tookMs = Date.now() - startedMs;
  if (json) console.log(JSON.stringify({ tookMs, worlds: Object.fromEntries(sums), failures }));
  else report(settings.protocol, sums, failures, tookMs);
  const missed = coverage
    ? sums.flatMap(([world, { seeds, branches }]) =>
        reportCoverage({ protocol: settings.protocol, world, seeds }, branches, json),
      )
    : [];
  return failures.length + missed.length > 0;
}

/** Answers the branches that were not reached often enough. */
function reportCoverage(run: Parameters<typeof coverageOf>[0], hits: Record<string, number>, json: boolean): readonly Reached[] {
  const reached = coverageOf(run, hits);
  const { protocol, world } = run;
  if (!json)
    for (const { branch, hits, owed } of reached)
      console.log(`  ${String(hits).padStart(9)} of ${String(owed).padStart(6)}  ${world}: ${branch}`);
  const missed = reached.filter(({ hits, owed }) => hits < owed);
  for (const { branch, hits, owed } of missed)
    console.error(
      `${protocol}, ${world}: "${branch}" was reached ${hits} times in ${run.seeds} seeds, at least ${owed} were asked`,
    );
  return missed;
}

function readOptions() {
  try {
    const { values } = parseArgs({
      options: {
        seed: { type: "string" },
        trace: { type: "boolean", default: false },
        shrink: { type: "string" },
        replay: { type: "string" },
        protocol: { type: "string", default: "raft" },
        seeds: { type: "string" },
        faults: { type: "string" },
        "no-faults": { type: "string" },
        steps: { type: "string" },
        from: { type: "string", default: "1" },
        world: { type: "string", default: "both" },
        jobs: { type: "string", default: String(availableParallelism()) },
        twice: { type: "boolean", default: false },
        "until-failure": { type: "boolean", default: false },
        seconds: { type: "string", default: "1e9" },
        "cpu-seconds": { type: "string", default: "1e9" },
        coverage: { type: "boolean", default: false },
        json: { type: "boolean", default: false },
        help: { type: "boolean", default: false },
      },
    });
    if (values.help) {
      console.log(usage);
      process.exit(0);
    }
    const asked = values.steps === undefined ? undefined : whole(values.steps, "steps");
    const settingsOf = (protocol: string, steps = Number.MAX_SAFE_INTEGER, onlyWorld = values.world): Settings => {
      const simulation = simulations[protocol];
      if (simulation === undefined)
        throw new Error(`--protocol is one of ${Object.keys(simulations).join(", ")}, all, not "${protocol}".`);
      const worlds = simulation.worlds.filter((world) => onlyWorld === "both" || onlyWorld === world);
      if (worlds.length === 0) throw new Error(`--world "${onlyWorld}": ${protocol} has ${simulation.worlds.join(" and ")}.`);
      // A seed is never shorter than the floor, so as many as these are enough.
      const seeds = steps === Number.MAX_SAFE_INTEGER ? "200" : String(Math.ceil(steps / floors.stepsMin) + 64);
      return {
        protocol,
        from: whole(values.from, "from"),
        seeds: whole(values.seeds ?? seeds, "seeds"),
        steps,
        worlds,
        twice: values.twice,
        seconds: Number(values.seconds),
        cpuSeconds: Number(values["cpu-seconds"]),
        failuresMax: values["until-failure"] ? 1 : 5,
        faults: {
          ...(values.faults === undefined ? {} : { only: parseFaultClasses("--faults", values.faults) }),
          without: parseFaultClasses("--no-faults", values["no-faults"] ?? "none"),
        },
      };
    };
    const runs =
      values.protocol === "all"
        ? longRuns.map(([protocol, steps]) => settingsOf(protocol, asked ?? steps, "core"))
        : [settingsOf(values.protocol, asked)];
    const [settings] = runs as [Settings];
    const seed = values.seed === undefined ? undefined : whole(values.seed, "seed");
    const files = { shrink: values.shrink, replay: values.replay };
    if (runs.length > 1 && seed !== undefined) throw new Error("--seed needs one --protocol.");
    return {
      runs,
      settings,
      seed,
      trace: values.trace,
      jobs: whole(values.jobs, "jobs"),
      json: values.json,
      coverage: values.coverage,
      ...files,
    };
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${usage}`);
    process.exit(2);
  }
}

function whole(text: string, name: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0) throw new Error(`--${name} must be a whole number, not "${text}".`);
  return value;
}

function share(settings: Settings, jobs: number): Settings[] {
  const each = Math.ceil(settings.seeds / Math.max(1, jobs));
  const shares: Settings[] = [];
  for (let at = 0; at < settings.seeds; at += each) {
    const steps = Math.ceil(settings.steps / Math.max(1, jobs));
    shares.push({ ...settings, from: settings.from + at, seeds: Math.min(each, settings.seeds - at), steps });
  }
  return shares;
}

interface WorkerResult {
  readonly sums: Record<WorldName, Sums>;
  readonly failures: readonly Failure[];
}

function spawnWorker(settings: Settings): Promise<WorkerResult> {
  return new Promise((resolve, reject) => {
    // Letters die young, if the collector lets them.
    const execArgv = [...process.execArgv, "--max-semi-space-size=64"];
    const child = fork(fileURLToPath(import.meta.url), { env: { ...process.env, CONCLAVE_SIM_WORKER: "1" }, execArgv });
    child.send(settings);
    let last = "its first seed";
    child.on("message", (message: WorkerResult | string) => {
      if (typeof message === "string") last = message;
      else resolve(message);
    });
    child.once("error", reject);
    child.once("exit", (code, signal) => reject(new Error(`A simulator process ended early (${signal ?? code}), in ${last}.`)));
  });
}

async function work(settings: Settings): Promise<void> {
  const sums = { core: noSums(), stack: noSums(), transactions: noSums(), services: noSums(), cache: noSums() };
  const failures: Failure[] = [];
  const untilMs = Date.now() + settings.seconds * 1_000;
  const hasTime = (): boolean => Date.now() < untilMs && cpuSeconds() < settings.cpuSeconds;
  for (
    let seed = settings.from;
    seed < settings.from + settings.seeds && hasTime() && failures.length < settings.failuresMax;
    seed++
  ) {
    const worlds = settings.worlds.filter((world) => sums[world].steps < settings.steps);
    if (worlds.length === 0) break;
    for (const world of worlds) {
      const startedSeconds = cpuSeconds();
      // Whatever ends the process, its parent knows where.
      process.send?.(`seed ${seed} of the ${world} world`);
      try {
        const first = await runSeed(settings, seed, world);
        if (settings.twice) {
          const second = await runSeed(settings, seed, world);
          if (first.traceHash !== second.traceHash)
            throw new Error(`Determinism: ${first.traceHash} and then ${second.traceHash}`);
        }
        include(sums[world], first, ((cpuSeconds() - startedSeconds) * 1_000) / (settings.twice ? 2 : 1));
      } catch (error) {
        failures.push(failureOf(seed, world, error));
        sums[world].steps += stepsOf(error);
      }
    }
  }
  process.send?.({ sums, failures } satisfies WorkerResult, undefined, undefined, () => process.disconnect());
}

function runSeed(
  { protocol, faults }: Settings,
  seed: number,
  world: WorldName,
  onTrace?: (atMs: number, text: string) => void,
): Promise<RunReport> {
  const simulation = simulations[protocol] as Simulation;
  const filter = new FaultFilter(faults);
  return simulation.run(seed, { world, floors: floorsFor(filter), drain, filter, ...(onTrace === undefined ? {} : { onTrace }) });
}

/** Leaders change for a reason; a run without the reason need not wait for it. */
function floorsFor(filter: FaultFilter): RunFloors {
  return filter.allows("pause") ? floors : { ...floors, leaderChangesMin: 0 };
}

async function replay(seed: number, settings: Settings, trace: boolean): Promise<number> {
  let failed = 0;
  for (const world of settings.worlds) {
    try {
      const print = (atMs: number, text: string): void => console.log(`${atMs.toFixed(3).padStart(10)} ${text}`);
      const result = await runSeed(settings, seed, world, trace ? print : undefined);
      console.log(
        `seed ${seed}, ${world}: no violation; ${result.steps} steps, ${result.counts.leaderChanges} leaders, trace hash ${result.traceHash}`,
      );
    } catch (error) {
      failed = 1;
      console.log(`seed ${seed}, ${world}: ${failureOf(seed, world, error).message}`);
    }
  }
  return failed;
}

async function replayFile(path: string): Promise<number> {
  let schedule: Schedule;
  try {
    schedule = parseSchedule(readFileSync(path, "utf8"));
  } catch (error) {
    console.error(`${path}: ${(error as Error).message}`);
    return 2;
  }
  const { report, broken } = await replaySchedule(schedule, drain);
  const { length } = schedule.events;
  if (broken === undefined) console.log(`${path}: ${length} events, no violation, trace hash ${report?.traceHash}`);
  else console.log(`${path}: ${length} events, VIOLATION ${broken.message}`);
  return broken === undefined ? 0 : 1;
}

async function shrinkSeed(seed: number, settings: Settings, path: string): Promise<number> {
  const filter = new FaultFilter(settings.faults);
  const world = settings.worlds[0] === "stack" ? "stack" : "core";
  const failing = await scheduleOfSeed(seed, { protocol: settings.protocol, world, floors: floorsFor(filter), drain, filter });
  if (failing === undefined) {
    console.log(`seed ${seed}, ${world}: no violation, so there is nothing to shrink`);
    return 0;
  }
  let runs = 0;
  const budgetSeconds = Math.min(settings.cpuSeconds, world === "core" ? 120 : 300);
  const short = await shrink(failing, {
    run: async (schedule) => {
      runs++;
      return (await replaySchedule(schedule, drain)).broken;
    },
    hasTime: () => cpuSeconds() < budgetSeconds,
  });
  writeFileSync(path, formatSchedule(short));
  console.log(`seed ${seed}, ${world}: ${short.found?.message}`);
  console.log(
    `${failing.events.length} events reduced to ${short.events.length} in ${runs} runs, ${cpuSeconds().toFixed(1)} s: ${path}`,
  );
  return 1;
}

function failureOf(seed: number, world: WorldName, error: unknown): Failure {
  const { name, message, stack, invariant } = error as Error & { invariant?: string };
  // A violation speaks for itself; anything else is a crash, and its place matters.
  return { seed, world, invariant: invariant ?? name, message: invariant === undefined ? (stack ?? message) : message };
}

/** What a seed went through until it failed. */
function stepsOf(error: unknown): number {
  return (error as { readonly steps?: number }).steps ?? 0;
}

function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

function noSums(): Sums {
  const counts = { leaderChanges: 0, commits: 0, truncations: 0, snapshotsInstalled: 0, readsServed: 0 };
  const none = { seeds: 0, steps: 0, virtualMs: 0, cpuMs: 0, operations: 0, grants: 0 };
  return {
    ...none,
    counts,
    branches: {},
    traceHash: 0,
    fewestSteps: Number.MAX_SAFE_INTEGER,
    fewestLeaderChanges: Number.MAX_SAFE_INTEGER,
  };
}

function include(sums: Sums, one: RunReport, cpuMs: number): void {
  sums.seeds++;
  sums.steps += one.steps;
  sums.virtualMs += one.virtualMs;
  sums.cpuMs += cpuMs;
  sums.operations += one.operations;
  sums.grants += one.grants;
  for (const name of Object.keys(sums.counts) as (keyof CheckerCounts)[]) sums.counts[name] += one.counts[name];
  sums.traceHash = (sums.traceHash + Math.imul(one.traceHash, one.seed * 2 + 1)) >>> 0;
  for (const [branch, hits] of one.coverage?.hits ?? []) sums.branches[branch] = (sums.branches[branch] ?? 0) + hits;
  sums.fewestSteps = Math.min(sums.fewestSteps, one.steps);
  sums.fewestLeaderChanges = Math.min(sums.fewestLeaderChanges, one.counts.leaderChanges);
}

function addUp(parts: readonly Sums[]): Sums {
  const sum = noSums();
  for (const part of parts) {
    for (const name of ["seeds", "steps", "virtualMs", "cpuMs", "operations", "grants"] as const) sum[name] += part[name];
    for (const name of Object.keys(sum.counts) as (keyof CheckerCounts)[]) sum.counts[name] += part.counts[name];
    sum.traceHash = (sum.traceHash + part.traceHash) >>> 0;
    for (const [branch, hits] of Object.entries(part.branches)) sum.branches[branch] = (sum.branches[branch] ?? 0) + hits;
    sum.fewestSteps = Math.min(sum.fewestSteps, part.fewestSteps);
    sum.fewestLeaderChanges = Math.min(sum.fewestLeaderChanges, part.fewestLeaderChanges);
  }
  return sum;
}

function report(
  protocol: string,
  sums: readonly (readonly [WorldName, Sums])[],
  failures: readonly Failure[],
  tookMs: number,
): void {
  const number = (value: number): string => Math.round(value).toLocaleString("en-US");
  for (const [world, sum] of sums) {
    const { counts } = sum;
    console.log(
      `${protocol}, ${world}: ${number(sum.seeds)} seeds, ${number(sum.steps)} steps (${number((sum.steps / sum.cpuMs) * 1_000)} in a second of one core, ` +
        `${number(sum.virtualMs / sum.cpuMs)} times real time), ${number(counts.leaderChanges)} leaders, ${number(counts.commits)} commits, ` +
        `${number(counts.truncations)} truncations, ${number(counts.snapshotsInstalled)} snapshots installed, ${number(counts.readsServed)} reads` +
        (world === "stack" ? `, ${number(sum.operations)} register operations, ${number(sum.grants)} lock grants` : ""),
    );
    console.log(`  the least of any seed: ${number(sum.fewestSteps)} steps, ${sum.fewestLeaderChanges} leaders`);
  }
  for (const failure of failures) {
    console.log(`VIOLATION seed ${failure.seed} (${failure.world}): ${failure.message}`);
    console.log(`  replay: npm run sim -- --protocol ${protocol} --seed ${failure.seed} --world ${failure.world} --trace`);
  }
  console.log(`${failures.length} violations, ${(tookMs / 1_000).toFixed(1)} s`);
}
