/**
 * The outbox on real databases: invalidated exactly if the write commits, whoever dies on the way.
 */
import mysql from "mysql2/promise";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { startMariadb } from "../../test/servers/mariadb.ts";
import { type Started, startPostgres } from "../../test/servers/postgres.ts";
import type { Cache } from "../cache-core/cache.ts";
import { LocalEngine } from "../testing/local-engine.ts";
import { createCache } from "./create-cache.ts";
import { SqlOutbox, type SqlOutboxOptions } from "./sql-outbox.ts";
import type { MysqlPool, SqlPool } from "./sql-outbox-database.ts";

const realPlatform = {
  now: () => performance.now(),
  wallMs: () => Date.now(),
  setTimer: (delayMs: number, callback: () => void) => {
    const timer = setTimeout(callback, delayMs);
    timer.unref();
    return { cancel: () => clearTimeout(timer) };
  },
  defer: (callback: () => void) => void setImmediate(callback),
  randomUint32: () => Math.floor(Math.random() * 2 ** 32),
};

/** One client of either pool, as the cases use it. */
interface Client {
  query(text: string): Promise<unknown>;
}

/** A database with a pool; `rows`: of a statement on any connection. */
interface Database {
  readonly pool: SqlPool | MysqlPool;
  rows(text: string): Promise<readonly Record<string, unknown>[]>;
  connection(): Promise<Client & { release(): void }>;
  end(): Promise<void>;
}

const databases: Readonly<Record<string, { start(): Promise<Started>; open(url: string): Database }>> = {
  PostgreSQL: {
    start: () => startPostgres(),
    open(url) {
      const pool = new pg.Pool({ connectionString: url, max: 5 });
      // The server is stopped while idle connections are still open.
      pool.on("error", () => undefined);
      return {
        pool,
        rows: async (text) => (await pool.query(text)).rows,
        connection: () => pool.connect(),
        end: () => pool.end(),
      };
    },
  },
  MariaDB: {
    start: () => startMariadb(),
    open(url) {
      const pool = mysql.createPool({ uri: url, connectionLimit: 5 });
      return {
        pool,
        rows: async (text) => (await pool.query(text))[0] as Record<string, unknown>[],
        connection: () => pool.getConnection(),
        end: () => pool.end(),
      };
    },
  },
};

const servers = await Promise.all(Object.entries(databases).map(async ([name, { start }]) => ({ name, server: await start() })));

describe.each(servers.filter(({ server }) => !("skipped" in server)))("the outbox on $name", ({ name, server }) => {
  let database: Database;
  let engine: LocalEngine;
  let users: Cache<string>;
  let outbox: SqlOutbox<SqlPool | MysqlPool>;
  const make = (options: Omit<SqlOutboxOptions<SqlPool | MysqlPool>, "pool">): SqlOutbox<SqlPool | MysqlPool> =>
    new SqlOutbox({ pool: database.pool, ...options });
  const read = async (): Promise<string> => String((await database.rows("SELECT name FROM users WHERE id = 1"))[0]?.["name"]);
  const get = (atLeast?: string): Promise<string> => users.get("1", read, atLeast === undefined ? {} : { atLeast });
  const rowsLeft = async (): Promise<number> =>
    Number((await database.rows("SELECT count(*) AS n FROM conclave_outbox"))[0]?.["n"]);

  beforeAll(async () => {
    if ("skipped" in server) return;
    database = (databases[name] as (typeof databases)[string]).open(server.url);
    await database.rows("CREATE TABLE users (id int PRIMARY KEY, name text)");
  });
  beforeEach(async () => {
    engine = new LocalEngine({ platform: realPlatform });
    users = createCache<string>(engine, "users");
    outbox = make({ caches: [users] });
    await outbox.install();
    await database.rows("DELETE FROM conclave_outbox");
    await database.rows("DELETE FROM users");
    await database.rows("INSERT INTO users VALUES (1, 'Ada')");
    await get();
  });
  afterAll(async () => {
    if ("skipped" in server) return;
    await database.end();
    await server.stop();
  });

  const rename = (to: string) => async (client: Client) => {
    await client.query(`UPDATE users SET name = '${to}' WHERE id = 1`);
  };

  test("a transaction that commits invalidates, and its token reads the write", async () => {
    const token = await outbox.transaction(async (client, invalidate) => {
      await rename("Grace")(client);
      await invalidate(users, "1");
      expect(users.peek("1")).toBe("Ada");
    });
    expect(token).toMatch(/:\d+$/);
    expect(users.peek("1")).toBeUndefined();
    expect(await get(token)).toBe("Grace");
    expect(await rowsLeft()).toBe(0);
  });

  test("a transaction that is rolled back invalidates nothing", async () => {
    const failing = outbox.transaction(async (client, invalidate) => {
      await rename("Nobody")(client);
      await invalidate(users, "1");
      throw new Error("changed my mind");
    });
    await expect(failing).rejects.toThrow("changed my mind");
    expect(users.peek("1")).toBe("Ada");
    expect(await outbox.flush()).toBeUndefined();
    expect(users.peek("1")).toBe("Ada");
  });

  test("a process that dies after its commit: the row waits, and the next relay invalidates", async () => {
    const client = await database.connection();
    await client.query("BEGIN");
    await rename("Grace")(client);
    await outbox.invalidate(client, users, { tag: "org:7" });
    await outbox.invalidate(client, users, ["1"]);
    await client.query("COMMIT");
    client.release();
    expect(users.peek("1")).toBe("Ada");
    expect(await rowsLeft()).toBe(2);
    const successor = make({ caches: [users], pollMs: 20 });
    successor.start();
    for (let tries = 0; tries < 200 && (await rowsLeft()) > 0; tries++) await new Promise((resolve) => setTimeout(resolve, 20));
    expect(users.peek("1")).toBeUndefined();
    expect(await get()).toBe("Grace");
    await successor.close();
  });

  test("a relay that fails after it invalidated leaves the rows for the next; one that is at work is not waited for", async () => {
    const client = await database.connection();
    await client.query("BEGIN");
    await outbox.invalidate(client, users, "1");
    await client.query("COMMIT");
    client.release();
    let isFailing = true;
    const flaky = make({
      caches: [
        {
          name: "users",
          invalidate: async (targets) => {
            expect(await outbox.flush()).toBeUndefined();
            if (isFailing) throw new Error("died here");
            return users.invalidate(targets);
          },
        },
      ],
    });
    await expect(flaky.flush()).rejects.toThrow("died here");
    expect(await rowsLeft()).toBe(1);
    expect(users.peek("1")).toBe("Ada");
    isFailing = false;
    expect(await flaky.flush()).toBeDefined();
    expect(users.peek("1")).toBeUndefined();
    expect(await rowsLeft()).toBe(0);
  });

  test("a relay at work keeps nobody from writing rows, neither of its caches nor of others", async () => {
    const relay = make({
      caches: [
        {
          name: "users",
          invalidate: async () => {
            await outbox.transaction(async (client, invalidate) => {
              await invalidate(users, "2");
              await outbox.invalidate(client, { name: "others" }, "3");
            });
            return "a:1";
          },
        },
      ],
    });
    const client = await database.connection();
    await outbox.invalidate(client, users, "1");
    client.release();
    expect(await relay.flush()).toBe("a:1");
    expect(await rowsLeft()).toBe(1);
  }, 10_000);

  test("a transaction that began earlier and commits later is not skipped", async () => {
    const slow = await database.connection();
    await slow.query("BEGIN");
    await outbox.invalidate(slow, users, "1");
    await outbox.transaction(async (_, invalidate) => invalidate(users, "other"));
    expect(await outbox.flush()).toBeUndefined();
    expect(users.peek("1")).toBe("Ada");
    await slow.query("COMMIT");
    slow.release();
    expect(await outbox.flush()).toBeDefined();
    expect(users.peek("1")).toBeUndefined();
  });

  test("a table name that is no name is refused", () => {
    expect(() => make({ caches: [], table: "x; DROP TABLE users" })).toThrow(/`table`/);
  });
});

for (const { name, server } of servers) {
  if ("skipped" in server) test(`left out, ${name}: ${server.skipped}`, () => expect(server.skipped).not.toBe(""));
}

test("a pool that is none, and mysql2's pool of callbacks, are refused by name", () => {
  for (const pool of [{}, undefined, { getConnection: () => undefined, promise: () => undefined }]) {
    expect(() => new SqlOutbox({ pool: pool as unknown as SqlPool, caches: [] })).toThrow(
      expect.objectContaining({ code: "FOREIGN_CLIENT" }),
    );
  }
});
