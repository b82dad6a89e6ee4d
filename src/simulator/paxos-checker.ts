/**
 * Multi-Paxos' own invariants, on top of those that every protocol owes (`group-checker.ts`).
 *
 * Source: the acceptor's and the commander's invariants A1-A5 and C1-C2 of "Paxos Made Moderately Complex" (§2), and the
 * checklist of `research/consensus.md` §4.2. A value is followed by one number that covers its birth, its stamp and its
 * bytes: a leader that proposes an old value again may change none of them.
 *
 * LedByPromises: who leads a ballot was promised that very ballot by a majority.
 *
 * "Chosen" has its definition here, not the cores' opinion: a majority has accepted the value in one and the same ballot,
 * on disk. What the cores deliver, teach and claim is measured against that.
 */

import type { Configuration, Index, Input, LogEntry, MemberId, Output, Probe, Recovered, Term } from "../consensus/core.ts";
import type { Ballot } from "../consensus/paxos/ballot.ts";
import type { PaxosMessage } from "../consensus/paxos/messages.ts";
import { contentHash } from "./ghost-log.ts";
import { type Ghost, GroupChecker } from "./group-checker.ts";
import { must } from "./invariant-violation.ts";

/** What is on one member's disk in one slot. */
interface Held {
  readonly ballot: Ballot;
  readonly value: number;
}

interface PaxosGhost {
  /** Slots on disk; those that a snapshot covers go at the next start. */
  readonly disk: Map<Index, Held>;
  /** As told to the disk, and what the disk has of it. */
  promised: Ballot;
  incarnation: number;
  /** The highest ballot in which this member answered or asked, in any incarnation. */
  sent: Ballot;
  /** Confirmed slots were looked at up to here, in this ballot. */
  looked: { readonly ballot: Ballot; upTo: Index };
}

export class PaxosChecker extends GroupChecker<PaxosMessage> {
  readonly #members = new Map<MemberId, PaxosGhost>();
  /** (slot, ballot) to the one value that was proposed there. */
  readonly #proposed = new Map<number, number>();
  /** (slot, birth) to the value. */
  readonly #born = new Map<number, number>();
  /** (slot, ballot) to the members that have it on disk, a bit each. */
  readonly #accepted = new Map<number, number>();
  readonly #chosenValues = new Map<Index, Held>();
  /** Of the highest ballot that leads: the highest stamp among its proposals up to each slot. */
  #stamps: { readonly ballot: Ballot; readonly highest: Map<Index, number> } = { ballot: 0, highest: new Map() };
  readonly #owners = new Map<Ballot, string>();
  readonly #leaders = new Map<Ballot, MemberId>();
  /** Who has promised the ballot in a letter that left. */
  readonly #promisedBy = new Map<Ballot, Set<MemberId>>();
  /** Letters over connections pass this checker by, and with them the promises. */
  #seesWire = false;

  constructor(configuration: Configuration) {
    super(configuration, { sparseSlots: true });
  }

  // ------------------------------------------------------------------------------------------------------- on the wire

  override onWire(from: MemberId, _to: MemberId, message: PaxosMessage): void {
    this.#seesWire = true;
    switch (message.kind) {
      case "prepare":
        if (message.dryRun) return;
        this.#checkOwner(from, message.ballot);
        this.#checkSent(from, message.kind, message.ballot);
        break;
      case "promise":
        if (!message.dryRun) {
          this.#checkSent(from, message.kind, message.ballot);
          const known = this.#promisedBy.get(message.ballot);
          if (known === undefined) this.#promisedBy.set(message.ballot, new Set([from]));
          else known.add(from);
        }
        this.#checkClaim(from, message.kind, message.chosen);
        break;
      case "accept":
        this.#checkSent(from, message.kind, message.ballot);
        this.#checkClaim(from, message.kind, message.chosen);
        for (const entry of message.entries) this.#checkProposal(from, entry);
        break;
      case "accepted":
        this.#checkSent(from, message.kind, message.ballot);
        this.#checkAccepted(from, message);
        break;
      case "heartbeat":
      case "heartbeat-reply":
        this.#checkSent(from, message.kind, message.ballot);
        this.#checkClaim(from, message.kind, message.chosen);
        if (message.kind === "heartbeat-reply") this.#checkUpTo(from, message.ballot, message.upTo);
        break;
      case "learn":
        this.#checkClaim(from, message.kind, message.chosen);
        for (const entry of message.entries) this.#checkLearned(from, entry);
        break;
      default:
        break;
    }
  }

  /** C1, across restarts: a ballot is asked for by one member in one of its lives. */
  #checkOwner(member: MemberId, ballot: Ballot): void {
    const owner = `${member}, life ${this.#of(member).incarnation}`;
    const known = this.#owners.get(ballot) ?? owner;
    must(known === owner, "BallotUnique", () => `ballot ${ballot} is asked for by ${owner} and by ${known}`);
    this.#owners.set(ballot, owner);
  }

  /** A1 where it counts: nothing of a lower ballot leaves a member that has spoken in a higher one. */
  #checkSent(member: MemberId, kind: string, ballot: Ballot): void {
    const ghost = this.#of(member);
    must(ballot >= ghost.sent, "PromiseKept", () => `${member} sends ${kind} in ballot ${ballot} after ${ghost.sent}`);
    ghost.sent = ballot;
  }

  /** "Chosen up to here" is said of nothing that nobody has delivered. */
  #checkClaim(member: MemberId, kind: string, chosen: Index): void {
    must(chosen <= this.committed, "ChosenIndexTrue", () => `${member} says in a ${kind} that ${chosen} is chosen`);
  }

  /** A4: one value per slot and ballot. A5: once a value is chosen, every later ballot proposes it. */
  #checkProposal(member: MemberId, entry: LogEntry): void {
    this.#checkOneValue(member, entry);
    const chosen = this.#chosenValues.get(entry.index);
    must(
      chosen === undefined || ballotOf(entry) < chosen.ballot || chosen.value === valueHash(entry),
      "ProposesChosen",
      () => `${member} proposes another value for ${entry.index} in ballot ${entry.ballot} than was chosen in ${chosen?.ballot}`,
    );
  }

  /** The agreed time of a leader's own values goes on from everything that it proposes before them. */
  #checkStamp(member: MemberId, entry: LogEntry): void {
    const ballot = ballotOf(entry);
    if (this.#stamps.ballot < ballot) this.#stamps = { ballot, highest: new Map() };
    if (this.#stamps.ballot > ballot) return;
    const before = this.#stamps.highest.get(entry.index - 1) ?? 0;
    this.#stamps.highest.set(entry.index, Math.max(before, entry.stampMs));
    must(
      entry.term !== ballot || entry.stampMs >= before,
      "StampGoesOn",
      () => `${member} gives ${entry.index} the stamp ${entry.stampMs}, and proposed ${before} before it`,
    );
  }

  #checkOneValue(member: MemberId, entry: LogEntry): void {
    const value = valueHash(entry);
    const proposed = once(this.#proposed, keyOf(entry.index, ballotOf(entry)), value);
    must(
      proposed === value,
      "OneValuePerSlot",
      () => `${member} has a second value for ${entry.index} in ballot ${entry.ballot}`,
    );
    const born = once(this.#born, keyOf(entry.index, entry.term), value);
    must(born === value, "ValueUnchanged", () => `${member} changed the value of ${entry.index} that was born in ${entry.term}`);
  }

  /** What is confirmed is on disk, in this ballot or as the chosen value. */
  #checkAccepted(member: MemberId, letter: Extract<PaxosMessage, { kind: "accepted" }>): void {
    for (let index = letter.first; index <= letter.last; index++) this.#checkOnDisk(member, letter.ballot, index);
    this.#checkUpTo(member, letter.ballot, letter.upTo);
  }

  #checkUpTo(member: MemberId, ballot: Ballot, upTo: Index): void {
    const ghost = this.#of(member);
    if (ghost.looked.ballot !== ballot) ghost.looked = { ballot, upTo: 0 };
    for (let index = ghost.looked.upTo + 1; index <= upTo; index++) this.#checkOnDisk(member, ballot, index);
    ghost.looked.upTo = Math.max(ghost.looked.upTo, upTo);
  }

  #checkOnDisk(member: MemberId, ballot: Ballot, index: Index): void {
    const base = this.ghosts.get(member)?.disk.base ?? 0;
    if (index <= base) return;
    const held = this.#of(member).disk.get(index);
    const isChosen = held !== undefined && this.#chosenValues.get(index)?.value === held.value;
    must(
      held !== undefined && (held.ballot === ballot || isChosen),
      "AcceptedIsDurable",
      () => `${member} confirms ${index} in ballot ${ballot} with ${held === undefined ? "nothing" : held.ballot} on disk`,
    );
  }

  #checkLearned(member: MemberId, entry: LogEntry): void {
    const chosen = this.#chosenValues.get(entry.index);
    must(
      chosen?.value === valueHash(entry),
      "LearnedIsChosen",
      () => `${member} teaches a value for ${entry.index} that was not chosen`,
    );
  }

  // ------------------------------------------------------------------------------------------------------- in a member

  override onStep(member: MemberId, input: Input<PaxosMessage>, outputs: readonly Output<PaxosMessage>[], probe: Probe): void {
    super.onStep(member, input, outputs, probe);
    for (const output of outputs) {
      if (output.kind === "send" && output.message.kind === "promise" && !output.message.dryRun) {
        this.#checkTellsAll(member, output.message);
      }
    }
  }

  /** A promise names every slot of its range in which anything was accepted, chosen or not. */
  #checkTellsAll(member: MemberId, promise: Extract<PaxosMessage, { kind: "promise" }>): void {
    const { log } = this.ghosts.get(member) as Ghost;
    const told = new Set(promise.entries.map(({ index }) => index));
    const end = promise.next === 0 ? log.last : promise.next - 1;
    for (let index = promise.from; index <= end; index++) {
      must(
        told.has(index) || log.hashAt(index) === undefined,
        "PromiseTellsAll",
        () => `${member} promises ${promise.ballot} and keeps back what it accepted in ${index}`,
      );
    }
    must(
      promise.from > log.base,
      "PromiseTellsAll",
      () => `${member} promises from ${promise.from}, and its log begins behind ${log.base}`,
    );
  }

  protected override afterWipe(member: MemberId): void {
    this.#members.delete(member);
  }

  protected override onRecovered(member: MemberId, ghost: Ghost, recovered: Recovered): void {
    const before = this.#members.get(member);
    const promised = Number(recovered.meta.get("promised") ?? 0);
    ghost.term = promised;
    must(
      promised >= (before?.sent ?? 0),
      "PromiseDurable",
      () => `${member} came back with the promise of ${promised}, after speaking in ballot ${before?.sent}`,
    );
    this.#members.set(member, {
      disk: before?.disk ?? new Map(),
      promised,
      incarnation: (before?.incarnation ?? 0) + 1,
      sent: before?.sent ?? 0,
      looked: { ballot: 0, upTo: 0 },
    });
    const found = new Map(recovered.entries.map((entry) => [entry.index, entry]));
    for (const index of [...(before?.disk.keys() ?? [])]) {
      if (index <= ghost.log.base) before?.disk.delete(index);
      must(
        index <= ghost.log.base || found.has(index),
        "AcceptedIsKept",
        () => `${member} came back without slot ${index}, which was on its disk`,
      );
    }
    for (const entry of recovered.entries) this.onDurable(member, ghost, entry);
  }

  protected override onMeta(member: MemberId, _ghost: Ghost, values: Readonly<Record<string, string>>): void {
    if (values["promised"] !== undefined) this.#of(member).promised = Number(values["promised"]);
  }

  /** A2: accepted only in the ballot that is promised; what is learned from others is the chosen value. */
  protected override onPut(member: MemberId, _ghost: Ghost, entry: LogEntry, probe: Probe): void {
    this.#checkOneValue(member, entry);
    if (probe.role === "leader") this.#checkStamp(member, entry);
    const { promised } = this.#of(member);
    const isChosen = this.#chosenValues.get(entry.index)?.value === valueHash(entry);
    must(
      ballotOf(entry) === promised || isChosen,
      "AcceptsPromised",
      () => `${member} accepts ${entry.index} in ballot ${entry.ballot}, and promised ${promised}`,
    );
  }

  protected override onDurable(member: MemberId, _ghost: Ghost, entry: LogEntry): void {
    const ballot = ballotOf(entry);
    const value = valueHash(entry);
    this.#of(member).disk.set(entry.index, { ballot, value });
    const key = keyOf(entry.index, ballot);
    const { voters } = this.configuration;
    const having = (this.#accepted.get(key) ?? 0) | (1 << voters.indexOf(member));
    this.#accepted.set(key, having);
    if (!this.isQuorumAt(entry.index, (voter) => (having & (1 << voters.indexOf(voter))) !== 0, member)) return;
    const chosen = this.#chosenValues.get(entry.index);
    must(
      chosen === undefined || chosen.value === value,
      "ChosenOnce",
      () => `${entry.index} is chosen in ballot ${chosen?.ballot} and, with another value, in ${ballot}`,
    );
    if (chosen === undefined || ballot < chosen.ballot) this.#chosenValues.set(entry.index, { ballot, value });
  }

  protected override onDelivered(member: MemberId, _ghost: Ghost, entries: readonly LogEntry[]): void {
    for (const { index } of entries) {
      must(
        this.#chosenValues.has(index),
        "DeliveredIsChosen",
        () => `${member} delivers ${index}, which no majority has accepted in one ballot`,
      );
    }
  }

  /** Handed out with a later stamp than the value's own where an older leader's value stands behind a newer one's. */
  protected override isOnDisk(voter: MemberId, index: Index, _hash: number, deliverer: MemberId): boolean {
    const held = this.ghosts.get(deliverer)?.log.hashAt(index);
    return held !== undefined && this.diskOf(voter)?.hashAt(index) === held;
  }

  protected override onLeader(member: MemberId, _ghost: Ghost, term: Term): void {
    const leader = this.#leaders.get(term) ?? member;
    must(leader === member, "LeaderUnique", () => `${member} and ${leader} both lead ballot ${term}`);
    this.#leaders.set(term, member);
    const promised = this.#promisedBy.get(term);
    must(
      !this.#seesWire || this.isQuorumAt(0, (voter) => voter === member || promised?.has(voter) === true, member),
      "LedByPromises",
      () => `${member} leads ballot ${term}, which only [${[...(promised ?? [])]}] besides it have promised`,
    );
  }

  #of(member: MemberId): PaxosGhost {
    return this.#members.get(member) as PaxosGhost;
  }
}

/** Runs are short: a ballot takes 21 bits at most, a slot the 32 above. */
function keyOf(index: Index, ballot: Ballot): number {
  return index * 2 ** 21 + ballot;
}

function ballotOf(entry: LogEntry): Ballot {
  return entry.ballot ?? -1;
}

function valueHash(entry: LogEntry): number {
  return (contentHash(entry) ^ Math.imul(entry.term + 1, 0x9e3779b1)) >>> 0;
}

/** The value that stands under the key; the first one stays. */
function once(map: Map<number, number>, key: number, value: number): number {
  const known = map.get(key);
  if (known !== undefined) return known;
  map.set(key, value);
  return value;
}
