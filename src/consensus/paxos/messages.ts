/**
 * The letters that Multi-Paxos members send one another. One union for the core, its codec (`wire/paxos-messages.ts`) and
 * the simulator. Names of "Paxos Made Simple" and, in brackets, of "Paxos Made Moderately Complex" (PMMC).
 */
import type { Index, LogEntry, Term } from "../core.ts";
import type { Ballot } from "./ballot.ts";

export type PaxosMessage =
  /**
   * "Promise to take part in no lower ballot, and tell what you accepted from this slot on" [p1a].
   * `dryRun`: would you? It raises no ballot. Asked again with a higher `from`, it is the request for the next page.
   */
  | { readonly kind: "prepare"; readonly ballot: Ballot; readonly dryRun: boolean; readonly from: Index }
  /**
   * The promise [p1b]: everything accepted in `from` up to, not including, `next`; what is not named was not accepted there.
   * Each entry carries the ballot of its acceptance. Entries up to `chosen` are chosen, whatever their ballot.
   */
  | {
      readonly kind: "promise";
      readonly ballot: Ballot;
      readonly dryRun: boolean;
      readonly from: Index;
      /** 0: that was all. */
      readonly next: Index;
      readonly chosen: Index;
      readonly entries: readonly LogEntry[];
    }
  /**
   * No: a higher ballot was promised. `behind`: no, the sender of the prepare lacks slots that are no longer kept here slot
   * by slot; it has to learn them first.
   */
  | { readonly kind: "nack"; readonly promised: Ballot; readonly behind: boolean }
  /** "Accept these values in my ballot" [p2a], many consecutive slots at a time. Their `ballot` is the letter's. */
  | { readonly kind: "accept"; readonly ballot: Ballot; readonly chosen: Index; readonly entries: readonly LogEntry[] }
  /** Accepted, on disk [p2b]: the slots from `first` to `last`, and besides everything up to `upTo`. */
  | {
      readonly kind: "accepted";
      readonly ballot: Ballot;
      readonly first: Index;
      readonly last: Index;
      readonly upTo: Index;
    }
  /**
   * "I lead by this ballot; these slots are chosen." `round` counts the leader's heartbeats: an echo proves that no higher
   * ballot was promised when it was written. `sent`: the last slot that this member was sent for acceptance.
   */
  | {
      readonly kind: "heartbeat";
      readonly ballot: Ballot;
      readonly round: number;
      readonly chosen: Index;
      readonly sent: Index;
    }
  | {
      readonly kind: "heartbeat-reply";
      readonly ballot: Ballot;
      readonly round: number;
      readonly chosen: Index;
      /** The first slot up to `sent` that is neither chosen nor accepted in this ballot; 0: none. */
      readonly missing: Index;
      /** Everything up to here is chosen or accepted in this ballot, on disk. */
      readonly upTo: Index;
    }
  /** "What was chosen from this slot on?" Any member that knows answers, with `learn` or with its snapshot. */
  | { readonly kind: "ask"; readonly from: Index }
  /** Chosen values, consecutive. `chosen`: how much more there is. */
  | { readonly kind: "learn"; readonly chosen: Index; readonly entries: readonly LogEntry[] }
  /** One chunk of a snapshot, for a member that misses slots that are no longer kept one by one. */
  | {
      readonly kind: "snapshot";
      readonly index: Index;
      readonly term: Term;
      readonly offset: number;
      readonly bytes: Uint8Array;
      readonly done: boolean;
    }
  /** The next offset wanted of the snapshot at `index`. */
  | { readonly kind: "snapshot-ask"; readonly index: Index; readonly offset: number };
