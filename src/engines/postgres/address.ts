/**
 * Where PostgreSQL is, and how Conclave is to use it:
 *
 *     postgres://user:password@host:5432/database?sslmode=require&group=conclave&quarantineMs=1000
 *
 * Parameters of ours are taken out; the others are the driver's own and go to it as they are.
 */
import { conclaveError } from "../../base/errors.ts";

export interface PostgresUrl {
  /** For the driver. */
  readonly connectionString: string;
  /** Ours. */
  readonly parameters: ReadonlyMap<string, string>;
}

const ours = ["group", "quarantineMs", "ttlMsMax", "timeoutMs", "connectionsMax", "listen"];
/** What `pg` reads of a URL. */
const drivers = [
  "application_name",
  "client_encoding",
  "connect_timeout",
  "fallback_application_name",
  "host",
  "keepalives",
  "options",
  "port",
  "ssl",
  "sslcert",
  "sslkey",
  "sslmode",
  "sslrootcert",
  "sslnegotiation",
  "uselibpqcompat",
];

export function isPostgresScheme(scheme: string): boolean {
  return /^postgres(?:ql)?$/i.test(scheme);
}

/** @throws INVALID_OPTION, without the password in it */
export function parsePostgresUrl(url: string): PostgresUrl {
  let parsed: URL;
  try {
    parsed = new URL(url);
  } catch {
    throw conclaveError("INVALID_OPTION", `"${withoutSecret(url)}" is no URL of a PostgreSQL.`);
  }
  const parameters = new Map<string, string>();
  for (const [name, value] of [...parsed.searchParams]) {
    if (ours.includes(name)) {
      parameters.set(name, value);
      parsed.searchParams.delete(name);
    } else if (!drivers.includes(name)) {
      throw conclaveError("INVALID_OPTION", `A URL of PostgreSQL takes no parameter \`${name}\`.`);
    }
  }
  if (!/^\/[^/]+$/.test(parsed.pathname) && parsed.pathname !== "" && parsed.pathname !== "/")
    throw conclaveError("INVALID_OPTION", `"${withoutSecret(url)}" names no single database.`);
  return { connectionString: parsed.href, parameters };
}

export function withoutSecret(url: string): string {
  return url.replace(/\/\/[^@/?#]*@/, "//…@");
}

/** A group is a schema. @throws INVALID_OPTION */
export function checkGroup(group: string): void {
  if (!/^[a-z_][a-z0-9_]{0,47}$/.test(group) || group.startsWith("pg_"))
    throw conclaveError(
      "INVALID_OPTION",
      "`group` names a schema: 1 to 48 small letters, digits and underscores, not beginning with a digit or `pg_`.",
    );
}
