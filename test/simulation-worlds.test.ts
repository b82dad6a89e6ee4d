/**
 * Coordinators over databases, sagas and services, and caches, each under seeded faults: some seeds here, ten times as many where
 * CI is set. More by hand: `npm run sim -- --protocol transactions|services|cache`.
 */
import { describe, expect, test } from "vitest";
import { CacheWorld } from "../src/simulator/cache-world.ts";
import { ServicesWorld } from "../src/simulator/services-world.ts";
import { TransactionsWorld } from "../src/simulator/transactions-world.ts";

type World = new (
  seed: number,
  options: { readonly drain: () => Promise<void> },
) => { run(): Promise<{ readonly seed: number; readonly virtualMs: number; readonly traceHash: number }> };

const worlds: readonly { readonly protocol: string; readonly World: World; readonly seeds: number }[] = [
  { protocol: "transactions", World: TransactionsWorld, seeds: 25 },
  { protocol: "services", World: ServicesWorld, seeds: 20 },
  { protocol: "cache", World: CacheWorld, seeds: 60 },
];
const times = process.env["CI"] === undefined ? 1 : 10;
const drain = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe.each(worlds)("the world of $protocol", ({ protocol, World, seeds }) => {
  test(`${seeds * times} seeds break no promise, and each kind of event takes place`, { timeout: 60 * 60_000 }, async () => {
    const failures: string[] = [];
    const sums: Record<string, number> = {};
    for (let seed = 1; seed <= seeds * times && failures.length < 5; seed++) {
      try {
        const { seed: _seed, virtualMs: _virtualMs, traceHash: _traceHash, ...counts } = await new World(seed, { drain }).run();
        for (const [name, count] of Object.entries(counts)) sums[name] = (sums[name] ?? 0) + (count as number);
      } catch (error) {
        failures.push(`npm run sim -- --protocol ${protocol} --seed ${seed}: ${error instanceof Error ? error.message : error}`);
      }
    }
    console.log(`${protocol}: ${JSON.stringify(sums)}`);
    expect(failures).toEqual([]);
    // Else the seeds prove nothing.
    expect(Object.keys(sums).length).toBeGreaterThan(3);
    for (const [name, sum] of Object.entries(sums)) expect(sum, name).toBeGreaterThan(0);
  });

  test("a seed replays exactly", async () => {
    const [first, second] = [await new World(7, { drain }).run(), await new World(7, { drain }).run()];
    expect(second).toEqual(first);
  });
});
