/**
 * The least that a seed goes through before its faults end, and the most that it may take to get there.
 */
import type { EventQueue } from "./event-queue.ts";
import type { CheckerCounts } from "./group-checker.ts";
import { InvariantViolation } from "./invariant-violation.ts";

export interface RunFloors {
  readonly stepsMin: number;
  readonly virtualMsMin: number;
  readonly leaderChangesMin: number;
}

/** Of virtual time: a group that changes its leader no more by then, though its leader is put to sleep every two seconds, is stuck. */
const giveUpFactor = 30;
/** A group that talks without end. The longest lawful seeds take a tenth of it. */
const stepsMax = 3_000_000;

/** @throws InvariantViolation Liveness, when the group will never get there */
export function hasRunEnough(floors: RunFloors, queue: EventQueue, counts: CheckerCounts): boolean {
  const { stepsMin, virtualMsMin, leaderChangesMin } = floors;
  if (queue.steps >= stepsMin && queue.nowMs >= virtualMsMin && counts.leaderChanges >= leaderChangesMin) return true;
  if (queue.nowMs > giveUpFactor * virtualMsMin || queue.steps > stepsMax) {
    const seen = `${counts.leaderChanges} leaders and ${counts.commits} commits in ${Math.round(queue.nowMs)} ms and ${queue.steps} steps`;
    throw new InvariantViolation("Liveness", `stuck under faults: ${seen}`);
  }
  return false;
}
