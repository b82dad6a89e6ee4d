/**
 * A semaphore: at most so many permits at once, among all processes that share the store, in the order of asking.
 *
 * A permit is bound to its holder's session, so a crash gives it back. Holders of permits are not alone: a token of a
 * semaphore orders grants, and fences nothing.
 */
import { conclaveError } from "../base/errors.ts";
import { checkMaxStall } from "../store/stall.ts";
import type { CallOptions } from "../store/store.ts";
import { Acquirable, type AcquirableParts, type AcquireOptions, type LockOptions, lockDefaults } from "./acquirable.ts";
import type { Contender } from "./campaign.ts";
import type { Hold } from "./hold.ts";
import { contendersOf } from "./lock.ts";
import { encodeMetadata } from "./metadata.ts";
import { checkCount, checkHoldTimes, checkName, checkTtlMs, refuseTurns, type StoreSource } from "./options.ts";
import { type PermitValue, permitQueue } from "./permit-place.ts";
import { revocationsOf } from "./revocation.ts";

export interface SemaphoreOptions extends LockOptions {
  /**
   * How many permits there are. Each handle judges by its own number: while two numbers are in use at once, as during a
   * roll-out, the higher one decides how many may hold.
   */
  readonly permits: number;
}

export interface AcquirePermitsOptions extends AcquireOptions {
  /** How many at once: all or none. 1 to the semaphore's number. Default 1. */
  readonly permits?: number;
}

/** Somebody in the queue of a semaphore. */
export interface PermitContender extends Contender {
  readonly permits: number;
}

/** Makes the handle of a semaphore; nothing is sent. @throws INVALID_OPTION @since 0.2.0 */
export function createSemaphore(engine: StoreSource, name: string, options: SemaphoreOptions): Semaphore {
  checkName(name, "semaphore");
  const store = engine.store(`semaphore/${name}`);
  const ttlMs = options.ttlMs ?? lockDefaults.ttlMs;
  checkTtlMs(ttlMs, store.caps.limits, store.caps.engine);
  checkHoldTimes(options);
  checkMaxStall(options.maxStallMs, store.caps);
  refuseTurns(options, "semaphore");
  checkCount(options.permits, "permits");
  encodeMetadata(options.meta, "meta");
  const { permits, ...lockOptions } = options;
  const title = `Semaphore ${JSON.stringify(name)}`;
  return new Semaphore(permits, { ...lockOptions, name, ttlMs, title, store, revocations: revocationsOf(engine, store) });
}

/** @since 0.2.0 */
export class Semaphore {
  readonly name: string;
  /** How many there are. */
  readonly permits: number;
  readonly #parts: Omit<AcquirableParts, "queue">;

  /** Use `createSemaphore`, which checks the options. */
  constructor(permits: number, parts: Omit<AcquirableParts, "queue">) {
    this.name = parts.name;
    this.permits = permits;
    this.#parts = parts;
  }

  /**
   * Waits for the permits. One round trip when they are free.
   * @throws LOCK_TIMEOUT, INVALID_OPTION, SESSION_LOST, LOCK_LOST: as `Lock.acquire`
   */
  async acquire({ permits = 1, ...options }: AcquirePermitsOptions = {}): Promise<Hold> {
    return this.#of(permits).acquire(options);
  }

  /** The permits if they are free, else null. One round trip, and one more where they are not. Never waits. */
  async tryAcquire({ permits = 1, ...options }: Omit<AcquirePermitsOptions, "waitMs"> = {}): Promise<Hold | null> {
    return this.#of(permits).tryAcquire(options);
  }

  /** Acquires, calls, releases; as `Lock.run`. @throws LOCK_LOST */
  async run<T>(work: (hold: Hold) => T | Promise<T>, { permits = 1, ...options }: AcquirePermitsOptions = {}): Promise<T> {
    return this.#of(permits).run(work, options);
  }

  /** Who holds, in the order of asking, as far as the permits reach. `limit`: of how many in the queue. Default 100. */
  async holders(options: CallOptions & { readonly limit?: number } = {}): Promise<readonly PermitContender[]> {
    return this.#split(await this.queue(options)).holders;
  }

  /** Who waits, in order. `limit`: of how many in the queue. Default 100. */
  async waiters(options: CallOptions & { readonly limit?: number } = {}): Promise<readonly PermitContender[]> {
    return this.#split(await this.queue(options)).waiters;
  }

  #split(queue: readonly PermitContender[]): Record<"holders" | "waiters", readonly PermitContender[]> {
    let [sum, at] = [0, 0];
    for (; at < queue.length; at++) {
      sum += (queue[at] as PermitContender).permits;
      if (sum > this.permits) break;
    }
    return { holders: queue.slice(0, at), waiters: queue.slice(at) };
  }

  /** Who holds or waits, in order. Default limit 100. */
  async queue({ limit = 100, ...options }: CallOptions & { readonly limit?: number } = {}): Promise<readonly PermitContender[]> {
    const listed = await contendersOf(this.#parts.store, { limit, ...options });
    return listed.map((contender) => {
      const { permits, meta } = contender.meta as PermitValue;
      return { ...contender, permits, meta };
    });
  }

  #of(permits: number): Acquirable {
    checkCount(permits, "permits");
    if (permits > this.permits) {
      throw conclaveError("INVALID_OPTION", `\`permits\` is ${permits}; ${this.#parts.title} has ${this.permits} in all.`);
    }
    const encodeValue = (meta: unknown): string => {
      encodeMetadata(meta, "meta");
      return JSON.stringify({ permits, meta } satisfies PermitValue);
    };
    return new Acquirable({ ...this.#parts, queue: permitQueue({ limit: this.permits, permits }), encodeValue });
  }
}
