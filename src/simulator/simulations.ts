/**
 * What `npm run sim -- --protocol NAME --world WHICH` runs: for each protocol the worlds it has, and how one seed goes
 * through one of them. A protocol with a world of its own (PBFT) joins by a row here, the others by `protocols.ts`.
 */
import { CacheWorld } from "./cache-world.ts";
import { CoreWorld, drawSetup } from "./core-world.ts";
import type { Coverage } from "./coverage.ts";
import type { FaultFilter } from "./fault-filter.ts";
import type { CheckerCounts } from "./group-checker.ts";
import { PbftWorld } from "./pbft-world.ts";
import { protocols, type SimulatedProtocol } from "./protocols.ts";
import type { RunFloors } from "./run-floors.ts";
import { ServicesWorld } from "./services-world.ts";
import { TransactionsWorld } from "./transactions-world.ts";
import { World } from "./world.ts";

/**
 * `core`: cores alone, as fast as it goes. `stack`: whole members with their logs, clients and recipes. `transactions`:
 * coordinators over model databases. `services`: sagas and TCC over model services. `cache`: caches of several processes over a store and a bad L2.
 */
export type WorldName = "core" | "stack" | "transactions" | "services" | "cache";

export interface RunOptions {
  readonly world: WorldName;
  readonly floors: RunFloors;
  /** Lets every promise that is ready go on, and returns when none is. */
  readonly drain: () => Promise<void>;
  readonly onTrace?: (atMs: number, text: string) => void;
  /** Which kinds of fault; only agreement knows any. */
  readonly filter: FaultFilter;
}

export interface RunReport {
  readonly seed: number;
  readonly steps: number;
  readonly virtualMs: number;
  readonly traceHash: number;
  readonly counts: CheckerCounts;
  readonly coverage?: Coverage;
  /** Of clients; none in the core world. */
  readonly operations: number;
  readonly grants: number;
}

export interface Simulation {
  readonly worlds: readonly WorldName[];
  /** @throws InvariantViolation */
  run(seed: number, options: RunOptions): Promise<RunReport>;
}

export const simulations: Readonly<Record<string, Simulation>> = {
  ...Object.fromEntries(Object.entries(protocols).map(([name, protocol]) => [name, crashFaults(protocol)])),
  pbft: { worlds: ["core"], run: runPbft },
  transactions: { worlds: ["transactions"], run: runTransactions },
  services: { worlds: ["services"], run: runServices },
  cache: { worlds: ["cache"], run: runCache },
};

/** Commits are those of transactions, and a leader changes where a coordinator loses its epoch. */
async function runTransactions(seed: number, { drain, onTrace }: RunOptions): Promise<RunReport> {
  const world = new TransactionsWorld(seed, { drain, ...(onTrace === undefined ? {} : { onTrace }) });
  try {
    const { committed, aborted, unknown, fenced, ...report } = await world.run();
    const counts = { leaderChanges: fenced, commits: committed, truncations: 0, snapshotsInstalled: 0, readsServed: 0 };
    return { ...report, counts, operations: committed + aborted + unknown, grants: 0 };
  } catch (error) {
    if (error instanceof Error) Object.assign(error, { steps: world.steps });
    throw error;
  }
}

/** Commits are those of transactions and completed sagas; a leader changes where a saga is taken over. */
async function runServices(seed: number, { drain, onTrace }: RunOptions): Promise<RunReport> {
  const world = new ServicesWorld(seed, { drain, ...(onTrace === undefined ? {} : { onTrace }) });
  try {
    const { completed, compensated, committed, aborted, takeOvers, ...report } = await world.run();
    const counts = {
      leaderChanges: takeOvers,
      commits: committed + completed,
      truncations: 0,
      snapshotsInstalled: 0,
      readsServed: 0,
    };
    return { ...report, counts, operations: completed + compensated + committed + aborted, grants: 0 };
  } catch (error) {
    if (error instanceof Error) Object.assign(error, { steps: world.steps });
    throw error;
  }
}

/** A world of its own, because it has liars. Its leader changes are views that correct replicas entered. */
async function runPbft(seed: number, { floors, filter }: RunOptions): Promise<RunReport> {
  const world = new PbftWorld(seed, filter);
  try {
    const { answers, counts, ...report } = world.run(floors);
    return {
      ...report,
      counts: {
        leaderChanges: counts.viewsEntered,
        commits: counts.executed,
        truncations: 0,
        snapshotsInstalled: counts.transfers,
        readsServed: 0,
      },
      operations: answers,
      grants: 0,
    };
  } catch (error) {
    if (error instanceof Error) Object.assign(error, { steps: world.steps });
    throw error;
  }
}

/** A leader changes where a process starts anew, a commit is an invalidation, a grant is a load, an operation a value judged. */
async function runCache(seed: number, { drain, onTrace }: RunOptions): Promise<RunReport> {
  const world = new CacheWorld(seed, { drain, ...(onTrace === undefined ? {} : { onTrace }) });
  try {
    const { judged, invalidations, loads, hits, l2Hits, crashes, ...report } = await world.run();
    const counts = {
      leaderChanges: crashes,
      commits: invalidations,
      truncations: 0,
      snapshotsInstalled: 0,
      readsServed: hits + l2Hits,
    };
    return { ...report, counts, operations: judged, grants: loads };
  } catch (error) {
    if (error instanceof Error) Object.assign(error, { steps: world.steps });
    throw error;
  }
}

function crashFaults(protocol: SimulatedProtocol<unknown>): Simulation {
  return {
    worlds: protocol.hasStack ? ["core", "stack"] : ["core"],
    run: async (seed, { world, floors, drain, filter, onTrace }) => {
      const made =
        world === "core"
          ? new CoreWorld({ protocol, setup: drawSetup(seed, protocol, filter), dice: seed })
          : new World(seed, { protocol, drain, filter, ...(onTrace === undefined ? {} : { onTrace }) });
      try {
        return {
          seed,
          operations: 0,
          grants: 0,
          ...(await (made instanceof World ? made.run(floors) : made.run(floors, filter))),
        };
      } catch (error) {
        if (error instanceof Error) Object.assign(error, { steps: made.steps });
        throw error;
      }
    },
  };
}
