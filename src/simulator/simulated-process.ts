/**
 * One operating-system process of the simulated world: a clock of its own, timers and deferred work that wait while it is
 * paused and vanish when it is killed.
 *
 * A pause is SIGSTOP or a long garbage collection: the clock goes on, nothing runs, and everything that became due runs
 * at once afterwards. Kill is SIGKILL: nothing of this incarnation ever runs again.
 */
import type { Disk, DiskFile, Platform } from "../base/ports.ts";
import type { EventQueue } from "./event-queue.ts";
import type { Random } from "./random.ts";

export class SimulatedProcess {
  readonly name: string;
  readonly platform: Platform;
  readonly #queue: EventQueue;
  #alive = true;
  #pausedUntilMs = 0;
  readonly #deferred: (() => void)[] = [];
  #isWaking = false;

  constructor(parts: {
    readonly name: string;
    readonly queue: EventQueue;
    readonly random: Random;
    readonly wallBaseMs: number;
    /** How fast its clock runs. Default 1. */
    readonly clockRate?: number;
  }) {
    const { queue, random, wallBaseMs, clockRate = 1 } = parts;
    this.name = parts.name;
    this.#queue = queue;
    // Monotonic clocks of different machines have nothing to do with one another.
    const offsetMs = Math.floor(random.between(0, 1e7));
    const skewMs = Math.floor(random.between(-5_000, 5_000));
    this.platform = {
      now: () => queue.nowMs * clockRate + offsetMs,
      wallMs: () => wallBaseMs + queue.nowMs * clockRate + skewMs,
      setTimer: (delayMs, callback) => {
        let cancelled = false;
        const event = queue.schedule(delayMs / clockRate, () => {
          this.run(() => {
            if (!cancelled) callback();
          });
        });
        return {
          cancel: () => {
            cancelled = true;
            queue.cancel(event);
          },
        };
      },
      defer: (callback) => {
        queue.schedule(0, () => this.run(callback));
      },
      randomUint32: () => random.uint32(),
    };
  }

  get isAlive(): boolean {
    return this.#alive;
  }

  get isPaused(): boolean {
    return this.#pausedUntilMs > this.#queue.nowMs;
  }

  kill(): void {
    this.#alive = false;
  }

  pause(durationMs: number): void {
    this.#pausedUntilMs = Math.max(this.#pausedUntilMs, this.#queue.nowMs + durationMs);
  }

  resume(): void {
    this.#pausedUntilMs = 0;
  }

  /** Runs now, or when the pause ends, or never; always in the order of the calls, as frames of one connection must. */
  run(work: () => void): void {
    if (!this.#alive) return;
    if (this.isPaused || this.#deferred.length > 0) {
      this.#deferred.push(work);
      this.#wakeUp();
    } else {
      work();
    }
  }

  /** What became due runs one by one, each as an event of its own. */
  #wakeUp(): void {
    if (this.#isWaking) return;
    this.#isWaking = true;
    this.#queue.schedule(this.#pausedUntilMs - this.#queue.nowMs, () => {
      this.#isWaking = false;
      if (!this.#alive) return;
      if (!this.isPaused) this.#deferred.shift()?.();
      if (this.#deferred.length > 0) this.#wakeUp();
    });
  }
}

/** A disk as a process sees it: completions wait while it is paused, and never come once it is killed. */
export class PausingDisk implements Disk {
  readonly #disk: Disk;
  readonly #process: SimulatedProcess;

  constructor(disk: Disk, process: SimulatedProcess) {
    this.#disk = disk;
    this.#process = process;
  }

  list(): Promise<readonly string[]> {
    return this.#when(this.#disk.list());
  }

  async open(name: string, options?: { readonly create?: boolean }): Promise<DiskFile> {
    const file = await this.#when(this.#disk.open(name, options));
    return {
      name: file.name,
      sizeBytes: () => this.#when(file.sizeBytes()),
      read: (offset, lengthBytes) => this.#when(file.read(offset, lengthBytes)),
      write: (offset, bytes, how) => this.#when(file.write(offset, bytes, how)),
      sync: () => this.#when(file.sync()),
      preallocate: (sizeBytes) => this.#when(file.preallocate(sizeBytes)),
      close: () => this.#when(file.close()),
    };
  }

  rename(from: string, to: string): Promise<void> {
    return this.#when(this.#disk.rename(from, to));
  }

  remove(name: string): Promise<void> {
    return this.#when(this.#disk.remove(name));
  }

  #when<T>(operation: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      operation.then(
        (value) => this.#process.run(() => resolve(value)),
        (error: unknown) => this.#process.run(() => reject(error)),
      );
    });
  }
}
