/**
 * Zab, ZooKeeper's atomic broadcast: a primary orders the entries of its epoch, and begins it only once a quorum has taken
 * over its whole history.
 *
 * Intuition: a school that changes its textbook with every new head teacher. The new head's copy is compared with enough
 * others to be sure that nothing agreed is missing; each pupil's copy is made equal to it, page by page; only when a
 * majority has the same book does teaching go on, and every page says under whom it was written.
 *
 *   looking ──► phase 1 discovery ──► phase 2 synchronisation ──► phase 3 broadcast
 *   (phase 0)   a new epoch that a     the leader's history        proposals, acks, commits
 *               quorum accepts         at a quorum
 *
 * What raft does by the term of the last entry, Zab does by two numbers on disk: `acceptedEpoch`, the highest epoch that was
 * accepted, before ACK-E leaves; and `currentEpoch`, the epoch whose history this disk holds, after that history and before
 * ACK-LD leaves. The order of those writes is the protocol.
 *
 * Source: Junqueira, Reed, Serafini, "Zab: High-performance broadcast for primary-backup systems", DSN 2011 (phases:
 * §IV); Medeiros, "ZooKeeper's atomic broadcast protocol: theory and practice", 2012; ZooKeeper's Zab 1.0 for the follower
 * that accepts an epoch once. `docs/protocol/zab.md` is the tour.
 * Assumes crash faults and a disk that keeps what it confirmed. The paper's FIFO channels are not assumed: a proposal names
 * the one before it, and an ack what the disk holds, so letters may be lost, doubled, late and out of order.
 */
import { assert, unreachable } from "../../base/assert.ts";
import { hasQuorum, quorumReached } from "../configuration.ts";
import type {
  Configuration,
  Core,
  CoreEnvironment,
  EntryKind,
  Index,
  Input,
  Lane,
  LogEntry,
  LogOperation,
  MemberId,
  Output,
  PersistSequence,
  Probe,
  Recovered,
  Role,
  Term,
} from "../core.ts";
import { entryBytes, RaftLog } from "../raft/raft-log.ts";
import { ReadQueue } from "../raft/read-queue.ts";
import { FollowerProgress } from "./follower-progress.ts";
import { agreementWith, epochStarts, isAhead } from "./history.ts";
import { isLawful } from "./lawful.ts";
import type { Vote, ZabMessage } from "./messages.ts";
import { type ZabOptions, zabDefaults } from "./options.ts";
import { Search } from "./search.ts";

type Message<K extends ZabMessage["kind"]> = Extract<ZabMessage, { kind: K }>;

/** Follows a leader. `broadcast`: this disk holds the history of the leader's epoch. */
interface Following {
  readonly kind: "following";
  readonly leader: MemberId;
  phase: "discovery" | "synchronisation" | "broadcast";
  /** Tells this attempt to follow from earlier ones: only what answers it may cut off anything. */
  readonly attempt: number;
  /** Our log equals the leader's up to here; undefined: it has not been compared yet. */
  verified: Index | undefined;
  /** Proposals that overtook the ones before them, by the index that they follow. At most as many as may be in flight. */
  readonly early: Map<Index, Message<"proposal">>;
}

interface Leading {
  readonly kind: "leading";
  phase: "discovery" | "synchronisation" | "broadcast";
  /** 0 until a quorum has told what it accepted. */
  epoch: Term;
  readonly accepted: Map<MemberId, Term>;
  readonly ackedEpoch: Set<MemberId>;
  readonly followers: Map<MemberId, FollowerProgress>;
  /** The end of the initial history. */
  initialIndex: Index;
  readonly giveUpMs: number;
}

type State = { readonly kind: "looking" } | Following | Leading;

/** Where an incoming snapshot stands. */
interface Incoming {
  readonly index: Index;
  readonly term: Term;
  readonly from: MemberId;
  readonly offset: number;
}

function leaderInfo({ epoch, phase }: Leading): Message<"leader-info"> {
  return { kind: "leader-info", epoch, established: phase === "broadcast" };
}

/** Pings without an answer about the snapshot after which the chunk is read and sent again. */
const silentPingsMax = 8;

export class Zab implements Core<ZabMessage> {
  readonly #options: ZabOptions;
  #environment!: CoreEnvironment;
  #self!: MemberId;
  #configuration!: Configuration;
  #nowMs = 0;
  #outputs: Output<ZabMessage>[] = [];

  // Durable state.
  /** Invariant: never falls, and is on disk before any letter of that epoch leaves. */
  #acceptedEpoch: Term = 0;
  /** From whom it was accepted: an epoch is accepted from one leader. */
  #acceptedFrom: MemberId | undefined;
  /** Invariant: at most `acceptedEpoch`; on disk only after the history that it names. */
  #currentEpoch: Term = 0;
  readonly #log = new RaftLog();

  // Volatile state.
  #state: State = { kind: "looking" };
  #search!: Search;
  /** Invariant: never falls within an incarnation. */
  #committed: Index = 0;
  #delivered: Index = 0;
  #applied: Index = 0;
  /** When silence becomes too long; while looking, when to ask again. */
  #deadlineMs = 0;
  #finalizeAtMs = Number.POSITIVE_INFINITY;
  #pingDueMs = 0;
  #quorumCheckMs = 0;
  #round = 0;
  readonly #reads = new ReadQueue();
  #uncommittedBytes = 0;
  #stampBase = { stampMs: 0, atMs: 0 };
  #incoming: Incoming | undefined;
  /** The host is installing this one. Until it answers, the log below it is in question, whoever leads. */
  #installing: Incoming | undefined;

  // What is on its way to the disk.
  #operations: LogOperation[] = [];
  #sequence: PersistSequence = 0;
  #durableSequence: PersistSequence = 0;
  /** The last persist that changed an epoch: no letter leaves before it. */
  #epochSequence: PersistSequence = 0;
  /** The last persist that changed the history. */
  #logSequence: PersistSequence = 0;
  #durableIndex: Index = 0;
  #persisting: { readonly sequence: PersistSequence; lastIndex: Index }[] = [];

  readonly #probe: Probe;

  constructor(options: Partial<ZabOptions> = {}) {
    this.#options = { ...zabDefaults, ...options };
    this.#probe = this.#makeProbe();
  }

  start(environment: CoreEnvironment, recovered: Recovered): readonly Output<ZabMessage>[] {
    this.#environment = environment;
    this.#self = environment.self;
    this.#configuration = environment.configuration;
    this.#nowMs = environment.nowMs;
    this.#search = new Search(environment.configuration, environment.self);
    this.#acceptedEpoch = Number(recovered.meta.get("acceptedEpoch") ?? 0);
    this.#acceptedFrom = recovered.meta.get("acceptedFrom") || undefined;
    this.#currentEpoch = Number(recovered.meta.get("currentEpoch") ?? 0);
    if (recovered.snapshot !== undefined) {
      const { index } = recovered.snapshot;
      this.#log.reset(recovered.snapshot);
      this.#committed = index;
      this.#delivered = index;
      this.#applied = index;
    }
    for (const entry of recovered.entries) this.#log.append(entry);
    this.#durableIndex = this.#log.lastIndex;
    this.#outputs.push({ kind: "configuration", index: 0, configuration: this.#configuration, committed: true });
    this.#look();
    return this.#finish();
  }

  step(input: Input<ZabMessage>): readonly Output<ZabMessage>[] {
    const { nowMs } = input as { readonly nowMs?: number };
    if (nowMs !== undefined && nowMs > this.#nowMs) this.#nowMs = nowMs;
    switch (input.kind) {
      case "tick":
        this.#onTick();
        break;
      case "message":
        this.#onMessage(input.from, input.message);
        break;
      case "link":
        this.#onLink(input.peer, input.up);
        break;
      case "submit":
        this.#onSubmit(input);
        break;
      case "read":
        this.#onRead(input.ticket);
        break;
      case "change":
      case "transfer":
        this.#reject(input.ticket, "unsupported");
        break;
      case "persisted":
        this.#onPersisted(input.sequence);
        break;
      case "applied":
        assert(input.index >= this.#applied && input.index <= this.#delivered, "applied follows delivered");
        this.#applied = input.index;
        break;
      case "snapshot-built":
        this.#log.compact(input.index, this.#options.retainedBytesMax);
        break;
      case "snapshot-bytes":
        this.#onSnapshotBytes(input);
        break;
      case "snapshot-installed":
        this.#onSnapshotInstalled(input);
        break;
      default:
        unreachable(input);
    }
    return this.#finish();
  }

  probe(): Probe {
    return this.#probe;
  }

  // ------------------------------------------------------------------------------------------------ time and links

  #onTick(): void {
    switch (this.#state.kind) {
      case "looking":
        if (this.#nowMs >= this.#finalizeAtMs) this.#settle();
        else if (this.#nowMs >= this.#deadlineMs) {
          this.#tellSearch();
          this.#deadlineMs = this.#nowMs + this.#options.pingMs * (1 + this.#random());
        }
        break;
      case "following":
        if (this.#nowMs >= this.#deadlineMs) this.#look();
        else if (this.#nowMs >= this.#pingDueMs) this.#knock(this.#state);
        break;
      case "leading":
        this.#onLeaderTick(this.#state);
        break;
      default:
        unreachable(this.#state);
    }
  }

  #onLeaderTick(leading: Leading): void {
    if (leading.phase === "discovery" && this.#nowMs >= leading.giveUpMs) {
      this.#look();
      return;
    }
    if (leading.phase !== "discovery" && this.#nowMs >= this.#quorumCheckMs) {
      // A primary without a quorum commits nothing, and hides a better one from its clients (ZooKeeper: `syncLimit`). A long
      // history may take its time, as long as a quorum goes on answering.
      const since = this.#nowMs - 2 * this.#options.electionTimeoutMs;
      const reaches = (member: MemberId): boolean =>
        member === this.#self || (leading.followers.get(member)?.lastHeardMs ?? Number.NEGATIVE_INFINITY) > since;
      if (!hasQuorum(this.#configuration, reaches)) {
        this.#look();
        return;
      }
      this.#quorumCheckMs = this.#nowMs + this.#options.electionTimeoutMs;
    }
    if (this.#nowMs >= this.#pingDueMs) this.#ping(leading);
  }

  #onLink(peer: MemberId, up: boolean): void {
    if (this.#state.kind === "following" && peer === this.#state.leader && !up) {
      // A channel of Zab that broke is never mended: the follower begins again with phase 0 (DSN'11 §III.B).
      this.#look();
    } else if (this.#state.kind === "leading" && up) {
      const progress = this.#state.followers.get(peer);
      if (progress !== undefined) this.#resend(this.#state, peer, progress);
    }
  }

  #random(): number {
    return this.#environment.randomUint32() / 2 ** 32;
  }

  #patience(): number {
    return this.#nowMs + this.#options.electionTimeoutMs * (1 + this.#random());
  }

  #others(): MemberId[] {
    return this.#configuration.voters.filter((member) => member !== this.#self);
  }

  // ------------------------------------------------------------------------------------------------ phase 0: the search

  #look(): void {
    const before = this.#state;
    this.#state = { kind: "looking" };
    this.#incoming = undefined;
    if (before.kind === "leading") {
      for (const ticket of this.#reads.clear()) this.#reject(ticket, "lost-leadership");
    }
    this.#search.begin({ leader: this.#self, ...this.#history() });
    this.#finalizeAtMs = Number.POSITIVE_INFINITY;
    this.#deadlineMs = this.#nowMs + this.#options.pingMs * (1 + this.#random());
    this.#tellRole("candidate", undefined);
    this.#tellSearch();
    this.#weigh();
  }

  #history(): Omit<Vote, "leader"> {
    return { epoch: this.#currentEpoch, lastTerm: this.#log.lastTerm, lastIndex: this.#log.lastIndex };
  }

  #tellSearch(): void {
    for (const member of this.#others()) this.#tellSearchTo(member);
  }

  #tellSearchTo(member: MemberId): void {
    this.#send(member, { kind: "looking", round: this.#search.round, vote: this.#search.vote }, "control");
  }

  #onLooking(from: MemberId, { round, vote }: Message<"looking">): void {
    // Our leader has given up: so do we, instead of waiting for its silence.
    if (this.#state.kind === "following" && this.#state.leader === from && round > this.#search.round) this.#look();
    const state = this.#state;
    if (state.kind !== "looking") {
      const leader = state.kind === "leading" ? this.#self : state.leader;
      // Nobody is sent to a leader that has not accepted an epoch: it may yet give up.
      if (state.phase === "discovery") return;
      this.#send(from, { kind: "settled", leader, epoch: this.#acceptedEpoch }, "control");
      return;
    }
    switch (this.#search.hear(from, round, vote)) {
      case "old":
        this.#tellSearchTo(from);
        return;
      case "news":
        this.#finalizeAtMs = Number.POSITIVE_INFINITY;
        this.#tellSearch();
        break;
      case "same":
        break;
    }
    this.#weigh();
  }

  #onSettled(from: MemberId, settled: Message<"settled">): void {
    if (this.#state.kind !== "looking" || settled.leader === this.#self) return;
    const leader = this.#search.hearSettled(from, settled);
    if (leader !== undefined) this.#follow(leader);
  }

  /** A quorum for one leader is left open for a while: somebody better may not have spoken yet. */
  #weigh(): void {
    const agreement = this.#search.agreement();
    if (agreement === "all") this.#settle();
    else if (agreement === "none") this.#finalizeAtMs = Number.POSITIVE_INFINITY;
    else this.#finalizeAtMs = Math.min(this.#finalizeAtMs, this.#nowMs + this.#options.finalizeMs);
  }

  #settle(): void {
    const { leader } = this.#search.vote;
    // The log below a snapshot that is being installed is in question: nobody may be led by it yet.
    if (leader === this.#self && this.#installing !== undefined) {
      this.#finalizeAtMs = this.#nowMs + this.#options.finalizeMs;
      return;
    }
    this.#finalizeAtMs = Number.POSITIVE_INFINITY;
    if (leader === this.#self) this.#lead();
    else this.#follow(leader);
  }

  // ------------------------------------------------------------------------------------------------ phase 1: discovery

  #follow(leader: MemberId): void {
    const attempt = this.#environment.randomUint32();
    this.#state = { kind: "following", leader, phase: "discovery", attempt, verified: undefined, early: new Map() };
    this.#deadlineMs = this.#patience();
    this.#tellRole("follower", leader);
    this.#knock(this.#state);
  }

  /** Asks to be led, again until the leader has heard. */
  #knock(following: Following): void {
    this.#pingDueMs = this.#nowMs + this.#options.pingMs;
    if (following.phase !== "discovery") return;
    this.#send(following.leader, { kind: "follower-info", acceptedEpoch: this.#acceptedEpoch }, "control");
  }

  #lead(): void {
    const leading: Leading = {
      kind: "leading",
      phase: "discovery",
      epoch: 0,
      accepted: new Map([[this.#self, this.#acceptedEpoch]]),
      ackedEpoch: new Set(),
      followers: new Map(),
      initialIndex: 0,
      giveUpMs: this.#nowMs + 2 * this.#options.electionTimeoutMs,
    };
    this.#state = leading;
    this.#pingDueMs = this.#nowMs + this.#options.pingMs;
    this.#maybeNameEpoch(leading);
  }

  #onFollowerInfo(from: MemberId, { acceptedEpoch }: Message<"follower-info">): void {
    const leading = this.#state;
    if (leading.kind !== "leading") return;
    leading.accepted.set(from, acceptedEpoch);
    if (leading.epoch === 0) this.#maybeNameEpoch(leading);
    // It has accepted a later epoch than ours and can never follow us: a new search finds an epoch that all can accept.
    else if (acceptedEpoch > leading.epoch) this.#look();
    else this.#send(from, leaderInfo(leading), "control");
  }

  /** Later than any epoch that a quorum has accepted, so later than any that was ever established (DSN'11 §IV.A, step l.1.1). */
  #maybeNameEpoch(leading: Leading): void {
    if (leading.epoch !== 0 || !hasQuorum(this.#configuration, (member) => leading.accepted.has(member))) return;
    leading.epoch = Math.max(...leading.accepted.values()) + 1;
    this.#acceptEpoch(leading.epoch, this.#self);
    for (const member of leading.accepted.keys()) {
      if (member !== this.#self) this.#send(member, leaderInfo(leading), "control");
    }
  }

  #acceptEpoch(epoch: Term, from: MemberId): void {
    assert(epoch >= this.#acceptedEpoch, "accepted epochs never fall");
    this.#acceptedEpoch = epoch;
    this.#acceptedFrom = from;
    this.#persistEpochs();
  }

  #onLeaderInfo(from: MemberId, { epoch, established }: Message<"leader-info">): void {
    const following = this.#state;
    if (following.kind !== "following" || following.leader !== from || this.#installing !== undefined) return;
    // An answer that has connected already, or another leader's time: what is asked again was heard.
    if (following.phase === "broadcast" || (following.phase === "synchronisation" && following.verified !== undefined)) return;
    // Two leaders may name the same epoch: it is accepted from the first one only (Zab 1.0: a second ACK-E does not count),
    // unless a quorum belongs to it already, so that the other one can never have a quorum for it.
    const isOthers = epoch === this.#acceptedEpoch && this.#acceptedFrom !== from;
    if (epoch < this.#acceptedEpoch || (isOthers && !established)) {
      this.#look();
      return;
    }
    if (epoch > this.#acceptedEpoch || isOthers) this.#acceptEpoch(epoch, from);
    following.phase = "synchronisation";
    following.early.clear();
    // Who belongs to the epoch already holds the beginning of its history and nothing else: what it has acknowledged must
    // not be cut off by a proposal of the same epoch that comes late.
    following.verified = epoch === this.#currentEpoch ? this.#log.lastIndex : undefined;
    this.#tellHistory(following);
  }

  #tellHistory({ leader, attempt }: Following): void {
    this.#pingDueMs = this.#nowMs + this.#options.pingMs;
    const answer: ZabMessage = {
      kind: "ack-epoch",
      epoch: this.#acceptedEpoch,
      attempt,
      currentEpoch: this.#currentEpoch,
      lastTerm: this.#log.lastTerm,
      lastIndex: this.#log.lastIndex,
      committed: this.#committed,
      starts: epochStarts(this.#log),
    };
    // The history is part of the answer: what it says is on the disk.
    this.#send(leader, answer, "control", this.#logSequence);
  }

  #onAckEpoch(from: MemberId, ack: Message<"ack-epoch">): void {
    const leading = this.#state;
    if (leading.kind !== "leading" || leading.epoch !== ack.epoch) return;
    if (leading.phase === "discovery") {
      const theirs = { epoch: ack.currentEpoch, lastTerm: ack.lastTerm, lastIndex: ack.lastIndex };
      // The initial history must hold everything that any of the quorum holds (DSN'11 §IV.A, step l.1.2): give way to who has it.
      if (isAhead(theirs, this.#history())) {
        this.#look();
        return;
      }
      leading.ackedEpoch.add(from);
    }
    const match = agreementWith(this.#log, ack);
    const { attempt } = ack;
    const progress = new FollowerProgress({ match, attempt, offerIndex: this.#log.lastIndex, nowMs: this.#nowMs });
    leading.followers.set(from, progress);
    if (leading.phase === "discovery") this.#maybeSynchronise(leading);
    else this.#synchronise(leading, from, progress);
  }

  // ------------------------------------------------------------------------------------------------ phase 2: synchronisation

  #maybeSynchronise(leading: Leading): void {
    if (leading.phase !== "discovery" || !hasQuorum(this.#configuration, (member) => leading.ackedEpoch.has(member))) return;
    leading.phase = "synchronisation";
    leading.initialIndex = this.#log.lastIndex;
    this.#quorumCheckMs = this.#nowMs + 2 * this.#options.electionTimeoutMs;
    this.#enterEpoch(leading.epoch);
    for (const [member, progress] of leading.followers) this.#synchronise(leading, member, progress);
  }

  /** The history of this epoch stands in the log, and with every write before this one on the disk. */
  #enterEpoch(epoch: Term): void {
    assert(epoch === this.#acceptedEpoch && epoch >= this.#currentEpoch, "an epoch is accepted before it is entered");
    this.#currentEpoch = epoch;
    this.#persistEpochs();
  }

  #synchronise(leading: Leading, to: MemberId, progress: FollowerProgress): void {
    if (this.#log.termAt(progress.match) === undefined) this.#beginSnapshot(to, progress);
    else {
      // The first proposal cuts off what the follower has beyond: it is sent even where it carries nothing.
      this.#sendProposal(leading, to, progress, []);
      this.#sendProposals(leading, to, progress);
    }
  }

  /**
   * The history as it stood when the follower came was sent: asks it to make that its own, again with each ping until it has.
   * What was proposed since follows; waiting for its end would never end under load.
   */
  #maybeOffer(leading: Leading, to: MemberId, progress: FollowerProgress): void {
    if (progress.isActive || progress.snapshot !== undefined || progress.next <= progress.offerIndex) return;
    // Once between two pings: every answer to it would ask for the next one.
    if (!progress.mayOffer()) return;
    this.#send(to, { kind: "new-leader", epoch: leading.epoch, index: progress.offerIndex }, "log");
  }

  #onNewLeader(from: MemberId, { epoch, index }: Message<"new-leader">): void {
    const following = this.#followedIn(from, epoch);
    if (following === undefined || this.#installing !== undefined) return;
    this.#hearLeader();
    if ((following.verified ?? -1) < index) {
      this.#ackTo(following, { missing: true });
      return;
    }
    if (following.phase === "synchronisation") {
      // The order is the protocol: the history, then the epoch that it belongs to, then the word to the leader (H1, H2).
      if (this.#currentEpoch !== epoch) this.#enterEpoch(epoch);
      following.phase = "broadcast";
    }
    this.#send(from, { kind: "ack-leader", epoch, index }, "control", this.#logSequence);
  }

  #onAckLeader(from: MemberId, { epoch, index }: Message<"ack-leader">): void {
    const leading = this.#state;
    const progress = leading.kind === "leading" && leading.epoch === epoch ? leading.followers.get(from) : undefined;
    if (leading.kind !== "leading" || progress === undefined || index > this.#log.lastIndex) return;
    progress.lastHeardMs = this.#nowMs;
    progress.isActive = true;
    progress.acknowledged(index);
    this.#maybeEstablish(leading);
    this.#maybeCommit();
    this.#sendProposals(leading, from, progress);
  }

  /** A quorum has the initial history and belongs to the epoch: the history is committed, and the epoch is ours (step l.2.2). */
  #maybeEstablish(leading: Leading): void {
    if (leading.phase !== "synchronisation") return;
    const ownIsDurable = this.#epochSequence <= this.#durableSequence && this.#durableIndex >= leading.initialIndex;
    const belongs = (member: MemberId): boolean =>
      member === this.#self ? ownIsDurable : (leading.followers.get(member)?.isActive ?? false);
    if (!hasQuorum(this.#configuration, belongs)) return;
    leading.phase = "broadcast";
    this.#quorumCheckMs = this.#nowMs + 2 * this.#options.electionTimeoutMs;
    this.#stampBase = { stampMs: this.#log.lastStampMs, atMs: this.#nowMs };
    this.#uncommittedBytes = 0;
    this.#tellRole("leader", this.#self);
    this.#commitTo(leading.initialIndex);
    // The first proposal of an epoch tells the machine that time goes on under a new primary.
    this.#propose(leading, "noop", new Uint8Array(0));
    this.#ping(leading);
  }

  // ------------------------------------------------------------------------------------------------ phase 3: broadcast

  #onSubmit(input: Extract<Input<ZabMessage>, { kind: "submit" }>): void {
    const leading = this.#state;
    if (leading.kind !== "leading" || leading.phase !== "broadcast") this.#reject(input.ticket, "not-leader");
    else if (input.fence !== undefined && input.fence !== leading.epoch) this.#reject(input.ticket, "fenced");
    else if (this.#uncommittedBytes > this.#options.uncommittedBytesMax) this.#reject(input.ticket, "busy");
    else {
      const index = this.#propose(leading, "batch", input.payload);
      this.#outputs.push({ kind: "accepted", ticket: input.ticket, index, term: leading.epoch });
    }
  }

  #reject(ticket: number, why: Extract<Output<ZabMessage>, { kind: "rejected" }>["why"]): void {
    this.#outputs.push({ kind: "rejected", ticket, why, leader: this.#leaderName() });
  }

  /** Appends an entry of this epoch and sends it, while our own disk writes it. */
  #propose(leading: Leading, kind: EntryKind, payload: Uint8Array): Index {
    const elapsedMs = this.#nowMs - this.#stampBase.atMs;
    const stampMs = Math.max(this.#log.lastStampMs, this.#stampBase.stampMs + elapsedMs);
    const entry: LogEntry = { index: this.#log.lastIndex + 1, term: leading.epoch, kind, stampMs, payload };
    this.#log.append(entry);
    this.#persist({ kind: "put", entry });
    this.#uncommittedBytes += entryBytes(entry);
    for (const [member, progress] of leading.followers) this.#sendProposals(leading, member, progress);
    return entry.index;
  }

  #sendProposals(leading: Leading, to: MemberId, progress: FollowerProgress): void {
    if (leading.phase === "discovery" || progress.snapshot !== undefined) return;
    if (this.#log.termAt(progress.next - 1) === undefined) {
      this.#beginSnapshot(to, progress);
      return;
    }
    const window = { messagesMax: this.#options.inFlightMessagesMax, bytesMax: this.#options.inFlightBytesMax };
    while (progress.next <= this.#log.lastIndex && progress.hasRoom(window)) {
      const entries = this.#log.slice(progress.next, this.#options.proposalBytesMax);
      this.#sendProposal(leading, to, progress, entries);
      let bytes = 0;
      for (const entry of entries) bytes += entryBytes(entry);
      progress.sent((entries.at(-1) as LogEntry).index, bytes);
    }
    this.#maybeOffer(leading, to, progress);
  }

  #sendProposal(leading: Leading, to: MemberId, progress: FollowerProgress, entries: readonly LogEntry[]): void {
    const previousIndex = progress.next - 1;
    const previousTerm = this.#log.termAt(previousIndex) as Term;
    const { attempt } = progress;
    const committed = this.#committed;
    this.#send(to, { kind: "proposal", epoch: leading.epoch, attempt, previousIndex, previousTerm, committed, entries }, "log");
  }

  /** Something was lost: once more from what the follower is known to have. */
  #resend(leading: Leading, to: MemberId, progress: FollowerProgress): void {
    if (progress.snapshot !== undefined) return;
    progress.rewind();
    this.#synchronise(leading, to, progress);
  }

  #onProposal(from: MemberId, proposal: Message<"proposal">): void {
    const following = this.#followedIn(from, proposal.epoch);
    if (following === undefined || this.#installing !== undefined) return;
    this.#hearLeader();
    const { previousIndex, previousTerm, entries } = proposal;
    const connects = previousIndex <= this.#committed || this.#log.termAt(previousIndex) === previousTerm;
    if (following.verified === undefined) {
      // Only the answer to our own history says where the two part. A stray letter that connects further down would cut off
      // what this disk holds of a later epoch, and leave it with that epoch's name and less than its history.
      if (proposal.attempt !== following.attempt) {
        // Said again at most once between two pings: every letter of a whole window may be such a stray.
        if (this.#nowMs >= this.#pingDueMs) this.#tellHistory(following);
        return;
      }
    }
    if (!connects) {
      // It came too early, or what it follows was lost: the next ping tells which.
      // What was overtaken for good makes room with all the rest.
      if (following.early.size >= this.#options.inFlightMessagesMax) following.early.clear();
      following.early.set(previousIndex, proposal);
      return;
    }
    // TRUNC: what the leader's history does not hold is not committed, and never will be (DSN'11 §IV.B).
    if (following.verified === undefined) this.#cutAfter(Math.max(previousIndex, this.#committed));
    for (const entry of entries) {
      if (entry.index <= this.#log.lastIndex) continue;
      if (entry.index !== this.#log.lastIndex + 1) break;
      this.#log.append(entry);
      this.#persist({ kind: "put", entry });
    }
    const end = Math.min(previousIndex + entries.length, this.#log.lastIndex);
    following.verified = Math.max(following.verified ?? 0, end);
    this.#commitTo(Math.min(proposal.committed, following.verified));
    this.#ackTo(following, { missing: false });
    const next = following.early.get(following.verified);
    if (next === undefined) return;
    following.early.delete(following.verified);
    this.#onProposal(from, next);
  }

  /** Confirms what is equal to the leader's history, once the disk has it. */
  #ackTo({ leader, verified }: Following, { missing }: { readonly missing: boolean }): void {
    const letter = { kind: "ack", epoch: this.#acceptedEpoch, index: verified ?? 0, missing } as const;
    this.#send(leader, letter, "log", this.#logSequence);
  }

  #cutAfter(index: Index): void {
    if (index >= this.#log.lastIndex) return;
    const from = index + 1;
    assert(from > this.#committed, "a committed entry is never truncated");
    this.#log.truncate(from);
    this.#durableIndex = Math.min(this.#durableIndex, index);
    // A write under way that held the dropped entries must not later vouch for their successors.
    for (const pending of this.#persisting) pending.lastIndex = Math.min(pending.lastIndex, index);
    this.#persist({ kind: "truncate", from });
  }

  #onAck(from: MemberId, { epoch, index, missing }: Message<"ack">): void {
    const leading = this.#state;
    const progress = leading.kind === "leading" && leading.epoch === epoch ? leading.followers.get(from) : undefined;
    if (leading.kind !== "leading" || progress === undefined || index > this.#log.lastIndex) return;
    progress.lastHeardMs = this.#nowMs;
    const isNews = progress.acknowledged(index);
    if (progress.snapshot !== undefined) {
      if (isNews && this.#log.termAt(progress.match) !== undefined) {
        progress.endSnapshot();
        this.#synchronise(leading, from, progress);
      }
    } else if (missing && progress.mayRewind()) {
      this.#resend(leading, from, progress);
    }
    this.#maybeCommit();
    this.#sendProposals(leading, from, progress);
  }

  /** A quorum that belongs to this epoch has it on disk. Commits go in order, so one number says all (DSN'11 §IV.C). */
  #maybeCommit(): void {
    const leading = this.#state;
    if (leading.kind !== "leading" || leading.phase !== "broadcast") return;
    const index = quorumReached(this.#configuration, (member) => {
      if (member === this.#self) return this.#durableIndex;
      const progress = leading.followers.get(member);
      return progress?.isActive === true ? progress.match : 0;
    });
    this.#commitTo(index);
  }

  #commitTo(index: Index): void {
    if (index <= this.#committed) return;
    this.#committed = index;
    const entries: LogEntry[] = [];
    for (let at = this.#delivered + 1; at <= index; at++) {
      const entry = this.#log.entryAt(at);
      assert(entry !== undefined, "what is committed is in the log");
      entries.push(entry);
      if (this.#state.kind === "leading" && entry.term === this.#state.epoch) this.#uncommittedBytes -= entryBytes(entry);
    }
    this.#delivered = index;
    this.#outputs.push({ kind: "deliver", entries });
  }

  // ------------------------------------------------------------------------------------------------ pings and reads

  #ping(leading: Leading): void {
    this.#round++;
    this.#pingDueMs = this.#nowMs + this.#options.pingMs;
    for (const member of leading.accepted.keys()) {
      if (leading.epoch === 0 || member === this.#self || leading.followers.has(member)) continue;
      this.#send(member, leaderInfo(leading), "control");
    }
    if (leading.phase === "discovery") return;
    for (const [member, progress] of leading.followers) {
      const sent = progress.snapshot === undefined ? progress.next - 1 : 0;
      const [epoch, round, committed, acked] = [leading.epoch, this.#round, this.#committed, progress.match];
      this.#send(member, { kind: "ping", epoch, round, committed, sent, acked }, "control");
      progress.onPing();
      if (progress.snapshot === undefined) this.#maybeOffer(leading, member, progress);
    }
  }

  #onPing(from: MemberId, ping: Message<"ping">): void {
    const following = this.#followedIn(from, ping.epoch);
    if (following === undefined) return;
    this.#hearLeader();
    const verified = following.verified ?? 0;
    if (this.#installing === undefined) this.#commitTo(Math.min(ping.committed, verified));
    this.#send(from, { kind: "pong", epoch: ping.epoch, round: ping.round, missing: verified < ping.sent }, "control");
    // An ack may have been lost: said again once the disk has it.
    if (verified > ping.acked) this.#ackTo(following, { missing: false });
  }

  #onPong(from: MemberId, pong: Message<"pong">): void {
    const leading = this.#state;
    const progress = leading.kind === "leading" && leading.epoch === pong.epoch ? leading.followers.get(from) : undefined;
    if (leading.kind !== "leading" || progress === undefined) return;
    progress.lastHeardMs = this.#nowMs;
    if (pong.round > this.#round) return;
    progress.round = Math.max(progress.round, pong.round);
    this.#confirmReads(leading);
    if (progress.snapshot !== undefined) {
      if (++progress.snapshot.silentPings >= silentPingsMax && !progress.snapshot.reading) this.#readSnapshot(from, progress);
    } else if (pong.missing && progress.mayRewind()) this.#resend(leading, from, progress);
  }

  #onRead(ticket: number): void {
    const leading = this.#state;
    if (leading.kind !== "leading" || leading.phase !== "broadcast") {
      this.#reject(ticket, "not-leader");
      return;
    }
    this.#reads.add(ticket, this.#committed);
    this.#startReadRound(leading);
  }

  /**
   * ZooKeeper's `sync` without a proposal: a quorum that still follows when it echoes has accepted no later epoch, so nothing
   * was committed elsewhere before the round began.
   */
  #startReadRound(leading: Leading): void {
    if (!this.#reads.canStart()) return;
    this.#ping(leading);
    this.#reads.start(this.#round, this.#committed);
    this.#confirmReads(leading);
  }

  #confirmReads(leading: Leading): void {
    if (leading.phase !== "broadcast") return;
    const confirmed = quorumReached(this.#configuration, (member) => {
      if (member === this.#self) return this.#round;
      const progress = leading.followers.get(member);
      return progress?.isActive === true ? progress.round : 0;
    });
    const reads = this.#reads.confirm(confirmed);
    if (reads.length === 0) return;
    for (const { ticket, index } of reads) this.#outputs.push({ kind: "read-at", ticket, index });
    this.#startReadRound(leading);
  }

  // ------------------------------------------------------------------------------------------------ snapshots [SNAP]

  #beginSnapshot(to: MemberId, progress: FollowerProgress): void {
    progress.beginSnapshot();
    this.#readSnapshot(to, progress);
  }

  #readSnapshot(to: MemberId, { snapshot }: FollowerProgress): void {
    assert(snapshot !== undefined, "chunks go to a follower that needs a snapshot");
    snapshot.reading = true;
    snapshot.silentPings = 0;
    const { offset } = snapshot;
    this.#outputs.push({ kind: "read-snapshot", to, offset, lengthBytes: this.#options.snapshotChunkBytes });
  }

  #onSnapshotBytes(input: Extract<Input<ZabMessage>, { kind: "snapshot-bytes" }>): void {
    const leading = this.#state;
    const progress = leading.kind === "leading" ? leading.followers.get(input.to) : undefined;
    if (leading.kind !== "leading" || progress?.snapshot === undefined) return;
    const { snapshot } = progress;
    snapshot.reading = false;
    if (input.offset !== snapshot.offset) return;
    if (input.index !== snapshot.index && input.offset !== 0) {
      // A newer snapshot took its place: begin again with that one.
      snapshot.offset = 0;
      this.#readSnapshot(input.to, progress);
      return;
    }
    snapshot.index = input.index;
    const { index, term, offset, bytes, done } = input;
    this.#send(input.to, { kind: "snapshot", epoch: leading.epoch, index, term, offset, bytes, done }, "bulk");
  }

  #onSnapshotAck(from: MemberId, ack: Message<"snapshot-ack">): void {
    const leading = this.#state;
    const progress = leading.kind === "leading" && leading.epoch === ack.epoch ? leading.followers.get(from) : undefined;
    if (progress === undefined) return;
    progress.lastHeardMs = this.#nowMs;
    const { snapshot } = progress;
    if (snapshot === undefined || ack.index !== snapshot.index || snapshot.reading || ack.offset === snapshot.offset) return;
    snapshot.offset = ack.offset;
    this.#readSnapshot(from, progress);
  }

  #onSnapshot(from: MemberId, message: Message<"snapshot">): void {
    const following = this.#followedIn(from, message.epoch);
    if (following === undefined || this.#installing !== undefined) return;
    this.#hearLeader();
    const { epoch, index, term, offset, bytes, done } = message;
    if (index <= this.#committed) {
      // Already there: what is committed is in the leader's history. Entries go on from here.
      this.#incoming = undefined;
      this.#send(from, { kind: "ack", epoch, index, missing: false }, "log", this.#logSequence);
      return;
    }
    const current = this.#incoming;
    const isSame = current?.index === index && current.from === from;
    if (offset !== (isSame ? current.offset : 0)) {
      if (isSame || offset !== 0) {
        this.#send(from, { kind: "snapshot-ack", epoch, index, offset: isSame ? current.offset : 0 }, "control");
        return;
      }
    }
    this.#incoming = { index, term, from, offset: offset + bytes.length };
    if (done) this.#installing = this.#incoming;
    const configuration = this.#configuration;
    this.#outputs.push({ kind: "install-snapshot", from, index, term, configuration, offset, bytes, done });
    if (!done) this.#send(from, { kind: "snapshot-ack", epoch, index, offset: offset + bytes.length }, "control");
  }

  #onSnapshotInstalled(input: Extract<Input<ZabMessage>, { kind: "snapshot-installed" }>): void {
    // Also where the leader has changed meanwhile: the host has installed it, and what is installed is committed.
    const incoming = this.#installing;
    this.#installing = undefined;
    if (this.#incoming?.index === input.index) this.#incoming = undefined;
    if (incoming === undefined || incoming.index !== input.index || !input.ok) return;
    const { index, term } = incoming;
    assert(index > this.#committed, "a snapshot never takes back what is committed");
    if (this.#log.termAt(index) === term) {
      this.#log.compact(index, 0);
    } else {
      this.#persist({ kind: "truncate", from: index + 1 });
      this.#log.reset({ index, term, stampMs: input.stampMs });
      this.#durableIndex = index;
      this.#persisting = [];
    }
    this.#committed = index;
    this.#delivered = index;
    this.#applied = index;
    this.#durableIndex = Math.max(this.#durableIndex, index);
    const following = this.#state;
    if (following.kind !== "following" || following.leader !== incoming.from || following.phase === "discovery") return;
    this.#send(incoming.from, { kind: "ack", epoch: this.#acceptedEpoch, index, missing: false }, "log", this.#logSequence);
  }

  // ------------------------------------------------------------------------------------------------ post and disk

  #onMessage(from: MemberId, message: ZabMessage): void {
    if (from === this.#self || !this.#configuration.voters.includes(from) || !isLawful(message)) return;
    switch (message.kind) {
      case "looking":
        this.#onLooking(from, message);
        break;
      case "settled":
        this.#onSettled(from, message);
        break;
      case "follower-info":
        this.#onFollowerInfo(from, message);
        break;
      case "leader-info":
        this.#onLeaderInfo(from, message);
        break;
      case "ack-epoch":
        this.#onAckEpoch(from, message);
        break;
      case "proposal":
        this.#onProposal(from, message);
        break;
      case "ack":
        this.#onAck(from, message);
        break;
      case "new-leader":
        this.#onNewLeader(from, message);
        break;
      case "ack-leader":
        this.#onAckLeader(from, message);
        break;
      case "ping":
        this.#onPing(from, message);
        break;
      case "pong":
        this.#onPong(from, message);
        break;
      case "snapshot":
        this.#onSnapshot(from, message);
        break;
      case "snapshot-ack":
        this.#onSnapshotAck(from, message);
        break;
      default:
        unreachable(message);
    }
  }

  /** The state of following this leader in this epoch, once its epoch was accepted; anything else is somebody's past. */
  #followedIn(leader: MemberId, epoch: Term): Following | undefined {
    const state = this.#state;
    if (state.kind !== "following" || state.leader !== leader || state.phase === "discovery") return undefined;
    return epoch === this.#acceptedEpoch ? state : undefined;
  }

  #hearLeader(): void {
    this.#deadlineMs = this.#patience();
  }

  #leaderName(): MemberId | undefined {
    const state = this.#state;
    if (state.kind === "following") return state.leader;
    return state.kind === "leading" && state.phase === "broadcast" ? this.#self : undefined;
  }

  #tellRole(role: Role, leader: MemberId | undefined): void {
    this.#outputs.push({ kind: "role", role, term: this.#acceptedEpoch, leader });
  }

  #persist(operation: LogOperation): void {
    this.#operations.push(operation);
    this.#logSequence = this.#sequence + 1;
  }

  #persistEpochs(): void {
    const values = {
      acceptedEpoch: String(this.#acceptedEpoch),
      acceptedFrom: this.#acceptedFrom ?? "",
      currentEpoch: String(this.#currentEpoch),
    };
    this.#operations.push({ kind: "meta", values });
    this.#epochSequence = this.#sequence + 1;
  }

  #onPersisted(sequence: PersistSequence): void {
    assert(sequence <= this.#sequence && sequence >= this.#durableSequence, "the disk confirms in order");
    this.#durableSequence = sequence;
    let done = 0;
    while (done < this.#persisting.length && (this.#persisting[done] as { sequence: number }).sequence <= sequence) {
      this.#durableIndex = Math.max(this.#durableIndex, (this.#persisting[done] as { lastIndex: number }).lastIndex);
      done++;
    }
    if (done > 0) this.#persisting.splice(0, done);
    const leading = this.#state;
    if (leading.kind !== "leading") return;
    // Our own disk counts like a follower's, and no earlier.
    if (leading.phase === "discovery" && leading.epoch !== 0 && this.#epochSequence <= sequence) {
      leading.ackedEpoch.add(this.#self);
      this.#maybeSynchronise(leading);
    }
    this.#maybeEstablish(leading);
    this.#maybeCommit();
  }

  #send(to: MemberId, message: ZabMessage, lane: Lane, after: PersistSequence = 0): void {
    this.#outputs.push({ kind: "send", to, message, after: Math.max(after, this.#epochSequence), lane });
  }

  /** Closes the step: its disk operations become one atomic persist, ahead of everything that waits for it. */
  #finish(): readonly Output<ZabMessage>[] {
    if (this.#operations.length > 0) {
      this.#sequence++;
      this.#outputs.unshift({ kind: "persist", sequence: this.#sequence, operations: this.#operations });
      this.#persisting.push({ sequence: this.#sequence, lastIndex: this.#log.lastIndex });
      this.#operations = [];
    }
    this.#outputs.push({ kind: "timer", atMs: this.#nextTimerMs() });
    const outputs = this.#outputs;
    this.#outputs = [];
    return outputs;
  }

  #nextTimerMs(): number {
    const state = this.#state;
    switch (state.kind) {
      case "looking":
        return Math.min(this.#finalizeAtMs, this.#deadlineMs);
      case "following":
        return state.phase === "discovery" ? Math.min(this.#deadlineMs, this.#pingDueMs) : this.#deadlineMs;
      case "leading":
        return Math.min(this.#pingDueMs, state.phase === "discovery" ? state.giveUpMs : this.#quorumCheckMs);
    }
  }

  #makeProbe(): Probe {
    const zab = this;
    const followerOf = (member: MemberId): FollowerProgress | undefined =>
      zab.#state.kind === "leading" ? zab.#state.followers.get(member) : undefined;
    return {
      get role(): Role {
        if (zab.#state.kind === "following") return "follower";
        return zab.#leaderName() === zab.#self ? "leader" : "candidate";
      },
      get term() {
        return zab.#acceptedEpoch;
      },
      get leader() {
        return zab.#leaderName();
      },
      get committedIndex() {
        return zab.#committed;
      },
      get firstIndex() {
        return zab.#log.firstIndex;
      },
      get lastIndex() {
        return zab.#log.lastIndex;
      },
      get configuration() {
        return zab.#configuration;
      },
      get durableIndex() {
        return zab.#durableIndex;
      },
      hasLease: () => false,
      configurationAt: () => zab.#configuration,
      termAt: (index) => zab.#log.termAt(index),
      matchOf: (member) => followerOf(member)?.match,
      lastHeardMsOf: (member) => followerOf(member)?.lastHeardMs,
    };
  }
}
