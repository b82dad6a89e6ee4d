/**
 * A world with nothing in it but a disk: whoever tests what stands on a disk steps through its operations one by one and
 * cuts the power between any two of them.
 *
 * Operations complete in the order of their virtual latencies. `settle` lets every promise that is ready run; the caller
 * hands it in, because what "ready" means is the host's business (on Node: `setImmediate`).
 */
import { SimulatedDisk, type SimulatedDiskOptions } from "./simulated-disk.ts";

export class DiskWorld {
  /** Of the present boot. */
  disk: SimulatedDisk;
  /** Completed disk operations so far. */
  steps = 0;
  nowMs = 0;
  readonly #settle: () => Promise<void>;
  #pending: { readonly atMs: number; readonly callback: () => void }[] = [];
  #random: number;

  constructor(options: {
    readonly seed: number;
    readonly settle: () => Promise<void>;
    readonly disk?: Partial<SimulatedDiskOptions>;
  }) {
    this.#settle = options.settle;
    this.#random = options.seed >>> 0;
    this.disk = new SimulatedDisk({
      ...options.disk,
      randomUint32: () => this.randomUint32(),
      schedule: (delayMs, callback) => {
        this.#pending.push({ atMs: this.nowMs + delayMs, callback });
      },
    });
  }

  /** Mulberry32: small, seeded, good enough to choose which sector dies. */
  randomUint32(): number {
    this.#random = (this.#random + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(this.#random ^ (this.#random >>> 15), this.#random | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  }

  /** Completes up to so many disk operations; false when none was left before that. */
  async advance(steps: number): Promise<boolean> {
    await this.#settle();
    for (let count = 0; count < steps; count++) {
      if (!this.#completeNext()) return false;
      await this.#settle();
    }
    return true;
  }

  /** Completes operations until the promise settles. */
  async finish<T>(promise: Promise<T>): Promise<T> {
    let settled = false;
    const mark = (): void => {
      settled = true;
    };
    promise.then(mark, mark);
    await this.#settle();
    while (!settled) {
      if (!this.#completeNext()) throw new Error("Deadlock: nothing is under way on the disk and the promise is open.");
      await this.#settle();
    }
    return promise;
  }

  /** Power cut and reboot. */
  crash(): void {
    this.#reboot(this.disk.crash());
  }

  /** Process death and restart. */
  kill(): void {
    this.#reboot(this.disk.kill());
  }

  #reboot(disk: SimulatedDisk): void {
    this.#pending = [];
    this.disk = disk;
  }

  #completeNext(): boolean {
    if (this.#pending.length === 0) return false;
    let first = 0;
    for (let at = 1; at < this.#pending.length; at++) {
      const [left, right] = [this.#pending[at] as { atMs: number }, this.#pending[first] as { atMs: number }];
      // Earlier calls stand earlier in the list and win ties.
      if (left.atMs < right.atMs) first = at;
    }
    const [next] = this.#pending.splice(first, 1) as [{ atMs: number; callback: () => void }];
    this.nowMs = Math.max(this.nowMs, next.atMs);
    this.steps++;
    next.callback();
    return true;
  }
}
