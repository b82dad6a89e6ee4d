/**
 * What `npm run sim -- --protocol NAME --world WHICH` runs: for each protocol the worlds it has, and how one seed goes
 * through one of them. A protocol with a world of its own (PBFT) joins by a row here, the others by `protocols.ts`.
 */
import { CoreWorld } from "./core-world.ts";
import type { CheckerCounts } from "./group-checker.ts";
import { protocols, type SimulatedProtocol } from "./protocols.ts";
import { World } from "./world.ts";

/** `core`: cores alone, as fast as it goes. `stack`: whole members with their logs, clients and recipes. */
export type WorldName = "core" | "stack";

export interface RunOptions {
  readonly world: WorldName;
  readonly floors: { readonly stepsMin: number; readonly virtualMsMin: number; readonly leaderChangesMin: number };
  /** Lets every promise that is ready go on, and returns when none is. */
  readonly drain: () => Promise<void>;
  readonly onTrace?: (atMs: number, text: string) => void;
}

export interface RunReport {
  readonly seed: number;
  readonly steps: number;
  readonly virtualMs: number;
  readonly traceHash: number;
  readonly counts: CheckerCounts;
  /** Of clients; none in the core world. */
  readonly operations: number;
  readonly grants: number;
}

export interface Simulation {
  readonly worlds: readonly WorldName[];
  /** @throws InvariantViolation */
  run(seed: number, options: RunOptions): Promise<RunReport>;
}

export const simulations: Readonly<Record<string, Simulation>> = Object.fromEntries(
  Object.entries(protocols).map(([name, protocol]) => [name, crashFaults(protocol)]),
);

function crashFaults(protocol: SimulatedProtocol<unknown>): Simulation {
  return {
    worlds: protocol.hasStack ? ["core", "stack"] : ["core"],
    run: async (seed, { world, floors, drain, onTrace }) => {
      if (world === "core") return { ...new CoreWorld(seed, protocol).run(floors), operations: 0, grants: 0 };
      return new World(seed, { ...floors, protocol, drain, ...(onTrace === undefined ? {} : { onTrace }) }).run();
    },
  };
}
