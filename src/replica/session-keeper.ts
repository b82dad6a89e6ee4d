/**
 * The leader's watch over sessions: it alone judges, by its monotonic clock, when one has been silent for too long.
 *
 * ```
 *  client   send ──── ttl ─────────────────────────────────┐ must consider it lost (long before: at two thirds)
 *              \                                           │
 *  leader       receive ─ quorum round ─ confirm ──── ttl ─┼──────────► may expire it
 * ```
 * The lease runs from the *confirmation* here and from the *send* there, so the holder always stops first.
 * - An expiry is a command in the log; while it is on its way the session gets no confirmation.
 * - A new leader confirms none before its first entry is applied (an expiry of its predecessor may stand before that),
 *   and begins with full leases: later, never earlier.
 * - A leader that was itself asleep cannot tell silence from its own deafness: leases begin anew.
 * Source: Gray and Cheriton, "Leases", SOSP 1989; etcd issues 15247 and 12528 for what goes wrong otherwise.
 */
import type { Platform, Timer } from "../base/ports.ts";

export interface KeptSession {
  readonly session: number;
  readonly ttlMs: number;
}

/** Being this late for an own timer means that this process, not its clients, was silent. Milliseconds. */
const asleepMs = 500;
/** Expiries of one command; the rest follow in the next. */
const expiriesMax = 1_000;

export class SessionKeeper {
  readonly #platform: Platform;
  readonly #expire: (sessions: readonly number[]) => void;
  #deadlines: Map<number, { ttlMs: number; deadlineMs: number; expiring: boolean }> | undefined;
  #timer: Timer | undefined;
  #dueMs = 0;

  constructor(platform: Platform, expire: (sessions: readonly number[]) => void) {
    this.#platform = platform;
    this.#expire = expire;
  }

  /** This member leads and has applied its first entry. */
  begin(sessions: Iterable<KeptSession>): void {
    this.#deadlines = new Map();
    for (const session of sessions) this.opened(session);
    this.#arm();
  }

  /** This member leads no more. */
  end(): void {
    this.#deadlines = undefined;
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  get isKeeping(): boolean {
    return this.#deadlines !== undefined;
  }

  opened({ session, ttlMs }: KeptSession): void {
    this.#deadlines?.set(session, { ttlMs, deadlineMs: this.#platform.now() + ttlMs, expiring: false });
    if (this.#timer === undefined) this.#arm();
    else if (this.#deadlines !== undefined && this.#platform.now() + ttlMs < this.#dueMs) this.#arm();
  }

  closed(session: number): void {
    this.#deadlines?.delete(session);
  }

  /** Whether the session may be confirmed now; renews it if so. */
  renew(session: number): boolean {
    const kept = this.#deadlines?.get(session);
    if (kept === undefined || kept.expiring) return false;
    kept.deadlineMs = this.#platform.now() + kept.ttlMs;
    return true;
  }

  /** The command that was to expire these never entered the log. */
  expiryFailed(sessions: readonly number[]): void {
    for (const session of sessions) {
      const kept = this.#deadlines?.get(session);
      if (kept !== undefined) kept.expiring = false;
    }
    if (this.#deadlines !== undefined) this.#arm(100);
  }

  #arm(delayMs?: number): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    let earliestMs = Number.POSITIVE_INFINITY;
    for (const kept of this.#deadlines?.values() ?? []) if (!kept.expiring) earliestMs = Math.min(earliestMs, kept.deadlineMs);
    if (earliestMs === Number.POSITIVE_INFINITY) return;
    const wait = Math.max(1, delayMs ?? earliestMs - this.#platform.now());
    this.#dueMs = this.#platform.now() + wait;
    this.#timer = this.#platform.setTimer(wait, () => this.#sweep());
  }

  #sweep(): void {
    this.#timer = undefined;
    if (this.#deadlines === undefined) return;
    const nowMs = this.#platform.now();
    const wasAsleep = nowMs > this.#dueMs + asleepMs;
    const silent: number[] = [];
    for (const [session, kept] of this.#deadlines) {
      if (wasAsleep) kept.deadlineMs = nowMs + kept.ttlMs;
      else if (!kept.expiring && kept.deadlineMs <= nowMs && silent.length < expiriesMax) {
        kept.expiring = true;
        silent.push(session);
      }
    }
    if (silent.length > 0) this.#expire(silent);
    this.#arm();
  }
}
