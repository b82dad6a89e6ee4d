/**
 * Cases of the stack world that dice alone make too seldom, one kind in most seeds. Each was a planted bug's hiding place.
 *
 * - `crowd`: more wait for one lock than a waiter counts one by one, so those far back watch only the one right ahead, who
 *   gives up in the middle of the queue;
 * - `far-behind`: a watcher begins further back than one step of catching up tells, and takes little at a time;
 * - `deaf-watcher`: a leader is cut off while its watcher sleeps, and comes back by a snapshot before the watcher leaves it.
 */
import { createLock } from "../recipes/lock.ts";
import type { EventQueue } from "./event-queue.ts";
import { InvariantViolation } from "./invariant-violation.ts";
import type { Random } from "./random.ts";
import type { StackSetup, StackWorldEvent } from "./schedule.ts";
import { sleep, type WorkloadParts } from "./workload.ts";

export const stackAmbushes = ["crowd", "far-behind", "deaf-watcher"] as const;
export type StackAmbush = (typeof stackAmbushes)[number];

/** More than `queue-place.ts` counts, with some to spare for those who give up. */
const crowdSize = 22;
const crowdRounds = 2;

/** What the ambush asks of the cluster itself: whoever was away for a while is sent a snapshot. */
export function ambushedSetup(setup: StackSetup): StackSetup {
  if (setup.ambush !== "deaf-watcher") return setup;
  return { ...setup, limits: { ...setup.limits, retainedBytesMax: 0 }, snapshotEveryBytes: 2_000 };
}

/** One process wants the same lock many times at once; most of the calls give up where they stand. */
export async function runCrowd(parts: WorkloadParts): Promise<void> {
  const { process, random } = parts;
  for (let round = 0; round < crowdRounds && !parts.isStopped(); round++) {
    await sleep(process, random.between(500, 8_000));
    await Promise.all(Array.from({ length: crowdSize }, () => contend(parts)));
  }
}

async function contend({ client, observations, process, random }: WorkloadParts): Promise<void> {
  const name = "crowd";
  const [waitMs, holdMs] = [random.between(200, 3_000), random.between(20, 800)];
  try {
    const hold = await createLock(client, name, { ttlMs: 2_000 }).acquire({ waitMs });
    observations.onGrant(name, process.name, hold);
    await sleep(process, holdMs);
    await hold.release();
  } catch (error) {
    if (error instanceof InvariantViolation) throw error;
    // It gave up, or could not be served.
  }
}

/** Again and again, the leader loses sight of the others and its watcher sleeps for longer than that. */
export function planDeafWatcher(parts: {
  readonly queue: EventQueue;
  readonly random: Random;
  readonly members: readonly string[];
  readonly watcher: string;
  readonly leader: () => string | undefined;
  readonly isStopped: () => boolean;
  readonly strike: (event: StackWorldEvent) => void;
}): void {
  const { random } = parts;
  parts.queue.schedule(random.between(2_000, 8_000), () => {
    if (parts.isStopped()) return;
    planDeafWatcher(parts);
    const leader = parts.leader();
    if (leader === undefined) return;
    const forMs = random.between(2_000, 4_000);
    const others = parts.members.filter((member) => member !== leader);
    const links = others.flatMap((other) => [[leader, other] as const, [other, leader] as const]);
    parts.strike({ do: "cut", links, forMs });
    // Over another connection it would hear of the new leader first, and be gone.
    for (const other of others) parts.strike({ do: "break", from: parts.watcher, to: other });
    parts.strike({ do: "client-pause", client: parts.watcher, forMs: forMs + random.between(200, 2_000) });
  });
}
