/**
 * What decides who stays: a policy sees slots (small numbers), never keys or values.
 */
export interface Policy {
  /** Whether `insert` needs a hash of the key; else it is handed 0. A hit never needs one. */
  readonly needsHash: boolean;
  /** From now on slots are below this. */
  grow(slots: number): void;
  insert(slot: number, hash: number, weight: number): void;
  hit(slot: number): void;
  reweigh(slot: number, weight: number): void;
  /** The slot to displace next; `remove` follows at once. There is at least one. */
  victim(): number;
  /** `isDisplaced`: by `victim`, for want of room; else deleted or over. */
  remove(slot: number, isDisplaced: boolean): void;
  clear(): void;
}

/** Slots below this are no entries: they are the heads of lists. */
export const firstSlot = 4;
