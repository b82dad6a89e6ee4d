/**
 * Makes a failing schedule short: leaves out events as long as the same invariant still breaks.
 *
 * Source: Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", TSE 2002 (ddmin): try to do without a
 * half, then quarters, then eighths. One thing is added: what is left to chance may be thrown again. A candidate that holds
 * with the old dice is tried with a few others, because a removed event moves every later throw; that takes a schedule from
 * some fifty events to a dozen.
 */
import type { Schedule, TimedEvent } from "./schedule.ts";

export interface Broken {
  readonly invariant: string;
  readonly message: string;
  readonly atMs: number;
}

export interface ShrinkOptions {
  /** Runs the schedule; undefined when nothing breaks. */
  readonly run: (schedule: Schedule) => Promise<Broken | undefined>;
  readonly hasTime: () => boolean;
}

/** How many other dice a candidate is tried with, by how long it still is. */
function otherDice(events: number): number {
  if (events > 400) return 0;
  return events > 60 ? 2 : 12;
}

/** Virtual time after the last event in which the harm may show. */
const graceMs = 3_000;

/** The schedule must break something; the shorter one breaks the same invariant. */
export async function shrink(failing: Schedule, options: ShrinkOptions): Promise<Schedule> {
  const first = await options.run(failing);
  if (first === undefined) throw new Error("The schedule breaks nothing, so there is nothing to shrink.");
  const attempt = new Attempt(options, first.invariant);
  let best = (await attempt.keep(withEvents(failing, failing.events, first.atMs), first)) ?? failing;
  best = await withoutMostOfTheLoad(best, attempt);
  best = await byHalves(best, attempt);
  for (let before = 0; before !== best.events.length && attempt.hasTime(); ) {
    before = best.events.length;
    best = await byHalves(best, attempt);
  }
  return best;
}

class Attempt {
  readonly #options: ShrinkOptions;
  readonly #invariant: string;

  constructor(options: ShrinkOptions, invariant: string) {
    this.#options = options;
    this.#invariant = invariant;
  }

  hasTime(): boolean {
    return this.#options.hasTime();
  }

  /** The candidate, cut off where it breaks, or undefined when it holds with all dice. */
  async fails(candidate: Schedule, dice = otherDice(candidate.events.length)): Promise<Schedule | undefined> {
    for (let extra = 0; extra <= dice && this.hasTime(); extra++) {
      const thrown = extra === 0 ? candidate : { ...candidate, dice: (candidate.dice + extra * 7_919) | 0 };
      const broken = await this.#options.run(thrown);
      if (broken?.invariant === this.#invariant) return (await this.keep(thrown, broken)) ?? thrown;
    }
    return undefined;
  }

  /** Without what comes after the harm; undefined when that itself was needed (liveness: the end of the run is the harm). */
  async keep(schedule: Schedule, broken: Broken): Promise<Schedule | undefined> {
    const cut = withEvents(
      schedule,
      schedule.events.filter((event) => event.atMs <= broken.atMs),
      broken.atMs,
    );
    const again = await this.#options.run(cut);
    if (again?.invariant !== this.#invariant) return undefined;
    return { ...cut, found: { ...schedule.found, invariant: again.invariant, message: again.message } };
  }
}

async function byHalves(start: Schedule, attempt: Attempt): Promise<Schedule> {
  let best = start;
  for (let parts = 2; attempt.hasTime(); ) {
    const size = Math.max(1, Math.ceil(best.events.length / parts));
    let shorter: Schedule | undefined;
    // From the end: what came last is the most likely to be needless.
    for (let from = (Math.ceil(best.events.length / size) - 1) * size; from >= 0 && attempt.hasTime(); from -= size) {
      const left = best.events.filter((_, at) => at < from || at >= from + size);
      const found = await attempt.fails(withEvents(best, left, best.healAtMs));
      if (found === undefined) continue;
      shorter = found;
      best = found;
    }
    if (shorter === undefined && size === 1) break;
    parts = shorter === undefined ? Math.min(parts * 2, best.events.length) : Math.max(2, Math.min(parts, best.events.length));
    if (best.events.length === 0) break;
  }
  return best;
}

/**
 * Requests are many and alike: before they are weighed one by one, whole classes of them go, or all but every so-many-th.
 * Thinner load changes every later moment, so each is tried with many dice; one that fails is a much shorter beginning.
 */
async function withoutMostOfTheLoad(schedule: Schedule, attempt: Attempt): Promise<Schedule> {
  const isRead = (event: TimedEvent): boolean => event.do === "read";
  // What an operator asks for is rare, and more like a fault.
  const isRequest = (event: TimedEvent): boolean => isRead(event) || event.do === "submit";
  let best = schedule;
  for (const { every, dice } of thinnings) {
    let count = 0;
    const left = best.events.filter((event) => !isRequest(event) || (every > 0 && !isRead(event) && count++ % every === 0));
    if (left.length === best.events.length) continue;
    const found = await attempt.fails(withEvents(best, left, schedule.healAtMs), dice);
    if (found === undefined) continue;
    best = found;
    if (best.events.length <= 60) break;
  }
  return best;
}

/** `every`: keep one write in so many; 0 keeps none. */
const thinnings = [
  { every: 0, dice: 60 },
  { every: 100, dice: 60 },
  { every: 30, dice: 60 },
  { every: 10, dice: 40 },
  { every: 4, dice: 20 },
  { every: 2, dice: 10 },
  { every: 1, dice: 5 },
] as const;

function withEvents(schedule: Schedule, events: readonly TimedEvent[], brokenAtMs: number): Schedule {
  const last = events.at(-1)?.atMs ?? 0;
  // Of the events that it had: still those of its world.
  return { ...schedule, events, healAtMs: Math.min(schedule.healAtMs, Math.max(last, brokenAtMs) + graceMs) } as Schedule;
}
