/**
 * Multi-Paxos: one leader at a time proposes a value for each slot, a majority accepts it, and whoever leads next proposes
 * again what may already be chosen.
 *
 * Intuition: an auction without an auctioneer. A bidder first shows a number higher than any before (phase 1) and hears
 * what a majority has already agreed to; whatever might have been sold stays sold, at the latest number; the rest is free.
 * With the number once shown, she sells one lot after another in a single round trip each (phase 2), until somebody shows
 * a higher one.
 *
 * Source: Lamport, "Paxos Made Simple" (2001), for phases 1 and 2 and for gaps (§3); van Renesse and Altinbuken, "Paxos Made
 * Moderately Complex" (PMMC, ACM CSUR 2015), for the invariants and roles; Chandra, Griesemer, Redstone, "Paxos Made Live"
 * (PODC 2007), for ballots modulo n, catch-up and snapshots. Each rule's section: docs/protocol/multi-paxos.md.
 * Assumes crash faults, a disk that keeps what it confirmed, messages that may be lost, doubled, late and out of order, and
 * fixed members. Every member is acceptor, learner and, at times, leader.
 * Leaves out: membership change (PMMC's window of configurations), leader leases: reads are confirmed by a round of echoes.
 *
 * Pure: see `consensus/core.ts`. Every message that reveals durable state names the persist that it waits for.
 */
import { assert, unreachable } from "../../base/assert.ts";
import { emptyBytes } from "../../base/bytes.ts";
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
import { ReadQueue } from "../raft/read-queue.ts";
import { type Ballot, ballotOwner, nextBallot } from "./ballot.ts";
import { DurableMarks } from "./durable-marks.ts";
import type { PaxosMessage } from "./messages.ts";
import { type PaxosOptions, paxosDefaults } from "./options.ts";
import { PeerProgress } from "./peer-progress.ts";
import { Proposals } from "./proposals.ts";
import { entryBytes, isSameValue, SlotLog } from "./slot-log.ts";
import { TakeOver } from "./take-over.ts";

type Message<K extends PaxosMessage["kind"]> = Extract<PaxosMessage, { kind: K }>;

/** A take-over that is under way here. `dry`: the question before the question, which raises no ballot. */
type Campaign =
  | { readonly phase: "dry"; readonly ballot: Ballot; readonly willing: Set<MemberId> }
  | { readonly phase: "real"; readonly takeOver: TakeOver };

/** What a checker or a dashboard may see of this protocol beside the common view. */
export interface PaxosProbe extends Probe {
  readonly promised: Ballot;
  /** What this member accepted in the slot, chosen or not; undefined where nothing, or no longer kept. */
  acceptedAt(index: Index): LogEntry | undefined;
}

/** No lawful member gets here: at one take-over a millisecond it takes nine thousand years. A letter above it is dropped. */
const ballotMax = 2 ** 48;
/** Farther ahead than this no lawful leader asks: its window is far smaller. A member that lags more learns first. */
const horizonSlots = 1_048_576;
/** How long an unanswered question for chosen slots waits before it is asked again, in heartbeats. */
const askAgainBeats = 4;

export class Paxos implements Core<PaxosMessage> {
  readonly #options: PaxosOptions;
  #environment!: CoreEnvironment;
  #self!: MemberId;
  #configuration!: Configuration;
  /** In the order that gives ballots their owners. */
  #members: readonly MemberId[] = [];
  #position = -1;
  #nowMs = 0;
  #outputs: Output<PaxosMessage>[] = [];

  // The acceptor (PMMC §2.1). Durable, mirrored by the log room.
  /** Invariant: never falls, and is on disk before any letter that speaks of it leaves (PMMC, A1). Own ballots are promised too. */
  #promised: Ballot = 0;
  readonly #log = new SlotLog();

  // The learner.
  /** Every slot up to here is chosen, and the log holds its value. Invariant: never falls within an incarnation. */
  #chosen: Index = 0;
  #applied: Index = 0;
  /** Of the last delivered entry. Folded over the chosen values, so all members compute the same: see `#advanceChosen`. */
  #deliveredStampMs = 0;
  /** The chosen index that was last handed to the disk. */
  #chosenNoted: Index = 0;
  /** Chosen or accepted in the promised ballot without holes up to here. */
  #held: Index = 0;
  readonly #heldMarks = new DurableMarks();
  /** The question for chosen slots that is under way. */
  #asked: { readonly atMs: number; readonly from: Index } | undefined;

  // The role.
  #role: Role = "follower";
  #leader: MemberId | undefined;
  #campaign: Campaign | undefined;
  /** When a take-over in the ballot that is promised was last seen to go on, our own or another's. */
  #takeOverSeenMs = Number.NEGATIVE_INFINITY;
  /** The highest ballot heard of; the next own one goes above it. */
  #highest: Ballot = 0;
  #electionDeadlineMs = 0;
  #leaderHeardMs = Number.NEGATIVE_INFINITY;
  /** The leader whose connection broke last, and was not made again. */
  #lostLink: { readonly leader: MemberId; readonly atMs: number } | undefined;

  // The leader (PMMC §2.3).
  #proposals = new Proposals(1);
  #progress = new Map<MemberId, PeerProgress>();
  /** The first slot that this leader proposed for: everything below was chosen when it took over. */
  #firstSlot: Index = 0;
  /** The first slot with a value of its own: once chosen, everything that was chosen before is known here. */
  #firstOwnSlot: Index = 0;
  #lastSlot: Index = 0;
  readonly #ownMarks = new DurableMarks();
  /** Our own disk is counted up to here. */
  #ownUpTo: Index = 0;
  #heartbeatDueMs = 0;
  #quorumCheckMs = 0;
  #round = 0;
  readonly #reads = new ReadQueue();
  #stampBase = { stampMs: 0, atMs: 0 };

  // What is on its way to the disk.
  #operations: LogOperation[] = [];
  #sequence: PersistSequence = 0;
  #durableSequence: PersistSequence = 0;
  /** The last persist that changed the promise: no letter leaves before it. */
  #promiseSequence: PersistSequence = 0;
  /** The last persist that changed the log. */
  #logSequence: PersistSequence = 0;

  /** The length of the newest own snapshot; 0 without one. */
  #snapshotBytes = 0;
  /** A snapshot that is coming in. */
  #incoming:
    | { readonly index: Index; readonly term: Term; readonly from: MemberId; offset: number; installing: boolean }
    | undefined;

  readonly #probe: PaxosProbe;

  constructor(options: Partial<PaxosOptions> = {}) {
    this.#options = { ...paxosDefaults, ...options };
    this.#probe = this.#makeProbe();
  }

  start(environment: CoreEnvironment, recovered: Recovered): readonly Output<PaxosMessage>[] {
    this.#environment = environment;
    this.#self = environment.self;
    this.#nowMs = environment.nowMs;
    this.#recoverMembers(environment, recovered);
    this.#promised = Number(recovered.meta.get("promised") ?? 0);
    this.#highest = this.#promised;
    this.#outputs.push({ kind: "configuration", index: 0, configuration: this.#configuration, committed: true });
    this.#outputs.push({ kind: "role", role: "follower", term: this.#promised, leader: undefined });
    this.#recoverSlots(recovered);
    // Alone, there is nobody to wait for.
    this.#electionDeadlineMs = this.#members.length === 1 ? this.#nowMs : this.#randomDeadline(this.#options.electionTimeoutMs);
    return this.#finish();
  }

  /** The members of a group are fixed when its first member starts: who owns which ballot hangs on their order. */
  #recoverMembers(environment: CoreEnvironment, recovered: Recovered): void {
    const kept = recovered.meta.get("members");
    const voters = kept === undefined ? environment.configuration.voters : (JSON.parse(kept) as MemberId[]);
    this.#members = [...voters].sort();
    this.#position = this.#members.indexOf(this.#self);
    this.#configuration = { voters: this.#members, learners: [] };
    assert(this.#members.length < 32, "Multi-Paxos counts acceptors in 31 bits");
    if (kept !== undefined) return;
    this.#operations.push({ kind: "meta", values: { members: JSON.stringify(this.#members) } });
    this.#promiseSequence = this.#sequence + 1;
  }

  #recoverSlots(recovered: Recovered): void {
    const { snapshot } = recovered;
    if (snapshot !== undefined) {
      this.#log.coveredBy(snapshot.index);
      this.#snapshotBytes = snapshot.lengthBytes;
      this.#chosen = snapshot.index;
      this.#applied = snapshot.index;
      this.#deliveredStampMs = snapshot.stampMs;
    }
    for (const entry of recovered.entries) this.#log.put(entry);
    // What was known to be chosen when an entry was written: known again without asking anybody.
    const chosen = Number(recovered.meta.get("chosen") ?? 0);
    for (let index = this.#chosen + 1; index <= chosen; index++) {
      assert(this.#log.at(index) !== undefined, "the disk has every slot that it says is chosen");
    }
    this.#advanceChosen(chosen);
    this.#chosenNoted = this.#chosen;
    this.#startHeld();
  }

  step(input: Input<PaxosMessage>): readonly Output<PaxosMessage>[] {
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
        assert(input.index >= this.#applied && input.index <= this.#chosen, "applied follows delivered");
        this.#applied = input.index;
        break;
      case "snapshot-built":
        this.#snapshotBytes = input.lengthBytes;
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

  probe(): PaxosProbe {
    return this.#probe;
  }

  // ------------------------------------------------------------------------------------------------ time and links

  #onTick(): void {
    if (this.#role !== "leader") {
      if (this.#nowMs >= this.#electionDeadlineMs) this.#maybeCampaign();
      return;
    }
    if (this.#nowMs >= this.#quorumCheckMs) {
      // A leader that reaches no majority can have nothing chosen, and hides a better one from its clients.
      const since = this.#nowMs - 2 * this.#options.electionTimeoutMs;
      const reached = [...this.#progress.values()].filter(({ lastHeardMs }) => lastHeardMs > since);
      if (!this.#isMajority(reached.length + 1)) {
        this.#becomeFollower(undefined);
        return;
      }
      this.#quorumCheckMs = this.#nowMs + this.#options.electionTimeoutMs;
    }
    if (this.#nowMs >= this.#heartbeatDueMs) this.#broadcastHeartbeat();
  }

  #onLink(peer: MemberId, up: boolean): void {
    if (this.#role === "leader") {
      const progress = this.#progress.get(peer);
      // What was in flight on the old connection may be gone.
      if (up && progress !== undefined) {
        progress.rewind(Math.max(this.#firstSlot, progress.upTo + 1));
        this.#sendAccepts(peer, progress);
      }
      return;
    }
    if (up && peer === this.#lostLink?.leader) this.#lostLink = undefined;
    if (up || peer !== this.#leader || this.#role !== "follower") return;
    // The connection to the leader broke: most likely its process is gone. The dry run makes a wrong guess harmless.
    this.#lostLink = { leader: peer, atMs: this.#nowMs };
    this.#leaderHeardMs = Number.NEGATIVE_INFINITY;
    const soon = this.#nowMs + this.#random() * this.#options.linkLossDelayMs;
    this.#electionDeadlineMs = Math.min(this.#electionDeadlineMs, soon);
  }

  /** Letters of a killed leader may still lie in the buffers of a connection that it made: they are no sign of life. */
  #isLastWordOf(leader: MemberId): boolean {
    return this.#lostLink?.leader === leader && this.#nowMs < this.#lostLink.atMs + 2 * this.#options.linkLossDelayMs;
  }

  /** Two candidates that meet try again at different times ("Paxos Made Simple" §2.4: progress needs a distinguished proposer). */
  #randomDeadline(timeoutMs: number): number {
    return this.#nowMs + timeoutMs * (1 + this.#random());
  }

  #random(): number {
    return this.#environment.randomUint32() / 2 ** 32;
  }

  #isMajority(count: number): boolean {
    return count > this.#members.length / 2;
  }

  /** A leader was heard so recently that helping to depose it would only disturb. */
  #hasLiveLeader(): boolean {
    if (this.#role === "leader") return true;
    return this.#leader !== undefined && this.#nowMs < this.#leaderHeardMs + this.#options.electionTimeoutMs;
  }

  // ------------------------------------------------------------------------------------------------ phase 1: taking over

  #maybeCampaign(): void {
    // A peer that has not noticed yet that the leader is gone refuses the first time: ask again soon.
    const isHurried = this.#lostLink !== undefined && this.#nowMs < this.#lostLink.atMs + this.#options.electionTimeoutMs;
    this.#electionDeadlineMs = this.#randomDeadline(isHurried ? this.#options.linkLossDelayMs : this.#options.electionTimeoutMs);
    if (this.#position < 0 || this.#incoming?.installing) return;
    if (this.#campaign?.phase === "real" && this.#campaign.takeOver.takeProgress()) {
      // Reports of many pages come in, and one was lost or is late: to begin anew would be to begin anew for ever.
      this.#askOn(this.#campaign.takeOver);
      return;
    }
    this.#leader = undefined;
    const ballot = nextBallot(Math.max(this.#promised, this.#highest), this.#position, this.#members.length);
    if (this.#members.length === 1) {
      this.#campaignForReal(ballot);
      return;
    }
    // Asked first without raising a ballot: a member that cannot win must not stop a leader that works.
    this.#campaign = { phase: "dry", ballot, willing: new Set([this.#self]) };
    this.#setRole("candidate");
    this.#prepare({ ballot, dryRun: true });
  }

  #campaignForReal(ballot: Ballot): void {
    // On disk before the letter leaves: a ballot that is used twice lets one slot have two values in it (PMMC, C1).
    this.#promise(ballot);
    this.#campaign = { phase: "real", takeOver: new TakeOver(ballot, this.#chosen + 1) };
    this.#setRole("candidate");
    this.#prepare({ ballot, dryRun: false });
  }

  #prepare(question: { readonly ballot: Ballot; readonly dryRun: boolean }): void {
    for (const member of this.#members) {
      if (member !== this.#self) this.#send(member, { kind: "prepare", ...question, from: this.#chosen + 1 }, "control");
    }
  }

  #askOn(takeOver: TakeOver): void {
    const { ballot } = takeOver;
    for (const member of this.#members) {
      if (member === this.#self || takeOver.promised.has(member)) continue;
      this.#send(member, { kind: "prepare", ballot, dryRun: false, from: takeOver.nextOf(member) }, "control");
    }
  }

  /** Takes part in no lower ballot from now on (PMMC §2.1, A1). */
  #promise(ballot: Ballot): void {
    assert(ballot > this.#promised, "promises only rise");
    this.#promised = ballot;
    this.#highest = Math.max(this.#highest, ballot);
    this.#operations.push({ kind: "meta", values: { promised: String(ballot) } });
    this.#promiseSequence = this.#sequence + 1;
    this.#startHeld();
  }

  #onPrepare(from: MemberId, letter: Message<"prepare">): void {
    if (ballotOwner(letter.ballot, this.#members) !== from) return;
    const isAgain = letter.ballot === this.#promised && !letter.dryRun;
    // Sticky: who hears its leader helps nobody else to lead, so that a healthy leader is not duelled.
    if (!isAgain && this.#hasLiveLeader()) return;
    if (letter.ballot < this.#promised || (letter.ballot === this.#promised && letter.dryRun)) {
      this.#send(from, { kind: "nack", promised: this.#promised, behind: false }, "control");
      return;
    }
    // A long take-over is not duelled either: who has told all that it knows hears no more of it, and would begin its own.
    const isHelping = this.#nowMs < this.#takeOverSeenMs + this.#options.electionTimeoutMs;
    if (letter.dryRun && isHelping && ballotOwner(this.#promised, this.#members) !== from) {
      this.#send(from, { kind: "nack", promised: this.#promised, behind: false }, "control");
      return;
    }
    if (letter.from <= this.#log.base) {
      // What it would have to know of those slots is no longer kept one by one; left out, it would seem free to choose.
      this.#send(from, { kind: "nack", promised: this.#promised, behind: true }, "control");
      return;
    }
    const { ballot, dryRun, from: first } = letter;
    if (dryRun) {
      this.#send(from, { kind: "promise", ballot, dryRun, from: first, next: 0, chosen: this.#chosen, entries: [] }, "control");
      return;
    }
    if (!isAgain) {
      this.#promise(ballot);
      this.#becomeFollower(undefined);
    }
    this.#takeOverSeenMs = this.#nowMs;
    // Whoever helps another to take over gives it the time for it.
    if (this.#role === "follower") this.#electionDeadlineMs = this.#randomDeadline(this.#options.electionTimeoutMs);
    const { entries, next } = this.#log.page(first, this.#log.last, this.#options.messageBytesMax);
    // The promise and what it tells are on disk before the reply leaves (PMMC, A1; "Paxos Made Simple" §2.5).
    const reply = { kind: "promise", ballot, dryRun, from: first, next, chosen: this.#chosen, entries } as const;
    this.#send(from, reply, "log", this.#logSequence);
  }

  #onPromise(from: MemberId, letter: Message<"promise">): void {
    const campaign = this.#campaign;
    if (campaign === undefined) return;
    if (campaign.phase === "dry") {
      if (!letter.dryRun || letter.ballot !== campaign.ballot) return;
      campaign.willing.add(from);
      // What is chosen is learned on the side: then the take-over has less to ask for, now or at the next attempt.
      if (letter.chosen > this.#chosen) this.#maybeAsk(from);
      if (this.#isMajority(campaign.willing.size)) this.#campaignForReal(campaign.ballot);
      return;
    }
    const { takeOver } = campaign;
    if (letter.dryRun || letter.ballot !== takeOver.ballot) return;
    const end = letter.entries.at(-1)?.index ?? 0;
    if (end > this.#chosen + 2 * horizonSlots || (letter.next !== 0 && letter.next <= letter.from)) return;
    if (!takeOver.report(from, letter)) return;
    this.#takeOverSeenMs = this.#nowMs;
    if (letter.next !== 0) {
      this.#send(from, { kind: "prepare", ballot: takeOver.ballot, dryRun: false, from: letter.next }, "control");
      return;
    }
    this.#maybeLead(takeOver);
  }

  /** Our own acceptor answers too, once its promise is on disk. */
  #reportOwn(takeOver: TakeOver): void {
    const { entries } = this.#log.page(takeOver.from, this.#log.last, Number.POSITIVE_INFINITY);
    takeOver.report(this.#self, { from: takeOver.from, next: 0, chosen: this.#chosen, entries });
    this.#maybeLead(takeOver);
  }

  #maybeLead(takeOver: TakeOver): void {
    if (this.#isMajority(takeOver.promised.size) && takeOver.promised.has(this.#self)) this.#becomeLeader(takeOver);
  }

  #becomeLeader(takeOver: TakeOver): void {
    for (let index = this.#chosen + 1; index <= takeOver.chosen; index++) this.#learn(takeOver.chosenAt(index));
    this.#campaign = undefined;
    this.#leader = this.#self;
    this.#asked = undefined;
    this.#setRole("leader");
    this.#proposals = new Proposals(this.#members.length);
    this.#progress = new Map();
    this.#firstSlot = this.#chosen + 1;
    this.#lastSlot = this.#chosen;
    this.#ownMarks.reset(this.#chosen);
    this.#ownUpTo = this.#chosen;
    for (const member of this.#members) {
      if (member !== this.#self) this.#progress.set(member, new PeerProgress(this.#firstSlot, this.#nowMs));
    }
    this.#quorumCheckMs = this.#nowMs + 2 * this.#options.electionTimeoutMs;
    let stampMs = this.#deliveredStampMs;
    for (let index = this.#firstSlot; index <= takeOver.last; index++) {
      // The value as it was born, stamp and all: it may be chosen already ("Paxos Made Simple" §2.2, P2c). Where nobody of a
      // majority accepted anything nothing is chosen, and a no-op closes the gap (§3).
      const value = takeOver.highestAt(index) ?? gapAt(index);
      stampMs = Math.max(stampMs, value.stampMs);
      this.#propose(value);
    }
    this.#stampBase = { stampMs, atMs: this.#nowMs };
    // A value of its own: once that is chosen, this leader knows everything that was chosen before it.
    this.#firstOwnSlot = this.#proposeOwn("noop", emptyBytes);
    this.#broadcastHeartbeat();
  }

  /** Lets go of leading or campaigning. The promise stays as it is. */
  #becomeFollower(leader: MemberId | undefined): void {
    const wasLeader = this.#role === "leader";
    const changed = this.#leader !== leader;
    this.#campaign = undefined;
    this.#leader = leader;
    if (leader === undefined) this.#leaderHeardMs = Number.NEGATIVE_INFINITY;
    if (wasLeader) {
      this.#progress = new Map();
      this.#proposals.clear();
      for (const ticket of this.#reads.clear()) this.#reject(ticket, "lost-leadership");
    }
    if (wasLeader || this.#electionDeadlineMs <= this.#nowMs) {
      this.#electionDeadlineMs = this.#randomDeadline(this.#options.electionTimeoutMs);
    }
    if (changed || this.#role !== "follower") this.#setRole("follower");
  }

  #setRole(role: Role): void {
    this.#role = role;
    this.#outputs.push({ kind: "role", role, term: this.#promised, leader: this.#leader });
  }

  // ------------------------------------------------------------------------------------------------ messages

  #onMessage(from: MemberId, message: PaxosMessage): void {
    if (from === this.#self || !this.#members.includes(from) || speaksOf(message) > ballotMax) return;
    switch (message.kind) {
      case "prepare":
        this.#onPrepare(from, message);
        break;
      case "promise":
        this.#onPromise(from, message);
        break;
      case "nack":
        this.#onNack(from, message);
        break;
      case "accept":
        if (this.#followsBallot(from, message.ballot)) this.#onAccept(from, message);
        break;
      case "heartbeat":
        if (this.#followsBallot(from, message.ballot)) this.#onHeartbeat(from, message);
        break;
      case "accepted":
        this.#onAccepted(from, message);
        break;
      case "heartbeat-reply":
        this.#onHeartbeatReply(from, message);
        break;
      case "ask":
        this.#onAsk(from, message.from);
        break;
      case "learn":
        this.#onLearn(from, message);
        break;
      case "snapshot":
        this.#onSnapshot(from, message);
        break;
      case "snapshot-ask":
        if (message.offset < this.#snapshotBytes) this.#readSnapshot(from, message.offset);
        break;
      default:
        unreachable(message);
    }
  }

  /** Whether to take part in the ballot of a leader's letter; a higher one than was promised is promised now. */
  #followsBallot(from: MemberId, ballot: Ballot): boolean {
    if (ballotOwner(ballot, this.#members) !== from) return false;
    if (ballot < this.#promised) {
      this.#send(from, { kind: "nack", promised: this.#promised, behind: false }, "control");
      return false;
    }
    if (ballot > this.#promised) {
      this.#promise(ballot);
      this.#becomeFollower(undefined);
    }
    if (!this.#isLastWordOf(from)) {
      this.#lostLink = undefined;
      this.#leaderHeardMs = this.#nowMs;
      this.#electionDeadlineMs = this.#randomDeadline(this.#options.electionTimeoutMs);
      if (this.#leader !== from || this.#role !== "follower") this.#becomeFollower(from);
    }
    return true;
  }

  /** Somebody promised a higher ballot: preempted (PMMC §2.3). */
  #onNack(from: MemberId, letter: Message<"nack">): void {
    this.#highest = Math.max(this.#highest, letter.promised);
    if (letter.behind && this.#role === "candidate") {
      this.#becomeFollower(undefined);
      this.#ask(from);
      return;
    }
    if (this.#role === "follower" || letter.promised <= this.#promised) return;
    this.#becomeFollower(undefined);
    this.#electionDeadlineMs = this.#randomDeadline(this.#options.electionTimeoutMs);
  }

  // ------------------------------------------------------------------------------------------------ phase 2: the acceptor

  #onAccept(from: MemberId, letter: Message<"accept">): void {
    const { entries, ballot } = letter;
    const first = entries[0]?.index ?? 0;
    const last = entries.at(-1)?.index ?? 0;
    if (first === 0 || last > this.#chosen + horizonSlots) return;
    // What goes on from what is held is always taken: the leader may need just that to have anything chosen.
    if (first > this.#held + 1 && this.#log.openBytes > this.#options.unlearnedBytesMax) {
      this.#learnUpTo(from, letter.chosen);
      return;
    }
    for (const entry of entries) {
      // A slot that is chosen here keeps its value: any later proposal for it is the same (PMMC, A5).
      if (entry.index <= this.#chosen || this.#log.at(entry.index)?.ballot === ballot) continue;
      this.#put(entry);
    }
    this.#learnUpTo(from, letter.chosen);
    this.#extendHeld();
    // On disk before the answer leaves: the leader counts it towards a majority (PMMC, A2, A3).
    const reply = { kind: "accepted", ballot, first, last, upTo: this.#heldMarks.reached } as const;
    this.#send(from, reply, "log", this.#logSequence);
  }

  #onHeartbeat(from: MemberId, letter: Message<"heartbeat">): void {
    this.#learnUpTo(from, letter.chosen);
    this.#extendHeld();
    const { ballot, round } = letter;
    const upTo = this.#heldMarks.reached;
    const missing = this.#firstMissing(Math.max(this.#held, letter.chosen) + 1, letter.sent);
    const reply = { kind: "heartbeat-reply", ballot, round, chosen: this.#chosen, missing, upTo } as const;
    this.#send(from, reply, "control");
  }

  /** The first slot of the range that was not accepted in the promised ballot; 0: none. */
  #firstMissing(first: Index, last: Index): Index {
    let index = first;
    while (index <= last && this.#log.at(index)?.ballot === this.#promised) index++;
    return index <= last ? index : 0;
  }

  /** The count of what is held in the promised ballot begins anew with each ballot. */
  #startHeld(): void {
    this.#held = this.#chosen;
    this.#heldMarks.reset(0);
    this.#extendHeld();
  }

  #extendHeld(): void {
    if (this.#held < this.#chosen) this.#held = this.#chosen;
    while (this.#log.at(this.#held + 1)?.ballot === this.#promised) this.#held++;
    this.#heldMarks.mark(this.#logSequence, this.#held);
    this.#heldMarks.onDurable(this.#durableSequence);
  }

  // ------------------------------------------------------------------------------------------------ phase 2: the leader

  #onSubmit(input: Extract<Input<PaxosMessage>, { kind: "submit" }>): void {
    if (this.#role !== "leader") this.#reject(input.ticket, "not-leader");
    else if (input.fence !== undefined && input.fence !== this.#promised) this.#reject(input.ticket, "fenced");
    else if (this.#isWindowFull()) this.#reject(input.ticket, "busy");
    else {
      const index = this.#proposeOwn("batch", input.payload);
      this.#outputs.push({ kind: "accepted", ticket: input.ticket, index, term: this.#promised });
    }
  }

  #isWindowFull(): boolean {
    const { windowSlots, windowBytes } = this.#options;
    return this.#lastSlot - this.#chosen >= windowSlots || this.#proposals.bytes > windowBytes;
  }

  #reject(ticket: number, why: Extract<Output<PaxosMessage>, { kind: "rejected" }>["why"]): void {
    this.#outputs.push({ kind: "rejected", ticket, why, leader: this.#leader });
  }

  #proposeOwn(kind: EntryKind, payload: Uint8Array): Index {
    const stampMs = this.#stampBase.stampMs + (this.#nowMs - this.#stampBase.atMs);
    const index = this.#lastSlot + 1;
    this.#propose({ index, term: this.#promised, kind, stampMs, payload });
    return index;
  }

  /** One value for the slot in this ballot, never another (PMMC, A4, C1). Our own disk writes it while the others do. */
  #propose(value: LogEntry): void {
    assert(value.index === this.#lastSlot + 1, "a leader proposes one slot after another");
    const entry = { ...value, ballot: this.#promised };
    this.#lastSlot = entry.index;
    this.#proposals.add(entry);
    this.#put(entry);
    this.#ownMarks.mark(this.#logSequence, entry.index);
    for (const [member, progress] of this.#progress) this.#sendAccepts(member, progress);
  }

  #put(entry: LogEntry): void {
    this.#log.put(entry);
    this.#operations.push({ kind: "put", entry });
    this.#logSequence = this.#sequence + 1;
  }

  #sendAccepts(to: MemberId, progress: PeerProgress): void {
    const window = { messagesMax: this.#options.inFlightMessagesMax, bytesMax: this.#options.inFlightBytesMax };
    progress.next = Math.max(progress.next, this.#chosen + 1);
    while (progress.next <= this.#lastSlot && progress.hasRoom(window)) {
      const { entries } = this.#log.page(progress.next, this.#lastSlot, this.#options.messageBytesMax);
      let bytes = 0;
      for (const entry of entries) bytes += entryBytes(entry);
      this.#send(to, { kind: "accept", ballot: this.#promised, chosen: this.#chosen, entries }, "log");
      progress.sent((entries.at(-1) as LogEntry).index, bytes);
    }
  }

  #onAccepted(from: MemberId, letter: Message<"accepted">): void {
    const progress = this.#progressOf(from, letter.ballot);
    if (progress === undefined || letter.last > this.#lastSlot || letter.upTo > this.#lastSlot) return;
    progress.answered(letter.last, letter.upTo);
    this.#count(from, progress, letter);
    this.#maybeChoose();
    this.#sendAccepts(from, progress);
  }

  /** Of a member that answers in our ballot; undefined otherwise: then it is about a leader that we are not any more. */
  #progressOf(from: MemberId, ballot: Ballot): PeerProgress | undefined {
    if (this.#role !== "leader" || ballot !== this.#promised) return undefined;
    const progress = this.#progress.get(from);
    if (progress !== undefined) progress.lastHeardMs = this.#nowMs;
    return progress;
  }

  #count(from: MemberId, progress: PeerProgress, answer: { first: Index; last: Index; upTo: Index }): void {
    const position = this.#members.indexOf(from);
    this.#proposals.accepted(position, Math.max(answer.first, this.#chosen + 1), answer.last);
    if (answer.upTo <= progress.upTo) return;
    this.#proposals.accepted(position, Math.max(progress.upTo, this.#chosen) + 1, answer.upTo);
    progress.upTo = answer.upTo;
  }

  /** Each slot is chosen for itself; what is delivered is the prefix without holes (PMMC, R2). */
  #maybeChoose(): void {
    let chosen = this.#chosen;
    while (this.#proposals.isChosen(chosen + 1)) this.#proposals.drop(++chosen);
    if (chosen === this.#chosen) return;
    const isFirst = this.#chosen < this.#firstOwnSlot && chosen >= this.#firstOwnSlot;
    this.#advanceChosen(chosen);
    if (isFirst) this.#startReadRound();
  }

  #broadcastHeartbeat(): void {
    this.#round++;
    this.#heartbeatDueMs = this.#nowMs + this.#options.heartbeatMs;
    for (const [member, progress] of this.#progress) {
      const sent = progress.next - 1;
      const letter = { kind: "heartbeat", ballot: this.#promised, round: this.#round, chosen: this.#chosen, sent } as const;
      this.#send(member, letter, "control");
    }
  }

  #onHeartbeatReply(from: MemberId, letter: Message<"heartbeat-reply">): void {
    const progress = this.#progressOf(from, letter.ballot);
    if (progress === undefined || letter.round > this.#round || letter.upTo > this.#lastSlot) return;
    progress.round = Math.max(progress.round, letter.round);
    progress.chosen = Math.max(progress.chosen, letter.chosen);
    progress.answered(0, letter.upTo);
    this.#count(from, progress, { first: 1, last: 0, upTo: letter.upTo });
    this.#maybeChoose();
    this.#confirmReads();
    // A hole below what it was sent: an accept was lost. What is chosen meanwhile it learns by itself.
    const missing = Math.max(letter.missing, this.#chosen + 1);
    if (letter.missing !== 0 && missing < progress.next) progress.rewind(missing);
    this.#sendAccepts(from, progress);
  }

  // ------------------------------------------------------------------------------------------------ learning

  /**
   * The leader says that every slot up to `chosen` is chosen. Believed where this member accepted the slot in the leader's
   * own ballot: a ballot has one value per slot, so that is the chosen one. What was accepted in an older ballot may be
   * another value, and is asked for.
   */
  #learnUpTo(leader: MemberId, chosen: Index): void {
    if (chosen <= this.#chosen || this.#incoming?.installing) return;
    let upTo = this.#chosen;
    while (upTo < chosen && this.#log.at(upTo + 1)?.ballot === this.#promised) upTo++;
    this.#advanceChosen(upTo);
    if (upTo < chosen) this.#maybeAsk(leader);
  }

  /** A chosen value from elsewhere. */
  #learn(entry: LogEntry): void {
    assert(entry.index === this.#chosen + 1, "chosen values are learned in order");
    const own = this.#log.at(entry.index);
    if (own === undefined || !isSameValue(own, entry)) this.#put(entry);
    this.#advanceChosen(entry.index);
  }

  /**
   * Delivers the chosen prefix. Stamps never fall along it: where a value that was born under an older leader stands behind
   * one of a newer, it is delivered with the later stamp. Every member folds the same values in the same order, so all
   * deliver the same; the values themselves are never changed.
   */
  #advanceChosen(chosen: Index): void {
    if (chosen <= this.#chosen) return;
    const entries: LogEntry[] = [];
    for (let index = this.#chosen + 1; index <= chosen; index++) {
      const entry = this.#log.at(index);
      assert(entry !== undefined, "what is chosen is in the log");
      const isLate = entry.stampMs < this.#deliveredStampMs;
      entries.push(isLate ? { ...entry, stampMs: this.#deliveredStampMs } : entry);
      this.#deliveredStampMs = Math.max(this.#deliveredStampMs, entry.stampMs);
    }
    this.#chosen = chosen;
    this.#log.choose(chosen);
    this.#outputs.push({ kind: "deliver", entries });
  }

  #maybeAsk(of: MemberId): void {
    const isOpen = this.#asked !== undefined && this.#nowMs < this.#asked.atMs + askAgainBeats * this.#options.heartbeatMs;
    if (!isOpen) this.#ask(of);
  }

  #ask(of: MemberId): void {
    this.#asked = { atMs: this.#nowMs, from: this.#chosen + 1 };
    const incoming = this.#incoming;
    if (incoming?.from === of && !incoming.installing) {
      this.#send(of, { kind: "snapshot-ask", index: incoming.index, offset: incoming.offset }, "control");
    } else {
      this.#send(of, { kind: "ask", from: this.#chosen + 1 }, "control");
    }
  }

  #onAsk(from: MemberId, first: Index): void {
    if (first > this.#chosen || first < 1) return;
    if (first <= this.#log.base) {
      this.#readSnapshot(from, 0);
      return;
    }
    const { entries } = this.#log.page(first, this.#chosen, this.#options.messageBytesMax);
    this.#send(from, { kind: "learn", chosen: this.#chosen, entries }, "bulk");
  }

  #onLearn(from: MemberId, letter: Message<"learn">): void {
    if (this.#role === "leader" || this.#incoming?.installing) return;
    for (const entry of letter.entries) if (entry.index === this.#chosen + 1) this.#learn(entry);
    this.#extendHeld();
    if (this.#asked === undefined || this.#chosen < this.#asked.from) return;
    this.#asked = undefined;
    if (letter.chosen > this.#chosen) this.#ask(from);
  }

  // ------------------------------------------------------------------------------------------------ reads

  #onRead(ticket: number): void {
    if (this.#role !== "leader") {
      this.#reject(ticket, "not-leader");
      return;
    }
    this.#reads.add(ticket, this.#chosen);
    this.#startReadRound();
  }

  /**
   * One round in flight; what arrives meanwhile joins the next. None starts before a value of its own is chosen: only then
   * does the leader know everything that was chosen before it led. A majority that echoes the round promised no higher
   * ballot until then, so nothing newer was chosen without this leader. No disk is written.
   */
  #startReadRound(): void {
    if (this.#chosen < this.#firstOwnSlot || !this.#reads.canStart()) return;
    this.#broadcastHeartbeat();
    this.#reads.start(this.#round, this.#chosen);
    this.#confirmReads();
  }

  #confirmReads(): void {
    const rounds = [...this.#progress.values()].map(({ round }) => round);
    rounds.push(this.#round);
    rounds.sort((left, right) => right - left);
    // In descending order, the element at floor(n / 2) is reached by a majority.
    const reads = this.#reads.confirm(rounds[Math.floor(rounds.length / 2)] as number);
    if (reads.length === 0) return;
    for (const read of reads) this.#outputs.push({ kind: "read-at", ticket: read.ticket, index: read.index });
    this.#startReadRound();
  }

  // ------------------------------------------------------------------------------------------------ snapshots ("Paxos Made Live" §5.6)

  #readSnapshot(to: MemberId, offset: number): void {
    this.#outputs.push({ kind: "read-snapshot", to, offset, lengthBytes: this.#options.snapshotChunkBytes });
  }

  #onSnapshotBytes(input: Extract<Input<PaxosMessage>, { kind: "snapshot-bytes" }>): void {
    const { to, index, term, offset, bytes, done } = input;
    this.#send(to, { kind: "snapshot", index, term, offset, bytes, done }, "bulk");
  }

  #onSnapshot(from: MemberId, letter: Message<"snapshot">): void {
    if (this.#role === "leader" || this.#incoming?.installing || letter.index <= this.#chosen) return;
    const current = this.#incoming;
    const continues = current?.index === letter.index && current.from === from && letter.offset === current.offset;
    // A chunk that is not due: it came twice, or a newer snapshot took the place of the one under way.
    if (!continues && letter.offset !== 0) {
      if (current?.from === from && letter.index > current.index) {
        this.#incoming = undefined;
        this.#ask(from);
      }
      return;
    }
    const { index, term, offset, bytes, done } = letter;
    const configuration = this.#configuration;
    if (!continues && current !== undefined && current.index >= index && current.from === from) return;
    this.#incoming = { index, term, from, offset: offset + bytes.length, installing: done };
    this.#outputs.push({ kind: "install-snapshot", from, index, term, configuration, offset, bytes, done });
    if (!done) this.#ask(from);
  }

  #onSnapshotInstalled(input: Extract<Input<PaxosMessage>, { kind: "snapshot-installed" }>): void {
    const incoming = this.#incoming;
    if (incoming === undefined || incoming.index !== input.index) return;
    this.#incoming = undefined;
    this.#asked = undefined;
    if (!input.ok) return; // Asked for again with the next sign of what is missing.
    const { index } = incoming;
    assert(index > this.#chosen, "a snapshot never takes back what is chosen");
    // What was accepted above it stays accepted: slots do not hang on one another.
    this.#log.coveredBy(index);
    this.#snapshotBytes = incoming.offset;
    this.#chosen = index;
    this.#applied = index;
    this.#deliveredStampMs = input.stampMs;
    this.#extendHeld();
    this.#ask(incoming.from);
  }

  // ------------------------------------------------------------------------------------------------ disk and post

  #onPersisted(sequence: PersistSequence): void {
    assert(sequence <= this.#sequence && sequence >= this.#durableSequence, "the disk confirms in order");
    this.#durableSequence = sequence;
    this.#heldMarks.onDurable(sequence);
    this.#ownMarks.onDurable(sequence);
    if (this.#campaign?.phase === "real" && this.#promiseSequence <= sequence) this.#reportOwn(this.#campaign.takeOver);
    if (this.#role !== "leader") return;
    if (this.#ownMarks.reached <= this.#ownUpTo) return;
    this.#proposals.accepted(this.#position, this.#ownUpTo + 1, this.#ownMarks.reached);
    this.#ownUpTo = this.#ownMarks.reached;
    this.#maybeChoose();
  }

  #send(to: MemberId, message: PaxosMessage, lane: Lane, after: PersistSequence = 0): void {
    this.#outputs.push({ kind: "send", to, message, after: Math.max(after, this.#promiseSequence), lane });
  }

  /** Closes the step: its disk operations become one atomic persist, ahead of everything that waits for it. */
  #finish(): readonly Output<PaxosMessage>[] {
    if (this.#operations.length > 0) {
      this.#noteChosen();
      this.#sequence++;
      this.#outputs.unshift({ kind: "persist", sequence: this.#sequence, operations: this.#operations });
      this.#operations = [];
    }
    const atMs = this.#role === "leader" ? Math.min(this.#heartbeatDueMs, this.#quorumCheckMs) : this.#electionDeadlineMs;
    this.#outputs.push({ kind: "timer", atMs });
    const outputs = this.#outputs;
    this.#outputs = [];
    return outputs;
  }

  /** The chosen index rides along with whatever is written anyway: a restart then knows it without asking. Never a write of its own. */
  #noteChosen(): void {
    if (this.#chosen === this.#chosenNoted) return;
    this.#chosenNoted = this.#chosen;
    this.#operations.push({ kind: "meta", values: { chosen: String(this.#chosen) } });
  }

  #makeProbe(): PaxosProbe {
    const paxos = this;
    return {
      get role() {
        return paxos.#role;
      },
      get term() {
        return paxos.#promised;
      },
      get promised() {
        return paxos.#promised;
      },
      get leader() {
        return paxos.#leader;
      },
      get committedIndex() {
        return paxos.#chosen;
      },
      get firstIndex() {
        return paxos.#log.base + 1;
      },
      get lastIndex() {
        return paxos.#log.last;
      },
      get configuration() {
        return paxos.#configuration;
      },
      acceptedAt: (index) => paxos.#log.at(index),
      termAt: (index) => paxos.#log.at(index)?.term,
      matchOf: (member) => (member === paxos.#self ? undefined : paxos.#progress.get(member)?.upTo),
      lastHeardMsOf: (member) => paxos.#progress.get(member)?.lastHeardMs,
    };
  }
}

/** The ballot in a letter; 0 in one that has none. */
function speaksOf(message: PaxosMessage): Ballot {
  if ("ballot" in message) return message.ballot;
  return message.kind === "nack" ? message.promised : 0;
}

/** The value that closes a gap. It is the same whoever proposes it, so two leaders that do never disagree about it. */
function gapAt(index: Index): LogEntry {
  return { index, term: 0, kind: "noop", stampMs: 0, payload: emptyBytes };
}
