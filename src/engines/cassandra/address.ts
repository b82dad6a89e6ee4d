/**
 * Where Cassandra is:
 *
 *     cassandra://[user:password@]host[:port][,host...]/[keyspace]?dc=datacenter1&serial=serial&replication=3&timeoutMs=5000
 */
import { conclaveError } from "../../base/errors.ts";

export interface CassandraUrl {
  readonly contactPoints: readonly string[];
  readonly username: string | undefined;
  readonly password: string | undefined;
  readonly keyspace: string;
  /** The data centre that is near. */
  readonly dataCenter: string;
  /** `local-serial`: agreement within the near data centre alone. */
  readonly serial: "serial" | "local-serial";
  /** Of a keyspace that has to be made. */
  readonly replication: number;
  readonly timeoutMs: number;
}

const form = /^cassandra:\/\/(?:(?<user>[^@/?#]*)@)?(?<hosts>[^/?#]+)(?:\/(?<keyspace>[^/?#]*))?(?:\?(?<query>[^#]*))?$/i;

export function isCassandraScheme(scheme: string): boolean {
  return scheme.toLowerCase() === "cassandra";
}

/** @throws INVALID_OPTION, without the password in it */
export function parseCassandraUrl(url: string): CassandraUrl {
  const shown = url.replace(/\/\/[^@/?#]*@/, "//…@");
  const parts = form.exec(url)?.groups;
  if (parts === undefined) throw conclaveError("INVALID_OPTION", `"${shown}" is no URL of a Cassandra.`);
  const parameters = new URLSearchParams(parts["query"] ?? "");
  for (const name of parameters.keys()) {
    if (!["dc", "serial", "replication", "timeoutMs"].includes(name))
      throw conclaveError("INVALID_OPTION", `A URL of Cassandra takes no parameter \`${name}\`.`);
  }
  const contactPoints = (parts["hosts"] as string).split(",");
  for (const point of contactPoints) {
    const match = /^(?:\[[^\]]+\]|[^:]+)(?::(\d{1,5}))?$/.exec(point);
    if (match === null || Number(match[1] ?? 9042) > 65_535) throw conclaveError("INVALID_OPTION", `"${point}" is no host:port.`);
  }
  const keyspace = parts["keyspace"] || "conclave";
  if (!/^[a-z][a-z0-9_]{0,47}$/.test(keyspace))
    throw conclaveError(
      "INVALID_OPTION",
      "A keyspace has 1 to 48 small letters, digits and underscores, and begins with a letter.",
    );
  const serial = parameters.get("serial") ?? "serial";
  if (serial !== "serial" && serial !== "local-serial")
    throw conclaveError("INVALID_OPTION", "`serial` must be serial or local-serial.");
  const number = (name: string, fallback: number): number => {
    const value = Number(parameters.get(name) ?? fallback);
    if (!Number.isSafeInteger(value) || value < 1)
      throw conclaveError("INVALID_OPTION", `\`${name}\` must be a whole number from 1.`);
    return value;
  };
  const [user = "", ...password] = (parts["user"] ?? "").split(":");
  return {
    contactPoints,
    username: user === "" ? undefined : decodeURIComponent(user),
    password: password.length === 0 ? undefined : decodeURIComponent(password.join(":")),
    keyspace,
    dataCenter: parameters.get("dc") ?? "datacenter1",
    serial,
    replication: number("replication", 3),
    timeoutMs: number("timeoutMs", 5_000),
  };
}
