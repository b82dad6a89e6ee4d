/**
 * The invariants that every crash-fault protocol owes, checked after each step against ghost state that no core ever sees.
 *
 * Source: the checklist of `research/consensus.md` §4.0. What only one protocol promises stands in a subclass of its own
 * (`raft-checker.ts`), which fills in the places marked below. A log is followed by one number per index (`ghost-log.ts`).
 *
 * Agreement, Contiguity, ChosenOnQuorumDisk, PrefixSurvives, CommittedImmutable, CommitMonotonic, TermMonotonic, ReadFloor, StampMonotonic
 * (the machine's only clock never goes back), StampKeepsPace (under one leader it runs as that leader's clock, and from where the
 * log before it stood), AcceptedIsChosen (a waiter bound to an index and term finds its own entry
 * there), WipedIsUnheard, NoHalt; for logs without gaps also LogContiguous, LogFollowsDisk, IndexOrder and DurableTruth (what a member counts
 * as on its own disk is there as its log has it).
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
import { Coverage } from "./coverage.ts";
import { ChainLog, contentHash, type GhostLog, SlotLog } from "./ghost-log.ts";
import { InvariantViolation, must } from "./invariant-violation.ts";
import { isPrefix } from "./survival.ts";

/** What the checker knows of one member. */
export interface Ghost {
  readonly log: GhostLog;
  /** What a power cut now would leave. */
  readonly disk: GhostLog;
  /** The named cells on its disk. */
  readonly meta: Map<string, string>;
  pending: {
    readonly sequence: number;
    readonly operations: readonly LogOperation[];
    /** A snapshot was installed since it was asked for. */
    readonly overtaken?: true;
  }[];
  term: Term;
  committed: Index;
  delivered: Index;
  /** The highest term that left this member, in any incarnation. */
  sentTerm: Term;
  installing: { readonly index: Index; readonly term: Term } | undefined;
  /** Of the last entry of the log, where it was seen. */
  stampMs: number | undefined;
  /** What it last proposed as a leader, and when by its own clock. */
  paced: { readonly term: Term; readonly stampMs: number; readonly nowMs: number } | undefined;
  /** Checksums of what was submitted and neither accepted nor rejected yet, by ticket. */
  readonly submitted: Map<number, number>;
}

export interface Chosen {
  readonly hash: number;
  readonly term: Term;
  /** The term of the member that first delivered it. */
  readonly byTerm: Term;
  readonly stampMs: number;
}

export interface CheckerCounts {
  leaderChanges: number;
  commits: number;
  truncations: number;
  snapshotsInstalled: number;
  readsServed: number;
}

/** What a world tells of its members. */
export interface Checker<M> {
  readonly counts: CheckerCounts;
  /** Which rare branches this run reached. */
  readonly coverage: Coverage;
  /** The highest index that any member has delivered. */
  readonly committed: Index;
  onStart(member: MemberId, recovered: Recovered): void;
  /** Its disk is lost, and with it every promise that it made: from now on nobody may listen to it. */
  onWiped(member: MemberId): void;
  /** What came out of the start itself. */
  onStarted(member: MemberId, outputs: readonly Output<M>[], probe: Probe): void;
  /** After each step, with what went in and what came out. */
  onStep(member: MemberId, input: Input<M>, outputs: readonly Output<M>[], probe: Probe): void;
  /** At the moment when a message leaves its member. */
  onWire?(from: MemberId, to: MemberId, message: M): void;
  /** Set by the world: who would serve a read without asking anybody, at this moment of true time. */
  leaseHolders?: () => readonly MemberId[];
}

export class GroupChecker<M> implements Checker<M> {
  readonly counts: CheckerCounts = { leaderChanges: 0, commits: 0, truncations: 0, snapshotsInstalled: 0, readsServed: 0 };
  readonly coverage = new Coverage();
  protected readonly ghosts = new Map<MemberId, Ghost>();
  protected readonly chosen: Chosen[] = [{ hash: 0, term: 0, byTerm: 0, stampMs: 0 }];
  protected readonly configuration: Configuration;
  leaseHolders: () => readonly MemberId[] = () => [];
  readonly #sparseSlots: boolean;
  /** Whose disk was lost, and what it held then: it confirmed that much, and nobody who could overrule it is elected without it (stack seed 373). */
  readonly #wiped = new Map<MemberId, GhostLog>();
  readonly #leaders = new Set<string>();
  /** Who was last told that it leads. */
  readonly #believers = new Set<MemberId>();
  readonly #readFloors = new Map<string, Index>();
  /** Accepted and not yet chosen: what has to stand at the index if it is chosen in that term. */
  readonly #promised = new Map<Index, { readonly term: Term; readonly checksum: number; readonly member: MemberId }[]>();

  constructor(configuration: Configuration, options: { readonly sparseSlots: boolean }) {
    this.configuration = configuration;
    this.#sparseSlots = options.sparseSlots;
  }

  get committed(): Index {
    return this.chosen.length - 1;
  }

  onStart(member: MemberId, recovered: Recovered): void {
    const ghost: Ghost = {
      log: this.#makeLog(),
      disk: this.#makeLog(),
      meta: new Map(recovered.meta),
      pending: [],
      term: 0,
      committed: 0,
      delivered: 0,
      sentTerm: this.ghosts.get(member)?.sentTerm ?? 0,
      installing: undefined,
      stampMs: recovered.entries.at(-1)?.stampMs ?? recovered.snapshot?.stampMs,
      paced: undefined,
      submitted: new Map(),
    };
    if (recovered.snapshot !== undefined) {
      const { index, term } = recovered.snapshot;
      const chosen = this.chosen[index];
      must(
        chosen !== undefined,
        "CommittedImmutable",
        () => `${member} recovered a snapshot at ${index}, which was never committed`,
      );
      for (const log of [ghost.log, ghost.disk]) log.install(index, term, (chosen as Chosen).hash);
      ghost.committed = index;
      ghost.delivered = index;
    }
    for (const entry of recovered.entries) {
      ghost.log.put(entry);
      ghost.disk.put(entry);
    }
    this.#checkSurvival(member, ghost, recovered);
    this.onRecovered?.(member, ghost, recovered);
    this.ghosts.set(member, ghost);
  }

  onWiped(member: MemberId): void {
    this.#wiped.set(member, this.diskOf(member) ?? this.#makeLog());
    this.ghosts.delete(member);
    this.#believers.delete(member);
    this.afterWipe?.(member);
  }

  onStarted(member: MemberId, outputs: readonly Output<M>[], probe: Probe): void {
    const ghost = this.ghosts.get(member) as Ghost;
    for (const output of outputs) this.#onOutput(member, ghost, output, probe);
    ghost.committed = probe.committedIndex;
  }

  onStep(member: MemberId, input: Input<M>, outputs: readonly Output<M>[], probe: Probe): void {
    const ghost = this.ghosts.get(member) as Ghost;
    this.#onInput(member, ghost, input, probe);
    // Here and below: no closures where every step comes by.
    const { term, committedIndex } = probe;
    if (term < ghost.term) throw new InvariantViolation("TermMonotonic", `${member} fell from term ${ghost.term} to ${term}`);
    ghost.term = term;
    const before = ghost.stampMs;
    for (const output of outputs) this.#onOutput(member, ghost, output, probe);
    this.#checkPace(member, ghost, { input, outputs, before, term });
    if (committedIndex < ghost.committed)
      throw new InvariantViolation("CommitMonotonic", `${member} fell from ${ghost.committed} to ${committedIndex}`);
    ghost.committed = committedIndex;
    if (!this.#sparseSlots) checkOrder(member, ghost, probe);
    this.afterStep?.(member, ghost, input, probe);
  }

  // ------------------------------------------------------------------------------- places for a protocol's own rules

  onWire?(from: MemberId, to: MemberId, message: M): void;

  /** A member came back with this; `ghost` is what will be known of it, its predecessor still stands in `ghosts`. */
  protected onRecovered?(member: MemberId, ghost: Ghost, recovered: Recovered): void;
  /** What was known of this member's promises is no more. */
  protected afterWipe?(member: MemberId): void;
  /** After the ghost took the entry. */
  protected onPut?(member: MemberId, ghost: Ghost, entry: LogEntry, probe: Probe): void;
  /** Before the ghost drops the entries. */
  protected onTruncate?(member: MemberId, ghost: Ghost, from: Index, probe: Probe): void;
  /** An entry is on the member's disk now. */
  protected onDurable?(member: MemberId, ghost: Ghost, entry: LogEntry): void;
  protected onMeta?(member: MemberId, ghost: Ghost, values: Readonly<Record<string, string>>): void;
  protected onDelivered?(member: MemberId, ghost: Ghost, entries: readonly LogEntry[], probe: Probe): void;
  /** The first time that this member leads in this term. */
  protected onLeader?(member: MemberId, ghost: Ghost, term: Term): void;
  protected afterStep?(member: MemberId, ghost: Ghost, input: Input<M>, probe: Probe): void;
  /** Whether those for whom `counts` is true may decide about the index. */
  protected isQuorumAt(_index: Index, counts: (member: MemberId) => boolean, _decider: MemberId): boolean {
    return hasQuorum(this.configuration, counts);
  }

  /** Whether the voter's disk holds what the deliverer hands out at the index. */
  protected isOnDisk(voter: MemberId, index: Index, hash: number, _deliverer: MemberId): boolean {
    return this.diskOf(voter)?.hashAt(index) === hash;
  }

  /** Of a member whose disk was lost: as it was, because what it writes from then on counts for nobody. */
  protected diskOf(member: MemberId): GhostLog | undefined {
    return this.#wiped.get(member) ?? this.ghosts.get(member)?.disk;
  }

  // ------------------------------------------------------------------------------------------------------- the rules

  #makeLog(): GhostLog {
    return this.#sparseSlots ? new SlotLog() : new ChainLog();
  }

  #checkSurvival(member: MemberId, ghost: Ghost, recovered: Recovered): void {
    const before = this.ghosts.get(member);
    if (before === undefined) return;
    this.#believers.delete(member);
    if (recovered.snapshot !== undefined && recovered.entries.length > 0)
      this.coverage.hit("a restart finds a snapshot and a log behind it");
    if (before.pending.length > 0 && ghost.disk.last > before.disk.last)
      this.coverage.hit("a restart keeps a part of what was under way");
    const snapshotHash = this.#sparseSlots ? undefined : (this.chosen[recovered.snapshot?.index ?? 0]?.hash ?? 0);
    const toDisk = this.#toDisk.bind(this);
    must(isPrefix(before, { recovered, log: ghost.disk, snapshotHash }, toDisk), "PrefixSurvives", () => {
      const had = `${before.disk.last} and ${JSON.stringify(Object.fromEntries(before.meta))}, ${before.pending.length} steps under way`;
      const has = `${ghost.disk.last} and ${JSON.stringify(Object.fromEntries(recovered.meta))}`;
      return `${member} had ${had}, and came back with ${has}, which is no prefix of what it persisted`;
    });
  }

  #onInput(member: MemberId, ghost: Ghost, input: Input<M>, probe: Probe): void {
    switch (input.kind) {
      case "persisted":
        this.#onPersisted(member, ghost, input.sequence);
        break;
      case "read":
        this.#readFloors.set(`${member}/${input.ticket}`, this.committed);
        break;
      case "submit":
        ghost.submitted.set(input.ticket, crc32(input.payload));
        break;
      case "message":
        must(!this.#wiped.has(input.from), "WipedIsUnheard", () => `${member} listens to ${input.from}, whose disk was lost`);
        this.#onLetter(input.message, probe);
        break;
      case "snapshot-installed":
        if (input.ok && ghost.installing !== undefined) this.#onInstalled(member, ghost, probe);
        break;
      default:
        break;
    }
  }

  /** Letters carry their sender's term, or its ballot. */
  #onLetter(message: M, probe: Probe): void {
    const { term } = message as { readonly term?: Term };
    if (term !== undefined && term < probe.term) this.coverage.hit("a letter of an earlier term arrives");
  }

  #onOutput(member: MemberId, ghost: Ghost, output: Output<M>, probe: Probe): void {
    switch (output.kind) {
      case "persist":
        for (const operation of output.operations) this.#onOperation(member, ghost, operation, probe);
        ghost.pending.push(output);
        break;
      case "deliver":
        this.#onDeliver(member, ghost, output.entries, probe);
        break;
      case "role":
        this.#onRole(member, output.role === "leader");
        if (output.role === "leader") this.#onLeader(member, ghost, output.term);
        break;
      case "accepted":
        this.#onAccepted(member, ghost, output);
        break;
      case "rejected":
        if (output.why === "lost-leadership") this.coverage.hit("a write is refused after it was accepted");
        if (this.#readFloors.delete(`${member}/${output.ticket}`)) this.coverage.hit("a read is refused");
        ghost.submitted.delete(output.ticket);
        break;
      case "configuration":
        this.#onConfiguration(output.configuration);
        break;
      case "read-at":
        this.#onReadAt(member, output.ticket, output.index);
        break;
      case "install-snapshot":
        if (output.done) ghost.installing = { index: output.index, term: output.term };
        break;
      case "halt":
        throw new InvariantViolation("NoHalt", `${member}: ${output.why}`);
      default:
        break;
    }
  }

  #onOperation(member: MemberId, ghost: Ghost, operation: LogOperation, probe: Probe): void {
    switch (operation.kind) {
      case "truncate":
        if (operation.from > ghost.log.last) return;
        this.counts.truncations++;
        must(
          operation.from > ghost.committed,
          "CommittedImmutable",
          () => `${member} truncates from ${operation.from}, committed ${ghost.committed}`,
        );
        if (ghost.log.last > operation.from) this.coverage.hit("a truncation drops several entries");
        this.onTruncate?.(member, ghost, operation.from, probe);
        ghost.log.truncate(operation.from);
        ghost.stampMs = undefined;
        break;
      case "put": {
        const { entry } = operation;
        must(
          this.#sparseSlots || entry.index === ghost.log.last + 1,
          "LogContiguous",
          () => `${member} puts ${entry.index} after ${ghost.log.last}`,
        );
        ghost.log.put(entry);
        ghost.stampMs = entry.stampMs;
        this.onPut?.(member, ghost, entry, probe);
        break;
      }
      case "meta":
        this.onMeta?.(member, ghost, operation.values);
        break;
    }
  }

  /** A submit that was accepted, and in a log without gaps the entry with which a leader begins. */
  #checkPace(
    member: MemberId,
    ghost: Ghost,
    step: {
      readonly input: Input<M>;
      readonly outputs: readonly Output<M>[];
      readonly before: number | undefined;
      readonly term: Term;
    },
  ): void {
    const { input, outputs, before, term } = step;
    const isSubmit = input.kind === "submit";
    if (!isSubmit && (this.#sparseSlots || !outputs.some((output) => output.kind === "role" && output.role === "leader"))) return;
    const entry = lastPutOf(outputs);
    if (entry === undefined || entry.term !== term) return;
    const { stampMs } = entry;
    // A leader that begins by what its disk says learns no time with that.
    const nowMs = "nowMs" in input ? input.nowMs : undefined;
    const { paced } = ghost;
    const isPaced = paced?.term === term && nowMs !== undefined;
    const expected = isPaced ? paced.stampMs + nowMs - paced.nowMs : isSubmit ? undefined : before;
    if (expected !== undefined && Math.abs(stampMs - expected) > 0.001) {
      const text = `${member} gives ${entry.index} the stamp ${stampMs}, where the log before it and its clock make ${expected}`;
      throw new InvariantViolation("StampKeepsPace", text);
    }
    ghost.paced = nowMs === undefined ? undefined : { term, stampMs, nowMs };
  }

  #onPersisted(member: MemberId, ghost: Ghost, sequence: number): void {
    let done = 0;
    for (; done < ghost.pending.length; done++) {
      const pending = ghost.pending[done] as Ghost["pending"][number];
      if (pending.sequence > sequence) break;
      for (const operation of pending.operations) {
        this.#toDisk(ghost.disk, operation, pending);
        if (operation.kind === "meta") for (const [name, value] of Object.entries(operation.values)) ghost.meta.set(name, value);
        if (operation.kind === "put") this.onDurable?.(member, ghost, operation.entry);
      }
    }
    ghost.pending.splice(0, done);
  }

  #toDisk(disk: GhostLog, operation: LogOperation, { overtaken = false }: { readonly overtaken?: boolean }): void {
    if (operation.kind === "truncate") disk.truncate(Math.max(operation.from, disk.base + 1));
    if (operation.kind !== "put") return;
    const { index } = operation.entry;
    // What an installed snapshot overtook may reach the disk late. Recovery ignores what it covers, and what hangs on an entry
    // that contradicts it (seed 1991), and so do we.
    if (disk.isOverruled(operation.entry, { overtaken })) return;
    if (this.#sparseSlots || (index > disk.base && index <= disk.last + 1)) disk.put(operation.entry);
  }

  #onDeliver(member: MemberId, ghost: Ghost, entries: readonly LogEntry[], probe: Probe): void {
    for (const entry of entries) {
      must(entry.index === ghost.delivered + 1, "Contiguity", () => `${member} delivers ${entry.index} after ${ghost.delivered}`);
      ghost.delivered = entry.index;
      const hash = this.#identityOf(ghost, entry);
      const chosen = this.chosen[entry.index];
      if (chosen === undefined) this.#choose(member, entry, hash, probe);
      else
        must(
          chosen.hash === hash,
          "StateMachineSafety",
          () => `${member} delivers another entry at ${entry.index} (term ${entry.term}, chosen ${chosen.term})`,
        );
    }
    if (entries.length >= 10) this.coverage.hit("a member delivers ten entries at once");
    if (probe.role === "leader" && (entries[0] as LogEntry).term < (entries.at(-1) as LogEntry).term)
      this.coverage.hit("a leader commits entries of an earlier term with one of its own");
    this.onDelivered?.(member, ghost, entries, probe);
  }

  #onRole(member: MemberId, leads: boolean): void {
    if (leads) this.#believers.add(member);
    else this.#believers.delete(member);
    if (leads && this.#believers.size > 1) this.coverage.hit("two members believe that they lead");
  }

  #onConfiguration({ voters, outgoing, learners }: Configuration): void {
    if (outgoing !== undefined) this.coverage.hit("a joint configuration is entered");
    if (learners.length > 0) this.coverage.hit("a learner is in force");
    if (this.configuration.voters.some((voter) => !voters.includes(voter))) this.coverage.hit("a voter is removed");
  }

  /** Of a gapless log the whole prefix is compared; of slots, what is handed out, which need not be what this disk holds. */
  #identityOf(ghost: Ghost, entry: LogEntry): number {
    return this.#sparseSlots ? contentHash(entry) : (ghost.log.hashAt(entry.index) as number);
  }

  #choose(member: MemberId, entry: LogEntry, hash: number, probe: Probe): void {
    this.counts.commits++;
    const { index, term, stampMs } = entry;
    const before = this.chosen[index - 1] as Chosen;
    must(
      stampMs >= before.stampMs,
      "StampMonotonic",
      () => `the agreed time falls from ${before.stampMs} to ${stampMs} at ${index}`,
    );
    this.chosen[index] = { hash, term, byTerm: probe.term, stampMs };
    const onDisk = (voter: MemberId): boolean => this.isOnDisk(voter, index, hash, member);
    must(this.isQuorumAt(index, onDisk, member), "ChosenOnQuorumDisk", () => {
      const having = this.configuration.voters.filter(onDisk);
      return `${member} delivers ${index} of term ${term}, which is on the disks of [${having}] only`;
    });
    for (const promise of this.#promised.get(index) ?? []) {
      must(
        promise.term !== term || promise.checksum === crc32(entry.payload),
        "AcceptedIsChosen",
        () => `${promise.member} promised another entry at ${index} of term ${term} than the one that was chosen`,
      );
    }
    this.#promised.delete(index);
  }

  #onLeader(member: MemberId, ghost: Ghost, term: Term): void {
    const key = `${term}/${member}`;
    if (this.#leaders.has(key)) return;
    this.#leaders.add(key);
    this.counts.leaderChanges++;
    this.onLeader?.(member, ghost, term);
  }

  #onAccepted(member: MemberId, ghost: Ghost, output: Extract<Output<M>, { kind: "accepted" }>): void {
    const { ticket, index, term } = output;
    const checksum = ghost.submitted.get(ticket);
    ghost.submitted.delete(ticket);
    // Chosen in the same step, or not of this incarnation: nothing is left to wait for.
    if (checksum === undefined || index <= this.committed) return;
    const promises = this.#promised.get(index);
    if (promises === undefined) this.#promised.set(index, [{ term, checksum, member }]);
    else promises.push({ term, checksum, member });
  }

  #onReadAt(member: MemberId, ticket: number, index: Index): void {
    const floor = this.#readFloors.get(`${member}/${ticket}`) ?? 0;
    this.#readFloors.delete(`${member}/${ticket}`);
    this.counts.readsServed++;
    must(index >= floor, "ReadFloor", () => `${member} serves a read at ${index}; ${floor} was committed when it came`);
  }

  #onInstalled(member: MemberId, ghost: Ghost, probe: Probe): void {
    const { index, term } = ghost.installing as { index: Index; term: Term };
    ghost.installing = undefined;
    ghost.stampMs = undefined;
    const chosen = this.chosen[index];
    must(
      chosen !== undefined && (this.#sparseSlots || chosen.term === term),
      "StateMachineSafety",
      () => `${member} installs a snapshot at ${index} of term ${term} that was not chosen`,
    );
    this.counts.snapshotsInstalled++;
    this.coverage.hit("a snapshot is installed");
    if (ghost.log.last > index) this.coverage.hit("a snapshot is installed over a log that reached beyond it");
    // The disk forgets in the same step: the snapshot's rename is what makes both durable.
    for (const log of [ghost.log, ghost.disk]) log.install(index, term, (chosen as Chosen).hash);
    ghost.pending = ghost.pending.map((pending) => ({ ...pending, overtaken: true }));
    ghost.delivered = index;
    must(
      probe.committedIndex >= index,
      "CommitMonotonic",
      () => `${member} stays at ${probe.committedIndex} after the snapshot at ${index}`,
    );
  }
}

function checkOrder(member: MemberId, ghost: Ghost, probe: Probe): void {
  const { lastIndex, durableIndex = 0 } = probe;
  const { log, disk } = ghost;
  if (ghost.committed > lastIndex)
    throw new InvariantViolation("IndexOrder", `${member} committed ${ghost.committed} beyond its last ${lastIndex}`);
  if (lastIndex !== log.last)
    throw new InvariantViolation("LogFollowsDisk", `${member} holds up to ${lastIndex} and told the disk ${log.last}`);
  if (durableIndex > disk.base && disk.hashAt(durableIndex) !== log.hashAt(durableIndex)) {
    const what = `${member} counts its disk up to ${durableIndex}, which ends at ${disk.last} or differs`;
    throw new InvariantViolation("DurableTruth", what);
  }
}

function lastPutOf<M>(outputs: readonly Output<M>[]): LogEntry | undefined {
  let found: LogEntry | undefined;
  for (const output of outputs) {
    if (output.kind !== "persist") continue;
    for (const operation of output.operations) if (operation.kind === "put") found = operation.entry;
  }
  return found;
}
