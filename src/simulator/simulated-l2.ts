/**
 * An L2 that does everything a bad one does: answers late, not at all, with what it had before a failover, with garbage,
 * and by a clock that jumps. What it never does is hold the cache to its word: that is what is being tested.
 */
import type { L2 } from "../cache-core/l2.ts";
import type { EventQueue } from "./event-queue.ts";
import type { Random } from "./random.ts";
import type { SimulatedProcess } from "./simulated-process.ts";

interface Kept {
  readonly text: string;
  readonly untilMs: number;
}

export class SimulatedL2 {
  readonly #queue: EventQueue;
  readonly #random: Random;
  #kept = new Map<string, Kept>();
  /** What a failover goes back to. */
  #replica = new Map<string, Kept>();
  #clockAheadMs = 1e9;
  deadUntilMs = 0;
  slowUntilMs = 0;

  constructor(queue: EventQueue, random: Random) {
    this.#queue = queue;
    this.#random = random;
  }

  /** As one process sees it. */
  of(process: SimulatedProcess): L2 {
    return {
      name: "simulated",
      get: (key) => this.#call(process, () => this.#get(key)),
      set: (key, text, ttlMs) => this.#call(process, () => void this.#kept.set(key, { text, untilMs: this.#clockMs() + ttlMs })),
      delete: (key) => this.#call(process, () => void this.#kept.delete(key)),
      clockMs: () => this.#clockMs(),
    };
  }

  replicate(): void {
    this.#replica = new Map(this.#kept);
  }

  /** Everything since the last `replicate` is lost: values come back that were deleted. */
  failOver(): void {
    this.#kept = new Map(this.#replica);
  }

  jumpClock(byMs: number): void {
    this.#clockAheadMs += byMs;
  }

  poison(): void {
    const keys = [...this.#kept.keys()];
    if (keys.length === 0) return;
    const key = this.#random.pick(keys);
    const { text, untilMs } = this.#kept.get(key) as Kept;
    const at = this.#random.integer(0, Math.max(0, text.length - 1));
    const poisons = [
      text.slice(0, at),
      `${text.slice(0, at)}${String.fromCharCode(this.#random.integer(32, 126))}${text.slice(at + 1)}`,
      (this.#kept.get(this.#random.pick(keys)) as Kept).text,
    ];
    this.#kept.set(key, { text: this.#random.pick(poisons), untilMs });
  }

  #get(key: string): string | null {
    const kept = this.#kept.get(key);
    return kept === undefined || kept.untilMs <= this.#clockMs() ? null : kept.text;
  }

  #clockMs(): number {
    return this.#queue.nowMs + this.#clockAheadMs;
  }

  #call<T>(process: SimulatedProcess, act: () => T): Promise<T> {
    const queue = this.#queue;
    const random = this.#random;
    const isDead = (): boolean => this.deadUntilMs > queue.nowMs;
    const delayMs = (): number => {
      if (this.slowUntilMs > queue.nowMs) return random.between(10, 400);
      return random.chance(0.02) ? random.between(20, 1_500) : random.between(0.1, 3);
    };
    return new Promise((resolve, reject) => {
      if (isDead() || random.chance(0.01)) return;
      queue.schedule(delayMs(), () => {
        if (isDead()) return;
        const value = act();
        if (random.chance(0.01)) return;
        queue.schedule(delayMs(), () =>
          process.run(() => (random.chance(0.01) ? reject(new Error("connection reset")) : resolve(value))),
        );
      });
    });
  }
}
