/**
 * What the simulated watchers do: watch for a while, stop, and go on from where they were, from earlier, or from now.
 */
import type { Revision, Store } from "../store/store.ts";
import { InvariantViolation } from "./invariant-violation.ts";
import type { StackAmbush } from "./stack-ambushes.ts";
import { WatchJudge, type WatchTruth, watchedNamespace, watchedRanges } from "./watch-judge.ts";
import { sleep, type WorkloadParts } from "./workload.ts";

export interface WatchParts extends WorkloadParts {
  readonly truth: WatchTruth;
  readonly habits: Habits;
}

/** What a watcher is like. */
interface Habits {
  /** How far back it may begin. */
  readonly depth: Revision;
  /** How often it begins at a revision of its own choice. */
  readonly choiceChance: number;
  /** A watch lasts no longer. */
  readonly patienceMs: number;
}

const usual: Habits = { depth: 300, choiceChance: 0.2, patienceMs: 5_000 };

export function habitsOf(ambush: StackAmbush | undefined): Habits {
  if (ambush === "far-behind") return { ...usual, depth: 5_000, choiceChance: 0.6 };
  if (ambush === "deaf-watcher") return { ...usual, patienceMs: 30_000 };
  return usual;
}

/** Runs until the world says stop. */
export async function runWatches(parts: WatchParts): Promise<void> {
  const { habits, random, process } = parts;
  const toldOf = new Map<number, Revision>();
  while (!parts.isStopped()) {
    const which = random.integer(0, watchedRanges.length - 1);
    const dice = random.float();
    const told = toldOf.get(which);
    let from: Revision | undefined;
    if (dice < 0.8 - habits.choiceChance) from = told === undefined ? undefined : told + 1;
    else if (dice < 0.8) from = someRevision(parts);
    const judge = await watchFor(parts, { which, from, durationMs: random.between(20, habits.patienceMs) });
    if (judge.told !== undefined) toldOf.set(which, Math.max(judge.told, told ?? 0));
    await sleep(process, random.between(0, 500));
  }
}

/** In peace: from any revision, a watch tells everything up to the end. */
export async function watchToTheEnd(parts: WatchParts): Promise<void> {
  for (const [which] of watchedRanges.entries()) {
    const from = someRevision(parts);
    await watchFor(parts, { which, from, durationMs: 60_000, untilTheEnd: true });
  }
}

/** Recent enough to be kept by most members, and now and then older than what any keeps. */
function someRevision({ habits, random, truth }: WatchParts): Revision {
  return Math.max(1, truth.revision - random.pick([random.integer(0, 30), random.integer(0, habits.depth), truth.revision]));
}

async function watchFor(
  parts: WatchParts,
  what: {
    readonly which: number;
    readonly from: Revision | undefined;
    readonly durationMs: number;
    readonly untilTheEnd?: boolean;
  },
): Promise<WatchJudge> {
  const { client, process, truth } = parts;
  const { range, holds } = watchedRanges[what.which] as (typeof watchedRanges)[number];
  const from = what.from === undefined ? {} : { from: what.from };
  const name = `${process.name}, ${JSON.stringify(range)} from ${what.from ?? "now"}`;
  const judge = new WatchJudge(truth, { name, holds, ...from });
  // Nothing is left to tell from there on, and a watch says nothing then.
  if (what.untilTheEnd === true && judge.isAtTheEnd) return judge;
  const stop = new AbortController();
  const timer = process.platform.setTimer(what.durationMs, () => stop.abort());
  try {
    const store: Store = client.store(watchedNamespace);
    for await (const batch of store.watch(range, { signal: stop.signal, ...from })) {
      judge.onBatch(batch);
      if (what.untilTheEnd === true && judge.isAtTheEnd) break;
    }
  } catch (error) {
    if (error instanceof InvariantViolation) throw error;
    // Unreachable for now: the next round tries again.
    await sleep(process, 100);
  } finally {
    timer.cancel();
    stop.abort();
  }
  if (what.untilTheEnd === true && !judge.isAtTheEnd)
    throw new InvariantViolation("WatchReliable", `${name}: in peace it ends at ${judge.told}, of ${truth.revision}`);
  return judge;
}
