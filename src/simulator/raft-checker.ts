/**
 * What must hold of Raft after every step of every member, checked against ghost state that the members never see.
 *
 * Source: the list of `research/consensus.md` §4.0-§4.1. Each check has a name, which the kill table of planted bugs cites.
 * Two are stated with care, because their textbook forms raise false alarms: Leader Completeness is keyed by the term that
 * *committed* an entry, and Vote Once by votes that *left* the member.
 *
 * A log is followed as a chain of prefix hashes, so that one comparison at an index speaks for everything below it.
 */
import { crc32 } from "../base/crc32.ts";
import { hasQuorum } from "../consensus/configuration.ts";
import type {
  Configuration,
  Index,
  Input,
  LogEntry,
  LogOperation,
  MemberId,
  Output,
  Probe,
  Recovered,
  Term,
} from "../consensus/core.ts";
import type { RaftMessage } from "../consensus/raft/messages.ts";

/** A broken invariant: the simulator found a bug, in the protocol or in itself. */
export class InvariantViolation extends Error {
  override readonly name = "InvariantViolation";
  readonly invariant: string;
  constructor(invariant: string, details: string) {
    super(`${invariant}: ${details}`);
    this.invariant = invariant;
  }
}

function must(condition: boolean, invariant: string, details: () => string): void {
  if (!condition) throw new InvariantViolation(invariant, details());
}

/** A log as prefix hashes: `hashes[i]` speaks for index `base + i` and everything below. */
class GhostLog {
  base: Index = 0;
  terms: Term[] = [0];
  hashes: number[] = [0];

  get last(): Index {
    return this.base + this.hashes.length - 1;
  }

  hashAt(index: Index): number | undefined {
    return this.hashes[index - this.base];
  }

  put(entry: LogEntry): void {
    const at = entry.index - this.base;
    this.terms.length = at;
    this.hashes.length = at;
    const previous = this.hashes[at - 1] as number;
    const content = crc32(entry.payload) ^ Math.imul(entry.kind.length, 0x85ebca6b) ^ Math.imul(entry.stampMs * 1000, 0x27d4eb2f);
    this.hashes.push((Math.imul(previous ^ content, 0x9e3779b1) + Math.imul(entry.term + 1, 0x85ebca77) + entry.index) | 0);
    this.terms.push(entry.term);
  }

  truncate(from: Index): void {
    if (from > this.last) return;
    this.terms.length = from - this.base;
    this.hashes.length = from - this.base;
  }

  reset(base: Index, term: Term, hash: number): void {
    this.base = base;
    this.terms = [term];
    this.hashes = [hash];
  }
}

interface Ghost {
  readonly log: GhostLog;
  /** What a power cut now would leave. */
  readonly disk: GhostLog;
  pending: {
    readonly sequence: number;
    readonly operations: readonly LogOperation[];
    readonly resetTo?: { index: Index; term: Term };
  }[];
  term: Term;
  committed: Index;
  delivered: Index;
  sentTerm: Term;
  installing: { index: Index; term: Term } | undefined;
}

interface Chosen {
  readonly hash: number;
  readonly term: Term;
  /** The term of the leader that first committed it. */
  readonly byTerm: Term;
}

export interface CheckerCounts {
  leaderChanges: number;
  commits: number;
  truncations: number;
  snapshotsInstalled: number;
  readsServed: number;
}

export class RaftChecker {
  readonly counts: CheckerCounts = { leaderChanges: 0, commits: 0, truncations: 0, snapshotsInstalled: 0, readsServed: 0 };
  readonly #ghosts = new Map<MemberId, Ghost>();
  readonly #chosen: Chosen[] = [{ hash: 0, term: 0, byTerm: 0 }];
  readonly #leaders = new Map<Term, MemberId>();
  readonly #votes = new Map<string, MemberId>();
  /** Prefix hash of every (index, term) that any log ever held. */
  readonly #entries = new Map<number, number>();
  readonly #readFloors = new Map<string, Index>();
  #configuration: Configuration;

  constructor(configuration: Configuration) {
    this.#configuration = configuration;
  }

  /** The highest index that any member has delivered. */
  get committed(): Index {
    return this.#chosen.length - 1;
  }

  onStart(member: MemberId, recovered: Recovered): void {
    const before = this.#ghosts.get(member);
    const term = Number(recovered.meta.get("term") ?? 0);
    must(
      term >= (before === undefined ? 0 : before.sentTerm),
      "TermMonotonic",
      () => `${member} came back in term ${term}, after sending in ${before?.sentTerm}`,
    );
    const ghost: Ghost = {
      log: new GhostLog(),
      disk: new GhostLog(),
      pending: [],
      term,
      committed: 0,
      delivered: 0,
      sentTerm: before?.sentTerm ?? 0,
      installing: undefined,
    };
    if (recovered.snapshot !== undefined) {
      const { index } = recovered.snapshot;
      const chosen = this.#chosen[index];
      must(
        chosen !== undefined,
        "CommittedImmutable",
        () => `${member} recovered a snapshot at ${index}, which was never committed`,
      );
      for (const log of [ghost.log, ghost.disk]) log.reset(index, recovered.snapshot.term, (chosen as Chosen).hash);
      ghost.committed = index;
      ghost.delivered = index;
    }
    for (const entry of recovered.entries) {
      ghost.log.put(entry);
      ghost.disk.put(entry);
    }
    this.#ghosts.set(member, ghost);
  }

  /** After each step, with what went in and what came out. */
  onStep(member: MemberId, input: Input<RaftMessage>, outputs: readonly Output<RaftMessage>[], probe: Probe): void {
    const ghost = this.#ghosts.get(member) as Ghost;
    if (input.kind === "persisted") this.#onPersisted(ghost, input.sequence);
    if (input.kind === "read") this.#readFloors.set(`${member}/${input.ticket}`, this.committed);
    if (input.kind === "snapshot-installed" && input.ok && ghost.installing !== undefined)
      this.#onInstalled(member, ghost, probe);
    must(probe.term >= ghost.term, "TermMonotonic", () => `${member} fell from term ${ghost.term} to ${probe.term}`);
    ghost.term = probe.term;
    for (const output of outputs) {
      switch (output.kind) {
        case "persist":
          this.#onPersist(member, ghost, output.sequence, output.operations, probe);
          break;
        case "deliver":
          this.#onDeliver(member, ghost, output.entries, probe);
          break;
        case "role":
          if (output.role === "leader") this.#onLeader(member, ghost, output.term);
          break;
        case "read-at":
          this.#onReadAt(member, output.ticket, output.index);
          break;
        case "install-snapshot":
          if (output.done) ghost.installing = { index: output.index, term: output.term };
          break;
        case "halt":
          must(false, "NoHalt", () => `${member}: ${output.why}`);
          break;
        default:
          break;
      }
    }
    must(
      probe.committedIndex >= ghost.committed,
      "CommitMonotonic",
      () => `${member} fell from ${ghost.committed} to ${probe.committedIndex}`,
    );
    must(
      probe.committedIndex <= probe.lastIndex,
      "IndexOrder",
      () => `${member} committed ${probe.committedIndex} beyond its last ${probe.lastIndex}`,
    );
    must(
      probe.lastIndex === ghost.log.last,
      "LogFollowsDisk",
      () => `${member} holds up to ${probe.lastIndex} and told the disk ${ghost.log.last}`,
    );
    ghost.committed = probe.committedIndex;
    if (probe.role === "leader" && input.kind === "message" && input.message.kind === "append-reply")
      this.#checkMatch(member, ghost, input.from, probe);
  }

  /** At the moment when a message leaves its member. */
  onWire(from: MemberId, to: MemberId, message: RaftMessage): void {
    const ghost = this.#ghosts.get(from) as Ghost;
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

  #onPersist(member: MemberId, ghost: Ghost, sequence: number, operations: readonly LogOperation[], probe: Probe): void {
    for (const operation of operations) {
      if (operation.kind === "truncate") {
        if (operation.from > ghost.log.last) continue;
        this.counts.truncations++;
        must(
          operation.from > ghost.committed,
          "CommittedImmutable",
          () => `${member} truncates from ${operation.from}, committed ${ghost.committed}`,
        );
        must(probe.role !== "leader", "LeaderAppendOnly", () => `${member} truncates its log while leading term ${probe.term}`);
        ghost.log.truncate(operation.from);
      } else if (operation.kind === "put") {
        const { entry } = operation;
        must(entry.index === ghost.log.last + 1, "LogContiguous", () => `${member} puts ${entry.index} after ${ghost.log.last}`);
        ghost.log.put(entry);
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
    }
    ghost.pending.push({ sequence, operations });
  }

  #onPersisted(ghost: Ghost, sequence: number): void {
    let done = 0;
    while (done < ghost.pending.length && (ghost.pending[done] as { sequence: number }).sequence <= sequence) {
      for (const operation of (ghost.pending[done] as { operations: readonly LogOperation[] }).operations) {
        if (operation.kind === "put") {
          const { index } = operation.entry;
          // What an installed snapshot overtook may reach the disk late; recovery ignores it, and so do we.
          if (index > ghost.disk.base && index <= ghost.disk.last + 1) ghost.disk.put(operation.entry);
        }
        if (operation.kind === "truncate") ghost.disk.truncate(Math.max(operation.from, ghost.disk.base + 1));
      }
      done++;
    }
    ghost.pending.splice(0, done);
  }

  #onDeliver(member: MemberId, ghost: Ghost, entries: readonly LogEntry[], probe: Probe): void {
    for (const entry of entries) {
      must(entry.index === ghost.delivered + 1, "Contiguity", () => `${member} delivers ${entry.index} after ${ghost.delivered}`);
      ghost.delivered = entry.index;
      const hash = ghost.log.hashAt(entry.index) as number;
      const chosen = this.#chosen[entry.index];
      if (chosen === undefined) this.#choose(member, entry, hash, probe);
      else
        must(
          chosen.hash === hash,
          "StateMachineSafety",
          () => `${member} delivers another entry at ${entry.index} (term ${entry.term}, chosen ${chosen.term})`,
        );
    }
    if (probe.role === "leader") {
      const last = entries.at(-1) as LogEntry;
      must(
        last.term === probe.term,
        "CommitTermRule",
        () => `${member} leads term ${probe.term} and commits by counting at ${last.index} of term ${last.term}`,
      );
    }
  }

  #choose(member: MemberId, entry: LogEntry, hash: number, probe: Probe): void {
    this.counts.commits++;
    this.#chosen[entry.index] = { hash, term: entry.term, byTerm: probe.term };
    const onDisk = (voter: MemberId): boolean => this.#ghosts.get(voter)?.disk.hashAt(entry.index) === hash;
    must(hasQuorum(this.#configuration, onDisk), "ChosenOnQuorumDisk", () => {
      const having = this.#configuration.voters.filter(onDisk);
      return `${member} delivers ${entry.index} of term ${entry.term}, which is on the disks of [${having}] only`;
    });
  }

  #onLeader(member: MemberId, ghost: Ghost, term: Term): void {
    const other = this.#leaders.get(term);
    must(other === undefined || other === member, "ElectionSafety", () => `${member} and ${other} both lead term ${term}`);
    if (other === member) return;
    this.#leaders.set(term, member);
    this.counts.leaderChanges++;
    let index = this.committed;
    while (index > 0 && (this.#chosen[index] as Chosen).byTerm >= term) index--;
    if (index <= ghost.log.base) return;
    must(
      ghost.log.hashAt(index) === (this.#chosen[index] as Chosen).hash,
      "LeaderCompleteness",
      () => `${member} leads term ${term} without the entry ${index} that was committed before`,
    );
  }

  #onReadAt(member: MemberId, ticket: number, index: Index): void {
    const floor = this.#readFloors.get(`${member}/${ticket}`) ?? 0;
    this.#readFloors.delete(`${member}/${ticket}`);
    this.counts.readsServed++;
    must(index >= floor, "ReadFloor", () => `${member} serves a read at ${index}; ${floor} was committed when it came`);
  }

  #checkMatch(leader: MemberId, ghost: Ghost, follower: MemberId, probe: Probe): void {
    const match = probe.matchOf(follower) ?? 0;
    const other = this.#ghosts.get(follower);
    if (other === undefined || other.term > probe.term || match <= other.disk.base || match < ghost.log.base) return;
    must(
      other.disk.hashAt(match) === ghost.log.hashAt(match),
      "MatchTruth",
      () => `${leader} believes that ${follower} has its log up to ${match}; the disk differs`,
    );
  }

  #onInstalled(member: MemberId, ghost: Ghost, probe: Probe): void {
    const { index, term } = ghost.installing as { index: Index; term: Term };
    ghost.installing = undefined;
    const chosen = this.#chosen[index];
    must(
      chosen !== undefined && chosen.term === term,
      "StateMachineSafety",
      () => `${member} installs a snapshot at ${index} of term ${term} that was not chosen`,
    );
    this.counts.snapshotsInstalled++;
    const hash = (chosen as Chosen).hash;
    // The disk forgets in the same step: the snapshot's rename is what makes both durable.
    for (const log of [ghost.log, ghost.disk]) {
      const keep = log.hashAt(index) === hash ? log.hashes.slice(index - log.base) : [hash];
      const terms = keep.length > 1 ? log.terms.slice(index - log.base) : [term];
      log.base = index;
      log.hashes = keep;
      log.terms = terms;
    }
    ghost.delivered = index;
    must(
      probe.committedIndex >= index,
      "CommitMonotonic",
      () => `${member} stays at ${probe.committedIndex} after the snapshot at ${index}`,
    );
  }
}
