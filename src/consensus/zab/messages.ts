/**
 * The letters that Zab members send one another. One union for the core, its codec (`wire/zab-messages.ts`) and the
 * simulator. The names in brackets are those of the paper (Junqueira, Reed, Serafini, DSN 2011).
 *
 * A zxid is the pair (epoch, index), never one number; in this house `term` is the epoch of an entry.
 */
import type { Index, LogEntry, MemberId, Term } from "../core.ts";

/** Whom a member would follow, and how much that one knew. */
export interface Vote {
  readonly leader: MemberId;
  /** The epoch that the leader last belonged to, and the last zxid of its history. */
  readonly epoch: Term;
  readonly lastTerm: Term;
  readonly lastIndex: Index;
}

/** Where the entries of one epoch begin in a history. */
export interface EpochStart {
  readonly term: Term;
  readonly first: Index;
}

export type ZabMessage =
  /** Phase 0: "I am looking, and would follow this one." `round` counts this member's searches. */
  | { readonly kind: "looking"; readonly round: number; readonly vote: Vote }
  /** Phase 0, to one who looks: "we have a leader in this epoch." */
  | { readonly kind: "settled"; readonly leader: MemberId; readonly epoch: Term }
  /** Phase 1: "the latest epoch that I have accepted" [CEPOCH]. */
  | { readonly kind: "follower-info"; readonly acceptedEpoch: Term }
  /** Phase 1: "accept this epoch" [NEWEPOCH]. `established`: a quorum belongs to it already. */
  | { readonly kind: "leader-info"; readonly epoch: Term; readonly established: boolean }
  /** Phase 1: "accepted; this is my history" [ACK-E]. `starts`: the epochs of the kept part, oldest first. */
  | {
      readonly kind: "ack-epoch";
      readonly epoch: Term;
      /** Drawn by the follower, and repeated by the proposals that answer it. */
      readonly attempt: number;
      readonly currentEpoch: Term;
      readonly lastTerm: Term;
      readonly lastIndex: Index;
      /** Up to here it is committed. */
      readonly committed: Index;
      readonly starts: readonly EpochStart[];
    }
  /** Phases 2 and 3: entries that follow the one named. The first that answers an ACK-E also cuts off what follows that one. */
  | {
      readonly kind: "proposal";
      readonly epoch: Term;
      readonly attempt: number;
      readonly previousIndex: Index;
      readonly previousTerm: Term;
      readonly committed: Index;
      readonly entries: readonly LogEntry[];
    }
  /** "My history equals yours up to here, on disk." `missing`: a later proposal came that did not connect. */
  | { readonly kind: "ack"; readonly epoch: Term; readonly index: Index; readonly missing: boolean }
  /** Phase 2: "up to here it is my history; make it yours" [NEWLEADER]. */
  | { readonly kind: "new-leader"; readonly epoch: Term; readonly index: Index }
  /** Phase 2: "it is mine, on disk, and I belong to this epoch" [ACK-LD]. */
  | { readonly kind: "ack-leader"; readonly epoch: Term; readonly index: Index }
  /** `round` counts the leader's pings: an echo proves that no higher epoch was accepted when it was written. */
  | {
      readonly kind: "ping";
      readonly epoch: Term;
      readonly round: number;
      readonly committed: Index;
      /** The last entry that this member was sent, and the last that it acknowledged. */
      readonly sent: Index;
      readonly acked: Index;
    }
  | { readonly kind: "pong"; readonly epoch: Term; readonly round: number; readonly missing: boolean }
  /** Phase 2: one chunk of a snapshot, for a member that misses entries that are no longer kept [SNAP]. */
  | {
      readonly kind: "snapshot";
      readonly epoch: Term;
      readonly index: Index;
      readonly term: Term;
      readonly offset: number;
      readonly bytes: Uint8Array;
      readonly done: boolean;
    }
  /** The next offset wanted of the snapshot at `index`. */
  | { readonly kind: "snapshot-ack"; readonly epoch: Term; readonly index: Index; readonly offset: number };
