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
  readonly learners: readonly MemberId[];
}

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
}

/** A durable step. All operations of one persist are one atomic record. */
export type LogOperation =
  /** Sets the slot; in Raft it also drops every later one that differs. */
  | { readonly kind: "put"; readonly entry: LogEntry }
  /** Drops every slot from `from` on. */
  | { readonly kind: "truncate"; readonly from: Index }
  /** Small named cells: term, vote, commit. */
  | { readonly kind: "meta"; readonly values: Readonly<Record<string, string>> };

export type ReadLevel = "linearizable" | "stale";

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
  /** Many reads may share one ticket. */
  | { readonly kind: "read"; readonly nowMs: number; readonly ticket: number }
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
      readonly why: "not-leader" | "fenced" | "busy" | "lost-leadership";
      readonly leader: MemberId | undefined;
    }
  /** Serve the read once this index is applied. */
  | { readonly kind: "read-at"; readonly ticket: number; readonly index: Index }
  /** Replaces the deadline before. */
  | { readonly kind: "timer"; readonly atMs: number }
  | { readonly kind: "role"; readonly role: Role; readonly term: Term; readonly leader: MemberId | undefined }
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
}
