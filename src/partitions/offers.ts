/**
 * Shards on their way from the seat to who iterates over them. No more than there are partitions can wait here.
 */
import { onAbort } from "../base/link-signal.ts";
import type { Shard } from "./shard.ts";

export class Offers {
  readonly #waiting: Shard[] = [];
  #wake: (() => void) | undefined;
  #failure: { readonly error: unknown } | undefined;

  push(shard: Shard): void {
    this.#waiting.push(shard);
    this.#wake?.();
  }

  fail(error: unknown): void {
    this.#failure ??= { error };
    this.#wake?.();
  }

  /** The next that is still held; undefined once the signal aborts. Rejects with what `fail` was told. */
  async next(signal: AbortSignal): Promise<Shard | undefined> {
    while (!signal.aborted) {
      if (this.#failure !== undefined) throw this.#failure.error;
      const shard = this.#waiting.shift();
      if (shard?.held) return shard;
      shard?.release();
      if (shard === undefined) await this.#woken(signal);
    }
    this.releaseAll();
    return undefined;
  }

  /** Nobody will work on those that still wait. */
  releaseAll(): void {
    for (const shard of this.#waiting.splice(0)) shard.release();
  }

  #woken(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const unfollow = onAbort(signal, resolve);
      this.#wake = () => {
        unfollow();
        this.#wake = undefined;
        resolve();
      };
    });
  }
}
