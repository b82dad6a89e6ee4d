/**
 * Makes the tables and the functions of this version where they are missing, and checks what is there.
 *
 * Two clients that come at once make them once; clients of different versions each have their functions beside the others'.
 * Whoever may not create is told what an administrator runs for them: `postgresSchema(group)`.
 */
import { type ConclaveError, conclaveError, hasCode } from "../../base/errors.ts";
import type { Database, DatabaseCall } from "./database.ts";
import { functionName } from "./function-caller.ts";
import { functionStatements, placed, versionHash } from "./functions.ts";
import { lastTable, layoutVersion, schemaOf, tableStatements } from "./tables.ts";

/** Any number that nobody else is likely to use: "conclave" as a number. */
const installLock = "716377889";

/**
 * Everything that a group needs in a database, as SQL: for migrations, where Conclave's own user may not create.
 * May be run again. Grant USAGE on the schema, and SELECT, INSERT, UPDATE, DELETE on its tables to who uses it.
 * @since 0.3.0
 */
export function postgresSchema(group = "conclave"): string {
  return `${statementsOf(group, null).join(";\n")};\n`;
}

/** @throws UNAUTHORIZED, WRONG_PROTOCOL */
export async function ensureInstalled(
  database: Database,
  { group, serverGiven }: { readonly group: string; readonly serverGiven: string | null },
  call: DatabaseCall,
): Promise<void> {
  try {
    const layout = await layoutIn(database, group, call);
    if (layout !== undefined && layout > layoutVersion)
      throw conclaveError("WRONG_PROTOCOL", `The tables of "${group}" have layout ${layout}, made by a newer version.`);
    if (layout === undefined || !(await hasFunctions(database, group, call)))
      await database.ask(installation(group, serverGiven), [], call);
    await checkPrivileges(database, group, call);
  } catch (error) {
    throw hasCode(error, "UNAUTHORIZED") ? mayNot(group, error) : error;
  }
}

/** One text without values is one transaction, and one round trip. */
function installation(group: string, serverGiven: string | null): string {
  return [`SELECT pg_advisory_xact_lock(${installLock})`, ...statementsOf(group, serverGiven)].join(";\n");
}

function statementsOf(group: string, serverGiven: string | null): string[] {
  const schema = schemaOf(group);
  const given = serverGiven === null ? "NULL" : `'${serverGiven}'`;
  const tables = tableStatements.map((statement) => placed(statement, schema)).join(";\n");
  return [
    // Not touched where they stand: CREATE INDEX locks a table before it finds that there is nothing to do, and a client at
    // work that holds the row of `meta`, which is wanted below, waits for that table: each would wait for the other.
    `DO $install$ BEGIN IF to_regclass('${schema}.${lastTable}') IS NULL THEN\n${tables};\nEND IF; END $install$`,
    ...functionStatements.map((statement) => placed(statement, schema)),
    `INSERT INTO ${schema}.meta (layout, server) VALUES (${layoutVersion}, ${functionName(group, "server")}(${given})) ON CONFLICT DO NOTHING`,
  ];
}

/** Undefined: there are no tables, or nothing in them yet. */
async function layoutIn(database: Database, group: string, call: DatabaseCall): Promise<number | undefined> {
  const schema = schemaOf(group);
  const [table] = (await database.ask("SELECT to_regclass($1) IS NOT NULL AS there", [`${schema}.meta`], call)) as {
    readonly there: boolean;
  }[];
  if (table?.there !== true) return undefined;
  const [meta] = (await database.ask(`SELECT layout FROM ${schema}.meta`, [], call)) as { readonly layout: number }[];
  return meta?.layout;
}

async function hasFunctions(database: Database, group: string, call: DatabaseCall): Promise<boolean> {
  const [row] = (await database.ask(
    `SELECT count(*)::integer AS functions FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
      WHERE n.nspname = $1 AND right(p.proname, 9) = $2`,
    [group, `_${versionHash}`],
    call,
  )) as { readonly functions: number }[];
  return row?.functions === functionStatements.length;
}

async function checkPrivileges(database: Database, group: string, call: DatabaseCall): Promise<void> {
  const [row] = (await database.ask(
    `SELECT string_agg(DISTINCT lacking.what, ', ') AS lacking FROM (
      SELECT p.privilege || ' on table ' || c.relname AS what FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
        unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p (privilege)
        WHERE n.nspname = $1 AND c.relkind = 'r' AND c.relname IN ('meta', 'namespaces', 'entries', 'sessions', 'watchers')
          AND NOT has_table_privilege(c.oid, p.privilege)
          AND NOT (c.relname = 'meta' AND p.privilege IN ('INSERT', 'DELETE'))
      UNION ALL
      SELECT 'EXECUTE on function ' || f.proname FROM pg_proc f JOIN pg_namespace n ON n.oid = f.pronamespace
        WHERE n.nspname = $1 AND right(f.proname, 9) = $2 AND NOT has_function_privilege(f.oid, 'EXECUTE')) lacking`,
    [group, `_${versionHash}`],
    call,
  )) as { readonly lacking: string | null }[];
  if (row !== undefined && row.lacking !== null)
    throw conclaveError("UNAUTHORIZED", `This user lacks ${row.lacking} in schema "${group}".`);
}

function mayNot(group: string, cause: ConclaveError): ConclaveError {
  const way = `Let an owner run what \`postgresSchema("${group}")\` of conclave/postgres prints, and GRANT this user USAGE on schema "${group}", EXECUTE on its functions and SELECT, INSERT, UPDATE, DELETE on its tables`;
  return conclaveError("UNAUTHORIZED", `${cause.message.replace(/ Ask for a credential.*$/, "")} ${way}.`, { cause });
}
