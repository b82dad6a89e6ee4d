/**
 * What may go wrong between a client and a store, to be chosen call by call and batch by batch.
 *
 * Everything here happens to real engines and is within what `Store` promises, but for `drop`, which only tests whether
 * a recipe looks for itself now and then.
 */
import type { Txn, WatchBatch } from "../store/store.ts";

export type CallFault =
  /** Refused before it happened: NOT_LEADER. */
  | { readonly kind: "refuse" }
  /** Lost on the way there. The caller learns nothing, until its TIMEOUT. */
  | { readonly kind: "lose-request" }
  /** Happened; the answer is lost. */
  | { readonly kind: "lose-answer" }
  /** As lost, and happens after all, this much later. */
  | { readonly kind: "late"; readonly delayMs: number };

export type BatchFault =
  | { readonly kind: "drop" }
  | { readonly kind: "duplicate" }
  /** Kept back and sent as one with the next; alone after this long. */
  | { readonly kind: "coalesce"; readonly delayMs: number }
  /** The present state instead. */
  | { readonly kind: "resync" };

/** Asked once for each; undefined: nothing goes wrong. */
export interface LocalFaults {
  readonly call?: (call: { readonly namespace: string; readonly txn: Txn }) => CallFault | undefined;
  readonly batch?: (batch: WatchBatch) => BatchFault | undefined;
  /** One way, of a call, an answer or a batch. Default 0: everything happens within the turn. */
  readonly latencyMs?: () => number;
}
