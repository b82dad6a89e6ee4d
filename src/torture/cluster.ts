/**
 * The cluster of a run: `conclave serve` processes on free ports, and what they say of themselves over HTTP.
 */
import { get } from "node:http";
import { createServer } from "node:net";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { type Affliction, afflictionPathVariable, afflictionRateVariable, healthy, writeAffliction } from "./affliction.ts";
import type { Child, Nursery } from "./child.ts";
import type { Dice } from "./dice.ts";
import type { Incident } from "./evidence.ts";
import { type Cuts, Namespaces } from "./namespaces.ts";
import { Network } from "./network.ts";
import type { NetworkKind } from "./options.ts";
import { until } from "./pause.ts";
import { makePbftFiles, type PbftFiles } from "./pbft-files.ts";
import type { ProbeWrite } from "./prober.ts";

/** What a run needs of a member's `/status`. */
export interface Status {
  readonly member: string;
  readonly role: string;
  readonly term: number;
  readonly leader?: string;
  readonly appliedIndex: number;
  readonly revision: number;
}

export interface Member {
  readonly name: string;
  readonly address: string;
  child: Child | undefined;
  /** Somebody has it in hand: nobody else starts or kills it. */
  isInHand: boolean;
  /** Why it may end by itself at the moment: codes of errors, one of which it must name. */
  mayEndWith: readonly string[];
}

const names = ["a", "b", "c", "d", "e", "f", "g"] as const;
const statusTimeoutMs = 400;
/** Members whose logs differ by no more than this are abreast: what is on its way between them under load. */
const abreastEntries = 500;
/** Below the range from which the system draws the ports of outgoing connections: nobody takes the port of a dead member. */
const portMin = 18_000;
const portMax = 31_999;
const endsMax = 10;
const catchUpMsMax = 40_000;
/** Monotonic clocks of members differ from true time by up to this share. */
const clockDriftMax = 0.04;

export const clusterName = "torture";

export interface ClusterOptions {
  readonly nursery: Nursery;
  readonly directory: string;
  readonly protocol: string;
  readonly memberCount: number;
  /** Whoever has a key in a Byzantine cluster. */
  readonly clientNames: readonly string[];
  /** By what the members reach each other, where that can be cut. */
  readonly network: NetworkKind | undefined;
  /** Disks and clocks of the members can be afflicted. */
  readonly hasAfflictions: boolean;
  /** Their monotonic clocks run at different rates. */
  readonly hasDrift: boolean;
  readonly dice: Dice;
  readonly onIncident: (incident: Incident) => void;
}

export class Cluster {
  readonly members: readonly Member[];
  readonly url: string;
  /** Undefined: nothing between the members can be cut. */
  readonly cuts: Cuts | undefined;
  /** Keys and addresses of a Byzantine cluster. */
  readonly pbft: PbftFiles | undefined;
  readonly hasLocks: boolean;
  /** Whether members come and go. */
  readonly hasMembership: boolean;
  /** Ends of members that a fault had called for. */
  expectedEnds = 0;
  readonly #options: ClusterOptions;
  readonly #clockRates = new Map<string, number>();
  #unexpectedEnds = 0;

  private constructor(options: ClusterOptions, members: readonly Member[], cuts: Cuts | undefined) {
    this.#options = options;
    this.members = members;
    this.cuts = cuts;
    this.hasLocks = options.protocol !== "pbft";
    this.pbft = this.hasLocks
      ? undefined
      : makePbftFiles({
          directory: join(options.directory, "keys"),
          cluster: clusterName,
          members,
          clients: options.clientNames,
          addressFor: (from, to) => this.#addressFor(from, to),
        });
    this.hasMembership = options.protocol === "raft";
    this.url = `conclave://${this.members.map(({ address }) => address).join(",")}`;
    for (const { name } of members) {
      const drift = options.hasDrift ? clockDriftMax : 0;
      this.#clockRates.set(name, 1 + options.dice.between(-drift, drift));
      if (options.hasAfflictions) this.afflict(name, healthy);
    }
  }

  static async open(options: ClusterOptions): Promise<Cluster> {
    const { dice, memberCount, network } = options;
    const namespaces = network === "namespaces" ? Namespaces.open(names.slice(0, memberCount)) : undefined;
    const ports: number[] = [];
    while (ports.length < memberCount) {
      const port = dice.integer(portMin, portMax);
      if (!ports.includes(port) && (await isFree(port))) ports.push(port);
    }
    const members = ports.map((port, index): Member => {
      const name = names[index] as string;
      const host = namespaces?.hostOf(name) ?? "127.0.0.1";
      return { name, address: `${host}:${port}`, child: undefined, isInHand: false, mayEndWith: [] };
    });
    return new Cluster(options, members, network === "proxies" ? await Network.open(members) : namespaces);
  }

  async close(): Promise<void> {
    await this.cuts?.close();
  }

  directoryOf(member: Member): string {
    return join(this.#options.directory, `member-${member.name}`);
  }

  /** From now on, until the next call for this member. */
  afflict(name: string, affliction: Affliction): void {
    writeAffliction(this.#afflictionPath(name), affliction);
  }

  /** Does nothing to a member that runs, or that somebody has in hand. */
  start(member: Member): void {
    if (!member.isInHand) this.startInHand(member);
  }

  startInHand(member: Member): void {
    this.#spawn(member, this.#flagsOf(member));
  }

  #spawn(member: Member, flags: readonly string[]): void {
    const { nursery, hasAfflictions } = this.#options;
    if (member.child?.isRunning || this.#unexpectedEnds >= endsMax) return;
    const environment = {
      [afflictionPathVariable]: this.#afflictionPath(member.name),
      [afflictionRateVariable]: String(this.#clockRates.get(member.name) ?? 1),
    };
    const afflicted = { preload: [pathToFileURL(join(import.meta.dirname, "afflict.js")).href], environment };
    member.child = nursery.start({
      name: `member-${member.name}`,
      script: join(import.meta.dirname, "..", "cli", "main.js"),
      arguments: ["serve", ...flags, "--until-input-ends"],
      ...(this.cuts instanceof Namespaces ? { within: this.cuts.commandOf(member.name) } : {}),
      ...(hasAfflictions ? afflicted : {}),
      onUnexpectedEnd: (child, how) => this.#onEnd(member, child, how),
    });
  }

  /** With an empty directory, to be added by an operator; the others tell it where everybody is. */
  startToJoin(member: Member, others: readonly string[]): void {
    const where = ["--data", this.directoryOf(member), "--member", member.name, "--cluster", clusterName];
    this.#spawn(member, [...where, "--listen", member.address, "--join", others.join(",")]);
  }

  startAll(): void {
    for (const member of this.members) this.start(member);
  }

  /** Members that run and are not stopped, nor in somebody's hand. */
  get awake(): readonly Member[] {
    return this.members.filter(({ child, isInHand }) => child?.isRunning && !child.isStopped && !isInHand);
  }

  /** The member that says it leads, in the highest term; undefined while nobody does. */
  async leader(): Promise<Member | undefined> {
    const leading = (await this.statuses()).filter(({ role }) => role === "leader").sort((a, b) => b.term - a.term);
    return this.members.find(({ name }) => name === leading[0]?.member);
  }

  /** Of those that answer. */
  async statuses(): Promise<readonly Status[]> {
    const answers = await Promise.all(this.awake.map(({ address }) => statusOf(address)));
    return answers.filter((status) => status !== undefined);
  }

  /** Every member runs, follows one leader, and has nearly all that the others have. */
  async isWhole(): Promise<boolean> {
    const statuses = await this.statuses();
    const leading = statuses.find(({ role }) => role === "leader");
    if (statuses.length < this.members.length || leading === undefined) return false;
    const applied = statuses.map(({ appliedIndex }) => appliedIndex);
    const astray = statuses.filter(({ leader, term }) => leader !== leading.leader || term !== leading.term);
    return astray.length <= this.#astrayMax && Math.max(...applied) - Math.min(...applied) <= abreastEntries;
  }

  /**
   * A replica of PBFT that suspected the primary alone waits in the next view until enough others come, which may be never:
   * having asked for that view it may not go back (OSDI 1999 §4.4, and seed 132589012). It learns by checkpoints meanwhile.
   */
  get #astrayMax(): number {
    return this.hasLocks ? 0 : Math.floor((this.members.length - 1) / 3);
  }

  becomesWhole(withinMs: number, signal?: AbortSignal): Promise<boolean> {
    return until(() => this.isWhole(), { withinMs, ...(signal === undefined ? {} : { signal }) });
  }

  /** The revisions of all members, once they agree or the time is over. */
  async settledRevisions(withinMs: number): Promise<readonly number[]> {
    let revisions: readonly number[] = [];
    await until(
      async () => {
        revisions = (await this.statuses()).map(({ revision }) => revision);
        return revisions.length === this.members.length && new Set(revisions).size === 1;
      },
      { withinMs },
    );
    return revisions;
  }

  /** Under a light load every member reaches this revision. */
  async catchesUp(revision: number, write: ProbeWrite): Promise<boolean> {
    let extra = 0;
    return await until(
      async () => {
        await write(`extra ${++extra}`, { timeoutMs: 2_000 }).catch(() => undefined);
        const statuses = await this.statuses();
        return statuses.length === this.members.length && statuses.every((status) => status.revision >= revision);
      },
      { withinMs: catchUpMsMax, everyMs: 1 },
    );
  }

  /** What the members said last. */
  logTails(): string {
    return this.members.map(({ name, child }) => `Member ${name}:\n${child?.logTail()}`).join("\n");
  }

  /** Each member knows the others by the proxies that lead from it to them. */
  #flagsOf(member: Member): readonly string[] {
    const own = ["--data", this.directoryOf(member), "--listen", member.address, "--protocol", this.#options.protocol];
    if (this.pbft !== undefined) return [...own, ...this.pbft.flagsOf(member.name)];
    const list = this.members.map(({ name }) => `${name}=${this.#addressFor(member.name, name)}`);
    return [...own, "--member", member.name, "--cluster", clusterName, "--members", list.join(",")];
  }

  #addressFor(from: string, to: string): string {
    const direct = (this.members.find(({ name }) => name === to) as Member).address;
    return from !== to && this.cuts instanceof Network ? this.cuts.addressFor(from, to) : direct;
  }

  #afflictionPath(name: string): string {
    return join(this.#options.directory, `affliction-${name}.json`);
  }

  /**
   * A member has no reason to end by itself, unless a fault gave it one and it names that: then whoever did it starts it
   * again. Else it is written down, and it is started again so that the run goes on.
   */
  #onEnd(member: Member, child: Child, how: string): void {
    const tail = child.logTail();
    if (member.mayEndWith.some((code) => child.complaints().includes(code))) {
      this.expectedEnds++;
      return;
    }
    this.#unexpectedEnds++;
    this.#options.onIncident({ kind: "member-died", text: `member ${member.name} ${how}. The end of its log:\n${tail}` });
    setTimeout(() => this.start(member), 500).unref();
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}

function statusOf(address: string): Promise<Status | undefined> {
  return new Promise((resolve) => {
    const request = get(`http://${address}/status`, { agent: false, timeout: statusTimeoutMs }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk: string) => {
        text += chunk;
      });
      response.on("end", () => resolve(response.statusCode === 200 ? (JSON.parse(text) as Status) : undefined));
      response.on("error", () => resolve(undefined));
    });
    // `timeout` above is of idleness and only tells; this ends it.
    const timer = setTimeout(() => request.destroy(), statusTimeoutMs);
    request.on("close", () => {
      clearTimeout(timer);
      resolve(undefined);
    });
    request.on("error", () => resolve(undefined));
  });
}
