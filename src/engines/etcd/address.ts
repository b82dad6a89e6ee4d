/**
 * Where etcd is, as a URL says it:
 *
 *     etcd://[user:password@]host[:port],host[:port],...[/?prefix=conclave/]       etcds:// over TLS
 *
 * Any members will do; each call goes to one of them, and to the next when that one is silent.
 */
import { conclaveError } from "../../base/errors.ts";

export interface EtcdUrl {
  readonly tls: boolean;
  /** `host:port`. */
  readonly endpoints: readonly string[];
  readonly username: string | undefined;
  readonly password: string | undefined;
  readonly parameters: URLSearchParams;
}

const form = /^etcd(?<tls>s?):\/\/(?:(?<user>[^@/?#]*)@)?(?<hosts>[^/?#]+)\/?(?:\?(?<query>[^#]*))?$/i;
const portDefault = 2379;

/** @throws INVALID_OPTION */
export function parseEtcdUrl(url: string): EtcdUrl {
  const parts = form.exec(url)?.groups;
  // The password stays out of the message.
  if (parts === undefined)
    throw conclaveError("INVALID_OPTION", `"${url.replace(/\/\/[^@/?#]*@/, "//…@")}" is no URL of an etcd.`);
  const [username, ...password] = (parts.user ?? "").split(":");
  return {
    tls: parts.tls !== "",
    endpoints: (parts.hosts as string).split(",").map(endpointOf),
    username: username === "" || username === undefined ? undefined : decodeURIComponent(username),
    password: password.length === 0 ? undefined : decodeURIComponent(password.join(":")),
    parameters: new URLSearchParams(parts.query ?? ""),
  };
}

function endpointOf(text: string): string {
  const parts = /^(\[[^\]]+\]|[^:]+)(?::(\d+))?$/.exec(text);
  const port = Number(parts?.[2] ?? portDefault);
  if (parts === null || port < 1 || port > 65_535) throw conclaveError("INVALID_OPTION", `"${text}" is no host:port.`);
  return `${parts[1]}:${port}`;
}
