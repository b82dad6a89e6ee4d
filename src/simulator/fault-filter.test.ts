/**
 * Kinds of fault are switched on and off by name: what is ruled out never strikes, what is asked for always can.
 */
import { expect, test } from "vitest";
import { CoreWorld, drawSetup } from "./core-world.ts";
import { type FaultChoice, FaultFilter, parseFaultClasses } from "./fault-filter.ts";
import { PbftWorld } from "./pbft-world.ts";
import { protocols, type SimulatedProtocol } from "./protocols.ts";

const raft = protocols["raft"] as SimulatedProtocol<unknown>;
const floors = { stepsMin: 2_000, virtualMsMin: 8_000, leaderChangesMin: 0 };

function eventsOf(seed: number, choice: FaultChoice): Set<string> {
  const filter = new FaultFilter(choice);
  const world = new CoreWorld({ protocol: raft, setup: drawSetup(seed, raft, filter), dice: seed, records: true });
  world.run(floors, filter);
  return new Set(
    world.events.map((event) => event.do).filter((kind) => !["submit", "read", "change", "transfer"].includes(kind)),
  );
}

test("only what was asked for strikes, and it does in every seed", () => {
  for (const seed of [1, 2, 3]) {
    expect([...eventsOf(seed, { only: ["slow-disk"] })]).toEqual(["slow-disk"]);
    expect([...eventsOf(seed, { only: [] })]).toEqual([]);
  }
});

test("what was ruled out does not strike, and without a choice a seed stays what it was", () => {
  const seeds = [1, 2, 3, 4, 5, 6];
  const all = seeds.map((seed) => eventsOf(seed, {}));
  expect(all.some((kinds) => kinds.has("crash") && kinds.has("cut"))).toBe(true);
  for (const seed of seeds) {
    const kinds = eventsOf(seed, { without: ["crash", "crash-all", "network"] });
    expect(kinds.has("crash") || kinds.has("network")).toBe(false);
    expect(kinds.size).toBeGreaterThan(0);
  }
});

test("clocks without drift are true, limits are generous, and liars keep to their lies", () => {
  for (const seed of [1, 2, 3, 4]) {
    const setup = drawSetup(seed, raft, new FaultFilter({ without: ["drift", "tiny-limits"] }));
    expect(Object.values(setup.clocks).every(({ rate }) => rate === 1)).toBe(true);
    expect(setup.limits).toEqual({});
  }
  // Odd seeds have liars; of what they do only what was named is left, so no proof of a false state is ever refused.
  const { coverage } = new PbftWorld(1, new FaultFilter({ only: ["silent"] })).run({ stepsMin: 2_000 });
  expect(coverage.hits.get("a false seal is dropped at the gate")).toBeUndefined();
});

test("a name that nobody knows is refused with those there are", () => {
  expect(parseFaultClasses("--faults", "crash, twin")).toEqual(["crash", "twin"]);
  expect(parseFaultClasses("--faults", "none")).toEqual([]);
  expect(() => parseFaultClasses("--faults", "rain")).toThrow(/"rain" is none of crash,/);
});
