/**
 * Rare branches that the seeds have to reach: each is counted where it happens, and a long run that never reached one fails.
 * A simulator that does not exercise snapshots finds nothing there, and is green all the same.
 *
 * Source: FoundationDB's `CODE_PROBE`. The counters sit in the checkers and worlds, never in the code under test.
 */
import type { WorldName } from "./simulations.ts";

/**
 * What to reach in each world, and how often in `coverageSeeds` seeds: a seventh to a third of the least that any protocol was
 * seen to reach, so that dice alone do not fail a run, and a world that has lost a kind of fault does. A protocol without the
 * matter leaves it out.
 */
const core = {
  "a restart keeps a part of what was under way": 50,
  "a restart finds a snapshot and a log behind it": 600,
  "two members believe that they lead": 250,
  "a leader commits entries of an earlier term with one of its own": 60,
  "a truncation drops several entries": 100,
  "a snapshot is installed": 800,
  "a snapshot is installed over a log that reached beyond it": 15,
  "a read is refused": 50_000,
  "a write is refused after it was accepted": 9_000,
  "a letter of an earlier term arrives": 600,
  "a member delivers ten entries at once": 2_000,
} as const;
const membership = {
  "a joint configuration is entered": 6_000,
  "a learner is in force": 15_000,
  "a voter is removed": 18_000,
} as const;
const stack = {
  "a restart keeps a part of what was under way": 45,
  "a restart finds a snapshot and a log behind it": 450,
  "a snapshot is installed": 140,
  "a read is refused": 2_800,
  "a member refuses its damaged disk": 25,
  "a damaged disk goes unnoticed, and is right": 90,
  "a member stops on a full or failing disk": 130,
  "a wiped disk is refused": 8,
  "a hold is lost": 150,
  "a guard refuses": 30,
  "a client sleeps longer than its lease": 500,
  "an item of a queue is given back": 110,
  "a subscriber is told of a gap": 4,
  "leadership is handed over by name": 5,
  "a latch opens": 200,
  "a double barrier lets its members in": 180,
} as const;
const pbft = {
  "a correct replica restarts with votes on its disk": 350,
  "a replica that says two things is caught": 9_000,
  "a false seal is dropped at the gate": 25_000,
  "a client finds a reply's seal false": 2_000,
  "a proof that proves nothing is refused": 10_000,
  "a new view is refused": 500,
  "a new view proposes again what was prepared": 100_000,
  "a new view fills a gap with the null request": 5_000,
  "a batch is fetched after a new view": 29_000,
  "a state is fetched from others": 2_600,
} as const;

export type Branch = keyof typeof core | keyof typeof membership | keyof typeof stack | keyof typeof pbft;

/** The numbers above are for so many seeds; of more or fewer a run owes its share, and of each branch at least one. */
export const coverageSeeds = 400;

export class Coverage {
  readonly hits = new Map<Branch, number>();

  hit(branch: Branch): void {
    this.hits.set(branch, (this.hits.get(branch) ?? 0) + 1);
  }
}

/** Those that Multi-Paxos cannot reach: its slots are never truncated, and a decided value has no term of its own. */
const onlyWithTerms: readonly Branch[] = [
  "a leader commits entries of an earlier term with one of its own",
  "a truncation drops several entries",
  "a write is refused after it was accepted",
];

function branchesOf(protocol: string, world: WorldName): Readonly<Partial<Record<Branch, number>>> {
  if (world === "core" && protocol === "raft") return { ...core, ...membership };
  if (world === "core" && protocol === "paxos")
    return Object.fromEntries(Object.entries(core).filter(([branch]) => !onlyWithTerms.includes(branch as Branch)));
  if (world === "core" && protocol === "zab") return core;
  if (world === "core" && protocol === "pbft") return pbft;
  return world === "stack" ? stack : {};
}

export interface Reached {
  readonly branch: string;
  readonly hits: number;
  readonly owed: number;
}

/** How often each branch was reached by a run of so many seeds, and how often it should have been. */
export function coverageOf(
  run: { readonly protocol: string; readonly world: WorldName; readonly seeds: number },
  hits: Readonly<Record<string, number>>,
): readonly Reached[] {
  return Object.entries(branchesOf(run.protocol, run.world)).map(([branch, least]) => ({
    branch,
    hits: hits[branch] ?? 0,
    owed: Math.max(1, Math.floor((least * run.seeds) / coverageSeeds)),
  }));
}
