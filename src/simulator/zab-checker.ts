/**
 * Zab's own invariants, on top of those that every protocol owes (`group-checker.ts`).
 *
 * Source: the paper's properties (DSN 2011 §III) and the names of Apache ZooKeeper's TLA+ specification of Zab 1.0, as listed
 * in `research/consensus.md` §4.3; the two orders of writes that real ZooKeeper got wrong (H1, H2 there) are checked where
 * they count: on the disk, when the letter leaves. AckedIsKept: what was confirmed to the leader of an epoch is not cut off
 * in that epoch, because that leader's history only grows. AnswerCuts: only a proposal that answers what a member told of its
 * own history, in this life, cuts that history off; a stray one does not know where the two part.
 */
import type { Configuration, Index, Input, LogEntry, MemberId, Output, Probe, Recovered, Term } from "../consensus/core.ts";
import type { ZabMessage } from "../consensus/zab/messages.ts";
import { type Chosen, type Ghost, GroupChecker } from "./group-checker.ts";
import { must } from "./invariant-violation.ts";

/** What is on one member's disk beside its log, and what it has said. */
interface ZabGhost {
  acceptedEpoch: Term;
  acceptedFrom: MemberId | undefined;
  currentEpoch: Term;
  /** As told to the disk. */
  toldCurrent: Term;
  readonly pending: { readonly sequence: number; readonly values: Readonly<Record<string, string>> }[];
}

export class ZabChecker extends GroupChecker<ZabMessage> {
  readonly #members = new Map<MemberId, ZabGhost>();
  readonly #established = new Map<Term, MemberId>();
  /** (member, epoch) to the leader that it was acknowledged to. */
  readonly #ackedEpoch = new Map<string, MemberId>();
  /** By member: how far it confirmed the history of the last epoch in which it confirmed any. */
  readonly #acked = new Map<MemberId, { readonly epoch: Term; readonly index: Index }>();
  /** By member: the attempt under which it last told its history, in this life. */
  readonly #attempts = new Map<MemberId, number>();
  /** (epoch, index) to the hash of the one history up to there. */
  readonly #histories = new Map<string, number>();

  constructor(configuration: Configuration) {
    super(configuration, { sparseSlots: false });
  }

  // ------------------------------------------------------------------------------------------------------- on the wire

  override onWire(from: MemberId, to: MemberId, message: ZabMessage): void {
    if (!("epoch" in message) || message.kind === "settled") return;
    const own = this.#of(from);
    must(
      message.epoch === own.acceptedEpoch || message.epoch < own.acceptedEpoch,
      "EpochDurable",
      () => `${from} sends ${message.kind} of epoch ${message.epoch}; its disk has accepted ${own.acceptedEpoch}`,
    );
    switch (message.kind) {
      case "ack-epoch": {
        const key = `${from}/${message.epoch}`;
        const before = this.#ackedEpoch.get(key) ?? to;
        must(
          before === to || this.#established.get(message.epoch) === to,
          "AckEpochOnce",
          () => `${from} accepted epoch ${message.epoch} from ${before} and from ${to}`,
        );
        this.#ackedEpoch.set(key, to);
        break;
      }
      case "ack":
        this.#checkHistory(from, to, message.epoch, message.index, "AckIsDurable");
        this.#noteAck(from, message);
        break;
      case "ack-leader":
        must(
          own.currentEpoch === message.epoch,
          "CurrentEpochDurable",
          () => `${from} says that it belongs to epoch ${message.epoch}; its disk says ${own.currentEpoch}`,
        );
        this.#checkHistory(from, to, message.epoch, message.index, "HistoryDurable");
        this.#noteAck(from, message);
        break;
      default:
        break;
    }
  }

  #noteAck(member: MemberId, { epoch, index }: { readonly epoch: Term; readonly index: Index }): void {
    const before = this.#acked.get(member);
    if (before !== undefined && (before.epoch > epoch || (before.epoch === epoch && before.index >= index))) return;
    this.#acked.set(member, { epoch, index });
  }

  /** What is confirmed to the leader of an epoch stands on this disk as it stands in that leader's history. */
  #checkHistory(member: MemberId, leader: MemberId, epoch: Term, index: Index, name: string): void {
    const ghost = this.ghosts.get(member) as Ghost;
    const other = this.ghosts.get(leader);
    if (other === undefined || other.term !== epoch || index === 0) return;
    if (index <= ghost.disk.base || index < other.log.base || index > other.log.last) return;
    must(
      ghost.disk.hashAt(index) === other.log.hashAt(index),
      name,
      () => `${member} confirms ${index} to ${leader} in epoch ${epoch}; its disk ends at ${ghost.disk.last} or differs`,
    );
  }

  // ------------------------------------------------------------------------------------------------------- in a member

  override onStep(member: MemberId, input: Input<ZabMessage>, outputs: readonly Output<ZabMessage>[], probe: Probe): void {
    const own = this.#of(member);
    if (input.kind === "persisted") this.#toDisk(own, input.sequence);
    for (const output of outputs) {
      if (output.kind === "send" && output.message.kind === "ack-epoch") this.#attempts.set(member, output.message.attempt);
      if (output.kind !== "persist") continue;
      for (const operation of output.operations) {
        if (operation.kind === "meta") own.pending.push({ sequence: output.sequence, values: operation.values });
        if (operation.kind === "truncate" && input.kind === "message") this.#checkCut(member, input.message);
      }
    }
    super.onStep(member, input, outputs, probe);
  }

  /** Beside it only a snapshot makes room for itself, when it is in place. */
  #checkCut(member: MemberId, message: ZabMessage): void {
    const attempt = message.kind === "proposal" ? message.attempt : undefined;
    must(
      attempt !== undefined && attempt === this.#attempts.get(member),
      "AnswerCuts",
      () => `${member} cuts its history by a letter of attempt ${attempt}; it told it under ${this.#attempts.get(member)}`,
    );
  }

  #toDisk(own: ZabGhost, sequence: number): void {
    let next = own.pending[0];
    while (next !== undefined && next.sequence <= sequence) {
      take(own, next.values);
      own.pending.shift();
      next = own.pending[0];
    }
  }

  protected override afterWipe(member: MemberId): void {
    this.#members.delete(member);
    this.#acked.delete(member);
    this.#attempts.delete(member);
  }

  protected override onRecovered(member: MemberId, ghost: Ghost, recovered: Recovered): void {
    const before = this.#members.get(member);
    this.#attempts.delete(member);
    const own: ZabGhost = {
      acceptedEpoch: 0,
      acceptedFrom: undefined,
      currentEpoch: 0,
      toldCurrent: 0,
      pending: [],
    };
    take(own, Object.fromEntries(recovered.meta));
    own.toldCurrent = own.currentEpoch;
    ghost.term = own.acceptedEpoch;
    must(
      own.acceptedEpoch >= (before?.acceptedEpoch ?? 0) && own.currentEpoch >= (before?.currentEpoch ?? 0),
      "EpochsKept",
      () => `${member} came back in epoch ${own.currentEpoch} of ${own.acceptedEpoch} accepted; it had been further`,
    );
    this.#members.set(member, own);
  }

  protected override onMeta(member: MemberId, _ghost: Ghost, values: Readonly<Record<string, string>>): void {
    const own = this.#of(member);
    const [accepted, current] = [Number(values["acceptedEpoch"]), Number(values["currentEpoch"])];
    must(current <= accepted, "EpochOrder", () => `${member} enters epoch ${current} and has accepted ${accepted}`);
    must(current >= own.toldCurrent, "EpochOrder", () => `${member} falls from epoch ${own.toldCurrent} to ${current}`);
    own.toldCurrent = current;
  }

  /** LocalPrimaryOrder and PrefixConsistency: a zxid stands for one history, wherever it stands. */
  protected override onPut(member: MemberId, ghost: Ghost, entry: LogEntry): void {
    const hash = ghost.log.hashAt(entry.index) as number;
    const key = `${entry.term}/${entry.index}`;
    const known = this.#histories.get(key) ?? hash;
    must(known === hash, "PrefixConsistency", () => `${member} has another history before zxid (${entry.term}, ${entry.index})`);
    this.#histories.set(key, hash);
    must(
      entry.term <= ghost.term,
      "EntryOfAcceptedEpoch",
      () => `${member} takes an entry of epoch ${entry.term} and has accepted ${ghost.term}`,
    );
  }

  protected override onTruncate(member: MemberId, _ghost: Ghost, from: Index, probe: Probe): void {
    must(probe.role !== "leader", "LeaderAppendOnly", () => `${member} truncates from ${from} while leading epoch ${probe.term}`);
    const acked = this.#acked.get(member);
    must(
      acked === undefined || acked.epoch !== probe.term || from > acked.index,
      "AckedIsKept",
      () => `${member} truncates from ${from} in epoch ${probe.term}, in which it confirmed ${acked?.index}`,
    );
  }

  /** Leadership: one established leader per epoch. PrimaryIntegrity: it has everything that was committed before. */
  protected override onLeader(member: MemberId, ghost: Ghost, epoch: Term): void {
    const other = this.#established.get(epoch) ?? member;
    must(other === member, "Leadership", () => `${member} and ${other} are both established in epoch ${epoch}`);
    this.#established.set(epoch, member);
    let index = this.committed;
    while (index > 0 && (this.chosen[index] as Chosen).byTerm >= epoch) index--;
    if (index <= ghost.log.base) return;
    must(
      ghost.log.hashAt(index) === (this.chosen[index] as Chosen).hash,
      "PrimaryIntegrity",
      () => `${member} leads epoch ${epoch} without ${index}, which was committed before`,
    );
    const belongs = this.configuration.voters.filter((voter) => this.#of(voter).currentEpoch >= epoch);
    must(
      this.isQuorumAt(0, (voter) => belongs.includes(voter), member),
      "EstablishedByQuorum",
      () => `${member} leads epoch ${epoch}, to which only [${belongs}] belong on their disks`,
    );
  }

  protected override afterStep(member: MemberId, ghost: Ghost, input: Input<ZabMessage>, probe: Probe): void {
    if (probe.role !== "leader" || input.kind !== "message" || input.message.kind !== "ack") return;
    const match = probe.matchOf(input.from) ?? 0;
    const other = this.ghosts.get(input.from);
    if (other === undefined || other.term > probe.term || match <= other.disk.base || match < ghost.log.base) return;
    if (this.#of(input.from).currentEpoch !== probe.term) return;
    must(
      other.disk.hashAt(match) === ghost.log.hashAt(match),
      "MatchTruth",
      () => `${member} believes that ${input.from} has its history up to ${match}; the disk differs`,
    );
  }

  #of(member: MemberId): ZabGhost {
    const own = this.#members.get(member);
    if (own !== undefined) return own;
    const fresh: ZabGhost = {
      acceptedEpoch: 0,
      acceptedFrom: undefined,
      currentEpoch: 0,
      toldCurrent: 0,
      pending: [],
    };
    this.#members.set(member, fresh);
    return fresh;
  }
}

function take(own: ZabGhost, values: Readonly<Record<string, string | undefined>>): void {
  own.acceptedEpoch = Number(values["acceptedEpoch"] ?? own.acceptedEpoch);
  own.acceptedFrom = values["acceptedFrom"] || undefined;
  own.currentEpoch = Number(values["currentEpoch"] ?? own.currentEpoch);
}
