/**
 * What each recipe owes, as a model that the simulated clients report to: beside the locks of `workload.ts`.
 *
 * Time is true time: a client reports at the instant at which it learns something, and "held" is what the holder itself
 * would say at that instant. A call without a definite answer may have happened, and counts as "maybe" for ever.
 */
import type { Hold } from "../recipes/hold.ts";
import { must } from "./invariant-violation.ts";

/** How a grant stands beside others: all that are held at once have to fit. */
export interface GrantRule {
  readonly invariant: string;
  fits(held: readonly Grant[]): boolean;
  /** Whether the grant's token is above those of all grants before it. */
  isAlone(grant: Grant): boolean;
}

export interface Grant {
  readonly client: string;
  readonly hold: Pick<Hold, "token" | "held">;
  /** Permits of a semaphore; of a read/write lock 0 reads and 1 writes. */
  readonly weight: number;
}

/** At most one writer, and nobody beside it. */
export const readWriteRule: GrantRule = {
  invariant: "WriterAlone",
  fits: (held) => held.length <= 1 || held.every(({ weight }) => weight === 0),
  isAlone: ({ weight }) => weight === 1,
};

/** Never more permits than there are. */
export function semaphoreRule(permits: number): GrantRule {
  return {
    invariant: "PermitsBounded",
    fits: (held) => held.reduce((sum, { weight }) => sum + weight, 0) <= permits,
    isAlone: () => false,
  };
}

/** One holder, and tokens rise. */
export function exclusiveRule(invariant: string): GrantRule {
  return { invariant, fits: (held) => held.length <= 1, isAlone: () => true };
}

/** One leader, and the terms' tokens rise. */
export const electionRule: GrantRule = exclusiveRule("OneLeader");

export class GrantOracle {
  readonly #rule: GrantRule;
  #grants: Grant[] = [];
  #lastToken = 0;

  constructor(rule: GrantRule) {
    this.#rule = rule;
  }

  /** At the instant at which the client learns of it; one that slept meanwhile may have lost it already. */
  onGrant(grant: Grant): void {
    if (!grant.hold.held) return;
    const { invariant } = this.#rule;
    this.#grants = [...this.#grants.filter(({ hold }) => hold.held), grant];
    must(
      this.#rule.fits(this.#grants),
      invariant,
      () =>
        `too much is held at once: ${this.#grants.map(({ client, hold, weight }) => `${client} ${weight} with token ${hold.token}`).join(", ")}`,
    );
    must(
      !this.#rule.isAlone(grant) || grant.hold.token > this.#lastToken,
      "TokensRise",
      () => `${grant.client} was granted token ${grant.hold.token} after ${this.#lastToken} (${invariant})`,
    );
    this.#lastToken = Math.max(this.#lastToken, grant.hold.token);
  }
}

/**
 * A counter of ones: sums are unique, never fall in the order of calls that do not overlap, and every add counts once.
 * `recipe`: whose invariants it names.
 */
export class CounterOracle {
  readonly #recipe: string;
  readonly #sums = new Set<number>();
  #highest = 0;
  #sure = 0;
  #maybe = 0;

  constructor(recipe = "Counter") {
    this.#recipe = recipe;
  }

  /** Answers the floor for `onAnswer`: what was known before the add was sent. */
  onSend(): number {
    this.#maybe++;
    return this.#highest;
  }

  onAnswer(sum: number, floor: number): void {
    this.#maybe--;
    this.#sure++;
    must(
      sum > floor,
      `${this.#recipe}Rises`,
      () => `an add is answered with ${sum}, and ${floor} had been answered before it was sent`,
    );
    must(!this.#sums.has(sum), `${this.#recipe}Exact`, () => `two adds are answered with ${sum}`);
    this.#sums.add(sum);
    this.#highest = Math.max(this.#highest, sum);
  }

  /** It surely did not happen. */
  onRefused(): void {
    this.#maybe--;
  }

  onEnd(sum: number): void {
    must(
      sum >= this.#sure && sum <= this.#sure + this.#maybe,
      `${this.#recipe}Exact`,
      () => `the counter stands at ${sum}; ${this.#sure} adds were answered, ${this.#maybe} may have happened`,
    );
  }
}

/** Numbers that are given out once. */
export class SequenceOracle {
  readonly #given = new Map<number, string>();

  onNumber(number: number, client: string): void {
    must(
      !this.#given.has(number),
      "SequenceUnique",
      () => `${client} is given ${number}, which ${this.#given.get(number)} has already`,
    );
    this.#given.set(number, client);
  }
}

/** A queue of work: nothing is lost, nothing invented, nothing finished twice, and no item in two hands at once. */
export class QueueOracle {
  readonly #pushed = new Map<string, "maybe" | "sure">();
  readonly #finished = new Map<string, "maybe" | "sure">();
  /** By item, the tokens of the deliveries that were told that it is finished. */
  readonly #finishers = new Map<string, Set<number>>();
  readonly #hands = new Map<string, Grant>();
  readonly #lastToken = new Map<string, number>();

  onPush(id: string): void {
    this.#pushed.set(id, "maybe");
  }

  onPushed(id: string): void {
    this.#pushed.set(id, "sure");
  }

  onTaken(id: string, grant: Grant): void {
    must(this.#pushed.has(id), "QueueExact", () => `${grant.client} takes ${id}, which nobody pushed`);
    if (!grant.hold.held) return;
    must(this.#finished.get(id) !== "sure", "QueueExact", () => `${grant.client} takes ${id}, which is finished`);
    const other = this.#hands.get(id);
    must(other?.hold.held !== true, "OneConsumer", () => `${grant.client} takes ${id} while ${other?.client} is at it`);
    const last = this.#lastToken.get(id) ?? 0;
    must(grant.hold.token > last, "TokensRise", () => `${id} is delivered with token ${grant.hold.token} after ${last}`);
    this.#hands.set(id, grant);
    this.#lastToken.set(id, grant.hold.token);
  }

  onFinish(id: string): void {
    if (this.#finished.get(id) === undefined) this.#finished.set(id, "maybe");
  }

  /**
   * A second delivery may be told so as well: who asked again, after an attempt without an answer, and finds the item gone
   * cannot tell whose hand it was (seed 200557). That nobody takes a finished item is judged where items are taken.
   */
  onFinished(id: string, token: number): void {
    const finishers = this.#finishers.get(id) ?? new Set();
    must(!finishers.has(token), "QueueExact", () => `${id} is finished twice by the delivery of token ${token}`);
    this.#finishers.set(id, finishers.add(token));
    this.#finished.set(id, "sure");
  }

  onEnd(shelf: readonly string[]): void {
    const left = new Set(shelf);
    for (const id of left) {
      must(this.#pushed.has(id), "QueueExact", () => `the queue holds ${id}, which nobody pushed`);
      must(this.#finished.get(id) !== "sure", "QueueExact", () => `the queue holds ${id}, which is finished`);
    }
    for (const [id, how] of this.#pushed)
      must(how === "maybe" || left.has(id) || this.#finished.has(id), "QueueExact", () => `the queue has lost ${id}`);
  }
}

/** Nobody gets through before enough have come; and out of a double barrier nobody before all are out. */
export class GatheringOracle {
  readonly #invariant: string;
  readonly #parties: number;
  readonly #came = new Set<string>();
  /** Who is inside, and whether it still counts, by its own clock. */
  readonly #inside = new Map<string, () => boolean>();

  constructor(invariant: string, parties: number) {
    this.#invariant = invariant;
    this.#parties = parties;
  }

  onCome(client: string): void {
    this.#came.add(client);
  }

  onThrough(client: string, counts: () => boolean): void {
    must(
      this.#came.size >= this.#parties,
      this.#invariant,
      () => `${client} is through; only ${[...this.#came]} of ${this.#parties} have come`,
    );
    this.#inside.set(client, counts);
  }

  onLeave(client: string): void {
    this.#inside.delete(client);
  }

  onLeft(client: string): void {
    const others = [...this.#inside].filter(([, counts]) => counts()).map(([name]) => name);
    must(others.length === 0, this.#invariant, () => `${client} is told that all have left; ${others} are inside`);
  }
}
