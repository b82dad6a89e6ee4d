/**
 * A group of PBFT replicas in a simulated world: up to f of them faulty (`pbft-adversary.ts`), the others correct and
 * merely unlucky: they crash and lose what was not synced, pause, and talk through a bad network; and clients that read
 * and compare-and-set registers and believe f + 1 equal answers.
 *
 * Seeds are of two kinds, because crash bugs and Byzantine bugs hide from one another: with an even seed every replica is
 * correct and the machines are bad, with an odd one up to f lie and the machines are better.
 * Each letter is encoded and decoded on its way; a letter with a false seal is dropped at the gate, as a host does. Whom one
 * letter is sent to share what it was decoded to and what its seals are worth: both are functions of its bytes alone. That
 * nobody changes what it shares is looked at now and then.
 */
import { ByteWriter } from "../base/byte-codec.ts";
import { hasCode } from "../base/errors.ts";
import { PbftClient } from "../consensus/pbft/client.ts";
import type { PbftInput, PbftOutput, PbftRecovered, PbftSnapshot } from "../consensus/pbft/core.ts";
import { sealsOf } from "../consensus/pbft/gate.ts";
import type { NewView, PbftMessage, ReplicaNumber, RequestFrame, Signed, ViewChange } from "../consensus/pbft/messages.ts";
import type { PbftOptions } from "../consensus/pbft/options.ts";
import { Pbft } from "../consensus/pbft/pbft.ts";
import { faultsTolerated } from "../consensus/pbft/quorum.ts";
import { encodeBatch, encodeStatement } from "../consensus/pbft/statements.ts";
import { type CasAnswer, CasMachine, decodeCasAnswer, encodeCasOperation } from "../store/cas-machine.ts";
import { checkLinearizable } from "../testing/linearizability/check-linearizable.ts";
import { registerModel } from "../testing/linearizability/register-model.ts";
import { decodePbftMessage, encodePbftMessage } from "../wire/pbft-messages.ts";
import type { Coverage } from "./coverage.ts";
import { Datagrams } from "./datagrams.ts";
import { Dice } from "./dice.ts";
import { EventQueue, type ScheduledEvent } from "./event-queue.ts";
import { FaultFilter, misdeeds } from "./fault-filter.ts";
import { FaultPlayer, type FaultTarget } from "./fault-player.ts";
import { FaultSchedule } from "./fault-schedule.ts";
import { InvariantViolation } from "./invariant-violation.ts";
import { Adversary } from "./pbft-adversary.ts";
import { type DurableReplica, dropCovered, PbftChecker, type PbftCounts } from "./pbft-checker.ts";
import { Random } from "./random.ts";
import { SymbolicCrypto } from "./symbolic-crypto.ts";
import type { RegisterOperation } from "./workload.ts";

export interface PbftWorldReport {
  readonly seed: number;
  readonly steps: number;
  readonly virtualMs: number;
  readonly traceHash: number;
  readonly answers: number;
  readonly counts: PbftCounts;
  readonly coverage: Coverage;
}

interface Letter {
  readonly to: readonly ReplicaNumber[];
  readonly after: number;
  readonly message: PbftMessage;
}

/** A letter's bytes, and what the first to open it made of them: a message, or nothing. */
interface Parcel {
  readonly frame: Uint8Array;
  opened: PbftMessage | "unreadable" | "forged" | undefined;
}

type Persist = Extract<PbftOutput, { kind: "persist" }>;

/** A correct replica on its machine. */
interface Node {
  readonly number: ReplicaNumber;
  readonly name: string;
  readonly clockOffsetMs: number;
  readonly durable: DurableReplica;
  core: Pbft;
  up: boolean;
  incarnation: number;
  pausedUntilMs: number;
  timer: ScheduledEvent | undefined;
  pending: Persist[];
  syncing: boolean;
  durableSequence: number;
  waiting: Letter[];
  diskFactor: number;
}

interface Client {
  readonly name: string;
  readonly number: number;
  readonly core: PbftClient;
  readonly random: Random;
  timer: ScheduledEvent | undefined;
  /** By register: what it saw last. */
  readonly seen: Map<string, { readonly revision: number | null; readonly text: string | null }>;
  answers: number;
}

/** Remembered letters of view changes; all are forgotten when there are more. Weak references would cost the collector more. */
const longLettersMax = 256;
const registers = ["x", "y", "z"];
const encoder = new TextEncoder();
const decoder = new TextDecoder();

export class PbftWorld implements FaultTarget {
  /** The correct ones: what a faulty replica's machine does is part of its lies. */
  readonly members: readonly string[];
  readonly checker: PbftChecker;
  readonly #seed: number;
  readonly #queue = new EventQueue();
  readonly #random: Random;
  readonly #network: Datagrams;
  readonly #crypto: SymbolicCrypto;
  readonly #replicas: number;
  readonly #options: PbftOptions;
  readonly #buckets: number;
  readonly #nodes = new Map<ReplicaNumber, Node>();
  readonly #adversaries = new Map<ReplicaNumber, Adversary>();
  readonly #clients: Client[] = [];
  /** By number: where letters go. */
  readonly #names: readonly string[];
  readonly #writer = new ByteWriter();
  #lastPacked: { readonly message: PbftMessage; readonly parcel: Parcel } | undefined;
  readonly #longLetters = new Map<Signed<ViewChange> | Signed<NewView>, Parcel>();
  readonly #history: RegisterOperation[] = [];
  readonly #limits: Readonly<Record<string, number>>;
  readonly #filter: FaultFilter;
  #value = 0;
  #stopped = false;
  #trace = 0;

  constructor(seed: number, filter = new FaultFilter()) {
    this.#seed = seed;
    this.#filter = filter;
    this.#random = new Random(seed);
    const random = this.#random;
    const byzantine = seed % 2 === 1;
    this.#replicas = random.chance(byzantine ? 0.6 : 0.75) ? 4 : 7;
    const most = faultsTolerated(this.#replicas);
    const faulty = byzantine ? (random.chance(0.7) ? most : random.integer(1, most)) : 0;
    const clients = ["c0", "c1", "c2"];
    const numbers = Array.from({ length: this.#replicas }, (_, number) => number);
    this.#names = numbers.map((number) => `r${number}`);
    this.#crypto = new SymbolicCrypto([...numbers, ...clients, "mallory"], random.fork());
    this.#options = this.#chooseOptions();
    this.#buckets = random.pick([1, 3]);
    this.#network = new Datagrams(this.#queue, new Dice(random.uint32()));
    const faultyOnes = new Set<number>();
    while (faultyOnes.size < faulty) faultyOnes.add(random.integer(0, this.#replicas - 1));
    for (const number of numbers) {
      if (faultyOnes.has(number)) this.#adversaries.set(number, this.#makeAdversary(number, [...faultyOnes]));
      else this.#nodes.set(number, this.#makeNode(number));
    }
    this.members = [...this.#nodes.values()].map((node) => node.name);
    this.checker = new PbftChecker({
      replicas: this.#replicas,
      faulty,
      windowLength: this.#options.windowLength,
      nullDigest: this.#crypto.digest(encodeBatch([])),
      disks: new Map([...this.#nodes].map(([number, node]) => [number, node.durable])),
    });
    for (const [number, name] of clients.entries()) this.#clients.push(this.#makeClient(number, name));
    const { windowLength, checkpointEvery, batchesKeptMax, lanesMax } = this.#options;
    this.#limits = {
      slots: windowLength,
      votes: windowLength * this.#replicas * 2,
      // Those that are still referred to stay beyond the limit: of the proposal, the certificate, and what was committed.
      batches: windowLength * (batchesKeptMax + 3),
      pending: 4 * lanesMax,
      viewChanges: this.#replicas,
      checkpoints: this.#replicas * (Math.ceil(windowLength / checkpointEvery) + 2),
    };
  }

  /** Faults for at least so many steps and so much virtual time, then peace, in which every client must be served. */
  run(floors: { readonly stepsMin: number }): PbftWorldReport {
    const virtualMsMin = this.#random.pick([2_000, 5_000, 15_000]);
    for (const adversary of this.#adversaries.values()) adversary.start();
    for (const node of this.#nodes.values()) this.#boot(node);
    const player = new FaultPlayer({ queue: this.#queue, target: this, network: this.#network });
    const faults = new FaultSchedule({
      queue: this.#queue,
      random: this.#random.fork(),
      target: this,
      strike: (event) => player.play(event),
      filter: this.#filter,
    });
    for (const client of this.#clients) this.#plan(client);
    if (this.#adversaries.size > 0) this.#planMallory();
    while (this.#queue.steps < floors.stepsMin || this.#queue.nowMs < virtualMsMin) {
      this.#queue.step();
      if (this.#queue.steps % 256 === 0) this.#probe();
    }
    faults.stop();
    player.heal();
    for (const node of this.#nodes.values()) node.pausedUntilMs = 0;
    for (const adversary of this.#adversaries.values()) adversary.silence();
    // Slow, but bounded: whoever is too impatient for it has to learn (OSDI 1999 §4.5.2).
    if (this.#random.chance(0.3)) this.#network.faults = { ...this.#network.faults, delayMsMin: 5, delayMsMean: 10 };
    this.#settle();
    this.#judge();
    return {
      seed: this.#seed,
      steps: this.#queue.steps,
      virtualMs: this.#queue.nowMs,
      traceHash: this.#trace >>> 0,
      answers: this.#clients.reduce((sum, client) => sum + client.answers, 0),
      counts: this.checker.counts,
      coverage: this.checker.coverage,
    };
  }

  get steps(): number {
    return this.#queue.steps;
  }

  // ---------------------------------------------------------------------------------------------- faults of machines

  leader(): string | undefined {
    let best: Node | undefined;
    for (const node of this.#nodes.values()) if (node.up && (best === undefined || node.core.view > best.core.view)) best = node;
    const primary = best === undefined ? undefined : this.#nodes.get(best.core.view % this.#replicas);
    return primary?.name;
  }

  isUp(member: string): boolean {
    return this.#named(member).up;
  }

  crash(member: string): void {
    const node = this.#named(member);
    node.up = false;
    node.incarnation++;
    if (node.timer !== undefined) this.#queue.cancel(node.timer);
    node.timer = undefined;
    node.waiting = [];
    // A prefix of what was on its way to the disk survives.
    const survives = this.#random.integer(0, node.pending.length);
    for (const pending of node.pending.slice(0, survives)) apply(node.durable, pending);
    node.pending = [];
    node.syncing = false;
  }

  restart(member: string): void {
    this.#boot(this.#named(member));
  }

  pause(member: string, durationMs: number): void {
    const node = this.#named(member);
    node.pausedUntilMs = Math.max(node.pausedUntilMs, this.#queue.nowMs + durationMs);
  }

  breakLink(): void {
    // Datagrams know no connections.
  }

  slowDisk(member: string, factor: number): void {
    this.#named(member).diskFactor = factor;
  }

  // ---------------------------------------------------------------------------------------------- the end

  /** With at most f silent and a calm network everybody is served, and nobody stays behind (OSDI 1999 §4.5.2). */
  #settle(): void {
    const answered = this.#clients.map((client) => client.answers + 5);
    const reached = this.checker.highest;
    const giveUpMs = this.#queue.nowMs + 120_000;
    const isDone = (): boolean =>
      this.#clients.every((client, at) => client.answers >= (answered[at] as number)) &&
      [...this.#nodes.values()].every((node) => node.core.executed >= reached);
    while (!isDone()) {
      if (this.#queue.nowMs > giveUpMs || !this.#queue.step()) {
        const replicas = [...this.#nodes.values()].map(
          ({ name, core }) =>
            `${name}: view ${core.view}${core.isActive ? "" : " wanted"}, executed ${core.executed}, stable ${core.stable}`,
        );
        const clients = this.#clients.map((client, at) => `${client.name} ${client.answers - (answered[at] as number) + 5} of 5`);
        throw new InvariantViolation(
          "Liveness",
          `120 s after healing: ${clients.join(", ")}; ${replicas.join("; ")}; goal ${reached}`,
        );
      }
    }
  }

  /** What the clients saw must have an order. Open calls may have happened or not. */
  #judge(): void {
    this.#stopped = true;
    this.#probe();
    const verdict = checkLinearizable(registerModel, this.#history, { maxSteps: 5_000_000 });
    if (verdict.linearizable === false) {
      const { stuck } = verdict.witness;
      throw new InvariantViolation(
        "Linearizability",
        `register ${verdict.key}: no order explains ${JSON.stringify(stuck)} after ${verdict.witness.prefix.length} operations`,
      );
    }
  }

  #probe(): void {
    for (const node of this.#nodes.values()) this.checker.onProbe(node.core, this.#limits);
  }

  // ---------------------------------------------------------------------------------------------- replicas

  #chooseOptions(): PbftOptions {
    const random = this.#random;
    const checkpointEvery = random.pick([1, 4, 4, 8]);
    const viewChangeTimeoutMs = random.pick([3, 30, 200, 200]);
    return {
      checkpointEvery,
      windowLength: checkpointEvery * random.pick([2, 3, 8]),
      viewChangeTimeoutMs,
      viewChangeTimeoutMsMax: 5_000,
      statusMs: random.pick([20, 50]),
      statusIdleMs: 500,
      pipelineMax: random.pick([1, 3, 8]),
      batchFramesMax: random.pick([1, 2, 8]),
      batchBytesMax: 100_000,
      pendingMax: 64,
      lanesMax: 2,
      batchesKeptMax: random.pick([2, 4]),
      resendMax: random.pick([4, 16]),
      replyParts: 4,
      partsInFlightMax: random.pick([1, 4]),
    };
  }

  #makeCore(number: ReplicaNumber, nowMs: number): Pbft {
    return new Pbft({
      self: number,
      replicas: this.#replicas,
      nowMs,
      crypto: {
        digest: (bytes) => this.#crypto.digest(bytes),
        sign: (bytes) => this.#crypto.sign(number, bytes),
      },
      service: new CasMachine(this.#buckets),
      options: this.#options,
    });
  }

  #makeNode(number: ReplicaNumber): Node {
    return {
      number,
      name: `r${number}`,
      clockOffsetMs: this.#random.between(0, 1e6),
      durable: { cells: new Map(), snapshot: undefined },
      core: undefined as unknown as Pbft,
      up: false,
      incarnation: 0,
      pausedUntilMs: 0,
      timer: undefined,
      pending: [],
      syncing: false,
      durableSequence: 0,
      waiting: [],
      diskFactor: 1,
    };
  }

  #makeAdversary(number: ReplicaNumber, accomplices: readonly ReplicaNumber[]): Adversary {
    const random = this.#random.fork();
    return new Adversary({
      number,
      replicas: this.#replicas,
      queue: this.#queue,
      random,
      makeCore: () => this.#makeCore(number, this.#queue.nowMs),
      twin: this.#filter.has("twin", random.chance(0.25)),
      enabled: this.#filter.choose(
        misdeeds,
        misdeeds.filter(() => random.chance(0.5)),
      ),
      patienceMs: this.#options.viewChangeTimeoutMs,
      accomplices,
      signAs: (replica, bytes) => this.#crypto.sign(accomplices.includes(replica) ? replica : number, bytes),
      digest: (bytes) => this.#crypto.digest(bytes),
      send: (to, message) => this.#transmit(`r${number}`, number, [to], message),
      sendToClient: (client, message) => this.#transmitToClient(`r${number}`, client, message),
    });
  }

  #boot(node: Node): void {
    node.up = true;
    node.durableSequence = 0;
    node.core = this.#makeCore(node.number, this.#clock(node));
    const { cells, snapshot } = node.durable;
    const recovered: PbftRecovered = { cells: new Map(cells), snapshot };
    const outputs = node.core.start(recovered);
    this.checker.onStart(node.number, recovered, outputs, node.core);
    this.#route(node, outputs);
  }

  #clock(node: Node): number {
    return this.#queue.nowMs + node.clockOffsetMs;
  }

  #feed(node: Node, input: PbftInput): void {
    const outputs = node.core.step(input);
    this.checker.onStep(node.number, input, outputs, node.core);
    this.#route(node, outputs);
  }

  /** Runs when the node is awake; not at all once it has crashed. */
  #wake(node: Node, run: () => void, incarnation = node.incarnation): void {
    if (!node.up || node.incarnation !== incarnation) return;
    if (node.pausedUntilMs <= this.#queue.nowMs) run();
    else this.#queue.schedule(node.pausedUntilMs - this.#queue.nowMs, () => this.#wake(node, run, incarnation));
  }

  #route(node: Node, outputs: readonly PbftOutput[]): void {
    for (const output of outputs) {
      switch (output.kind) {
        case "persist":
          node.pending.push(output);
          this.#sync(node);
          break;
        case "send":
          node.waiting.push(output);
          break;
        case "reply":
          this.#transmitToClient(node.name, output.client, { kind: "reply", reply: output.reply });
          break;
        case "timer":
          this.#setTimer(node, output.atMs);
          break;
        case "save-snapshot":
          this.#saveSnapshot(node, output.snapshot);
          break;
        default:
          break;
      }
    }
    this.#post(node);
  }

  #post(node: Node): void {
    if (node.waiting.length === 0) return;
    const waiting: Letter[] = [];
    for (const letter of node.waiting) {
      if (letter.after > node.durableSequence) {
        waiting.push(letter);
        continue;
      }
      this.checker.onWire(node.number, letter.message);
      this.#transmit(node.name, node.number, letter.to, letter.message);
    }
    node.waiting = waiting;
  }

  #setTimer(node: Node, atMs: number): void {
    // Timers of hosts are a little early at times; whoever relies on the moment waits for ever.
    const earlyMs = this.#random.chance(0.05) ? this.#random.between(0, 1) : 0;
    node.timer = this.#queue.reschedule(node.timer, atMs - this.#clock(node) - earlyMs, () => {
      this.#wake(node, () => this.#feed(node, { kind: "tick", nowMs: this.#clock(node) }));
    });
  }

  #sync(node: Node): void {
    if (node.syncing || node.pending.length === 0) return;
    node.syncing = true;
    const { incarnation } = node;
    const count = node.pending.length;
    this.#queue.schedule(this.#random.between(0.05, 2) * node.diskFactor, () => {
      if (node.incarnation !== incarnation) return;
      const written = node.pending.splice(0, count);
      for (const pending of written) apply(node.durable, pending);
      node.syncing = false;
      this.#sync(node);
      const { sequence } = written.at(-1) as Persist;
      this.#wake(node, () => {
        node.durableSequence = Math.max(node.durableSequence, sequence);
        this.#feed(node, { kind: "persisted", nowMs: this.#clock(node), sequence: node.durableSequence });
      });
    });
  }

  #saveSnapshot(node: Node, snapshot: PbftSnapshot): void {
    const { incarnation } = node;
    this.#queue.schedule(this.#random.between(0.1, 20) * node.diskFactor, () => {
      // A file renamed into place: there, or not; also while the process sleeps.
      if (node.incarnation !== incarnation || snapshot.sequence < (node.durable.snapshot?.sequence ?? 0)) return;
      node.durable.snapshot = snapshot;
      dropCovered(node.durable, snapshot.sequence);
      this.#wake(node, () => this.#feed(node, { kind: "snapshot-saved", nowMs: this.#clock(node), sequence: snapshot.sequence }));
    });
  }

  // ---------------------------------------------------------------------------------------------- letters

  #transmit(name: string, from: ReplicaNumber | string, to: readonly ReplicaNumber[], message: PbftMessage): void {
    const parcel = this.#pack(message);
    for (const number of to) this.#network.send(name, this.#names[number] as string, () => this.#arrive(from, number, parcel));
  }

  /** The same message is the same letter: a liar hands it out to one after the other, and views are asked for again and again. */
  #pack(message: PbftMessage): Parcel {
    const last = this.#lastPacked;
    if (message === last?.message) return last.parcel;
    const long = message.kind === "view-change" ? message.viewChange : message.kind === "new-view" ? message.newView : undefined;
    const parcel = (long && this.#longLetters.get(long)) ?? { frame: this.#encode(message), opened: undefined };
    this.#lastPacked = { message, parcel };
    if (long !== undefined) {
      if (this.#longLetters.size >= longLettersMax) this.#longLetters.clear();
      this.#longLetters.set(long, parcel);
    }
    return parcel;
  }

  #encode(message: PbftMessage): Uint8Array {
    this.#writer.reset();
    encodePbftMessage(this.#writer, message);
    return this.#writer.finish();
  }

  #arrive(from: ReplicaNumber | string, to: ReplicaNumber, parcel: Parcel): void {
    const adversary = this.#adversaries.get(to);
    if (adversary !== undefined) {
      const message = this.#open(parcel);
      if (message !== undefined) adversary.onMessage(from, message);
      return;
    }
    const node = this.#nodes.get(to);
    if (node === undefined) return;
    // Most are awake, and need no promise to come back.
    if (node.up && node.pausedUntilMs <= this.#queue.nowMs) this.#receive(node, from, parcel);
    else this.#wake(node, () => this.#receive(node, from, parcel));
  }

  #receive(node: Node, from: ReplicaNumber | string, parcel: Parcel): void {
    const { frame } = parcel;
    this.#trace =
      (Math.imul(this.#trace, 31) + frame.length * 7 + (frame[0] as number) + Math.floor(this.#queue.nowMs * 1000)) | 0;
    const message = this.#open(parcel);
    // As a host does, which asks before it verifies.
    if (message !== undefined && node.core.needs(message))
      this.#feed(node, { kind: "message", nowMs: this.#clock(node), from, message });
  }

  /** The gate: what cannot be read, or bears a false seal, never reaches a core. */
  #open(parcel: Parcel): PbftMessage | undefined {
    if (parcel.opened === undefined) parcel.opened = this.#inspect(parcel.frame);
    else if (this.#queue.steps % 512 === 0) this.#mustBeUntouched(parcel);
    if (parcel.opened === "forged") this.checker.coverage.hit("a false seal is dropped at the gate");
    return typeof parcel.opened === "string" ? undefined : parcel.opened;
  }

  #inspect(frame: Uint8Array): PbftMessage | "unreadable" | "forged" {
    try {
      const message = decodePbftMessage(frame);
      return sealsOf(message).every((seal) => this.#crypto.verify(seal)) ? message : "forged";
    } catch (error) {
      if (hasCode(error, "PROTOCOL")) return "unreadable";
      throw error;
    }
  }

  #readForged({ frame, opened }: Parcel): PbftMessage | undefined {
    return opened === "forged" ? decodePbftMessage(frame) : undefined;
  }

  /** A replica that changed a letter would change it for the others too. */
  #mustBeUntouched({ frame, opened }: Parcel): void {
    if (opened === undefined || typeof opened === "string") return;
    const again = this.#encode(opened);
    if (again.length !== frame.length || again.some((byte, at) => byte !== frame[at]))
      throw new InvariantViolation("LettersAreShared", `a replica has changed a ${opened.kind} that others read too`);
  }

  #transmitToClient(name: string, client: string, message: PbftMessage): void {
    const target = this.#clients.find((known) => known.name === client);
    if (target === undefined) return;
    const parcel = this.#pack(message);
    this.#network.send(name, client, () => {
      // Clients judge seals themselves, and only as many as they need.
      const opened = this.#open(parcel) ?? this.#readForged(parcel);
      if (opened?.kind === "reply" && this.#names[opened.reply.statement.replica] === name) target.core.onReply(opened.reply);
    });
  }

  // ---------------------------------------------------------------------------------------------- clients

  #makeClient(number: number, name: string): Client {
    const core = new PbftClient({
      name,
      replicas: this.#replicas,
      timestamp: 0,
      sign: (bytes) => this.#crypto.sign(name, bytes),
      verify: (reply, onVerdict) => {
        const isTrue = sealsOf({ kind: "reply", reply }).every((seal) => this.#crypto.verify(seal));
        if (!isTrue) this.checker.coverage.hit("a client finds a reply's seal false");
        onVerdict(isTrue);
      },
      options: { retryMs: 40, retryMsMax: 1_000 },
    });
    return { name, number, core, random: this.#random.fork(), timer: undefined, seen: new Map(), answers: 0 };
  }

  #plan(client: Client): void {
    this.#queue.schedule(client.random.between(0, 30), () => {
      if (this.#stopped) return;
      const lane = client.random.integer(0, this.#options.lanesMax - 1);
      if (!client.core.isBusy(lane)) this.#call(client, lane);
      this.#plan(client);
    });
  }

  #call(client: Client, lane: number): void {
    const count = client.random.chance(0.7) ? 1 : client.random.integer(2, 4);
    const asked = Array.from({ length: count }, () => this.#operation(client));
    const invokedAt = this.#queue.nowMs;
    const open = asked.map(({ key, input }): RegisterOperation & { output: unknown; returnedAt: unknown } => ({
      process: client.number,
      key,
      input,
      output: undefined,
      invokedAt,
      returnedAt: undefined,
    }));
    this.#history.push(...open);
    let timestamp = 0;
    const sends = client.core.call(
      lane,
      asked.map(({ bytes }) => bytes),
      {
        nowMs: invokedAt,
        onResults: (results) => {
          this.checker.onAccepted(`${client.name}/${lane}`, timestamp, results);
          client.answers++;
          for (const [at, result] of results.entries()) {
            const operation = open[at] as { -readonly [K in keyof RegisterOperation]: RegisterOperation[K] };
            operation.output = this.#note(client, operation.key as string, operation.input, decodeCasAnswer(result));
            operation.returnedAt = this.#queue.nowMs;
          }
        },
      },
    );
    for (const { to, message } of sends) {
      if (message.kind === "request") {
        timestamp = message.frame.statement.timestamp;
        this.checker.onSigned(message.frame.statement);
      }
      this.#transmit(client.name, client.name, to, message);
    }
    this.#setClientTimer(client);
  }

  /** A read, or a compare-and-set on what was seen last. Every value is written once, so a revision stands for its value. */
  #operation(client: Client): { readonly key: string; readonly input: RegisterOperation["input"]; readonly bytes: Uint8Array } {
    const key = client.random.pick(registers);
    const seen = client.seen.get(key);
    if (seen === undefined || client.random.chance(0.4)) {
      return { key, input: { f: "read" }, bytes: encodeCasOperation({ kind: "get", key }) };
    }
    const text = client.random.chance(0.1) ? null : `${client.number}.${this.#value++}`;
    return {
      key,
      input: { f: "cas", from: seen.text, to: text },
      bytes: encodeCasOperation({
        kind: "compare-and-set",
        key,
        expected: seen.revision,
        value: text === null ? null : encoder.encode(text),
      }),
    };
  }

  #note(client: Client, key: string, input: RegisterOperation["input"], answer: CasAnswer): RegisterOperation["output"] {
    if (answer.kind === "applied" && input.f === "cas") {
      client.seen.set(key, { revision: answer.revision, text: input.to as string | null });
      return { f: "cas", swapped: true };
    }
    const entry = answer.kind === "entry" ? answer.entry : answer.kind === "differs" ? answer.current : null;
    const text = entry === null ? null : decoder.decode(entry.value);
    client.seen.set(key, { revision: entry?.revision ?? null, text });
    return input.f === "read" ? { f: "read", value: text } : { f: "cas", swapped: false };
  }

  #setClientTimer(client: Client): void {
    const atMs = client.core.nextMs();
    if (atMs === undefined) {
      if (client.timer !== undefined) this.#queue.cancel(client.timer);
      return;
    }
    client.timer = this.#queue.reschedule(client.timer, atMs - this.#queue.nowMs, () => {
      for (const { to, message } of client.core.onTime(this.#queue.nowMs)) this.#transmit(client.name, client.name, to, message);
      this.#setClientTimer(client);
    });
  }

  /** A client that signs two different requests with one timestamp, and tells some this and others that. */
  #planMallory(): void {
    let timestamp = 0;
    const plan = (): void => {
      this.#queue.schedule(this.#random.between(0, 300), () => {
        if (this.#stopped) return;
        timestamp += this.#random.integer(0, 1);
        const text = encoder.encode(`m${this.#random.integer(0, 99)}`);
        const operations = [
          this.#random.chance(0.2)
            ? text
            : encodeCasOperation({ kind: "compare-and-set", key: "mallory's", expected: null, value: text }),
        ];
        const statement: RequestFrame = {
          kind: "request",
          client: "mallory",
          lane: this.#random.integer(0, 3),
          timestamp,
          operations,
        };
        this.checker.onSigned(statement);
        const bytes = encodeStatement(statement);
        const frame = { statement, bytes, signature: this.#crypto.sign("mallory", bytes) };
        const to = Array.from({ length: this.#replicas }, (_, number) => number).filter(() => this.#random.chance(0.5));
        this.#transmit("mallory", "mallory", to, { kind: "request", frame });
        plan();
      });
    };
    plan();
  }

  #named(name: string): Node {
    return this.#nodes.get(Number(name.slice(1))) as Node;
  }
}

function apply(durable: DurableReplica, { changes }: Persist): void {
  for (const { cell, bytes } of changes) {
    if (bytes === undefined) durable.cells.delete(cell);
    else durable.cells.set(cell, bytes);
  }
}
