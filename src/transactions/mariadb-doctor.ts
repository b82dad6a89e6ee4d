/**
 * What a MariaDB or MySQL must be set to before the first transaction.
 */
import { markerTable } from "./marker.ts";
import type { Finding } from "./resource.ts";

// biome-ignore lint/suspicious/noExplicitAny: rows are whatever the statement selects.
export async function mariadbDoctor(ask: (sql: string, values?: unknown[]) => Promise<any>): Promise<readonly Finding[]> {
  const findings: Finding[] = [];
  const add = (level: Finding["level"], check: string, message: string): void => {
    findings.push({ level, check, message });
  };
  const variable = async (name: string): Promise<string | undefined> =>
    ((await ask("SHOW GLOBAL VARIABLES LIKE ?", [name])) as { Value: string }[])[0]?.Value;
  const version = (await variable("version")) ?? "";
  const isMaria = /mariadb/i.test(version);
  const [major = 0, minor = 0, patch = 0] = (/\d+\.\d+\.\d+/.exec(version)?.[0] ?? "0.0.0").split(".").map(Number);
  const number = major * 10_000 + minor * 100 + patch;
  const least = isMaria ? 100_500 : 80_030;
  add(
    number >= least ? "ok" : "error",
    "version",
    number >= least ? version : `${version}: prepared branches do not survive; use MariaDB 10.5 or MySQL 8.0.30, or newer.`,
  );
  const flush = await variable("innodb_flush_log_at_trx_commit");
  add(
    flush === "1" ? "ok" : "error",
    "innodb_flush_log_at_trx_commit",
    flush === "1" ? "1" : `is ${flush}: a crash loses what was prepared.`,
  );
  if ((await variable("log_bin")) === "ON") {
    const sync = await variable("sync_binlog");
    add(
      sync === "1" ? "ok" : "warning",
      "sync_binlog",
      sync === "1" ? "1" : `is ${sync}: after a crash the binary log may lack what the tables have.`,
    );
    if (isMaria) {
      add(
        "warning",
        "binary log",
        "MariaDB's crash-safe recovery of XA through the binary log is still being built (MDEV-32830).",
      );
    }
  }
  if (!isMaria) {
    const detach = await variable("xa_detach_on_prepare");
    add(
      detach === "ON" ? "ok" : "warning",
      "xa_detach_on_prepare",
      detach === "ON" ? "ON" : "is off: taking over means ending sessions.",
    );
  }
  try {
    await ask("XA RECOVER");
    add("ok", "XA RECOVER", "allowed");
  } catch (error) {
    add("error", "XA RECOVER", `refused: ${error instanceof Error ? error.message : String(error)} Grant XA_RECOVER_ADMIN.`);
  }
  const tables = (await ask(
    "SELECT ENGINE AS engine FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?",
    [markerTable],
  )) as { engine: string }[];
  const [table] = tables;
  if (table === undefined) add("warning", "marker table", `${markerTable} is not there yet; the first start makes it.`);
  else add(table.engine === "InnoDB" ? "ok" : "error", "marker table", `${markerTable}, ${table.engine}`);
  return findings;
}
