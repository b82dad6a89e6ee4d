/**
 * The leader's picture of one follower, from its ACK-E on, and the flow control of what it is sent.
 */
import type { Index } from "../core.ts";

/** What is known of a snapshot on its way. */
export interface OutgoingSnapshot {
  index: Index;
  offset: number;
  reading: boolean;
  silentPings: number;
}

interface InFlight {
  readonly lastIndex: Index;
  readonly bytes: number;
}

export class FollowerProgress {
  /** It belongs to this epoch, on its disk: its acks and echoes count. */
  isActive = false;
  /** Invariant: on the follower's disk and equal to ours up to here. */
  match: Index;
  /** Invariant: `next > match`. The first entry to send. */
  next: Index;
  /** The follower's attempt that told its history. */
  readonly attempt: number;
  /** The end of our history when it told its own: what it must have to belong to the epoch. */
  readonly offerIndex: Index;
  /** Monotonic ms at which an answer of this epoch last came. */
  lastHeardMs: number;
  /** The highest ping that it echoed. */
  round = 0;
  /** What it misses is no longer kept: it is sent a snapshot. */
  snapshot: OutgoingSnapshot | undefined;
  #inFlight: InFlight[] = [];
  #inFlightBytes = 0;
  #mayRewind = true;
  #mayOffer = true;

  constructor(options: {
    readonly match: Index;
    readonly attempt: number;
    readonly offerIndex: Index;
    readonly nowMs: number;
  }) {
    this.match = options.match;
    this.attempt = options.attempt;
    this.offerIndex = options.offerIndex;
    this.next = options.match + 1;
    this.lastHeardMs = options.nowMs;
  }

  hasRoom(limits: { readonly messagesMax: number; readonly bytesMax: number }): boolean {
    return this.#inFlight.length < limits.messagesMax && this.#inFlightBytes < limits.bytesMax;
  }

  sent(lastIndex: Index, bytes: number): void {
    this.next = lastIndex + 1;
    this.#inFlight.push({ lastIndex, bytes });
    this.#inFlightBytes += bytes;
  }

  /** Answers whether that is news. */
  acknowledged(index: Index): boolean {
    let freed = 0;
    while (freed < this.#inFlight.length && (this.#inFlight[freed] as InFlight).lastIndex <= index) {
      this.#inFlightBytes -= (this.#inFlight[freed] as InFlight).bytes;
      freed++;
    }
    if (freed > 0) this.#inFlight.splice(0, freed);
    const isNews = index > this.match;
    if (isNews) this.match = index;
    this.next = Math.max(this.next, index + 1);
    return isNews;
  }

  /** One loss makes many letters that do not connect: once more between two pings is enough. */
  mayRewind(): boolean {
    const may = this.#mayRewind;
    this.#mayRewind = false;
    return may;
  }

  mayOffer(): boolean {
    const may = this.#mayOffer;
    this.#mayOffer = false;
    return may;
  }

  onPing(): void {
    this.#mayRewind = true;
    this.#mayOffer = true;
  }

  /** From what it is known to have. */
  rewind(): void {
    this.#mayOffer = true;
    this.next = this.match + 1;
    this.#inFlight = [];
    this.#inFlightBytes = 0;
  }

  beginSnapshot(): void {
    this.rewind();
    this.snapshot = { index: 0, offset: 0, reading: false, silentPings: 0 };
  }

  endSnapshot(): void {
    this.snapshot = undefined;
    this.rewind();
  }
}
