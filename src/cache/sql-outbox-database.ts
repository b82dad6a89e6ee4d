/**
 * What the outbox asks of a database, and the two it knows: PostgreSQL through a pool of the shape of `pg`, MySQL 8.0 and
 * MariaDB 10.6 (SKIP LOCKED) and later through one of the shape of `mysql2/promise`. A pool is recognised by its methods.
 */
import { conclaveError } from "../base/errors.ts";

/** What is used of a `pg` client. */
export interface SqlClient {
  query(text: string, values?: unknown[]): Promise<{ readonly rows: readonly Record<string, unknown>[] }>;
}

/** What is used of a `pg` Pool. */
export interface SqlPool {
  connect(): Promise<SqlClient & { release(error?: boolean): void }>;
}

/** What is used of a connection of `mysql2/promise`. */
export interface MysqlConnection {
  // biome-ignore lint/suspicious/noExplicitAny: mysql2 types its values and answers by the kind of statement.
  query(text: string, values?: any): Promise<any>;
}

/** What is used of a pool of `mysql2/promise`. */
export interface MysqlPool {
  getConnection(): Promise<MysqlConnection & { release(): void; destroy(): void }>;
}

/** The client that a transaction's work is given. */
export type ClientOf<P> = P extends MysqlPool ? MysqlConnection : SqlClient;

export interface OutboxRow {
  readonly id: unknown;
  readonly cache: string;
  /** JSON, parsed or not. */
  readonly targets: unknown;
}

/** C: its clients. */
export interface OutboxDatabase<C> {
  /** Runs the work on a client of the pool; what throws loses the connection with whatever was open on it. */
  with<T>(work: (client: C) => Promise<T>): Promise<T>;
  begin(client: C): Promise<void>;
  end(client: C, how: "COMMIT" | "ROLLBACK"): Promise<void>;
  install(client: C): Promise<void>;
  insert(client: C, row: { readonly cache: string; readonly targets: string }): Promise<unknown>;
  /** The first rows of these caches that nobody else has locked, locked until the transaction's end. */
  lock(client: C, how: { readonly caches: readonly string[]; readonly limit: number }): Promise<readonly OutboxRow[]>;
  delete(client: C, ids: readonly unknown[]): Promise<void>;
}

/** @throws FOREIGN_CLIENT */
export function outboxDatabase<P extends SqlPool | MysqlPool>(pool: P, table: string): OutboxDatabase<ClientOf<P>> {
  const shape = pool as (Partial<SqlPool & MysqlPool> & { readonly promise?: unknown }) | undefined;
  if (typeof shape?.promise === "function") {
    throw conclaveError("FOREIGN_CLIENT", "`pool` is mysql2's pool of callbacks; pass what its method `promise` returns.");
  }
  if (typeof shape?.getConnection === "function") return mysqlDatabase(pool as MysqlPool, table) as OutboxDatabase<ClientOf<P>>;
  if (typeof shape?.connect === "function") return postgresDatabase(pool as SqlPool, table) as OutboxDatabase<ClientOf<P>>;
  throw conclaveError(
    "FOREIGN_CLIENT",
    "`pool` has neither `connect`, as a Pool of pg has, nor `getConnection`, as one of mysql2/promise has.",
  );
}

function postgresDatabase(pool: SqlPool, table: string): OutboxDatabase<SqlClient> {
  return {
    async with(work) {
      const client = await pool.connect();
      let isBroken = true;
      try {
        const answer = await work(client);
        isBroken = false;
        return answer;
      } finally {
        // What was thrown may have left a transaction open: such a connection does not go back to the pool.
        client.release(isBroken);
      }
    },
    begin: async (client) => void (await client.query("BEGIN")),
    end: async (client, how) => void (await client.query(how)),
    install: async (client) =>
      void (await client.query(
        `CREATE TABLE IF NOT EXISTS ${table} (id bigserial PRIMARY KEY, cache text NOT NULL, targets jsonb NOT NULL)`,
      )),
    async insert(client, { cache, targets }) {
      const { rows } = await client.query(`INSERT INTO ${table} (cache, targets) VALUES ($1, $2) RETURNING id`, [cache, targets]);
      return rows[0]?.["id"];
    },
    async lock(client, { caches, limit }) {
      const { rows } = await client.query(
        `SELECT id, cache, targets FROM ${table} WHERE cache = ANY($1) ORDER BY id LIMIT ${limit} FOR UPDATE SKIP LOCKED`,
        [[...caches]],
      );
      return rows as unknown as OutboxRow[];
    },
    delete: async (client, ids) => void (await client.query(`DELETE FROM ${table} WHERE id = ANY($1)`, [[...ids]])),
  };
}

function mysqlDatabase(pool: MysqlPool, table: string): OutboxDatabase<MysqlConnection> {
  return {
    async with(work) {
      const connection = await pool.getConnection();
      try {
        const answer = await work(connection);
        connection.release();
        return answer;
      } catch (error) {
        connection.destroy();
        throw error;
      }
    },
    async begin(client) {
      // Otherwise the relay would lock the gaps between rows as well, and writers would wait for the invalidation.
      await client.query("SET TRANSACTION ISOLATION LEVEL READ COMMITTED");
      await client.query("BEGIN");
    },
    end: async (client, how) => void (await client.query(how)),
    install: async (client) =>
      void (await client.query(
        `CREATE TABLE IF NOT EXISTS ${table} (id bigint AUTO_INCREMENT PRIMARY KEY, cache varchar(255) NOT NULL, ` +
          "targets longtext NOT NULL) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
      )),
    async insert(client, { cache, targets }) {
      const [{ insertId }] = await client.query(`INSERT INTO ${table} (cache, targets) VALUES (?, ?)`, [cache, targets]);
      return insertId;
    },
    async lock(client, { caches, limit }) {
      if (caches.length === 0) return [];
      const [rows] = await client.query(
        `SELECT id, cache, targets FROM ${table} WHERE cache IN (?) ORDER BY id LIMIT ${limit} FOR UPDATE SKIP LOCKED`,
        [caches],
      );
      return rows;
    },
    delete: async (client, ids) => void (await client.query(`DELETE FROM ${table} WHERE id IN (?)`, [ids])),
  };
}
