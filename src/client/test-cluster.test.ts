// biome-ignore-all lint/suspicious/noExportsInTest: other tests stand on it.
/**
 * For tests: a cluster without consensus. Its members share one machine, so whatever a client does at any of them is what
 * the group agreed; which of them leads is said by the test. Doors, clients, frames and the machine are the real ones.
 * Named as a test, because only tests may join the rooms of clients and replicas; the last lines test it.
 */
import { expect, test } from "vitest";
import type { Connection, ConnectionHandler, Platform } from "../base/ports.ts";
import type { MemberId } from "../consensus/core.ts";
import type { AdminAnswer } from "../replica/administration.ts";
import { Door, type DoorOptions } from "../replica/door.ts";
import type { AnswerSink, ReplicaService } from "../replica/service.ts";
import { WatchHub } from "../replica/watch-hub.ts";
import { BatchWriter } from "../store/batch-writer.ts";
import { type Caps, embeddedLimits, type Limits } from "../store/caps.ts";
import { encodeCommand } from "../store/command.ts";
import { Machine } from "../store/machine.ts";
import { VirtualPlatform } from "../testing/virtual-platform.ts";
import type { LeaderNews } from "../wire/hello.ts";
import type { MemberStatus } from "../wire/member-status.ts";
import { Client } from "./client.ts";
import { MemoryTransport } from "./memory-transport.ts";
import type { ClientLimits, ClientOptions } from "./options.ts";

export const testCaps: Caps = {
  engine: "test",
  linearizable: "always",
  durability: "memory",
  watch: "log",
  handOff: "server",
  clock: "the test's",
  fair: true,
  crossNamespace: true,
  claims: true,
  olderReads: true,
  tokenSurvives: [],
  limits: embeddedLimits,
};

export interface TestClusterOptions {
  readonly platform: Platform;
  readonly members?: readonly MemberId[];
  readonly limits?: Limits;
  readonly delayMs?: number;
  readonly door?: Partial<DoorOptions>;
}

/** What a leader does with proposals. */
export type CommitMode =
  /** Applies and answers them at the end of the turn. */
  | "normal"
  /** Keeps them: `release` applies them. */
  | "held"
  /** Applies them and answers nothing: the answer was lost. */
  | "unanswered"
  /** Refuses them: there is no quorum. */
  | "no-quorum";

export class TestCluster {
  readonly platform: Platform;
  readonly machine: Machine;
  readonly transport: MemoryTransport;
  readonly members: readonly TestMember[];
  readonly addresses: ReadonlyMap<MemberId, string>;
  leader: MemberId | undefined;
  term = 1;
  commitMode: CommitMode = "normal";
  /** How many txn commands were applied. */
  appliedCount = 0;
  readonly #doorOptions: Partial<DoorOptions>;
  readonly #batch = new BatchWriter();
  #waiting: { readonly sink: AnswerSink; readonly tag: number }[] = [];
  readonly #leave = new Map<MemberId, () => void>();
  #isCommitDue = false;
  #index = 0;

  constructor(options: TestClusterOptions) {
    this.platform = options.platform;
    this.machine = new Machine(options.limits === undefined ? {} : { limits: options.limits });
    this.transport = new MemoryTransport({ platform: options.platform, delayMs: options.delayMs ?? 0 });
    this.#doorOptions = options.door ?? {};
    const names = options.members ?? ["a"];
    this.addresses = new Map(names.map((name) => [name, `${name}:7400`]));
    this.leader = names[0];
    this.apply(encodeCommand({ kind: "initialise", revision: 1_000_000 }));
    this.members = names.map((name) => new TestMember(this, name));
    for (const member of this.members) {
      const leave = this.transport.listen(member.address, (connection) => member.accept(connection));
      this.#leave.set(member.member, leave);
    }
  }

  /** Nobody listens there any more, and its connections end. */
  kill(name: MemberId): void {
    this.#leave.get(name)?.();
    this.transport.cut(this.addresses.get(name) as string);
  }

  member(name: MemberId): TestMember {
    return this.members.find((member) => member.member === name) as TestMember;
  }

  client(options: Partial<ClientOptions> & { readonly limits?: Partial<ClientLimits> } = {}): Client {
    const addresses = [...this.addresses.values()];
    return new Client({ platform: this.platform, transport: this.transport, addresses, caps: testCaps, ...options });
  }

  /** A new leader in a new term. Proposals that wait are refused, without being applied. */
  elect(leader: MemberId | undefined, options: { readonly quietly?: boolean } = {}): void {
    this.leader = leader;
    this.term++;
    const waiting = this.#waiting;
    this.#waiting = [];
    this.#batch.finish();
    if (options.quietly) return;
    for (const { sink, tag } of waiting) {
      sink.onRefused(tag, { code: "NOT_LEADER", message: "The leader changed.", definite: false, leader });
    }
    for (const member of this.members) member.tellLeader();
  }

  propose(command: Uint8Array, sink: AnswerSink, tag: number): void {
    if (this.commitMode === "no-quorum") {
      sink.onRefused(tag, { code: "NO_QUORUM", message: "No majority answers.", definite: false, leader: this.leader });
      return;
    }
    this.#batch.add(command);
    this.#waiting.push({ sink, tag });
    if (this.#isCommitDue || this.commitMode === "held") return;
    this.#isCommitDue = true;
    this.platform.defer(() => {
      this.#isCommitDue = false;
      this.release();
    });
  }

  /** Applies what waits. */
  release(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    if (waiting.length === 0) return;
    this.appliedCount += waiting.length;
    const isAnswering = this.commitMode !== "unanswered";
    this.#applyPayload(this.#batch.finish(), (position, outcome) => {
      const { sink, tag } = waiting[position] as { sink: AnswerSink; tag: number };
      if (isAnswering) sink.onOutcome(tag, outcome);
    });
  }

  drop(sink: AnswerSink): void {
    // What was proposed still happens; nobody hears of it.
    this.#waiting = this.#waiting.map((each) => (each.sink === sink ? { sink: deaf, tag: each.tag } : each));
  }

  /** Applies one command at once. */
  apply(command: Uint8Array): void {
    const batch = new BatchWriter();
    batch.add(command);
    this.#applyPayload(batch.finish(), () => undefined);
  }

  expireSessions(): void {
    const sessions = [...this.machine.sessions()].map((session) => Number(session.id));
    this.apply(encodeCommand({ kind: "expire-sessions", sessions }));
  }

  get doorOptions(): Partial<DoorOptions> {
    return this.#doorOptions;
  }

  #applyPayload(payload: Uint8Array, onOutcome: Parameters<Machine["applyBatch"]>[1]): void {
    this.machine.applyBatch({ index: ++this.#index, stampMs: this.platform.now(), payload }, onOutcome);
  }
}

const deaf: AnswerSink = { onOutcome: () => undefined, onRefused: () => undefined, onReady: () => undefined };

export class TestMember implements ReplicaService {
  readonly member: MemberId;
  readonly cluster = "test";
  readonly groupId = 0;
  readonly address: string;
  readonly doors = new Set<Door>();
  /** Proofs of leadership that were asked for. */
  readCount = 0;
  keepAliveCount = 0;
  hasLease = false;
  /** Keep-alives get no answer. */
  isIgnoringKeepAlives = false;
  readonly #cluster: TestCluster;
  readonly #hub: WatchHub;
  readonly #listeners = new Set<() => void>();

  constructor(cluster: TestCluster, member: MemberId) {
    this.#cluster = cluster;
    this.member = member;
    this.address = cluster.addresses.get(member) as string;
    this.#hub = new WatchHub({ service: this, platform: cluster.platform });
  }

  get machine(): Machine {
    return this.#cluster.machine;
  }

  get addresses(): ReadonlyMap<MemberId, string> {
    return this.#cluster.addresses;
  }

  get hub(): WatchHub {
    return this.#hub;
  }

  accept(connection: Connection): ConnectionHandler {
    const { platform, doorOptions } = this.#cluster;
    const door = new Door({ service: this, hub: this.#hub, connection, platform, ...doorOptions });
    this.doors.add(door);
    return door;
  }

  leader(): LeaderNews {
    return { leader: this.#cluster.leader, term: this.#cluster.term };
  }

  administer(_request: unknown, answer: AdminAnswer): void {
    answer({ refusal: { code: "UNSUPPORTED", message: "The test cluster has no operator.", definite: true, leader: undefined } });
  }

  tellLeader(): void {
    for (const listener of this.#listeners) listener();
  }

  propose(command: Uint8Array, sink: AnswerSink, tag: number): void {
    if (!this.#refuseUnlessLeader(sink, tag)) this.#cluster.propose(command, sink, tag);
  }

  read(sink: AnswerSink, tag: number): void {
    this.readCount++;
    this.#cluster.platform.defer(() => {
      if (!this.#refuseUnlessLeader(sink, tag)) sink.onReady(tag);
    });
  }

  holdsLease(): boolean {
    return this.hasLease && this.#cluster.leader === this.member;
  }

  keepAlive(session: number, sink: AnswerSink, tag: number): void {
    this.keepAliveCount++;
    if (this.isIgnoringKeepAlives || this.#refuseUnlessLeader(sink, tag)) return;
    if (this.machine.hasSession(session)) {
      sink.onReady(tag);
      return;
    }
    sink.onRefused(tag, {
      code: "SESSION_EXPIRED",
      message: `Session ${session} is not alive.`,
      definite: true,
      leader: this.member,
    });
  }

  drop(sink: AnswerSink): void {
    this.#cluster.drop(sink);
  }

  onLeaderChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  status(): MemberStatus {
    const { leader, term, machine } = this.#cluster;
    return {
      member: this.member,
      cluster: this.cluster,
      role: leader === this.member ? "leader" : "follower",
      term,
      leader,
      committedIndex: machine.appliedIndex,
      appliedIndex: machine.appliedIndex,
      lastIndex: machine.appliedIndex,
      revision: machine.revision,
      sessions: [...machine.sessions()].length,
      syncs: 0,
      elapsedMs: machine.elapsedMs,
      peers: [],
      halted: undefined,
    };
  }

  #refuseUnlessLeader(sink: AnswerSink, tag: number): boolean {
    const { leader } = this.#cluster;
    if (leader === this.member) return false;
    sink.onRefused(tag, { code: "NOT_LEADER", message: `Member "${this.member}" does not lead.`, definite: true, leader });
    return true;
  }
}

test("the test cluster applies what its leader is given, and what was held only when it is released", async () => {
  const platform = new VirtualPlatform();
  const cluster = new TestCluster({ platform, members: ["a", "b"] });
  const heard: string[] = [];
  const sink: AnswerSink = {
    onOutcome: (tag, { kind }) => heard.push(`${tag} ${kind}`),
    onRefused: (tag, { code }) => heard.push(`${tag} ${code}`),
    onReady: (tag) => heard.push(`${tag} ready`),
  };
  const command = encodeCommand({ kind: "open-session", ttlMs: 15_000 });
  cluster.member("b").propose(command, sink, 1);
  cluster.member("a").propose(command, sink, 2);
  await platform.settle();
  cluster.commitMode = "held";
  cluster.member("a").propose(command, sink, 3);
  await platform.settle();
  expect(heard).toEqual(["1 NOT_LEADER", "2 opened"]);
  cluster.release();
  expect(heard.at(-1)).toBe("3 opened");
});
