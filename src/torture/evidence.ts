/**
 * What a run leaves behind for the judge, and what the judge answers. Plain data: tests make it by hand.
 */
import type { Interval } from "./clock.ts";
import type { FileState, JournalEvent } from "./journal.ts";
import type { Probe } from "./prober.ts";

export interface ClientRecord {
  /** "3.1": the second incarnation of slot 3. */
  readonly name: string;
  readonly slot: number;
  readonly incarnation: number;
  readonly events: readonly JournalEvent[];
  /** When the runner had stopped it. In order, without overlap. */
  readonly stops: readonly Interval[];
  /** When it was killed, or undefined: it ended in its own time. */
  readonly killedAtMs: number | undefined;
}

export interface SetElement {
  readonly element: string;
  readonly token: number;
  readonly createRevision: number;
}

/** What stood there when everybody had finished. */
export interface FinalState {
  readonly file: FileState;
  readonly set: readonly SetElement[];
  /** By key; a register that is missing was absent. */
  readonly registers: ReadonlyMap<string, string>;
  /** The value of the prober's key. */
  readonly probe: string | null;
  /** The reads of the registers took place between these. */
  readonly readFromMs: number;
  readonly readToMs: number;
}

export interface Evidence {
  readonly ttlMs: number;
  readonly startedAtMs: number;
  /** Slots; process numbers of the history rise by it. */
  readonly clientCount: number;
  readonly clients: readonly ClientRecord[];
  readonly probes: readonly Probe[];
  /** Undefined: it could not be read, which is an incident. */
  readonly final: FinalState | undefined;
  /** What the runner itself saw go wrong. */
  readonly incidents: readonly Incident[];
}

/** Each says what must never happen. */
export type ViolationKind =
  /** Two grants of a lock with one token, or a token that is no revision. */
  | "token-repeated"
  /** A hold said that it is held after the lock had been granted with a higher token. */
  | "two-holders"
  /** The store refused a guard whose hold, asked afterwards, said that it is held. */
  | "guard-refused-holder"
  /** A write to the file after the lock had passed on, by a holder that no stop excuses. */
  | "file-write-late"
  /** Two holders read the same state of the file and both wrote, or a write vanished, and nobody's stop explains it. */
  | "file-update-lost"
  /** The file showed what nobody wrote. */
  | "file-corrupt"
  | "set-element-lost"
  /** An element is there that was refused, failed for certain, or was never added. */
  | "set-element-unexpected"
  /** An element came after one with a higher token: the guard let a late holder in. */
  | "set-order"
  | "registers-not-linearizable"
  | "probe-lost"
  | IncidentKind;

export type IncidentKind =
  | "member-died"
  | "client-failed"
  /** A client did not come to an end, long after the last fault. */
  | "client-stuck"
  /** A member did not stop, or did not say why, though its disk gave it every reason. */
  | "fault-unnoticed"
  /** The cluster did not serve again, long after the last fault. */
  | "no-recovery"
  /** Members that are at rest are at different revisions. */
  | "members-differ";

export interface Violation {
  readonly kind: ViolationKind;
  readonly text: string;
}

export interface Incident extends Violation {
  readonly kind: IncidentKind;
}

/** A write to the file that came late because its process had been stopped after its last look at the clock. */
export interface LateWrite {
  readonly write: string;
  readonly token: number;
  /** Of the grant that the write came after. */
  readonly passedToToken: number;
  readonly passedOnAtMs: number;
  readonly deadlineMs: number | undefined;
  readonly assertedAtMs: number;
  readonly writtenAtMs: number;
  readonly stops: readonly Interval[];
  /** Whether it overwrote the writes of others, or only came late. */
  readonly overwrote: boolean;
}
