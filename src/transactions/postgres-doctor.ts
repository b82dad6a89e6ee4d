/**
 * What a PostgreSQL must be set to before the first transaction: half of what goes wrong with two-phase commit is configuration.
 */
import { markerTable } from "./marker.ts";
import type { PostgresResult } from "./postgres.ts";
import type { Finding } from "./resource.ts";

export async function postgresDoctor(
  ask: (text: string, values?: unknown[]) => Promise<PostgresResult>,
): Promise<readonly Finding[]> {
  const setting = async (name: string): Promise<string> => {
    const { rows } = await ask("SELECT current_setting($1, true) AS value", [name]);
    return (rows[0] as { value: string | null }).value ?? "";
  };
  const findings: Finding[] = [];
  const add = (level: Finding["level"], check: string, message: string): void => {
    findings.push({ level, check, message });
  };
  const version = Number(await setting("server_version_num"));
  add(
    version >= 120_000 ? "ok" : "error",
    "version",
    `${await setting("server_version")}${version >= 120_000 ? "" : "; 12 or newer is needed"}`,
  );
  const prepared = Number(await setting("max_prepared_transactions"));
  if (prepared === 0) {
    add("error", "max_prepared_transactions", "is 0: nothing can be prepared. Set it to 64 or more and restart the server.");
  } else if (prepared < 20)
    add("warning", "max_prepared_transactions", `is ${prepared}; set it to twice the connections of all pools.`);
  else add("ok", "max_prepared_transactions", `${prepared}`);
  const fsync = await setting("fsync");
  add(fsync === "on" ? "ok" : "error", "fsync", fsync === "on" ? "on" : "is off: a power cut loses prepared branches.");
  const pages = await setting("full_page_writes");
  add(pages === "on" ? "ok" : "warning", "full_page_writes", pages === "on" ? "on" : "is off: a torn page may lose data.");
  const { rows } = await ask("SELECT to_regclass($1) IS NOT NULL AS is_there, current_user AS who, current_database() AS here", [
    markerTable,
  ]);
  const { is_there: isThere, who, here } = rows[0] as { is_there: boolean; who: string; here: string };
  add(
    isThere ? "ok" : "warning",
    "marker table",
    isThere ? `${markerTable} in ${here}` : `${markerTable} is not in ${here} yet; the first start makes it.`,
  );
  const foreign = await ask(
    "SELECT count(*)::int AS count FROM pg_prepared_xacts WHERE database = current_database() AND owner <> current_user AND gid LIKE 'cv1.%'",
  );
  const { count } = foreign.rows[0] as { count: number };
  add(
    count === 0 ? "ok" : "error",
    "owner",
    count === 0
      ? `${who} prepares and finishes`
      : `${count} branches were prepared by another role; only that role may finish them.`,
  );
  const oldest = await ask(
    "SELECT coalesce(extract(epoch FROM max(now() - prepared)), 0)::int AS seconds FROM pg_prepared_xacts",
  );
  const { seconds } = oldest.rows[0] as { seconds: number };
  add(
    seconds < 60 ? "ok" : "warning",
    "oldest prepared",
    seconds < 60 ? `${seconds} s` : `${seconds} s old: it holds locks and stops vacuum.`,
  );
  return findings;
}
