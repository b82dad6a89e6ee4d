/**
 * Caches of several processes under seeded faults. More by hand: `npm run sim -- --protocol cache`.
 */
import { expect, test } from "vitest";
import { CacheWorld } from "../src/simulator/cache-world.ts";

const seeds = Number(process.env["CACHE_SEEDS"] ?? (process.env["CI"] === undefined ? 60 : 600));
const from = Number(process.env["CACHE_FROM"] ?? 1);
const drain = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test(`${seeds} seeds of caches, a store and an L2 under faults serve nothing beyond the promise`, {
  timeout: 60 * 60_000,
}, async () => {
  const failures: string[] = [];
  const sums = {
    judged: 0,
    invalidations: 0,
    staleWithinBound: 0,
    hits: 0,
    l2Hits: 0,
    loads: 0,
    distrusted: 0,
    staleServed: 0,
    poisoned: 0,
    lives: 0,
    crashes: 0,
    steps: 0,
  };
  for (let seed = from; seed < from + seeds; seed++) {
    try {
      const report = await new CacheWorld(seed, { drain }).run();
      for (const name of Object.keys(sums) as (keyof typeof sums)[]) sums[name] += report[name];
    } catch (error) {
      failures.push(`npm run sim -- --protocol cache --seed ${seed}: ${error instanceof Error ? error.message : error}`);
      if (failures.length >= 5) break;
    }
  }
  console.log(JSON.stringify(sums));
  expect(failures).toEqual([]);
  // Else the seeds prove nothing.
  for (const [name, sum] of Object.entries(sums)) expect(sum, name).toBeGreaterThan(0);
});

test("a seed replays exactly", async () => {
  const [first, second] = [await new CacheWorld(7, { drain }).run(), await new CacheWorld(7, { drain }).run()];
  expect(second).toEqual(first);
});
