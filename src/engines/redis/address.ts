/**
 * Where Redis is, as a URL says it:
 *
 *     redis://[user[:password]@]host[:port][/database]            one server
 *     rediss://...                                                the same over TLS
 *     redis+sentinel://[user:password@]host[:port],.../NAME       Sentinels, and the name of what they watch
 *     redis+cluster://[user:password@]host[:port],...             any nodes of a Cluster; rediss+... over TLS
 *
 * `valkey` may stand for `redis`. Options follow as `?group=...&wait=1&quarantineMs=0`.
 */
import { conclaveError } from "../../base/errors.ts";

export interface Address {
  readonly host: string;
  readonly port: number;
}

export interface RedisUrl {
  readonly kind: "single" | "sentinel" | "cluster";
  readonly tls: boolean;
  readonly addresses: readonly Address[];
  readonly username: string | undefined;
  readonly password: string | undefined;
  readonly database: number;
  /** What the Sentinels call the primary. */
  readonly primaryName: string | undefined;
  readonly parameters: URLSearchParams;
}

const form =
  /^(?:redis|valkey)(?<tls>s?)(?:\+(?<kind>sentinel|cluster))?:\/\/(?:(?<user>[^@/?#]*)@)?(?<hosts>[^/?#]+)(?:\/(?<path>[^?#]*))?(?:\?(?<query>[^#]*))?$/i;
const ports = { single: 6379, cluster: 6379, sentinel: 26_379 } as const;

export function isRedisScheme(scheme: string): boolean {
  return /^(?:redis|valkey)s?(?:\+(?:sentinel|cluster))?$/i.test(scheme);
}

/** @throws INVALID_OPTION */
export function parseRedisUrl(url: string): RedisUrl {
  const parts = form.exec(url)?.groups;
  // The password stays out of the message.
  if (parts === undefined) throw conclaveError("INVALID_OPTION", `"${withoutSecret(url)}" is no URL of a Redis.`);
  const kind = (parts.kind?.toLowerCase() ?? "single") as RedisUrl["kind"];
  const addresses = (parts.hosts as string).split(",").map((host) => parseAddress(host, ports[kind]));
  if (kind === "single" && addresses.length > 1)
    throw conclaveError(
      "INVALID_OPTION",
      `"${withoutSecret(url)}" names several servers: write redis+sentinel: or redis+cluster:.`,
    );
  const path = decodeURIComponent(parts.path ?? "");
  const primaryName = kind === "sentinel" ? path : undefined;
  if (primaryName === "")
    throw conclaveError("INVALID_OPTION", `"${withoutSecret(url)}" lacks the name that the Sentinels watch, after a slash.`);
  const database = kind === "sentinel" || path === "" ? 0 : Number(path);
  if (!Number.isInteger(database) || database < 0 || (kind === "cluster" && database > 0))
    throw conclaveError("INVALID_OPTION", `"${withoutSecret(url)}" names no database number that its kind has.`);
  const [username, ...password] = (parts.user ?? "").split(":");
  return {
    kind,
    tls: parts.tls !== "",
    addresses,
    username: username === "" || username === undefined ? undefined : decodeURIComponent(username),
    password: password.length === 0 ? undefined : decodeURIComponent(password.join(":")),
    database,
    primaryName,
    parameters: new URLSearchParams(parts.query ?? ""),
  };
}

export function addressText({ host, port }: Address): string {
  return `${host.includes(":") ? `[${host}]` : host}:${port}`;
}

/** `host`, `host:port`, `[::1]:port`. @throws INVALID_OPTION */
export function parseAddress(text: string, defaultPort: number): Address {
  const parts = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d+))?$/.exec(text);
  const port = Number(parts?.[3] ?? defaultPort);
  if (parts === null || port < 1 || port > 65_535) throw conclaveError("INVALID_OPTION", `"${text}" is no host:port.`);
  return { host: (parts[1] ?? parts[2]) as string, port };
}

export function withoutSecret(url: string): string {
  return url.replace(/\/\/[^@/?#]*@/, "//…@");
}
