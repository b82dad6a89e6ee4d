/**
 * A platform whose time stands still until somebody moves it: for tests that wait for hours in a millisecond.
 *
 * Intuition: a film editor's table. `advance` winds the film on, stops at every timer in order, and lets everything that
 * follows from it happen before the next frame.
 * Assumes that what runs on it waits for nothing but promises and this platform's timers. The same seed gives the same run.
 */
import type { Platform, Timer } from "../base/ports.ts";

export interface VirtualPlatformOptions {
  /** Of the dice. Default 1. */
  readonly seed?: number;
  /** Where the monotonic clock starts. Default 0. */
  readonly nowMs?: number;
  /** Where the calendar starts. Default: the start of 2025. */
  readonly wallMs?: number;
}

interface PendingTimer {
  readonly atMs: number;
  /** Timers of one moment fire in the order in which they were set. */
  readonly order: number;
  readonly callback: () => void;
  readonly ref: boolean;
}

/** @since 0.1.0 */
export class VirtualPlatform implements Platform {
  #nowMs: number;
  readonly #wallAheadMs: number;
  #order = 0;
  #random: number;
  readonly #timers = new Set<PendingTimer>();

  constructor({ seed = 1, nowMs = 0, wallMs = 1_735_689_600_000 }: VirtualPlatformOptions = {}) {
    this.#nowMs = nowMs;
    this.#wallAheadMs = wallMs - nowMs;
    this.#random = seed >>> 0;
  }

  now(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return this.#nowMs + this.#wallAheadMs;
  }

  setTimer(delayMs: number, callback: () => void, { ref = false }: { readonly ref?: boolean } = {}): Timer {
    const timer: PendingTimer = { atMs: this.#nowMs + Math.max(0, delayMs), order: this.#order++, callback, ref };
    this.#timers.add(timer);
    return { cancel: () => this.#timers.delete(timer) };
  }

  defer(callback: () => void): void {
    queueMicrotask(callback);
  }

  /** SplitMix32: small, and good enough for dice. */
  randomUint32(): number {
    this.#random = (this.#random + 0x9e3779b9) >>> 0;
    let mixed = this.#random;
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    return (mixed ^ (mixed >>> 15)) >>> 0;
  }

  /** Moves the time on, firing every timer that falls due at its own moment, and settles in between. */
  async advance(ms: number): Promise<void> {
    const untilMs = this.#nowMs + ms;
    await this.settle();
    for (let next = this.#next(untilMs); next !== undefined; next = this.#next(untilMs)) {
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      this.#timers.delete(next);
      next.callback();
      await this.settle();
    }
    this.#nowMs = untilMs;
  }

  /**
   * The process stands still for this long, as in a long collection of garbage or a closed lid: afterwards the clock has
   * moved and no timer has fired yet. Those fire late, by the next `advance` or `settle`-and-`advance(0)`.
   */
  stall(ms: number): void {
    this.#nowMs += ms;
  }

  /** Lets every promise that can settle now do so. */
  settle(): Promise<void> {
    return new Promise((resolve) => soon(resolve));
  }

  /** Timers that are set, and how many of them keep a process alive: what a test of leaks looks at. */
  get pending(): { readonly timers: number; readonly refs: number } {
    let refs = 0;
    for (const timer of this.#timers) if (timer.ref) refs++;
    return { timers: this.#timers.size, refs };
  }

  #next(untilMs: number): PendingTimer | undefined {
    let next: PendingTimer | undefined;
    for (const timer of this.#timers) {
      if (timer.atMs > untilMs) continue;
      if (next === undefined || timer.atMs < next.atMs || (timer.atMs === next.atMs && timer.order < next.order)) next = timer;
    }
    return next;
  }
}

/** A whole turn of the event loop: all microtasks run before it. A browser has no `setImmediate`. */
function soon(callback: () => void): void {
  if (typeof setImmediate === "function") setImmediate(callback);
  else setTimeout(callback, 0);
}
