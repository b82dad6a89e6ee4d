/**
 * A fence in a SQL database: one row for each resource with the highest token seen, checked in the transaction that writes.
 *
 *   BEGIN
 *     fence      raises the row's token to mine, or fails: a higher one has been here
 *     ... the writes ...
 *   COMMIT       until here the row is locked: no later holder's transaction gets past its fence
 *
 * In a transaction of its own it protects nothing: between it and the write a later holder may write and commit.
 * Works through anything with `query(text, values)`: a client of `pg` or `mysql2/promise`, checked out and in a transaction.
 */
import { conclaveError } from "../base/errors.ts";
import { checkFenced, type Fenced, staleToken } from "./fence.ts";

/** `pg`: a Client or a checked-out PoolClient (never a Pool: each of its queries may go to another connection). */
export interface PostgresClient {
  query(
    text: string,
    values?: readonly unknown[],
  ): Promise<{ readonly rowCount: number | null; readonly rows: readonly unknown[] }>;
}

/** `mysql2/promise`: a Connection or a checked-out PoolConnection. */
export interface MysqlClient {
  query(text: string, values?: readonly unknown[]): Promise<readonly [unknown, ...unknown[]]>;
}

/** To be run once, by your migrations. */
export const fenceTable = {
  postgres: "CREATE TABLE IF NOT EXISTS conclave_fence (name text PRIMARY KEY, token bigint NOT NULL)",
  mysql: "CREATE TABLE IF NOT EXISTS conclave_fence (name varbinary(700) PRIMARY KEY, token bigint NOT NULL) ENGINE=InnoDB",
} as const;

/**
 * In a PostgreSQL transaction: refuses it unless no higher token has been here. One statement.
 * @throws STALE_TOKEN (roll back: nothing was written by this)
 */
export async function fencePostgres(client: PostgresClient, fenced: Fenced): Promise<void> {
  checkFenced(fenced);
  // A row that a later holder's open transaction has raised makes this wait for it, and then see its token.
  const { rowCount } = await client.query(
    `INSERT INTO conclave_fence AS f (name, token) VALUES ($1, $2)
     ON CONFLICT (name) DO UPDATE SET token = EXCLUDED.token WHERE f.token <= EXCLUDED.token`,
    [fenced.name, fenced.token],
  );
  if (rowCount === 1) return;
  throw staleToken(fenced, undefined);
}

/**
 * In a MariaDB or MySQL transaction: refuses it unless no higher token has been here. Three statements.
 * @throws STALE_TOKEN (roll back: nothing was written by this)
 */
export async function fenceMysql(client: MysqlClient, fenced: Fenced): Promise<void> {
  checkFenced(fenced);
  const { name, token } = fenced;
  await client.query("INSERT IGNORE INTO conclave_fence (name, token) VALUES (?, ?)", [name, token]);
  const [rows] = await client.query("SELECT CAST(token AS CHAR) AS token FROM conclave_fence WHERE name = ? FOR UPDATE", [name]);
  const [row] = rows as readonly { readonly token: string }[];
  if (row === undefined) throw conclaveError("INVARIANT", `The fence of "${name}" vanished inside a transaction.`);
  const highest = Number(row.token);
  if (highest > token) throw staleToken(fenced, highest);
  if (highest < token) await client.query("UPDATE conclave_fence SET token = ? WHERE name = ?", [token, name]);
}
