/**
 * Keeps the process alive while somebody waits: a call, a hold, a consumer of a watch. All other timers of a client let it
 * end. One long `ref` timer stands for everybody; letting go of it waits a moment, because the next call of a loop often
 * begins when the last one has ended, and a moment later is as good for a process that wants to end.
 */
import { assert } from "../base/assert.ts";
import type { Platform, Timer } from "../base/ports.ts";

/** Only its existence matters; a host may bound timers to 2^31 ms. */
const timerMs = 60_000;
const lingerMs = 10;

export class ProcessHold {
  readonly #platform: Platform;
  #count = 0;
  #timer: Timer | undefined;
  #isReleasing = false;

  constructor(platform: Platform) {
    this.#platform = platform;
  }

  retain(): void {
    this.#count++;
    if (this.#timer === undefined) this.#arm();
  }

  release(): void {
    assert(this.#count > 0, "a process hold is released once for each time it was retained");
    this.#count--;
    if (this.#count > 0 || this.#isReleasing) return;
    this.#isReleasing = true;
    const letGo = (): void => {
      this.#isReleasing = false;
      if (this.#count > 0) return;
      this.#timer?.cancel();
      this.#timer = undefined;
    };
    this.#platform.setTimer(lingerMs, letGo, { ref: true });
  }

  #arm(): void {
    this.#timer = this.#platform.setTimer(timerMs, () => this.#arm(), { ref: true });
  }
}
