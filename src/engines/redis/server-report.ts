/**
 * What the server says about itself, read once when connecting: what `Caps` and `doctor` rest on.
 * A managed Redis may refuse CONFIG or INFO; then the worse is assumed.
 */
import { conclaveError, hasCode } from "../../base/errors.ts";
import type { LinkCall, RedisLink } from "./link.ts";
import type { ServerFacts } from "./redis-caps.ts";
import type { Argument, Reply } from "./resp.ts";
import { textOf } from "./txn-codec.ts";

export interface ServerReport extends ServerFacts {
  /** For messages: "Redis 7.0.15 (single)". */
  readonly engine: string;
  readonly kind: "single" | "sentinel" | "cluster";
  /** Undefined: it may not be asked. */
  readonly configuration: ReadonlyMap<string, string> | undefined;
  readonly replicas: number;
  readonly uptimeMs: number;
}

const asked = [
  "maxmemory-policy",
  "maxmemory",
  "appendonly",
  "appendfsync",
  "save",
  "min-replicas-to-write",
  "min-replicas-max-lag",
] as const;

/** @throws UNSUPPORTED (older than 7.0), UNAUTHORIZED */
export async function readServerReport(
  link: RedisLink,
  { kind, timeoutMs }: { readonly kind: ServerReport["kind"]; readonly timeoutMs: number },
): Promise<ServerReport> {
  const call: LinkCall = { timeoutMs };
  const [info, configuration] = await Promise.all([
    optional(link, ["INFO", "everything"], call).then((reply) => (reply === undefined ? "" : textOf(reply))),
    optional(link, ["CONFIG", "GET", ...asked], call).then(pairsOf),
  ]);
  const field = (name: string): string | undefined => new RegExp(`^${name}:(.*?)\\r?$`, "m").exec(info)?.[1];
  const version = field("redis_version");
  if (version !== undefined && Number.parseInt(version, 10) < 7)
    throw conclaveError("UNSUPPORTED", `The server is Redis ${version}; Conclave needs 7.0 or newer, or Valkey.`);
  const valkey = field("valkey_version");
  const name = valkey !== undefined ? `Valkey ${valkey}` : `Redis ${version ?? "of unknown version"}`;
  const replicas = Number(field("connected_slaves") ?? 0);
  const appends = configuration?.get("appendonly") === "yes";
  return {
    engine: `${name} (${kind})`,
    kind,
    configuration,
    replicas,
    uptimeMs: Number(field("uptime_in_seconds") ?? 0) * 1_000,
    syncsEachWrite: appends && configuration?.get("appendfsync") === "always",
    persists: appends || (configuration?.get("save") ?? "") !== "",
    failsOver: kind !== "single" || replicas > 0,
  };
}

async function optional(link: RedisLink, args: readonly Argument[], call: LinkCall): Promise<Reply | undefined> {
  try {
    return await link.ask(args, call);
  } catch (error) {
    if (hasCode(error, "UNAUTHORIZED") || hasCode(error, "UNSUPPORTED") || hasCode(error, "ENGINE_REFUSED")) return undefined;
    throw error;
  }
}

function pairsOf(reply: Reply | undefined): ReadonlyMap<string, string> | undefined {
  if (typeof reply !== "object" || reply === null || reply instanceof Uint8Array || !("length" in reply)) return undefined;
  const pairs = new Map<string, string>();
  for (let at = 0; at + 1 < reply.length; at += 2) pairs.set(textOf(reply[at]), textOf(reply[at + 1]));
  return pairs;
}
