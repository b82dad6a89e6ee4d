/**
 * Transactions over a real PostgreSQL and a real MariaDB, both durable. Skipped, with the reason, where they are not installed.
 */
import mysql from "mysql2/promise";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { volatileWords } from "../src/coordinator/options.ts";
import { connect } from "../src/index.ts";
import { Abort, TransactionAborted } from "../src/transactions/errors.ts";
import { type TransactionManager, transactions } from "../src/transactions/manager.ts";
import { type MariadbResource, mariadb } from "../src/transactions/mariadb.ts";
import { type PostgresResource, postgres } from "../src/transactions/postgres.ts";
import { type StoreResource, storeResource } from "../src/transactions/store-branch.ts";
import { FaultProxy } from "./servers/fault-proxy.ts";
import { startMariadb } from "./servers/mariadb.ts";
import { startPostgres } from "./servers/postgres.ts";

const [postgresServer, mariadbServer] = await Promise.all([startPostgres(), startMariadb()]);
const skipped =
  "skipped" in postgresServer ? postgresServer.skipped : "skipped" in mariadbServer ? mariadbServer.skipped : undefined;
if (skipped !== undefined) console.log(`Transactions on real servers are skipped: ${skipped}.`);

type Bank = { readonly orders: PostgresResource; readonly wallet: MariadbResource; readonly stock: StoreResource };

describe.skipIf(skipped !== undefined)("on PostgreSQL and MariaDB", () => {
  if ("skipped" in postgresServer || "skipped" in mariadbServer) return;
  const conclave = connect("memory:");
  let tm: TransactionManager<Bank>;
  let left: pg.Pool;
  let right: mysql.Pool;

  const open = async (): Promise<TransactionManager<Bank>> =>
    transactions({
      store: (await conclave).engine,
      resources: {
        orders: postgres({ url: postgresServer.url }),
        wallet: mariadb({ url: mariadbServer.url }),
        stock: storeResource({ namespace: "stock" }),
      },
      ttlMs: 2_000,
      acceptVolatileDecisions: volatileWords,
    });

  beforeAll(async () => {
    left = new pg.Pool({ connectionString: postgresServer.url });
    // Its clients may hear that the server stops before they are gone.
    left.on("error", () => undefined);
    right = mysql.createPool({ uri: mariadbServer.url });
    tm = await open();
    await left.query("CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL CHECK (balance >= 0))");
    await right.query("CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL, CHECK (balance >= 0)) ENGINE=InnoDB");
  });

  beforeEach(async () => {
    await left.query("TRUNCATE account");
    await left.query("INSERT INTO account VALUES (1, 100), (2, 100)");
    await right.query("TRUNCATE account");
    await right.query("INSERT INTO account VALUES (1, 100), (2, 100)");
  });

  afterAll(async () => {
    await tm.close();
    await left.end();
    await right.end();
    await (await conclave).close();
    await Promise.all([postgresServer.stop(), mariadbServer.stop()]);
  });

  const balances = async (): Promise<readonly [number, number]> => {
    const { rows } = await left.query("SELECT sum(balance)::int AS sum FROM account");
    const [found] = await right.query("SELECT CAST(sum(balance) AS SIGNED) AS sum FROM account");
    return [rows[0].sum, Number((found as { sum: number }[])[0]?.sum)];
  };
  const leftBehind = async (): Promise<number> => {
    const { rows } = await left.query("SELECT count(*)::int AS count FROM pg_prepared_xacts");
    const [listed] = await right.query("XA RECOVER");
    return rows[0].count + (listed as unknown[]).length;
  };

  test("a transfer happens in both databases", async () => {
    const { value, isSettled } = await tm.run({}, async (tx) => {
      await tx.on("orders").query("UPDATE account SET balance = balance - $1 WHERE id = 1", [30]);
      await tx.on("wallet").query("UPDATE account SET balance = balance + ? WHERE id = 1", [30]);
      return "done";
    });
    expect([value, isSettled]).toEqual(["done", true]);
    expect(await balances()).toEqual([170, 230]);
    expect(await leftBehind()).toBe(0);
  });

  test("a business abort undoes both, and says why", async () => {
    const failure = tm.run({}, async (tx) => {
      await tx.on("orders").query("UPDATE account SET balance = balance - 30 WHERE id = 1");
      const [changed] = await tx.on("wallet").query("UPDATE account SET balance = balance - 500 WHERE id = 1 AND balance >= 500");
      if (changed.affectedRows !== 1) throw new Abort("insufficient funds", { missing: 400 });
    });
    await expect(failure).rejects.toMatchObject({
      code: "TRANSACTION_ABORTED",
      definite: true,
      why: "business",
      reason: "insufficient funds",
      details: { missing: 400 },
    });
    expect(await balances()).toEqual([200, 200]);
    expect(await leftBehind()).toBe(0);
  });

  test("a failed statement that the work swallows still forbids the commit, on either side", async () => {
    for (const side of ["orders", "wallet"] as const) {
      const failure = tm.run({}, async (tx) => {
        await tx.on("orders").query("UPDATE account SET balance = balance - 1 WHERE id = 1");
        await tx.on("wallet").query("UPDATE account SET balance = balance + 1 WHERE id = 1");
        await Promise.resolve(tx.on(side).query("INSERT INTO account VALUES (1, 1)")).catch(() => undefined);
      });
      await expect(failure).rejects.toMatchObject({ code: "TRANSACTION_ABORTED", why: "vote", resource: side });
    }
    expect(await balances()).toEqual([200, 200]);
    expect(await leftBehind()).toBe(0);
  });

  test("the last statement rides with the vote, and its row count can veto", async () => {
    await tm.run({}, (tx) => {
      tx.on("orders").last("UPDATE account SET balance = balance - $1 WHERE id = $2", [10, 1], { rows: 1 });
      tx.on("wallet").last("UPDATE account SET balance = balance + ? WHERE id = ?", [10, 1]);
    });
    expect(await balances()).toEqual([190, 210]);
    for (const [name, sql] of [
      ["orders", "UPDATE account SET balance = 0 WHERE id = 77"],
      ["wallet", "UPDATE account SET balance = 0 WHERE id = 77"],
    ] as const) {
      const failure = tm.run({}, (tx) => {
        tx.on(name === "orders" ? "wallet" : "orders").last("UPDATE account SET balance = balance + 1 WHERE id = 1");
        tx.on(name).last(sql, [], { rows: 1, otherwise: "no such account" });
      });
      await expect(failure).rejects.toThrow(/no such account/);
    }
    const broken = tm.run({}, (tx) => {
      tx.on("orders").last("UPDATE account SET balance = -1 WHERE id = 1");
      tx.on("wallet").last("UPDATE account SET balance = balance + 1 WHERE id = 1");
    });
    await expect(broken).rejects.toMatchObject({ why: "vote", resource: "orders" });
    expect(await balances()).toEqual([190, 210]);
    expect(await leftBehind()).toBe(0);
  });

  test("a last statement whose values stand in its text, and one whose values cannot, commit and are refused alike", async () => {
    await left.query(
      "CREATE TABLE note (id int PRIMARY KEY, body text, parent int REFERENCES note DEFERRABLE INITIALLY DEFERRED)",
    );
    const add = "INSERT INTO note VALUES ($1, $2, $3)";
    const other = async (tx: { on(name: "wallet"): { last(sql: string): void } }) =>
      tx.on("wallet").last("UPDATE account SET balance = balance + 1 WHERE id = 1");
    const ways = {
      "two phases": {},
      "last agent": { lastAgent: "orders" },
      "one phase": {},
    } as const;
    let id = 0;
    let added = 0;
    for (const [way, options] of Object.entries(ways)) {
      for (const body of ["plain", "it's \\ not"]) {
        for (const first of [false, true]) {
          const run = (values: unknown[], text = add) =>
            tm.run(options, async (tx) => {
              if (first) await tx.on("orders").query("SELECT 1");
              tx.on("orders").last(text, values);
              if (way !== "one phase") await other(tx);
            });
          id++;
          const { gid } = await run([id, body, null]);
          added += way === "one phase" ? 0 : 1;
          const { rows } = await left.query(
            "SELECT body, (SELECT count(*)::int FROM conclave_mark WHERE gid = $2) AS marks FROM note WHERE id = $1",
            [id, gid],
          );
          expect([way, first, rows]).toEqual([way, first, [{ body, marks: 1 }]]);
          // The statement fails; its text is no statement; what it did is refused at the end.
          for (const [values, text] of [
            [[id, body, null], add],
            [[id, body, null], `${add} WHERE`],
            [[-1, body, -2], add],
          ] as const) {
            await expect(run([...values], text)).rejects.toMatchObject({
              code: "TRANSACTION_ABORTED",
              why: "vote",
              resource: "orders",
            });
          }
        }
      }
    }
    const { rows } = await left.query("SELECT count(*)::int AS count FROM note");
    expect([rows[0].count, (await balances())[1]]).toEqual([id, 200 + added]);
    expect(await leftBehind()).toBe(0);
    const { rows: open } = await left.query("SELECT query FROM pg_stat_activity WHERE state LIKE 'idle in%'");
    expect(open).toEqual([]);
  });

  test("a last statement keeps the isolation that was asked for, also where nothing else is said", async () => {
    const strict = await transactions({
      store: (await conclave).engine,
      resources: { orders: postgres({ url: postgresServer.url, isolation: "serializable" }) },
      acceptVolatileDecisions: volatileWords,
    });
    await left.query("CREATE TABLE level (name text)");
    await strict.run({}, (tx) =>
      tx.on("orders").last("INSERT INTO level VALUES (current_setting($1))", ["transaction_isolation"]),
    );
    expect((await left.query("SELECT name FROM level")).rows).toEqual([{ name: "serializable" }]);
    await strict.close();
  });

  test("connections that lie at hand when the server ends them are not handed out again", async () => {
    const other = await transactions<Pick<Bank, "orders" | "wallet">>({
      store: (await conclave).engine,
      resources: { orders: postgres({ url: postgresServer.url }), wallet: mariadb({ url: mariadbServer.url }) },
      acceptVolatileDecisions: volatileWords,
    });
    // Each on a row of its own: on one row they may wait for one another, in one database each.
    const transfer = (id: number) =>
      other.run({}, (tx) => {
        tx.on("orders").last("UPDATE account SET balance = balance - 1 WHERE id = $1", [id]);
        tx.on("wallet").last("UPDATE account SET balance = balance + 1 WHERE id = ?", [id]);
      });
    await Promise.all([transfer(1), transfer(2)]);
    // The servers need a moment to see that they wait.
    await new Promise((resolve) => setTimeout(resolve, 50));
    const ended = await left.query(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'conclave-tx' AND state = 'idle'",
    );
    expect(ended.rows.length).toBeGreaterThan(0);
    // On one connection: it would end others of this pool too, and then ask by one of those.
    const admin = await right.getConnection();
    const [sessions] = await admin.query(
      "SELECT ID FROM information_schema.PROCESSLIST WHERE COMMAND = 'Sleep' AND ID <> CONNECTION_ID()",
    );
    expect((sessions as unknown[]).length).toBeGreaterThan(0);
    for (const { ID } of sessions as { ID: number }[]) await admin.query(`KILL ${ID}`);
    admin.release();
    await new Promise((resolve) => setTimeout(resolve, 100));
    await Promise.all([transfer(1), transfer(2)]);
    expect(await balances()).toEqual([196, 204]);
    await other.close();
  });

  test("one database alone commits in one phase and writes nothing into the store", async () => {
    await tm.run({}, async (tx) => tx.on("orders").query("UPDATE account SET balance = balance + 1 WHERE id = 2"));
    await tm.run({}, async (tx) => tx.on("wallet").query("UPDATE account SET balance = balance + 1 WHERE id = 2"));
    expect(await balances()).toEqual([201, 201]);
  });

  test("the last agent decides by its own commit, on either side", async () => {
    for (const lastAgent of ["orders", "wallet"] as const) {
      await tm.run({ lastAgent }, async (tx) => {
        await tx.on("orders").query("UPDATE account SET balance = balance - 5 WHERE id = 1");
        await tx.on("wallet").query("UPDATE account SET balance = balance + 5 WHERE id = 1");
      });
    }
    expect(await balances()).toEqual([190, 210]);
    const failure = tm.run({ lastAgent: "orders" }, async (tx) => {
      await tx.on("wallet").query("UPDATE account SET balance = balance + 5 WHERE id = 1");
      await tx
        .on("orders")
        .query("UPDATE account SET balance = -5 WHERE id = 1")
        .catch(() => undefined);
    });
    await expect(failure).rejects.toBeInstanceOf(TransactionAborted);
    expect(await balances()).toEqual([190, 210]);
    expect(await leftBehind()).toBe(0);
  });

  test("the store takes part within the decision; a change in between aborts all of it", async () => {
    const stock = (await conclave).engine.store("stock");
    await stock.txn({ then: [{ kind: "put", key: "sku", value: "7" }] });
    await tm.run({}, async (tx) => {
      const found = await tx.on("stock").get("sku");
      tx.on("stock").put("sku", String(Number(found?.text) - 1));
      await tx.on("orders").query("UPDATE account SET balance = balance - 1 WHERE id = 1");
    });
    const read = async () => {
      const { results } = await stock.txn({ then: [{ kind: "get", key: "sku" }] });
      return results[0]?.kind === "get" ? results[0].entry?.text : undefined;
    };
    expect(await read()).toBe("6");
    const conflict = tm.run({}, async (tx) => {
      const found = await tx.on("stock").get("sku");
      await stock.txn({ then: [{ kind: "put", key: "sku", value: "100" }] });
      tx.on("stock").put("sku", String(Number(found?.text) - 1));
      await tx.on("orders").query("UPDATE account SET balance = balance - 1 WHERE id = 1");
    });
    await expect(conflict).rejects.toMatchObject({ why: "conflict" });
    expect(await read()).toBe("100");
    expect(await balances()).toEqual([199, 200]);
  });

  test("a key runs once, answers again, and refuses another body", async () => {
    let runs = 0;
    const pay = (input: unknown) =>
      tm.run({ key: "pay-1", input }, async (tx) => {
        runs++;
        await tx.on("orders").query("UPDATE account SET balance = balance - 1 WHERE id = 1");
        await tx.on("wallet").query("UPDATE account SET balance = balance + 1 WHERE id = 1");
        return { run: runs };
      });
    const first = await pay({ amount: 1, to: "x" });
    const again = await pay({ to: "x", amount: 1 });
    expect(again).toMatchObject({ gid: first.gid, value: { run: 1 }, isReplay: true });
    await expect(pay({ amount: 2 })).rejects.toMatchObject({ code: "TRANSACTION_KEY_REUSED" });
    expect(await balances()).toEqual([199, 201]);
    // At the same time: both run, one wins, both hear the winner.
    const both = await Promise.all(
      [1, 2].map(() =>
        tm
          .run({ key: "pay-2" }, async (tx) => {
            await tx.on("orders").query("UPDATE account SET balance = balance - 1 WHERE id = 2");
            await tx.on("stock").put("paid", "yes");
            return "paid";
          })
          .catch((error: unknown) => error),
      ),
    );
    expect(both.map((each) => (each as { value?: string }).value)).toEqual(["paid", "paid"]);
    expect(await balances()).toEqual([198, 201]);
  });

  test("the time is over: nothing stays, and connections are clean", async () => {
    const late = tm.run({ timeoutMs: 300 }, async (tx) => {
      await tx.on("orders").query("UPDATE account SET balance = 0 WHERE id = 1");
      await tx.on("wallet").query("UPDATE account SET balance = 0 WHERE id = 1");
      await new Promise((resolve) => setTimeout(resolve, 500));
    });
    await expect(late).rejects.toMatchObject({ code: "TRANSACTION_ABORTED", why: "deadline" });
    await expect(tm.run({}, (tx) => tx.on("orders").query("COMMIT"))).rejects.toThrow(/coordinator's to say/);
    expect(await balances()).toEqual([200, 200]);
    expect(await leftBehind()).toBe(0);
  });

  test("a caller who gives up ends the work, also in the middle of work that waits for nothing", async () => {
    for (const waits of [false, true]) {
      const giving = new AbortController();
      const given = tm.run({ signal: giving.signal }, (tx) => {
        tx.on("orders").last("UPDATE account SET balance = 0 WHERE id = 1");
        tx.on("wallet").last("UPDATE account SET balance = 0 WHERE id = 1");
        giving.abort(new Error("enough"));
        return waits ? new Promise<void>((resolve) => setTimeout(resolve, 200)) : undefined;
      });
      await expect(given).rejects.toMatchObject({ code: "TRANSACTION_ABORTED", why: "work" });
      await expect(given).rejects.toThrow(/enough/);
    }
    expect(await balances()).toEqual([200, 200]);
    expect(await leftBehind()).toBe(0);
  });

  test("a deadline at any moment of the work leaves nothing of it behind, and no connection in use", async () => {
    let at = 0;
    for (let round = 0; round < 4; round++) {
      // A fresh pool, so that some deadlines fall into the opening of a connection.
      const fresh = await open();
      for (let number = 0; number < 12; number++) {
        at++;
        const late = fresh.run({ timeoutMs: number === 0 ? 1 + round * 15 : 1 + (at % 15) }, async (tx) => {
          const [orders, wallet] = [tx.on("orders"), tx.on("wallet")];
          for (;;) {
            await Promise.all([
              orders.query("UPDATE account SET balance = balance - 1 WHERE id = 1 AND balance > 0"),
              wallet.query("UPDATE account SET balance = balance - 1 WHERE id = 1 AND balance > 0"),
            ]);
          }
        });
        await expect(late).rejects.toMatchObject({ code: "TRANSACTION_ABORTED", why: "deadline" });
        expect(await balances()).toEqual([200, 200]);
      }
      await fresh.close();
    }
    expect(await leftBehind()).toBe(0);
    const { rows } = await left.query("SELECT query FROM pg_stat_activity WHERE state LIKE 'idle in%'");
    const [running] = await right.query("SELECT trx_state FROM information_schema.INNODB_TRX");
    expect([rows, running]).toEqual([[], []]);
  }, 60_000);

  test("statements that the work did not wait for are part of it; one that fails forbids the commit", async () => {
    for (const side of ["orders", "wallet"] as const) {
      const failure = tm.run({}, (tx) => {
        tx.on("orders")
          .query("UPDATE account SET balance = balance - 1 WHERE id = 1")
          .catch(() => undefined);
        tx.on("wallet")
          .query("UPDATE account SET balance = balance + 1 WHERE id = 1")
          .catch(() => undefined);
        Promise.resolve(tx.on(side).query("INSERT INTO account VALUES (1, 1)")).catch(() => undefined);
      });
      await expect(failure).rejects.toMatchObject({ code: "TRANSACTION_ABORTED", why: "vote", resource: side });
    }
    expect(await balances()).toEqual([200, 200]);
    await tm.run({}, (tx) => {
      tx.on("orders").query("UPDATE account SET balance = balance - 1 WHERE id = 1 -- a word");
      tx.on("wallet").query("UPDATE account SET balance = balance + 1 WHERE id = 1 -- a word");
      tx.on("wallet").last("UPDATE account SET balance = balance + 1 WHERE id = 2; -- another");
    });
    expect(await balances()).toEqual([199, 202]);
    expect(await leftBehind()).toBe(0);
  });

  test("a handle that outlives its transaction takes no more statements", async () => {
    const kept: { query(sql: string): Promise<unknown> }[] = [];
    await tm.run({}, async (tx) => {
      kept.push(tx.on("orders"), tx.on("wallet"));
      await tx.on("orders").query("UPDATE account SET balance = balance - 1 WHERE id = 1");
    });
    for (const handle of kept) {
      await expect(handle.query("UPDATE account SET balance = 0")).rejects.toMatchObject({ code: "CLOSED" });
    }
    expect(await balances()).toEqual([199, 200]);
  });

  test("a server without a free slot for prepared transactions is a refusal, and the next transaction works", async () => {
    const client = await left.connect();
    for (let at = 0; at < 64; at++) {
      await client.query("BEGIN");
      await client.query(`PREPARE TRANSACTION 'filler-${at}'`);
    }
    const transfer = () =>
      tm.run({}, async (tx) => {
        await tx.on("orders").query("UPDATE account SET balance = balance - 1 WHERE id = 1");
        await tx.on("wallet").query("UPDATE account SET balance = balance + 1 WHERE id = 1");
      });
    try {
      await expect(transfer()).rejects.toMatchObject({
        code: "TRANSACTION_ABORTED",
        why: "vote",
        resource: "orders",
        definite: true,
      });
    } finally {
      for (let at = 0; at < 64; at++) await client.query(`ROLLBACK PREPARED 'filler-${at}'`);
      client.release();
    }
    await transfer();
    expect(await balances()).toEqual([199, 201]);
    expect(await leftBehind()).toBe(0);
  });

  test.each(["orders", "wallet"] as const)(
    "%s answers twice: the transfer is whole or not there, and the next one works",
    async (side) => {
      const server = side === "orders" ? postgresServer : mariadbServer;
      const proxy = await FaultProxy.start(server.port);
      const url = server.url.replace(`:${server.port}`, `:${proxy.port}`);
      const other = await transactions<Pick<Bank, "orders" | "wallet">>({
        store: (await conclave).engine,
        resources: {
          orders: postgres({ url: side === "orders" ? url : postgresServer.url, answerMs: 1_000 }),
          wallet: mariadb({ url: side === "wallet" ? url : mariadbServer.url, answerMs: 1_000 }),
        },
        answerMs: 1_000,
        ttlMs: 2_000,
        acceptVolatileDecisions: volatileWords,
      });
      let rides = false;
      const transfer = () =>
        other.run({ timeoutMs: 3_000 }, async (tx) => {
          const change = (by: number): string => `UPDATE account SET balance = balance + (${by}) WHERE id = 1`;
          if (rides) {
            tx.on("orders").last(change(-1));
            tx.on("wallet").last(change(1));
            return;
          }
          await tx.on("orders").query(change(-1));
          await tx.on("wallet").query(change(1));
        });
      await transfer();
      let doubled = 0;
      for (let round = 0; round < 9; round++) {
        rides = round >= 5;
        const nth = rides ? round - 5 : round;
        let seen = 0;
        proxy.onAnswer = () => {
          seen++;
          if (seen !== nth + 1) return undefined;
          doubled++;
          return { kind: "twice" };
        };
        const ended = await transfer().then(
          () => "committed",
          (error: { readonly code?: string }) => error.code,
        );
        expect(["committed", "TRANSACTION_ABORTED", "TRANSACTION_UNKNOWN"]).toContain(ended);
        proxy.onAnswer = undefined;
      }
      expect(doubled).toBeGreaterThan(0);
      const startedMs = Date.now();
      while ((await leftBehind()) > 0) {
        expect(Date.now() - startedMs).toBeLessThan(15_000);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      const [orders, wallet] = await balances();
      expect(orders + wallet).toBe(400);
      await transfer();
      expect(await balances()).toEqual([orders - 1, wallet + 1]);
      await other.close();
      await proxy.close();
    },
    60_000,
  );

  test("a foreign resource, a wrong name and options that exclude one another are refused at the door", async () => {
    const { engine } = await conclave;
    const attempt = (resources: Record<string, unknown>) =>
      transactions({ store: engine, resources: resources as never, acceptVolatileDecisions: volatileWords });
    await expect(attempt({})).rejects.toMatchObject({ code: "INVALID_OPTION" });
    await expect(attempt({ cache: { kind: "redis" } })).rejects.toThrow(/no two-phase commit/);
    await expect(attempt({ "My Orders": storeResource() })).rejects.toMatchObject({ code: "INVALID_OPTION" });
    await expect(attempt({ a: storeResource(), b: storeResource() })).rejects.toMatchObject({ code: "INVALID_OPTION" });
    await expect(transactions({ store: engine, resources: { a: storeResource() } })).rejects.toMatchObject({
      code: "UNSUPPORTED",
    });
    await expect(tm.run({ lastAgent: "nobody" }, () => 1)).rejects.toMatchObject({ code: "INVALID_OPTION" });
    await expect(tm.run({ lastAgent: "orders", key: "k" }, () => 1)).rejects.toMatchObject({ code: "INVALID_OPTION" });
    await expect(tm.run({ timeoutMs: 0 }, () => 1)).rejects.toMatchObject({ code: "INVALID_OPTION" });
  });

  test("an outcome can be asked later", async () => {
    const { gid } = await tm.run({}, async (tx) => {
      await tx.on("orders").query("UPDATE account SET balance = balance + 1 WHERE id = 1");
      await tx.on("wallet").query("UPDATE account SET balance = balance - 1 WHERE id = 1");
    });
    expect(await tm.outcome(gid)).toBe("committed");
    const aborted = await tm
      .run({}, async () => {
        throw new Abort("no");
      })
      .catch((error: TransactionAborted) => error);
    // The store is a resource here: what only touched it leaves no trace, so "nothing found" is no evidence.
    expect(["aborted", "pending", "unknown"]).toContain(await tm.outcome((aborted as TransactionAborted).gid));
    // Of no shape, and of another store.
    await expect(tm.outcome("nonsense")).rejects.toMatchObject({ code: "INVALID_OPTION" });
    const foreign = gid.replace(/^([^.]+)\.[^.]+/, "$1.zzzzzz");
    await expect(tm.outcome(foreign)).rejects.toMatchObject({ code: "INVALID_OPTION" });
  });

  test("what another process left is brought to its end: rolled back without a decision, committed with one, also where its session lives", async () => {
    const stops = new Promise<never>(() => undefined);
    for (const step of ["all-prepared", "decided"] as const) {
      const other = await transactions({
        store: (await conclave).engine,
        resources: { orders: postgres({ url: postgresServer.url }), wallet: mariadb({ url: mariadbServer.url }) },
        ttlMs: 1_000,
        acceptVolatileDecisions: volatileWords,
        checkpoint: (at) => (at === step ? stops : undefined),
      });
      const running = other.run({ timeoutMs: 60_000 }, async (tx) => {
        await tx.on("orders").query("UPDATE account SET balance = balance - 7 WHERE id = 1");
        await tx.on("wallet").query("UPDATE account SET balance = balance + 7 WHERE id = 1");
      });
      running.catch(() => undefined);
      while ((await leftBehind()) < 2) await new Promise((resolve) => setTimeout(resolve, 20));
      await new Promise((resolve) => setTimeout(resolve, 50));
      const { rows } = await left.query("SELECT gid FROM pg_prepared_xacts");
      expect(rows.length).toBe(1);
      // Its epoch ends, and nothing else of it: its connections live on.
      await other.coordinator.close();
      const startedMs = Date.now();
      while ((await leftBehind()) > 0) {
        expect(Date.now() - startedMs).toBeLessThan(15_000);
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      console.log(`${step}: cleared ${Date.now() - startedMs} ms after the session ended`);
      await other.close();
      expect(await balances()).toEqual(step === "decided" ? [193, 207] : [200, 200]);
    }
  }, 60_000);

  test("readers of both see each transfer whole or not at all", async () => {
    let isOver = false;
    const writers = Array.from({ length: 4 }, async (_, at) => {
      while (!isOver) {
        await tm
          .run({}, (tx) => {
            tx.on("orders").last("UPDATE account SET balance = balance - 1 WHERE id = $1 AND balance > 0", [(at % 2) + 1]);
            tx.on("wallet").last("UPDATE account SET balance = balance + 1 WHERE id = ?", [(at % 2) + 1]);
          })
          .catch(() => undefined);
      }
    });
    const sums: number[] = [];
    try {
      for (let at = 0; at < 15; at++) {
        const sum = await tm.readAtomic(
          ["orders", "wallet"],
          async (reader) => {
            const { rows } = await reader.on("orders").query("SELECT sum(balance)::int AS sum FROM account");
            const [found] = await reader.on("wallet").query("SELECT CAST(sum(balance) AS SIGNED) AS sum FROM account");
            return rows[0].sum + Number(found[0].sum);
          },
          { attemptsMax: 200 },
        );
        sums.push(sum);
      }
    } finally {
      isOver = true;
      await Promise.all(writers);
    }
    expect(sums).toEqual(Array.from({ length: 15 }, () => 400));
  }, 60_000);

  test("Kysely's and Drizzle's drivers find the shapes they want", async () => {
    await tm.run({}, async (tx) => {
      const client = await tx.on("orders").connect();
      const { rows } = await client.query({ text: "SELECT balance FROM account WHERE id = $1", values: [1] });
      expect(rows).toEqual([{ balance: 100 }]);
      client.release();
      const connection = await tx.on("wallet").getConnection();
      const [found] = await connection.execute("SELECT balance FROM account WHERE id = ?", [1]);
      expect(found).toEqual([{ balance: 100 }]);
      connection.release();
    });
  });

  test("doctor finds both fit", async () => {
    const findings = await tm.doctor();
    expect(
      Object.values(findings)
        .flat()
        .filter(({ level }) => level === "error"),
    ).toEqual([]);
  });
});
