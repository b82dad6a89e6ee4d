/**
 * What must hold of PBFT's *correct* replicas after every step, on every letter that leaves and on every disk, whatever the
 * faulty ones do. Ghost state that no replica ever sees; each check has a name, which the kill table of planted bugs cites.
 *
 * Source: `research/consensus.md` §4.0 and §4.4. A faulty replica may say anything, so a quorum is judged by what the
 * correct ones did: at least quorum - faulty of them. The strongest checks look at disks and letters, not at the core.
 */
import { toBinaryString } from "../base/bytes.ts";
import {
  batchCell,
  cellSequence,
  committedCell,
  decodePreparedCell,
  decodeProposalCell,
  preparedCell,
  proposalCell,
} from "../consensus/pbft/cells.ts";
import type { PbftInput, PbftNotice, PbftOutput, PbftRecovered } from "../consensus/pbft/core.ts";
import type {
  Digest,
  NewView,
  PbftMessage,
  ReplicaNumber,
  RequestFrame,
  Sequence,
  View,
  ViewChange,
} from "../consensus/pbft/messages.ts";
import type { Pbft } from "../consensus/pbft/pbft.ts";
import { laneOf } from "../consensus/pbft/pending-requests.ts";
import { quorumOf } from "../consensus/pbft/quorum.ts";
import { encodeStatement } from "../consensus/pbft/statements.ts";
import { planNewView } from "../consensus/pbft/view-change.ts";
import { Coverage } from "./coverage.ts";
import { InvariantViolation } from "./invariant-violation.ts";

export interface PbftCounts {
  executed: number;
  viewChanges: number;
  viewsEntered: number;
  newViewsRejected: number;
  transfers: number;
  equivocations: number;
  stableCheckpoints: number;
  refused: number;
  restarts: number;
}

/** What a power cut now would leave of a correct replica. */
export interface DurableReplica {
  readonly cells: Map<string, Uint8Array>;
  snapshot: PbftRecovered["snapshot"];
}

interface Agreed {
  readonly digest: Digest;
  /** No view before this one knows of it for certain. */
  readonly view: View;
  readonly frames: readonly string[];
}

interface Voted {
  readonly view: View;
  readonly digest: Digest;
}

type VoteKind = "pre-prepare" | "prepare" | "commit";
type Vote = { readonly view: View; readonly sequence: Sequence; readonly digest: Digest };

/** One correct replica, across its restarts. */
interface Ghost {
  readonly replica: ReplicaNumber;
  /** By view and sequence: what it has said on the wire. */
  readonly said: Readonly<Record<VoteKind, Map<number, Digest>>>;
  /** By view: the view change that it asked for it with. */
  readonly viewChanges: Map<View, Uint8Array>;
  readonly newViews: Set<View>;
  /** By sequence: its commit of the highest view. */
  readonly commits: Map<Sequence, Voted>;
  /** The highest view that it has asked for. */
  left: View;
  executed: Sequence;
  stable: Sequence;
}

function fail(invariant: string, details: string): never {
  throw new InvariantViolation(invariant, details);
}

export class PbftChecker {
  readonly counts: PbftCounts = {
    executed: 0,
    viewChanges: 0,
    viewsEntered: 0,
    newViewsRejected: 0,
    transfers: 0,
    equivocations: 0,
    stableCheckpoints: 0,
    refused: 0,
    restarts: 0,
  };
  readonly coverage = new Coverage();
  readonly #quorum: number;
  readonly #faulty: number;
  readonly #windowLength: number;
  readonly #nullDigest: Digest;
  readonly #disks: ReadonlyMap<ReplicaNumber, DurableReplica>;
  readonly #ghosts = new Map<ReplicaNumber, Ghost>();
  readonly #agreed = new Map<Sequence, Agreed>();
  /** Of each client's lane and timestamp: where it took effect. */
  readonly #effects = new Map<string, Sequence>();
  readonly #signed = new Set<string>();
  readonly #replies = new Map<string, string>();
  /** By view and sequence, then by digest: the correct replicas that voted for it. */
  readonly #voters = new Map<number, Map<Digest, Set<ReplicaNumber>>>();
  /** By view and sequence. */
  readonly #prepared = new Map<number, Digest>();
  readonly #checkpoints = new Map<Sequence, { readonly digest: Digest; readonly by: Set<ReplicaNumber> }>();
  #highest: Sequence = 0;

  constructor(parts: {
    readonly replicas: number;
    readonly faulty: number;
    readonly windowLength: number;
    readonly nullDigest: Digest;
    readonly disks: ReadonlyMap<ReplicaNumber, DurableReplica>;
  }) {
    this.#quorum = quorumOf(parts.replicas);
    this.#faulty = parts.faulty;
    this.#windowLength = parts.windowLength;
    this.#nullDigest = parts.nullDigest;
    this.#disks = parts.disks;
  }

  /** The highest sequence that any correct replica has executed. */
  get highest(): Sequence {
    return this.#highest;
  }

  /** A client, honest or not, has signed this. */
  onSigned(frame: RequestFrame): void {
    this.#signed.add(contentOf(frame));
  }

  onStart(replica: ReplicaNumber, recovered: PbftRecovered, outputs: readonly PbftOutput[], core: Pbft): void {
    const known = this.#ghosts.get(replica);
    const ghost: Ghost = known ?? {
      replica,
      said: { "pre-prepare": new Map(), prepare: new Map(), commit: new Map() },
      viewChanges: new Map(),
      newViews: new Set(),
      commits: new Map(),
      left: 0,
      executed: 0,
      stable: 0,
    };
    if (known !== undefined) {
      this.counts.restarts++;
      if (recovered.cells.size > 0) this.coverage.hit("a correct replica restarts with votes on its disk");
    }
    this.#ghosts.set(replica, ghost);
    ghost.executed = recovered.snapshot?.sequence ?? 0;
    ghost.stable = ghost.executed;
    this.#onOutputs(ghost, outputs, core);
  }

  onStep(replica: ReplicaNumber, input: PbftInput, outputs: readonly PbftOutput[], core: Pbft): void {
    const ghost = this.#ghosts.get(replica) as Ghost;
    this.#onOutputs(ghost, outputs, core);
    if (core.stable < ghost.stable) fail("WatermarkMonotonic", `replica ${replica} fell from ${ghost.stable} to ${core.stable}`);
    ghost.stable = core.stable;
    if (input.kind === "message" && input.message.kind === "batch") this.coverage.hit("a batch is fetched after a new view");
    if (input.kind === "message" && input.message.kind === "new-view" && entered(outputs, input.message.newView.statement.view))
      this.#onNewViewAccepted(replica, input.message.newView.statement);
  }

  /** As a letter of a correct replica leaves its host. */
  onWire(replica: ReplicaNumber, message: PbftMessage): void {
    const ghost = this.#ghosts.get(replica) as Ghost;
    switch (message.kind) {
      case "pre-prepare":
        // Others' proposals may be passed on.
        if (message.proposal.statement.replica === replica) this.#onProposalSaid(ghost, message.proposal.statement);
        break;
      case "prepare":
        this.#say(ghost, "prepare", message.vote.statement);
        this.#mustBeOnDisk(ghost, message.vote.statement);
        this.#onVoter(ghost, message.vote.statement);
        break;
      case "commit":
        this.#onCommitSaid(ghost, message.vote.statement);
        break;
      case "checkpoint":
        if (message.checkpoint.statement.replica === replica) this.#onCheckpointSaid(ghost, message.checkpoint.statement);
        break;
      case "view-change":
        if (message.viewChange.statement.replica === replica)
          this.#onViewChangeSaid(ghost, message.viewChange.statement, message.viewChange.bytes);
        break;
      case "new-view":
        if (message.newView.statement.replica === replica) this.#onNewViewSaid(ghost, message.newView.statement);
        break;
      default:
        break;
    }
  }

  /** What f + 1 replicas made a client believe. */
  onAccepted(lane: string, timestamp: number, results: readonly Uint8Array[]): void {
    const agreed = this.#replies.get(`${lane}@${timestamp}`);
    if (agreed === undefined)
      fail("ReplyTruth", `client ${lane} believes an answer to ${timestamp} that no correct replica gave`);
    if (agreed !== textOf(results)) fail("ReplyTruth", `client ${lane} believes another answer to ${timestamp} than was agreed`);
  }

  /** What a flooding peer could make grow; looked at now and then. */
  onProbe(core: Pbft, limits: Readonly<Record<string, number>>): void {
    for (const [name, size] of Object.entries(core.probe().sizes)) {
      if (size > (limits[name] ?? 0)) fail("BoundedBuffers", `${size} ${name} are held, ${limits[name]} are allowed`);
    }
  }

  // ---------------------------------------------------------------------------------------------- steps

  #onOutputs(ghost: Ghost, outputs: readonly PbftOutput[], core: Pbft): void {
    for (const output of outputs) {
      switch (output.kind) {
        case "executed":
          this.#onExecuted(ghost, output, core);
          break;
        case "reply":
          this.#onReply(output.reply.statement);
          break;
        case "send":
          this.#onSend(ghost, output.message, core);
          break;
        case "notice":
          this.#onNotice(ghost, output.notice);
          break;
        case "halt":
          fail("Halt", `correct replica ${ghost.replica} stopped: ${output.why}`);
          break;
        default:
          break;
      }
    }
  }

  #onExecuted(ghost: Ghost, output: Extract<PbftOutput, { kind: "executed" }>, core: Pbft): void {
    const { sequence, digest, frames } = output;
    if (sequence !== ghost.executed + 1)
      fail("Contiguity", `replica ${ghost.replica} executed ${sequence} after ${ghost.executed}`);
    ghost.executed = sequence;
    const names = frames.map((frame) => `${laneOf(frame)}@${frame.timestamp}`);
    const agreed = this.#agreed.get(sequence);
    if (agreed === undefined) {
      this.#onFirstExecution(ghost, output, core.view, names);
      return;
    }
    if (agreed.digest !== digest) fail("Agreement", `replica ${ghost.replica} executed another batch at ${sequence}`);
    if (agreed.frames.join() !== names.join())
      fail("SameEffect", `at ${sequence} replica ${ghost.replica} ran [${names}], others [${agreed.frames}]`);
  }

  #onFirstExecution(
    ghost: Ghost,
    { sequence, digest, frames }: Extract<PbftOutput, { kind: "executed" }>,
    view: View,
    names: readonly string[],
  ): void {
    this.counts.executed++;
    this.#highest = Math.max(this.#highest, sequence);
    this.#agreed.set(sequence, { digest, view, frames: names });
    for (const [at, frame] of frames.entries()) {
      const name = names[at] as string;
      const before = this.#effects.get(name);
      if (before !== undefined) fail("ExactlyOnce", `${name} took effect at ${before} and again at ${sequence}`);
      this.#effects.set(name, sequence);
      if (!this.#signed.has(contentOf(frame)))
        fail("Validity", `${name}, executed at ${sequence}, was never signed by its client`);
    }
    let onDisk = 0;
    for (const disk of this.#disks.values()) if (isCertified(disk, sequence, digest)) onDisk++;
    if (onDisk < this.#quorum - this.#faulty)
      fail(
        "CommittedOnQuorumDisk",
        `replica ${ghost.replica} executed ${sequence}, which only ${onDisk} correct disks can prove`,
      );
  }

  #onReply(reply: { client: string; lane: number; timestamp: number; results: readonly Uint8Array[] }): void {
    const name = `${laneOf(reply)}@${reply.timestamp}`;
    const text = textOf(reply.results);
    const known = this.#replies.get(name);
    if (known === undefined) this.#replies.set(name, text);
    else if (known !== text) fail("ReplyAgreement", `correct replicas answer ${name} differently`);
  }

  #onSend(ghost: Ghost, message: PbftMessage, core: Pbft): void {
    if (message.kind === "checkpoint") {
      const { replica, sequence, digest } = message.checkpoint.statement;
      if (replica === ghost.replica) this.#reach(ghost.replica, sequence, digest);
      return;
    }
    const statement =
      message.kind === "prepare" || message.kind === "commit"
        ? message.vote.statement
        : message.kind === "pre-prepare"
          ? message.proposal.statement
          : undefined;
    if (statement === undefined || statement.view !== core.view) return;
    // A letter of an earlier part of the same step may lie below a watermark that has moved since, never above.
    if (statement.sequence < 1 || statement.sequence > core.stable + this.#windowLength)
      fail("WatermarkBounds", `replica ${ghost.replica} votes at ${statement.sequence}, its window begins at ${core.stable}`);
  }

  #onNotice(ghost: Ghost, notice: PbftNotice): void {
    const { counts } = this;
    switch (notice.notice) {
      case "view-change-started":
        counts.viewChanges++;
        break;
      case "view-entered":
        counts.viewsEntered++;
        break;
      case "new-view-rejected":
        counts.newViewsRejected++;
        this.coverage.hit("a new view is refused");
        break;
      case "transfer-started":
        break;
      case "transfer-done":
        counts.transfers++;
        this.coverage.hit("a state is fetched from others");
        ghost.executed = notice.sequence;
        break;
      case "equivocation":
        counts.equivocations++;
        this.coverage.hit("a replica that says two things is caught");
        break;
      case "refused":
        counts.refused++;
        this.coverage.hit("a proof that proves nothing is refused");
        break;
      case "stable":
        this.#onStable(ghost, notice.sequence, notice.digest);
        break;
    }
  }

  /** A stable checkpoint is what correct replicas have computed, enough of them to keep it alive. */
  #onStable(ghost: Ghost, sequence: Sequence, digest: Digest): void {
    this.counts.stableCheckpoints++;
    const known = this.#checkpoints.get(sequence);
    if (known === undefined || known.digest !== digest)
      fail("StableTruth", `replica ${ghost.replica} holds a checkpoint at ${sequence} that no correct replica computed`);
    if (known.by.size < this.#quorum - this.#faulty)
      fail(
        "StableTruth",
        `replica ${ghost.replica} holds ${sequence} for stable, which ${known.by.size} correct replicas have reached`,
      );
  }

  #reach(replica: ReplicaNumber, sequence: Sequence, digest: Digest): void {
    const known = this.#checkpoints.get(sequence);
    if (known === undefined) this.#checkpoints.set(sequence, { digest, by: new Set([replica]) });
    else if (known.digest !== digest) fail("CheckpointAgreement", `replica ${replica} has another state after ${sequence}`);
    else known.by.add(replica);
  }

  // ---------------------------------------------------------------------------------------------- letters

  /** A correct replica never contradicts itself, not even across a crash. */
  #say(ghost: Ghost, kind: VoteKind, { view, sequence, digest }: Vote): void {
    const said = ghost.said[kind];
    const key = placeOf(view, sequence);
    const before = said.get(key);
    if (before === undefined) said.set(key, digest);
    else if (before !== digest)
      fail("VoteOnce", `replica ${ghost.replica} says two things in ${kind} of ${sequence} in view ${view}`);
    if (view < ghost.left) fail("ViewMonotonic", `replica ${ghost.replica} votes in view ${view} after asking for ${ghost.left}`);
  }

  #onVoter(ghost: Ghost, { view, sequence, digest }: Vote): void {
    const key = placeOf(view, sequence);
    let byDigest = this.#voters.get(key);
    if (byDigest === undefined) {
      byDigest = new Map();
      this.#voters.set(key, byDigest);
    }
    const voters = byDigest.get(digest);
    if (voters === undefined) byDigest.set(digest, new Set([ghost.replica]));
    else voters.add(ghost.replica);
  }

  #onProposalSaid(ghost: Ghost, statement: Vote): void {
    this.#say(ghost, "pre-prepare", statement);
    this.#mustBeOnDisk(ghost, statement);
    this.#onVoter(ghost, statement);
  }

  #onCommitSaid(ghost: Ghost, statement: Vote): void {
    const { view, sequence, digest } = statement;
    this.#say(ghost, "commit", statement);
    const key = placeOf(view, sequence);
    const voters = this.#voters.get(key)?.get(digest)?.size ?? 0;
    if (voters < this.#quorum - this.#faulty)
      fail(
        "PreparedTruth",
        `replica ${ghost.replica} commits ${sequence} in view ${view}, for which ${voters} correct replicas voted`,
      );
    const prepared = this.#prepared.get(key);
    if (prepared === undefined) this.#prepared.set(key, digest);
    else if (prepared !== digest) fail("PreparedUnique", `two batches are prepared at ${sequence} in view ${view}`);
    const disk = this.#disks.get(ghost.replica) as DurableReplica;
    const certificate = preparedOf(disk, sequence);
    const holds =
      certificate !== undefined && certificate.view >= view && (certificate.view > view || certificate.digest === digest);
    if (!holds && !isCovered(disk, sequence))
      fail("PersistBeforeSend", `replica ${ghost.replica} commits ${sequence} in view ${view} without the proof on its disk`);
    const before = ghost.commits.get(sequence);
    if (before === undefined || before.view < view) ghost.commits.set(sequence, { view, digest });
  }

  /** What is voted for is on the voter's disk, batch included: whoever vouches for it can hand it out. */
  #mustBeOnDisk(ghost: Ghost, { view, sequence, digest }: Vote): void {
    const disk = this.#disks.get(ghost.replica) as DurableReplica;
    if (isCovered(disk, sequence)) return;
    const proposal = proposalOf(disk, sequence);
    const holds = proposal !== undefined && (proposal.view > view || (proposal.view === view && proposal.digest === digest));
    if (!holds) fail("PersistBeforeSend", `replica ${ghost.replica} votes at ${sequence} in view ${view} before its disk knows`);
    if (proposal.view === view && digest !== this.#nullDigest && !disk.cells.has(batchCell(sequence, digest)))
      fail("PersistBeforeSend", `replica ${ghost.replica} votes at ${sequence} in view ${view} without the batch on its disk`);
  }

  /** Whoever states a checkpoint can rebuild it after a power cut: the others will forget what led to it. */
  #onCheckpointSaid(ghost: Ghost, { sequence, digest }: { sequence: Sequence; digest: Digest }): void {
    this.#reach(ghost.replica, sequence, digest);
    const disk = this.#disks.get(ghost.replica) as DurableReplica;
    for (let at = (disk.snapshot?.sequence ?? 0) + 1; at <= sequence; at++) {
      if (!disk.cells.has(committedCell(at)))
        fail("CheckpointOnDisk", `replica ${ghost.replica} states its state after ${sequence}, and could not rebuild ${at}`);
    }
  }

  /** Whatever it has committed above its checkpoint, a correct replica must tell the next view. */
  #onViewChangeSaid(ghost: Ghost, change: ViewChange, bytes: Uint8Array): void {
    const before = ghost.viewChanges.get(change.view);
    // Said again word for word, it is mostly the same array.
    if (before === bytes) return;
    if (before !== undefined && !(before.length === bytes.length && before.every((byte, at) => byte === bytes[at])))
      fail("VoteOnce", `replica ${ghost.replica} asks for view ${change.view} in two ways`);
    if (before !== undefined) return;
    ghost.viewChanges.set(change.view, bytes);
    if (change.view < ghost.left)
      fail("ViewMonotonic", `replica ${ghost.replica} asks for view ${change.view} after ${ghost.left}`);
    ghost.left = change.view;
    const told = new Map(change.prepared.map(({ proposal }) => [proposal.statement.sequence, proposal.statement]));
    for (const [sequence, { view, digest }] of ghost.commits) {
      if (sequence <= change.stable) continue;
      const certificate = told.get(sequence);
      if (certificate === undefined || certificate.view < view || (certificate.view === view && certificate.digest !== digest))
        fail("ViewChangeTruth", `replica ${ghost.replica} hides from view ${change.view} what it committed at ${sequence}`);
    }
  }

  #onNewViewSaid(ghost: Ghost, newView: NewView): void {
    if (!ghost.newViews.has(newView.view)) {
      ghost.newViews.add(newView.view);
      this.#onNewViewAccepted(ghost.replica, newView);
    }
    for (const { statement } of newView.proposals) {
      this.#say(ghost, "pre-prepare", statement);
      this.#onVoter(ghost, statement);
    }
  }

  /** What was committed before stays (OSDI 1999 §4.5.1): the one purpose of a view change. */
  #onNewViewAccepted(replica: ReplicaNumber, { view, viewChanges, proposals }: NewView): void {
    const { stable } = planNewView(
      viewChanges.map(({ statement }) => statement),
      this.#nullDigest,
    );
    for (const { statement } of proposals) {
      const isNull = statement.digest === this.#nullDigest;
      this.coverage.hit(isNull ? "a new view fills a gap with the null request" : "a new view proposes again what was prepared");
    }
    const proposed = new Map(proposals.map(({ statement }) => [statement.sequence, statement.digest]));
    for (let sequence = stable + 1; sequence <= this.#highest; sequence++) {
      const agreed = this.#agreed.get(sequence);
      if (agreed === undefined || agreed.view >= view) continue;
      if (proposed.get(sequence) !== agreed.digest)
        fail("NewViewKeepsCommitted", `replica ${replica} enters view ${view}, which undoes ${sequence} of view ${agreed.view}`);
    }
  }
}

function entered(outputs: readonly PbftOutput[], view: View): boolean {
  return outputs.some(
    (output) => output.kind === "notice" && output.notice.notice === "view-entered" && output.notice.view === view,
  );
}

function isCovered(disk: DurableReplica, sequence: Sequence): boolean {
  return disk.snapshot !== undefined && disk.snapshot.sequence >= sequence;
}

function isCertified(disk: DurableReplica, sequence: Sequence, digest: Digest): boolean {
  return isCovered(disk, sequence) || preparedOf(disk, sequence)?.digest === digest;
}

/** What the bytes of cells state; they never change, and are looked at by every vote and execution. All forgotten when full. */
const statements = new Map<Uint8Array, Vote>();
const statementsMax = 1_024;

function proposalOf(disk: DurableReplica, sequence: Sequence): Vote | undefined {
  return statementIn(disk.cells.get(proposalCell(sequence)), (bytes) => decodeProposalCell(bytes).statement);
}

function preparedOf(disk: DurableReplica, sequence: Sequence): Vote | undefined {
  return statementIn(disk.cells.get(preparedCell(sequence)), (bytes) => decodePreparedCell(bytes).proposal.statement);
}

function statementIn(bytes: Uint8Array | undefined, decode: (bytes: Uint8Array) => Vote): Vote | undefined {
  if (bytes === undefined) return undefined;
  let statement = statements.get(bytes);
  if (statement === undefined) {
    statement = decode(bytes);
    if (statements.size >= statementsMax) statements.clear();
    statements.set(bytes, statement);
  }
  return statement;
}

/** Runs are short: a sequence takes 21 bits at most, a view the 32 above. */
function placeOf(view: View, sequence: Sequence): number {
  return view * 2 ** 21 + sequence;
}

function contentOf(frame: RequestFrame): string {
  return toBinaryString(encodeStatement(frame));
}

function textOf(results: readonly Uint8Array[]): string {
  return results.map((result) => toBinaryString(result)).join(";");
}

/** Drops what a durable snapshot at the sequence makes superfluous. */
export function dropCovered(disk: DurableReplica, sequence: Sequence): void {
  for (const cell of disk.cells.keys()) {
    const of = cellSequence(cell);
    if (of !== undefined && of <= sequence) disk.cells.delete(cell);
  }
}
