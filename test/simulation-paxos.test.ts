/**
 * Multi-Paxos under seeded faults, cores alone and whole clusters: a share of what `npm run sim -- --protocol paxos` runs by hand.
 */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { expect, test } from "vitest";

const run = promisify(execFile);
const isCi = process.env["CI"] !== undefined;

interface Report {
  readonly failures: readonly { readonly seed: number; readonly world: string; readonly message: string }[];
  readonly worlds: Record<
    string,
    {
      readonly seeds: number;
      readonly fewestSteps: number;
      readonly fewestLeaderChanges: number;
      readonly grants: number;
      readonly counts: { readonly snapshotsInstalled: number; readonly readsServed: number };
    }
  >;
}

async function simulate(...args: readonly string[]): Promise<Report> {
  const all = ["dist/simulator/main.js", "--protocol", "paxos", "--json", ...args];
  const child = run(process.execPath, all, { maxBuffer: 1e8 }).catch((error: { stdout: string; stderr: string }) => error);
  const { stdout, stderr } = await child;
  if (stdout === "") throw new Error(`No report: ${stderr.slice(-2_000)}`);
  return JSON.parse(stdout) as Report;
}

for (const [world, seeds] of [
  ["core", isCi ? 1_000 : 60],
  ["stack", isCi ? 200 : 15],
] as const) {
  test(`${seeds} seeds of Multi-Paxos, ${world}, break no invariant, and each goes through enough`, {
    timeout: 20 * 60_000,
  }, async () => {
    const { failures, worlds } = await simulate("--seeds", String(seeds), "--from", "700000", "--world", world);
    expect(failures.map(({ seed, message }) => `npm run sim -- --protocol paxos --seed ${seed}: ${message}`)).toEqual([]);
    const sums = worlds[world];
    expect(sums).toMatchObject({ seeds });
    expect(sums?.fewestSteps).toBeGreaterThanOrEqual(2_000);
    expect(sums?.fewestLeaderChanges).toBeGreaterThanOrEqual(3);
    expect(sums?.counts.snapshotsInstalled).toBeGreaterThan(0);
    expect(sums?.counts.readsServed).toBeGreaterThan(0);
    if (world === "stack") expect(sums?.grants).toBeGreaterThan(seeds);
  });
}

test("a seed of Multi-Paxos replays exactly: two runs have the same trace hash", { timeout: 5 * 60_000 }, async () => {
  const { failures } = await simulate("--seeds", "6", "--from", "900000", "--twice");
  expect(failures).toEqual([]);
});
