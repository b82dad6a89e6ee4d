/**
 * Practical Byzantine Fault Tolerance: one order of requests among n replicas, of which f = floor((n - 1) / 3) may do
 * anything at all: lie, stay silent, tell each peer something else.
 *
 * Intuition: nobody believes one voice. The primary proposes, everybody repeats what it heard, and what a quorum repeated
 * alike is prepared; what a quorum has seen prepared is committed. Any two quorums share an honest replica, and an honest
 * replica says one thing, so no two batches can win the same place.
 *
 * ```
 * client    primary        backup 1       backup 2       backup 3 (faulty)
 *   │ request │               │              │              │
 *   ├────────►│ pre-prepare   │              │              │
 *   │         ├──────────────►├─────────────►├─────────────►│      (saved, then sent)
 *   │         │◄── prepare ───┤◄────────────►│              │      (saved, then sent)
 *   │         │◄── commit ───►│◄────────────►│              │      (saved, then sent)
 *   │◄────────┴── replies ────┴──────────────┘                     f + 1 equal ones count
 * ```
 * Source: Castro & Liskov, OSDI 1999 §4 (signed variant), and TOCS 2002 §4-§5 for batching, status messages and state
 * transfer. Added here: votes are durable before they leave, so a correct replica that restarts does not contradict itself;
 * a replica counts its own vote only once it is durable.
 *
 * Assumes that every signature of a message was verified before (`gate.ts`). Fixed membership. No clock of its own.
 */
import { assert } from "../../base/assert.ts";
import type { PersistSequence } from "../core.ts";
import { Captures } from "./captures.ts";
import {
  batchCell,
  committedCell,
  decodeBatchCell,
  decodeCommittedCell,
  decodePreparedCell,
  decodeProposalCell,
  decodeStableCell,
  decodeViewCell,
  encodeBatchCell,
  encodeCommittedCell,
  encodePreparedCell,
  encodeProposalCell,
  encodeStableCell,
  encodeViewCell,
  parseCellName,
  preparedCell,
  proposalCell,
  stableCell,
  viewCell,
} from "./cells.ts";
import { CheckpointVotes } from "./checkpoint-votes.ts";
import type {
  CellChange,
  PbftCrypto,
  PbftEnvironment,
  PbftInput,
  PbftNotice,
  PbftOutput,
  PbftProbe,
  PbftRecovered,
} from "./core.ts";
import type {
  Batch,
  Checkpoint,
  Commit,
  Digest,
  NewView,
  PbftMessage,
  PrePrepare,
  Prepare,
  ReplicaNumber,
  RequestFrame,
  Sequence,
  Signed,
  Statement,
  View,
  ViewChange,
} from "./messages.ts";
import { type PbftOptions, pbftDefaults } from "./options.ts";
import { laneOf, PendingRequests } from "./pending-requests.ts";
import { faultsTolerated, quorumOf, weakQuorumOf } from "./quorum.ts";
import { matching, type Slot, Slots } from "./slots.ts";
import { type Capture, CheckpointedState } from "./state.ts";
import { StateTransfer, type TransferTarget } from "./state-transfer.ts";
import { encodeBatch, encodeStatement } from "./statements.ts";
import { flawOfViewChange, type NewViewPlan, planNewView, primaryOf, proofIn } from "./view-change.ts";

/** Something of ours that counts once it is durable. */
interface Awaiting {
  readonly after: PersistSequence;
  readonly act: () => void;
}

export class Pbft {
  readonly #self: ReplicaNumber;
  readonly #replicas: number;
  readonly #quorum: number;
  readonly #others: readonly ReplicaNumber[];
  readonly #options: PbftOptions;
  readonly #crypto: PbftCrypto;
  readonly #state: CheckpointedState;
  readonly #nullDigest: Digest;

  // Where we are.
  #nowMs: number;
  #view: View = 0;
  /** False between a view change and its new view: only checkpoints and view changes are heard (§4.4). */
  #active = true;
  #newView: Signed<NewView> | undefined;
  #ownViewChange: Signed<ViewChange> | undefined;
  /** The low watermark h: everything up to here is proven by `#stableProof` and forgotten. */
  #stable: Sequence = 0;
  #stableProof: readonly Signed<Checkpoint>[] = [];
  /** Invariant: moves by one in `#execute`, or to a proven checkpoint in `#install`. */
  #executed: Sequence = 0;

  // What we know.
  readonly #slots = new Slots();
  readonly #pending: PendingRequests;
  readonly #checkpoints: CheckpointVotes;
  /** Of each replica the view change of the highest view. */
  readonly #viewChanges = new Map<ReplicaNumber, Signed<ViewChange>>();
  /** States that may still be asked for: of the stable checkpoint and later ones. */
  readonly #captures = new Captures();
  /** Invariant: above `#executed`. */
  #ahead: TransferTarget | undefined;
  #transfer: StateTransfer | undefined;
  #nextSequence: Sequence = 1;

  // Durability.
  #persistSequence: PersistSequence = 0;
  #durable: PersistSequence = 0;
  readonly #awaiting: Awaiting[] = [];
  /** A fetched state that is not on disk yet: until then we must not claim to hold a checkpoint. */
  #unsavedInstall: Sequence = 0;

  // Time.
  #fruitlessChanges = 0;
  #head: Signed<RequestFrame> | undefined;
  #headSinceMs = 0;
  #viewDeadlineMs: number | undefined;
  #statusAtMs = 0;
  #transferAtMs: number | undefined;
  readonly #answeredMs = new Map<ReplicaNumber, number>();
  #timerMs: number | undefined;

  #outputs: PbftOutput[] = [];

  constructor(environment: PbftEnvironment) {
    const { self, replicas, nowMs, crypto, service, options } = environment;
    this.#self = self;
    this.#replicas = replicas;
    this.#quorum = quorumOf(replicas);
    this.#others = Array.from({ length: replicas }, (_, replica) => replica).filter((replica) => replica !== self);
    this.#options = { ...pbftDefaults, ...options };
    this.#crypto = crypto;
    const { replyParts } = this.#options;
    this.#state = new CheckpointedState(service, { digest: (bytes) => crypto.digest(bytes), replyParts });
    this.#nullDigest = crypto.digest(encodeBatch([]));
    this.#pending = new PendingRequests(this.#options.pendingMax);
    this.#checkpoints = new CheckpointVotes(replicas, Math.ceil(this.#options.windowLength / this.#options.checkpointEvery) + 2);
    this.#nowMs = nowMs;
    assert(self < replicas, "a replica is one of the group");
    assert(this.#options.windowLength >= 2 * this.#options.checkpointEvery, "the window spans two checkpoints (§4.3)");
  }

  start(recovered: PbftRecovered): readonly PbftOutput[] {
    this.#outputs = [];
    this.#recover(recovered);
    this.#statusAtMs = this.#nowMs;
    return this.#finish();
  }

  step(input: PbftInput): readonly PbftOutput[] {
    this.#outputs = [];
    this.#nowMs = Math.max(this.#nowMs, input.nowMs);
    switch (input.kind) {
      case "tick":
        // The timer is spent, even where the host's clock was a little early.
        this.#timerMs = undefined;
        break;
      case "message":
        this.#onMessage(input.from, input.message);
        break;
      case "persisted":
        this.#onPersisted(input.sequence);
        break;
      case "snapshot-saved":
        this.#onSnapshotSaved(input.sequence);
        break;
    }
    return this.#finish();
  }

  probe(): PbftProbe {
    let votes = 0;
    let batches = 0;
    for (const slot of this.#slots.values()) {
      votes += slot.prepares.size + slot.commits.size;
      batches += slot.batches.size;
    }
    const sizes = {
      slots: this.#slots.size,
      votes,
      batches,
      pending: this.#pending.size,
      viewChanges: this.#viewChanges.size,
      checkpoints: this.#checkpoints.size,
    };
    return {
      view: this.#view,
      active: this.#active,
      primary: this.#primary,
      stable: this.#stable,
      executed: this.#executed,
      pending: this.#pending.size,
      sizes,
    };
  }

  get view(): View {
    return this.#view;
  }
  get isActive(): boolean {
    return this.#active;
  }
  get stable(): Sequence {
    return this.#stable;
  }
  get executed(): Sequence {
    return this.#executed;
  }

  get #primary(): ReplicaNumber {
    return primaryOf(this.#view, this.#replicas);
  }

  get #isPrimary(): boolean {
    return this.#active && this.#primary === this.#self;
  }

  // ---------------------------------------------------------------------------------------------- messages

  #onMessage(from: ReplicaNumber | string, message: PbftMessage): void {
    switch (message.kind) {
      case "request":
        this.#onRequest(message.frame);
        break;
      case "pre-prepare":
        this.#onPrePrepare(message.proposal, message.batch);
        break;
      case "prepare":
        this.#onVote(message.vote, "prepare");
        break;
      case "commit":
        this.#onVote(message.vote, "commit");
        break;
      case "checkpoint":
        this.#onCheckpoint(message.checkpoint);
        break;
      case "stable":
        this.#onStableProof(message.checkpoints);
        break;
      case "view-change":
        this.#onViewChange(message.viewChange);
        break;
      case "new-view":
        this.#onNewView(message.newView);
        break;
      case "status":
        if (typeof from === "number") this.#onStatus(from, message);
        break;
      case "fetch-batch":
        if (typeof from === "number") this.#onFetchBatch(from, message.sequence, message.digest);
        break;
      case "batch":
        this.#onBatch(message.sequence, message.batch);
        break;
      case "fetch-parts":
        if (typeof from === "number") this.#onFetchParts(from, message.sequence);
        break;
      case "fetch-part":
        if (typeof from === "number") this.#onFetchPart(from, message.sequence, message.part);
        break;
      case "parts":
        if (this.#transfer?.onParts(message.sequence, message.digests)) this.#advanceTransfer();
        break;
      case "part":
        if (this.#transfer?.onPart(message.sequence, message.part, message.bytes)) this.#advanceTransfer();
        break;
      case "reply":
        break;
    }
  }

  /**
   * Whether the message can still change anything. Asked before its seals are verified, which costs more than all else: of n
   * votes a quorum is enough, and the rest comes when the matter is settled. A vote for something else is always wanted: it
   * convicts its sender.
   */
  needs(message: PbftMessage): boolean {
    if (message.kind !== "prepare" && message.kind !== "commit") return true;
    const { view, sequence, digest } = message.vote.statement;
    if (view < this.#view || sequence <= this.#stable) return false;
    const slot = view === this.#view ? this.#slots.get(sequence) : undefined;
    if (slot?.proposal?.statement.digest !== digest || !slot.prepared) return true;
    return message.kind === "commit" && slot.committed !== digest;
  }

  // ---------------------------------------------------------------------------------------------- requests (§4.1)

  #onRequest(frame: Signed<RequestFrame>): void {
    const { client, lane, timestamp } = frame.statement;
    if (lane >= this.#options.lanesMax) {
      this.#refuse("request", "the lane is beyond the limit");
      return;
    }
    const last = this.#state.lastReply(laneOf(frame.statement));
    if (last !== undefined && timestamp <= last.timestamp) {
      // Done before: the client hears its last reply again, and nothing runs twice.
      if (timestamp === last.timestamp) this.#reply(client, lane, timestamp, last.results);
      return;
    }
    if (!this.#pending.add(frame)) return;
    if (this.#isPrimary) this.#propose();
    else if (this.#active) this.#send([this.#primary], { kind: "request", frame });
  }

  #reply(client: string, lane: number, timestamp: number, results: readonly Uint8Array[]): void {
    const reply = this.#sign({ kind: "reply", replica: this.#self, view: this.#view, client, lane, timestamp, results });
    this.#outputs.push({ kind: "reply", client, reply });
  }

  // ---------------------------------------------------------------------------------------------- normal case (§4.2)

  /** As primary: gives the waiting requests a sequence, many at a time (TOCS 2002 §5.1.3). */
  #propose(): void {
    if (!this.#isPrimary) return;
    while (this.#nextSequence <= this.#stable + this.#options.windowLength) {
      if (this.#nextSequence - 1 - this.#executed >= this.#options.pipelineMax) return;
      const batch = this.#takeBatch();
      if (batch.length === 0) return;
      const sequence = this.#nextSequence++;
      const digest = this.#crypto.digest(encodeBatch(batch));
      const proposal = this.#sign({ kind: "pre-prepare", replica: this.#self, view: this.#view, sequence, digest } as const);
      for (const frame of batch) this.#pending.markProposed(frame, this.#view);
      const after = this.#accept(proposal, batch);
      this.#send(this.#others, { kind: "pre-prepare", proposal, batch }, after);
    }
  }

  #takeBatch(): Batch {
    const batch: Signed<RequestFrame>[] = [];
    let bytes = 0;
    for (const { frame, proposedIn } of this.#pending.values()) {
      if (proposedIn === this.#view) continue;
      bytes += frame.bytes.length + frame.signature.length;
      if (batch.length > 0 && (batch.length >= this.#options.batchFramesMax || bytes > this.#options.batchBytesMax)) break;
      batch.push(frame);
    }
    return batch;
  }

  #onPrePrepare(proposal: Signed<PrePrepare>, batch: Batch): void {
    const { replica, view, sequence, digest } = proposal.statement;
    if (!this.#active || view !== this.#view || replica !== this.#primary) return;
    if (!this.#isInWindow(sequence)) return;
    if (this.#crypto.digest(encodeBatch(batch)) !== digest) {
      this.#refuse("pre-prepare", "the batch is not the one proposed");
      return;
    }
    const known = this.#slots.get(sequence)?.proposal;
    if (known !== undefined && known.statement.digest !== digest) {
      this.#notice({ notice: "equivocation", against: replica, view, sequence });
      return;
    }
    if (known !== undefined) {
      this.#onBatch(sequence, batch);
      return;
    }
    // Only the primary's own proposals reach it by `#propose`; anything else in its name is a stolen key.
    if (replica === this.#self) return;
    if (batch.length > this.#options.batchFramesMax) {
      this.#refuse("pre-prepare", "too many frames");
      return;
    }
    if (batch.some(({ statement }) => statement.lane >= this.#options.lanesMax)) {
      this.#refuse("pre-prepare", "a lane is beyond the limit");
      return;
    }
    this.#accept(proposal, batch);
    // A request first seen in a proposal is a reason to suspect the primary as well, should it never commit.
    for (const frame of batch) this.#addPending(frame);
  }

  #addPending(frame: Signed<RequestFrame>): void {
    const last = this.#state.lastReply(laneOf(frame.statement));
    if (last === undefined || frame.statement.timestamp > last.timestamp) this.#pending.add(frame);
  }

  /** Takes the proposal as the one of its view and sequence; saved before anything is said about it. */
  #accept(proposal: Signed<PrePrepare>, batch: Batch): PersistSequence {
    const { sequence, digest } = proposal.statement;
    const slot = this.#slots.at(sequence);
    const after = this.#persist([
      { cell: proposalCell(sequence), bytes: encodeProposalCell(proposal) },
      ...this.#keepBatch(slot, digest, batch),
    ]);
    this.#takeUp(slot, proposal, after);
    return after;
  }

  #takeUp(slot: Slot, proposal: Signed<PrePrepare>, after: PersistSequence): void {
    slot.proposal = proposal;
    this.#whenDurable(after, () => {
      // Meanwhile the view may have changed, or the slot may lie below a stable checkpoint: then its vote is void.
      if (slot.proposal !== proposal || this.#slots.get(slot.sequence) !== slot) return;
      slot.proposalDurable = true;
      this.#advance(slot);
    });
    this.#vote(slot, after);
  }

  #keepBatch(slot: Slot, digest: Digest, batch: Batch): CellChange[] {
    if (digest === this.#nullDigest || slot.batches.has(digest)) return [];
    const changes: CellChange[] = [{ cell: batchCell(slot.sequence, digest), bytes: encodeBatchCell(batch) }];
    slot.batches.set(digest, batch);
    if (slot.batches.size > this.#options.batchesKeptMax) {
      const proposed = slot.proposal?.statement.digest;
      const wanted = [digest, proposed, slot.certificate?.proposal.statement.digest, slot.committed];
      const oldest = [...slot.batches.keys()].find((known) => !wanted.includes(known));
      if (oldest !== undefined) {
        slot.batches.delete(oldest);
        changes.push({ cell: batchCell(slot.sequence, oldest), bytes: undefined });
      }
    }
    return changes;
  }

  #batchOf(slot: Slot, digest: Digest): Batch | undefined {
    return digest === this.#nullDigest ? [] : slot.batches.get(digest);
  }

  /** As backup: PREPARE, once the proposal and its batch are on disk. Without the batch nobody may vouch for it. */
  #vote(slot: Slot, after: PersistSequence): void {
    const { proposal } = slot;
    if (proposal === undefined || slot.voted || this.#batchOf(slot, proposal.statement.digest) === undefined) return;
    slot.voted = true;
    const { view, sequence, digest } = proposal.statement;
    if (primaryOf(view, this.#replicas) === this.#self) return;
    const vote = this.#sign({ kind: "prepare", replica: this.#self, view, sequence, digest } as const);
    this.#send(this.#others, { kind: "prepare", vote }, after);
    this.#whenDurable(after, () => this.#onVote(vote, "prepare"));
  }

  #onVote(vote: Signed<Prepare>, kind: "prepare"): void;
  #onVote(vote: Signed<Commit>, kind: "commit"): void;
  #onVote(vote: Signed<Prepare> | Signed<Commit>, kind: "prepare" | "commit"): void {
    const { replica, view, sequence, digest } = vote.statement;
    if (!this.#active || view !== this.#view || !this.#isInWindow(sequence)) return;
    if (kind === "prepare" && replica === this.#primary) return;
    const slot = this.#slots.at(sequence);
    const votes = (kind === "prepare" ? slot.prepares : slot.commits) as Map<ReplicaNumber, Signed<Prepare | Commit>>;
    const known = votes.get(replica);
    if (known === undefined) {
      votes.set(replica, vote as Signed<Prepare | Commit>);
      this.#advance(slot);
    } else if (known.statement.digest !== digest) {
      this.#notice({ notice: "equivocation", against: replica, view, sequence });
    }
  }

  /** Prepared, then committed, then executed: whatever has become possible. */
  #advance(slot: Slot): void {
    this.#maybePrepared(slot);
    this.#maybeCommitted(slot);
  }

  #maybePrepared(slot: Slot): void {
    const { proposal } = slot;
    if (proposal === undefined || slot.prepared || !slot.proposalDurable || !slot.voted) return;
    const { view, sequence, digest } = proposal.statement;
    // The primary's pre-prepare is its vote; with it the prepares of the backups make a quorum.
    const prepares = matching(slot.prepares, proposal.statement, this.#quorum - 1);
    if (prepares.length < this.#quorum - 1) return;
    slot.prepared = true;
    slot.certificate = { proposal, prepares };
    const after = this.#persist([{ cell: preparedCell(sequence), bytes: encodePreparedCell(slot.certificate) }]);
    const vote = this.#sign({ kind: "commit", replica: this.#self, view, sequence, digest } as const);
    this.#send(this.#others, { kind: "commit", vote }, after);
    this.#whenDurable(after, () => this.#onVote(vote, "commit"));
  }

  #maybeCommitted(slot: Slot): void {
    const { proposal } = slot;
    if (proposal === undefined || !slot.prepared || slot.committed === proposal.statement.digest) return;
    if (matching(slot.commits, proposal.statement, this.#quorum).length < this.#quorum) return;
    if (slot.committed !== undefined) {
      this.#halt(`two batches are committed at ${slot.sequence}`);
      return;
    }
    slot.committed = proposal.statement.digest;
    this.#persist([{ cell: committedCell(slot.sequence), bytes: encodeCommittedCell(slot.committed) }]);
    this.#executeReady();
    this.#propose();
  }

  #executeReady(): void {
    for (;;) {
      const slot = this.#slots.get(this.#executed + 1);
      if (slot?.committed === undefined) return;
      const batch = this.#batchOf(slot, slot.committed);
      if (batch === undefined) return;
      this.#execute(slot.sequence, slot.committed, batch);
    }
  }

  #execute(sequence: Sequence, digest: Digest, batch: Batch): void {
    const frames: RequestFrame[] = [];
    for (const { statement } of batch) {
      const lane = laneOf(statement);
      const last = this.#state.lastReply(lane);
      // Once: a primary may propose a request again, and a client may send it again (§4.1).
      if (last === undefined || statement.timestamp > last.timestamp) {
        const results = this.#state.execute(lane, statement.timestamp, statement.operations);
        frames.push(statement);
        this.#reply(statement.client, statement.lane, statement.timestamp, results);
      }
      this.#pending.done(lane, statement.timestamp);
    }
    this.#executed = sequence;
    this.#outputs.push({ kind: "executed", sequence, digest, frames });
    if (this.#active && frames.length > 0) this.#fruitlessChanges = 0;
    if (sequence % this.#options.checkpointEvery === 0) this.#takeCheckpoint(sequence);
  }

  // ---------------------------------------------------------------------------------------------- checkpoints (§4.3)

  #takeCheckpoint(sequence: Sequence): void {
    const capture = this.#state.capture();
    this.#captures.set(sequence, capture, this.#nowMs);
    const ahead = this.#ahead;
    if (ahead !== undefined && ahead.sequence <= sequence) {
      // We got there by executing.
      this.#endTransfer();
      this.#onProven(ahead.checkpoints);
    }
    this.#sayCheckpoint(sequence, capture);
  }

  #onSnapshotSaved(sequence: Sequence): void {
    if (this.#unsavedInstall === 0 || sequence < this.#unsavedInstall) return;
    this.#unsavedInstall = 0;
    for (const [reached, capture] of this.#captures.above(this.#stable)) this.#sayCheckpoint(reached, capture);
  }

  #sayCheckpoint(sequence: Sequence, capture: Capture): void {
    // Until the fetched state below it is on disk, this state could be lost; others would forget how to rebuild it.
    if (this.#unsavedInstall > 0) return;
    const checkpoint = this.#sign({ kind: "checkpoint", replica: this.#self, sequence, digest: capture.root } as const);
    // Rebuilt from the last snapshot and the committed cells, all of which lie before this persist.
    const after = this.#persistSequence;
    this.#send(this.#others, { kind: "checkpoint", checkpoint }, after);
    this.#whenDurable(after, () => this.#onCheckpoint(checkpoint));
  }

  #onCheckpoint(checkpoint: Signed<Checkpoint>): void {
    const { sequence } = checkpoint.statement;
    if (sequence <= this.#stable || sequence % this.#options.checkpointEvery !== 0) return;
    const proof = this.#checkpoints.add(checkpoint);
    if (proof !== undefined) this.#onProven(proof);
  }

  #onStableProof(checkpoints: readonly Signed<Checkpoint>[]): void {
    const proof = proofIn(checkpoints, this.#replicas);
    if (proof === undefined) {
      this.#refuse("stable", "it proves nothing");
      return;
    }
    this.#onProven(proof);
  }

  /** A quorum holds this state: it can never be undone, and what led to it need not be kept. */
  #onProven(checkpoints: readonly Signed<Checkpoint>[]): void {
    const { sequence, digest } = (checkpoints[0] as Signed<Checkpoint>).statement;
    if (sequence <= this.#stable) return;
    const capture = this.#captures.get(sequence);
    if (capture !== undefined) {
      if (capture.root !== digest) {
        this.#halt(`the state after ${sequence} differs from what a quorum has`);
        return;
      }
      this.#makeStable(sequence, checkpoints);
    } else if (this.#executed < sequence && sequence > (this.#ahead?.sequence ?? 0)) {
      this.#ahead = { sequence, digest, checkpoints };
      // The last commits may be on their way: asking for the whole state can wait a moment.
      this.#transferAtMs ??= this.#nowMs + this.#options.statusMs;
    }
  }

  /** Moves the low watermark. */
  #makeStable(sequence: Sequence, checkpoints: readonly Signed<Checkpoint>[]): void {
    const { digest } = (checkpoints[0] as Signed<Checkpoint>).statement;
    this.#stable = sequence;
    this.#stableProof = checkpoints;
    this.#slots.dropUpTo(sequence);
    this.#checkpoints.dropUpTo(sequence);
    this.#captures.supersede(sequence, { nowMs: this.#nowMs, keptMs: 20 * this.#options.statusMs });
    this.#nextSequence = Math.max(this.#nextSequence, sequence + 1);
    this.#persist([{ cell: stableCell, bytes: encodeStableCell(checkpoints) }]);
    const capture = this.#captures.get(sequence);
    if (capture !== undefined) this.#outputs.push({ kind: "save-snapshot", snapshot: { sequence, capture, checkpoints } });
    this.#notice({ notice: "stable", sequence, digest });
    this.#propose();
  }

  // ---------------------------------------------------------------------------------------------- view change (§4.4)

  #startViewChange(view: View): void {
    assert(view > this.#view, "views only rise");
    this.#view = view;
    this.#active = false;
    this.#newView = undefined;
    this.#fruitlessChanges++;
    this.#viewDeadlineMs = undefined;
    const prepared = this.#slots
      .inOrder()
      .flatMap(({ sequence, certificate }) => (certificate !== undefined && sequence > this.#stable ? [certificate] : []));
    this.#slots.forgetView();
    const viewChange = this.#sign({
      kind: "view-change",
      replica: this.#self,
      view,
      stable: this.#stable,
      checkpoints: this.#stableProof,
      prepared,
    } as const);
    this.#ownViewChange = viewChange;
    const after = this.#persist([this.#viewCellNow()]);
    this.#send(this.#others, { kind: "view-change", viewChange }, after);
    this.#whenDurable(after, () => this.#onViewChange(viewChange));
    this.#statusAtMs = Math.min(this.#statusAtMs, this.#nowMs + this.#options.statusMs);
    this.#notice({ notice: "view-change-started", view });
  }

  #onViewChange(viewChange: Signed<ViewChange>): void {
    const { replica, view } = viewChange.statement;
    if (view < this.#view || (view === this.#view && this.#active)) return;
    const known = this.#viewChanges.get(replica);
    if (known !== undefined && known.statement.view >= view) return;
    const flaw = flawOfViewChange(viewChange.statement, { replicas: this.#replicas, windowLength: this.#options.windowLength });
    if (flaw !== undefined) {
      this.#refuse("view-change", flaw);
      return;
    }
    this.#viewChanges.set(replica, viewChange);
    this.#maybeJoin();
    this.#maybeLead();
  }

  /** f + 1 replicas want to leave this view: one of them is correct, so we leave it too (§4.5.2). */
  #maybeJoin(): void {
    const views: View[] = [];
    for (const [replica, { statement }] of this.#viewChanges) {
      if (replica !== this.#self && statement.view > this.#view) views.push(statement.view);
    }
    if (views.length >= weakQuorumOf(this.#replicas)) this.#startViewChange(Math.min(...views));
  }

  #maybeLead(): void {
    if (this.#active || this.#primary !== this.#self) return;
    const changes = [...this.#viewChanges.values()].filter(({ statement }) => statement.view === this.#view);
    // Our own is among them only once it is durable.
    if (changes.length < this.#quorum || !changes.some(({ statement }) => statement.replica === this.#self)) return;
    const viewChanges = changes.slice(0, this.#quorum);
    const view = this.#view;
    const plan = planNewView(
      viewChanges.map(({ statement }) => statement),
      this.#nullDigest,
    );
    const proposals = plan.digests.map((digest, at) =>
      this.#sign({ kind: "pre-prepare", replica: this.#self, view, sequence: plan.stable + 1 + at, digest } as const),
    );
    const newView = this.#sign({ kind: "new-view", replica: this.#self, view, viewChanges, proposals } as const);
    const after = this.#enterView(newView, plan);
    this.#send(this.#others, { kind: "new-view", newView }, after);
    this.#propose();
  }

  #onNewView(newView: Signed<NewView>): void {
    const { view, replica } = newView.statement;
    if (view < this.#view || (view === this.#view && this.#active) || replica === this.#self) return;
    const verdict = this.#judgeNewView(newView.statement);
    if (typeof verdict === "string") {
      this.#notice({ notice: "new-view-rejected", view, why: verdict });
      return;
    }
    this.#enterView(newView, verdict);
  }

  /** The plan, or why the new view is not one. */
  #judgeNewView(newView: NewView): NewViewPlan | string {
    const { view, replica, viewChanges, proposals } = newView;
    if (view < 1 || replica !== primaryOf(view, this.#replicas)) return "it is not of its view's primary";
    const group = { replicas: this.#replicas, windowLength: this.#options.windowLength };
    const by = new Set<ReplicaNumber>();
    for (const { statement } of viewChanges) {
      if (statement.view !== view) return "a view change is for another view";
      const flaw = flawOfViewChange(statement, group);
      if (flaw !== undefined) return flaw;
      by.add(statement.replica);
    }
    if (by.size < this.#quorum) return "it has too few view changes";
    const plan = planNewView(
      viewChanges.map(({ statement }) => statement),
      this.#nullDigest,
    );
    if (proposals.length !== plan.digests.length) return "it proposes too much or too little";
    for (const [at, { statement }] of proposals.entries()) {
      if (statement.view !== view || statement.replica !== replica) return "a proposal is not its own";
      if (statement.sequence !== plan.stable + 1 + at) return "its proposals have a gap";
      if (statement.digest !== plan.digests[at]) return "it proposes what the view changes do not allow";
    }
    return plan;
  }

  #enterView(newView: Signed<NewView>, plan: NewViewPlan): PersistSequence {
    const { view } = newView.statement;
    // Nothing is proposed or voted for until the new view stands.
    this.#active = false;
    this.#slots.forgetView();
    if (plan.stable > this.#stable) this.#skipTo(plan);
    const proposals = newView.statement.proposals.filter(({ statement }) => statement.sequence > this.#stable);
    this.#view = view;
    this.#active = true;
    this.#newView = newView;
    this.#ownViewChange = undefined;
    for (const [replica, { statement }] of this.#viewChanges) if (statement.view <= view) this.#viewChanges.delete(replica);
    this.#nextSequence = Math.max(this.#stable, this.#executed, plan.stable + plan.digests.length) + 1;
    // One record: a view that was entered without its proposals would have room for others in their places.
    const cells = proposals.map((proposal) => ({
      cell: proposalCell(proposal.statement.sequence),
      bytes: encodeProposalCell(proposal),
    }));
    const after = this.#persist([this.#viewCellNow(), ...cells]);
    for (const proposal of proposals) this.#takeUpAgain(proposal, after);
    this.#head = undefined;
    this.#relayPending();
    // Votes that came before this view was entered were not heard: ask for them.
    this.#statusAtMs = this.#nowMs;
    this.#notice({ notice: "view-entered", view });
    return after;
  }

  #takeUpAgain(proposal: Signed<PrePrepare>, after: PersistSequence): void {
    const { sequence, digest, view } = proposal.statement;
    const slot = this.#slots.at(sequence);
    this.#takeUp(slot, proposal, after);
    const batch = this.#batchOf(slot, digest);
    if (batch === undefined) this.#send(this.#others, { kind: "fetch-batch", sequence, digest });
    else for (const frame of batch) this.#pending.markProposed(frame, view);
  }

  /** The new view starts above our window: its checkpoint is proven, and its state will be fetched. */
  #skipTo({ stable, checkpoints }: NewViewPlan): void {
    this.#onProven(checkpoints);
    if (this.#stable < stable) this.#makeStable(stable, checkpoints);
  }

  #relayPending(): void {
    if (!this.#active || this.#isPrimary) return;
    let left = this.#options.resendMax;
    for (const { frame } of this.#pending.values()) {
      if (left-- <= 0) return;
      this.#send([this.#primary], { kind: "request", frame });
    }
  }

  // ---------------------------------------------------------------------------------------------- who lacks what

  /** Whoever is behind hears again what it lacks: everything else may be lost (TOCS 2002 §5.2). */
  #onStatus(from: ReplicaNumber, status: Extract<PbftMessage, { kind: "status" }>): void {
    if (this.#nowMs - (this.#answeredMs.get(from) ?? Number.NEGATIVE_INFINITY) < this.#options.statusMs / 4) return;
    this.#answeredMs.set(from, this.#nowMs);
    const to = [from];
    if (status.stable < this.#stable) this.#send(to, { kind: "stable", checkpoints: this.#stableProof });
    for (const checkpoint of this.#checkpoints.of(this.#self)) {
      if (checkpoint.statement.sequence > status.stable) this.#send(to, { kind: "checkpoint", checkpoint });
    }
    if (!this.#active) {
      const own = this.#viewChanges.get(this.#self);
      if (status.view <= this.#view && own !== undefined) this.#send(to, { kind: "view-change", viewChange: own });
      return;
    }
    if (status.view < this.#view || (status.view === this.#view && !status.active)) {
      if (this.#newView !== undefined) this.#send(to, { kind: "new-view", newView: this.#newView });
    } else if (status.view === this.#view) this.#resendSlots(to, status.executed);
  }

  #resendSlots(to: readonly ReplicaNumber[], executed: Sequence): void {
    const last = Math.min(this.#slots.highest, executed + this.#options.resendMax);
    for (let sequence = Math.max(executed, this.#stable) + 1; sequence <= last; sequence++) {
      const slot = this.#slots.get(sequence);
      if (slot?.proposal === undefined || !slot.proposalDurable) continue;
      const { proposal } = slot;
      const batch = this.#batchOf(slot, proposal.statement.digest);
      // Behind whatever is being written: the batch may have come after the proposal, and is vouched for with it.
      if (batch !== undefined) this.#send(to, { kind: "pre-prepare", proposal, batch }, this.#persistSequence);
      const prepare = slot.prepares.get(this.#self);
      if (prepare !== undefined) this.#send(to, { kind: "prepare", vote: prepare });
      const commit = slot.commits.get(this.#self);
      if (commit !== undefined) this.#send(to, { kind: "commit", vote: commit });
    }
  }

  #onFetchBatch(from: ReplicaNumber, sequence: Sequence, digest: Digest): void {
    const batch = this.#slots.get(sequence)?.batches.get(digest);
    if (batch !== undefined) this.#send([from], { kind: "batch", sequence, batch });
  }

  /** Any batch is welcome whose digest the proposal, or what was agreed, has named. */
  #onBatch(sequence: Sequence, batch: Batch): void {
    const slot = this.#slots.get(sequence);
    if (slot === undefined) return;
    const digest = this.#crypto.digest(encodeBatch(batch));
    const wanted = slot.proposal?.statement.digest === digest || slot.committed === digest;
    if (!wanted || slot.batches.has(digest) || digest === this.#nullDigest) return;
    const after = this.#persist(this.#keepBatch(slot, digest, batch));
    if (this.#active) this.#vote(slot, after);
    this.#advance(slot);
    this.#executeReady();
  }

  // ---------------------------------------------------------------------------------------------- state transfer

  #onFetchParts(from: ReplicaNumber, sequence: Sequence): void {
    const capture = this.#captures.handOut(sequence, this.#nowMs);
    if (capture !== undefined) {
      this.#send([from], { kind: "parts", sequence, digests: capture.parts.map((part) => part.digest) });
    } else if (sequence < this.#stable) this.#send([from], { kind: "stable", checkpoints: this.#stableProof });
  }

  #onFetchPart(from: ReplicaNumber, sequence: Sequence, part: number): void {
    const bytes = this.#captures.handOut(sequence, this.#nowMs)?.parts[part]?.bytes;
    if (bytes !== undefined) this.#send([from], { kind: "part", sequence, part, bytes });
    else if (sequence < this.#stable) this.#send([from], { kind: "stable", checkpoints: this.#stableProof });
  }

  #startTransfer(target: TransferTarget): void {
    this.#notice({ notice: "transfer-started", sequence: target.sequence });
    this.#transfer = new StateTransfer({
      self: this.#self,
      replicas: this.#replicas,
      digest: (bytes) => this.#crypto.digest(bytes),
      inFlightMax: this.#options.partsInFlightMax,
      own: this.#state.capture(),
      target,
    });
  }

  #advanceTransfer(): void {
    const transfer = this.#transfer;
    if (transfer === undefined) return;
    const capture = transfer.complete();
    if (capture !== undefined) {
      this.#install(transfer.target, capture);
      return;
    }
    for (const { to, message } of transfer.asks()) this.#send([to], message);
    this.#transferAtMs = this.#nowMs + this.#options.statusMs;
  }

  #endTransfer(): void {
    this.#transfer = undefined;
    this.#transferAtMs = undefined;
    this.#ahead = undefined;
  }

  #install({ sequence, checkpoints }: TransferTarget, capture: Capture): void {
    const ahead = this.#ahead;
    this.#endTransfer();
    if (sequence > this.#executed) this.#replaceState(sequence, capture, checkpoints);
    // Meanwhile the others went on, and we may have to fetch again; mostly their next commits suffice.
    if (ahead !== undefined && ahead.sequence > sequence) this.#onProven(ahead.checkpoints);
    this.#executeReady();
    this.#propose();
  }

  #replaceState(sequence: Sequence, capture: Capture, checkpoints: readonly Signed<Checkpoint>[]): void {
    this.#state.install(capture);
    this.#executed = sequence;
    this.#captures.set(sequence, capture, this.#nowMs);
    this.#unsavedInstall = sequence;
    for (const { frame } of [...this.#pending.values()]) {
      const lane = laneOf(frame.statement);
      this.#pending.done(lane, this.#state.lastReply(lane)?.timestamp ?? -1);
    }
    this.#notice({ notice: "transfer-done", sequence });
    if (sequence > this.#stable) this.#makeStable(sequence, checkpoints);
    else this.#outputs.push({ kind: "save-snapshot", snapshot: { sequence, capture, checkpoints } });
    this.#slots.dropUpTo(sequence);
  }

  // ---------------------------------------------------------------------------------------------- time (§4.5.2)

  #onTime(): void {
    this.#updateViewDeadline();
    if (this.#viewDeadlineMs !== undefined && this.#viewDeadlineMs <= this.#nowMs) {
      this.#startViewChange(this.#view + 1);
      this.#updateViewDeadline();
    }
    if (this.#transferAtMs !== undefined && this.#transferAtMs <= this.#nowMs) this.#onTransferTimeout();
    if (this.#isUnsettled()) this.#statusAtMs = Math.min(this.#statusAtMs, this.#nowMs + this.#options.statusMs);
    if (this.#statusAtMs <= this.#nowMs) this.#sayStatus();
  }

  /** The wait doubles while view changes bring nothing, or correct replicas would never meet in one view (§4.5.2). */
  #patienceMs(): number {
    return Math.min(
      this.#options.viewChangeTimeoutMs * 2 ** Math.min(this.#fruitlessChanges, 30),
      this.#options.viewChangeTimeoutMsMax,
    );
  }

  #updateViewDeadline(): void {
    if (!this.#active) {
      // Only once a quorum is on its way may the next view be called for: alone, a replica would run ahead for ever.
      let count = 0;
      for (const { statement } of this.#viewChanges.values()) if (statement.view >= this.#view) count++;
      if (count < this.#quorum) this.#viewDeadlineMs = undefined;
      else this.#viewDeadlineMs ??= this.#nowMs + this.#patienceMs();
      return;
    }
    const head = this.#pending.first()?.frame;
    if (head !== this.#head) {
      this.#head = head;
      this.#headSinceMs = this.#nowMs;
    }
    this.#viewDeadlineMs = head === undefined || this.#isPrimary ? undefined : this.#headSinceMs + this.#patienceMs();
  }

  #onTransferTimeout(): void {
    const ahead = this.#ahead;
    if (ahead === undefined) {
      this.#transferAtMs = undefined;
      return;
    }
    if (this.#transfer === undefined) this.#startTransfer(ahead);
    else this.#transfer.nextPeer(ahead);
    this.#advanceTransfer();
  }

  #isUnsettled(): boolean {
    return (
      !this.#active ||
      this.#pending.size > 0 ||
      this.#ahead !== undefined ||
      this.#executed < this.#slots.highest ||
      this.#executed - this.#stable >= this.#options.checkpointEvery
    );
  }

  #sayStatus(): void {
    this.#statusAtMs = this.#nowMs + (this.#isUnsettled() ? this.#options.statusMs : this.#options.statusIdleMs);
    this.#send(this.#others, {
      kind: "status",
      view: this.#view,
      active: this.#active,
      stable: this.#stable,
      executed: this.#executed,
    });
    this.#relayPending();
    this.#askForBatches();
  }

  /** What a new view proposed and we never saw. */
  #askForBatches(): void {
    if (!this.#active) return;
    let left = this.#options.resendMax;
    for (const slot of this.#slots.inOrder()) {
      if (left <= 0) return;
      const digest = slot.committed ?? slot.proposal?.statement.digest;
      if (digest === undefined || slot.sequence <= this.#executed || this.#batchOf(slot, digest) !== undefined) continue;
      this.#send(this.#others, { kind: "fetch-batch", sequence: slot.sequence, digest });
      left--;
    }
  }

  // ---------------------------------------------------------------------------------------------- durability

  #persist(changes: readonly CellChange[]): PersistSequence {
    if (changes.length === 0) return this.#persistSequence;
    this.#persistSequence++;
    this.#outputs.push({ kind: "persist", sequence: this.#persistSequence, changes });
    return this.#persistSequence;
  }

  #viewCellNow(): CellChange {
    const bytes = encodeViewCell({
      view: this.#view,
      active: this.#active,
      viewChange: this.#ownViewChange,
      newView: this.#newView,
    });
    return { cell: viewCell, bytes };
  }

  #whenDurable(after: PersistSequence, act: () => void): void {
    this.#awaiting.push({ after, act });
  }

  #onPersisted(sequence: PersistSequence): void {
    this.#durable = Math.max(this.#durable, sequence);
    this.#runDurable();
  }

  #runDurable(): void {
    while (this.#awaiting.length > 0 && (this.#awaiting[0] as Awaiting).after <= this.#durable) {
      (this.#awaiting.shift() as Awaiting).act();
    }
  }

  /** From the disk: what was said before the crash is said again, never something else. */
  #recover({ cells, snapshot }: PbftRecovered): void {
    if (snapshot !== undefined) {
      this.#state.install(snapshot.capture);
      this.#executed = snapshot.sequence;
      this.#stable = snapshot.sequence;
      this.#stableProof = snapshot.checkpoints;
      this.#captures.set(snapshot.sequence, snapshot.capture, this.#nowMs);
    }
    const view = cells.get(viewCell);
    if (view !== undefined) {
      const cell = decodeViewCell(view);
      this.#view = cell.view;
      this.#active = cell.active;
      this.#newView = cell.newView;
      this.#ownViewChange = cell.viewChange;
    }
    for (const [cell, bytes] of cells) this.#recoverSlot(cell, bytes);
    this.#executeReady();
    this.#recoverStable(cells.get(stableCell));
    for (const slot of this.#slots.inOrder()) this.#recoverVotes(slot);
    if (this.#ownViewChange !== undefined) {
      const viewChange = this.#ownViewChange;
      this.#viewChanges.set(this.#self, viewChange);
      this.#send(this.#others, { kind: "view-change", viewChange });
    }
    this.#nextSequence = Math.max(this.#stable, this.#executed, this.#slots.highest) + 1;
    this.#runDurable();
  }

  #recoverSlot(cell: string, bytes: Uint8Array): void {
    const name = parseCellName(cell);
    if (!("sequence" in name) || name.sequence <= this.#executed) return;
    const slot = this.#slots.at(name.sequence);
    switch (name.kind) {
      case "proposal": {
        const proposal = decodeProposalCell(bytes);
        if (this.#active && proposal.statement.view === this.#view) slot.proposal = proposal;
        break;
      }
      case "prepared":
        slot.certificate = decodePreparedCell(bytes);
        break;
      case "committed":
        slot.committed = decodeCommittedCell(bytes);
        break;
      case "batch":
        slot.batches.set(name.digest, decodeBatchCell(bytes));
        break;
    }
  }

  #recoverStable(bytes: Uint8Array | undefined): void {
    if (bytes === undefined) return;
    const checkpoints = decodeStableCell(bytes);
    const sequence = checkpoints[0]?.statement.sequence ?? 0;
    if (sequence <= this.#stable) return;
    this.#onProven(checkpoints);
    // Forgotten below by all the others: nothing there may be asked for any more.
    if (this.#stable < sequence) this.#makeStable(sequence, checkpoints);
  }

  #recoverVotes(slot: Slot): void {
    const { proposal, certificate } = slot;
    if (proposal === undefined) return;
    slot.proposalDurable = true;
    const { view, sequence, digest } = proposal.statement;
    this.#vote(slot, 0);
    if (certificate?.proposal.statement.view !== view) return;
    slot.prepared = true;
    const vote = this.#sign({ kind: "commit", replica: this.#self, view, sequence, digest } as const);
    this.#send(this.#others, { kind: "commit", vote });
    this.#whenDurable(0, () => this.#onVote(vote, "commit"));
  }

  // ---------------------------------------------------------------------------------------------- small things

  #isInWindow(sequence: Sequence): boolean {
    return sequence > this.#stable && sequence <= this.#stable + this.#options.windowLength;
  }

  #sign<S extends Statement>(statement: S): Signed<S> {
    const bytes = encodeStatement(statement);
    return { statement, bytes, signature: this.#crypto.sign(bytes) };
  }

  #send(to: readonly ReplicaNumber[], message: PbftMessage, after: PersistSequence = 0): void {
    this.#outputs.push({ kind: "send", to, message, after });
  }

  #notice(notice: PbftNotice): void {
    this.#outputs.push({ kind: "notice", notice });
  }

  #refuse(what: PbftMessage["kind"], why: string): void {
    this.#notice({ notice: "refused", what, why });
  }

  #halt(why: string): void {
    this.#outputs.push({ kind: "halt", why });
  }

  #finish(): readonly PbftOutput[] {
    this.#onTime();
    const never = Number.POSITIVE_INFINITY;
    const atMs = Math.min(this.#statusAtMs, this.#viewDeadlineMs ?? never, this.#transferAtMs ?? never);
    if (atMs !== this.#timerMs) {
      this.#timerMs = atMs;
      this.#outputs.push({ kind: "timer", atMs });
    }
    return this.#outputs;
  }
}

/** For status and docs. */
export function toleranceOf(replicas: number): { readonly faults: number; readonly quorum: number } {
  return { faults: faultsTolerated(replicas), quorum: quorumOf(replicas) };
}
