/**
 * The doors of a PBFT replica: the persistence contract of `consensus/core.ts` (a `send` names the persist that must be
 * durable before it leaves), with what Byzantine agreement adds: statements are signed, every replica answers the client,
 * and the state itself is part of the protocol, because checkpoints prove it.
 *
 * Messages enter only after every seal of them was verified (`gate.ts`). Durable state is a set of small named cells,
 * replaced and dropped in one ordered stream of persists, and one snapshot. After a crash a prefix of the stream is left.
 */
import type { PersistSequence } from "../core.ts";
import type { Checkpoint, Digest, PbftMessage, ReplicaNumber, Reply, RequestFrame, Sequence, Signed, View } from "./messages.ts";
import type { PbftOptions } from "./options.ts";
import type { Capture, PbftService } from "./state.ts";

/** Hash and seal. In the simulator both are symbolic; in a process SHA-256 and Ed25519. */
export interface PbftCrypto {
  digest(bytes: Uint8Array): Digest;
  /** Of this replica. Deterministic. */
  sign(bytes: Uint8Array): Uint8Array;
}

export interface PbftEnvironment {
  readonly self: ReplicaNumber;
  /** How many replicas there are. Fixed. */
  readonly replicas: number;
  readonly nowMs: number;
  readonly crypto: PbftCrypto;
  readonly service: PbftService;
  readonly options?: Partial<PbftOptions>;
}

/** A durable state of a checkpoint, with the proof that it is stable. */
export interface PbftSnapshot {
  readonly sequence: Sequence;
  readonly capture: Capture;
  readonly checkpoints: readonly Signed<Checkpoint>[];
}

export interface PbftRecovered {
  readonly cells: ReadonlyMap<string, Uint8Array>;
  readonly snapshot: PbftSnapshot | undefined;
}

/** `bytes` undefined drops the cell. */
export interface CellChange {
  readonly cell: string;
  readonly bytes: Uint8Array | undefined;
}

export type PbftInput =
  | { readonly kind: "tick"; readonly nowMs: number }
  /** `from`: whoever handed it over, a replica's number or a client's name. Proves nothing. */
  | { readonly kind: "message"; readonly nowMs: number; readonly from: ReplicaNumber | string; readonly message: PbftMessage }
  | { readonly kind: "persisted"; readonly nowMs: number; readonly sequence: PersistSequence }
  /** The snapshot of this sequence is durable, and the host has dropped the cells that it covers (`cellSequence`). */
  | { readonly kind: "snapshot-saved"; readonly nowMs: number; readonly sequence: Sequence };

/** What happened, for telemetry, checkers and the lab; the host need not act on it. */
export type PbftNotice =
  | { readonly notice: "view-change-started"; readonly view: View }
  | { readonly notice: "view-entered"; readonly view: View }
  | { readonly notice: "new-view-rejected"; readonly view: View; readonly why: string }
  | { readonly notice: "equivocation"; readonly against: ReplicaNumber; readonly view: View; readonly sequence: Sequence }
  | { readonly notice: "stable"; readonly sequence: Sequence; readonly digest: Digest }
  | { readonly notice: "transfer-started" | "transfer-done"; readonly sequence: Sequence }
  | { readonly notice: "refused"; readonly what: PbftMessage["kind"]; readonly why: string };

export type PbftOutput =
  | { readonly kind: "persist"; readonly sequence: PersistSequence; readonly changes: readonly CellChange[] }
  | {
      readonly kind: "send";
      readonly to: readonly ReplicaNumber[];
      readonly message: PbftMessage;
      readonly after: PersistSequence;
    }
  | { readonly kind: "reply"; readonly client: string; readonly reply: Signed<Reply> }
  /** Executed in order, once per incarnation. `frames` are those that took effect now; the others were repetitions. */
  | {
      readonly kind: "executed";
      readonly sequence: Sequence;
      readonly digest: Digest;
      readonly frames: readonly RequestFrame[];
    }
  /** Write it aside and answer `snapshot-saved`. A later one replaces an earlier one that is not yet begun. */
  | { readonly kind: "save-snapshot"; readonly snapshot: PbftSnapshot }
  | { readonly kind: "timer"; readonly atMs: number }
  | { readonly kind: "notice"; readonly notice: PbftNotice }
  /** An invariant is broken: stop, do not limp. */
  | { readonly kind: "halt"; readonly why: string };

/** For checkers and status; never steers the host. */
export interface PbftProbe {
  readonly view: View;
  readonly active: boolean;
  readonly primary: ReplicaNumber;
  readonly stable: Sequence;
  readonly executed: Sequence;
  readonly pending: number;
  /** Everything that a peer's messages could make grow, by name. */
  readonly sizes: Readonly<Record<"slots" | "votes" | "batches" | "pending" | "viewChanges" | "checkpoints", number>>;
}
