/**
 * A group of consensus cores of one protocol, alone: no replica, no machine, no client; only letters, an abstract disk and the adversary.
 * The fastest world, for the protocol's own invariants; `world.ts` is the whole stack.
 *
 * Each letter is encoded and decoded on its way, so that nothing is shared by reference.
 */
import { ByteWriter } from "../base/byte-codec.ts";
import { membersOf } from "../consensus/configuration.ts";
import type { Configuration, Core, Input, LogEntry, LogOperation, Output } from "../consensus/core.ts";
import type { Protocol } from "../replica/protocol.ts";
import { AbstractDisk } from "./abstract-disk.ts";
import type { Coverage } from "./coverage.ts";
import { Datagrams } from "./datagrams.ts";
import { Dice } from "./dice.ts";
import { EventQueue, type ScheduledEvent } from "./event-queue.ts";
import { FaultFilter } from "./fault-filter.ts";
import { FaultPlayer, type FaultTarget } from "./fault-player.ts";
import { FaultSchedule } from "./fault-schedule.ts";
import type { Checker, CheckerCounts } from "./group-checker.ts";
import { InvariantViolation } from "./invariant-violation.ts";
import { Operator } from "./operator.ts";
import type { SimulatedProtocol } from "./protocols.ts";
import { Random } from "./random.ts";
import { hasRunEnough, type RunFloors } from "./run-floors.ts";
import {
  type CoreSchedule,
  type CoreWorldEvent,
  type FaultEvent,
  isLoad,
  type LoadEvent,
  type Setup,
  type Timed,
} from "./schedule.ts";

/** A snapshot's content: the index and the agreed time, which is all that there is to remember here. */
const snapshotBytes = 16;

interface Pending {
  readonly sequence: number;
  readonly operations: readonly LogOperation[];
}

interface Node {
  readonly name: string;
  readonly clock: { readonly offsetMs: number; readonly rate: number };
  /** Its disk's, and what its cores are seeded with. */
  readonly random: Random;
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
  readonly steps: number;
  readonly virtualMs: number;
  readonly traceHash: number;
  readonly counts: CheckerCounts;
  readonly coverage: Coverage;
}

/** Within this time of peace all members agree again, or the slowest of them has taken so many entries more. */
const settleMs = 20_000;
/** At the end of a seed. */
const loneWrites = 3;
const progressMin = 500;

export class CoreWorld implements FaultTarget {
  readonly members: readonly string[];
  readonly checker: Checker<unknown>;
  readonly #queue = new EventQueue();
  readonly #dice: Dice;
  readonly #setup: Setup;
  readonly #protocol: Protocol;
  readonly #isClaim: (message: unknown) => boolean;
  readonly #network: Datagrams;
  readonly #player: FaultPlayer;
  readonly #nodes = new Map<string, Node>();
  readonly #configuration: Configuration;
  readonly #operator: Operator | undefined;
  readonly #writer = new ByteWriter();
  /** What was done to the group so far, for a schedule; empty unless the world records. */
  readonly events: Timed<CoreWorldEvent>[] = [];
  readonly #records: boolean;
  /** Undefined while the faults last. */
  healedAtMs: number | undefined;
  /** Will be cut off when it has written down that it is a voter no more. */
  #leaver: string | undefined;
  #ticket = 0;
  #trace = 0;

  constructor(parts: {
    readonly protocol: SimulatedProtocol<unknown>;
    readonly setup: Setup;
    readonly dice: number;
    readonly records?: boolean;
  }) {
    const { protocol, setup } = parts;
    this.#records = parts.records ?? false;
    this.#setup = setup;
    this.#dice = new Dice(parts.dice);
    this.#protocol = protocol.withLimits(setup.limits);
    this.#isClaim = (message) => protocol.isClaim(message);
    this.#operator = protocol.hasMembership ? new Operator(this.#dice.stream("operator")) : undefined;
    this.members = [...setup.voters, ...setup.spares];
    this.#configuration = { voters: setup.voters, learners: [] };
    this.checker = protocol.makeChecker(this.#configuration);
    this.checker.leaseHolders = () => this.#leaseHolders();
    this.#network = new Datagrams(this.#queue, this.#dice);
    this.#player = new FaultPlayer({ queue: this.#queue, target: this, network: this.#network });
    for (const name of this.members) this.#nodes.set(name, this.#makeNode(name));
  }

  get nowMs(): number {
    return this.#queue.nowMs;
  }

  /** Events delivered so far. */
  get steps(): number {
    return this.#queue.steps;
  }

  /**
   * Faults for at least so many steps and so much virtual time, then peace, in which the group must come together; at last a
   * minority of the voters goes for good, and the others must go on.
   */
  run(floors: RunFloors, filter = new FaultFilter()): CoreWorldReport {
    for (const node of this.#nodes.values()) this.#boot(node);
    const strike = (event: FaultEvent): void => this.#do(event);
    const faults = new FaultSchedule({
      queue: this.#queue,
      random: this.#dice.stream("faults"),
      target: this,
      strike,
      filter,
      ambushes: this.#dice.stream("ambushes"),
    });
    const load = this.#planLoad("load", (event) => this.#do(event));
    let nudgeMs = floors.virtualMsMin;
    while (!hasRunEnough(floors, this.#queue, this.checker.counts)) {
      this.#queue.step();
      if (this.#queue.nowMs <= nudgeMs || !filter.allows("pause")) continue;
      // A quiet seed: what is missing is a change of leader.
      nudgeMs = this.#queue.nowMs + 2_000;
      const leader = this.leader();
      if (leader !== undefined) this.#do({ do: "pause", member: leader, forMs: 1_500 });
    }
    faults.stop();
    load.stop();
    return this.#end();
  }

  /** The events of a schedule at their times, then peace as above. */
  replay({ events, healAtMs }: Pick<CoreSchedule, "events" | "healAtMs">): CoreWorldReport {
    for (const node of this.#nodes.values()) this.#boot(node);
    for (const event of events) this.#queue.schedule(event.atMs, () => this.#do(event));
    while (this.#queue.step(healAtMs));
    return this.#end();
  }

  leader(): string | undefined {
    let best: string | undefined;
    let bestTerm = -1;
    for (const node of this.#nodes.values()) {
      if (!node.up) continue;
      const { role, term } = node.core.probe();
      if (role !== "leader" || term <= bestTerm) continue;
      best = node.name;
      bestTerm = term;
    }
    return best;
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
    const survives = node.random.integer(0, node.pending.length);
    for (const pending of node.pending.slice(0, survives)) node.disk.apply(pending.operations);
    node.pending = [];
    node.syncing = false;
    for (const peer of this.#nodes.values()) this.#linkChanged(peer, member, false);
  }

  restart(member: string): void {
    const node = this.#node(member);
    node.core = this.#protocol.makeCore();
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
    this.#queue.schedule(node.random.between(1, 200), () => this.#linkChanged(node, to, true));
  }

  slowDisk(member: string, factor: number): void {
    this.#node(member).diskFactor = factor;
  }

  #end(): CoreWorldReport {
    this.healedAtMs = this.#queue.nowMs;
    this.#player.heal();
    for (const node of this.#nodes.values()) node.pausedUntilMs = 0;
    const load = this.#planLoad("load in peace", (event) => this.#load(event));
    this.#settle();
    if (this.#maySeeOff()) this.#seeOffLeader();
    else {
      const left = this.#loseMinority();
      load.stop();
      for (let nth = 0; nth < loneWrites; nth++) this.#writeAlone(left);
    }
    return {
      steps: this.#queue.steps,
      virtualMs: this.#queue.nowMs,
      traceHash: this.#trace >>> 0,
      counts: this.checker.counts,
      coverage: this.checker.coverage,
    };
  }

  #do(event: CoreWorldEvent): void {
    if (this.#records) this.events.push({ ...event, atMs: this.#queue.nowMs });
    if (isLoad(event)) this.#load(event);
    else this.#player.play(event);
  }

  #settle(): void {
    this.#operator?.rest();
    const goal = this.checker.committed + 3;
    const healedMs = this.#queue.nowMs;
    // A member that fetches a long log through a window of one entry takes its time; one that stands still does not get it.
    let giveUpMs = healedMs + settleMs;
    let least = this.#leastProgress();
    const isDone = (): boolean => {
      const leader = this.leader();
      const configuration = leader === undefined ? undefined : this.#node(leader).core.probe().configuration;
      if (configuration === undefined) return false;
      // Of one configuration: a joint one that a voter still has may want a member that the last act takes away (seed 1511).
      const holdsIt = (member: string): boolean => {
        const { voters, outgoing } = this.#node(member).core.probe().configuration;
        return outgoing === undefined && voters.join() === configuration.voters.join();
      };
      return (
        configuration.voters.every(holdsIt) &&
        membersOf(configuration).every((member) => this.#node(member).deliveredCount >= goal)
      );
    };
    while (!isDone()) {
      if (
        this.#queue.nowMs > giveUpMs &&
        this.#leastProgress() >= least + progressMin &&
        this.#queue.nowMs < healedMs + 10 * settleMs
      ) {
        giveUpMs += settleMs;
        least = this.#leastProgress();
      }
      if (this.#queue.nowMs > giveUpMs || !this.#queue.step()) {
        const state = [...this.#nodes.values()].map(
          (node) => `${node.name}: ${node.core.probe().role} term ${node.core.probe().term} delivered ${node.deliveredCount}`,
        );
        const afterMs = Math.round(this.#queue.nowMs - healedMs);
        throw new InvariantViolation(
          "Liveness",
          `${afterMs} ms after healing, not all members reached ${goal}: ${state.join("; ")}`,
        );
      }
    }
  }

  /** What a quorum promises: with as many voters gone as it bears, the others go on. */
  #loseMinority(): readonly string[] {
    const random = this.#dice.stream("minority");
    const leader = this.leader() as string;
    const left = [...this.#node(leader).core.probe().configuration.voters];
    const gone: string[] = [];
    for (let most = (left.length - 1) >> 1; gone.length < most; ) {
      const [member] = left.splice(random.integer(0, left.length - 1), 1) as [string];
      gone.push(member);
      if (this.isUp(member)) this.crash(member);
    }
    const goal = this.checker.committed + 3;
    const untilMs = this.#queue.nowMs + settleMs;
    while (this.checker.committed < goal) {
      if (this.#queue.nowMs <= untilMs && this.#queue.step()) continue;
      throw new InvariantViolation("QuorumSuffices", `[${gone}] are gone, and [${left}] commit nothing for ${settleMs} ms`);
    }
    return left;
  }

  /**
   * One write with nothing before it under way and nothing behind it that would take it along: its own acknowledgements have to
   * commit it, whichever of the disks confirms last.
   */
  #writeAlone(left: readonly string[]): void {
    const random = this.#dice.stream("lone writes");
    let untilMs = this.#queue.nowMs + settleMs;
    let { committed } = this.checker;
    const goal = committed + 1;
    const isAtRest = (leader: string): boolean => this.#node(leader).core.probe().lastIndex <= this.checker.committed;
    let askAgainMs = 0;
    for (;;) {
      const leader = this.leader();
      if (leader !== undefined && isAtRest(leader)) {
        if (this.checker.committed >= goal) return;
        // Nothing is under way there, so it was refused, or is yet to be asked.
        if (this.#queue.nowMs >= askAgainMs) {
          askAgainMs = this.#queue.nowMs + 500;
          this.slowDisk(leader, random.pick([1, 40]));
          this.#load({ do: "submit", member: leader, ticket: ++this.#ticket });
        }
      }
      // What the load left behind may go through a window of one entry: while it goes, the time begins anew.
      if (this.checker.committed > committed) {
        ({ committed } = this.checker);
        untilMs = this.#queue.nowMs + settleMs;
      }
      if (this.#queue.nowMs <= untilMs && this.#queue.step()) continue;
      const state = left.map((member) => {
        const { role, term, lastIndex, committedIndex } = this.#node(member).core.probe();
        return `${member}: ${role}, term ${term}, last ${lastIndex}, committed ${committedIndex}`;
      });
      const text = `a write with nothing behind it is not committed in ${settleMs} ms, goal ${goal}; ${state.join("; ")}`;
      throw new InvariantViolation("LastWriteCommits", text);
    }
  }

  #maySeeOff(): boolean {
    const leader = this.leader() as string;
    const { voters } = this.#node(leader).core.probe().configuration;
    return this.#operator !== undefined && voters.length >= 4 && voters.length % 2 === 0 && voters.includes(leader);
  }

  /**
   * The leader of an even number of voters removes itself, is cut off the moment it has written so down, and one of the
   * others goes for good. The rest still needs the leader's vote, which only a log as long as its own would get: so it has to
   * campaign, no voter of its own configuration any more (thesis §4.2.2; once seed 1314).
   */
  #seeOffLeader(): void {
    const leader = this.leader() as string;
    const node = this.#node(leader);
    const { voters } = node.core.probe().configuration;
    const others = voters.filter((member) => member !== leader);
    const waitFor = (isDone: () => boolean, what: string): void => {
      const untilMs = this.#queue.nowMs + settleMs;
      while (!isDone()) {
        if (this.#queue.nowMs <= untilMs && this.#queue.step()) continue;
        throw new InvariantViolation("QuorumSuffices", `${leader} left [${voters}], and ${what} does not come in ${settleMs} ms`);
      }
    };
    const isLeading = (): boolean => node.core.probe().role === "leader";
    this.#leaver = leader;
    const ask = (): void => {
      if (this.#leaver === undefined || !isLeading()) return;
      const change = { kind: "remove", member: leader } as const;
      this.#feed(node, { kind: "change", nowMs: this.#clock(node), ticket: ++this.#ticket, change });
      // Refused while an older change is not committed, or under way.
      this.#queue.schedule(500, ask);
    };
    ask();
    waitFor(() => this.#leaver === undefined || !isLeading(), "the end of the joint configuration");
    if (this.#leaver === undefined) {
      this.crash(this.#dice.stream("minority").pick(others));
      waitFor(() => !isLeading(), "the end of its leadership");
      for (const member of this.members) this.#openBothWays(leader, member);
    }
    const goal = this.checker.committed + 3;
    waitFor(() => this.checker.committed >= goal, "a commit");
  }

  /** Before the first letter that would tell of it leaves. */
  #maybeCutOff(node: Node): void {
    const { voters, outgoing } = node.core.probe().configuration;
    if (outgoing !== undefined || voters.includes(node.name)) return;
    this.#leaver = undefined;
    for (const member of this.members) {
      this.#network.cut(node.name, member);
      this.#network.cut(member, node.name);
    }
  }

  #openBothWays(one: string, two: string): void {
    this.#network.open(one, two);
    this.#network.open(two, one);
  }

  #leastProgress(): number {
    return Math.min(...[...this.#nodes.values()].map(({ core, deliveredCount }) => deliveredCount + core.probe().lastIndex));
  }

  #planLoad(stream: string, request: (event: LoadEvent) => void): { stop(): void } {
    const random = this.#dice.stream(stream);
    const everyMs = random.pick([2, 10, 50]);
    let stopped = false;
    const plan = (): void => {
      this.#queue.schedule(random.between(0, 2 * everyMs), () => {
        if (stopped) return;
        const leader = this.leader();
        const member = leader !== undefined && random.chance(0.8) ? leader : random.pick(this.members);
        if (this.#isAwake(member)) request(this.#drawRequest(random, member));
        plan();
      });
    };
    plan();
    return {
      stop: () => {
        stopped = true;
      },
    };
  }

  #drawRequest(random: Random, member: string): LoadEvent {
    const ticket = ++this.#ticket;
    const wish = this.#operator?.wish(this.#node(member).core.probe(), this.members);
    if (wish?.kind === "transfer") return { do: "transfer", member, ticket, ...(wish.to === undefined ? {} : { to: wish.to }) };
    if (wish !== undefined) return { do: "change", member, ticket, change: wish.change };
    if (!random.chance(0.3)) return { do: "submit", member, ticket };
    return { do: "read", member, ticket, level: this.#operator?.readLevel() ?? "linearizable" };
  }

  #load(event: LoadEvent): void {
    const { member, ticket } = event;
    if (!this.#isAwake(member)) return;
    const node = this.#node(member);
    this.#ticket = Math.max(this.#ticket, ticket);
    const nowMs = this.#clock(node);
    switch (event.do) {
      case "submit":
        this.#feed(node, { kind: "submit", nowMs, ticket, payload: payloadOf(ticket) });
        break;
      case "read":
        this.#feed(node, { kind: "read", nowMs, ticket, level: event.level });
        break;
      case "change":
        this.#feed(node, { kind: "change", nowMs, ticket, change: event.change });
        break;
      case "transfer":
        this.#feed(node, { kind: "transfer", nowMs, ticket, to: event.to });
        break;
    }
  }

  #isAwake(member: string): boolean {
    const node = this.#node(member);
    return node.up && node.pausedUntilMs <= this.#queue.nowMs;
  }

  #makeNode(name: string): Node {
    return {
      name,
      clock: this.#setup.clocks[name] ?? { offsetMs: 0, rate: 1 },
      random: this.#dice.stream(`member ${name}`),
      disk: new AbstractDisk(this.#protocol.slots === "sparse"),
      core: this.#protocol.makeCore(),
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
    const dice = node.random.fork();
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
    return node.clock.offsetMs + this.#queue.nowMs * node.clock.rate;
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
  #wake(node: Node, run: () => void, incarnation = node.incarnation): void {
    if (!node.up || node.incarnation !== incarnation) return;
    if (node.pausedUntilMs <= this.#queue.nowMs) run();
    else this.#queue.schedule(node.pausedUntilMs - this.#queue.nowMs, () => this.#wake(node, run, incarnation));
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
    if (this.#leaver === node.name) this.#maybeCutOff(node);
    if (node.waiting.length === 0) return;
    const waiting: Node["waiting"] = [];
    for (const letter of node.waiting) {
      if (letter.after > node.durableSequence) {
        waiting.push(letter);
        continue;
      }
      const { to, frame } = letter;
      // Decoded once for the checker, which keeps nothing of it, and for whoever gets the first copy; a double is decoded anew.
      let message: unknown = this.#protocol.decode(frame);
      this.checker.onWire?.(node.name, to, message);
      if (this.#isClaim(message)) this.#player.spot("claim", node.name);
      this.#network.send(node.name, to, () => {
        this.#arrive(node.name, this.#node(to), frame, message ?? this.#protocol.decode(frame));
        message = undefined;
      });
    }
    node.waiting = waiting;
  }

  #arrive(from: string, to: Node, frame: Uint8Array, message: unknown): void {
    this.#wake(to, () => {
      this.#trace =
        (Math.imul(this.#trace, 31) + frame.length * 7 + (frame[0] as number) + Math.floor(this.#queue.nowMs * 1000)) | 0;
      this.#feed(to, { kind: "message", nowMs: this.#clock(to), from, message });
    });
  }

  #setTimer(node: Node, atMs: number): void {
    node.timer = this.#queue.reschedule(node.timer, (atMs - this.#clock(node)) / node.clock.rate, () => {
      // Not before its time by a rounding error: a core may ignore an early tick, and nobody would call again.
      this.#wake(node, () => this.#feed(node, { kind: "tick", nowMs: Math.max(atMs, this.#clock(node)) }));
    });
  }

  #sync(node: Node): void {
    if (node.syncing || node.pending.length === 0) return;
    node.syncing = true;
    const { incarnation } = node;
    const count = node.pending.length;
    this.#queue.schedule(node.random.between(0.05, 2) * node.diskFactor, () => {
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
    if (last.index - snapshotIndex < this.#setup.snapshotEvery) return;
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
        node.disk.putSnapshot(snapshot, { underWay: node.pending.length });
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
    this.#queue.schedule(node.random.between(0.1, 5), () =>
      this.#wake(node, () => {
        const { index, term, configuration } = output;
        const [content, stampMs] = new Float64Array(node.receiving.buffer) as unknown as [number, number];
        if (content !== index)
          throw new InvariantViolation("SnapshotWhole", `${node.name} installs ${index} from the bytes of ${content}`);
        const snapshot = { index, term, configuration, stampMs, lengthBytes: snapshotBytes };
        node.disk.putSnapshot(snapshot, { underWay: node.pending.length });
        if (this.#player.spot("install", node.name)) return;
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

function payloadOf(ticket: number): Uint8Array {
  return Uint8Array.of(ticket & 255, (ticket >> 8) & 255, (ticket >> 16) & 255);
}

/** True clocks, any clocks, or what a lease fears most: one slow clock among fast ones. */
function drawRates(
  random: Random,
  { voters, drift }: { readonly voters: readonly string[]; readonly drift: number },
): (name: string) => number {
  const slowest = random.pick(voters);
  const kind = random.pick(["true", "any", "one slow"]);
  if (kind === "true") return () => 1;
  if (kind === "any") return () => 1 + random.between(-drift, drift);
  return (name) => (name === slowest ? 1 - drift : 1 + drift);
}

/** The group that a seed stands for. */
export function drawSetup(seed: number, protocol: SimulatedProtocol<unknown>, filter = new FaultFilter()): Setup {
  const random = new Random(seed);
  const voters = protocol.membersOf(random);
  const spares = protocol.hasMembership ? new Operator(new Dice(seed).stream("operator")).spares(voters) : [];
  const drawn = { limits: protocol.drawLimits(random, "core"), snapshotEvery: random.pick([5, 40, 1_000_000]) };
  const { limits, snapshotEvery } = filter.allows("tiny-limits") ? drawn : { limits: {}, snapshotEvery: 1_000_000 };
  const rateOf = drawRates(random, { voters, drift: filter.allows("drift") ? protocol.clockDriftMax : 0 });
  const clocks = [...voters, ...spares].map((name) => [name, { offsetMs: random.between(0, 1e6), rate: rateOf(name) }] as const);
  return { voters, spares, limits, snapshotEvery, clocks: Object.fromEntries(clocks) };
}
