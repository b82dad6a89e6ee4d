/**
 * The command line of the torture run.
 */
import { parseArgs } from "node:util";
import { checkProtocolName, type ProtocolName, protocolDefault } from "../base/protocol-name.ts";
import { describeFaults, type FaultName, faultsDefault, networkFaults, parseFaults, proxyFaults } from "./faults.ts";
import { Namespaces } from "./namespaces.ts";
import type { Plan } from "./nemesis.ts";

const networkKinds = ["proxies", "namespaces"] as const;
/** What lies between the members where it shall be cut: see `network.ts` and `namespaces.ts`. */
export type NetworkKind = (typeof networkKinds)[number];

export interface TortureOptions {
  readonly seed: number;
  /** How long faults are thrown; of a plan that ends by itself, the longest. */
  readonly durationMs: number;
  readonly plan: Plan;
  readonly ttlMs: number;
  /** How the members agree. */
  readonly protocol: ProtocolName | "pbft";
  readonly memberCount: number;
  readonly network: NetworkKind;
  /** Where the history of the registers goes. */
  readonly historyFile: string | undefined;
  readonly jsonFile: string | undefined;
  readonly keep: boolean;
  /** Where the run's directory is made; default: the system's. */
  readonly directory: string | undefined;
}

export const help = `Tortures a cluster of three to seven real processes with eight clients, and judges what came of it.

  npm run torture -- [options]

  --minutes N       how long faults are thrown. Default 2
  --faults NAMES    which faults, separated by commas, or all. Default ${faultsDefault.join(",")}. They are:
${describeFaults()}
  --network KIND    namespaces (packets are lost; Linux, root; no ${proxyFaults.join(", ")}) or proxies (bytes are held).
                    Default: namespaces where they can be had and no fault needs the proxies
  --kill-every T    a member is killed about so often: 3s, 500ms. Default 3s
  --kills N         instead: kill the leader N times, each time once the cluster is whole, and nothing else
  --ttl T           TTL of the locks. Default 1500ms
  --protocol NAME   how the members agree: raft, paxos, zab, or pbft, where clients compare and set registers. Default raft
  --members N       how many: 3, 5 or 7 (default 3); of pbft 4 or 7
  --seed N          repeats the plan of faults of another run. Default: drawn and printed
  --history FILE    write the history of the registers as Jepsen's JSON lines
  --json FILE       write the figures as JSON
  --keep            keep the directory with journals, logs and data (it is kept after a violation anyway)
  --directory DIR   make that directory here

Exit codes: 0 every promise was kept, 1 a violation, 2 the run itself failed.`;

/** @throws Error that says what is wrong with the arguments; null: help was asked for */
export function parseOptions(args: readonly string[]): TortureOptions | null {
  const string = { type: "string" } as const;
  const { values } = parseArgs({
    args: [...args],
    options: {
      minutes: string,
      "kill-every": string,
      kills: string,
      faults: string,
      members: string,
      network: string,
      ttl: string,
      protocol: string,
      seed: string,
      history: string,
      json: string,
      directory: string,
      keep: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) return null;
  const killCount = values.kills === undefined ? undefined : wholeNumber("--kills", values.kills);
  const minutes = positive("--minutes", values.minutes ?? (killCount === undefined ? "2" : "60"));
  const killEveryMs = duration("--kill-every", values["kill-every"] ?? "3s");
  const ttlMs = duration("--ttl", values.ttl ?? "1500ms");
  const protocolText = values.protocol ?? protocolDefault;
  const asked: readonly FaultName[] = [...parseFaults(values.faults ?? faultsDefault.join(","), protocolText)];
  const network = chooseNetwork(values.network, asked, values.faults === "all");
  // Of `all`, those that this network can do; who names one that it cannot was told so.
  const faults = network === "proxies" ? asked : asked.filter((fault) => !proxyFaults.includes(fault));
  if (values.faults !== undefined && killCount !== undefined)
    throw new Error("--kills is a plan of its own: leave out --faults.");
  const memberCount = wholeNumber("--members", values.members ?? (protocolText === "pbft" ? "4" : "3"));
  const sizes = protocolText === "pbft" ? [4, 7] : [3, 5, 7];
  if (!sizes.includes(memberCount)) throw new Error(`--members must be ${sizes.join(" or ")}; it is "${values.members}".`);
  if (ttlMs < 1_000) throw new Error("--ttl must be at least 1s.");
  return {
    seed: values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : wholeNumber("--seed", values.seed),
    durationMs: minutes * 60_000,
    plan: killCount === undefined ? { kind: "mixed", killEveryMs, faults } : { kind: "kills", killCount },
    ttlMs,
    memberCount,
    network,
    protocol: protocolText === "pbft" ? "pbft" : checkProtocolName(protocolText, "--protocol"),
    historyFile: values.history,
    jsonFile: values.json,
    keep: values.keep,
    directory: values.directory,
  };
}

/** @throws Error where that kind cannot be had */
function chooseNetwork(text: string | undefined, faults: readonly FaultName[], areAllMeant: boolean): NetworkKind {
  const needing = faults.filter((fault) => proxyFaults.includes(fault));
  const wantsCuts = faults.some((fault) => networkFaults.includes(fault));
  if (text === undefined) return wantsCuts && needing.length === 0 && Namespaces.areAvailable() ? "namespaces" : "proxies";
  const kind = networkKinds.find((each) => each === text);
  if (kind === undefined) throw new Error(`--network "${text}" is none of ${networkKinds.join(", ")}.`);
  if (kind === "proxies") return kind;
  if (!areAllMeant && needing.length > 0) throw new Error(`--faults ${needing.join(",")} need --network proxies.`);
  if (!Namespaces.areAvailable()) throw new Error("--network namespaces needs Linux, root and `ip` (iproute2).");
  return kind;
}

function positive(flag: string, text: string): number {
  const number = Number(text);
  if (!(number > 0 && Number.isFinite(number))) throw new Error(`${flag} must be a number above 0; it is "${text}".`);
  return number;
}

function wholeNumber(flag: string, text: string): number {
  const number = positive(flag, text === "0" && flag === "--seed" ? "1" : text);
  if (!Number.isSafeInteger(number)) throw new Error(`${flag} must be a whole number; it is "${text}".`);
  return number;
}

/** "500ms", "3s", "1.5s". */
function duration(flag: string, text: string): number {
  const [, number, unit] = /^(\d+(?:\.\d+)?)(ms|s)$/.exec(text) ?? [];
  if (number === undefined) throw new Error(`${flag} must be a time such as 500ms or 3s; it is "${text}".`);
  return positive(flag, number) * (unit === "s" ? 1_000 : 1);
}
