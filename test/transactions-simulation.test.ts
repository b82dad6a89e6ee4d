/**
 * Coordinators, recoverers and databases under seeded faults. More by hand: `npm run sim -- --protocol transactions`.
 */
import { expect, test } from "vitest";
import { TransactionsWorld } from "../src/simulator/transactions-world.ts";

const seeds = Number(process.env["TRANSACTION_SEEDS"] ?? 25);
const from = Number(process.env["TRANSACTION_FROM"] ?? 1);
const drain = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test(`${seeds} seeds of coordinators, databases and a store under faults lose, halve and leave nothing`, {
  timeout: 60 * 60_000,
}, async () => {
  const failures: string[] = [];
  const sums = { committed: 0, aborted: 0, unknown: 0, kills: 0, zombies: 0, fenced: 0, crashes: 0, steps: 0 };
  for (let seed = from; seed < from + seeds; seed++) {
    try {
      const report = await new TransactionsWorld(seed, { drain }).run();
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
  const [first, second] = [await new TransactionsWorld(7, { drain }).run(), await new TransactionsWorld(7, { drain }).run()];
  expect(second).toEqual(first);
});
