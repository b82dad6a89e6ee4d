/**
 * Sagas and services under seeded faults. More by hand: `npm run sim -- --protocol services`.
 */
import { expect, test } from "vitest";
import { ServicesWorld } from "../src/simulator/services-world.ts";

const seeds = Number(process.env["SERVICE_SEEDS"] ?? 20);
const from = Number(process.env["SERVICE_FROM"] ?? 1);
const drain = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test(`${seeds} seeds of sagas and services under faults keep every promise and leave nothing`, {
  timeout: 60 * 60_000,
}, async () => {
  const failures: string[] = [];
  const sums = {
    completed: 0,
    compensated: 0,
    committed: 0,
    aborted: 0,
    takeOvers: 0,
    kills: 0,
    zombies: 0,
    crashes: 0,
    steps: 0,
  };
  for (let seed = from; seed < from + seeds; seed++) {
    try {
      const report = await new ServicesWorld(seed, { drain }).run();
      for (const name of Object.keys(sums) as (keyof typeof sums)[]) sums[name] += report[name];
    } catch (error) {
      failures.push(`seed ${seed}: ${error instanceof Error ? error.message : error}`);
      if (failures.length >= 5) break;
    }
  }
  console.log(JSON.stringify(sums));
  expect(failures).toEqual([]);
  // Else the seeds prove nothing.
  for (const [name, sum] of Object.entries(sums)) expect(sum, name).toBeGreaterThan(0);
});

test("a seed replays exactly", async () => {
  const [first, second] = [await new ServicesWorld(7, { drain }).run(), await new ServicesWorld(7, { drain }).run()];
  expect(second).toEqual(first);
});
