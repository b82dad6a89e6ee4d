/**
 * What keeps a session alive while the event loop of its holder is blocked: the port, and what both threads must agree on.
 *
 *   holder's thread    beat ── beat ── beat ── ######## blocked ########               first line after: looks at the lease
 *   the lease          { when it was last confirmed, when the holder last beat }       in memory that both threads see
 *   keeper's thread      keep-alive ──── keep-alive ──── keep-alive ──── silent: no beat for `maxStallMs`
 *
 * Intuition: a night watchman who is relieved only while the owner still sleeps in the house. A lock must outlive a long
 * computation, but not a program that hangs: so the keeper goes on only as long as the last beat is young enough.
 *
 * Both threads judge by the same two numbers and the same rule (`ClientSession.deadline`), and each by its own look at the
 * monotonic clock; the holder's verdict is the one that counts, and it is final. The keeper confirms nothing past the
 * deadline, so the store lets go a TTL after the last keep-alive, as of any silent holder.
 */
import { background } from "../base/background.ts";
import type { SessionId } from "../store/store.ts";
import { ClientSession, type SessionHost } from "./session.ts";

/** What two threads know of one lease. Times are by the asking thread's own clock. */
export interface SharedLease {
  readonly maxStallMs: number;
  /** When the last keep-alive that was confirmed to either thread was sent. */
  readonly confirmedMs: number;
  /** Raises it; never lowers it. */
  confirm(sentMs: number): void;
  /** When the holder's event loop last turned. */
  readonly beatMs: number;
  beat(nowMs: number): void;
}

/** Which of the two threads a session object stands on. */
export interface Sharing {
  readonly lease: SharedLease;
  readonly role: "holder" | "keeper";
}

/** A lease that the other thread is to keep alive. */
export interface LeaseToKeep {
  readonly id: SessionId;
  readonly ttlMs: number;
  readonly lease: SharedLease;
}

/** An engine that was opened in the keeper's thread. */
export interface LeaseKeeping {
  /** Keeps it alive from now on, by the engine's usual ways; `abandon` ends that and tells the store nothing. */
  adopt(lease: LeaseToKeep): ClientSession;
}

export interface StallKeeper {
  /**
   * Resolves once the other thread has had a keep-alive of the session confirmed.
   * @throws KEEPER_FAILED, TIMEOUT, or the signal's reason
   */
  keep(session: ClientSession, options: KeepOptions): Promise<void>;
  /** Idempotent. Its sessions are nobody's to keep any more. */
  close(): Promise<void>;
}

export interface KeepOptions {
  readonly maxStallMs: number;
  readonly signal?: AbortSignal | undefined;
  readonly timeoutMs?: number | undefined;
}

/** The session, kept by the other thread where that was asked for; else closed, with the error. */
export async function keptThroughStalls(
  session: ClientSession,
  keeper: StallKeeper | undefined,
  { maxStallMs, ...options }: Omit<KeepOptions, "maxStallMs"> & { readonly maxStallMs?: number | undefined },
): Promise<ClientSession> {
  if (maxStallMs === undefined || keeper === undefined) return session;
  try {
    await keeper.keep(session, { maxStallMs, ...options });
    return session;
  } catch (error) {
    background(session.close(), "closing a session that could not be kept");
    throw error;
  }
}

/** The keeper's side of a lease. */
export function adopted({ id, ttlMs, lease }: LeaseToKeep, host: SessionHost): ClientSession {
  return new ClientSession({ id, ttlMs, sentMs: lease.confirmedMs, host, sharing: { lease, role: "keeper" } });
}

/** Which session is shared by whom: those that ask for the same. */
export function sharedKey(ttlMs: number, maxStallMs: number | undefined): string {
  return maxStallMs === undefined ? `${ttlMs}` : `${ttlMs} ${maxStallMs}`;
}
