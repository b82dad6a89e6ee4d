/**
 * The signatures of redis-semaphore 5 (`Mutex`, `Semaphore`, `MultiSemaphore`), on Conclave's locks and permits.
 *
 * What changes underneath: nobody polls; whoever waits is served in order; `isAcquired` asks the clock, so it is right in
 * the first line after a stalled event loop; a failed refresh is `onLockLost` and never an unhandled rejection.
 */
import { randomUUID } from "node:crypto";
import { conclaveError, hasCode } from "../base/errors.ts";
import type { Hold } from "../recipes/hold.ts";
import { createLock } from "../recipes/lock.ts";
import type { StoreSource } from "../recipes/options.ts";
import { createSemaphore } from "../recipes/semaphore.ts";
import { type Connected, sourceOf, ttlMsFor } from "./stores.ts";

export interface TimeoutOptions {
  /** How long the lock lives without being refreshed. Default 10_000. */
  lockTimeout?: number;
  /** How long to wait in the queue. Default 10_000. */
  acquireTimeout?: number;
  /** 1: do not wait. Default no limit. */
  acquireAttemptsLimit?: number;
  /** Kept for the signature: nobody polls. */
  retryInterval?: number;
  /** 0: no refresh, the lock ends after `lockTimeout`. Any other value: it is kept alive. Default: kept alive. */
  refreshInterval?: number;
}

export type LockLostCallback = (this: Lock, error: LostLockError) => void;

export interface LockOptions extends TimeoutOptions {
  identifier?: string;
  onLockLost?: LockLostCallback;
}

export const defaultTimeoutOptions = {
  lockTimeout: 10_000,
  acquireTimeout: 10_000,
  acquireAttemptsLimit: Number.POSITIVE_INFINITY,
  retryInterval: 10,
} as const;

export class LostLockError extends Error {
  override readonly name = "LostLockError";
}

export class TimeoutError extends Error {
  override readonly name = "TimeoutError";
}

interface Acquirable {
  acquire(options: { readonly waitMs: number; readonly signal?: AbortSignal }): Promise<Hold>;
}

export abstract class Lock {
  readonly identifier: string;
  readonly #kind: string;
  readonly #key: string;
  readonly #acquirable: Acquirable;
  readonly #options: LockOptions;
  #hold: Hold | undefined;
  #expiry: NodeJS.Timeout | undefined;

  /** Use `Mutex`, `Semaphore` or `MultiSemaphore`. */
  protected constructor(parts: {
    readonly kind: string;
    readonly key: string;
    readonly acquirable: Acquirable;
    readonly options: LockOptions;
  }) {
    if (typeof parts.key !== "string" || parts.key === "") throw new Error('"key" is required');
    this.#kind = parts.kind;
    this.#key = parts.key;
    this.#acquirable = parts.acquirable;
    this.#options = parts.options;
    this.identifier = parts.options.identifier ?? randomUUID();
  }

  get isAcquired(): boolean {
    return this.#hold?.held === true;
  }

  /** New here: the fencing token of the present hold. */
  get token(): number | undefined {
    return this.#hold?.token;
  }

  /** @throws TimeoutError, or the signal's reason */
  async acquire(abortSignal?: AbortSignal): Promise<void> {
    if (!(await this.tryAcquire(abortSignal))) throw new TimeoutError(`Acquire ${this.#kind} ${this.#key} timeout`);
  }

  /** Waits as long as `acquireTimeout`. */
  async tryAcquire(abortSignal?: AbortSignal): Promise<boolean> {
    const { acquireTimeout, acquireAttemptsLimit } = { ...defaultTimeoutOptions, ...this.#options };
    const waitMs = acquireAttemptsLimit === 1 ? 0 : acquireTimeout;
    try {
      this.#begin(await this.#acquirable.acquire({ waitMs, ...(abortSignal === undefined ? {} : { signal: abortSignal }) }));
      return true;
    } catch (error) {
      if (hasCode(error, "LOCK_TIMEOUT") || hasCode(error, "TIMEOUT")) return false;
      throw error;
    }
  }

  async release(): Promise<void> {
    clearTimeout(this.#expiry);
    const hold = this.#hold;
    this.#hold = undefined;
    await hold?.release();
  }

  /** From now on the lock ends after `lockTimeout`. */
  stopRefresh(): void {
    this.#expireLater();
  }

  #begin(hold: Hold): void {
    this.#hold = hold;
    hold.signal.addEventListener("abort", () => this.#lose(hold), { once: true });
    if (this.#options.refreshInterval === 0) this.#expireLater();
  }

  #lose(hold: Hold): void {
    if (this.#hold !== hold) return;
    clearTimeout(this.#expiry);
    this.#options.onLockLost?.call(this, new LostLockError(`Lost ${this.#kind} for key ${this.#key}`, { cause: hold.loss }));
  }

  #expireLater(): void {
    clearTimeout(this.#expiry);
    const hold = this.#hold;
    this.#expiry = setTimeout(() => void hold?.release(), this.#options.lockTimeout ?? defaultTimeoutOptions.lockTimeout);
    this.#expiry.unref();
  }
}

export class Mutex extends Lock {
  constructor(client: Connected, key: string, options: LockOptions = {}) {
    super({ kind: "mutex", key, options, acquirable: createLock(sourceOf(client), key, { ttlMs: ttlOf(options) }) });
  }
}

export class Semaphore extends Lock {
  constructor(client: Connected, key: string, limit: number, options: LockOptions = {}) {
    super({ kind: "semaphore", key, options, acquirable: permitsOf(sourceOf(client), { key, limit, permits: 1, options }) });
  }
}

export class MultiSemaphore extends Lock {
  constructor(client: Connected, key: string, limit: number, permits: number, options: LockOptions = {}) {
    super({ kind: "multi-semaphore", key, options, acquirable: permitsOf(sourceOf(client), { key, limit, permits, options }) });
  }
}

function permitsOf(
  source: StoreSource,
  {
    key,
    limit,
    permits,
    options,
  }: { readonly key: string; readonly limit: number; readonly permits: number; readonly options: LockOptions },
): Acquirable {
  if (permits > limit) throw conclaveError("INVALID_OPTION", "`permits` must be <= `limit`.");
  const semaphore = createSemaphore(source, key, { permits: limit, ttlMs: ttlOf(options) });
  return { acquire: (wait) => semaphore.acquire({ ...wait, permits }) };
}

function ttlOf({ lockTimeout = defaultTimeoutOptions.lockTimeout }: LockOptions): number {
  return ttlMsFor(lockTimeout);
}
