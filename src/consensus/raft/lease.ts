/**
 * The leader's lease: reads without a round of messages, for as long as a quorum has promised to vote for nobody else.
 *
 * Intuition: "stay seated until I am back, ten minutes by your watch". Whoever asked counts its ten minutes from the moment
 * of asking and allows for a slow watch of its own; whoever promised counts from the moment of hearing. So the one who asked
 * always stops first.
 *
 * ```
 *   leader     send round r at s ............ may serve until s + promised * (1 - d) / (1 + d)     (its own clock)
 *   follower       hears r at h >= s ........ votes for nobody else until h + promised             (its own clock)
 * ```
 * `d` bounds how far any clock's rate is off true time (`clockDriftMax`). A clock that stands still for longer than that - a
 * suspended virtual machine whose monotonic clock stops - is outside the bound: see `docs/protocol/raft.md`.
 * Source: thesis §6.4.1; Gray and Cheriton, "Leases", SOSP 1989. Asked for only while somebody reads by lease, because a
 * promise delays the election after a crash by what is left of it.
 */
import type { MemberId } from "../core.ts";

/** Rounds whose time of sending is remembered; an echo of an older one renews nothing. */
const roundsMax = 256;
/** After the last read by lease the promises are asked for so long. */
const wantedMs = 10_000;
export const noLeaseMs = Number.MIN_SAFE_INTEGER;

export class Lease {
  readonly #factor: number;
  readonly #sentMs = new Map<number, number>();
  #wantedUntilMs = noLeaseMs;
  #isVoid = false;

  constructor(clockDriftMax: number) {
    this.#factor = (1 - clockDriftMax) / (1 + clockDriftMax);
  }

  /** A new leadership: nothing of an earlier one counts. */
  begin(): void {
    this.#sentMs.clear();
    this.#isVoid = false;
  }

  /**
   * Somebody has been told to campaign over this leader's head, and may do so at any time to come: no lease in this term,
   * also when the transfer is abandoned.
   */
  end(): void {
    this.#isVoid = true;
  }

  want(nowMs: number): void {
    this.#wantedUntilMs = nowMs + wantedMs;
  }

  isAskedFor(nowMs: number): boolean {
    return !this.#isVoid && nowMs < this.#wantedUntilMs;
  }

  roundSent(round: number, nowMs: number): void {
    this.#sentMs.set(round, nowMs);
    if (this.#sentMs.size > roundsMax) this.#sentMs.delete(this.#sentMs.keys().next().value as number);
  }

  /** Until when, by our clock, the follower that echoed the round keeps its promise. */
  promisedUntil(echo: { readonly round: number; readonly promisedMs: number }): number {
    const sentMs = this.#sentMs.get(echo.round);
    return sentMs === undefined || echo.promisedMs === 0 ? noLeaseMs : sentMs + echo.promisedMs * this.#factor;
  }

  /** Whether a quorum's promises, the leader's own included, reach beyond now. `promisedUntil(self)` is never asked. */
  isValid(nowMs: number, quorumUntilMs: number): boolean {
    return !this.#isVoid && nowMs < quorumUntilMs;
  }
}

/** The leader itself votes for nobody while it leads. */
export function promiseOf(member: MemberId, self: MemberId, progressUntilMs: number | undefined): number {
  return member === self ? Number.MAX_SAFE_INTEGER : (progressUntilMs ?? noLeaseMs);
}
