/**
 * Whoever a feed tells what changed in its namespace.
 */
import type { Entry } from "../store/entry.ts";
import type { BinaryRange } from "../store/key.ts";
import type { Revision } from "../store/store.ts";

/** One key's change; `whole` with its namespace. */
export interface Change {
  readonly whole: string;
  readonly previous: Entry | null;
  readonly entry: Entry | null;
}

export interface FeedReader {
  /** What is read for it where changes may have been missed. */
  readonly range: BinaryRange;
  /** The first revision that it has not been told of. Undefined until the first reading: everything from then on. */
  readonly next: Revision | undefined;
  /** It waits for a reading: changes are not told to it. */
  isSyncing: boolean;
  /** The changes of one revision, also of keys outside its range. */
  onChanges(revision: Revision, changes: readonly Change[]): void;
  /** The state of its range as it was read, now or a moment ago. */
  onState(revision: Revision, entries: readonly Entry[]): void;
  /** Ends with an error. */
  fail(error: Error): void;
  /** Ends quietly. Idempotent. */
  end(): void;
}
