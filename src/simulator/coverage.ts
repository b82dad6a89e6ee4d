/**
 * Rare branches that the seeds have to reach: each is counted where it happens, and a long run that never reached one fails.
 * A simulator that does not exercise snapshots finds nothing there, and is green all the same.
 *
 * Source: FoundationDB's `CODE_PROBE`. The counters sit in the checkers and worlds, never in the code under test.
 */
import type { WorldName } from "./simulations.ts";

/** What to reach in each world, at least once in `coverageSeeds` seeds. A protocol without the matter leaves it out. */
const core = [
  "a restart keeps a part of what was under way",
  "a restart finds a snapshot and a log behind it",
  "two members believe that they lead",
  "a leader commits entries of an earlier term with one of its own",
  "a truncation drops several entries",
  "a snapshot is installed",
  "a snapshot is installed over a log that reached beyond it",
  "a read is refused",
  "a write is refused after it was accepted",
  "a letter of an earlier term arrives",
  "a member delivers ten entries at once",
] as const;
const membership = ["a joint configuration is entered", "a learner is in force", "a voter is removed"] as const;
const stack = [
  "a restart keeps a part of what was under way",
  "a restart finds a snapshot and a log behind it",
  "a snapshot is installed",
  "a read is refused",
  "a member refuses its damaged disk",
  "a damaged disk goes unnoticed, and is right",
  "a member stops on a full or failing disk",
  "a wiped disk is refused",
  "a hold is lost",
  "a guard refuses",
  "a client sleeps longer than its lease",
  "an item of a queue is given back",
  "a latch opens",
  "a double barrier lets its members in",
] as const;

const pbft = [
  "a correct replica restarts with votes on its disk",
  "a replica that says two things is caught",
  "a false seal is dropped at the gate",
  "a proof that proves nothing is refused",
  "a new view is refused",
  "a new view proposes again what was prepared",
  "a new view fills a gap with the null request",
  "a batch is fetched after a new view",
  "a state is fetched from others",
] as const;

export type Branch = (typeof core)[number] | (typeof membership)[number] | (typeof stack)[number] | (typeof pbft)[number];

/** So many seeds are enough to reach every branch of the list. */
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

export function branchesOf(protocol: string, world: WorldName): readonly Branch[] {
  if (world === "core" && protocol === "raft") return [...core, ...membership];
  if (world === "core" && protocol === "paxos") return core.filter((branch) => !onlyWithTerms.includes(branch));
  if (world === "core" && protocol === "zab") return core;
  if (world === "core" && protocol === "pbft") return pbft;
  return world === "stack" ? stack : [];
}
