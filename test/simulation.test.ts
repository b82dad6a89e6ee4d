/**
 * Whole clusters and cores alone under seeded faults: 2,000 seeds in CI, 200 elsewhere. `npm run sim` is the same by hand.
 */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { coverageOf } from "../src/simulator/coverage.ts";

const run = promisify(execFile);
const seeds = process.env["CI"] === undefined ? 200 : 2_000;

interface Report {
  readonly failures: readonly { readonly seed: number; readonly world: string; readonly message: string }[];
  readonly worlds: Record<
    "core" | "stack",
    {
      readonly seeds: number;
      readonly steps: number;
      readonly cpuMs: number;
      readonly fewestSteps: number;
      readonly fewestLeaderChanges: number;
      readonly grants: number;
      readonly branches: Readonly<Record<string, number>>;
      readonly counts: { readonly snapshotsInstalled: number; readonly truncations: number };
    }
  >;
}

async function simulate(...args: readonly string[]): Promise<Report> {
  const child = run(process.execPath, ["dist/simulator/main.js", "--json", ...args], { maxBuffer: 1e8 }).catch(
    (error: { stdout: string; stderr: string }) => error,
  );
  const { stdout, stderr } = await child;
  if (stdout === "") throw new Error(`No report: ${stderr.slice(-2_000)}`);
  return JSON.parse(stdout) as Report;
}

test(`${seeds} seeds of cores and of whole clusters break no invariant, and each goes through enough`, {
  timeout: 45 * 60_000,
}, async () => {
  const { failures, worlds } = await simulate("--seeds", String(seeds), "--coverage");
  expect(failures.map(({ seed, world, message }) => `npm run sim -- --seed ${seed} --world ${world}: ${message}`)).toEqual([]);
  for (const name of ["core", "stack"] as const) {
    const reached = coverageOf({ protocol: "raft", world: name, seeds }, worlds[name].branches);
    const missed = reached.filter(({ hits, owed }) => hits < owed);
    expect(missed, `rare branches of the ${name} world that too few seeds reached`).toEqual([]);
  }
  for (const world of [worlds.core, worlds.stack]) {
    expect(world.seeds).toBe(seeds);
    expect(world.fewestSteps).toBeGreaterThanOrEqual(2_000);
    expect(world.fewestLeaderChanges).toBeGreaterThanOrEqual(3);
    expect(world.counts.snapshotsInstalled).toBeGreaterThan(0);
    expect(world.counts.truncations).toBeGreaterThan(0);
  }
  expect(worlds.stack.grants).toBeGreaterThan(seeds);
  for (const [name, world] of Object.entries(worlds)) {
    console.log(
      `${name}: ${world.seeds} seeds, ${world.steps} steps, ${Math.round((world.steps / world.cpuMs) * 1_000)} steps in a second of one core`,
    );
  }
});

test("a seed replays exactly: two runs have the same trace hash", { timeout: 5 * 60_000 }, async () => {
  const { failures } = await simulate("--seeds", "20", "--from", "900000", "--twice");
  expect(failures).toEqual([]);
});
