/**
 * The second tier as the core sees it: texts by key, that may be slow, gone, or lie about what was written.
 *
 * Nothing served depends on its honesty: every value carries the revision before its load, which the Store's counters
 * judge, and a checksum over its own key. A tier that loses writes, or answers with old ones, costs loads.
 */
export interface L2 {
  /** In one word or two, for messages. */
  readonly name: string;
  get(key: string): Promise<string | null>;
  /** As `get`, with one call of the reader in place of a promise: where many keys come in one answer, promises cost as much. */
  read?(key: string, reader: L2Reader): void;
  /** Gone after `ttlMs` (Infinity: kept until evicted). */
  set(key: string, text: string, ttlMs: number): Promise<void>;
  delete(key: string): Promise<void>;
  /**
   * The clock of the place where the key lives, by which everyone agrees when a value expires; undefined: not known yet.
   * Wall clocks of processes play no part. `nowMs`: this moment by `performance.now()`, of who has just looked.
   */
  clockMs(key: string, nowMs?: number): number | undefined;
  close?(): Promise<void>;
}

/** Who waits for one key. Called once, and throws nothing. */
export interface L2Reader {
  /** With the text; null: it is not there. */
  onAnswer(text: string | null): void;
  onError(error: unknown): void;
}

/** Values as texts. */
export interface Codec {
  /** @throws NOT_SERIALIZABLE */
  encode(value: unknown): string;
  /** Throws what it likes: the answer is a miss. */
  decode(text: string): unknown;
  /** Of a text, 32 bits. */
  checksum(text: string, seed: number): number;
}
