/**
 * The outbox on a real PostgreSQL: invalidated exactly if the write commits, whoever dies on the way.
 */
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type Started, startPostgres } from "../../test/servers/postgres.ts";
import type { Cache } from "../cache-core/cache.ts";
import { LocalEngine } from "../testing/local-engine.ts";
import { createCache } from "./create-cache.ts";
import { SqlOutbox } from "./sql-outbox.ts";

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

const server: Started = await startPostgres();
const skipped = "skipped" in server;

describe.skipIf(skipped)("the outbox on PostgreSQL", () => {
  let pool: pg.Pool;
  let engine: LocalEngine;
  let users: Cache<string>;
  let outbox: SqlOutbox;
  const read = async (): Promise<string> => (await pool.query("SELECT name FROM users WHERE id = 1")).rows[0].name;
  const get = (atLeast?: string): Promise<string> => users.get("1", read, atLeast === undefined ? {} : { atLeast });
  const rowsLeft = async (): Promise<number> => Number((await pool.query("SELECT count(*) AS n FROM conclave_outbox")).rows[0].n);

  beforeAll(async () => {
    if ("skipped" in server) return;
    pool = new pg.Pool({ connectionString: server.url, max: 5 });
    // The server is stopped while idle connections are still open.
    pool.on("error", () => undefined);
    await pool.query("CREATE TABLE users (id int PRIMARY KEY, name text)");
  });
  beforeEach(async () => {
    engine = new LocalEngine({ platform: realPlatform });
    users = createCache<string>(engine, "users");
    outbox = new SqlOutbox({ pool, caches: [users] });
    await outbox.install();
    await pool.query("DELETE FROM conclave_outbox");
    await pool.query("INSERT INTO users VALUES (1, 'Ada') ON CONFLICT (id) DO UPDATE SET name = 'Ada'");
    await get();
  });
  afterAll(async () => {
    if ("skipped" in server) return;
    await pool.end();
    await server.stop();
  });

  const rename = (name: string) => async (client: { query(text: string, values: unknown[]): Promise<unknown> }) => {
    await client.query("UPDATE users SET name = $1 WHERE id = 1", [name]);
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
    const client = await pool.connect();
    await client.query("BEGIN");
    await rename("Grace")(client);
    await outbox.invalidate(client, users, { tag: "org:7" });
    await outbox.invalidate(client, users, ["1"]);
    await client.query("COMMIT");
    client.release();
    expect(users.peek("1")).toBe("Ada");
    expect(await rowsLeft()).toBe(2);
    const successor = new SqlOutbox({ pool, caches: [users], pollMs: 20 });
    successor.start();
    for (let tries = 0; tries < 200 && (await rowsLeft()) > 0; tries++) await new Promise((resolve) => setTimeout(resolve, 20));
    expect(users.peek("1")).toBeUndefined();
    expect(await get()).toBe("Grace");
    await successor.close();
  });

  test("a relay that fails after it invalidated leaves the rows for the next; one that is at work is not waited for", async () => {
    const client = await pool.connect();
    await client.query("BEGIN");
    await outbox.invalidate(client, users, "1");
    await client.query("COMMIT");
    client.release();
    let isFailing = true;
    const flaky = new SqlOutbox({
      pool,
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

  test("a transaction that began earlier and commits later is not skipped", async () => {
    const slow = await pool.connect();
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
    expect(() => new SqlOutbox({ pool, caches: [], table: "x; DROP TABLE users" })).toThrow(/`table`/);
  });
});

test.runIf(skipped)(`left out: ${"skipped" in server ? server.skipped : ""}`, () => expect(skipped).toBe(true));
