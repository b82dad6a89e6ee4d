/**
 * Raft's own invariants, on top of those that every protocol owes (`group-checker.ts`).
 *
 * Source: Raft Figure 3, and the checklist of `research/consensus.md` §4.1. Each check has a name, which the kill table of
 * planted bugs cites. Three are stated with care, because their textbook forms raise false alarms: Leader Completeness is
 * keyed by the term that *committed* an entry, Vote Once by votes that *left* the member, and LeaseDisjoint by later terms.
 * ReadProven: a read that is no lease's was answered after a quorum echoed a heartbeat that left after the read had come.
 * CommitProven: what a letter with entries commits ends where its entries end (Figure 2, AppendEntries step 5). TermCoversLog:
 * nobody starts in an earlier term than the last of its log. PromiseKept: who promised to elect nobody for a while, does not.
 * ElectedByQuorum counts the votes that left their voters, by the configuration of `membership-checker.ts`; LeaseDisjoint:
 * at no moment of true time does one member lead anew while another of an earlier term would serve a read by lease.
 */
import type { Configuration, Index, Input, LogEntry, MemberId, Output, Probe, Recovered, Term } from "../consensus/core.ts";
import type { RaftMessage } from "../consensus/raft/messages.ts";
import { type Chosen, type Ghost, GroupChecker } from "./group-checker.ts";
import { must } from "./invariant-violation.ts";
import { MembershipChecker } from "./membership-checker.ts";

/** Rounds of heartbeats of one member that are remembered. */
const roundsMax = 1_024;

export class RaftChecker extends GroupChecker<RaftMessage> {
  readonly #leaders = new Map<Term, MemberId>();
  readonly #votes = new Map<string, MemberId>();
  /** Prefix hash of every (index, term) that any log ever held. */
  readonly #entries = new Map<number, number>();
  readonly #membership: MembershipChecker;
  /** By member: when each of its rounds began, and by follower the latest such moment that it echoed. In steps of the group. */
  readonly #rounds = new Map<MemberId, { readonly begun: Map<number, number>; readonly echoed: Map<MemberId, number> }>();
  /** When each read came, by member and ticket. */
  readonly #readsAt = new Map<string, number>();
  /** Until when nobody else is elected, by the member's own clock, which goes on while it is down: as said last, and as sent. */
  readonly #promises = new Map<MemberId, { saidUntilMs: number; sentUntilMs: number }>();
  readonly #recoveredTerms = new Map<MemberId, Term>();
  #steps = 0;
  /** Letters over connections pass this checker by, and with them the votes. */
  #seesWire = false;

  constructor(configuration: Configuration) {
    super(configuration, { sparseSlots: false });
    this.#membership = new MembershipChecker(configuration);
  }

  protected override isQuorumAt(_index: Index, counts: (member: MemberId) => boolean, decider: MemberId): boolean {
    return this.#membership.isQuorum(decider, counts);
  }

  override onWire(from: MemberId, to: MemberId, message: RaftMessage): void {
    this.#seesWire = true;
    const ghost = this.ghosts.get(from) as Ghost;
    const isDryRun = (message.kind === "vote-request" || message.kind === "vote-reply") && message.preVote;
    if (!isDryRun) {
      must(
        message.term >= ghost.sentTerm,
        "SentTermMonotonic",
        () => `${from} sent ${message.kind} of term ${message.term} after ${ghost.sentTerm}`,
      );
      ghost.sentTerm = message.term;
    }
    if (message.kind === "vote-request" && !message.preVote) {
      must(
        this.#membership.mayCampaign(from),
        "CandidateIsVoter",
        () => `${from} asks for votes in term ${message.term} and has none itself`,
      );
      this.#onVote(from, message.term, from);
    }
    if (message.kind === "timeout-now") this.#onHandOver(from, to, ghost);
    if (message.kind === "heartbeat-reply" && message.promisedMs > 0) {
      const promise = this.#promiseOf(from);
      promise.sentUntilMs = promise.saidUntilMs;
    }
    if (message.kind === "vote-reply" && !message.preVote && message.granted) this.#onVote(from, message.term, to);
    // A member that has moved on meanwhile may have dropped the entries by order of a later leader, and what it says of the
    // earlier term stays true: it held them then, before it took part in the later term.
    if (message.kind === "append-reply" && message.accepted && ghost.term <= message.term) {
      must(
        ghost.disk.last >= message.index,
        "AckedIsDurable",
        () => `${from} confirmed ${message.index} with ${ghost.disk.last} on disk`,
      );
    }
  }

  override onStep(member: MemberId, input: Input<RaftMessage>, outputs: readonly Output<RaftMessage>[], probe: Probe): void {
    this.#steps++;
    const rounds = this.#rounds.get(member) as { begun: Map<number, number>; echoed: Map<MemberId, number> };
    if (input.kind === "read" && input.level !== "lease") this.#readsAt.set(`${member}/${input.ticket}`, this.#steps);
    if (input.kind === "message" && input.message.kind === "heartbeat-reply" && input.message.term === probe.term) {
      const begun = rounds.begun.get(input.message.round) ?? 0;
      if (begun > (rounds.echoed.get(input.from) ?? 0)) rounds.echoed.set(input.from, begun);
    }
    for (const output of outputs) {
      if (output.kind === "read-at") this.#checkRead(member, output.ticket, rounds.echoed);
      if (output.kind === "send" && "nowMs" in input) this.#checkPromise(member, input, output.message);
      if (output.kind !== "send" || output.message.kind !== "heartbeat" || rounds.begun.has(output.message.round)) continue;
      rounds.begun.set(output.message.round, this.#steps);
      if (rounds.begun.size > roundsMax) rounds.begun.delete(rounds.begun.keys().next().value as number);
    }
    const committed = (this.ghosts.get(member) as Ghost).committed;
    super.onStep(member, input, outputs, probe);
    if (input.kind !== "message" || input.message.kind !== "append" || probe.committedIndex <= committed) return;
    const end = input.message.previousIndex + input.message.entries.length;
    must(
      probe.committedIndex <= end,
      "CommitProven",
      () => `${member} commits ${probe.committedIndex} by a letter that proves its log up to ${end}`,
    );
  }

  override onStarted(member: MemberId, outputs: readonly Output<RaftMessage>[], probe: Probe): void {
    super.onStarted(member, outputs, probe);
    const last = this.#recoveredTerms.get(member) as Term;
    must(
      probe.term >= last,
      "TermCoversLog",
      () => `${member} starts in term ${probe.term} with a log that ends in term ${last}`,
    );
  }

  #promiseOf(member: MemberId): { saidUntilMs: number; sentUntilMs: number } {
    const promise = this.#promises.get(member) ?? { saidUntilMs: 0, sentUntilMs: 0 };
    this.#promises.set(member, promise);
    return promise;
  }

  /** A vote, or a request for votes, that no leader asked for. The promise is not on the disk and binds across a restart (thesis §6.4.1). */
  #checkPromise(member: MemberId, input: Input<RaftMessage> & { readonly nowMs: number }, message: RaftMessage): void {
    const promise = this.#promiseOf(member);
    if (message.kind === "heartbeat-reply" && message.promisedMs > 0)
      promise.saidUntilMs = Math.max(promise.saidUntilMs, input.nowMs + message.promisedMs);
    const isVote = message.kind === "vote-reply" && message.granted;
    if (!isVote && !(message.kind === "vote-request" && !message.transfer)) return;
    if (input.kind === "message" && input.message.kind === "vote-request" && input.message.transfer) return;
    must(
      input.nowMs >= promise.sentUntilMs,
      "PromiseKept",
      () =>
        `${member} sends a ${message.kind} at ${input.nowMs} of its clock, and promised to elect nobody until ${promise.sentUntilMs}`,
    );
  }

  #checkRead(member: MemberId, ticket: number, echoed: ReadonlyMap<MemberId, number>): void {
    const key = `${member}/${ticket}`;
    const cameAt = this.#readsAt.get(key);
    this.#readsAt.delete(key);
    if (cameAt === undefined) return;
    must(
      this.#membership.isQuorum(member, (voter) => voter === member || (echoed.get(voter) ?? 0) >= cameAt),
      "ReadProven",
      () => `${member} answers a read, and no quorum has echoed a round that began after it came`,
    );
  }

  protected override onRecovered(member: MemberId, ghost: Ghost, recovered: Recovered): void {
    this.#rounds.set(member, { begun: new Map(), echoed: new Map() });
    ghost.term = Number(recovered.meta.get("term") ?? 0);
    this.#recoveredTerms.set(member, recovered.entries.at(-1)?.term ?? recovered.snapshot?.term ?? 0);
    must(
      ghost.term >= ghost.sentTerm,
      "TermMonotonic",
      () => `${member} came back in term ${ghost.term}, after sending in ${ghost.sentTerm}`,
    );
    this.#membership.onRecovered(member, recovered);
  }

  protected override onPut(member: MemberId, ghost: Ghost, entry: LogEntry, probe: Probe): void {
    this.#membership.onPut(member, entry, probe);
    const key = entry.index * 2 ** 20 + entry.term;
    const hash = ghost.log.hashAt(entry.index) as number;
    const known = this.#entries.get(key);
    must(
      known === undefined || known === hash,
      "LogMatching",
      () => `${member} has another log below (index ${entry.index}, term ${entry.term})`,
    );
    this.#entries.set(key, hash);
  }

  protected override onTruncate(member: MemberId, _ghost: Ghost, from: Index, probe: Probe): void {
    this.#membership.onTruncate(member, from);
    must(probe.role !== "leader", "LeaderAppendOnly", () => `${member} truncates its log while leading term ${probe.term}`);
  }

  protected override onDelivered(member: MemberId, _ghost: Ghost, entries: readonly LogEntry[], probe: Probe): void {
    this.#membership.onDelivered(entries);
    if (probe.role !== "leader") return;
    const last = entries.at(-1) as LogEntry;
    must(
      last.term === probe.term,
      "CommitTermRule",
      () => `${member} leads term ${probe.term} and commits by counting at ${last.index} of term ${last.term}`,
    );
  }

  protected override onLeader(member: MemberId, ghost: Ghost, term: Term): void {
    const other = this.#leaders.get(term);
    must(other === undefined || other === member, "ElectionSafety", () => `${member} and ${other} both lead term ${term}`);
    this.#leaders.set(term, member);
    must(
      !this.#seesWire ||
        this.#membership.isQuorum(member, (voter) => voter === member || this.#votes.get(`${voter}/${term}`) === member),
      "ElectedByQuorum",
      () => `${member} leads term ${term} without the votes of a quorum`,
    );
    // Only of earlier terms: one that comes to lead an old term by late votes, while a later one is under way, decides nothing.
    const holders = this.leaseHolders().filter((other) => (this.ghosts.get(other) as Ghost).term < term);
    must(
      holders.length === 0,
      "LeaseDisjoint",
      () => `${member} leads term ${term} while ${holders} would still serve reads by lease`,
    );
    let index = this.committed;
    while (index > 0 && (this.chosen[index] as Chosen).byTerm >= term) index--;
    if (index <= ghost.log.base) return;
    must(
      ghost.log.hashAt(index) === (this.chosen[index] as Chosen).hash,
      "LeaderCompleteness",
      () => `${member} leads term ${term} without the entry ${index} that was committed before`,
    );
  }

  protected override afterStep(member: MemberId, ghost: Ghost, input: Input<RaftMessage>, probe: Probe): void {
    if (input.kind === "snapshot-built") this.#membership.onSnapshotBuilt(member, input);
    if (input.kind === "snapshot-installed" && input.ok && ghost.log.base === input.index)
      this.#membership.onInstalled(member, input.index, ghost.log.last);
    this.#membership.afterStep(member, probe);
    if (probe.role === "leader" && input.kind === "message" && input.message.kind === "append-reply")
      this.#checkMatch(member, ghost, input.from, probe);
  }

  /** Whoever is told to campaign has everything: else the transfer costs an election (thesis §3.10). */
  #onHandOver(from: MemberId, to: MemberId, ghost: Ghost): void {
    const target = this.ghosts.get(to);
    if (target === undefined || target.term > ghost.term || target.disk.base > ghost.log.last) return;
    must(
      target.disk.hashAt(ghost.log.last) === ghost.log.hashAt(ghost.log.last),
      "TransferToCaughtUp",
      () => `${from} hands over to ${to}, whose disk ends at ${target.disk.last} of ${ghost.log.last}`,
    );
  }

  #onVote(voter: MemberId, term: Term, candidate: MemberId): void {
    const key = `${voter}/${term}`;
    const before = this.#votes.get(key);
    must(
      before === undefined || before === candidate,
      "VoteOnce",
      () => `${voter} voted for ${before} and ${candidate} in term ${term}`,
    );
    this.#votes.set(key, candidate);
  }

  #checkMatch(leader: MemberId, ghost: Ghost, follower: MemberId, probe: Probe): void {
    const match = probe.matchOf(follower) ?? 0;
    const other = this.ghosts.get(follower);
    if (other === undefined || other.term > probe.term || match <= other.disk.base || match < ghost.log.base) return;
    must(
      other.disk.hashAt(match) === ghost.log.hashAt(match),
      "MatchTruth",
      () => `${leader} believes that ${follower} has its log up to ${match}; the disk differs`,
    );
  }
}
