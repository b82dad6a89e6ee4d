/**
 * Where ZooKeeper is, as a URL says it:
 *
 *     zookeeper://[user:password@]host[:port],host[:port],...[/chroot][?reads=quorum]       zk:// for short, zookeepers:// over TLS
 *
 * Everything lies below the chroot, which is made where it is missing. Default: /conclave.
 */
import { conclaveError } from "../../base/errors.ts";
import type { ServerAddress } from "./connection.ts";

export interface ZkUrl {
  readonly tls: boolean;
  readonly servers: readonly ServerAddress[];
  /** For the digest scheme. */
  readonly credentials: string | undefined;
  /** `/a/b`, never empty. */
  readonly root: string;
  readonly parameters: URLSearchParams;
}

const form = /^(?:zookeeper|zk)(?<tls>s?):\/\/(?:(?<user>[^@/?#]*)@)?(?<hosts>[^/?#]+)(?<path>\/[^?#]*)?(?:\?(?<query>[^#]*))?$/i;
const rootDefault = "/conclave";

export function isZkScheme(scheme: string): boolean {
  return /^(?:zookeeper|zk)s?$/i.test(scheme);
}

/** @throws INVALID_OPTION */
export function parseZkUrl(url: string): ZkUrl {
  const parts = form.exec(url)?.groups;
  // The password stays out of the message.
  const shown = url.replace(/\/\/[^@/?#]*@/, "//…@");
  if (parts === undefined) throw conclaveError("INVALID_OPTION", `"${shown}" is no URL of a ZooKeeper.`);
  const tls = parts.tls !== "";
  const path = decodeURIComponent(parts.path ?? "").replace(/\/$/, "");
  if (path !== "" && !/^(?:\/(?!\.{1,2}(?:\/|$))[\x21-\x2e\x30-\x7e]+)+$/.test(path))
    throw conclaveError("INVALID_OPTION", `"${shown}": the chroot must be names of printable ASCII with slashes between.`);
  if (/^\/zookeeper(?:\/|$)/.test(path)) throw conclaveError("INVALID_OPTION", `"${shown}": /zookeeper is ZooKeeper's own.`);
  return {
    tls,
    servers: (parts.hosts as string).split(",").map((text) => serverOf(text, tls ? 2281 : 2181)),
    credentials: parts.user === undefined ? undefined : credentialsOf(parts.user, shown),
    root: path === "" ? rootDefault : path,
    parameters: new URLSearchParams(parts.query ?? ""),
  };
}

function credentialsOf(text: string, shown: string): string {
  const [user = "", ...password] = text.split(":").map(decodeURIComponent);
  if (user === "" || password.length === 0)
    throw conclaveError("INVALID_OPTION", `"${shown}" must name a user and a password, or none of them.`);
  return `${user}:${password.join(":")}`;
}

function serverOf(text: string, portDefault: number): ServerAddress {
  const parts = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d+))?$/.exec(text);
  const port = Number(parts?.[3] ?? portDefault);
  if (parts === null || port < 1 || port > 65_535) throw conclaveError("INVALID_OPTION", `"${text}" is no host:port.`);
  return { host: (parts[1] ?? parts[2]) as string, port };
}
