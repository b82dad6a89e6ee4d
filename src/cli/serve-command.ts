/**
 * `conclave serve`: one member, with an open port, that logs what happens as JSON and ends cleanly on a signal.
 */
import { type Command, Option } from "commander";
import { onBackgroundFailure } from "../base/background.ts";
import { conclaveError, hasCode } from "../base/errors.ts";
import { checkProtocolName, type ProtocolName, protocolDefault, protocolNames } from "../base/protocol-name.ts";
import { identityOf } from "../engines/embedded/directory-identity.ts";
import { type Server, serve, serveDefaults } from "../engines/embedded/serve.ts";
import { readClusterFile } from "../engines/pbft/cluster-file.ts";
import { readKeyFile } from "../engines/pbft/keys.ts";
import { servePbft } from "../engines/pbft/serve-pbft.ts";
import { exitCodes } from "./exit-codes.ts";
import { Exit } from "./fail.ts";
import { signalExitCode } from "./interrupt.ts";
import { type LogLevel, logLevels } from "./log-level.ts";
import type { MemberLog } from "./member-log.ts";
import { addOutputFlags } from "./store-flags.ts";

interface ServeFlags {
  readonly data: string;
  readonly member?: string;
  readonly cluster?: string;
  readonly listen?: string;
  readonly members?: ReadonlyMap<string, string>;
  readonly join?: readonly string[];
  readonly protocol?: ProtocolName;
  readonly clusterFile?: string;
  readonly key?: string;
  readonly logLevel: LogLevel;
  readonly untilInputEnds: boolean;
}

export const defaultData = "./conclave-data";

export function addServeCommand(program: Command): void {
  const command = program
    .command("serve")
    .summary("run one member of a cluster")
    .description("Runs one member: keeps its data in a directory, listens on a port, logs JSON (ECS) to standard output.")
    .option("--data <dir>", "where everything is kept; one process at a time", defaultData)
    .option("--member <name>", `this member's name (default: that of the directory, "${serveDefaults.member}" for an empty one)`)
    .option(
      "--cluster <name>",
      `the cluster's name (default: that of the directory, "${serveDefaults.cluster}" for an empty one)`,
    )
    .option("--listen <host:port>", `where to listen (default: its own address in --members, else ${serveDefaults.listen})`)
    .option(
      "--members <list>",
      "every member, this one included: a=host:port,b=host:port,... (default: this one alone)",
      parseMembers,
    )
    .option(
      "--join <list>",
      "join the running cluster that is reached at host:port[,host:port...]; then: conclave member add",
      parseAddresses,
    )
    .option(
      "--protocol <name>",
      `how the members agree: ${protocolNames.join(", ")} (default: that of the directory, ${protocolDefault} for an empty one)`,
      parseProtocol,
    )
    .option("--cluster-file <file>", "with --protocol pbft: everybody's names, addresses and public keys (conclave pbft init)")
    .option("--key <file>", "with --protocol pbft: this member's private key; its name is the member's")
    .option("--log-level <level>", `least important log records to print: ${logLevels.join(", ")}`, parseLevel, "info")
    // For `conclave up`: members must not outlive it.
    .addOption(new Option("--until-input-ends", "close when standard input ends").default(false).hideHelp());
  addOutputFlags(command)
    .addHelpText(
      "after",
      `
Examples:
  A store for one machine, in ./conclave-data, at conclave://127.0.0.1:7400:
    conclave serve
  The first of three members (the same --members on each):
    conclave serve --member a \\
      --members a=10.0.0.1:7400,b=10.0.0.2:7400,c=10.0.0.3:7400
  A fourth that joins the three (see conclave help member):
    conclave serve --member d --listen 10.0.0.4:7400 --join 10.0.0.1:7400
  What it says of itself, on the same port:
    curl http://127.0.0.1:7400/readyz

SIGTERM or Ctrl-C closes it cleanly (exit 0), after handing leadership over
where it leads; a member that had to halt ends with 70, one that was removed
with 78. The first start of a cluster waits until more than half of the other
members have met each one: a lost disk is told from a new member by that. GET /healthz, /readyz and /status answer on the port. In the log,
event.action names what happened and conclave.* say to what; --log-level debug
adds every disk sync.`,
    )
    .action(runServe);
}

async function runServe(flags: ServeFlags): Promise<void> {
  const found = await identityOf(flags.data);
  if ((flags.protocol ?? found?.protocol) === "pbft") return runServePbft(flags);
  const member = flags.member ?? found?.member ?? serveDefaults.member;
  // Whoever joins takes the name of the cluster that it finds.
  const cluster = flags.cluster ?? found?.cluster ?? (flags.join === undefined ? serveDefaults.cluster : undefined);
  const listen = flags.listen ?? flags.members?.get(member) ?? serveDefaults.listen;
  // Loaded here: the short commands need no logger, and start faster without.
  const { makeLog } = await import("./member-log.ts");
  const log = makeLog({ level: flags.logLevel, member, cluster: cluster ?? "" });
  const end = endOnSignal(log);
  if (flags.untilInputEnds) process.stdin.once("end", () => end.now(exitCodes.ok)).resume();
  onBackgroundFailure((name, error) => log.failure(`Background work "${name}" failed.`, error));
  const server = await serve({
    directory: flags.data,
    member,
    ...(cluster === undefined ? {} : { cluster }),
    listen,
    ...(flags.members === undefined ? {} : { members: flags.members }),
    ...(flags.join === undefined ? {} : { join: flags.join }),
    ...(flags.protocol === undefined ? {} : { protocol: flags.protocol }),
    onEvent: log.event,
    onHalt: (why, error) => {
      log.halted(why, error);
      const isOutside = hasCode(error, "MEMBER_REMOVED") || hasCode(error, "MEMBER_WIPED");
      end.now(isOutside ? exitCodes.configuration : exitCodes.internal);
    },
  });
  log.listening({ address: server.address, directory: flags.data });
  throw new Exit(await closed(server, await end.exitCode, log));
}

/** A member of a Byzantine cluster: who it is stands in its key, who the others are in the cluster file. */
async function runServePbft(flags: ServeFlags): Promise<void> {
  if (flags.clusterFile === undefined || flags.key === undefined) {
    throw conclaveError("INVALID_OPTION", "--protocol pbft needs --cluster-file and --key; `conclave pbft init` makes both.");
  }
  const clusterFile = await readClusterFile(flags.clusterFile);
  const key = await readKeyFile(flags.key);
  const { makeLog } = await import("./member-log.ts");
  const log = makeLog({ level: flags.logLevel, member: key.name, cluster: clusterFile.cluster });
  const end = endOnSignal(log);
  if (flags.untilInputEnds) process.stdin.once("end", () => end.now(exitCodes.ok)).resume();
  onBackgroundFailure((name, error) => log.failure(`Background work "${name}" failed.`, error));
  const server = await servePbft({
    directory: flags.data,
    clusterFile,
    key,
    ...(flags.listen === undefined ? {} : { listen: flags.listen }),
    onEvent: log.event,
    onHalt: (why, error) => {
      log.halted(why, error);
      end.now(exitCodes.internal);
    },
  });
  log.listening({ address: server.address, directory: flags.data });
  // Nobody hands over in PBFT: a primary that is silent is replaced.
  const member = { close: () => server.close(), handOver: async () => undefined };
  throw new Exit(await closed(member, await end.exitCode, log));
}

/** A member that does not close in time is left to the log, which survives being cut off. */
const closeMsMax = 10_000;

async function closed(server: Pick<Server, "close" | "handOver">, exitCode: number, log: MemberLog): Promise<number> {
  const timer = setTimeout(() => {
    log.failure(`Closing took more than ${closeMsMax} ms.`, undefined);
    process.exit(exitCodes.internal);
  }, closeMsMax);
  try {
    // A planned end costs one transfer; without it the others would have to notice first that nobody leads.
    if (exitCode === exitCodes.ok) await server.handOver();
    await server.close();
    log.stopped();
    return exitCode;
  } catch (error) {
    log.failure("Closing failed.", error);
    return exitCode === 0 ? exitCodes.internal : exitCode;
  } finally {
    clearTimeout(timer);
  }
}

/** The first reason to end counts; a second signal ends at once. */
function endOnSignal(log: MemberLog): { readonly exitCode: Promise<number>; now(exitCode: number): void } {
  let now!: (exitCode: number) => void;
  const exitCode = new Promise<number>((resolve) => {
    now = resolve;
  });
  let signals = 0;
  const onSignal = (signal: NodeJS.Signals): void => {
    if (++signals > 1) process.exit(signalExitCode(signal));
    log.stopping(signal);
    now(exitCodes.ok);
  };
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.on(signal, onSignal);
  return { exitCode, now };
}

/** `a=host:port,b=host:port`. @throws INVALID_OPTION */
export function parseMembers(text: string): ReadonlyMap<string, string> {
  const members = new Map<string, string>();
  for (const part of text.split(",")) {
    const [, name, address] = /^([^=]+)=([^=]+:\d+)$/.exec(part.trim()) ?? [];
    if (name === undefined || address === undefined)
      throw conclaveError("INVALID_OPTION", `--members: "${part}" is not of the form name=host:port.`);
    if (members.has(name)) throw conclaveError("INVALID_OPTION", `--members names "${name}" twice.`);
    members.set(name, address);
  }
  return members;
}

/** @throws INVALID_OPTION */
export function parseProtocol(text: string): ProtocolName {
  return checkProtocolName(text, "--protocol");
}

/** `host:port,host:port`. @throws INVALID_OPTION */
function parseAddresses(text: string): readonly string[] {
  const addresses = text.split(",").map((part) => part.trim());
  const wrong = addresses.find((address) => !/^[^=]*:\d+$/.test(address));
  if (wrong !== undefined) throw conclaveError("INVALID_OPTION", `--join: "${wrong}" is not of the form host:port.`);
  return addresses;
}

function parseLevel(text: string): LogLevel {
  const level = logLevels.find((each) => each === text);
  if (level === undefined) throw conclaveError("INVALID_OPTION", `--log-level: "${text}" is none of ${logLevels.join(", ")}.`);
  return level;
}
