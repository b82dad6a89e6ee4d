/**
 * One interface for every agreement protocol: a pure, synchronous, deterministic automaton.
 *
 * Intuition: a chess player who writes letters. Each input (a letter, the clock, "your note is in the safe") gives a list
 * of outputs (letters to post, notes to put in the safe, decisions to act on). Nothing else happens inside: no clock, no
 * dice but the seeded ones, no promise, no I/O. So the same file runs in a process, in the simulator and in a browser.
 *
 * What most ports lack and this one has: every `send` names the `persist` that must be durable before it may leave, so a
 * vote that is not yet on disk cannot be sent, by construction (host duties: see `replica/replica.ts`).
 * Source: the persistence contract is that of Raft §5 ("persistent state ... updated on stable storage before responding")
 * made data; Ongaro's thesis §10.2.1 for the leader's disk that works in parallel with the followers'.
 */

export type MemberId = string;
/** Raft's term, Paxos' ballot round, Zab's epoch, PBFT's view. */
export type Term = number;
/** Log index or slot: contiguous from 1. 0 stands before the first. */
export type Index = number;
/** Numbers the `persist` outputs of one incarnation: 1, 2, 3 ... */
export type PersistSequence = number;

/** Who decides. `outgoing` is the old half of a joint configuration (Raft §6); absent outside a change. */
export interface Configuration {
  readonly voters: readonly MemberId[];
  readonly outgoing?: readonly MemberId[];
  /** Sent the log, and counted for nothing (thesis §4.2.1). */
  readonly learners: readonly MemberId[];
  /** Where each member is reached. No protocol reads it; the host dials by it. */
  readonly addresses?: Readonly<Record<MemberId, string>>;
}

/** What an operator asks of the configuration. One at a time; the answer is `done` or `rejected`. */
export type MembershipChange =
  /** As a learner: it is sent the log and does not count until it is promoted. */
  | { readonly kind: "add"; readonly member: MemberId; readonly address?: string }
  | { readonly kind: "promote"; readonly member: MemberId }
  | { readonly kind: "remove"; readonly member: MemberId };

/** Why a core says no. Except for `lost-leadership`, nothing has happened and nothing will. */
export type RejectReason =
  | "not-leader"
  | "fenced"
  | "busy"
  /** The leader is handing over: ask again in a moment, of whoever leads then. */
  | "transferring"
  /** For reads: nothing was served. For a change or a transfer: it may still come about. */
  | "lost-leadership"
  /** This protocol cannot. */
  | "unsupported"
  | "change-in-flight"
  | "member-exists"
  | "member-unknown"
  | "already-voter"
  | "last-voter"
  | "learner-lags"
  | "transfer-in-flight"
  | "transfer-target"
  | "transfer-abandoned";

export type EntryKind = "noop" | "batch" | "configuration";

/** One slot of the log. The payload is opaque to the protocols: a batch of commands, or an encoded configuration. */
export interface LogEntry {
  readonly index: Index;
  readonly term: Term;
  readonly kind: EntryKind;
  /**
   * Agreed elapsed time in milliseconds: the last stamp plus the leader's own monotonic delta, never a host clock.
   * The only time that the state machine may read. Never goes back, also across leaders.
   */
  readonly stampMs: number;
  readonly payload: Uint8Array;
  /**
   * Multi-Paxos: the ballot in which this member accepted the entry, raised when a later leader proposes the same value
   * again. `term` stays the ballot in which the value was born. Absent in the other protocols.
   */
  readonly ballot?: Term;
}

/** A durable step. All operations of one persist are one atomic record. */
export type LogOperation =
  /** Sets the slot; in Raft it also drops every later one that differs. */
  | { readonly kind: "put"; readonly entry: LogEntry }
  /** Drops every slot from `from` on. */
  | { readonly kind: "truncate"; readonly from: Index }
  /** Small named cells: term, vote, commit. */
  | { readonly kind: "meta"; readonly values: Readonly<Record<string, string>> };

/** `lease`: linearizable too, by the leader's clock instead of a round of messages; see `RaftOptions.clockDriftMax`. */
export type ReadLevel = "linearizable" | "lease";

export type Input<M> =
  /** The host calls at the `timer` deadline; later is lawful, earlier is ignored. */
  | { readonly kind: "tick"; readonly nowMs: number }
  | { readonly kind: "message"; readonly nowMs: number; readonly from: MemberId; readonly message: M }
  /** A connection came or went. A protocol may use it to stop or start sending; it proves nothing. */
  | { readonly kind: "link"; readonly nowMs: number; readonly peer: MemberId; readonly up: boolean }
  /** One batch for one slot. `fence`: only while leading in this term. */
  | {
      readonly kind: "submit";
      readonly nowMs: number;
      readonly ticket: number;
      readonly payload: Uint8Array;
      readonly fence?: Term;
    }
  /** Many reads may share one ticket. Default level: linearizable. */
  | { readonly kind: "read"; readonly nowMs: number; readonly ticket: number; readonly level?: ReadLevel }
  | { readonly kind: "change"; readonly nowMs: number; readonly ticket: number; readonly change: MembershipChange }
  /** Hands leadership over; undefined: to whoever is closest behind. */
  | { readonly kind: "transfer"; readonly nowMs: number; readonly ticket: number; readonly to: MemberId | undefined }
  /** Every persist up to this one is durable. */
  | { readonly kind: "persisted"; readonly nowMs: number; readonly sequence: PersistSequence }
  /** The machine has applied everything up to here. */
  | { readonly kind: "applied"; readonly index: Index }
  /** The host has a durable snapshot at this index; earlier entries need not be kept. */
  | {
      readonly kind: "snapshot-built";
      readonly index: Index;
      readonly term: Term;
      readonly configuration: Configuration;
      readonly lengthBytes: number;
    }
  /** The bytes that a `read-snapshot` asked for, of the newest durable snapshot. */
  | {
      readonly kind: "snapshot-bytes";
      readonly nowMs: number;
      readonly to: MemberId;
      readonly index: Index;
      readonly term: Term;
      readonly configuration: Configuration;
      readonly offset: number;
      readonly bytes: Uint8Array;
      readonly done: boolean;
    }
  /** The answer to `install-snapshot`. */
  | {
      readonly kind: "snapshot-installed";
      readonly nowMs: number;
      readonly index: Index;
      readonly ok: boolean;
      /** The agreed time at the index; read from the snapshot. */
      readonly stampMs: number;
    };

export type Lane =
  /** Votes, heartbeats, acknowledgements: never behind anything. */
  | "control"
  | "log"
  /** Snapshots. */
  | "bulk";

export type Role = "leader" | "follower" | "candidate";

export type Output<M> =
  | { readonly kind: "persist"; readonly sequence: PersistSequence; readonly operations: readonly LogOperation[] }
  /** Leaves only once persist `after` is durable (0: at once). Encoded at that moment of the call, never aliased. */
  | {
      readonly kind: "send";
      readonly to: MemberId;
      readonly message: M;
      readonly after: PersistSequence;
      readonly lane: Lane;
    }
  /** Committed: contiguous, in order, once per incarnation. */
  | { readonly kind: "deliver"; readonly entries: readonly LogEntry[] }
  /** The waiter is bound to (index, term), never to the index alone. */
  | { readonly kind: "accepted"; readonly ticket: number; readonly index: Index; readonly term: Term }
  | {
      readonly kind: "rejected";
      readonly ticket: number;
      readonly why: RejectReason;
      readonly leader: MemberId | undefined;
    }
  /** The change is committed, or leadership has been handed over. */
  | { readonly kind: "done"; readonly ticket: number }
  /** Serve the read once this index is applied. */
  | { readonly kind: "read-at"; readonly ticket: number; readonly index: Index }
  /** Replaces the deadline before. */
  | { readonly kind: "timer"; readonly atMs: number }
  | { readonly kind: "role"; readonly role: Role; readonly term: Term; readonly leader: MemberId | undefined }
  /** In force from now on; told again once it is committed. */
  | { readonly kind: "configuration"; readonly index: Index; readonly configuration: Configuration; readonly committed: boolean }
  /** The retained tail no longer reaches the peer: the host streams its snapshot's bytes on request of the core. */
  | { readonly kind: "read-snapshot"; readonly to: MemberId; readonly offset: number; readonly lengthBytes: number }
  /** Bytes of a snapshot from the leader, in order; the host writes them aside. `done`: check it, install it, answer. */
  | {
      readonly kind: "install-snapshot";
      readonly from: MemberId;
      readonly index: Index;
      readonly term: Term;
      readonly configuration: Configuration;
      readonly offset: number;
      readonly bytes: Uint8Array;
      readonly done: boolean;
    }
  /** An invariant is broken or durable state is unusable: stop, do not limp. */
  | { readonly kind: "halt"; readonly why: string };

/** What the log hands over at start. */
export interface Recovered {
  readonly meta: ReadonlyMap<string, string>;
  /** Contiguous; the first follows the snapshot. */
  readonly entries: readonly LogEntry[];
  readonly snapshot?: {
    readonly index: Index;
    readonly term: Term;
    readonly configuration: Configuration;
    readonly lengthBytes: number;
    readonly stampMs: number;
  };
}

export interface CoreEnvironment {
  readonly self: MemberId;
  /** The configuration of a new group. A recovered log or snapshot overrides it. */
  readonly configuration: Configuration;
  readonly nowMs: number;
  /** Seeded by the host: elections need different dice in different members. */
  randomUint32(): number;
}

/** A live view, read by checkers, status and the dashboard; it never steers the host. */
export interface Probe {
  readonly role: Role;
  readonly term: Term;
  readonly leader: MemberId | undefined;
  readonly committedIndex: Index;
  readonly firstIndex: Index;
  readonly lastIndex: Index;
  readonly configuration: Configuration;
  /** Up to where this member counts its own disk; absent where slots may have gaps. */
  readonly durableIndex?: Index;
  /** Whether this member would serve a read at that moment of its own clock without asking anybody. */
  hasLease?(nowMs: number): boolean;
  /** The configuration in force at the index: what a snapshot there must carry. */
  configurationAt?(index: Index): Configuration;
  termAt(index: Index): Term | undefined;
  /** The leader's view of what the follower has on disk; undefined elsewhere. */
  matchOf(member: MemberId): Index | undefined;
  /** When the leader last heard of the follower. Monotonic ms of this member. */
  lastHeardMsOf(member: MemberId): number | undefined;
}

export interface Core<M> {
  start(environment: CoreEnvironment, recovered: Recovered): readonly Output<M>[];
  step(input: Input<M>): readonly Output<M>[];
  probe(): Probe;
  /**
   * Up to where a read by lease may be answered at this moment without asking anybody; undefined: ask by a `read`. Apart from the inputs
   * and outputs, because for such a read those would cost more than the read. Absent where a protocol knows no leases.
   */
  leaseReadIndex?(nowMs: number): Index | undefined;
}
