/**
 * A faulty replica: it knows the protocol, holds its own key and nobody else's, and lies in moods that change with time.
 *
 * Inside runs a real replica, or two of them with one key (a twin), so that its lies are plausible; on the way out the
 * mood of the hour drops, delays, doubles, splits, alters and re-signs what they say.
 * Sources: Bano et al., "Twins: BFT systems made robust", OPODIS 2021; Winter et al., "Randomized testing of Byzantine
 * fault tolerant algorithms" (ByzzFuzz: small mutations of fields), OOPSLA 2023.
 */
import type { PbftInput, PbftOutput } from "../consensus/pbft/core.ts";
import type {
  Batch,
  Checkpoint,
  Digest,
  NewView,
  PbftMessage,
  PrePrepare,
  Prepare,
  PreparedCertificate,
  ReplicaNumber,
  RequestFrame,
  Signed,
  Statement,
  ViewChange,
} from "../consensus/pbft/messages.ts";
import type { Pbft } from "../consensus/pbft/pbft.ts";
import { encodeBatch, encodeStatement } from "../consensus/pbft/statements.ts";
import { primaryOf } from "../consensus/pbft/view-change.ts";
import type { EventQueue, ScheduledEvent } from "./event-queue.ts";
import type { Misdeed } from "./fault-filter.ts";
import type { Random } from "./random.ts";

export interface AdversaryParts {
  readonly number: ReplicaNumber;
  readonly replicas: number;
  readonly queue: EventQueue;
  readonly random: Random;
  /** One, or two that share the key. */
  readonly makeCore: () => Pbft;
  readonly twin: boolean;
  /** A run knows some of them, a mood has a few at a time. */
  readonly enabled: readonly Misdeed[];
  /** How long a backup waits for a primary: a slow one stays just below. */
  readonly patienceMs: number;
  /** The faulty ones stand together: each may use the keys of all, this one's own among them. */
  readonly accomplices: readonly ReplicaNumber[];
  readonly signAs: (replica: ReplicaNumber, bytes: Uint8Array) => Uint8Array;
  readonly digest: (bytes: Uint8Array) => Digest;
  readonly send: (to: ReplicaNumber, message: PbftMessage) => void;
  readonly sendToClient: (client: string, message: PbftMessage) => void;
}

interface Half {
  readonly core: Pbft;
  timer: ScheduledEvent | undefined;
}

const stashMax = 200;
/** What a part without entries looks like. */
const emptyPart = Uint8Array.of(0);

export class Adversary {
  readonly #parts: AdversaryParts;
  readonly #random: Random;
  readonly #halves: Half[];
  #mood = new Set<Misdeed>();
  /** Whom a split lie tells the second story. */
  #others = new Set<ReplicaNumber>();
  readonly #stash: PbftMessage[] = [];
  readonly #frames: Signed<RequestFrame>[] = [];
  /** Its latest proposals, to be said again differently. */
  readonly #proposed: PrePrepare[] = [];
  /** Parts of a state that it has lied about, by sequence. */
  readonly #hollow = new Map<number, number>();
  #calm = false;

  constructor(parts: AdversaryParts) {
    this.#parts = parts;
    this.#random = parts.random;
    this.#halves = Array.from({ length: parts.twin ? 2 : 1 }, () => ({ core: parts.makeCore(), timer: undefined }));
  }

  get isPrimarySomewhere(): boolean {
    return this.#halves.some(({ core }) => primaryOf(core.view, this.#parts.replicas) === this.#parts.number);
  }

  start(): void {
    this.#changeMood();
    for (const half of this.#halves) this.#carryOut(half, half.core.start({ cells: new Map(), snapshot: undefined }));
  }

  /** For the last phase: silent for good. */
  silence(): void {
    this.#calm = true;
    this.#mood = new Set(["silent"]);
  }

  onMessage(from: ReplicaNumber | string, message: PbftMessage): void {
    this.#remember(message);
    if (this.#mood.has("vote-for-all") && message.kind === "pre-prepare") this.#voteFor(message.proposal.statement);
    const nowMs = this.#parts.queue.nowMs;
    // Each twin hears some of it, so that they come to believe different things.
    for (const half of this.#halves) {
      if (this.#halves.length > 1 && this.#random.chance(0.3)) continue;
      this.#feed(half, { kind: "message", nowMs, from, message });
    }
  }

  #changeMood(): void {
    if (this.#calm) return;
    const { enabled, replicas } = this.#parts;
    this.#mood = new Set(enabled.filter(() => this.#random.chance(0.3)));
    // Silence would hide everything else.
    if (this.#mood.size > 1 && this.#random.chance(0.7)) this.#mood.delete("silent");
    this.#others = new Set(Array.from({ length: replicas }, (_, number) => number).filter(() => this.#random.chance(0.5)));
    this.#parts.queue.schedule(this.#random.between(50, 3_000), () => this.#changeMood());
  }

  #feed(half: Half, input: PbftInput): void {
    this.#carryOut(half, half.core.step(input));
  }

  #carryOut(half: Half, outputs: readonly PbftOutput[]): void {
    const { queue } = this.#parts;
    for (const output of outputs) {
      switch (output.kind) {
        case "persist": {
          const { sequence } = output;
          // Its disk is its own affair.
          queue.schedule(0.05, () => this.#feed(half, { kind: "persisted", nowMs: queue.nowMs, sequence }));
          break;
        }
        case "save-snapshot": {
          const { sequence } = output.snapshot;
          queue.schedule(0.05, () => this.#feed(half, { kind: "snapshot-saved", nowMs: queue.nowMs, sequence }));
          break;
        }
        case "send":
          for (const to of output.to) this.#say(to, output.message);
          break;
        case "reply":
          this.#answer(output.client, { kind: "reply", reply: output.reply });
          break;
        case "timer":
          half.timer = queue.reschedule(half.timer, output.atMs - queue.nowMs, () =>
            this.#feed(half, { kind: "tick", nowMs: queue.nowMs }),
          );
          break;
        default:
          break;
      }
    }
  }

  /** One letter on its way out, in the mood of the hour. */
  #say(to: ReplicaNumber, message: PbftMessage): void {
    const mood = this.#mood;
    const random = this.#random;
    this.#remember(message);
    if (mood.has("silent")) return;
    if (mood.has("selective") && this.#others.has(to)) return;
    if (mood.has("replay") && this.#stash.length > 0 && random.chance(0.3)) this.#parts.send(to, random.pick(this.#stash));
    if (mood.has("forge") && random.chance(0.2)) this.#parts.send(to, this.#forged(message));
    if (mood.has("false-checkpoint") && random.chance(0.1)) this.#parts.send(to, this.#falseCheckpoint());
    if (mood.has("slow-primary") && (message.kind === "pre-prepare" || message.kind === "new-view")) {
      const delayMs = random.between(0.3, 1.1) * this.#parts.patienceMs;
      this.#parts.queue.schedule(delayMs, () => this.#parts.send(to, message));
      return;
    }
    this.#parts.send(to, this.#twisted(to, message));
  }

  #twisted(to: ReplicaNumber, message: PbftMessage): PbftMessage {
    const mood = this.#mood;
    const random = this.#random;
    if (mood.has("equivocate") && this.#others.has(to)) {
      if (message.kind === "pre-prepare") return this.#otherProposal(message.proposal.statement, message.batch);
      if (message.kind === "new-view") return { kind: "new-view", newView: this.#falseNewView(message.newView.statement) };
    }
    if (mood.has("equivocate") && message.kind === "status" && this.#proposed.length > 0 && random.chance(0.5)) {
      // Second thoughts: whoever has forgotten its vote will vote again.
      return this.#otherProposal(random.pick(this.#proposed), []);
    }
    if (mood.has("usurp") && message.kind === "prepare" && random.chance(0.3)) this.#usurp(to, message.vote.statement);
    if (mood.has("leap") && message.kind === "pre-prepare" && random.chance(0.3)) {
      const statement = { ...message.proposal.statement, sequence: message.proposal.statement.sequence + random.integer(1, 40) };
      if (statement.replica === this.#parts.number) return { ...message, proposal: this.#sign(statement) };
    }
    if (mood.has("false-proof") && random.chance(0.8)) {
      if (message.kind === "view-change" && message.viewChange.statement.replica === this.#parts.number)
        return { kind: "view-change", viewChange: this.#falseViewChange(message.viewChange.statement) };
      if (message.kind === "new-view" && message.newView.statement.replica === this.#parts.number)
        return { kind: "new-view", newView: this.#falseNewView(message.newView.statement) };
    }
    if (mood.has("false-state")) {
      if (message.kind === "part") {
        const isHollow = this.#hollow.get(message.sequence) === message.part;
        return { ...message, bytes: isHollow ? emptyPart : this.#altered(message.bytes) };
      }
      if (message.kind === "parts") return this.#falseParts(message);
      if (message.kind === "batch" && message.batch.length > 0) return { ...message, batch: this.#frames.slice(0, 2) };
    }
    if (mood.has("mutate") && random.chance(0.4)) return this.#mutated(message);
    return message;
  }

  // ---------------------------------------------------------------------------------------------- lies

  /** A list that fits its parts: one of them is empty, and will be handed out as empty. */
  #falseParts(message: Extract<PbftMessage, { kind: "parts" }>): PbftMessage {
    const part = this.#random.integer(0, message.digests.length - 1);
    this.#hollow.set(message.sequence, part);
    return { ...message, digests: message.digests.map((digest, at) => (at === part ? this.#parts.digest(emptyPart) : digest)) };
  }

  /** Another batch in the same place. */
  #otherProposal(statement: PrePrepare, batch: Batch): PbftMessage {
    if (statement.replica !== this.#parts.number) return { kind: "pre-prepare", proposal: this.#sign(statement), batch };
    // The same digest for other content is found out by whoever computes it.
    if (this.#random.chance(0.2))
      return { kind: "pre-prepare", proposal: this.#sign(statement), batch: this.#frames.slice(0, 2) };
    const other = this.#random.chance(0.4) ? [] : [...batch, ...this.#frames.slice(0, this.#random.integer(0, 2))].reverse();
    const digest = this.#parts.digest(encodeBatch(other));
    return { kind: "pre-prepare", proposal: this.#sign({ ...statement, digest }), batch: other };
  }

  /** Proposes where another is primary. */
  #usurp(to: ReplicaNumber, { view, sequence }: Prepare): void {
    const batch = this.#frames.slice(0, 1);
    const digest = this.#parts.digest(encodeBatch(batch));
    const proposal = this.#sign({ kind: "pre-prepare", replica: this.#parts.number, view, sequence, digest } as const);
    this.#parts.send(to, { kind: "pre-prepare", proposal, batch });
  }

  /** Supports whatever anybody proposes, so that every side may come to its quorum. */
  #voteFor({ view, sequence, digest }: PrePrepare): void {
    const replica = this.#parts.number;
    const prepare = this.#sign({ kind: "prepare", replica, view, sequence, digest } as const);
    const commit = this.#sign({ kind: "commit", replica, view, sequence, digest } as const);
    for (let to = 0; to < this.#parts.replicas; to++) {
      if (to === replica) continue;
      this.#parts.send(to, { kind: "prepare", vote: prepare });
      this.#parts.send(to, { kind: "commit", vote: commit });
    }
  }

  /** Hides what it prepared, or shows what nobody prepared. */
  #falseViewChange(change: ViewChange): Signed<ViewChange> {
    const random = this.#random;
    const { prepared } = change;
    if (random.chance(0.5)) return this.#sign({ ...change, prepared: this.#falseCertificates(change) });
    switch (random.integer(0, 3)) {
      case 0:
        return this.#sign({ ...change, prepared: [] });
      case 1:
        return this.#sign({ ...change, prepared: prepared.filter(() => random.chance(0.5)) });
      case 2:
        return this.#sign({ ...change, stable: 0, checkpoints: [] });
      default:
        return this.#sign({ ...change, ...this.#falseStable(change) });
    }
  }

  /** A checkpoint higher than any, proven by its own word alone. */
  #falseStable(change: ViewChange): { readonly stable: number; readonly checkpoints: readonly Signed<Checkpoint>[] } {
    const stable = change.stable + this.#random.pick([1, 4, 8]);
    const own = this.#sign({
      kind: "checkpoint",
      replica: this.#parts.number,
      sequence: stable,
      digest: this.#parts.digest(Uint8Array.of(stable)),
    } as const);
    return { stable, checkpoints: Array.from({ length: this.#parts.replicas }, () => own) };
  }

  /** Certificates of a view whose primary was one of them: for nothing, with prepares that are repeated, foreign or forged. */
  #falseCertificates(change: ViewChange): readonly PreparedCertificate[] {
    const { number, replicas, digest, accomplices } = this.#parts;
    const none = digest(encodeBatch([]));
    const last = change.prepared.at(-1)?.proposal.statement.sequence ?? change.stable + 2;
    const ours = Array.from({ length: Math.min(change.view, replicas) }, (_, back) => change.view - 1 - back).find((view) =>
      accomplices.includes(primaryOf(view, replicas)),
    );
    const forged: PreparedCertificate[] = [];
    const kind = this.#random.integer(0, 2);
    for (let sequence = change.stable + 1; sequence <= last + 1; sequence++) {
      const view = ours ?? change.view - 1;
      const primary = primaryOf(view, replicas);
      const proposal =
        ours === undefined
          ? this.#proposalSeen(view, sequence)
          : this.#signAs(primary, { kind: "pre-prepare", replica: primary, view, sequence, digest: none } as const);
      if (proposal === undefined) continue;
      const voter = accomplices.find((replica) => replica !== primary) ?? number;
      const own = this.#signAs(voter, { ...pickVote(proposal.statement), kind: "prepare", replica: voter } as const);
      const prepares = [
        Array.from({ length: replicas }, () => own),
        [own, ...this.#preparesSeen(view, sequence)],
        // In everybody's name, with our own seal.
        Array.from({ length: replicas }, (_, replica) => replica)
          .filter((replica) => replica !== primary)
          .map((replica) => this.#sign({ ...own.statement, replica })),
      ][kind];
      forged.push({ proposal, prepares: prepares as Signed<Prepare>[] });
    }
    return forged;
  }

  #falseNewView(newView: NewView): Signed<NewView> {
    const random = this.#random;
    const { proposals, viewChanges } = newView;
    if (newView.replica !== this.#parts.number) return this.#sign(newView);
    switch (random.integer(0, 4)) {
      case 0:
        return this.#sign({ ...newView, proposals: [] });
      case 1: {
        const none = this.#parts.digest(encodeBatch([]));
        const altered = proposals.map((proposal) =>
          random.chance(0.5) ? this.#sign({ ...proposal.statement, digest: none }) : proposal,
        );
        return this.#sign({ ...newView, proposals: altered });
      }
      case 2:
        return this.#sign({ ...newView, viewChanges: viewChanges.slice(1) });
      case 3: {
        // Its own, which hides everything, as often as it takes.
        const own = this.#sign({
          kind: "view-change",
          replica: this.#parts.number,
          view: newView.view,
          stable: 0,
          checkpoints: [],
          prepared: [],
        } as const);
        return this.#sign({ ...newView, viewChanges: viewChanges.map(() => own), proposals: [] });
      }
      default: {
        const last = proposals.at(-1)?.statement;
        const extra = last === undefined ? [] : [this.#sign({ ...last, sequence: last.sequence + 1 })];
        return this.#sign({ ...newView, proposals: [...proposals, ...extra] });
      }
    }
  }

  #falseCheckpoint(): PbftMessage {
    const [half] = this.#halves as [Half];
    const sequence = half.core.stable + this.#random.pick([4, 8, 12, 1_000]);
    const digest = this.#parts.digest(Uint8Array.of(this.#random.integer(0, 255)));
    const checkpoint = this.#sign({ kind: "checkpoint", replica: this.#parts.number, sequence, digest } as const);
    if (this.#random.chance(0.5)) return { kind: "checkpoint", checkpoint };
    return { kind: "stable", checkpoints: Array.from({ length: this.#parts.replicas }, () => checkpoint) };
  }

  /** One field a little off, signed again where it is ours; where it is not, the seal no longer fits. */
  #mutated(message: PbftMessage): PbftMessage {
    switch (message.kind) {
      case "prepare":
        return { kind: "prepare", vote: this.#nudged(message.vote) };
      case "commit":
        return { kind: "commit", vote: this.#nudged(message.vote) };
      case "checkpoint":
        return { kind: "checkpoint", checkpoint: this.#nudged(message.checkpoint) };
      case "pre-prepare":
        return { ...message, proposal: this.#nudged(message.proposal) };
      case "status":
        return {
          ...message,
          view: message.view + this.#random.integer(0, 1),
          executed: message.executed + this.#random.integer(0, 3),
        };
      default:
        return message;
    }
  }

  #nudged<S extends PrePrepare | Prepare | Checkpoint | { kind: "commit" }>(signed: Signed<S>): Signed<S> {
    const statement = { ...signed.statement } as Record<string, unknown>;
    const field = this.#random.pick(["view", "sequence", "digest", "replica"] as const);
    if (field === "digest") statement["digest"] = this.#alteredDigest(String(statement["digest"]));
    else if (field === "replica") statement["replica"] = this.#random.integer(0, this.#parts.replicas);
    else if (field in statement) statement[field] = Math.max(0, Number(statement[field]) + this.#random.pick([-1, 1]));
    return this.#sign(statement as unknown as S & Statement);
  }

  /** In another replica's name, with our own seal. */
  #forged(message: PbftMessage): PbftMessage {
    if (message.kind !== "prepare" && message.kind !== "commit") return message;
    const replica = (this.#parts.number + this.#random.integer(1, this.#parts.replicas - 1)) % this.#parts.replicas;
    return { kind: message.kind, vote: this.#sign({ ...message.vote.statement, replica }) } as PbftMessage;
  }

  #answer(client: string, message: Extract<PbftMessage, { kind: "reply" }>): void {
    if (this.#mood.has("silent")) return;
    const { statement } = message.reply;
    if (!this.#mood.has("false-reply")) {
      this.#parts.sendToClient(client, message);
      return;
    }
    const results = statement.results.map((result) => this.#altered(result));
    const reply = this.#sign({ ...statement, results, view: statement.view + 7 });
    // The seal of what it should have said: the client must find that out before it asks for no more.
    const { signature } = this.#random.chance(0.5) ? message.reply : reply;
    this.#parts.sendToClient(client, { kind: "reply", reply: { ...reply, signature } });
  }

  // ---------------------------------------------------------------------------------------------- memory

  #remember(message: PbftMessage): void {
    if (message.kind === "pre-prepare" && message.proposal.statement.replica === this.#parts.number) {
      this.#proposed.unshift(message.proposal.statement);
      this.#proposed.length = Math.min(this.#proposed.length, 4);
    }
    if (message.kind === "request" && this.#frames.length < stashMax) this.#frames.unshift(message.frame);
    if (this.#frames.length >= stashMax) this.#frames.length = stashMax / 2;
    if (this.#stash.length < stashMax) this.#stash.push(message);
    else this.#stash[this.#random.integer(0, stashMax - 1)] = message;
  }

  #proposalSeen(view: number, sequence: number): Signed<PrePrepare> | undefined {
    for (const message of this.#stash) {
      if (message.kind !== "pre-prepare") continue;
      const { statement } = message.proposal;
      if (statement.view === view && statement.sequence === sequence) return message.proposal;
    }
    return undefined;
  }

  #preparesSeen(view: number, sequence: number): readonly Signed<Prepare>[] {
    return this.#stash.flatMap((message) =>
      message.kind === "prepare" && message.vote.statement.view === view && message.vote.statement.sequence === sequence
        ? [message.vote]
        : [],
    );
  }

  #sign<S extends Statement>(statement: S): Signed<S> {
    return this.#signAs(this.#parts.number, statement);
  }

  #signAs<S extends Statement>(replica: ReplicaNumber, statement: S): Signed<S> {
    const bytes = encodeStatement(statement);
    return { statement, bytes, signature: this.#parts.signAs(replica, bytes) };
  }

  #altered(bytes: Uint8Array): Uint8Array {
    const altered = bytes.slice();
    if (altered.length > 0) {
      const at = this.#random.integer(0, altered.length - 1);
      altered[at] = (altered[at] as number) ^ (1 << this.#random.integer(0, 7));
    }
    return altered;
  }

  #alteredDigest(digest: Digest): Digest {
    return this.#random.chance(0.5) ? digest : this.#parts.digest(Uint8Array.of(this.#random.integer(0, 255)));
  }
}

function pickVote({ view, sequence, digest }: PrePrepare) {
  return { view, sequence, digest };
}
