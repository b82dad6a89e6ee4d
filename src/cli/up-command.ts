/**
 * `conclave up`: a whole cluster on this machine, as real processes, to try things and to break them.
 */

import { rmSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join, relative } from "node:path";
import type { Command } from "commander";
import { conclaveError } from "../base/errors.ts";
import { type ProtocolName, protocolDefault, protocolNames } from "../base/protocol-name.ts";
import { makeDirectory } from "../engines/embedded/make-directory.ts";
import { exitCodes } from "./exit-codes.ts";
import { Exit } from "./fail.ts";
import { freePorts, portsFrom, takenPorts } from "./free-ports.ts";
import { type LogRecord, MemberProcess } from "./member-process.ts";
import { oneLine, printJson, printLine, remark, style } from "./print.ts";
import { parseProtocol } from "./serve-command.ts";
import { addOutputFlags } from "./store-flags.ts";

interface UpFlags {
  readonly members: number;
  readonly data?: string;
  readonly port?: number;
  readonly protocol?: ProtocolName;
  readonly json: boolean;
  readonly verbose: boolean;
}

const defaultPort = 7400;
const membersMax = 9;
const restartMs = 1_000;

export function addUpCommand(program: Command): void {
  const command = program
    .command("up")
    .summary("run a whole cluster on this machine")
    .description("Runs a cluster on this machine, each member a process of its own, until Ctrl-C. For trying and for breaking.")
    .option("--members <count>", `how many, 1 to ${membersMax}; odd numbers make sense`, parseCount, 3)
    .option("--data <dir>", "keep the data here (default: a new temporary directory, deleted at the end)")
    .option(
      "--port <port>",
      `the first port, the others follow (default: ${defaultPort}, or free ones where it is taken)`,
      parsePort,
    )
    .option(
      "--protocol <name>",
      `how the members agree: ${protocolNames.join(", ")} (default: that of the data, ${protocolDefault} where there is none)`,
      parseProtocol,
    );
  addOutputFlags(command)
    .addHelpText(
      "after",
      `
Examples:
  conclave up
  conclave up --members 5 --data ./cluster
  conclave up --protocol paxos
  kill -9 PID        of a member that it prints: the others go on

A member that ends is started again after a second. Ctrl-C closes all of them
cleanly; a second Ctrl-C kills them. The members' log records come on standard
error, readable on a terminal and as JSON elsewhere.`,
    )
    .action(async (flags: UpFlags) => {
      throw new Exit(await new Cluster(flags).run());
    });
}

interface Place {
  readonly member: string;
  readonly address: string;
  readonly directory: string;
  process: MemberProcess | undefined;
  isListening: boolean;
}

type Phase = "starting" | "running" | "stopping";

class Cluster {
  readonly #flags: UpFlags;
  readonly #places: Place[] = [];
  #phase: Phase = "starting";
  #directory = "";
  #leader: { readonly member: string; readonly term: number } | undefined;
  #finish: (exitCode: number) => void = () => undefined;

  constructor(flags: UpFlags) {
    this.#flags = flags;
  }

  /** Until a signal, or until the cluster cannot be had; answers with the exit code. */
  async run(): Promise<number> {
    const finished = new Promise<number>((resolve) => {
      this.#finish = resolve;
    });
    let signals = 0;
    const onSignal = (name: NodeJS.Signals): void => {
      if (++signals > 1) this.#endNow();
      if (name === "SIGINT" && process.stdout.isTTY) process.stdout.write("\n");
      this.#tell("stopping", "Stopping the members; Ctrl-C again kills them.");
      this.#finish(exitCodes.ok);
    };
    for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(name, onSignal);
    try {
      await this.#prepare();
      for (const place of this.#places) this.#start(place);
      return await finished;
    } finally {
      await this.#stop();
    }
  }

  async #prepare(): Promise<void> {
    const { data, members: count, port } = this.#flags;
    const ports = await choosePorts(count, port);
    if (data === undefined) this.#directory = await mkdtemp(join(tmpdir(), "conclave-"));
    else this.#directory = data;
    await makeDirectory(this.#directory);
    for (const [at, each] of ports.entries()) {
      const member = `m${at + 1}`;
      const directory = join(this.#directory, member);
      this.#places.push({ member, address: `127.0.0.1:${each}`, directory, process: undefined, isListening: false });
    }
  }

  #start(place: Place): void {
    const { member, address, directory } = place;
    place.isListening = false;
    place.process = new MemberProcess({
      member,
      cluster: "local",
      directory,
      address,
      members: new Map(this.#places.map((each) => [each.member, each.address])),
      protocol: this.#flags.protocol,
      onLine: (line, record) => this.#onLine(place, line, record),
      onEnd: (exitCode, how) => this.#onEnd(place, exitCode, how),
    });
  }

  #onLine(place: Place, line: string, record: LogRecord | undefined): void {
    this.#printLog(place, line, record);
    const { role, term } = record?.conclave ?? {};
    if (record?.event?.action === "member.listening") place.isListening = true;
    else if (record?.event?.action === "role.changed" && role === "leader" && term !== undefined) this.#onLeader(place, term);
    if (this.#phase === "starting" && this.#leader !== undefined && this.#places.every((each) => each.isListening)) {
      this.#phase = "running";
      this.#welcome(this.#leader.member);
    }
  }

  #onLeader({ member }: Place, term: number): void {
    if (this.#leader !== undefined && this.#leader.term >= term) return;
    this.#leader = { member, term };
    if (this.#phase === "running") this.#tell("leader", `${style("bold", member)} leads now, in term ${term}.`, { member, term });
  }

  #onEnd(place: Place, exitCode: number, how: string): void {
    place.process = undefined;
    if (this.#phase === "stopping") return;
    const { member } = place;
    if (this.#phase === "starting" && !place.isListening) {
      // It never listened: a second attempt would end alike. Its last words are above.
      this.#tell("failed", style("red", `${member} could not start (${how}).`), { member, exitCode });
      this.#finish(exitCode === 0 ? exitCodes.internal : exitCode);
      return;
    }
    this.#tell("ended", style("yellow", `${member} ended (${how}); it is started again in a second.`), { member, how });
    setTimeout(() => {
      if (this.#phase === "stopping") return;
      this.#start(place);
      this.#tell("restarted", `${member} was started again, pid ${place.process?.pid}.`, { member, pid: place.process?.pid });
    }, restartMs);
  }

  /** On a terminal, what matters, with the member's name before it; elsewhere the records as they are. */
  #printLog({ member }: Place, line: string, record: LogRecord | undefined): void {
    if (!process.stderr.isTTY) remark(record === undefined ? JSON.stringify({ member, line }) : line);
    else if (record === undefined) remark(`${member} | ${oneLine(line)}`);
    else if (this.#flags.verbose || !isChatter(record)) remark(`${member} | ${oneLine(record.message)}`);
  }

  #welcome(leader: string): void {
    const members = this.#places.map(({ member, address, process: { pid } = {}, directory }) => ({
      member,
      address,
      pid,
      directory,
    }));
    const url = `conclave://${this.#places.map(({ address }) => address).join(",")}`;
    if (this.#flags.json) {
      printJson({ kind: "up", url, leader, members });
      return;
    }
    const isDefault = this.#places.some(({ address }) => address === `127.0.0.1:${defaultPort}`);
    const self = selfName();
    const store = isDefault ? "" : ` --store conclave://${this.#places[0]?.address}`;
    const kept = this.#flags.data === undefined ? "temporary, deleted at the end; --data DIR keeps it" : "kept";
    printLine("");
    printLine(style("bold", `${members.length} ${members.length === 1 ? "member runs" : "members run"}; ${leader} leads.`));
    for (const { member, address, pid } of members) printLine(`  ${member}  http://${address}/status  pid ${pid}`);
    printLine(`  data ${this.#directory} (${kept})`);
    printLine(`  connect("${url}")`);
    printLine("");
    printLine("Try it in another terminal:");
    printLine(`  ${self} lock${store} demo -- sh -c 'echo "token $CONCLAVE_FENCE_TOKEN"; sleep 10'`);
    printLine(`  ${self} put${store} greeting hello`);
    printLine(
      `  kill -9 ${members.find(({ member }) => member === leader)?.pid}    # the leader: another takes over, and nothing is lost`,
    );
    printLine("Ctrl-C ends it.");
    printLine("");
  }

  #tell(kind: string, text: string, fields: object = {}): void {
    if (this.#flags.json) printJson({ kind, ...fields });
    else printLine(text);
  }

  async #stop(): Promise<void> {
    this.#phase = "stopping";
    const running = this.#places.flatMap(({ process: each }) => each ?? []);
    for (const each of running) each.signal("SIGTERM");
    await Promise.all(running.map((each) => each.ended));
    if (this.#flags.data === undefined && this.#directory !== "") {
      await rm(this.#directory, { recursive: true, force: true });
      this.#tell("deleted", `Deleted ${this.#directory}.`, { directory: this.#directory });
    }
  }

  /** The second Ctrl-C. */
  #endNow(): never {
    for (const { process: each } of this.#places) each?.signal("SIGKILL");
    if (this.#flags.data === undefined && this.#directory !== "")
      rmSync(this.#directory, { recursive: true, force: true, maxRetries: 3 });
    process.exit(exitCodes.interrupted);
  }
}

/** @throws ADDRESS_IN_USE where the ports that were asked for are taken */
async function choosePorts(count: number, asked: number | undefined): Promise<readonly number[]> {
  const wanted = portsFrom(asked ?? defaultPort, count);
  const taken = await takenPorts(wanted);
  if (taken.length === 0) return wanted;
  const which = taken.length === 1 ? `Port ${taken[0]} is` : `Ports ${taken.join(", ")} are`;
  if (asked !== undefined)
    throw conclaveError("INVALID_OPTION", `${which} taken by another process: give another --port, or none.`);
  remark(`${which} taken by another process: the members take free ones.`);
  return freePorts(count);
}

/** Who comes and goes. */
function isChatter(record: LogRecord): boolean {
  return record["log.level"] === "info" && /^(?:connection|session)\./.test(record.event?.action ?? "");
}

/** How this very program is called from a shell, here. */
function selfName(): string {
  const path = process.argv[1] ?? "";
  return basename(path) === "main.js" ? `node ${relative(process.cwd(), path) || path}` : "npx conclave";
}

function parseCount(text: string): number {
  const count = Number(text);
  if (!/^\d$/.test(text) || count < 1 || count > membersMax)
    throw conclaveError("INVALID_OPTION", `--members: "${text}" is no number from 1 to ${membersMax}.`);
  return count;
}

function parsePort(text: string): number {
  const port = Number(text);
  if (!/^\d{1,5}$/.test(text) || port < 1 || port > 65_535 - membersMax)
    throw conclaveError("INVALID_OPTION", `--port: "${text}" is no port from 1 to ${65_535 - membersMax}.`);
  return port;
}
