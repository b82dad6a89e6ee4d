/**
 * The move of one partition's data, as the hook of the member that takes it over sees it.
 *
 *     copy, while the holder still serves ──► handOver() ──► the holder stops ──► the rest ──► the hook returns: it serves
 *
 * A hook that never calls `handOver` is taken to have copied everything; the holder stops once it has returned.
 */
import type { Shard } from "./shard.ts";

/** @since 0.2.0 */
export class Migration {
  /** The partition's number. */
  readonly partition: number;
  /** Who held it when the move began; null when nobody did: then there is nobody to copy from. */
  readonly from: string | null;
  /** Aborts when the partition goes elsewhere, or the session is lost. */
  readonly signal: AbortSignal;
  readonly #ask: () => Promise<Shard>;
  readonly #onProgress: () => void;
  #progress = 0;

  constructor(options: {
    readonly partition: number;
    readonly from: string | null;
    readonly signal: AbortSignal;
    readonly ask: () => Promise<Shard>;
    readonly onProgress: () => void;
  }) {
    this.partition = options.partition;
    this.from = options.from;
    this.signal = options.signal;
    this.#ask = options.ask;
    this.#onProgress = options.onProgress;
  }

  get progress(): number {
    return this.#progress;
  }

  /** Tells the others how far it is, 0-1; `plan()` shows it. Cheap: only the latest is written. */
  report(progress: number): void {
    const bounded = Math.min(1, Math.max(0, progress));
    if (Number.isNaN(bounded) || bounded === this.#progress) return;
    this.#progress = bounded;
    this.#onProgress();
  }

  /**
   * Asks the holder to stop. Resolves when it has, and this member owns the partition: nobody else writes to it now.
   * Rejects with the signal's reason when it comes to nothing.
   */
  handOver(): Promise<Shard> {
    return this.#ask();
  }
}

/** Copies the data of a partition. Rejecting is reported to `onError` and followed by another attempt. */
export type Migrate = (migration: Migration) => Promise<void>;
