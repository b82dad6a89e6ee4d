/**
 * Phase 0: the search for a leader, a conversation in which everybody comes round to the one who knows most.
 *
 * Intuition: people who choose a reader ask each other who has read furthest; whoever hears of a better one repeats that
 * name. Nothing here is durable and nothing depends on it: a wrong choice fails in phase 1, where histories are shown.
 * Source: ZooKeeper's FastLeaderElection; the paper leaves phase 0 open (§IV.A).
 */
import { hasQuorum } from "../configuration.ts";
import type { Configuration, MemberId, Term } from "../core.ts";
import { isAhead } from "./history.ts";
import type { Vote } from "./messages.ts";

export class Search {
  /** Of this member's searches. Only votes of one round are counted together. */
  round = 0;
  /** Whom this member would follow now. */
  vote!: Vote;
  readonly #configuration: Configuration;
  readonly #self: MemberId;
  #own!: Vote;
  readonly #votes = new Map<MemberId, MemberId>();
  readonly #settled = new Map<MemberId, { readonly leader: MemberId; readonly epoch: Term }>();

  constructor(configuration: Configuration, self: MemberId) {
    this.#configuration = configuration;
    this.#self = self;
  }

  /** A new round, beginning with oneself. */
  begin(own: Vote): void {
    this.#own = own;
    this.#enter(this.round + 1, own);
  }

  /**
   * Somebody else's vote. Answers what it was: `old` (of an earlier round: tell them ours), `news` (ours has changed: tell
   * everybody), or `same`.
   */
  hear(from: MemberId, round: number, vote: Vote): "old" | "news" | "same" {
    if (round < this.round) return "old";
    let isNews = false;
    if (round > this.round) {
      this.#enter(round, isBetter(vote, this.#own) ? vote : this.#own);
      isNews = true;
    } else if (isBetter(vote, this.vote)) {
      this.vote = vote;
      this.#votes.set(this.#self, vote.leader);
      isNews = true;
    }
    this.#votes.set(from, vote.leader);
    return isNews ? "news" : "same";
  }

  /** Somebody follows or leads already. Answers a leader that a quorum has, with its own word for it. */
  hearSettled(from: MemberId, settled: { readonly leader: MemberId; readonly epoch: Term }): MemberId | undefined {
    this.#settled.set(from, settled);
    const word = this.#settled.get(settled.leader);
    if (word?.leader !== settled.leader) return undefined;
    const agrees = (member: MemberId): boolean => this.#settled.get(member)?.leader === settled.leader;
    return hasQuorum(this.#configuration, agrees) ? settled.leader : undefined;
  }

  /** `all`: nobody can name a better one any more. */
  agreement(): "none" | "quorum" | "all" {
    const agrees = (member: MemberId): boolean => this.#votes.get(member) === this.vote.leader;
    if (!hasQuorum(this.#configuration, agrees)) return "none";
    return this.#configuration.voters.every(agrees) ? "all" : "quorum";
  }

  #enter(round: number, vote: Vote): void {
    this.round = round;
    this.vote = vote;
    this.#votes.clear();
    this.#settled.clear();
    this.#votes.set(this.#self, vote.leader);
  }
}

function isBetter(left: Vote, right: Vote): boolean {
  if (isAhead(left, right)) return true;
  return !isAhead(right, left) && left.leader > right.leader;
}
