/**
 * Raft's own invariants, on top of those that every protocol owes (`group-checker.ts`).
 *
 * Source: Raft Figure 3, and the checklist of `research/consensus.md` §4.1. Each check has a name, which the kill table of
 * planted bugs cites. Two are stated with care, because their textbook forms raise false alarms: Leader Completeness is
 * keyed by the term that *committed* an entry, and Vote Once by votes that *left* the member.
 */
import type { Configuration, Index, Input, LogEntry, MemberId, Probe, Recovered, Term } from "../consensus/core.ts";
import type { RaftMessage } from "../consensus/raft/messages.ts";
import { type Chosen, type Ghost, GroupChecker } from "./group-checker.ts";
import { must } from "./invariant-violation.ts";

export class RaftChecker extends GroupChecker<RaftMessage> {
  readonly #leaders = new Map<Term, MemberId>();
  readonly #votes = new Map<string, MemberId>();
  /** Prefix hash of every (index, term) that any log ever held. */
  readonly #entries = new Map<number, number>();

  constructor(configuration: Configuration) {
    super(configuration, { sparseSlots: false });
  }

  override onWire(from: MemberId, to: MemberId, message: RaftMessage): void {
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
    if (message.kind === "vote-request" && !message.preVote) this.#onVote(from, message.term, from);
    if (message.kind === "vote-reply" && !message.preVote && message.granted) this.#onVote(from, message.term, to);
    if (message.kind === "append-reply" && message.accepted) {
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
  }

  protected override onPut(member: MemberId, ghost: Ghost, entry: LogEntry): void {
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

  protected override onTruncate(member: MemberId, _ghost: Ghost, _from: Index, probe: Probe): void {
    must(probe.role !== "leader", "LeaderAppendOnly", () => `${member} truncates its log while leading term ${probe.term}`);
  }

  protected override onDelivered(member: MemberId, _ghost: Ghost, entries: readonly LogEntry[], probe: Probe): void {
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
    if (probe.role === "leader" && input.kind === "message" && input.message.kind === "append-reply")
      this.#checkMatch(member, ghost, input.from, probe);
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
