/**
 * Raft's own invariants, on top of those that every protocol owes (`group-checker.ts`).
 *
 * Source: Raft Figure 3, and the checklist of `research/consensus.md` §4.1. Each check has a name, which the kill table of
 * planted bugs cites. Three are stated with care, because their textbook forms raise false alarms: Leader Completeness is
 * keyed by the term that *committed* an entry, Vote Once by votes that *left* the member, and LeaseDisjoint by later terms.
 * ElectedByQuorum counts the votes that left their voters, by the configuration of `membership-checker.ts`; LeaseDisjoint:
 * at no moment of true time does one member lead anew while another of an earlier term would serve a read by lease.
 */
import type { Configuration, Index, Input, LogEntry, MemberId, Probe, Recovered, Term } from "../consensus/core.ts";
import type { RaftMessage } from "../consensus/raft/messages.ts";
import { type Chosen, type Ghost, GroupChecker } from "./group-checker.ts";
import { must } from "./invariant-violation.ts";
import { MembershipChecker } from "./membership-checker.ts";

export class RaftChecker extends GroupChecker<RaftMessage> {
  readonly #leaders = new Map<Term, MemberId>();
  readonly #votes = new Map<string, MemberId>();
  /** Prefix hash of every (index, term) that any log ever held. */
  readonly #entries = new Map<number, number>();
  readonly #membership: MembershipChecker;
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

  protected override onRecovered(member: MemberId, ghost: Ghost, recovered: Recovered): void {
    ghost.term = Number(recovered.meta.get("term") ?? 0);
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
