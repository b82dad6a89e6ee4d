/**
 * Raft: one leader orders the entries, a majority keeps them, and whoever leads next has them all.
 *
 * Intuition: minutes of a meeting. Only the chair writes; a line counts once most members have copied it; and nobody is
 * made chair whose copy lacks a line that counts.
 *
 * Source: Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", USENIX ATC 2014 (sections below are
 * of its extended version, "Raft"), and Ongaro's thesis (2014) for transfer (§3.10), membership (§4.2, §4.3), check-quorum
 * (§6.2), ReadIndex and leases (§6.4), pre-vote (§9.6), and the leader's disk that works in parallel with the followers'
 * (§10.2.1). `docs/protocol/raft.md` is the tour.
 * Assumes crash faults, a disk that keeps what it confirmed, and messages that may be lost, doubled, late and out of order;
 * for reads by lease also clocks whose rates stay within `clockDriftMax`.
 *
 * Pure: see `consensus/core.ts`. Every message that reveals durable state names the persist that it waits for.
 */
import { assert, unreachable } from "../../base/assert.ts";
import { decodeConfiguration, encodeConfiguration, hasQuorum, isVoter, membersOf, quorumReached } from "../configuration.ts";
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
  ReadLevel,
  Recovered,
  Role,
  Term,
} from "../core.ts";
import { leaveJoint, planChange } from "../membership.ts";
import { Configurations } from "./configurations.ts";
import { Lease, promiseOf } from "./lease.ts";
import type { RaftMessage } from "./messages.ts";
import { type RaftOptions, raftDefaults } from "./options.ts";
import { Progress } from "./progress.ts";
import { entryBytes, RaftLog } from "./raft-log.ts";
import { ReadQueue } from "./read-queue.ts";

type Message<K extends RaftMessage["kind"]> = Extract<RaftMessage, { kind: K }>;

/** An election that is under way here. `pre`: the dry run that raises no term. */
interface Campaign {
  readonly phase: "pre" | "real";
  readonly votes: Set<MemberId>;
}

/** Leadership that is being handed over. `sent`: the target has been told to campaign. */
interface Transfer {
  readonly to: MemberId;
  readonly ticket: number;
  readonly deadlineMs: number;
  sent: boolean;
}

/** Heartbeats without an answer about the snapshot after which the chunk is read and sent again. */
const silentBeatsMax = 8;

export class Raft implements Core<RaftMessage> {
  readonly #options: RaftOptions;
  #environment!: CoreEnvironment;
  #self!: MemberId;
  #nowMs = 0;
  #outputs: Output<RaftMessage>[] = [];

  // Durable state (Raft Figure 2), mirrored by the log room.
  /** Invariant: never falls, and is on disk before any message of this term leaves. */
  #term: Term = 0;
  #vote: MemberId | undefined;
  readonly #log = new RaftLog();

  // Volatile state.
  #role: Role = "follower";
  #leader: MemberId | undefined;
  #configuration!: Configuration;
  readonly #configurations = new Configurations();
  /** Invariant: never falls within an incarnation. */
  #committed: Index = 0;
  #delivered: Index = 0;
  #applied: Index = 0;
  #campaign: Campaign | undefined;
  #electionDeadlineMs = 0;
  #leaderHeardMs = Number.NEGATIVE_INFINITY;
  /** The leader whose connection broke last, and was not made again. */
  #lostLink: { readonly leader: MemberId; readonly atMs: number } | undefined;

  /** Until then we vote for nobody but on the leader's own word: it may be serving reads by lease. */
  #promisedUntilMs = Number.NEGATIVE_INFINITY;

  // The leader's state.
  #progress = new Map<MemberId, Progress>();
  /** Members that the configuration in force has let go, until they know it or this time has come. */
  #departing = new Map<MemberId, number>();
  /** The ticket of the change under way here. */
  #change: number | undefined;
  #transfer: Transfer | undefined;
  readonly #lease: Lease;
  #heartbeatDueMs = 0;
  #quorumCheckMs = 0;
  #round = 0;
  readonly #reads = new ReadQueue();
  #uncommittedBytes = 0;
  #stampBase = { stampMs: 0, atMs: 0 };

  // What is on its way to the disk.
  #operations: LogOperation[] = [];
  #sequence: PersistSequence = 0;
  #durableSequence: PersistSequence = 0;
  /** The last persist that changed term or vote: no message leaves before it. */
  #hardStateSequence: PersistSequence = 0;
  /** The last persist that changed the log. */
  #logSequence: PersistSequence = 0;
  /** Our own disk holds the log up to here. */
  #durableIndex: Index = 0;
  #persisting: { readonly sequence: PersistSequence; lastIndex: Index }[] = [];

  // A snapshot that is coming in.
  #incoming:
    | {
        readonly index: Index;
        readonly term: Term;
        readonly configuration: Configuration;
        offset: number;
        installing: boolean;
        readonly from: MemberId;
      }
    | undefined;

  readonly #probe: Probe;

  constructor(options: Partial<RaftOptions> = {}) {
    this.#options = { ...raftDefaults, ...options };
    this.#lease = new Lease(this.#options.clockDriftMax);
    this.#probe = this.#makeProbe();
  }

  start(environment: CoreEnvironment, recovered: Recovered): readonly Output<RaftMessage>[] {
    this.#environment = environment;
    this.#self = environment.self;
    this.#nowMs = environment.nowMs;
    this.#term = Number(recovered.meta.get("term") ?? 0);
    this.#vote = recovered.meta.get("vote") || undefined;
    this.#configurations.restart({ index: 0, configuration: environment.configuration }, 0);
    if (recovered.snapshot !== undefined) {
      const { index, configuration } = recovered.snapshot;
      this.#log.reset(recovered.snapshot);
      this.#configurations.restart({ index, configuration }, index);
      this.#committed = index;
      this.#delivered = index;
      this.#applied = index;
    }
    for (const entry of recovered.entries) this.#append(entry);
    // A snapshot is a file of its own: it can be on the disk before the term in which it came. That term is known all the
    // same, and no vote was cast in it, because none leaves before the disk knows the term.
    if (this.#log.lastTerm > this.#term) {
      this.#term = this.#log.lastTerm;
      this.#vote = undefined;
      this.#persistHardState();
    }
    this.#durableIndex = this.#log.lastIndex;
    this.#adoptConfiguration();
    this.#outputs.push({ kind: "role", role: "follower", term: this.#term, leader: undefined });
    // A promise of the incarnation before may still bind. It is not on the disk, so it is taken for given.
    if (this.#term > 0 && !this.#isAlone()) this.#promisedUntilMs = this.#nowMs + this.#promiseMs;
    // Alone, there is nobody to wait for.
    this.#electionDeadlineMs = this.#isAlone() ? this.#nowMs : this.#randomDeadline(this.#options.electionTimeoutMs);
    return this.#finish();
  }

  step(input: Input<RaftMessage>): readonly Output<RaftMessage>[] {
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
        this.#onRead(input.ticket, input.level ?? "linearizable");
        break;
      case "change":
        this.#onChange(input);
        break;
      case "transfer":
        this.#onTransfer(input);
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
        this.#configurations.compact(input.index);
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

  leaseReadIndex(nowMs: number): Index | undefined {
    if (this.#role !== "leader") return undefined;
    this.#nowMs = Math.max(this.#nowMs, nowMs);
    // Asked for again in either case: the round that answers a read without a lease asks for promises, too.
    this.#lease.want(this.#nowMs);
    return this.#hasLease(this.#nowMs) ? this.#committed : undefined;
  }

  // ------------------------------------------------------------------------------------------------ time and links

  #onTick(): void {
    if (this.#role !== "leader") {
      if (this.#nowMs >= this.#electionDeadlineMs) this.#maybeCampaign();
      return;
    }
    if (this.#nowMs >= this.#quorumCheckMs) {
      // A leader that cannot reach a quorum cannot commit, and hides a better one from its clients (thesis §6.2).
      const since = this.#nowMs - 2 * this.#options.electionTimeoutMs;
      const reaches = (member: MemberId): boolean =>
        member === this.#self || (this.#progress.get(member)?.lastHeardMs ?? Number.NEGATIVE_INFINITY) > since;
      if (!hasQuorum(this.#configuration, reaches)) {
        this.#becomeFollower(this.#term, undefined);
        return;
      }
      this.#quorumCheckMs = this.#nowMs + this.#options.electionTimeoutMs;
    }
    if (this.#transfer !== undefined && this.#nowMs >= this.#transfer.deadlineMs) {
      this.#reject(this.#transfer.ticket, "transfer-abandoned");
      this.#transfer = undefined;
    }
    if (this.#nowMs >= this.#heartbeatDueMs) {
      this.#broadcastHeartbeat();
      this.#dismissDeparted();
      if (this.#transfer !== undefined) this.#maybeHandOver(this.#transfer);
    }
  }

  #onLink(peer: MemberId, up: boolean): void {
    if (this.#role === "leader") {
      const progress = this.#progress.get(peer);
      // What was in flight on the old connection may be gone: find out where the logs agree.
      if (up && progress !== undefined && progress.state.kind === "replicate") {
        progress.becomeProbe(progress.match + 1);
        this.#sendAppends(peer, progress);
      }
      return;
    }
    if (up && peer === this.#lostLink?.leader) this.#lostLink = undefined;
    if (up || peer !== this.#leader || this.#role !== "follower") return;
    // The connection to the leader broke: most likely its process is gone. Pre-vote makes a wrong guess harmless.
    this.#lostLink = { leader: peer, atMs: this.#nowMs };
    this.#leaderHeardMs = Number.NEGATIVE_INFINITY;
    const soon = Math.max(this.#nowMs, this.#promisedUntilMs) + this.#random() * this.#options.linkLossDelayMs;
    this.#electionDeadlineMs = Math.min(this.#electionDeadlineMs, soon);
  }

  /** Letters of a killed leader may still lie in the buffers of a connection that it made: they are no sign of life. */
  #isLastWordOf(leader: MemberId): boolean {
    return this.#lostLink?.leader === leader && this.#nowMs < this.#lostLink.atMs + 2 * this.#options.linkLossDelayMs;
  }

  #randomDeadline(timeoutMs: number): number {
    return this.#nowMs + timeoutMs * (1 + this.#random());
  }

  #random(): number {
    return this.#environment.randomUint32() / 2 ** 32;
  }

  #isAlone(): boolean {
    const { voters, outgoing } = this.#configuration;
    return outgoing === undefined && voters.length === 1 && voters[0] === this.#self;
  }

  get #promiseMs(): number {
    return Math.floor(this.#options.electionTimeoutMs);
  }

  /** The promise to a leader that may be reading by lease stands, whatever has become of the connection to it. */
  #isPromised(): boolean {
    return this.#nowMs < this.#promisedUntilMs;
  }

  /** A leader was heard so recently that helping to depose it would only disturb (thesis §6.2, §9.6). */
  #hasLiveLeader(): boolean {
    if (this.#role === "leader") return true;
    return this.#leader !== undefined && this.#nowMs < this.#leaderHeardMs + this.#options.electionTimeoutMs;
  }

  // ------------------------------------------------------------------------------------------------ elections (Raft §5.2)

  #maybeCampaign(): void {
    if (this.#isPromised()) {
      this.#electionDeadlineMs = this.#promisedUntilMs + this.#random() * this.#options.linkLossDelayMs;
      return;
    }
    // A peer that has not noticed yet that the leader is gone refuses the first time: ask again soon.
    const isHurried = this.#lostLink !== undefined && this.#nowMs < this.#lostLink.atMs + this.#options.electionTimeoutMs;
    this.#electionDeadlineMs = this.#randomDeadline(isHurried ? this.#options.linkLossDelayMs : this.#options.electionTimeoutMs);
    if (!this.#mayCampaign() || this.#incoming?.installing) return;
    this.#leader = undefined;
    if (this.#isAlone()) {
      this.#campaignForReal({ transfer: false });
      return;
    }
    // The dry run first: a member that cannot win must not raise the term and depose a leader that works (thesis §9.6).
    this.#campaign = { phase: "pre", votes: new Set([this.#self]) };
    this.#setRole("candidate");
    this.#requestVotes({ preVote: true, transfer: false, term: this.#term + 1 });
  }

  /**
   * A voter of the latest configuration; or of the one before, while the latest may never have reached anybody else:
   * "a server that is not part of its own latest configuration should still start new elections, as it might still be needed
   * until the C_new entry is committed" (thesis §4.2.2). Its own vote then counts for nothing, because `hasQuorum` asks voters.
   */
  #mayCampaign(): boolean {
    if (isVoter(this.#configuration, this.#self)) return true;
    const { index } = this.#configurations.latest;
    return index > this.#committed && isVoter(this.#configurations.at(index - 1).configuration, this.#self);
  }

  #campaignForReal({ transfer }: { readonly transfer: boolean }): void {
    this.#term++;
    this.#vote = this.#self;
    this.#persistHardState();
    // Our own vote counts once it is on disk (`#onPersisted`): alone, nothing else would wait for it.
    this.#campaign = { phase: "real", votes: new Set() };
    this.#setRole("candidate");
    this.#requestVotes({ preVote: false, transfer, term: this.#term });
  }

  #requestVotes(ballot: { readonly preVote: boolean; readonly transfer: boolean; readonly term: Term }): void {
    for (const member of membersOf(this.#configuration)) {
      if (member === this.#self || !isVoter(this.#configuration, member)) continue;
      const message = { kind: "vote-request", ...ballot, lastIndex: this.#log.lastIndex, lastTerm: this.#log.lastTerm } as const;
      // The candidate's own log is part of its claim: what it says it has must be on its disk.
      this.#send(member, message, "control", this.#logSequence);
    }
  }

  #onVoteRequest(from: MemberId, request: Message<"vote-request">): void {
    const upToDate =
      request.lastTerm > this.#log.lastTerm ||
      (request.lastTerm === this.#log.lastTerm && request.lastIndex >= this.#log.lastIndex); // Raft §5.4.1
    if (request.preVote) {
      const granted = request.term > this.#term && upToDate && !this.#hasLiveLeader() && !this.#isPromised();
      const term = granted ? request.term : this.#term;
      this.#send(from, { kind: "vote-reply", term, preVote: true, granted }, "control");
      return;
    }
    const free = this.#vote === undefined ? this.#leader === undefined : this.#vote === from;
    const granted = request.term === this.#term && free && upToDate && this.#role !== "leader";
    if (granted) {
      if (this.#vote === undefined) {
        this.#vote = from;
        this.#persistHardState();
      }
      this.#electionDeadlineMs = this.#randomDeadline(this.#options.electionTimeoutMs);
    }
    // The vote is on disk before the reply leaves: two votes in one term elect two leaders (Raft Figure 2).
    this.#send(from, { kind: "vote-reply", term: this.#term, preVote: false, granted }, "control");
  }

  #onVoteReply(from: MemberId, reply: Message<"vote-reply">): void {
    const campaign = this.#campaign;
    if (campaign === undefined || !reply.granted || reply.preVote !== (campaign.phase === "pre")) return;
    if (reply.term !== (campaign.phase === "pre" ? this.#term + 1 : this.#term)) return;
    campaign.votes.add(from);
    this.#maybeWin();
  }

  #maybeWin(): void {
    const campaign = this.#campaign;
    if (campaign === undefined || !hasQuorum(this.#configuration, (member) => campaign.votes.has(member))) return;
    if (campaign.phase === "pre") this.#campaignForReal({ transfer: false });
    else this.#becomeLeader();
  }

  #becomeLeader(): void {
    this.#campaign = undefined;
    this.#leader = this.#self;
    this.#setRole("leader");
    this.#stampBase = { stampMs: this.#log.lastStampMs, atMs: this.#nowMs };
    this.#progress = new Map();
    this.#departing = new Map();
    this.#lease.begin();
    this.#followConfiguration();
    this.#quorumCheckMs = this.#nowMs + 2 * this.#options.electionTimeoutMs;
    this.#uncommittedBytes = 0;
    for (let index = this.#committed + 1; index <= this.#log.lastIndex; index++) {
      this.#uncommittedBytes += entryBytes(this.#log.entryAt(index) as LogEntry);
    }
    // An entry of the own term commits everything before it (Raft §5.4.2, §8). The first entry of a group names its members.
    if (this.#log.lastIndex === 0) this.#lead("configuration", encodeConfiguration(this.#configuration));
    else this.#lead("noop", new Uint8Array(0));
    this.#broadcastHeartbeat();
  }

  #becomeFollower(term: Term, leader: MemberId | undefined): void {
    const wasLeader = this.#role === "leader";
    const isOvertaken = term > this.#term;
    if (isOvertaken) {
      this.#term = term;
      this.#vote = undefined;
      this.#persistHardState();
    }
    this.#campaign = undefined;
    const changed = this.#leader !== leader;
    this.#leader = leader;
    if (leader === undefined) this.#leaderHeardMs = Number.NEGATIVE_INFINITY;
    if (wasLeader) {
      this.#progress = new Map();
      this.#departing = new Map();
      for (const ticket of this.#reads.clear()) this.#reject(ticket, "lost-leadership");
      if (this.#change !== undefined) this.#reject(this.#change, "lost-leadership");
      this.#change = undefined;
      if (this.#transfer !== undefined) {
        if (isOvertaken && this.#transfer.sent) this.#outputs.push({ kind: "done", ticket: this.#transfer.ticket });
        else this.#reject(this.#transfer.ticket, "lost-leadership");
      }
      this.#transfer = undefined;
    }
    if (wasLeader || this.#electionDeadlineMs <= this.#nowMs) {
      this.#electionDeadlineMs = this.#randomDeadline(this.#options.electionTimeoutMs);
    }
    if (changed || this.#role !== "follower") this.#setRole("follower");
  }

  #setRole(role: Role): void {
    this.#role = role;
    this.#outputs.push({ kind: "role", role, term: this.#term, leader: this.#leader });
  }

  // ------------------------------------------------------------------------------------------------ messages

  #onMessage(from: MemberId, message: RaftMessage): void {
    const isUnbidden = message.kind === "vote-request" && !message.preVote && !message.transfer;
    // A vote that is promised is withheld, whatever the term: the leader that it was promised to may be reading by lease.
    if (isUnbidden && this.#isPromised()) return;
    if (message.term > this.#term && !this.#raisesNoTerm(message)) {
      // A vote request of a member that missed the leader's voice must not depose it (thesis §4.2.3, §6.2).
      if (isUnbidden && this.#hasLiveLeader()) return;
      this.#becomeFollower(message.term, undefined);
    }
    if (message.term < this.#term && !(message.kind === "vote-request" && message.preVote)) {
      this.#onStale(from, message);
      return;
    }
    // Only a voter comes to lead; a stranger that says so in our own term deposes nobody.
    const claimsToLead = message.kind === "append" || message.kind === "heartbeat" || message.kind === "snapshot";
    if (claimsToLead && this.#role === "leader" && !isVoter(this.#configuration, from)) return;
    const progress = this.#role === "leader" ? this.#progress.get(from) : undefined;
    if (progress !== undefined) progress.lastHeardMs = this.#nowMs;
    switch (message.kind) {
      case "vote-request":
        this.#onVoteRequest(from, message);
        break;
      case "vote-reply":
        this.#onVoteReply(from, message);
        break;
      case "append":
        this.#hearLeader(from);
        this.#onAppend(from, message);
        break;
      case "heartbeat":
        this.#onHeartbeat(from, message);
        break;
      case "snapshot":
        this.#hearLeader(from);
        this.#onSnapshot(from, message);
        break;
      case "append-reply":
        if (progress !== undefined) this.#onAppendReply(from, progress, message);
        break;
      case "heartbeat-reply":
        if (progress !== undefined) this.#onHeartbeatReply(from, progress, message);
        break;
      case "snapshot-reply":
        if (progress !== undefined) this.#onSnapshotReply(from, progress, message);
        break;
      case "timeout-now":
        this.#onTimeoutNow();
        break;
      default:
        unreachable(message);
    }
  }

  /** Pre-votes speak of a term that nobody has entered yet. */
  #raisesNoTerm(message: RaftMessage): boolean {
    if (message.kind === "vote-request") return message.preVote;
    return message.kind === "vote-reply" && message.preVote && message.granted;
  }

  /** The sender lives in an older term: tell it the present one, so that a deposed leader or candidate lets go. */
  #onStale(from: MemberId, message: RaftMessage): void {
    if (message.kind === "vote-request") {
      this.#send(from, { kind: "vote-reply", term: this.#term, preVote: false, granted: false }, "control");
    } else if (message.kind === "append" || message.kind === "heartbeat" || message.kind === "snapshot") {
      this.#send(from, { kind: "heartbeat-reply", term: this.#term, round: 0, promisedMs: 0 }, "control");
    }
  }

  #onHeartbeat(from: MemberId, message: Message<"heartbeat">): void {
    // A last word is no sign of life, so nothing is promised on it either.
    const promisedMs = message.lease && !this.#isLastWordOf(from) ? this.#promiseMs : 0;
    this.#hearLeader(from);
    if (promisedMs > 0) this.#promisedUntilMs = this.#nowMs + promisedMs;
    if (!this.#incoming?.installing) this.#commitTo(Math.min(message.commitIndex, this.#log.lastIndex));
    this.#send(from, { kind: "heartbeat-reply", term: this.#term, round: message.round, promisedMs }, "control");
  }

  #hearLeader(leader: MemberId): void {
    assert(this.#role !== "leader", "a term has one leader (Raft §5.2, Election Safety)");
    if (this.#isLastWordOf(leader)) return;
    this.#lostLink = undefined;
    this.#leaderHeardMs = this.#nowMs;
    this.#electionDeadlineMs = this.#randomDeadline(this.#options.electionTimeoutMs);
    if (this.#leader !== leader || this.#role === "candidate") this.#becomeFollower(this.#term, leader);
  }

  // ------------------------------------------------------------------------------------------------ follower (Raft §5.3)

  #onAppend(from: MemberId, message: Message<"append">): void {
    // While a snapshot is being installed the log below it is in question.
    if (this.#incoming?.installing) return;
    const { entries } = message;
    const end = message.previousIndex + entries.length;
    const hasPrevious =
      message.previousIndex <= this.#committed || this.#log.termAt(message.previousIndex) === message.previousTerm;
    if (!hasPrevious) {
      const hintIndex = Math.max(this.#committed, this.#log.agreementHint(message.previousIndex, message.previousTerm));
      const hintTerm = this.#log.termAt(hintIndex) ?? 0;
      const reply = {
        kind: "append-reply",
        term: this.#term,
        accepted: false,
        index: message.previousIndex,
        hintIndex,
        hintTerm,
      } as const;
      this.#send(from, reply, "control");
      return;
    }
    for (const entry of entries) {
      // Committed entries equal the leader's by Leader Completeness; equal (index, term) means equal prefix (Log Matching).
      if (entry.index <= this.#committed || this.#log.termAt(entry.index) === entry.term) continue;
      if (entry.index <= this.#log.lastIndex) this.#truncate(entry.index);
      this.#append(entry);
      this.#persist({ kind: "put", entry });
    }
    this.#commitTo(Math.min(message.commitIndex, end));
    const reply = { kind: "append-reply", term: this.#term, accepted: true, index: end, hintIndex: 0, hintTerm: 0 } as const;
    this.#send(from, reply, "log", this.#logSequence);
  }

  #truncate(from: Index): void {
    assert(from > this.#committed, "a committed entry is never truncated (State Machine Safety)");
    this.#log.truncate(from);
    this.#durableIndex = Math.min(this.#durableIndex, from - 1);
    // A write under way that held the dropped entries must not later vouch for their successors: were it to raise the durable
    // index over the cut, a leader would count entries as its own that its disk has never seen.
    for (const pending of this.#persisting) pending.lastIndex = Math.min(pending.lastIndex, from - 1);
    this.#persist({ kind: "truncate", from });
    if (this.#configurations.truncate(from)) this.#adoptConfiguration();
  }

  #append(entry: LogEntry): void {
    this.#log.append(entry);
    if (entry.kind !== "configuration") return;
    // The latest configuration in the log is in force, committed or not (Raft §6).
    this.#configurations.append({ index: entry.index, configuration: decodeConfiguration(entry.payload) });
    this.#adoptConfiguration();
  }

  #adoptConfiguration(): void {
    const { latest } = this.#configurations;
    this.#configuration = latest.configuration;
    this.#outputs.push({ kind: "configuration", ...latest, committed: latest.index <= this.#committed });
    if (this.#role === "leader") this.#followConfiguration();
  }

  // ------------------------------------------------------------------------------------------------ leader

  #onSubmit(input: Extract<Input<RaftMessage>, { kind: "submit" }>): void {
    if (this.#role !== "leader") this.#reject(input.ticket, "not-leader");
    else if (input.fence !== undefined && input.fence !== this.#term) this.#reject(input.ticket, "fenced");
    // What is appended now would only keep the target behind (thesis §3.10, step 1).
    else if (this.#transfer !== undefined) this.#reject(input.ticket, "transferring");
    else if (this.#uncommittedBytes > this.#options.uncommittedBytesMax) this.#reject(input.ticket, "busy");
    else {
      const index = this.#lead("batch", input.payload);
      this.#outputs.push({ kind: "accepted", ticket: input.ticket, index, term: this.#term });
    }
  }

  #reject(ticket: number, why: Extract<Output<RaftMessage>, { kind: "rejected" }>["why"]): void {
    this.#outputs.push({ kind: "rejected", ticket, why, leader: this.#leader });
  }

  /** Appends an entry of the own term and sends it, while our own disk writes it (thesis §10.2.1). */
  #lead(kind: EntryKind, payload: Uint8Array): Index {
    const elapsedMs = this.#nowMs - this.#stampBase.atMs;
    const stampMs = Math.max(this.#log.lastStampMs, this.#stampBase.stampMs + elapsedMs);
    const entry: LogEntry = { index: this.#log.lastIndex + 1, term: this.#term, kind, stampMs, payload };
    this.#append(entry);
    this.#persist({ kind: "put", entry });
    this.#uncommittedBytes += entryBytes(entry);
    for (const [member, progress] of this.#progress) this.#sendAppends(member, progress);
    return entry.index;
  }

  #sendAppends(to: MemberId, progress: Progress): void {
    if (progress.state.kind === "snapshot") return;
    if (this.#log.termAt(progress.next - 1) === undefined) {
      progress.becomeSnapshot();
      this.#readSnapshot(to, progress);
      return;
    }
    if (progress.state.kind === "probe") {
      if (progress.state.waiting) return;
      progress.state.waiting = true;
      // A probe carries entries too: most often the first guess is right.
      this.#sendAppend(to, progress, this.#log.slice(progress.next, this.#options.appendBytesMax));
      return;
    }
    const window = { messagesMax: this.#options.inFlightMessagesMax, bytesMax: this.#options.inFlightBytesMax };
    while (progress.next <= this.#log.lastIndex && progress.hasRoom(window)) {
      const entries = this.#log.slice(progress.next, this.#options.appendBytesMax);
      this.#sendAppend(to, progress, entries);
      let bytes = 0;
      for (const entry of entries) bytes += entryBytes(entry);
      progress.sent((entries.at(-1) as LogEntry).index, bytes);
    }
  }

  #sendAppend(to: MemberId, progress: Progress, entries: readonly LogEntry[]): void {
    const previousIndex = progress.next - 1;
    const previousTerm = this.#log.termAt(previousIndex) as Term;
    this.#send(
      to,
      { kind: "append", term: this.#term, previousIndex, previousTerm, commitIndex: this.#committed, entries },
      "log",
    );
  }

  #onAppendReply(from: MemberId, progress: Progress, reply: Message<"append-reply">): void {
    if (!reply.accepted) {
      if (reply.index <= progress.match || progress.state.kind === "snapshot") return; // An old refusal.
      if (progress.state.kind === "probe" && reply.index !== progress.next - 1) return;
      const agreed = this.#log.agreementHint(reply.hintIndex, reply.hintTerm);
      progress.becomeProbe(Math.min(reply.index, agreed + 1));
      this.#sendAppends(from, progress);
      return;
    }
    if (reply.index > this.#log.lastIndex) return; // More than it was sent: made up.
    const news = progress.acknowledged(reply.index);
    const connects = this.#log.termAt(progress.match) !== undefined;
    if (progress.state.kind === "probe" || (progress.state.kind === "snapshot" && news && connects)) progress.becomeReplicate();
    if (news) this.#maybeCommit();
    if (this.#role !== "leader") return; // Committed its own removal.
    this.#sendAppends(from, progress);
    if (news) this.#dismissDeparted();
    if (this.#transfer?.to === from) this.#maybeHandOver(this.#transfer);
  }

  /** Raft §5.4.2, Figure 8: only an entry of the own term commits by counting; earlier ones come with it. */
  #maybeCommit(): void {
    const index = quorumReached(this.#configuration, (member) =>
      member === this.#self ? this.#durableIndex : (this.#progress.get(member)?.match ?? 0),
    );
    if (index <= this.#committed || this.#log.termAt(index) !== this.#term) return;
    const isFirst = this.#log.termAt(this.#committed) !== this.#term;
    this.#commitTo(index);
    if (isFirst) this.#startReadRound();
    this.#goOnWithChange();
  }

  #commitTo(index: Index): void {
    if (index <= this.#committed) return;
    const { latest } = this.#configurations;
    const isNews = latest.index > this.#committed && latest.index <= index;
    this.#committed = index;
    const entries: LogEntry[] = [];
    for (let at = this.#delivered + 1; at <= index; at++) {
      const entry = this.#log.entryAt(at);
      assert(entry !== undefined, "what is committed is in the log");
      entries.push(entry);
      if (this.#role === "leader") this.#uncommittedBytes -= entryBytes(entry);
    }
    this.#delivered = index;
    this.#outputs.push({ kind: "deliver", entries });
    if (isNews) this.#outputs.push({ kind: "configuration", ...latest, committed: true });
  }

  #broadcastHeartbeat(): void {
    this.#round++;
    this.#heartbeatDueMs = this.#nowMs + this.#options.heartbeatMs;
    this.#lease.roundSent(this.#round, this.#nowMs);
    for (const [member, progress] of this.#progress) this.#sendHeartbeat(member, progress);
  }

  #sendHeartbeat(to: MemberId, progress: Progress): void {
    const commitIndex = Math.min(this.#committed, progress.match);
    const lease = this.#lease.isAskedFor(this.#nowMs);
    this.#send(to, { kind: "heartbeat", term: this.#term, commitIndex, round: this.#round, lease }, "control");
  }

  #onHeartbeatReply(from: MemberId, progress: Progress, reply: Message<"heartbeat-reply">): void {
    if (reply.round > this.#round) return; // A round that did not begin: made up.
    progress.round = Math.max(progress.round, reply.round);
    progress.promisedUntilMs = Math.max(progress.promisedUntilMs, this.#lease.promisedUntil(reply));
    this.#confirmReads();
    if (progress.state.kind === "snapshot") {
      if (++progress.state.silentBeats >= silentBeatsMax && !progress.state.reading) this.#readSnapshot(from, progress);
      return;
    }
    if (progress.match >= this.#log.lastIndex && progress.state.kind === "replicate") return;
    // An append may have been lost: an empty one asks where the follower stands.
    if (progress.state.kind === "probe") {
      progress.state.waiting = false;
      this.#sendAppends(from, progress);
    } else {
      if (this.#log.termAt(progress.next - 1) !== undefined) this.#sendAppend(from, progress, []);
      this.#sendAppends(from, progress);
    }
  }

  // ------------------------------------------------------------------------------------------------ reads (Raft §8, thesis §6.4)

  #onRead(ticket: number, level: ReadLevel): void {
    if (this.#role !== "leader") {
      this.#reject(ticket, "not-leader");
      return;
    }
    if (level === "lease") {
      const index = this.leaseReadIndex(this.#nowMs);
      if (index !== undefined) {
        this.#outputs.push({ kind: "read-at", ticket, index });
        return;
      }
    }
    this.#reads.add(ticket, this.#committed);
    this.#startReadRound();
  }

  /** One round in flight; what arrives meanwhile joins the next. None starts before an entry of the own term is committed. */
  #startReadRound(): void {
    if (this.#log.termAt(this.#committed) !== this.#term || !this.#reads.canStart()) return;
    this.#broadcastHeartbeat();
    this.#reads.start(this.#round, this.#committed);
    this.#confirmReads();
  }

  #confirmReads(): void {
    const confirmed = quorumReached(this.#configuration, (member) =>
      member === this.#self ? this.#round : (this.#progress.get(member)?.round ?? 0),
    );
    const reads = this.#reads.confirm(confirmed);
    if (reads.length === 0) return;
    for (const read of reads) this.#outputs.push({ kind: "read-at", ticket: read.ticket, index: read.index });
    this.#startReadRound();
  }

  /** A quorum has promised to elect nobody yet (thesis §6.4.1). As with any read, not before an entry of the own term. */
  #hasLease(nowMs: number): boolean {
    if (this.#role !== "leader" || this.#log.termAt(this.#committed) !== this.#term) return false;
    const untilMs = quorumReached(this.#configuration, (member) =>
      promiseOf(member, this.#self, this.#progress.get(member)?.promisedUntilMs),
    );
    return this.#lease.isValid(nowMs, untilMs);
  }

  // ------------------------------------------------------------------------------------------------ membership (Raft §6, thesis §4)

  /** One change at a time, and none before an entry of the own term is committed: until then an older one may be in flight. */
  #onChange({ ticket, change }: Extract<Input<RaftMessage>, { kind: "change" }>): void {
    const { index, configuration } = this.#configurations.latest;
    if (this.#role !== "leader") this.#reject(ticket, "not-leader");
    else if (this.#transfer !== undefined) this.#reject(ticket, "transfer-in-flight");
    else if (this.#log.termAt(this.#committed) !== this.#term) this.#reject(ticket, "busy");
    else if (index > this.#committed || configuration.outgoing !== undefined) this.#reject(ticket, "change-in-flight");
    else {
      const planned = planChange(configuration, change);
      if ("refused" in planned) this.#reject(ticket, planned.refused);
      else if (change.kind === "promote" && !this.#isCaughtUp(change.member)) this.#reject(ticket, "learner-lags");
      else {
        this.#change = ticket;
        this.#lead("configuration", encodeConfiguration(planned.configuration));
      }
    }
  }

  /** A voter that still has to fetch the log would count towards majorities without helping to reach one (thesis §4.2.1). */
  #isCaughtUp(learner: MemberId): boolean {
    const progress = this.#progress.get(learner);
    if (progress === undefined || progress.lastHeardMs <= this.#nowMs - this.#options.electionTimeoutMs) return false;
    return progress.state.kind === "replicate" && this.#committed - progress.match <= this.#options.promoteLagMax;
  }

  /** Something was committed: the next step of a change, also of one that an earlier leader began (thesis §4.3). */
  #goOnWithChange(): void {
    const { index, configuration } = this.#configurations.latest;
    if (index > this.#committed) return;
    if (configuration.outgoing !== undefined) {
      this.#lead("configuration", encodeConfiguration(leaveJoint(configuration)));
      return;
    }
    if (this.#change !== undefined) this.#outputs.push({ kind: "done", ticket: this.#change });
    this.#change = undefined;
    this.#dismissDeparted();
    if (!configuration.voters.includes(this.#self)) this.#leaveOffice();
  }

  /** The leader is not among those it leads any more: C_new is committed, so they can do without it (Raft §6). */
  #leaveOffice(): void {
    const heir = this.#closestVoter();
    if (heir !== undefined && this.#progress.get(heir)?.match === this.#log.lastIndex) {
      this.#send(heir, { kind: "timeout-now", term: this.#term }, "control");
    }
    this.#becomeFollower(this.#term, undefined);
  }

  /** The leader writes to whoever the configuration in force names, and for a while to those it has let go. */
  #followConfiguration(): void {
    const members = new Set(membersOf(this.#configuration));
    for (const member of members) {
      // One that left and comes back may be somebody else under the old name: nothing is taken for granted of it.
      const isBack = this.#departing.delete(member);
      if (member === this.#self || (this.#progress.has(member) && !isBack)) continue;
      this.#progress.set(member, new Progress(this.#log.lastIndex + 1, this.#nowMs));
    }
    for (const member of this.#progress.keys()) {
      if (members.has(member) || this.#departing.has(member)) continue;
      this.#departing.set(member, this.#nowMs + 4 * this.#options.electionTimeoutMs);
    }
  }

  /** A removed member is told so, as a courtesy: one that does not know keeps asking for votes that nobody gives. */
  #dismissDeparted(): void {
    const { index } = this.#configurations.latest;
    for (const [member, untilMs] of this.#departing) {
      const progress = this.#progress.get(member);
      const isTold = index <= this.#committed && (progress?.match ?? 0) >= index;
      if (isTold && progress !== undefined) this.#sendHeartbeat(member, progress);
      if (!isTold && this.#nowMs < untilMs) continue;
      this.#departing.delete(member);
      this.#progress.delete(member);
    }
  }

  // ------------------------------------------------------------------------------------------------ transfer (thesis §3.10)

  #onTransfer({ ticket, to = this.#closestVoter() }: Extract<Input<RaftMessage>, { kind: "transfer" }>): void {
    if (this.#role !== "leader") this.#reject(ticket, "not-leader");
    else if (this.#transfer !== undefined) this.#reject(ticket, "transfer-in-flight");
    else if (to === undefined || to === this.#self || !this.#configuration.voters.includes(to))
      this.#reject(ticket, "transfer-target");
    else {
      this.#transfer = { to, ticket, deadlineMs: this.#nowMs + this.#options.electionTimeoutMs, sent: false };
      this.#maybeHandOver(this.#transfer);
    }
  }

  /** Once the target has the whole log on its disk it is told to campaign, again with each heartbeat until somebody else leads. */
  #maybeHandOver(transfer: Transfer): void {
    if (this.#progress.get(transfer.to)?.match !== this.#log.lastIndex) return;
    transfer.sent = true;
    this.#lease.end();
    this.#send(transfer.to, { kind: "timeout-now", term: this.#term }, "control");
  }

  #onTimeoutNow(): void {
    if (this.#role === "leader" || !isVoter(this.#configuration, this.#self) || this.#incoming?.installing) return;
    this.#leader = undefined;
    this.#electionDeadlineMs = this.#randomDeadline(this.#options.electionTimeoutMs);
    this.#campaignForReal({ transfer: true });
  }

  /** Of those that were heard lately, the voter whose disk lacks least. */
  #closestVoter(): MemberId | undefined {
    let closest: { readonly member: MemberId; readonly match: Index } | undefined;
    for (const member of this.#configuration.voters) {
      const progress = this.#progress.get(member);
      if (progress === undefined || progress.lastHeardMs <= this.#nowMs - this.#options.electionTimeoutMs) continue;
      if (closest === undefined || progress.match > closest.match) closest = { member, match: progress.match };
    }
    return closest?.member;
  }

  // ------------------------------------------------------------------------------------------------ snapshots (Raft §7)

  #readSnapshot(to: MemberId, progress: Progress): void {
    assert(progress.state.kind === "snapshot", "chunks go to a follower that needs a snapshot");
    progress.state.reading = true;
    progress.state.silentBeats = 0;
    const { offset } = progress.state;
    this.#outputs.push({ kind: "read-snapshot", to, offset, lengthBytes: this.#options.snapshotChunkBytes });
  }

  #onSnapshotBytes(input: Extract<Input<RaftMessage>, { kind: "snapshot-bytes" }>): void {
    const progress = this.#progress.get(input.to);
    if (this.#role !== "leader" || progress?.state.kind !== "snapshot") return;
    const { state } = progress;
    state.reading = false;
    if (input.offset !== state.offset) return;
    if (input.index !== state.index && input.offset !== 0) {
      // A newer snapshot took its place: begin again with that one.
      state.offset = 0;
      this.#readSnapshot(input.to, progress);
      return;
    }
    state.index = input.index;
    const { index, term: snapshotTerm, configuration } = input;
    const { offset, bytes, done } = input;
    const message = { kind: "snapshot", term: this.#term, index, snapshotTerm, configuration, offset, bytes, done } as const;
    this.#send(input.to, message, "bulk");
  }

  #onSnapshotReply(from: MemberId, progress: Progress, reply: Message<"snapshot-reply">): void {
    const { state } = progress;
    if (state.kind !== "snapshot" || reply.index !== state.index || state.reading) return;
    if (reply.offset === state.offset) return;
    state.offset = reply.offset;
    this.#readSnapshot(from, progress);
  }

  #onSnapshot(from: MemberId, message: Message<"snapshot">): void {
    if (this.#incoming?.installing) return;
    if (message.index <= this.#committed) {
      // Already there: say so, and the leader goes on with entries.
      this.#incoming = undefined;
      const reply = {
        kind: "append-reply",
        term: this.#term,
        accepted: true,
        index: message.index,
        hintIndex: 0,
        hintTerm: 0,
      } as const;
      this.#send(from, reply, "log", this.#logSequence);
      return;
    }
    const current = this.#incoming;
    const continues =
      current !== undefined && current.index === message.index && current.from === from && message.offset === current.offset;
    if (!continues && message.offset !== 0) {
      const offset = current?.index === message.index && current.from === from ? current.offset : 0;
      this.#send(from, { kind: "snapshot-reply", term: this.#term, index: message.index, offset }, "control");
      return;
    }
    const { index, snapshotTerm: term, configuration, offset, bytes, done } = message;
    this.#incoming = { index, term, configuration, offset: offset + bytes.length, installing: done, from };
    this.#outputs.push({ kind: "install-snapshot", from, index, term, configuration, offset, bytes, done });
    if (!done) this.#send(from, { kind: "snapshot-reply", term: this.#term, index, offset: offset + bytes.length }, "control");
  }

  #onSnapshotInstalled(input: Extract<Input<RaftMessage>, { kind: "snapshot-installed" }>): void {
    const incoming = this.#incoming;
    if (incoming === undefined || incoming.index !== input.index) return;
    this.#incoming = undefined;
    if (!input.ok) return; // The leader hears nothing and begins again.
    const { index, term, configuration } = incoming;
    assert(index > this.#committed, "a snapshot never takes back what is committed");
    if (this.#log.termAt(index) === term) {
      this.#log.compact(index, 0); // The suffix follows the snapshot: keep it (Raft Figure 13, step 6).
    } else {
      this.#persist({ kind: "truncate", from: index + 1 });
      this.#log.reset({ index, term, stampMs: input.stampMs });
      this.#durableIndex = index;
      this.#persisting = [];
    }
    this.#configurations.restart({ index, configuration }, this.#log.lastIndex);
    this.#committed = index;
    this.#delivered = index;
    this.#applied = index;
    this.#durableIndex = Math.max(this.#durableIndex, index);
    this.#adoptConfiguration();
    const reply = { kind: "append-reply", term: this.#term, accepted: true, index, hintIndex: 0, hintTerm: 0 } as const;
    this.#send(incoming.from, reply, "log", this.#logSequence);
  }

  // ------------------------------------------------------------------------------------------------ disk and post

  #persist(operation: LogOperation): void {
    this.#operations.push(operation);
    this.#logSequence = this.#sequence + 1;
  }

  #persistHardState(): void {
    this.#operations.push({ kind: "meta", values: { term: String(this.#term), vote: this.#vote ?? "" } });
    this.#hardStateSequence = this.#sequence + 1;
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
    if (this.#campaign?.phase === "real" && this.#hardStateSequence <= sequence) {
      this.#campaign.votes.add(this.#self);
      this.#maybeWin();
    }
    if (this.#role === "leader") this.#maybeCommit();
  }

  #send(to: MemberId, message: RaftMessage, lane: Lane, after: PersistSequence = 0): void {
    this.#outputs.push({ kind: "send", to, message, after: Math.max(after, this.#hardStateSequence), lane });
  }

  /** Closes the step: its disk operations become one atomic persist, ahead of everything that waits for it. */
  #finish(): readonly Output<RaftMessage>[] {
    if (this.#operations.length > 0) {
      this.#sequence++;
      this.#outputs.unshift({ kind: "persist", sequence: this.#sequence, operations: this.#operations });
      this.#persisting.push({ sequence: this.#sequence, lastIndex: this.#log.lastIndex });
      this.#operations = [];
    }
    const transferMs = this.#transfer?.deadlineMs ?? Number.POSITIVE_INFINITY;
    const leaderMs = Math.min(this.#heartbeatDueMs, this.#quorumCheckMs, transferMs);
    const atMs = this.#role === "leader" ? leaderMs : this.#electionDeadlineMs;
    this.#outputs.push({ kind: "timer", atMs });
    const outputs = this.#outputs;
    this.#outputs = [];
    return outputs;
  }

  #makeProbe(): Probe {
    const raft = this;
    return {
      get role() {
        return raft.#role;
      },
      get term() {
        return raft.#term;
      },
      get leader() {
        return raft.#leader;
      },
      get committedIndex() {
        return raft.#committed;
      },
      get firstIndex() {
        return raft.#log.firstIndex;
      },
      get lastIndex() {
        return raft.#log.lastIndex;
      },
      get configuration() {
        return raft.#configuration;
      },
      get durableIndex() {
        return raft.#durableIndex;
      },
      hasLease: (nowMs) => raft.#hasLease(nowMs),
      configurationAt: (index) => raft.#configurations.at(index).configuration,
      termAt: (index) => raft.#log.termAt(index),
      matchOf: (member) => raft.#progress.get(member)?.match,
      lastHeardMsOf: (member) => raft.#progress.get(member)?.lastHeardMs,
    };
  }
}
