/**
 * Many short deadlines on one timer: calls that are answered in time cost an entry in a set, not a timer each.
 *
 * A deadline that is found to have passed is not yet anybody's fault: this process may have slept, and the answer may lie
 * there unread. What has come is read first, which takes a turn of the event loop.
 * The timer does not keep the process alive: the connection that is waited on does.
 *
 * An array with each deadline's place in it, and not a `Set`: a set under constant adding and deleting grows a new table every
 * few dozen calls, and a table that V8 has once promoted keeps all its successors from the young generation's collector, with
 * the answers that their deadlines hold. Half of an L2 hit's processor time went there.
 */
import type { Platform, Timer } from "../base/ports.ts";

export interface Deadline {
  readonly dueMs: number;
  readonly onLate: () => void;
  /** In the list of those that are open; -1: in none. */
  place: number;
}

export class Deadlines {
  readonly #platform: Platform;
  /** Invariant: `#open[n].place === n`. In no order. */
  readonly #open: Deadline[] = [];
  #timer: { readonly dueMs: number; readonly timer: Timer } | undefined;

  constructor(platform: Platform) {
    this.#platform = platform;
  }

  /** Calls back once, a turn after `dueMs` at the earliest, unless `delete` was called before. */
  add(dueMs: number, onLate: () => void): Deadline {
    const deadline: Deadline = { dueMs, onLate, place: this.#open.length };
    this.#open.push(deadline);
    // A timer that was set for a call long answered goes on: it looks for the next one when it fires.
    if (this.#timer === undefined || this.#timer.dueMs > deadline.dueMs) this.#arm(deadline.dueMs);
    return deadline;
  }

  /** Whether it was open. */
  delete(deadline: Deadline): boolean {
    const { place } = deadline;
    if (place === -1) return false;
    const last = this.#open.pop() as Deadline;
    if (last !== deadline) {
      this.#open[place] = last;
      last.place = place;
    }
    deadline.place = -1;
    return true;
  }

  #arm(dueMs: number): void {
    this.#timer?.timer.cancel();
    const delayMs = Math.max(0, dueMs - this.#platform.now());
    this.#timer = { dueMs, timer: this.#platform.setTimer(delayMs, () => this.#onTimer()) };
  }

  #onTimer(): void {
    this.#timer = undefined;
    const nowMs = this.#platform.now();
    const late = this.#open.filter(({ dueMs }) => dueMs <= nowMs);
    if (late.length > 0) this.#platform.defer(() => this.#end(late));
    const next = this.#open.reduce((least, { dueMs }) => (dueMs > nowMs ? Math.min(least, dueMs) : least), Infinity);
    if (next !== Infinity) this.#arm(next);
  }

  #end(late: readonly Deadline[]): void {
    for (const deadline of late) if (this.delete(deadline)) deadline.onLate();
  }
}
