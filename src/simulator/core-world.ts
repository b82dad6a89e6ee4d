/**
 * A group of consensus cores alone: no replica, no machine, no client; only letters, an abstract disk and the adversary.
 * The fastest world, for the protocol's own invariants; `world.ts` is the whole stack.
 *
 * Each letter is encoded and decoded on its way, so that nothing is shared by reference.
 */
import { ByteWriter } from "../base/byte-codec.ts";
import type { Configuration, Core, Input, LogEntry, LogOperation, Output, Recovered } from "../consensus/core.ts";
import type { RaftMessage } from "../consensus/raft/messages.ts";
import type { RaftOptions } from "../consensus/raft/options.ts";
import { Raft } from "../consensus/raft/raft.ts";
import { decodeRaftMessage, encodeRaftMessage } from "../wire/raft-messages.ts";
import { Datagrams } from "./datagrams.ts";
import { EventQueue, type ScheduledEvent } from "./event-queue.ts";
import { FaultSchedule, type FaultTarget } from "./fault-schedule.ts";
import { InvariantViolation, RaftChecker } from "./raft-checker.ts";
import { Random } from "./random.ts";

interface DurableState {
  meta: Map<string, string>;
  entries: LogEntry[];
  snapshot: Recovered["snapshot"];
}

interface Pending {
  readonly sequence: number;
  readonly operations: readonly LogOperation[];
}

interface Node {
  readonly name: string;
  readonly clockOffsetMs: number;
  readonly durable: DurableState;
  core: Core<RaftMessage>;
  up: boolean;
  incarnation: number;
  pausedUntilMs: number;
  timer: ScheduledEvent | undefined;
  pending: Pending[];
  syncing: boolean;
  durableSequence: number;
  waiting: { readonly to: string; readonly after: number; readonly frame: Uint8Array }[];
  delivered: LogEntry | undefined;
  deliveredCount: number;
  diskFactor: number;
}

export interface CoreWorldReport {
  readonly seed: number;
  readonly steps: number;
  readonly virtualMs: number;
  readonly traceHash: number;
  readonly counts: RaftChecker["counts"];
}

export class CoreWorld implements FaultTarget {
  readonly members: readonly string[];
  readonly checker: RaftChecker;
  readonly #seed: number;
  readonly #queue = new EventQueue();
  readonly #random: Random;
  readonly #network: Datagrams;
  readonly #nodes = new Map<string, Node>();
  readonly #configuration: Configuration;
  readonly #options: Partial<RaftOptions>;
  readonly #snapshotEvery: number;
  readonly #writer = new ByteWriter();
  #ticket = 0;
  #trace = 0;

  constructor(seed: number) {
    this.#seed = seed;
    this.#random = new Random(seed);
    this.members = this.#random.chance(0.7) ? ["a", "b", "c"] : ["a", "b", "c", "d", "e"];
    this.#configuration = { voters: this.members, learners: [] };
    this.checker = new RaftChecker(this.#configuration);
    this.#network = new Datagrams(this.#queue, this.#random.fork());
    const tiny = this.#random.chance(0.5);
    this.#options = {
      ...(tiny ? { appendBytesMax: 1, inFlightMessagesMax: this.#random.integer(1, 3) } : {}),
      retainedBytesMax: this.#random.pick([0, 300, 100_000]),
      snapshotChunkBytes: this.#random.pick([3, 64]),
    };
    this.#snapshotEvery = this.#random.pick([5, 40, 1_000_000]);
    for (const name of this.members) this.#nodes.set(name, this.#makeNode(name));
  }

  /** Faults for at least so many steps and so much virtual time, then peace, in which the group must come together. */
  run(options: { readonly stepsMin: number; readonly virtualMsMin: number; readonly leaderChangesMin: number }): CoreWorldReport {
    for (const node of this.#nodes.values()) this.#boot(node);
    const faults = new FaultSchedule({ queue: this.#queue, random: this.#random.fork(), target: this, network: this.#network });
    this.#planLoad();
    const { stepsMin, virtualMsMin, leaderChangesMin } = options;
    const isEnough = (): boolean =>
      this.#queue.steps >= stepsMin && this.#queue.nowMs >= virtualMsMin && this.checker.counts.leaderChanges >= leaderChangesMin;
    let nudgeMs = virtualMsMin;
    while (!isEnough()) {
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
    for (const pending of node.pending.slice(0, survives)) apply(node.durable, pending.operations);
    node.pending = [];
    node.syncing = false;
    for (const peer of this.#nodes.values()) this.#linkChanged(peer, member, false);
  }

  restart(member: string): void {
    const node = this.#node(member);
    node.core = new Raft(this.#options);
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
    const goal = this.checker.committed + 3;
    const giveUpMs = this.#queue.nowMs + 20_000;
    const isDone = (): boolean => [...this.#nodes.values()].every((node) => node.deliveredCount >= goal);
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
    if (this.#random.chance(0.3)) {
      this.#feed(node, { kind: "read", nowMs: this.#clock(node), ticket });
      return;
    }
    const payload = Uint8Array.of(ticket & 255, (ticket >> 8) & 255, (ticket >> 16) & 255);
    this.#feed(node, { kind: "submit", nowMs: this.#clock(node), ticket, payload });
  }

  #makeNode(name: string): Node {
    return {
      name,
      clockOffsetMs: this.#random.between(0, 1e6),
      durable: { meta: new Map(), entries: [], snapshot: undefined },
      core: new Raft(this.#options),
      up: false,
      incarnation: 0,
      pausedUntilMs: 0,
      timer: undefined,
      pending: [],
      syncing: false,
      durableSequence: 0,
      waiting: [],
      delivered: undefined,
      deliveredCount: 0,
      diskFactor: 1,
    };
  }

  #boot(node: Node): void {
    node.up = true;
    node.durableSequence = 0;
    const { meta, entries, snapshot } = node.durable;
    const recovered: Recovered = { meta: new Map(meta), entries: [...entries], ...(snapshot === undefined ? {} : { snapshot }) };
    node.deliveredCount = snapshot?.index ?? 0;
    this.checker.onStart(node.name, recovered);
    const dice = this.#random.fork();
    const environment = {
      self: node.name,
      configuration: this.#configuration,
      nowMs: this.#clock(node),
      randomUint32: () => dice.uint32(),
    };
    this.#route(node, node.core.start(environment, recovered));
  }

  #clock(node: Node): number {
    return this.#queue.nowMs + node.clockOffsetMs;
  }

  #feed(node: Node, input: Input<RaftMessage>): void {
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

  #route(node: Node, outputs: readonly Output<RaftMessage>[]): void {
    for (const output of outputs) {
      switch (output.kind) {
        case "persist":
          node.pending.push(output);
          this.#sync(node);
          break;
        case "send":
          this.#writer.reset();
          encodeRaftMessage(this.#writer, output.message);
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
      this.checker.onWire(node.name, letter.to, decodeRaftMessage(letter.frame));
      this.#network.send(node.name, letter.to, () => this.#arrive(node.name, this.#node(letter.to), letter.frame));
    }
    node.waiting = waiting;
  }

  #arrive(from: string, to: Node, frame: Uint8Array): void {
    this.#wake(to, () => {
      this.#trace =
        (Math.imul(this.#trace, 31) + frame.length * 7 + (frame[0] as number) + Math.floor(this.#queue.nowMs * 1000)) | 0;
      this.#feed(to, { kind: "message", nowMs: this.#clock(to), from, message: decodeRaftMessage(frame) });
    });
  }

  #setTimer(node: Node, atMs: number): void {
    if (node.timer !== undefined) this.#queue.cancel(node.timer);
    node.timer = this.#queue.schedule(atMs - this.#clock(node), () => {
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
      for (const pending of written) apply(node.durable, pending.operations);
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
    const snapshotIndex = node.durable.snapshot?.index ?? 0;
    if (last.index - snapshotIndex < this.#snapshotEvery) return;
    // The abstract snapshot is durable at once, as a renamed file would be; its content is its index.
    this.#queue.schedule(0, () =>
      this.#wake(node, () => {
        if (last.index <= (node.durable.snapshot?.index ?? 0)) return;
        const snapshot = {
          index: last.index,
          term: last.term,
          configuration: this.#configuration,
          stampMs: last.stampMs,
          lengthBytes: 16,
        };
        takeSnapshot(node.durable, snapshot);
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
        const { snapshot } = node.durable;
        if (snapshot === undefined)
          throw new InvariantViolation("SnapshotExists", `${node.name} is asked for a snapshot that it does not have`);
        const content = new Float64Array([snapshot.index, snapshot.stampMs]);
        const bytes = new Uint8Array(content.buffer).slice(ask.offset, ask.offset + ask.lengthBytes);
        const { index, term, configuration } = snapshot;
        const done = ask.offset + bytes.length >= 16;
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

  #install(node: Node, output: Extract<Output<RaftMessage>, { kind: "install-snapshot" }>): void {
    this.#queue.schedule(this.#random.between(0.1, 5), () =>
      this.#wake(node, () => {
        const stampMs = 0;
        const { index, term, configuration } = output;
        const kept = node.durable.entries.find((entry) => entry.index === index)?.term === term;
        if (!kept) node.durable.entries = [];
        takeSnapshot(node.durable, { index, term, configuration, stampMs, lengthBytes: 16 });
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

function apply(durable: DurableState, operations: readonly LogOperation[]): void {
  for (const operation of operations) {
    if (operation.kind === "meta") for (const [name, value] of Object.entries(operation.values)) durable.meta.set(name, value);
    else if (operation.kind === "truncate") durable.entries = durable.entries.filter((entry) => entry.index < operation.from);
    else {
      const { entry } = operation;
      const base = durable.snapshot?.index ?? 0;
      if (entry.index <= base || entry.index > base + durable.entries.length + 1) continue;
      durable.entries.length = entry.index - base - 1;
      durable.entries.push(entry);
    }
  }
}

function takeSnapshot(durable: DurableState, snapshot: NonNullable<Recovered["snapshot"]>): void {
  durable.snapshot = snapshot;
  durable.entries = durable.entries.filter((entry) => entry.index > snapshot.index);
}
