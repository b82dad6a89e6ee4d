/**
 * A group of consensus cores of one protocol, alone: no replica, no machine, no client; only letters, an abstract disk and the adversary.
 * The fastest world, for the protocol's own invariants; `world.ts` is the whole stack.
 *
 * Each letter is encoded and decoded on its way, so that nothing is shared by reference.
 */
import { ByteWriter } from "../base/byte-codec.ts";
import { membersOf } from "../consensus/configuration.ts";
import type { Configuration, Core, Input, LogEntry, LogOperation, Output } from "../consensus/core.ts";
import { AbstractDisk } from "./abstract-disk.ts";
import { Datagrams } from "./datagrams.ts";
import { EventQueue, type ScheduledEvent } from "./event-queue.ts";
import { FaultSchedule, type FaultTarget } from "./fault-schedule.ts";
import type { Checker, CheckerCounts } from "./group-checker.ts";
import { InvariantViolation } from "./invariant-violation.ts";
import { Operator } from "./operator.ts";
import type { CoreMaker, SimulatedProtocol } from "./protocols.ts";
import { Random } from "./random.ts";
import { hasRunEnough, type RunFloors } from "./run-floors.ts";

/** The clocks of the members run faster or slower than true time by up to this share: what the protocols' leases allow for. */
const clockDriftMax = 0.05;

/** A snapshot's content: the index and the agreed time, which is all that there is to remember here. */
const snapshotBytes = 16;

interface Pending {
  readonly sequence: number;
  readonly operations: readonly LogOperation[];
}

interface Node {
  readonly name: string;
  readonly clockOffsetMs: number;
  /** How fast the member's clock runs. */
  readonly clockRate: number;
  readonly disk: AbstractDisk;
  core: Core<unknown>;
  up: boolean;
  incarnation: number;
  pausedUntilMs: number;
  timer: ScheduledEvent | undefined;
  pending: Pending[];
  syncing: boolean;
  durableSequence: number;
  /** The bytes of a snapshot that is being received. */
  readonly receiving: Uint8Array;
  waiting: { readonly to: string; readonly after: number; readonly frame: Uint8Array }[];
  deliveredCount: number;
  diskFactor: number;
}

export interface CoreWorldReport {
  readonly seed: number;
  readonly steps: number;
  readonly virtualMs: number;
  readonly traceHash: number;
  readonly counts: CheckerCounts;
}

export class CoreWorld implements FaultTarget {
  readonly members: readonly string[];
  readonly checker: Checker<unknown>;
  readonly #seed: number;
  readonly #protocol: SimulatedProtocol<unknown>;
  readonly #queue = new EventQueue();
  readonly #random: Random;
  readonly #network: Datagrams;
  readonly #nodes = new Map<string, Node>();
  readonly #configuration: Configuration;
  readonly #operator: Operator | undefined;
  readonly #makeCore: CoreMaker<unknown>;
  readonly #snapshotEvery: number;
  readonly #writer = new ByteWriter();
  #ticket = 0;
  #trace = 0;

  constructor(seed: number, protocol: SimulatedProtocol<unknown>) {
    this.#seed = seed;
    this.#protocol = protocol;
    this.#random = new Random(seed);
    const voters = protocol.membersOf(this.#random);
    this.#configuration = { voters, learners: [] };
    this.checker = protocol.makeChecker(this.#configuration);
    this.checker.leaseHolders = () => this.#leaseHolders();
    this.#operator = protocol.hasMembership ? new Operator(this.#random.fork()) : undefined;
    this.members = [...voters, ...(this.#operator?.spares(voters) ?? [])];
    this.#network = new Datagrams(this.#queue, this.#random.fork());
    this.#makeCore = protocol.drawCores(this.#random, "core");
    this.#snapshotEvery = this.#random.pick([5, 40, 1_000_000]);
    for (const name of this.members) this.#nodes.set(name, this.#makeNode(name));
  }

  /** Events delivered so far. */
  get steps(): number {
    return this.#queue.steps;
  }

  /** Faults for at least so many steps and so much virtual time, then peace, in which the group must come together. */
  run(floors: RunFloors): CoreWorldReport {
    for (const node of this.#nodes.values()) this.#boot(node);
    const faults = new FaultSchedule({ queue: this.#queue, random: this.#random.fork(), target: this, network: this.#network });
    this.#planLoad();
    let nudgeMs = floors.virtualMsMin;
    while (!hasRunEnough(floors, this.#queue, this.checker.counts)) {
      this.#queue.step();
      if (this.#queue.nowMs <= nudgeMs) continue;
      // A quiet seed: what is missing is a change of leader.
      nudgeMs = this.#queue.nowMs + 2_000;
      const leader = this.leader();
      if (leader !== undefined) this.pause(leader, 1_500);
    }
    faults.heal();
    for (const node of this.#nodes.values()) node.pausedUntilMs = 0;
    this.#settle();
    return {
      seed: this.#seed,
      steps: this.#queue.steps,
      virtualMs: this.#queue.nowMs,
      traceHash: this.#trace >>> 0,
      counts: this.checker.counts,
    };
  }

  leader(): string | undefined {
    let best: Node | undefined;
    for (const node of this.#nodes.values()) {
      if (
        node.up &&
        node.core.probe().role === "leader" &&
        (best === undefined || node.core.probe().term > best.core.probe().term)
      )
        best = node;
    }
    return best?.name;
  }

  isUp(member: string): boolean {
    return this.#node(member).up;
  }

  crash(member: string): void {
    const node = this.#node(member);
    node.up = false;
    node.incarnation++;
    if (node.timer !== undefined) this.#queue.cancel(node.timer);
    node.waiting = [];
    // Of what was on its way to the disk, any prefix may have arrived.
    const survives = this.#random.integer(0, node.pending.length);
    for (const pending of node.pending.slice(0, survives)) node.disk.apply(pending.operations);
    node.pending = [];
    node.syncing = false;
    for (const peer of this.#nodes.values()) this.#linkChanged(peer, member, false);
  }

  restart(member: string): void {
    const node = this.#node(member);
    node.core = this.#makeCore();
    this.#boot(node);
    for (const peer of this.#nodes.values()) this.#linkChanged(peer, member, true);
  }

  pause(member: string, durationMs: number): void {
    const node = this.#node(member);
    node.pausedUntilMs = Math.max(node.pausedUntilMs, this.#queue.nowMs + durationMs);
  }

  breakLink(from: string, to: string): void {
    const node = this.#node(from);
    this.#linkChanged(node, to, false);
    this.#queue.schedule(this.#random.between(1, 200), () => this.#linkChanged(node, to, true));
  }

  slowDisk(member: string, factor: number): void {
    this.#node(member).diskFactor = factor;
  }

  #settle(): void {
    this.#operator?.rest();
    const goal = this.checker.committed + 3;
    const giveUpMs = this.#queue.nowMs + 20_000;
    const isDone = (): boolean => {
      const leader = this.leader();
      const configuration = leader === undefined ? undefined : this.#node(leader).core.probe().configuration;
      if (configuration === undefined || configuration.outgoing !== undefined) return false;
      return membersOf(configuration).every((member) => this.#node(member).deliveredCount >= goal);
    };
    while (!isDone()) {
      if (this.#queue.nowMs > giveUpMs || !this.#queue.step()) {
        const state = [...this.#nodes.values()].map(
          (node) => `${node.name}: ${node.core.probe().role} term ${node.core.probe().term} delivered ${node.deliveredCount}`,
        );
        throw new InvariantViolation("Liveness", `20 s after healing, not all members reached ${goal}: ${state.join("; ")}`);
      }
    }
  }

  #planLoad(): void {
    const everyMs = this.#random.pick([2, 10, 50]);
    const plan = (): void => {
      this.#queue.schedule(this.#random.between(0, 2 * everyMs), () => {
        const node = this.#node(
          this.#random.chance(0.8) ? ((this.leader() ?? this.members[0]) as string) : this.#random.pick(this.members),
        );
        if (node.up && node.pausedUntilMs <= this.#queue.nowMs) this.#load(node);
        plan();
      });
    };
    plan();
  }

  #load(node: Node): void {
    const ticket = ++this.#ticket;
    const nowMs = this.#clock(node);
    const wish = this.#operator?.wish(node.core.probe(), this.members);
    if (wish !== undefined) {
      this.#feed(node, { ...wish, nowMs, ticket });
      return;
    }
    if (this.#random.chance(0.3)) {
      this.#feed(node, { kind: "read", nowMs, ticket, level: this.#operator?.readLevel() ?? "linearizable" });
      return;
    }
    const payload = Uint8Array.of(ticket & 255, (ticket >> 8) & 255, (ticket >> 16) & 255);
    this.#feed(node, { kind: "submit", nowMs, ticket, payload });
  }

  #makeNode(name: string): Node {
    return {
      name,
      clockOffsetMs: this.#random.between(0, 1e6),
      clockRate: 1 + this.#random.pick([0, -clockDriftMax, clockDriftMax, this.#random.between(-clockDriftMax, clockDriftMax)]),
      disk: new AbstractDisk(this.#protocol.sparseSlots),
      core: this.#makeCore(),
      up: false,
      incarnation: 0,
      pausedUntilMs: 0,
      timer: undefined,
      pending: [],
      syncing: false,
      durableSequence: 0,
      receiving: new Uint8Array(snapshotBytes),
      waiting: [],
      deliveredCount: 0,
      diskFactor: 1,
    };
  }

  #boot(node: Node): void {
    node.up = true;
    node.durableSequence = 0;
    const recovered = node.disk.recovered();
    node.deliveredCount = recovered.snapshot?.index ?? 0;
    this.checker.onStart(node.name, recovered);
    const dice = this.#random.fork();
    const environment = {
      self: node.name,
      // A member that was not there from the beginning knows nobody until it is added.
      configuration: this.#configuration.voters.includes(node.name) ? this.#configuration : { voters: [], learners: [] },
      nowMs: this.#clock(node),
      randomUint32: () => dice.uint32(),
    };
    const outputs = node.core.start(environment, recovered);
    this.checker.onStarted(node.name, outputs, node.core.probe());
    this.#route(node, outputs);
  }

  #clock(node: Node): number {
    return this.#queue.nowMs * node.clockRate + node.clockOffsetMs;
  }

  #leaseHolders(): readonly string[] {
    return this.members.filter((name) => {
      const node = this.#node(name);
      return node.up && node.core.probe().hasLease?.(this.#clock(node)) === true;
    });
  }

  #feed(node: Node, input: Input<unknown>): void {
    const outputs = node.core.step(input);
    this.checker.onStep(node.name, input, outputs, node.core.probe());
    this.#route(node, outputs);
  }

  /** Runs when the node is awake; not at all once it has crashed. */
  #wake(node: Node, run: () => void): void {
    const { incarnation } = node;
    const attempt = (): void => {
      if (!node.up || node.incarnation !== incarnation) return;
      if (node.pausedUntilMs > this.#queue.nowMs) this.#queue.schedule(node.pausedUntilMs - this.#queue.nowMs, attempt);
      else run();
    };
    attempt();
  }

  #route(node: Node, outputs: readonly Output<unknown>[]): void {
    for (const output of outputs) {
      switch (output.kind) {
        case "persist":
          node.pending.push(output);
          this.#sync(node);
          break;
        case "send":
          this.#writer.reset();
          this.#protocol.encode(this.#writer, output.message);
          node.waiting.push({ to: output.to, after: output.after, frame: this.#writer.finish() });
          break;
        case "deliver":
          this.#deliver(node, output.entries);
          break;
        case "timer":
          this.#setTimer(node, output.atMs);
          break;
        case "read-snapshot":
          this.#readSnapshot(node, output);
          break;
        case "install-snapshot":
          node.receiving.set(output.bytes, output.offset);
          if (output.done) this.#install(node, output);
          break;
        default:
          break;
      }
    }
    this.#post(node);
  }

  #post(node: Node): void {
    const waiting = node.waiting.filter((letter) => letter.after > node.durableSequence);
    for (const letter of node.waiting) {
      if (letter.after > node.durableSequence) continue;
      this.checker.onWire?.(node.name, letter.to, this.#protocol.decode(letter.frame));
      this.#network.send(node.name, letter.to, () => this.#arrive(node.name, this.#node(letter.to), letter.frame));
    }
    node.waiting = waiting;
  }

  #arrive(from: string, to: Node, frame: Uint8Array): void {
    this.#wake(to, () => {
      this.#trace =
        (Math.imul(this.#trace, 31) + frame.length * 7 + (frame[0] as number) + Math.floor(this.#queue.nowMs * 1000)) | 0;
      this.#feed(to, { kind: "message", nowMs: this.#clock(to), from, message: this.#protocol.decode(frame) });
    });
  }

  #setTimer(node: Node, atMs: number): void {
    if (node.timer !== undefined) this.#queue.cancel(node.timer);
    node.timer = this.#queue.schedule((atMs - this.#clock(node)) / node.clockRate, () => {
      // Rounding may make it a hair early, and the core would ignore the tick.
      this.#wake(node, () => this.#feed(node, { kind: "tick", nowMs: Math.max(atMs, this.#clock(node)) }));
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
      for (const pending of written) node.disk.apply(pending.operations);
      node.syncing = false;
      this.#sync(node);
      const { sequence } = written.at(-1) as Pending;
      this.#wake(node, () => {
        node.durableSequence = Math.max(node.durableSequence, sequence);
        this.#feed(node, { kind: "persisted", nowMs: this.#clock(node), sequence: node.durableSequence });
      });
    });
  }

  #deliver(node: Node, entries: readonly LogEntry[]): void {
    const last = entries.at(-1) as LogEntry;
    node.deliveredCount = last.index;
    const snapshotIndex = node.disk.snapshot?.index ?? 0;
    if (last.index - snapshotIndex < this.#snapshotEvery) return;
    // The abstract snapshot is durable at once, as a renamed file would be; its content is its index.
    this.#queue.schedule(0, () =>
      this.#wake(node, () => {
        if (last.index <= (node.disk.snapshot?.index ?? 0)) return;
        const snapshot = {
          index: last.index,
          term: last.term,
          configuration: node.core.probe().configurationAt?.(last.index) ?? this.#configuration,
          stampMs: last.stampMs,
          lengthBytes: snapshotBytes,
        };
        node.disk.takeSnapshot(snapshot);
        this.#feed(node, {
          kind: "snapshot-built",
          index: snapshot.index,
          term: snapshot.term,
          configuration: snapshot.configuration,
          lengthBytes: snapshot.lengthBytes,
        });
      }),
    );
  }

  #readSnapshot(node: Node, ask: { readonly to: string; readonly offset: number; readonly lengthBytes: number }): void {
    this.#queue.schedule(0.1, () =>
      this.#wake(node, () => {
        const { snapshot } = node.disk;
        if (snapshot === undefined)
          throw new InvariantViolation("SnapshotExists", `${node.name} is asked for a snapshot that it does not have`);
        const content = new Float64Array([snapshot.index, snapshot.stampMs]);
        const bytes = new Uint8Array(content.buffer).slice(ask.offset, ask.offset + ask.lengthBytes);
        const { index, term, configuration } = snapshot;
        const done = ask.offset + bytes.length >= snapshotBytes;
        this.#feed(node, {
          kind: "snapshot-bytes",
          nowMs: this.#clock(node),
          to: ask.to,
          index,
          term,
          configuration,
          offset: ask.offset,
          bytes,
          done,
        });
      }),
    );
  }

  #install(node: Node, output: Extract<Output<unknown>, { kind: "install-snapshot" }>): void {
    this.#queue.schedule(this.#random.between(0.1, 5), () =>
      this.#wake(node, () => {
        const { index, term, configuration } = output;
        const [content, stampMs] = new Float64Array(node.receiving.buffer) as unknown as [number, number];
        if (content !== index)
          throw new InvariantViolation("SnapshotWhole", `${node.name} installs ${index} from the bytes of ${content}`);
        node.disk.installSnapshot({ index, term, configuration, stampMs, lengthBytes: snapshotBytes });
        node.deliveredCount = index;
        this.#feed(node, { kind: "snapshot-installed", nowMs: this.#clock(node), index, ok: true, stampMs });
      }),
    );
  }

  #linkChanged(node: Node, peer: string, up: boolean): void {
    if (node.name === peer || !node.up) return;
    this.#queue.schedule(0.1, () =>
      this.#wake(node, () => this.#feed(node, { kind: "link", nowMs: this.#clock(node), peer, up })),
    );
  }

  #node(name: string): Node {
    return this.#nodes.get(name) as Node;
  }
}
