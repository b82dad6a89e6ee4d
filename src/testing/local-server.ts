/**
 * The store behind `LocalEngine`: the real machine, judged leases, and nothing else. No agreement, no log, no wire.
 *
 * Leases are judged as on the embedded engine: by the time since the last confirmed keep-alive, and an expiry is a command.
 */
import type { Platform, Timer } from "../base/ports.ts";
import { encodeBatch } from "../store/batch.ts";
import type { Limits } from "../store/caps.ts";
import { type Command, encodeCommand, isReadOnly, type ResolvedTxn, type SessionNumber } from "../store/command.ts";
import { Machine } from "../store/machine.ts";
import type { Outcome } from "../store/outcome.ts";

interface Lease {
  readonly ttlMs: number;
  timer: Timer;
}

export class LocalServer {
  readonly platform: Platform;
  readonly machine: Machine;
  #index = 0;
  readonly #leases = new Map<SessionNumber, Lease>();

  constructor({ platform, limits }: { readonly platform: Platform; readonly limits: Limits }) {
    this.platform = platform;
    this.machine = new Machine({ limits });
    this.#apply({ kind: "initialise", revision: Math.floor(platform.wallMs() * 1_000) });
  }

  txn(txn: ResolvedTxn): Outcome {
    return isReadOnly(txn) ? this.machine.read(txn) : this.#apply(txn);
  }

  openSession(ttlMs: number): Outcome {
    const outcome = this.#apply({ kind: "open-session", ttlMs });
    if (outcome.kind === "opened") {
      const session = Number(outcome.session);
      this.#leases.set(session, { ttlMs, timer: this.#expireAfter(session, ttlMs) });
    }
    return outcome;
  }

  /** Whether the session is still there; then it has a whole TTL again. */
  keepAlive(session: SessionNumber): boolean {
    const lease = this.#leases.get(session);
    if (lease === undefined) return false;
    lease.timer.cancel();
    lease.timer = this.#expireAfter(session, lease.ttlMs);
    return true;
  }

  closeSession(session: SessionNumber): void {
    this.#dropLease(session);
    this.#apply({ kind: "close-session", session });
  }

  /** As if its lease had run out at this moment. */
  expireSession(session: SessionNumber): void {
    this.#dropLease(session);
    this.#apply({ kind: "expire-sessions", sessions: [session] });
  }

  #dropLease(session: SessionNumber): void {
    this.#leases.get(session)?.timer.cancel();
    this.#leases.delete(session);
  }

  #expireAfter(session: SessionNumber, ttlMs: number): Timer {
    return this.platform.setTimer(ttlMs, () => this.expireSession(session));
  }

  #apply(command: Command): Outcome {
    let outcome: Outcome | undefined;
    const payload = encodeBatch([encodeCommand(command)]);
    this.machine.applyBatch({ index: ++this.#index, stampMs: Math.floor(this.platform.now()), payload }, (_, told) => {
      outcome = told;
    });
    return outcome as Outcome;
  }
}
