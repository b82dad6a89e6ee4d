/**
 * The leader's picture of one follower, and the flow control of what it is sent.
 *
 * - `probe`: it is not known where the logs agree; one append at a time.
 * - `replicate`: appends are sent one after another without waiting, up to a window (thesis §10.2.1, pipelining).
 * - `snapshot`: what it misses is no longer kept; chunks of the snapshot, one at a time.
 */
import { assert } from "../../base/assert.ts";
import type { Index } from "../core.ts";
import { noLeaseMs } from "./lease.ts";

export type ProgressState =
  | { readonly kind: "probe"; waiting: boolean }
  | { readonly kind: "replicate" }
  | { readonly kind: "snapshot"; index: Index; offset: number; reading: boolean; silentBeats: number };

interface InFlight {
  readonly lastIndex: Index;
  readonly bytes: number;
}

export class Progress {
  state: ProgressState = { kind: "probe", waiting: false };
  /** Invariant: on the follower's disk and equal to ours up to here. Never falls while we lead. */
  match: Index = 0;
  /** Invariant: `next > match`. The first entry to send. */
  next: Index;
  /** Monotonic ms at which an answer of this term last came. */
  lastHeardMs: number;
  /** The highest heartbeat round that it echoed. */
  round = 0;
  /** By our clock: it votes for nobody else before that. */
  promisedUntilMs = noLeaseMs;
  #inFlight: InFlight[] = [];
  #inFlightBytes = 0;

  constructor(next: Index, nowMs: number) {
    this.next = next;
    this.lastHeardMs = nowMs;
  }

  hasRoom(limits: { readonly messagesMax: number; readonly bytesMax: number }): boolean {
    return this.#inFlight.length < limits.messagesMax && this.#inFlightBytes < limits.bytesMax;
  }

  sent(lastIndex: Index, bytes: number): void {
    this.next = lastIndex + 1;
    this.#inFlight.push({ lastIndex, bytes });
    this.#inFlightBytes += bytes;
  }

  /** Everything up to the index is on the follower's disk. Answers whether that is news. */
  acknowledged(index: Index): boolean {
    let freed = 0;
    while (freed < this.#inFlight.length && (this.#inFlight[freed] as InFlight).lastIndex <= index) {
      this.#inFlightBytes -= (this.#inFlight[freed] as InFlight).bytes;
      freed++;
    }
    if (freed > 0) this.#inFlight.splice(0, freed);
    const news = index > this.match;
    if (news) this.match = index;
    this.next = Math.max(this.next, index + 1);
    return news;
  }

  becomeProbe(next: Index): void {
    this.state = { kind: "probe", waiting: false };
    this.next = Math.max(next, this.match + 1);
    this.#clearInFlight();
  }

  becomeReplicate(): void {
    this.state = { kind: "replicate" };
    this.next = this.match + 1;
    this.#clearInFlight();
  }

  becomeSnapshot(): void {
    this.state = { kind: "snapshot", index: 0, offset: 0, reading: false, silentBeats: 0 };
    this.#clearInFlight();
    assert(this.next > this.match, "next stays above match");
  }

  #clearInFlight(): void {
    this.#inFlight = [];
    this.#inFlightBytes = 0;
  }
}
