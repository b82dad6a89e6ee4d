/**
 * Many short deadlines on one timer: calls that are answered in time cost an entry in a set, not a timer each.
 *
 * A deadline that is found to have passed is not yet anybody's fault: this process may have slept, and the answer may lie
 * there unread. What has come is read first, which takes a turn of the event loop.
 * The timer does not keep the process alive: the connection that is waited on does.
 */
import { Bag, type InBag } from "../base/bag.ts";
import type { Platform, Timer } from "../base/ports.ts";

export interface Deadline extends InBag {
  readonly dueMs: number;
  /** Called a turn after `dueMs` at the earliest, once, unless it was deleted before. */
  onLate(): void;
}

export class Deadlines {
  readonly #platform: Platform;
  /** With a `Set` half of an L2 hit's processor time went here, to the collector. */
  readonly #open = new Bag<Deadline>();
  #timer: { readonly dueMs: number; readonly timer: Timer } | undefined;

  constructor(platform: Platform) {
    this.#platform = platform;
  }

  add(deadline: Deadline): void {
    this.#open.add(deadline);
    // A timer that was set for a call long answered goes on: it looks for the next one when it fires.
    if (this.#timer === undefined || this.#timer.dueMs > deadline.dueMs) this.#arm(deadline.dueMs);
  }

  /** Whether it was open. */
  delete(deadline: Deadline): boolean {
    return this.#open.delete(deadline);
  }

  #arm(dueMs: number): void {
    this.#timer?.timer.cancel();
    const delayMs = Math.max(0, dueMs - this.#platform.now());
    this.#timer = { dueMs, timer: this.#platform.setTimer(delayMs, () => this.#onTimer()) };
  }

  #onTimer(): void {
    this.#timer = undefined;
    const nowMs = this.#platform.now();
    const late = this.#open.all.filter(({ dueMs }) => dueMs <= nowMs);
    if (late.length > 0) this.#platform.defer(() => this.#end(late));
    const next = this.#open.all.reduce((least, { dueMs }) => (dueMs > nowMs ? Math.min(least, dueMs) : least), Infinity);
    if (next !== Infinity) this.#arm(next);
  }

  #end(late: readonly Deadline[]): void {
    for (const deadline of late) if (this.#open.delete(deadline)) deadline.onLate();
  }
}
