/**
 * The signatures of redlock 5 (`acquire`, `extend`, `release`, `using`), on Conclave's locks.
 *
 * What changes underneath: waiters stand in a queue and are woken by a push instead of asking again; the holder's own clock
 * says when a lock is lost; each lock has a `token`. What stays: a lock lives for its duration unless it is extended.
 * One connection instead of N independent servers: see docs/migrate/redlock.md for why a majority of caches is no safer.
 */
import { EventEmitter } from "node:events";
import { conclaveError, hasCode } from "../base/errors.ts";
import { createLockSet, type HoldSet } from "../recipes/lock-set.ts";
import type { StoreSource } from "../recipes/options.ts";
import { type Connected, sourceOf, ttlMsFor } from "./stores.ts";

export interface Settings {
  /** Kept for the signature; deadlines count from the send, so nothing drifts by it. */
  readonly driftFactor: number;
  /** -1: wait for ever. 0: do not wait. Else so many times `retryDelay` is how long to wait in the queue. */
  readonly retryCount: number;
  readonly retryDelay: number;
  readonly retryJitter: number;
  /** `using` extends this long before the end. Kept for the signature: the session is kept alive all the time. */
  readonly automaticExtensionThreshold: number;
}

export const defaultSettings: Settings = {
  driftFactor: 0.01,
  retryCount: 10,
  retryDelay: 200,
  retryJitter: 100,
  automaticExtensionThreshold: 500,
};

export class ResourceLockedError extends Error {
  override readonly name = "ResourceLockedError";
}

export interface ExecutionStats {
  readonly membershipSize: number;
  readonly quorumSize: number;
  readonly votesFor: Set<unknown>;
  readonly votesAgainst: Map<unknown, Error>;
}

export class ExecutionError extends Error {
  override readonly name = "ExecutionError";
  readonly attempts: readonly Promise<ExecutionStats>[];

  constructor(message: string, attempts: readonly Promise<ExecutionStats>[], options?: ErrorOptions) {
    super(message, options);
    this.attempts = attempts;
  }
}

export interface ExecutionResult {
  readonly attempts: readonly Promise<ExecutionStats>[];
}

export type RedlockAbortSignal = AbortSignal & { error?: Error };

export class Lock {
  readonly redlock: Redlock;
  readonly resources: string[];
  readonly value: string;
  readonly attempts: readonly Promise<ExecutionStats>[];
  /** Calendar milliseconds. */
  expiration: number;
  /** New here: rises with every grant of the first resource. Pass it to what you write to. */
  readonly token: number;
  readonly #held: Held;

  constructor(redlock: Redlock, held: Held) {
    this.redlock = redlock;
    this.#held = held;
    this.resources = [...held.resources];
    this.attempts = [held.vote()];
    this.token = held.holds.holds[0]?.token ?? 0;
    this.value = String(this.token);
    this.expiration = held.expiresAt;
  }

  release(): Promise<ExecutionResult> {
    return this.redlock.release(this);
  }

  /** As in redlock, the answer is a new Lock and this one counts as expired. */
  extend(duration: number): Promise<Lock> {
    return this.redlock.extend(this, duration);
  }

  /** For `Redlock`. */
  get held(): Held {
    return this.#held;
  }
}

export default class Redlock extends EventEmitter {
  readonly clients: Set<Connected>;
  readonly settings: Settings;
  readonly #source: StoreSource;

  /** @param clients One, from `connect(...)`. @throws INVALID_OPTION, FOREIGN_CLIENT */
  constructor(clients: Iterable<Connected>, settings: Partial<Settings> = {}) {
    super();
    this.clients = new Set(clients);
    const [client, ...others] = this.clients;
    if (client === undefined || others.length > 0) {
      throw conclaveError(
        "INVALID_OPTION",
        "`clients` takes exactly one connection: a majority of independent servers is no part of Conclave (docs/migrate/redlock.md).",
      );
    }
    this.#source = sourceOf(client);
    this.settings = { ...defaultSettings, ...settings };
  }

  /** Kept for the signature: the connection is its opener's to close. */
  async quit(): Promise<void> {
    this.removeAllListeners();
  }

  /** @throws ExecutionError (somebody else has it; the cause says who), or what the store threw */
  async acquire(resources: string[], duration: number, settings: Partial<Settings> = {}): Promise<Lock> {
    checkDuration(duration);
    const set = createLockSet(this.#source, resources, { ttlMs: ttlMsFor(duration) });
    try {
      const holds = await set.acquire({ waitMs: waitMsOf({ ...this.settings, ...settings }) });
      return new Lock(this, new Held({ resources, holds, duration, client: [...this.clients][0] }));
    } catch (error) {
      if (!hasCode(error, "LOCK_TIMEOUT")) throw error;
      const locked = new ResourceLockedError("The operation was applied to: 0 of the 1 requested resources.", { cause: error });
      this.emit("error", locked);
      throw new ExecutionError(
        "The operation was unable to achieve a quorum during its retry window.",
        [Promise.resolve(stats(this.clients, locked))],
        { cause: error },
      );
    }
  }

  async release(lock: Lock): Promise<ExecutionResult> {
    lock.expiration = 0;
    await lock.held.end();
    return { attempts: [lock.held.vote()] };
  }

  /** @throws ExecutionError where it has expired or was lost: a lost lock is never made again */
  async extend(existing: Lock, duration: number): Promise<Lock> {
    checkDuration(duration);
    if (existing.expiration < Date.now() || !existing.held.extend(duration)) {
      throw new ExecutionError("Cannot extend an already-expired lock.", []);
    }
    existing.expiration = 0;
    return new Lock(this, existing.held);
  }

  /** The lock is held for as long as the routine runs; the signal aborts before it can pass on. */
  async using<T>(
    resources: string[],
    duration: number,
    settingsOrRoutine: Partial<Settings> | ((signal: RedlockAbortSignal) => Promise<T>),
    maybeRoutine?: (signal: RedlockAbortSignal) => Promise<T>,
  ): Promise<T> {
    const routine = typeof settingsOrRoutine === "function" ? settingsOrRoutine : maybeRoutine;
    if (routine === undefined) throw conclaveError("INVALID_OPTION", "`using` needs a routine.");
    const settings = typeof settingsOrRoutine === "function" ? {} : settingsOrRoutine;
    const lock = await this.acquire(resources, duration, settings);
    lock.held.keep();
    const signal: RedlockAbortSignal = lock.held.holds.signal;
    signal.addEventListener("abort", () => Object.assign(signal, { error: signal.reason as Error }), { once: true });
    try {
      return await routine(signal);
    } finally {
      await lock.release();
    }
  }
}

/** The holds of one lock and the timer that ends them, shared by the Lock objects that extensions make. */
class Held {
  readonly resources: readonly string[];
  readonly holds: HoldSet;
  readonly #client: unknown;
  expiresAt: number;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: {
    readonly resources: readonly string[];
    readonly holds: HoldSet;
    readonly duration: number;
    readonly client: unknown;
  }) {
    this.resources = options.resources;
    this.holds = options.holds;
    this.#client = options.client;
    this.expiresAt = this.#arm(options.duration);
  }

  /** False: it is over. */
  extend(duration: number): boolean {
    if (!this.holds.held) return false;
    this.expiresAt = this.#arm(duration);
    return true;
  }

  /** No end by time. */
  keep(): void {
    clearTimeout(this.#timer);
  }

  end(): Promise<void> {
    clearTimeout(this.#timer);
    return this.holds.release();
  }

  async vote(): Promise<ExecutionStats> {
    return { membershipSize: 1, quorumSize: 1, votesFor: new Set([this.#client]), votesAgainst: new Map() };
  }

  #arm(duration: number): number {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.holds.release(), duration);
    return Date.now() + duration;
  }
}

function stats(clients: ReadonlySet<unknown>, error: Error): ExecutionStats {
  return {
    membershipSize: 1,
    quorumSize: 1,
    votesFor: new Set(),
    votesAgainst: new Map([...clients].map((client) => [client, error])),
  };
}

function waitMsOf({ retryCount, retryDelay }: Settings): number {
  return retryCount === -1 ? Number.POSITIVE_INFINITY : retryCount * retryDelay;
}

function checkDuration(duration: number): void {
  if (!Number.isSafeInteger(duration) || duration < 1)
    throw conclaveError("INVALID_OPTION", "Duration must be an integer value in milliseconds.");
}
