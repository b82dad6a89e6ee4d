/**
 * The requests that a replica knows of and has not yet seen executed, in the order in which they came.
 *
 * The first of them drives the suspicion of the primary: a primary that serves everybody but one client is found out too
 * (OSDI 1999 §4.5.2; TOCS 2002 §4.3 on fairness). One request per client's lane, so a client cannot flood.
 */
import type { RequestFrame, Signed, View } from "./messages.ts";

export interface PendingRequest {
  readonly frame: Signed<RequestFrame>;
  /** The view in which this replica, as primary, has proposed it. */
  proposedIn: View | undefined;
}

/** Names a client's lane: the unit of order and of the reply table. */
export function laneOf(frame: Pick<RequestFrame, "client" | "lane">): string {
  return `${frame.client}/${frame.lane}`;
}

export class PendingRequests {
  readonly #requests = new Map<string, PendingRequest>();
  readonly #max: number;

  constructor(max: number) {
    this.#max = max;
  }

  get size(): number {
    return this.#requests.size;
  }

  first(): PendingRequest | undefined {
    if (this.#requests.size === 0) return undefined;
    for (const request of this.#requests.values()) return request;
    return undefined;
  }

  values(): Iterable<PendingRequest> {
    return this.#requests.values();
  }

  /** False: known already, or no room. */
  add(frame: Signed<RequestFrame>): boolean {
    const lane = laneOf(frame.statement);
    const known = this.#requests.get(lane);
    if (known !== undefined) {
      if (known.frame.statement.timestamp >= frame.statement.timestamp) return false;
      // A client that gave up on its earlier request goes to the end of the queue.
      this.#requests.delete(lane);
    } else if (this.#requests.size >= this.#max) return false;
    this.#requests.set(lane, { frame, proposedIn: undefined });
    return true;
  }

  markProposed(frame: Signed<RequestFrame>, view: View): void {
    const known = this.#requests.get(laneOf(frame.statement));
    if (known !== undefined && known.frame.statement.timestamp <= frame.statement.timestamp) known.proposedIn = view;
  }

  /** Everything of the lane up to the timestamp is done. */
  done(lane: string, timestamp: number): void {
    const known = this.#requests.get(lane);
    if (known !== undefined && known.frame.statement.timestamp <= timestamp) this.#requests.delete(lane);
  }
}
