/**
 * The loop that drives a consensus core: one queue of inputs, one `step` at a time, and every output carried out here.
 *
 * ```
 *   doors ── propose, read ──┐                        ┌─► log        (persist: group commit)
 *   peers ── letters ────────┼─► inputs ─► core.step ─┼─► outbox     (send: once durable) ─► peers
 *   log ──── durable ────────┤                        ├─► machine    (deliver) ─► answers ─► doors
 *   timer ───────────────────┘                        └─► timer, snapshots, session keeper
 * ```
 * The host (`engines/embedded`) and the simulator run this very file. All asynchrony - disk, network, time - comes back as
 * an input, so the order of inputs is the whole story of a member.
 *
 * Duties to the core (research/consensus.md §6.1): persists go to the log in order; a send waits for the persist that it
 * names; delivered entries are applied in order, once; the first failed write stops the member; waiters are bound to
 * (index, term) and become *unknown* when leadership is lost.
 */
import { assert, unreachable } from "../base/assert.ts";
import { background } from "../base/background.ts";
import { ByteWriter } from "../base/byte-codec.ts";
import type { ErrorCode } from "../base/error-table.ts";
import { ConclaveError, conclaveError } from "../base/errors.ts";
import type { ConclaveEvent } from "../base/event.ts";
import type { Platform, Telemetry, Timer } from "../base/ports.ts";
import type { ProtocolName } from "../base/protocol-name.ts";
import { decodeConfiguration, membersOf } from "../consensus/configuration.ts";
import type {
  Configuration,
  Core,
  Index,
  Input,
  LogEntry,
  MemberId,
  Output,
  ReadLevel,
  Recovered,
  RejectReason,
  Term,
} from "../consensus/core.ts";
import type { Log } from "../log/log.ts";
import type { SnapshotInfo } from "../log/snapshot-file.ts";
import { BatchWriter } from "../store/batch-writer.ts";
import { encodeCommand } from "../store/command.ts";
import { Machine, type MachineOptions } from "../store/machine.ts";
import type { Outcome } from "../store/outcome.ts";
import { type AdminRequest, encodePiece, type SavedSnapshot } from "../wire/admin.ts";
import type { LeaderNews } from "../wire/hello.ts";
import { encodeStatus, type MemberStatus } from "../wire/member-status.ts";
import { type AdminAnswer, refusalOf } from "./administration.ts";
import { Outbox } from "./outbox.ts";
import type { Protocol } from "./protocol.ts";
import type { AnswerSink, Refusal, ReplicaService } from "./service.ts";
import { SessionKeeper } from "./session-keeper.ts";
import { Waiters, WaitingBatch } from "./waiters.ts";

export interface ReplicaLimits {
  /** Commands of one log entry, in bytes. A longer command goes alone. Default 1 MiB. */
  readonly batchBytesMax: number;
  /** Commands waiting for their outcome; beyond it BUSY. Default 65_536. */
  readonly waitingMax: number;
  /** Log bytes since the last snapshot after which a new one is built; at least a quarter of the last one's size. Default 16 MiB. */
  readonly snapshotEveryBytes: number;
}

export const replicaDefaults: ReplicaLimits = {
  batchBytesMax: 1_048_576,
  waitingMax: 65_536,
  snapshotEveryBytes: 16_777_216,
};

/** Bytes of a backup in one answer. */
const snapshotPieceBytes = 262_144;

type MemberRequest = Exclude<AdminRequest, { kind: "save-snapshot" | "read-snapshot" }>;

export interface ReplicaParts {
  readonly platform: Platform;
  /** How the members agree. The replica makes its core from it. */
  readonly protocol: Protocol;
  readonly log: Log;
  readonly recovered: Recovered;
  readonly machine: Machine;
  readonly member: MemberId;
  readonly cluster: string;
  readonly groupId: number;
  readonly configuration: Configuration;
  /** What this start was told of addresses; it goes before what the configuration says. */
  readonly addresses: ReadonlyMap<MemberId, string>;
  /** The members that the configuration in force names, whenever they change. */
  /** A configuration without an old half was committed: its members, in the order of commits. */
  readonly onSettledMembers?: (members: readonly MemberId[]) => void;
  readonly onMembers?: (addresses: ReadonlyMap<MemberId, string>) => void;
  /** Takes an encoded letter to a peer, or drops it. */
  readonly post: (to: MemberId, frame: Uint8Array, lane: "control" | "log" | "bulk") => void;
  /** For the machine of a snapshot from the leader. */
  readonly machineOptions: MachineOptions;
  readonly limits?: Partial<ReplicaLimits>;
  readonly telemetry?: Telemetry<ConclaveEvent>;
  /** The member can go on no more; the host closes its doors and says why. */
  readonly onHalt?: (why: string, error?: unknown) => void;
}

export class Replica implements ReplicaService {
  readonly member: MemberId;
  readonly cluster: string;
  readonly groupId: number;
  readonly #parts: ReplicaParts;
  #configuration: Configuration;
  #addresses: ReadonlyMap<MemberId, string>;
  /** Whether the group has committed a configuration that names this member. */
  #wasMember = false;
  readonly #platform: Platform;
  readonly #protocol: Protocol;
  readonly #core: Core<unknown>;
  readonly #log: Log;
  readonly #limits: ReplicaLimits;
  readonly #outbox: Outbox;
  readonly #keeper: SessionKeeper;
  readonly #writer = new ByteWriter({ initialBytes: 65_536 });
  readonly #leaderListeners = new Set<() => void>();
  readonly #machineListeners = new Set<(machine: Machine) => void>();
  #machine: Machine;

  #inputs: Input<unknown>[] = [];
  #stepping = false;
  #timer: Timer | undefined;
  #timerAtMs = Number.NaN;
  #halted: string | undefined;
  #haltCode: ErrorCode | undefined;
  #closed = false;
  #syncs = 0;
  #letters = 0;
  #role: { role: string; term: Term; leader: MemberId | undefined } = { role: "follower", term: 0, leader: undefined };
  /** Whether an entry of the present own term has been applied: only then is the machine known to be up to date. */
  #ledApplied = false;
  #termApplied: Term = 0;
  #stampApplied = 0;

  // Proposals of this turn, and those under way.
  readonly #commands = new BatchWriter();
  #batch = new WaitingBatch();
  readonly #waiters = new Waiters();
  #flushPlanned = false;
  #ticket = 0;

  // Reads of this turn, by level, and those under way.
  #reads = new WaitingBatch();
  #leaseReads = new WaitingBatch();
  readonly #readsByTicket = new Map<number, WaitingBatch>();
  /** Operators' requests under way, by ticket. */
  readonly #adminByTicket = new Map<number, { readonly request: AdminRequest; readonly answer: AdminAnswer }>();
  #snapshotting = false;
  #installing: Promise<void> = Promise.resolve();

  constructor(parts: ReplicaParts) {
    this.#parts = parts;
    this.member = parts.member;
    this.cluster = parts.cluster;
    this.groupId = parts.groupId;
    this.#configuration = parts.configuration;
    this.#addresses = parts.addresses;
    this.#platform = parts.platform;
    this.#protocol = parts.protocol;
    this.#core = parts.protocol.makeCore();
    this.#log = parts.log;
    this.#machine = parts.machine;
    this.#limits = { ...replicaDefaults, ...parts.limits };
    this.#outbox = new Outbox((letter) => {
      this.#letters++;
      parts.post(letter.to, letter.frame, letter.lane);
    });
    this.#keeper = new SessionKeeper(parts.platform, (sessions) => this.#expire(sessions));
  }

  /** Begins to take part. Call once, with everything around it ready. */
  start(): void {
    this.#log.listen({
      onDurable: (sequence) => {
        this.#syncs++;
        this.#feed({ kind: "persisted", nowMs: this.#platform.now(), sequence });
        this.#outbox.onDurable(sequence);
      },
      onFailed: (error) => this.#halt(`The log can no longer be written: ${error.message}`, error),
    });
    this.#termApplied = this.#parts.recovered.snapshot?.term ?? 0;
    const environment = {
      self: this.member,
      configuration: this.#parts.configuration,
      nowMs: this.#platform.now(),
      randomUint32: () => this.#platform.randomUint32(),
    };
    this.#guarded(() => this.#route(this.#core.start(environment, this.#parts.recovered)));
  }

  /** Stops taking part. What is on its way to the disk still gets there; call `log.close()` after it. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#timer?.cancel();
    this.#keeper.end();
    this.#refuseEverything({
      code: "CLOSED",
      message: `Member "${this.member}" is closing.`,
      definite: false,
      leader: undefined,
    });
  }

  get protocol(): ProtocolName {
    return this.#protocol.name;
  }

  /** Everybody whom the configuration in force names, with the address where it is reached, as far as that is known. */
  get addresses(): ReadonlyMap<MemberId, string> {
    return this.#addresses;
  }

  /** Whether the group knows its members here. A member that is to join learns them from the leader. */
  get knowsMembers(): boolean {
    return this.#configuration.voters.length > 0;
  }

  get machine(): Machine {
    return this.#machine;
  }

  /** Told when a snapshot from the leader put another machine in the place of the old one. */
  onMachine(listener: (machine: Machine) => void): () => void {
    this.#machineListeners.add(listener);
    return () => this.#machineListeners.delete(listener);
  }

  leader(): LeaderNews {
    const { leader, term } = this.#role;
    if (this.#halted === undefined) return { leader, term };
    // Whoever hears of this looks for a leader: that there is none here for good is all that another code would say.
    const { code, message } = this.#stopped(true);
    return { leader, term, stopped: { code: code === "NOT_LEADER" ? "NO_QUORUM" : code, message } };
  }

  onLeaderChange(listener: () => void): () => void {
    this.#leaderListeners.add(listener);
    return () => this.#leaderListeners.delete(listener);
  }

  status(): MemberStatus {
    const probe = this.#core.probe();
    const nowMs = this.#platform.now();
    return {
      member: this.member,
      cluster: this.cluster,
      protocol: this.protocol,
      role: this.#halted === undefined ? probe.role : "halted",
      term: probe.term,
      leader: probe.leader,
      committedIndex: probe.committedIndex,
      appliedIndex: this.#machine.appliedIndex,
      lastIndex: probe.lastIndex,
      revision: this.#machine.revision,
      sessions: this.#machine.sessionCount,
      syncs: this.#syncs,
      letters: this.#letters,
      elapsedMs: this.#machine.elapsedMs,
      voters: this.#configuration.voters,
      ...(this.#configuration.outgoing === undefined ? {} : { outgoing: this.#configuration.outgoing }),
      learners: this.#configuration.learners,
      peers: [...this.addresses].map(([member, address]) => {
        const heardMs = probe.lastHeardMsOf(member);
        const lastHeardMsAgo = heardMs === undefined ? -1 : Math.round(nowMs - heardMs);
        return { member, address, matchIndex: probe.matchOf(member) ?? -1, lastHeardMsAgo };
      }),
      halted: this.#halted,
    };
  }

  // ------------------------------------------------------------------------------------------------ from the doors

  propose(command: Uint8Array, sink: AnswerSink, tag: number): void {
    const refusal = this.#refusal();
    if (refusal !== undefined) {
      sink.onRefused(tag, refusal);
      return;
    }
    if (this.#waiters.count + this.#batch.count >= this.#limits.waitingMax) {
      const message = `Member "${this.member}" has ${this.#limits.waitingMax} commands waiting.`;
      sink.onRefused(tag, { code: "BUSY", message, definite: true, leader: undefined });
      return;
    }
    this.#add(command, sink, tag);
  }

  read(sink: AnswerSink, tag: number, level: ReadLevel = "linearizable"): void {
    const refusal = this.#refusal();
    if (refusal !== undefined) {
      sink.onRefused(tag, refusal);
      return;
    }
    if (level === "lease") {
      // Most of the time the answer is there: a round to share with others of this turn would only cost the turn.
      this.#leaseReads.add(sink, tag);
      this.#submitReads("lease");
      return;
    }
    this.#reads.add(sink, tag);
    this.#planFlush();
  }

  holdsLease(): boolean {
    if (this.#refusal() !== undefined) return false;
    const index = this.#core.leaseReadIndex?.(this.#platform.now());
    return index !== undefined && this.#machine.appliedIndex >= index;
  }

  keepAlive(session: number, sink: AnswerSink, tag: number): void {
    // The proof of leadership first, and then the judgement: between the two an expiry may have come.
    this.read(
      {
        onReady: () => this.#confirm(session, sink, tag),
        onRefused: (_, refusal) => sink.onRefused(tag, refusal),
        onOutcome: () => assert(false, "a read has no outcome"),
      },
      tag,
    );
  }

  drop(sink: AnswerSink): void {
    this.#waiters.drop(sink);
    this.#batch.drop(sink);
    this.#reads.drop(sink);
    this.#leaseReads.drop(sink);
    for (const reads of this.#readsByTicket.values()) reads.drop(sink);
  }

  administer(request: AdminRequest, answer: AdminAnswer): void {
    const refusal = this.#refusal();
    if (refusal !== undefined) {
      answer({ refusal });
      return;
    }
    switch (request.kind) {
      case "save-snapshot":
        background(this.#saveForOperator(answer), "snapshot");
        return;
      case "read-snapshot":
        background(this.#readForOperator(request, answer), "snapshot");
        return;
      default:
        this.#administerMembers(request, answer);
    }
  }

  #administerMembers(request: MemberRequest, answer: AdminAnswer): void {
    if (this.#protocol.abilities.membership === "fixed") {
      const message = `The members of a group that agrees by ${this.protocol} are fixed; stop them all to change them.`;
      answer({ refusal: { code: "UNSUPPORTED", message, definite: true, leader: undefined } });
      return;
    }
    const ticket = ++this.#ticket;
    const nowMs = this.#platform.now();
    this.#adminByTicket.set(ticket, { request, answer });
    if (request.kind === "transfer") this.#feed({ kind: "transfer", nowMs, ticket, to: request.to });
    else this.#feed({ kind: "change", nowMs, ticket, change: request });
  }

  #answerAdmin(ticket: number, answer: Parameters<AdminAnswer>[0]): void {
    const admin = this.#adminByTicket.get(ticket);
    this.#adminByTicket.delete(ticket);
    admin?.answer(answer);
  }

  #adminRefusal(request: AdminRequest, why: RejectReason): Refusal {
    switch (why) {
      case "not-leader":
        return this.#notLeader(true);
      case "lost-leadership":
        return this.#notLeader(false);
      case "busy":
      case "fenced":
      case "transferring":
        return {
          code: "BUSY",
          message: `Member "${this.member}" leads since a moment ago, or not for much longer.`,
          definite: true,
          leader: undefined,
        };
      default:
        return refusalOf(why, request, undefined);
    }
  }

  async #saveForOperator(answer: AdminAnswer): Promise<void> {
    if (this.#snapshotting) {
      const message = "A snapshot is being written already.";
      answer({ refusal: { code: "BUSY", message, definite: true, leader: undefined } });
      return;
    }
    this.#snapshotting = true;
    try {
      const { revision } = this.#machine;
      const saved = await this.#buildSnapshot();
      const text: SavedSnapshot | undefined = saved && { index: saved.index, lengthBytes: saved.lengthBytes, revision };
      if (text === undefined) answer({ refusal: this.#stopped(true) });
      else answer({ text: JSON.stringify(text) });
    } finally {
      this.#snapshotting = false;
    }
  }

  async #readForOperator(ask: Extract<AdminRequest, { kind: "read-snapshot" }>, answer: AdminAnswer): Promise<void> {
    try {
      const part = await this.#log.readSnapshot(ask.offset, snapshotPieceBytes);
      if (part === undefined || part.index !== ask.index) {
        const message = `The snapshot at ${ask.index} was replaced by a newer one; begin again.`;
        answer({ refusal: { code: "BUSY", message, definite: true, leader: undefined } });
        return;
      }
      answer({ text: encodePiece(part) });
    } catch (error) {
      answer({
        refusal: { code: "DISK_FAILED", message: `The snapshot could not be read: ${error}`, definite: true, leader: undefined },
      });
    }
  }

  #confirm(session: number, sink: AnswerSink, tag: number): void {
    if (!this.#machine.hasSession(session)) {
      const message = `Session ${session} has ended.`;
      sink.onRefused(tag, { code: "SESSION_EXPIRED", message, definite: true, leader: undefined });
    } else if (this.#keeper.renew(session)) {
      sink.onReady(tag);
    } else {
      const message = `Session ${session} cannot be confirmed: its expiry is under way, or the leader is new.`;
      sink.onRefused(tag, { code: "BUSY", message, definite: true, leader: undefined });
    }
  }

  #refusal(): Refusal | undefined {
    if (this.#closed)
      return { code: "CLOSED", message: `Member "${this.member}" is closing.`, definite: true, leader: undefined };
    if (this.#halted !== undefined) return this.#stopped(true);
    if (this.#role.role === "leader") return undefined;
    return this.#notLeader(true);
  }

  /** After a failed disk or a broken invariant: another member may serve, this one does not. */
  #stopped(definite: boolean): Refusal {
    const code = this.#haltCode === "DISK_FULL" || this.#haltCode === "DISK_FAILED" ? this.#haltCode : "NOT_LEADER";
    return { code, message: `Member "${this.member}" has stopped: ${this.#halted}`, definite, leader: undefined };
  }

  #notLeader(definite: boolean): Refusal {
    const { leader } = this.#role;
    const hint = leader === undefined ? "and knows of no leader now" : `"${leader}" leads`;
    return { code: "NOT_LEADER", message: `Member "${this.member}" does not lead; ${hint}.`, definite, leader };
  }

  // ------------------------------------------------------------------------------------------------ batches of a turn

  #add(command: Uint8Array, sink: AnswerSink | undefined, tag: number): void {
    if (this.#commands.count > 0 && this.#commands.bytes + command.length > this.#limits.batchBytesMax) this.#submit();
    this.#commands.add(command);
    this.#batch.add(sink, tag);
    this.#planFlush();
  }

  #planFlush(): void {
    if (this.#flushPlanned) return;
    this.#flushPlanned = true;
    this.#platform.defer(() => {
      this.#flushPlanned = false;
      if (this.#closed || this.#halted !== undefined) return;
      if (this.#commands.count > 0) this.#submit();
      if (this.#reads.count > 0) this.#submitReads("linearizable");
    });
  }

  #submit(): void {
    const batch = this.#batch;
    this.#batch = new WaitingBatch();
    const ticket = ++this.#ticket;
    this.#waiters.submitted(ticket, batch);
    this.#feed({ kind: "submit", nowMs: this.#platform.now(), ticket, payload: this.#commands.finish() });
  }

  #submitReads(level: ReadLevel): void {
    const reads = level === "lease" ? this.#leaseReads : this.#reads;
    if (level === "lease") this.#leaseReads = new WaitingBatch();
    else this.#reads = new WaitingBatch();
    const ticket = ++this.#ticket;
    this.#readsByTicket.set(ticket, reads);
    this.#feed({ kind: "read", nowMs: this.#platform.now(), ticket, level });
  }

  #expire(sessions: readonly number[]): void {
    const ended = sessions.filter((session) => !this.#machine.hasSession(session));
    for (const session of ended) this.#keeper.closed(session);
    const silent = sessions.filter((session) => this.#machine.hasSession(session));
    if (silent.length === 0) return;
    const sink: AnswerSink = {
      onOutcome: () => {
        for (const session of silent) {
          this.#keeper.closed(session);
          this.#emit({ kind: "session.expired", member: this.member, session: String(session) });
        }
      },
      onRefused: () => this.#keeper.expiryFailed(silent),
      onReady: () => assert(false, "a command has no ready"),
    };
    this.#add(encodeCommand({ kind: "expire-sessions", sessions: silent }), sink, 0);
  }

  // ------------------------------------------------------------------------------------------------ from the peers

  /** A letter came. @throws PROTOCOL when it is none: the connection is closed, the member goes on. */
  receive(from: MemberId, frame: Uint8Array): void {
    const message = this.#protocol.decode(frame);
    this.#feed({ kind: "message", nowMs: this.#platform.now(), from, message });
  }

  linkChanged(peer: MemberId, up: boolean): void {
    this.#feed({ kind: "link", nowMs: this.#platform.now(), peer, up });
  }

  // ------------------------------------------------------------------------------------------------ the loop

  #feed(input: Input<unknown>): void {
    if (this.#closed || this.#halted !== undefined) return;
    this.#inputs.push(input);
    if (this.#stepping) return;
    this.#stepping = true;
    this.#guarded(() => {
      for (let at = 0; at < this.#inputs.length && this.#halted === undefined; at++) {
        this.#route(this.#core.step(this.#inputs[at] as Input<unknown>));
      }
    });
    this.#inputs = [];
    this.#stepping = false;
  }

  /** A broken invariant stops this member: a stopped replica is a fault that the protocol survives. */
  #guarded(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#halt(error instanceof Error ? error.message : String(error), error);
    }
  }

  #route(outputs: readonly Output<unknown>[]): void {
    for (const output of outputs) {
      switch (output.kind) {
        case "persist":
          this.#log.persist(output.sequence, output.operations);
          break;
        case "send":
          this.#writer.reset();
          this.#protocol.encode(this.#writer, output.message);
          this.#outbox.put({ to: output.to, after: output.after, lane: output.lane, frame: this.#writer.finish() });
          break;
        case "deliver":
          for (const entry of output.entries) {
            this.#apply(entry);
            this.#tellSettled(entry);
          }
          this.#inputs.push({ kind: "applied", index: (output.entries.at(-1) as LogEntry).index });
          this.#maybeSnapshot();
          break;
        case "accepted":
          this.#waiters.accepted(output.ticket, output);
          break;
        case "rejected":
          this.#onRejected(output.ticket, output.why);
          break;
        case "read-at":
          this.#onReadAt(output.ticket, output.index);
          break;
        case "timer":
          this.#setTimer(output.atMs);
          break;
        case "role":
          this.#onRole(output);
          break;
        case "configuration":
          this.#onConfiguration(output);
          break;
        case "done":
          this.#answerAdmin(output.ticket, { text: encodeStatus(this.status()) });
          break;
        case "read-snapshot":
          background(
            this.#readSnapshot(output).catch((error: unknown) => this.#halt("The snapshot could not be read.", error)),
            "read-snapshot",
          );
          break;
        case "install-snapshot":
          this.#receiveSnapshot(output);
          break;
        case "halt":
          this.#halt(output.why);
          break;
        default:
          unreachable(output);
      }
    }
  }

  #setTimer(atMs: number): void {
    if (atMs === this.#timerAtMs && this.#timer !== undefined) return;
    this.#timer?.cancel();
    this.#timerAtMs = atMs;
    this.#timer = this.#platform.setTimer(Math.max(0, atMs - this.#platform.now()), () => {
      this.#timer = undefined;
      const nowMs = this.#platform.now();
      // A timer of the host may be a fraction early; the core would ignore the tick and nobody would wake it again.
      this.#feed({ kind: "tick", nowMs: Math.max(nowMs, atMs) });
    });
  }

  /**
   * Every configuration that is committed, also one that another had replaced by then: who was removed and added anew
   * between two looks must not be taken for who it was. What a restart delivers again was told before.
   */
  #tellSettled(entry: LogEntry): void {
    const { recovered } = this.#parts;
    const recoveredIndex = recovered.entries.at(-1)?.index ?? recovered.snapshot?.index ?? 0;
    if (entry.kind !== "configuration" || entry.index <= recoveredIndex) return;
    const configuration = decodeConfiguration(entry.payload);
    if (configuration.outgoing === undefined) this.#parts.onSettledMembers?.(membersOf(configuration));
  }

  #onConfiguration({ configuration, committed }: Extract<Output<unknown>, { kind: "configuration" }>): void {
    this.#configuration = configuration;
    const members = membersOf(configuration);
    const known = new Map<MemberId, string>();
    for (const member of members) {
      const address = this.#parts.addresses.get(member) ?? configuration.addresses?.[member];
      if (address !== undefined) known.set(member, address);
    }
    this.#addresses = members.length === 0 ? this.#parts.addresses : known;
    this.#parts.onMembers?.(this.#addresses);
    if (!committed || configuration.outgoing !== undefined) return;
    if (members.includes(this.member)) this.#wasMember = true;
    else if (this.#wasMember) this.#leave();
  }

  /** The group goes on without this member; whoever committed it has told us, and there is nothing left to do here. */
  #leave(): void {
    const why = `Member "${this.member}" was removed from cluster "${this.cluster}".`;
    // After the outputs of this step: what it still has to say is said.
    this.#platform.defer(() => this.#halt(why, conclaveError("MEMBER_REMOVED", why)));
  }

  #onRole(output: Extract<Output<unknown>, { kind: "role" }>): void {
    const wasLeader = this.#role.role === "leader";
    const changed = this.#role.leader !== output.leader || this.#role.term !== output.term;
    this.#role = { role: output.role, term: output.term, leader: output.leader };
    if (wasLeader && output.role !== "leader") {
      this.#ledApplied = false;
      this.#keeper.end();
      this.#refuseEverything(this.#notLeader(false));
    }
    if (output.role === "leader" && !this.#machine.isInitialised) {
      // A new store: its revisions begin at the wall clock in microseconds, ahead of every client's command.
      const revision = Math.floor(this.#platform.wallMs() * 1_000);
      this.#add(encodeCommand({ kind: "initialise", revision }), undefined, 0);
    }
    this.#emit({ kind: "role.changed", member: this.member, ...this.#role });
    if (changed) for (const listener of this.#leaderListeners) listener();
  }

  #onRejected(ticket: number, why: RejectReason): void {
    const admin = this.#adminByTicket.get(ticket);
    if (admin !== undefined) {
      this.#answerAdmin(ticket, { refusal: this.#adminRefusal(admin.request, why) });
      return;
    }
    const refusal: Refusal =
      why === "busy"
        ? {
            code: "BUSY",
            message: `Member "${this.member}" has too much that is not committed.`,
            definite: true,
            leader: undefined,
          }
        : why === "transferring"
          ? {
              code: "NOT_LEADER",
              message: `Member "${this.member}" is handing leadership over.`,
              definite: true,
              leader: undefined,
            }
          : this.#notLeader(true);
    const batch = this.#waiters.rejected(ticket) ?? this.#readsByTicket.get(ticket);
    this.#readsByTicket.delete(ticket);
    if (batch !== undefined) refuse(batch, refusal);
  }

  #refuseEverything(refusal: Refusal): void {
    for (const batch of this.#waiters.takeAll()) refuse(batch, refusal);
    for (const reads of this.#readsByTicket.values()) refuse(reads, { ...refusal, definite: true });
    this.#readsByTicket.clear();
    const [batch, reads, leaseReads] = [this.#batch, this.#reads, this.#leaseReads];
    this.#batch = new WaitingBatch();
    this.#reads = new WaitingBatch();
    this.#leaseReads = new WaitingBatch();
    if (this.#commands.count > 0) this.#commands.finish();
    for (const never of [batch, reads, leaseReads]) refuse(never, { ...refusal, definite: true });
  }

  // ------------------------------------------------------------------------------------------------ applying

  #apply(entry: LogEntry): void {
    const waiting = this.#waiters.delivered(entry);
    if (waiting?.displaced) refuse(waiting.batch, this.#notLeader(true));
    const batch = waiting?.displaced === false ? waiting.batch : undefined;
    this.#termApplied = entry.term;
    this.#stampApplied = entry.stampMs;
    if (entry.kind !== "batch") this.#machine.skip(entry);
    else
      this.#machine.applyBatch(entry, (position, outcome) => {
        if (outcome.kind === "opened") this.#onOpened(outcome);
        batch?.sinks[position]?.onOutcome(batch.tags[position] as number, outcome);
      });
    if (this.#role.role === "leader" && entry.term === this.#role.term && !this.#ledApplied) {
      this.#ledApplied = true;
      this.#keeper.begin(this.#machine.sessions());
    }
  }

  #onOpened(outcome: Extract<Outcome, { kind: "opened" }>): void {
    const session = Number(outcome.session);
    const ttlMs = this.#machine.sessionTtlMs(session);
    if (ttlMs === undefined) return; // A repeated answer to a claim of a session that has ended since.
    this.#keeper.opened({ session, ttlMs });
    this.#emit({ kind: "session.opened", member: this.member, session: outcome.session, ttlMs });
  }

  #onReadAt(ticket: number, index: Index): void {
    const reads = this.#readsByTicket.get(ticket);
    this.#readsByTicket.delete(ticket);
    // Applying is synchronous with delivering, so a committed index is an applied one.
    assert(this.#machine.appliedIndex >= index, "a read waits until its index is applied");
    if (reads === undefined) return;
    for (let at = 0; at < reads.count; at++) reads.sinks[at]?.onReady(reads.tags[at] as number);
  }

  // ------------------------------------------------------------------------------------------------ snapshots

  #maybeSnapshot(): void {
    const everyBytes = Math.max(this.#limits.snapshotEveryBytes, (this.#log.snapshot?.lengthBytes ?? 0) / 4);
    if (this.#snapshotting || this.#log.bytesSinceSnapshot < everyBytes) return;
    this.#snapshotting = true;
    background(
      this.#buildSnapshot().finally(() => {
        this.#snapshotting = false;
      }),
      "snapshot",
    );
  }

  async #buildSnapshot(): Promise<SnapshotInfo | undefined> {
    const index = this.#machine.appliedIndex;
    // Not the latest: that of a change under way stands in an entry above the snapshot.
    const probe = this.#core.probe();
    const configuration = probe.configurationAt?.(index) ?? probe.configuration;
    const chunks = this.#machine.snapshot();
    try {
      const saved = await this.#log.saveSnapshot({
        index,
        term: this.#termApplied,
        configuration,
        stampMs: this.#stampApplied,
        chunks,
      });
      if (saved.index === index) this.#feed({ kind: "snapshot-built", ...saved });
      return saved;
    } catch (error) {
      // The log goes on without it, and grows; the next attempt comes with the next entries.
      if (!this.#closed) this.#halt("A snapshot could not be written.", error);
      return undefined;
    }
  }

  async #readSnapshot(ask: Extract<Output<unknown>, { kind: "read-snapshot" }>): Promise<void> {
    const part = await this.#log.readSnapshot(ask.offset, ask.lengthBytes);
    const newest = this.#log.snapshot;
    assert(part !== undefined && newest !== undefined, "what the kept log no longer reaches is in a snapshot");
    if (part.index !== newest.index) {
      // Another snapshot took its place while it was read.
      await this.#readSnapshot(ask);
      return;
    }
    const { index, term, offset, bytes, done } = part;
    const { configuration } = newest;
    this.#feed({
      kind: "snapshot-bytes",
      nowMs: this.#platform.now(),
      to: ask.to,
      index,
      term,
      configuration,
      offset,
      bytes,
      done,
    });
  }

  #receiveSnapshot(piece: Extract<Output<unknown>, { kind: "install-snapshot" }>): void {
    // One after another: the pieces of a file come in order.
    this.#installing = this.#installing.then(() => this.#receivePiece(piece));
    background(this.#installing, "install-snapshot");
  }

  async #receivePiece(piece: Extract<Output<unknown>, { kind: "install-snapshot" }>): Promise<void> {
    if (this.#closed || this.#halted !== undefined) return;
    try {
      const received = await this.#log.receiveSnapshot(piece);
      if (!piece.done) return;
      if (received.kind !== "installed") {
        this.#feed({ kind: "snapshot-installed", nowMs: this.#platform.now(), index: piece.index, ok: false, stampMs: 0 });
        return;
      }
      const machine = await loadMachine(this.#log, this.#parts.machineOptions);
      assert(machine !== undefined && machine.appliedIndex === piece.index, "the installed snapshot is the newest");
      this.#replaceMachine(machine, piece.term);
      const { stampMs } = received.snapshot;
      this.#feed({ kind: "snapshot-installed", nowMs: this.#platform.now(), index: piece.index, ok: true, stampMs });
      this.#emit({ kind: "snapshot.installed", member: this.member, index: piece.index, from: piece.from });
    } catch (error) {
      this.#halt("A snapshot of the leader could not be installed.", error);
    }
  }

  #replaceMachine(machine: Machine, term: Term): void {
    this.#machine = machine;
    this.#termApplied = term;
    this.#stampApplied = machine.elapsedMs;
    for (const listener of this.#machineListeners) listener(machine);
  }

  // ------------------------------------------------------------------------------------------------ the end

  /** Ends this member's part, for a reason from outside the loop. */
  halt(why: string, error?: unknown): void {
    this.#halt(why, error);
  }

  #halt(why: string, error?: unknown): void {
    if (this.#halted !== undefined || this.#closed) return;
    this.#halted = why;
    this.#timer?.cancel();
    this.#keeper.end();
    this.#role = { ...this.#role, role: "follower", leader: undefined };
    this.#haltCode = error instanceof ConclaveError ? error.code : undefined;
    this.#refuseEverything(this.#stopped(false));
    this.#emit({ kind: "member.halted", member: this.member, why });
    for (const listener of this.#leaderListeners) listener();
    this.#parts.onHalt?.(why, error);
  }

  #emit(event: ConclaveEvent): void {
    this.#parts.telemetry?.emit(event);
  }
}

/** The machine of the newest snapshot; undefined without one. @throws SNAPSHOT_CORRUPT */
export async function loadMachine(log: Log, options: MachineOptions): Promise<Machine | undefined> {
  const snapshot = log.loadSnapshot();
  if (snapshot === undefined) return undefined;
  const chunks: Uint8Array[] = [];
  for await (const chunk of snapshot.chunks) chunks.push(chunk);
  return Machine.restore(chunks, { ...options, appliedIndex: snapshot.header.index });
}

function refuse(batch: WaitingBatch, refusal: Refusal): void {
  for (let at = 0; at < batch.count; at++) batch.sinks[at]?.onRefused(batch.tags[at] as number, refusal);
}
