/**
 * So many at a time: prepared branches take slots of the server, and a server without a free one refuses.
 *
 * Intuition: the bouncer of a small room. First come, first in; whoever waits too long goes home.
 */
import { nodeTimers } from "./node-timers.ts";

export class Gate {
  #free: number;
  readonly #waiting: ((entered: boolean) => void)[] = [];

  constructor(places: number) {
    this.#free = places;
  }

  /** Whether a place was free; then `leave` must follow. */
  maybeEnter(): boolean {
    if (this.#free === 0) return false;
    this.#free--;
    return true;
  }

  /** Whether a place was had in time; then `leave` must follow. */
  enter(timeoutMs: number): Promise<boolean> {
    if (this.maybeEnter()) return Promise.resolve(true);
    return new Promise((resolve) => {
      const timer = nodeTimers.after(timeoutMs, () => {
        this.#waiting.splice(this.#waiting.indexOf(entered), 1);
        resolve(false);
      });
      const entered = (isIn: boolean): void => {
        timer.cancel();
        resolve(isIn);
      };
      this.#waiting.push(entered);
    });
  }

  leave(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free++;
    else next(true);
  }
}
