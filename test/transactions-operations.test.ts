/**
 * What an operator sees and may do, on real databases and a served store: `conclave tx`, and the outcomes that nobody decided.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import mysql from "mysql2/promise";
import pg from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { connect } from "../src/index.ts";
import { type TransactionManager, transactions } from "../src/transactions/manager.ts";
import { type MariadbResource, mariadb } from "../src/transactions/mariadb.ts";
import { type PostgresResource, postgres } from "../src/transactions/postgres.ts";
import { build, conclave as cli, killAll, ServedCluster, until } from "./cli-kit.ts";
import { startMariadb } from "./servers/mariadb.ts";
import { startPostgres } from "./servers/postgres.ts";

const [postgresServer, mariadbServer] = await Promise.all([startPostgres(), startMariadb()]);
const skipped =
  "skipped" in postgresServer ? postgresServer.skipped : "skipped" in mariadbServer ? mariadbServer.skipped : undefined;
if (skipped !== undefined) console.log(`Operations on real servers are skipped: ${skipped}.`);

type Bank = { readonly orders: PostgresResource; readonly wallet: MariadbResource };

describe.skipIf(skipped !== undefined)("an operator", { timeout: 60_000 }, () => {
  if ("skipped" in postgresServer || "skipped" in mariadbServer) return;
  let cluster: ServedCluster;
  let folder = "";
  const { url: leftUrl } = postgresServer;
  const { url: rightUrl } = mariadbServer;
  let left: pg.Pool;
  let right: mysql.Pool;
  const open: (() => Promise<void>)[] = [];

  beforeAll(async () => {
    build();
    folder = mkdtempSync(join(tmpdir(), "conclave-tx-"));
    cluster = await ServedCluster.start(folder, { count: 1 });
    left = new pg.Pool({ connectionString: leftUrl });
    left.on("error", () => undefined);
    right = mysql.createPool({ uri: rightUrl });
    await left.query("CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL)");
    await right.query("CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL) ENGINE=InnoDB");
    await left.query("INSERT INTO account VALUES (1, 100)");
    await right.query("INSERT INTO account VALUES (1, 100)");
  }, 60_000);

  afterEach(async () => {
    for (const close of open.splice(0)) await close();
  });

  afterAll(async () => {
    await left.end();
    await right.end();
    killAll();
    await Promise.all([postgresServer.stop(), mariadbServer.stop()]);
    rmSync(folder, { recursive: true, force: true });
  });

  /** A manager that stands still at this step, as a process that hangs. */
  async function manager(stopAt?: string): Promise<TransactionManager<Bank>> {
    const conclave = await connect(cluster.url);
    const tm = await transactions<Bank>({
      store: conclave.engine,
      resources: { orders: postgres({ url: leftUrl }), wallet: mariadb({ url: rightUrl }) },
      ttlMs: 1_000,
      ...(stopAt === undefined
        ? {}
        : { checkpoint: (step) => (step === stopAt ? new Promise<void>(() => undefined) : undefined) }),
    });
    open.push(async () => {
      await tm.close();
      await conclave.close();
    });
    return tm;
  }

  const transfer = (tm: TransactionManager<Bank>) =>
    tm.run({ timeoutMs: 60_000 }, (tx) => {
      tx.on("orders").last("UPDATE account SET balance = balance - 1 WHERE id = 1");
      tx.on("wallet").last("UPDATE account SET balance = balance + 1 WHERE id = 1");
      return tx.gid;
    });

  const flags = (): string[] => ["--store", cluster.url, "--resource", `orders=${leftUrl}`, "--resource", `wallet=${rightUrl}`];
  const prepared = async (): Promise<string | undefined> => {
    const { rows } = await left.query("SELECT gid FROM pg_prepared_xacts");
    const [listed] = await right.query("XA RECOVER");
    return (listed as unknown[]).length === 1 ? (rows[0]?.gid as string | undefined)?.split("/")[0] : undefined;
  };
  const waitPrepared = async (): Promise<string> => {
    await until(async () => (await prepared()) !== undefined, "both branches to be prepared");
    return (await prepared()) as string;
  };

  test("sees what hangs, may not overrule a coordinator that lives, and sees it recovered", async () => {
    const stuck = await manager("all-prepared");
    transfer(stuck).catch(() => undefined);
    const gid = await waitPrepared();
    const list = await cli(["tx", "ls", "--json", ...flags()]);
    expect(JSON.parse(list.stdout).transactions).toMatchObject([
      {
        gid,
        state: "deciding",
        branches: [
          { resource: "orders", state: "prepared" },
          { resource: "wallet", state: "prepared" },
        ],
      },
    ]);
    const refused = await cli(["tx", "resolve", gid, "--rollback", "--reason", "impatient", "--yes", "--json", ...flags()]);
    expect(JSON.parse(refused.stderr)).toMatchObject({ code: "TRANSACTION_EVIDENCE", definite: true });
    await stuck.coordinator.close();
    const retried = await cli(["tx", "retry", ...flags()]);
    expect([retried.exitCode, retried.stdout]).toEqual([0, expect.stringContaining("1 rolled back")]);
    expect((await cli(["tx", "ls", ...flags()])).stdout).toBe("Nothing is open.\n");
  });

  test("settles by hand what is in doubt, after being told the consequence", async () => {
    const stuck = await manager("all-prepared");
    transfer(stuck).catch(() => undefined);
    const gid = await waitPrepared();
    await stuck.coordinator.close();
    const asked = await cli(["tx", "resolve", gid, "--commit", "--reason", "trial", ...flags()]);
    expect(asked.stdout).toContain("nobody decided to commit it");
    expect(asked.stdout).toContain("Nothing was done.");
    expect(await prepared()).toBe(gid);
    const done = await cli(["tx", "resolve", gid, "--rollback", "--reason", "trial", "--yes", ...flags()]);
    expect(done.exitCode).toBe(0);
    expect(await prepared()).toBeUndefined();
  });

  test("hears of a branch that somebody rolled back behind a decision, and takes it off the list only when told", async () => {
    const stuck = await manager("decided");
    transfer(stuck).catch(() => undefined);
    const gid = await waitPrepared();
    await new Promise((resolve) => setTimeout(resolve, 300));
    await left.query(`ROLLBACK PREPARED '${gid}/1'`);
    const other = await manager();
    await stuck.coordinator.close();
    await until(
      async () =>
        (await prepared()) === undefined &&
        JSON.parse((await cli(["tx", "ls", "--json", ...flags()])).stdout).transactions[0]?.state === "heuristic",
      "the heuristic outcome",
    );
    expect(other.figures.inDoubt).toBe(0);
    const shown = JSON.parse((await cli(["tx", "show", gid, "--json", ...flags()])).stdout);
    expect(shown.heuristic).toMatchObject({ kind: "mixed" });
    expect(shown.branches.map(({ resource, state }: { resource: string; state: string }) => [resource, state]).sort()).toEqual([
      ["orders", "absent"],
      ["wallet", "committed"],
    ]);
    // Money is missing: the audit says which and where.
    const audit = await cli(["tx", "audit", "--json", ...flags()]);
    expect(audit.exitCode).toBe(1);
    expect(JSON.parse(audit.stdout).findings).toEqual([{ gid, in: ["wallet"], missingIn: ["orders"] }]);
    expect((await cli(["tx", "forget", gid, "--reason", "paid back by hand", ...flags()])).exitCode).toBe(0);
    expect((await cli(["tx", "ls", ...flags()])).stdout).toBe("Nothing is open.\n");
    await right.query("UPDATE account SET balance = 100");
    await right.query("DELETE FROM conclave_mark WHERE gid = ?", [gid]);
  });

  test("hears of a branch that somebody committed without a decision", async () => {
    const stuck = await manager("all-prepared");
    transfer(stuck).catch(() => undefined);
    const gid = await waitPrepared();
    const events: string[] = [];
    const conclave = await connect(cluster.url);
    // Seen in the scan, committed by hand before it is told to roll back.
    const watching = await transactions<Bank>({
      store: conclave.engine,
      resources: { orders: postgres({ url: leftUrl }), wallet: mariadb({ url: rightUrl }) },
      onEvent: (event) => {
        if (event.kind === "transaction.heuristic") events.push(event.outcome);
      },
    });
    await left.query(`COMMIT PREPARED '${gid}/1'`);
    await stuck.coordinator.close();
    await until(
      async () =>
        (await prepared()) === undefined && (await right.query("XA RECOVER").then(([rows]) => (rows as unknown[]).length)) === 0,
      "the other branch to be rolled back",
    );
    // Nothing was prepared in PostgreSQL any more when recovery looked: only the audit can see it.
    const audit = await cli(["tx", "audit", "--json", ...flags()]);
    expect(JSON.parse(audit.stdout).findings).toEqual([{ gid, in: ["orders"], missingIn: ["wallet"] }]);
    await left.query("DELETE FROM conclave_mark WHERE gid = $1", [gid]);
    await watching.close();
    await conclave.close();
  });

  test("finds a database that was restored to an older point", async () => {
    const tm = await manager();
    const { gid } = await transfer(tm);
    expect((await cli(["tx", "audit", ...flags()])).exitCode).toBe(0);
    await left.query("DELETE FROM conclave_mark WHERE gid = $1", [gid]);
    const audit = await cli(["tx", "audit", ...flags()]);
    expect([audit.exitCode, audit.stdout]).toEqual([1, expect.stringContaining(`${gid} is in wallet and missing in orders`)]);
  });

  test("asks doctor before the first transaction", async () => {
    const doctor = await cli(["tx", "doctor", "--json", ...flags()]);
    expect(doctor.exitCode).toBe(0);
    const unfit = await cli(["tx", "doctor", "--resource", "orders=postgres://postgres@127.0.0.1:1/x"]);
    expect([unfit.exitCode, unfit.stdout]).toEqual([1, expect.stringContaining("ECONNREFUSED")]);
    const wrong = await cli(["tx", "ls", "--store", cluster.url]);
    expect([wrong.exitCode, wrong.stderr]).toEqual([64, expect.stringContaining("No database is named")]);
  });
});
