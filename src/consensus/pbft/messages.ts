/**
 * What PBFT replicas and clients say. Everything that may have to convince a third party is a *signed statement*: its
 * bytes travel as they were signed, so that a proof (a certificate, a view change) can carry other replicas' statements.
 *
 * Source: Castro & Liskov, "Practical Byzantine Fault Tolerance", OSDI 1999 §4, in the variant in which all statements are
 * signed; TOCS 2002 §5.2 for the status messages.
 */

/** Position in the list of replicas, from 0. */
export type ReplicaNumber = number;
export type View = number;
/** Place in the one order: from 1, contiguous. 0 stands before the first. */
export type Sequence = number;
/** A hash, one character per byte: compared by value. */
export type Digest = string;

/** A statement with the very bytes that were signed. `statement` is what those bytes say. */
export interface Signed<S> {
  readonly statement: S;
  readonly bytes: Uint8Array;
  readonly signature: Uint8Array;
}

/**
 * What a client asks: up to 64 operations under one signature, run together and in order.
 * One frame of a lane is in flight at a time; `timestamp` rises from frame to frame and makes it happen once (§4.1).
 */
export interface RequestFrame {
  readonly kind: "request";
  readonly client: string;
  /** A client may keep a few frames in flight, each on a lane of its own. */
  readonly lane: number;
  readonly timestamp: number;
  readonly operations: readonly Uint8Array[];
}

/** The frames that share one sequence. Empty: the null request of a new view (§4.4). */
export type Batch = readonly Signed<RequestFrame>[];

/** The three statements of the normal case (§4.2). */
export interface PrePrepare {
  readonly kind: "pre-prepare";
  readonly replica: ReplicaNumber;
  readonly view: View;
  readonly sequence: Sequence;
  readonly digest: Digest;
}
export interface Prepare extends Omit<PrePrepare, "kind"> {
  readonly kind: "prepare";
}
export interface Commit extends Omit<PrePrepare, "kind"> {
  readonly kind: "commit";
}

/** "My state after this sequence has this digest" (§4.3). */
export interface Checkpoint {
  readonly kind: "checkpoint";
  readonly replica: ReplicaNumber;
  readonly sequence: Sequence;
  readonly digest: Digest;
}

/** Proof that a batch was prepared: nothing else can have been prepared in the same view at the same sequence. */
export interface PreparedCertificate {
  readonly proposal: Signed<PrePrepare>;
  readonly prepares: readonly Signed<Prepare>[];
}

export interface ViewChange {
  readonly kind: "view-change";
  readonly replica: ReplicaNumber;
  /** The view that the sender wants to enter. */
  readonly view: View;
  /** The sender's last stable checkpoint, with a quorum of statements about it (none at 0): C of the paper. */
  readonly stable: Sequence;
  readonly checkpoints: readonly Signed<Checkpoint>[];
  /** For each later sequence the certificate of the highest view: P of the paper. */
  readonly prepared: readonly PreparedCertificate[];
}

export interface NewView {
  readonly kind: "new-view";
  readonly replica: ReplicaNumber;
  readonly view: View;
  /** A quorum of view changes for this view: V of the paper. */
  readonly viewChanges: readonly Signed<ViewChange>[];
  /** What follows from them: O of the paper. Everyone computes it again. */
  readonly proposals: readonly Signed<PrePrepare>[];
}

export interface Reply {
  readonly kind: "reply";
  readonly replica: ReplicaNumber;
  readonly view: View;
  readonly client: string;
  readonly lane: number;
  readonly timestamp: number;
  readonly results: readonly Uint8Array[];
}

/** Everything that a replica signs. */
export type ReplicaStatement = PrePrepare | Prepare | Commit | Checkpoint | ViewChange | NewView | Reply;
export type Statement = ReplicaStatement | RequestFrame;

/** What travels. Statements may be relayed by anybody; what is not signed is checked by content, or only a hint. */
export type PbftMessage =
  | { readonly kind: "request"; readonly frame: Signed<RequestFrame> }
  | { readonly kind: "pre-prepare"; readonly proposal: Signed<PrePrepare>; readonly batch: Batch }
  | { readonly kind: "prepare"; readonly vote: Signed<Prepare> }
  | { readonly kind: "commit"; readonly vote: Signed<Commit> }
  | { readonly kind: "checkpoint"; readonly checkpoint: Signed<Checkpoint> }
  /** A stable checkpoint with its proof, for whoever lags. */
  | { readonly kind: "stable"; readonly checkpoints: readonly Signed<Checkpoint>[] }
  | { readonly kind: "view-change"; readonly viewChange: Signed<ViewChange> }
  | { readonly kind: "new-view"; readonly newView: Signed<NewView> }
  /** "This is where I am": whoever is ahead sends again what the sender lacks (TOCS 2002 §5.2). */
  | {
      readonly kind: "status";
      readonly view: View;
      readonly active: boolean;
      readonly stable: Sequence;
      readonly executed: Sequence;
    }
  | { readonly kind: "fetch-batch"; readonly sequence: Sequence; readonly digest: Digest }
  | { readonly kind: "batch"; readonly sequence: Sequence; readonly batch: Batch }
  /** Asks for the digests of the parts of a checkpoint. */
  | { readonly kind: "fetch-parts"; readonly sequence: Sequence }
  | { readonly kind: "parts"; readonly sequence: Sequence; readonly digests: readonly Digest[] }
  | { readonly kind: "fetch-part"; readonly sequence: Sequence; readonly part: number }
  | { readonly kind: "part"; readonly sequence: Sequence; readonly part: number; readonly bytes: Uint8Array }
  | { readonly kind: "reply"; readonly reply: Signed<Reply> };
