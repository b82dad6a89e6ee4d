/**
 * The cluster of a run: three `conclave serve` processes on free ports, and what they say of themselves over HTTP.
 */
import { get } from "node:http";
import { createServer } from "node:net";
import { join } from "node:path";
import type { Child, Nursery } from "./child.ts";
import type { Dice } from "./dice.ts";
import type { Incident } from "./evidence.ts";
import { until } from "./pause.ts";

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
}

const memberNames = ["a", "b", "c"] as const;
const statusTimeoutMs = 400;
/** Members whose logs differ by no more than this are abreast: what is on its way between them under load. */
const abreastEntries = 500;
/** Below the range from which the system draws the ports of outgoing connections: nobody takes the port of a dead member. */
const portMin = 18_000;
const portMax = 31_999;
const endsMax = 10;

export const clusterName = "torture";

export class Cluster {
  readonly members: readonly Member[];
  readonly url: string;
  readonly #nursery: Nursery;
  readonly #directory: string;
  readonly #protocol: string;
  readonly #onIncident: (incident: Incident) => void;
  #unexpectedEnds = 0;

  private constructor(options: ClusterOptions, ports: readonly number[]) {
    this.#nursery = options.nursery;
    this.#directory = options.directory;
    this.#protocol = options.protocol;
    this.#onIncident = options.onIncident;
    this.members = memberNames.map((name, index) => ({ name, address: `127.0.0.1:${ports[index]}`, child: undefined }));
    this.url = `conclave://${this.members.map(({ address }) => address).join(",")}`;
  }

  static async open(options: ClusterOptions): Promise<Cluster> {
    const ports: number[] = [];
    while (ports.length < memberNames.length) {
      const port = options.dice.integer(portMin, portMax);
      if (!ports.includes(port) && (await isFree(port))) ports.push(port);
    }
    return new Cluster(options, ports);
  }

  /** Does nothing to a member that runs. */
  start(member: Member): void {
    if (member.child?.isRunning || this.#unexpectedEnds >= endsMax) return;
    const names = this.members.map(({ name, address }) => `${name}=${address}`).join(",");
    const flags = ["--data", join(this.#directory, `member-${member.name}`), "--member", member.name, "--cluster", clusterName];
    member.child = this.#nursery.start({
      name: `member-${member.name}`,
      script: join(import.meta.dirname, "..", "cli", "main.js"),
      arguments: [
        "serve",
        ...flags,
        "--listen",
        member.address,
        "--members",
        names,
        "--protocol",
        this.#protocol,
        "--until-input-ends",
      ],
      onUnexpectedEnd: (child, how) => this.#onEnd(member, child, how),
    });
  }

  startAll(): void {
    for (const member of this.members) this.start(member);
  }

  /** Members that run and are not stopped. */
  get awake(): readonly Member[] {
    return this.members.filter(({ child }) => child?.isRunning && !child.isStopped);
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
    const [first] = statuses;
    if (statuses.length < memberNames.length || first?.leader === undefined) return false;
    const applied = statuses.map(({ appliedIndex }) => appliedIndex);
    const isOne = statuses.every(({ leader, term }) => leader === first.leader && term === first.term);
    return (
      isOne && statuses.some(({ role }) => role === "leader") && Math.max(...applied) - Math.min(...applied) <= abreastEntries
    );
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
        return revisions.length === memberNames.length && new Set(revisions).size === 1;
      },
      { withinMs },
    );
    return revisions;
  }

  /** What the members said last. */
  logTails(): string {
    return this.members.map(({ name, child }) => `Member ${name}:\n${child?.logTail()}`).join("\n");
  }

  /** A member has no reason to end by itself: it is written down, and started again so that the run goes on. */
  #onEnd(member: Member, child: Child, how: string): void {
    this.#unexpectedEnds++;
    this.#onIncident({ kind: "member-died", text: `member ${member.name} ${how}. The end of its log:\n${child.logTail()}` });
    setTimeout(() => this.start(member), 500).unref();
  }
}

interface ClusterOptions {
  readonly nursery: Nursery;
  readonly directory: string;
  readonly protocol: string;
  readonly dice: Dice;
  readonly onIncident: (incident: Incident) => void;
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
