/**
 * A whole cluster in one process: members with their logs on faulty disks, clients with sessions and locks, a network and
 * an adversary, all on one seeded clock. The members, clients and recipes are the production files.
 *
 * A run has four acts: faults for so many events, virtual seconds and changes of leader; healing; a power cut of every
 * member at once; and the judgement: every client can work again, histories are linearizable, sets are exact, members equal.
 *
 * Most of the stack is promises, so after each event the host drains the microtasks (`drain`), and the order stays exact.
 */
import { onBackgroundFailure } from "../base/background.ts";
import { crc32 } from "../base/crc32.ts";
import { hasCode } from "../base/errors.ts";
import type { Client } from "../client/client.ts";
import type { Core } from "../consensus/core.ts";
import { Member } from "../replica/member.ts";
import type { Protocol } from "../replica/protocol.ts";
import { type Caps, embeddedLimits } from "../store/caps.ts";
import type { Session } from "../store/store.ts";
import { checkLinearizable } from "../testing/linearizability/check-linearizable.ts";
import { explain } from "../testing/linearizability/explain.ts";
import { registerModel } from "../testing/linearizability/register-model.ts";
import type { Coverage } from "./coverage.ts";
import { Datagrams } from "./datagrams.ts";
import { Dice } from "./dice.ts";
import { EventQueue } from "./event-queue.ts";
import { FaultFilter } from "./fault-filter.ts";
import { FaultPlayer, type FaultTarget } from "./fault-player.ts";
import { FaultSchedule } from "./fault-schedule.ts";
import type { Checker, CheckerCounts } from "./group-checker.ts";
import { InvariantViolation } from "./invariant-violation.ts";
import { ObservedClient } from "./observed-client.ts";
import { ObservedCore } from "./observed-core.ts";
import type { SimulatedProtocol } from "./protocols.ts";
import { Random } from "./random.ts";
import { judgeRecipes, RecipeOracles, recipeClientCount, runRecipes } from "./recipe-workload.ts";
import { hasRunEnough, type RunFloors } from "./run-floors.ts";
import type { DiskFaultEvent, StackSchedule, StackSetup, StackWorldEvent, Timed } from "./schedule.ts";
import { judgeShared, runShared, SharedOracles, sharedClientCount } from "./shared-workload.ts";
import { SimulatedDisk } from "./simulated-disk.ts";
import { PausingDisk, SimulatedProcess } from "./simulated-process.ts";
import { SimulatedNetwork } from "./simulated-transport.ts";
import { ambushedSetup, planDeafWatcher, runCrowd, stackAmbushes } from "./stack-ambushes.ts";
import { WatchTruth } from "./watch-judge.ts";
import { habitsOf, runWatches, type WatchParts, watchToTheEnd } from "./watch-workload.ts";
import { judgeClaims, judgeSets, Observations, runLocks, runRegisters, type WorkloadParts } from "./workload.ts";

/** The cluster that a seed stands for. */
export function drawStackSetup(seed: number, protocol: SimulatedProtocol<unknown>, filter = new FaultFilter()): StackSetup {
  const random = new Random(seed);
  const limits = protocol.drawLimits(random, "stack");
  const segmentBytes = random.pick([4_096, 65_536]);
  const snapshotEveryBytes = random.pick([2_000, 20_000, 100_000_000]);
  const datagrams = random.chance(0.5);
  const drift = filter.has("drift", random.chance(0.5)) ? protocol.clockDriftMax : 0;
  const rateOf = (name: string): [string, number] => [name, 1 + random.between(-drift, drift)];
  const everybody = [...memberNames, ...clientNames].map(rateOf);
  const sharing = random.chance(sharingChance);
  const rates = Object.fromEntries(sharing ? [...everybody, ...sharingNames.map(rateOf)] : everybody);
  const ambush = filter.has("ambush", random.chance(ambushChance)) ? { ambush: random.pick(stackAmbushes) } : {};
  const drawn = { datagrams, rates, sharing, ...ambush };
  if (filter.allows("tiny-limits")) return ambushedSetup({ limits, segmentBytes, snapshotEveryBytes, ...drawn });
  return { limits: {}, segmentBytes: 65_536, snapshotEveryBytes: 100_000_000, ...drawn };
}

export interface WorldOptions {
  readonly protocol: SimulatedProtocol<unknown>;
  /** Default: what the seed draws. */
  readonly setup?: StackSetup;
  /** Keeps what was done to the cluster, for a schedule. */
  readonly records?: boolean;
  /** Lets every promise that is ready go on, and returns when none is. */
  readonly drain: () => Promise<void>;
  /** Default: every kind of fault, as the seed draws. */
  readonly filter?: FaultFilter;
  /** Told of every event that the members emit, for `--trace`. */
  readonly onTrace?: (atMs: number, text: string) => void;
}

export interface WorldReport {
  readonly seed: number;
  readonly steps: number;
  readonly virtualMs: number;
  readonly traceHash: number;
  readonly counts: CheckerCounts;
  readonly coverage: Coverage;
  readonly operations: number;
  readonly grants: number;
  readonly losses: number;
}

interface Node {
  readonly name: string;
  disk: SimulatedDisk;
  process: SimulatedProcess;
  member: Member | undefined;
  /** Booting counts as up: the adversary may strike then too. */
  isUp: boolean;
  /** Its disk lost something that it had promised to keep, and it said so: it must not come back. */
  isRetired: boolean;
  /** Its disk is full or fails, so it may stop by itself; it is started again so long after that. */
  stopsForMs: number | undefined;
  /** Killed or power cut. */
  readonly random: Random;
}

const cluster = "simulated";
const wallBaseMs = 1_700_000_000_000;
const settleMsMax = 60_000;
const memberNames = ["a", "b", "c"];
/** Two for registers, two for locks, one watches; the others use the other recipes. */
const workerCount = 4;
const watcherCount = 1;
const watcherName = `client-${workerCount}`;
/** Who brings the crowd. */
const crowdNumber = 2;
const recipesFrom = workerCount + watcherCount;
const sharedFrom = recipesFrom + recipeClientCount;
const allNames = Array.from({ length: sharedFrom + sharedClientCount }, (_, number) => `client-${number}`);
const clientNames = allNames.slice(0, sharedFrom);
/** There in some runs and for a while: such a run costs a quarter more. */
const sharingNames = allNames.slice(sharedFrom);
const sharingChance = 1 / 4;
const sharingForMs = 12_000;
const ambushChance = 3 / 4;
/** Some ten events. */
const tinyBufferBytes = 500;
/** Durable writes behind a damaged place until its loss can be told from an interrupted write. */
const damageWritesMin = 3;

const caps: Caps = {
  engine: "simulated",
  linearizable: "always",
  durability: "quorum",
  watch: "log",
  handOff: "server",
  clock: "virtual",
  fair: true,
  crossNamespace: true,
  claims: true,
  olderReads: true,
  tokenSurvives: ["restart", "failover", "restore"],
  limits: embeddedLimits,
};

export class World implements FaultTarget {
  readonly members: readonly string[];
  readonly #seed: number;
  readonly #options: WorldOptions;
  readonly #queue = new EventQueue();
  readonly #dice: Dice;
  readonly #setup: StackSetup;
  readonly #player: FaultPlayer;
  readonly #datagrams: Datagrams;
  readonly #network: SimulatedNetwork;
  readonly #checker: Checker<unknown>;
  readonly #nodes = new Map<string, Node>();
  readonly #addresses: ReadonlyMap<string, string>;
  readonly #protocol: Protocol;
  /** The one member whose disk may lie, or be lost. */
  #damaged: string | undefined;
  /** Its disk was lost, and with it its votes. */
  #wiped: string | undefined;
  readonly #filter: FaultFilter;
  /** Of each process: how often it was started. */
  readonly #lives = new Map<string, number>();
  /** What was done to the cluster so far, for a schedule; empty unless the world records. */
  readonly events: Timed<StackWorldEvent>[] = [];
  /** Undefined while the faults last. */
  healedAtMs: number | undefined;
  readonly #observations: Observations;
  /** Every session that a client opened for somebody, by its number. */
  readonly #sessions = new Map<number, Session>();
  readonly #truth = new WatchTruth((session) => this.#sessions.get(session)?.alive === true);
  readonly #watchers: WatchParts[] = [];
  readonly #recipes: RecipeOracles;
  readonly #shared: SharedOracles;
  readonly #clientNames: readonly string[];
  readonly #clients: { readonly client: Client; readonly process: SimulatedProcess }[] = [];
  /** State digest by applied index: members that applied the same must be the same. */
  readonly #digests = new Map<number, string>();
  #trace = 0;
  #failure: unknown;
  #stopped = false;

  constructor(seed: number, options: WorldOptions) {
    const { protocol, filter = new FaultFilter() } = options;
    this.#seed = seed;
    this.#options = options;
    this.#filter = filter;
    this.#setup = options.setup ?? drawStackSetup(seed, protocol, filter);
    this.#dice = new Dice(seed);
    this.members = memberNames;
    this.#clientNames = this.#setup.sharing === true ? allNames : clientNames;
    this.#addresses = new Map(this.members.map((name) => [name, name]));
    this.#checker = protocol.makeChecker({ voters: this.members, learners: [] });
    this.#observations = new Observations(this.#checker.coverage);
    this.#recipes = new RecipeOracles(this.#checker.coverage, this.#dice.stream("recipes").integer(0, 1_000));
    this.#shared = new SharedOracles(this.#checker.coverage, this.#dice.stream("shared recipes").integer(0, 1_000));
    this.#datagrams = new Datagrams(this.#queue, this.#dice);
    this.#network = new SimulatedNetwork(this.#queue, this.#datagrams);
    this.#player = new FaultPlayer({ queue: this.#queue, target: this, network: this.#datagrams });
    this.#protocol = protocol.withLimits(this.#setup.limits);
    for (const name of this.members) this.#nodes.set(name, this.#makeNode(name));
  }

  get nowMs(): number {
    return this.#queue.nowMs;
  }

  /** Events delivered so far. */
  get steps(): number {
    return this.#queue.steps;
  }

  /** Faults for at least so many steps and so much virtual time, then peace, in which everybody must be served again. */
  async run(floors: RunFloors): Promise<WorldReport> {
    this.#begin();
    for (const client of this.#clientNames) this.#do({ do: "client", client });
    const faults = new FaultSchedule({
      queue: this.#queue,
      random: this.#dice.stream("faults"),
      target: this,
      strike: (event) => this.#do(event),
      filter: this.#filter,
    });
    this.#planClientPauses();
    this.#planWipe();
    if (this.#setup.ambush === "deaf-watcher") this.#planDeafWatcher();
    let nudgeMs = floors.virtualMsMin;
    while (!hasRunEnough(floors, this.#queue, this.#checker.counts)) {
      await this.#step();
      if (this.#queue.nowMs > nudgeMs && this.#filter.allows("pause")) {
        // A quiet seed: what is missing is a change of leader.
        nudgeMs = this.#queue.nowMs + 2_000;
        const leader = this.leader();
        if (leader !== undefined) this.#do({ do: "pause", member: leader, forMs: 1_500 });
      }
    }
    faults.stop();
    return this.#end();
  }

  /** The events of a schedule at their times, then peace as above. */
  async replay({ events, healAtMs }: Pick<StackSchedule, "events" | "healAtMs">): Promise<WorldReport> {
    this.#begin();
    for (const event of events) {
      if (event.atMs === 0) this.#do(event);
      else this.#queue.schedule(event.atMs, () => this.#do(event));
    }
    while (this.#queue.nowMs < healAtMs) await this.#step();
    return this.#end();
  }

  #begin(): void {
    // Else it would end the process, and nobody would know of which seed.
    onBackgroundFailure((name, error) => this.#fail(new InvariantViolation("Background", `${name}: ${String(error)}`)));
    for (const node of this.#nodes.values()) this.#boot(node);
    for (const name of this.#clientNames) this.#makeClient(name);
  }

  async #end(): Promise<WorldReport> {
    this.healedAtMs = this.#queue.nowMs;
    this.#player.heal();
    for (const node of this.#nodes.values()) {
      node.process.resume();
      node.disk.setFull(false);
      node.disk.failNextWrites(0);
    }
    for (const { process } of this.#clients) process.resume();
    this.#stopped = true;
    await this.#powerCut();
    await this.#judge();
    const { steps, nowMs } = this.#queue;
    return {
      seed: this.#seed,
      steps,
      virtualMs: nowMs,
      traceHash: this.#trace >>> 0,
      counts: this.#checker.counts,
      coverage: this.#checker.coverage,
      operations: this.#observations.operations.length,
      grants: this.#observations.grants,
      losses: this.#observations.losses,
    };
  }

  #do(event: StackWorldEvent): void {
    if (this.#options.records === true) this.events.push({ ...event, atMs: this.#queue.nowMs });
    switch (event.do) {
      case "client":
        this.#startWork(event.client);
        break;
      case "client-pause":
        if (event.forMs > 2_000) this.#checker.coverage.hit("a client sleeps longer than its lease");
        this.#client(event.client).process.pause(event.forMs);
        break;
      case "wipe":
        this.#wipe(event);
        break;
      default:
        this.#player.play(event);
    }
  }

  leader(): string | undefined {
    let best: { readonly name: string; readonly term: number } | undefined;
    for (const { name, member } of this.#nodes.values()) {
      const status = member?.replica.status();
      if (status?.role === "leader" && (best === undefined || status.term > best.term)) best = { name, term: status.term };
    }
    return best?.name;
  }

  isUp(member: string): boolean {
    return this.#node(member).isUp;
  }

  crash(member: string): void {
    const node = this.#node(member);
    node.isUp = false;
    node.member = undefined;
    node.process.kill();
    this.#network.closeAllOf(node.process);
    // Damage to the last write of all looks like a write that the power interrupted; no log could tell.
    node.disk.undoFreshDamage(damageWritesMin);
    // Killed, or the power failed with it.
    node.disk = node.random.chance(0.5) ? node.disk.kill() : node.disk.crash();
  }

  restart(member: string): void {
    const node = this.#node(member);
    if (node.isRetired) return;
    node.process = this.#makeProcess(node.name);
    this.#boot(node);
  }

  pause(member: string, durationMs: number): void {
    this.#node(member).process.pause(durationMs);
  }

  breakLink(from: string, to: string): void {
    this.#network.breakBetween(from, to);
  }

  slowDisk(member: string, factor: number): void {
    this.#node(member).disk.setSlowFactor(factor);
  }

  damageDisk(event: DiskFaultEvent): void {
    const node = this.#node(event.member);
    if (!node.isUp || node.member === undefined) return;
    switch (event.do) {
      case "bit-flip":
      case "misdirect":
        // Of a minority: a cluster that lost what a majority of its disks held has nothing to go on with.
        if ((this.#damaged ?? event.member) !== event.member) return;
        if (!this.#haveMet()) return;
        this.#damaged = event.member;
        if (event.do === "misdirect") node.disk.misdirectNext();
        else node.disk.decay(["segment-", "snapshot-"]);
        break;
      case "disk-full":
        node.stopsForMs = event.forMs;
        node.disk.setFull(true);
        this.#queue.schedule(event.forMs, () => node.disk.setFull(false));
        break;
      case "fail-writes":
        node.stopsForMs = event.forMs;
        node.disk.failNextWrites(event.count);
        break;
    }
  }

  /**
   * In some runs a member loses its disk for good, and an operator starts it again on an empty one. It has forgotten its
   * votes: the others must refuse it for ever. Letters as datagrams do without the greeting in which they tell.
   */
  #planWipe(): void {
    const random = this.#dice.stream("wipe");
    if (this.#setup.datagrams || !this.#filter.has("wipe", random.chance(0.3))) return;
    const attempt = (): void => {
      if (this.#stopped || this.#damaged !== undefined) return;
      if (this.#haveMet()) this.#do({ do: "wipe", member: random.pick(this.members), forMs: random.between(1, 500) });
      else this.#queue.schedule(random.between(100, 1_000), attempt);
    };
    this.#queue.schedule(random.between(2_000, 15_000), attempt);
  }

  #planDeafWatcher(): void {
    planDeafWatcher({
      queue: this.#queue,
      random: this.#dice.stream("ambush"),
      members: this.members,
      watcher: watcherName,
      leader: () => this.leader(),
      isStopped: () => this.#stopped,
      strike: (event) => this.#do(event),
    });
  }

  #wipe({ member, forMs }: Extract<StackWorldEvent, { do: "wipe" }>): void {
    // Of a minority, and only where somebody can remember that it was there.
    if (this.#damaged !== undefined || !this.#haveMet()) return;
    this.#damaged = member;
    this.#wiped = member;
    if (this.isUp(member)) this.crash(member);
    this.#node(member).disk = this.#makeDisk(`disk ${member} after its loss`);
    this.#checker.onWiped(member);
    this.#queue.schedule(forMs, () => {
      if (!this.isUp(member)) this.restart(member);
    });
  }

  /** Until then the first start needs every one of them (decision 7). */
  #haveMet(): boolean {
    return [...this.#nodes.values()].every(({ member }) => (member?.replica.status().lastIndex ?? 0) > 0);
  }

  // ------------------------------------------------------------------------------------------------ members

  #makeNode(name: string): Node {
    return {
      name,
      disk: this.#makeDisk(`disk ${name}`),
      process: this.#makeProcess(name),
      member: undefined,
      isUp: false,
      isRetired: false,
      stopsForMs: undefined,
      random: this.#dice.stream(`crash ${name}`),
    };
  }

  #makeDisk(stream: string): SimulatedDisk {
    const random = this.#dice.stream(stream);
    return new SimulatedDisk({
      randomUint32: () => random.uint32(),
      schedule: (delayMs, callback) => this.#queue.schedule(delayMs, callback),
    });
  }

  #makeProcess(name: string): SimulatedProcess {
    const life = (this.#lives.get(name) ?? 0) + 1;
    this.#lives.set(name, life);
    const clockRate = this.#setup.rates[name] ?? 1;
    const random = this.#dice.stream(`process ${name}, life ${life}`);
    return new SimulatedProcess({ name, queue: this.#queue, random, wallBaseMs, clockRate });
  }

  #boot(node: Node): void {
    node.isUp = true;
    const { process, name } = node;
    const trace = this.#options.onTrace;
    const opening = Member.open({
      platform: process.platform,
      disk: new PausingDisk(node.disk, process),
      checksum: crc32,
      transport: this.#network.transportOf(process),
      protocol: { ...this.#protocol, makeCore: () => this.#observedCore(name) },
      member: name,
      cluster,
      addresses: this.#addresses,
      logLimits: { segmentBytes: this.#setup.segmentBytes },
      replicaLimits: { snapshotEveryBytes: this.#setup.snapshotEveryBytes },
      keepsDigest: true,
      onHalt: (why, error) => this.#onStopped(node, error, () => new InvariantViolation("NoHalt", `${name}: ${why}`)),
      ...(this.#setup.datagrams ? { post: (to: string, frame: Uint8Array) => this.#post(process, to, frame) } : {}),
      ...(trace === undefined
        ? {}
        : { telemetry: { emit: (event: { kind: string }) => trace(this.#queue.nowMs, `${name} ${JSON.stringify(event)}`) } }),
    });
    opening.then(
      (member) => {
        if (!process.isAlive || node.process !== process) return;
        node.member = member;
        if (this.#damaged === name) this.#checker.coverage.hit("a damaged disk goes unnoticed, and is right");
        this.#network.listen(process, (connection) => member.accept(connection));
      },
      (error: unknown) => {
        if (process.isAlive) this.#onStopped(node, error, () => error);
      },
    );
  }

  #observedCore(name: string): Core<unknown> {
    return new ObservedCore(name, this.#protocol.makeCore(), this.#checker, (entries) => this.#truth.onDelivered(entries));
  }

  /** A member may refuse to go on where its disk gave it a reason, and nowhere else. */
  #onStopped(node: Node, error: unknown, otherwise: () => unknown): void {
    if (error instanceof InvariantViolation) {
      this.#fail(error);
    } else if (this.#damaged === node.name && (hasCode(error, "LOG_CORRUPT") || hasCode(error, "SNAPSHOT_CORRUPT"))) {
      node.isRetired = true;
      this.#checker.coverage.hit("a member refuses its damaged disk");
      this.crash(node.name);
    } else if (this.#wiped === node.name && hasCode(error, "MEMBER_WIPED")) {
      node.isRetired = true;
      this.#checker.coverage.hit("a wiped disk is refused");
      this.crash(node.name);
    } else if (node.stopsForMs !== undefined && (hasCode(error, "DISK_FULL") || hasCode(error, "DISK_FAILED"))) {
      const { process } = node;
      this.#checker.coverage.hit("a member stops on a full or failing disk");
      this.crash(node.name);
      this.#queue.schedule(node.stopsForMs, () => {
        if (node.process === process && !node.isUp) this.restart(node.name);
      });
    } else {
      this.#fail(otherwise());
    }
  }

  #post(from: SimulatedProcess, to: string, frame: Uint8Array): void {
    if (!from.isAlive) return;
    this.#guard(() => this.#checker.onWire?.(from.name, to, this.#protocol.decode(frame)));
    this.#datagrams.send(from.name, to, () => {
      const { process } = this.#node(to);
      process.run(() => {
        if (process === this.#node(to).process) this.#node(to).member?.replica.receive(from.name, frame.slice());
      });
    });
  }

  /** Members that stand at the same index hold the same state. */
  #compareDigests(): void {
    for (const { name, member } of this.#nodes.values()) {
      if (member === undefined) continue;
      const { machine } = member.replica;
      const index = machine.appliedIndex;
      if (index === 0) continue;
      const digest = machine.digest();
      const known = this.#digests.get(index);
      if (known === undefined) this.#digests.set(index, digest);
      else if (known !== digest)
        throw new InvariantViolation("DigestEquality", `${name} differs from another member at index ${index}`);
    }
  }

  // ------------------------------------------------------------------------------------------------ clients

  #makeClient(name: string): void {
    const { ambush } = this.#setup;
    const process = this.#makeProcess(name);
    const client = new ObservedClient((session) => this.#sessions.set(Number(session.id), session), {
      platform: process.platform,
      transport: this.#network.transportOf(process),
      addresses: [...this.members],
      cluster,
      caps,
      clientName: name,
      ...(name === watcherName && ambush === "far-behind" ? { limits: { watchBufferBytes: tinyBufferBytes } } : {}),
    });
    this.#clients.push({ client, process });
  }

  #startWork(name: string): void {
    const number = this.#clientNames.indexOf(name);
    const parts: WorkloadParts = {
      ...this.#client(name),
      random: this.#dice.stream(`work of ${name}`),
      observations: this.#observations,
      number,
      nowMs: () => this.#queue.nowMs,
      isStopped: () => this.#stopped,
    };
    this.#work(parts).catch((error: unknown) => this.#fail(error));
  }

  #work(parts: WorkloadParts): Promise<void> {
    const { number } = parts;
    if (number < 2) return runRegisters(parts);
    if (number === crowdNumber && this.#setup.ambush === "crowd") {
      const crowd = runCrowd({ ...parts, random: this.#dice.stream("crowd") });
      return Promise.all([runLocks(parts), crowd]).then(() => undefined);
    }
    if (number < workerCount) return runLocks(parts);
    if (number >= sharedFrom) {
      const isStopped = (): boolean => this.#stopped || this.#queue.nowMs > sharingForMs;
      return runShared({ ...parts, oracles: this.#shared, isStopped });
    }
    if (number >= recipesFrom) return runRecipes({ ...parts, oracles: this.#recipes });
    const watcher = { ...parts, truth: this.#truth, habits: habitsOf(this.#setup.ambush) };
    this.#watchers.push(watcher);
    return runWatches(watcher);
  }

  #client(name: string): { readonly client: Client; readonly process: SimulatedProcess } {
    return this.#clients[this.#clientNames.indexOf(name)] as { readonly client: Client; readonly process: SimulatedProcess };
  }

  /** Clients sleep too: a holder that slept through its lease must know it in its next line. */
  #planClientPauses(): void {
    const random = this.#dice.stream("client pauses");
    if (!this.#filter.allows("client-pause")) return;
    const plan = (): void => {
      this.#queue.schedule(random.between(500, 6_000), () => {
        if (this.#stopped) return;
        this.#do({ do: "client-pause", client: random.pick(this.#clientNames), forMs: random.between(100, 5_000) });
        plan();
      });
    };
    plan();
  }

  // ------------------------------------------------------------------------------------------------ the end

  async #powerCut(): Promise<void> {
    await this.#runFor(this.#dice.stream("power cut").between(0, 1_000));
    for (const member of this.members) if (this.isUp(member)) this.crash(member);
    for (const node of this.#nodes.values()) node.disk.setFull(false);
    for (const member of this.members) this.restart(member);
  }

  async #judge(): Promise<void> {
    const number = this.#clients.length;
    const work = (async () => {
      for (const { client, process } of this.#clients) {
        const store = client.store("registers");
        const invokedAt = this.#queue.nowMs;
        const { results } = await store.txn(
          { then: ["x", "y", "z"].map((key) => ({ kind: "get", key })) },
          { timeoutMs: settleMsMax },
        );
        const returnedAt = this.#queue.nowMs;
        for (const [at, key] of ["x", "y", "z"].entries()) {
          const result = results[at];
          const value = result?.kind === "get" ? (result.entry?.text ?? null) : null;
          this.#observations.operations.push({
            process: number,
            key,
            input: { f: "read" },
            output: { f: "read", value },
            invokedAt,
            returnedAt,
          });
        }
        await store.txn({ then: [{ kind: "put", key: "fresh", value: process.name }] }, { timeoutMs: settleMsMax });
      }
      for (const watcher of this.#watchers) await watchToTheEnd(watcher);
      const { client } = this.#clients[0] as { client: Client };
      await judgeSets(client, this.#observations);
      await judgeClaims(client);
      await judgeRecipes(client, this.#recipes);
      if (this.#setup.sharing === true) await judgeShared(client, this.#shared);
    })();
    await this.#until(work, "every client works again");
    await this.#untilEqual();
    const verdict = checkLinearizable(registerModel, this.#observations.operations);
    if (verdict.linearizable !== true) throw new InvariantViolation("Linearizability", explain(verdict as never));
  }

  async #untilEqual(): Promise<void> {
    const giveUpMs = this.#queue.nowMs + settleMsMax;
    for (;;) {
      const members = [...this.#nodes.values()].filter((node) => !node.isRetired);
      const applied = members.map(({ member }) => member?.replica.machine.appliedIndex ?? -1);
      if (new Set(applied).size === 1 && applied[0] === this.#checker.committed) return;
      if (this.#queue.nowMs > giveUpMs)
        throw new InvariantViolation("Liveness", `members stand at ${applied}, committed is ${this.#checker.committed}`);
      await this.#step();
    }
  }

  async #until(work: Promise<void>, what: string): Promise<void> {
    let outcome: { readonly error?: unknown } | undefined;
    work.then(
      () => {
        outcome = {};
      },
      (error: unknown) => {
        outcome = { error };
      },
    );
    const giveUpMs = this.#queue.nowMs + settleMsMax;
    while (outcome === undefined) {
      if (this.#queue.nowMs > giveUpMs)
        throw new InvariantViolation("Liveness", `not within ${settleMsMax} ms after healing: ${what}`);
      await this.#step();
    }
    const { error } = outcome as { readonly error?: unknown };
    if (error !== undefined)
      throw error instanceof InvariantViolation ? error : new InvariantViolation("Liveness", `${what}: ${String(error)}`);
  }

  async #runFor(durationMs: number): Promise<void> {
    const untilMs = this.#queue.nowMs + durationMs;
    while (this.#queue.nowMs < untilMs) await this.#step();
  }

  async #step(): Promise<void> {
    const did = this.#queue.step();
    if (!did) throw new InvariantViolation("Liveness", "nothing is left to happen");
    await this.#options.drain();
    this.#trace = (Math.imul(this.#trace, 31) + Math.floor(this.#queue.nowMs * 1_000) + this.#checker.committed) | 0;
    if (this.#queue.steps % 16 === 0) this.#compareDigests();
    if (this.#failure !== undefined) throw this.#failure;
  }

  #guard(check: () => void): void {
    try {
      check();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    this.#failure ??= error ?? new Error("failed without a reason");
  }

  #node(name: string): Node {
    return this.#nodes.get(name) as Node;
  }
}
