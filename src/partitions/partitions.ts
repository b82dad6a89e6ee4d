/**
 * Partitions: Q equal parts of the keys, each held by one member at a time, evenly, and moved one by one when members
 * come and go.
 *
 * Intuition: a rota for a building. It is cut into many more rooms than there are keepers, one list says whose room is
 * whose, and the list is changed a few rooms at a time. A keeper hands over a key by giving it up, never by copying it.
 *
 * What excludes is a key of the Store for each partition, bound to its holder's session, as in a lock; the table only
 * says who should claim which. An elected planner changes the table, by compare, so that even two planners do no harm.
 * Source: partitions of equal size, DeCandia et al., "Dynamo", SOSP 2007 §6.2 strategy 3; fencing by epoch as for a lock.
 * Leaves out replicas of a partition, and changing the number of partitions.
 */
import { conclaveError } from "../base/errors.ts";
import { linkSignal, onAbort } from "../base/link-signal.ts";
import { partitionOf } from "../hash/assignment.ts";
import { Bell } from "../recipes/bell.ts";
import { createElection, type Term } from "../recipes/election.ts";
import { insist } from "../recipes/insist.ts";
import { lockDefaults } from "../recipes/lock.ts";
import { checkName, checkTtlMs, type StoreSource } from "../recipes/options.ts";
import type { CallOptions, Store } from "../store/store.ts";
import type { Migrate } from "./migration.ts";
import { Offers } from "./offers.ts";
import { type PartitionPlan, planOf } from "./plan.ts";
import { Seat } from "./seat.ts";
import type { Shard } from "./shard.ts";
import { readState } from "./state.ts";

export interface PartitionsOptions {
  /** How many partitions: a whole number, 1-16_384, for good. Default 1_024. A hundred per member keep them even to 1 %. */
  readonly count?: number;
  /**
   * This member's name. Default: drawn anew by each process. One that comes back under its name before its session has run
   * out is waited for by nobody: it joins once the old session has ended, and its partitions may then be others.
   */
  readonly member?: string;
  /** How much it holds relative to the others, 0-1_000. Default 1. 0: it gives everything away. See `reweigh`. */
  readonly weight?: number;
  /** How long a member may be silent before its partitions pass on. As for a lock. Default 15_000. */
  readonly ttlMs?: number;
  /** How many partitions may be on their way from one member to another at a time, 1-16_384. Default 16. */
  readonly movesMax?: number;
  /** How long work may take to stop after `shard.signal` before it is no longer waited for. Milliseconds. Default 10_000. */
  readonly drainMs?: number;
  /** Copies the data of a partition to this member before it serves it. Default: there is nothing to copy. */
  readonly migrate?: Migrate;
  /** Told of each attempt of `migrate` that failed; another follows. Default: nobody. */
  readonly onError?: (error: unknown, partition: number) => void;
}

export const partitionsDefaults = {
  count: 1_024,
  weight: 1,
  ttlMs: lockDefaults.ttlMs,
  movesMax: 16,
  drainMs: 10_000,
} as const;

/** Makes the handle; nothing is sent. @throws INVALID_OPTION @since 0.2.0 */
export function createPartitions(engine: StoreSource, name: string, options: PartitionsOptions = {}): Partitions {
  checkName(name, "set of partitions");
  const checked = { ...partitionsDefaults, ...options };
  const { count, movesMax, drainMs, ttlMs, weight, member } = checked;
  checkWhole("count", count, 16_384);
  checkWhole("movesMax", movesMax, 16_384);
  checkWeight(weight);
  if (!(drainMs >= 0 && drainMs < 2 ** 31))
    throw conclaveError("INVALID_OPTION", `\`drainMs\` is ${drainMs}; it must be 0 or more.`);
  if (member !== undefined) checkName(member, "member of partitions");
  const store = engine.store(`partitions/${name}`);
  checkTtlMs(ttlMs, store.caps.limits, store.caps.engine);
  return new Partitions(engine, store, { ...checked, name, member: member ?? drawnName(store) });
}

type CheckedOptions = typeof partitionsDefaults extends infer D
  ? { readonly [K in keyof D]: number } & Pick<PartitionsOptions, "migrate" | "onError"> & {
        readonly name: string;
        readonly member: string;
      }
  : never;

/** @since 0.2.0 */
export class Partitions {
  readonly name: string;
  /** How many there are. */
  readonly count: number;
  /** This member's name. */
  readonly member: string;
  readonly #engine: StoreSource;
  readonly #store: Store;
  readonly #options: CheckedOptions;
  readonly #mark: string;
  readonly #bell = new Bell<true>();
  readonly #working = new Map<number, Shard>();
  #weight: number;
  #term: Term | undefined;
  #isRunning = false;

  /** Use `createPartitions`, which checks the options. */
  constructor(engine: StoreSource, store: Store, options: CheckedOptions) {
    this.name = options.name;
    this.count = options.count;
    this.member = options.member;
    this.#engine = engine;
    this.#store = store;
    this.#options = options;
    this.#weight = options.weight;
    this.#mark = drawnName(store);
  }

  /** The partition of a key: the same in every process. */
  partitionOf(key: string): number {
    if (typeof key !== "string") throw conclaveError("KEY_INVALID", `A key must be a string; got ${typeof key}.`);
    return partitionOf(key, this.count);
  }

  /**
   * Takes part, and gives each partition that becomes this member's, until the signal aborts or the loop is left; then it
   * leaves in order, having waited for the work to stop (`drainMs` at most).
   *
   * ```ts
   * for await (const shard of partitions.mine({ signal })) {
   *   void serve(shard.id, { signal: shard.signal, fencingToken: shard.epoch }).finally(() => shard.release());
   * }
   * ```
   * Work that has stopped after `shard.signal` aborted says so by `shard.release()`: the next owner waits for it.
   * A lost session aborts all shards; the loop goes on with a new one.
   * @throws INVALID_OPTION (it runs already; another `count` is in the Store; the member's name is taken in this process)
   */
  async *mine({ signal }: { readonly signal?: AbortSignal } = {}): AsyncGenerator<Shard, void, void> {
    if (this.#isRunning) throw conclaveError("INVALID_OPTION", `"${this.name}": \`mine\` runs already on this handle.`);
    this.#isRunning = true;
    const link = linkSignal(signal);
    const offers = new Offers();
    const serving = this.#serve(link.signal, offers).catch((error: unknown) => offers.fail(error));
    const planning = this.#standForPlanner(link.signal).catch((error: unknown) => {
      if (!link.signal.aborted) offers.fail(error);
    });
    try {
      for (let shard = await offers.next(link.signal); shard !== undefined; shard = await offers.next(link.signal)) yield shard;
    } finally {
      link.abort();
      link.unlink();
      offers.releaseAll();
      await Promise.all([serving, planning]);
      this.#isRunning = false;
    }
  }

  /** How things stand, and which moves come next. One round trip; needs no `mine`. */
  async plan(options: CallOptions = {}): Promise<PartitionPlan> {
    return planOf(await readState(this.#store, options), this.count);
  }

  /** Who holds each partition now: the member's name, or null. One round trip. */
  async holders(options: CallOptions = {}): Promise<readonly (string | null)[]> {
    const { claims } = await readState(this.#store, options);
    return Array.from({ length: this.count }, (_, partition) => claims.get(partition)?.member ?? null);
  }

  /**
   * From now on holds more or less; 0 gives everything away, a few at a time, as before a planned stop: wait until `plan()`
   * shows that it holds nothing, then end `mine`. @throws INVALID_OPTION
   */
  reweigh(weight: number): void {
    checkWeight(weight);
    this.#weight = weight;
    this.#bell.ring(true);
  }

  async #serve(signal: AbortSignal, offers: Offers): Promise<void> {
    const { count, movesMax, drainMs, migrate, ttlMs } = this.#options;
    while (!signal.aborted) {
      const opening = insist(() => this.#store.sharedSession({ ttlMs, signal }), { platform: this.#store.platform, signal });
      const session = await opening.catch((error: unknown) => {
        if (signal.aborted) return null;
        throw error;
      });
      if (session === null) return;
      const seat = new Seat({
        store: this.#store,
        session,
        name: this.name,
        member: this.member,
        mark: this.#mark,
        count,
        movesMax,
        drainMs,
        migrate,
        weight: () => this.#weight,
        isPlanner: () => this.#term?.held === true,
        isSeated: () => this.#isRunning,
        onError: (error, partition) => this.#options.onError?.(error, partition),
        offer: (shard) => offers.push(shard),
        working: this.#working,
        bell: this.#bell,
      });
      await seat.sit(signal);
    }
  }

  async #standForPlanner(signal: AbortSignal): Promise<void> {
    const election = createElection(this.#engine, `partitions/${this.name}`, { ttlMs: this.#options.ttlMs });
    await election.lead(
      (term) => {
        this.#term = term;
        this.#bell.ring(true);
        return new Promise<void>((resolve) => void onAbort(term.signal, resolve));
      },
      { signal, value: { member: this.member } },
    );
  }
}

function checkWhole(field: string, value: number, max: number): void {
  if (Number.isSafeInteger(value) && value >= 1 && value <= max) return;
  throw conclaveError("INVALID_OPTION", `\`${field}\` is ${value}; it must be a whole number from 1 to ${max}.`);
}

function checkWeight(weight: number): void {
  if (typeof weight === "number" && weight >= 0 && weight <= 1_000) return;
  throw conclaveError("INVALID_OPTION", `\`weight\` is ${weight}; it must be from 0 to 1,000.`);
}

function drawnName({ platform }: Store): string {
  return Array.from({ length: 3 }, () => platform.randomUint32().toString(16).padStart(8, "0")).join("");
}
