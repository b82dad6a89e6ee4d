/**
 * Linearizable reads that wait for proof of leadership, in batches: one heartbeat round in flight, and everything that
 * arrives meanwhile joins the next (Ongaro's thesis §6.4, ReadIndex).
 */
import type { Index } from "../core.ts";

interface WaitingRead {
  readonly ticket: number;
  /** The read must see at least this index: what was committed when it came, or when its round began. */
  readonly index: Index;
}

export class ReadQueue {
  #arrived: WaitingRead[] = [];
  #inRound: { readonly round: number; readonly reads: WaitingRead[] } | undefined;

  add(ticket: number, committed: Index): void {
    this.#arrived.push({ ticket, index: committed });
  }

  canStart(): boolean {
    return this.#inRound === undefined && this.#arrived.length > 0;
  }

  /**
   * Everything that arrived so far is answered by this round, at the commit index of its beginning: a new leader learns
   * what is committed only with its first own entry, so the index of the arrival may be too low.
   */
  start(round: number, committed: Index): void {
    this.#inRound = { round, reads: this.#arrived.map(({ ticket }) => ({ ticket, index: committed })) };
    this.#arrived = [];
  }

  /** A quorum has echoed this round: the reads that it answers. */
  confirm(round: number): readonly WaitingRead[] {
    if (this.#inRound === undefined || round < this.#inRound.round) return [];
    const { reads } = this.#inRound;
    this.#inRound = undefined;
    return reads;
  }

  /** Leadership is gone: the tickets to refuse. */
  clear(): readonly number[] {
    const tickets = [...(this.#inRound?.reads ?? []), ...this.#arrived].map(({ ticket }) => ticket);
    this.#inRound = undefined;
    this.#arrived = [];
    return tickets;
  }
}
