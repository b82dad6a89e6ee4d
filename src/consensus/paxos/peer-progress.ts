/**
 * The leader's picture of one other member, and the flow control of what it is sent.
 */
import type { Index } from "../core.ts";

interface InFlight {
  readonly last: Index;
  readonly bytes: number;
}

export class PeerProgress {
  /** The next slot to ask it to accept. */
  next: Index;
  /** On its disk, without holes. */
  upTo: Index = 0;
  /** What it has learned to be chosen. */
  chosen: Index = 0;
  /** The highest heartbeat round that it echoed. */
  round = 0;
  /** Monotonic ms at which an answer in this ballot last came. */
  lastHeardMs: number;
  #inFlight: InFlight[] = [];
  #bytes = 0;

  constructor(next: Index, nowMs: number) {
    this.next = next;
    this.lastHeardMs = nowMs;
  }

  hasRoom(limits: { readonly messagesMax: number; readonly bytesMax: number }): boolean {
    return this.#inFlight.length < limits.messagesMax && this.#bytes < limits.bytesMax;
  }

  sent(last: Index, bytes: number): void {
    this.next = last + 1;
    this.#inFlight.push({ last, bytes });
    this.#bytes += bytes;
  }

  /** The letter that ended with `last` was answered, and with it every one up to `upTo`. */
  answered(last: Index, upTo: Index): void {
    const isDone = (letter: InFlight): boolean => letter.last === last || letter.last <= upTo;
    const first = this.#inFlight[0];
    if (first === undefined) return;
    let freed = 0;
    while (freed < this.#inFlight.length && isDone(this.#inFlight[freed] as InFlight)) {
      this.#bytes -= (this.#inFlight[freed] as InFlight).bytes;
      freed++;
    }
    if (freed > 0) {
      this.#inFlight.splice(0, freed);
      return;
    }
    // Answered out of order: an earlier letter is late or lost.
    const at = this.#inFlight.findIndex(isDone);
    if (at < 0) return;
    this.#bytes -= (this.#inFlight[at] as InFlight).bytes;
    this.#inFlight.splice(at, 1);
  }

  /** Something was lost: send again from there. */
  rewind(next: Index): void {
    this.next = next;
    this.#inFlight = [];
    this.#bytes = 0;
  }
}
