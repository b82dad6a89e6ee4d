/**
 * The letters that Raft members send one another. One union for the core, its codec (`wire/raft-messages.ts`) and the
 * simulator. `term` is always the sender's current term (Raft §5.1).
 */
import type { Configuration, Index, LogEntry, Term } from "../core.ts";

export type RaftMessage =
  /** RequestVote, or its dry run before the term is raised (Raft §5.2; pre-vote: thesis §9.6). */
  | {
      readonly kind: "vote-request";
      /** Of a pre-vote: the term that the sender would campaign in. */
      readonly term: Term;
      readonly preVote: boolean;
      /** The leader itself asked the sender to campaign (thesis §3.10): neither its voice nor its lease stands against it. */
      readonly transfer: boolean;
      readonly lastIndex: Index;
      readonly lastTerm: Term;
    }
  | { readonly kind: "vote-reply"; readonly term: Term; readonly preVote: boolean; readonly granted: boolean }
  /** AppendEntries with entries, or an empty probe of where the logs part (Raft §5.3). */
  | {
      readonly kind: "append";
      readonly term: Term;
      readonly previousIndex: Index;
      readonly previousTerm: Term;
      readonly commitIndex: Index;
      readonly entries: readonly LogEntry[];
    }
  | {
      readonly kind: "append-reply";
      readonly term: Term;
      readonly accepted: boolean;
      /** Accepted: everything up to here is on this member's disk and equals the leader's log. Rejected: the refused previousIndex. */
      readonly index: Index;
      /** Rejected: the highest index at which the logs may still agree. */
      readonly hintIndex: Index;
      readonly hintTerm: Term;
    }
  /**
   * "I lead, do you follow?" The commit index never exceeds what this follower is known to have.
   * `round` counts the leader's rounds: an echo proves leadership at a moment after the round began (Raft §8, thesis §6.4).
   * `lease`: the follower is asked to vote for nobody else for a while.
   */
  | {
      readonly kind: "heartbeat";
      readonly term: Term;
      readonly commitIndex: Index;
      readonly round: number;
      readonly lease: boolean;
    }
  /** `promisedMs`: the sender votes for nobody else for so long, by its own clock, from the moment the round reached it. 0: no promise. */
  | { readonly kind: "heartbeat-reply"; readonly term: Term; readonly round: number; readonly promisedMs: number }
  /** TimeoutNow: the follower has everything and shall campaign at once (thesis §3.10). */
  | { readonly kind: "timeout-now"; readonly term: Term }
  /** InstallSnapshot, one chunk at a time (Raft §7). */
  | {
      readonly kind: "snapshot";
      readonly term: Term;
      readonly index: Index;
      readonly snapshotTerm: Term;
      readonly configuration: Configuration;
      readonly offset: number;
      readonly bytes: Uint8Array;
      readonly done: boolean;
    }
  /** The next offset wanted of the snapshot at `index`. Its end is told by an `append-reply`. */
  | { readonly kind: "snapshot-reply"; readonly term: Term; readonly index: Index; readonly offset: number };
