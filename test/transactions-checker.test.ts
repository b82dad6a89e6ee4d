/**
 * The crash harness's judge, judged: each planted defect must turn it red, and nothing else may.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import mysql from "mysql2/promise";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { mariadb } from "../src/transactions/mariadb.ts";
import { postgres } from "../src/transactions/postgres.ts";
import { schema } from "./crash/bank.ts";
import { check } from "./crash/checker.ts";
import { startMariadb } from "./servers/mariadb.ts";
import { startPostgres } from "./servers/postgres.ts";

const [postgresServer, mariadbServer] = await Promise.all([startPostgres(), startMariadb()]);
const skipped =
  "skipped" in postgresServer ? postgresServer.skipped : "skipped" in mariadbServer ? mariadbServer.skipped : undefined;
if (skipped !== undefined) console.log(`The checker's own test is skipped: ${skipped}.`);

describe.skipIf(skipped !== undefined)("the checker of the crash harness", () => {
  if ("skipped" in postgresServer || "skipped" in mariadbServer) return;
  const folder = mkdtempSync(join(tmpdir(), "conclave-checker-"));
  const journal = join(folder, "journal");
  let left: pg.Pool;
  let right: mysql.Pool;
  let keys = "";

  beforeAll(async () => {
    left = new pg.Pool({ connectionString: postgresServer.url });
    left.on("error", () => undefined);
    right = mysql.createPool({ uri: mariadbServer.url });
    for (const statement of schema.left) await left.query(statement);
    for (const statement of schema.right) await right.query(statement);
    const resources = [postgres({ url: postgresServer.url }), mariadb({ url: mariadbServer.url })];
    for (const resource of resources) {
      await resource.migrate();
      await resource.close();
    }
  });

  afterAll(async () => {
    await left.end();
    await right.end();
    await Promise.all([postgresServer.stop(), mariadbServer.stop()]);
    rmSync(folder, { recursive: true, force: true });
  });

  /** One committed transfer of 10, one aborted, in a bank of 200. */
  beforeEach(async () => {
    keys = "domain\ncoord/x\ni/key\n";
    for (const table of ["account", "transfer", "conclave_mark"]) {
      await left.query(`TRUNCATE ${table}`);
      await right.query(`TRUNCATE ${table}`);
    }
    await left.query("INSERT INTO account VALUES (1, 90)");
    await right.query("INSERT INTO account VALUES (1, 110)");
    await inBoth("INSERT INTO transfer (gid, amount) VALUES ('g1', 10)");
    await inBoth("INSERT INTO conclave_mark (gid, br, op, parts) VALUES ('g1', 1, 'do', 'orders:1,wallet:2')");
    writeFileSync(journal, lines({ said: "began", gid: "g1" }, { said: "committed", gid: "g1" }, { said: "aborted", gid: "g2" }));
  });

  async function inBoth(statement: string): Promise<void> {
    await left.query(statement);
    await right.query(statement);
  }

  function lines(...told: readonly { readonly said: string; readonly gid: string }[]): string {
    return told.map((line) => `${JSON.stringify({ kind: "both", ...line })}\n`).join("");
  }

  const judge = async (): Promise<string> => {
    const listKeys = [process.execPath, "-e", `process.stdout.write(${JSON.stringify(keys)})`];
    const { violations } = await check({
      postgres: postgresServer.url,
      mariadb: mariadbServer.url,
      listKeys,
      journals: [journal],
      money: 200,
    });
    return violations.join("\n");
  };

  test("says nothing of what is whole", async () => {
    expect(await judge()).toBe("");
  });

  test("sees money made or lost", async () => {
    await right.query("UPDATE account SET balance = balance + 1");
    expect(await judge()).toMatch(/^I1/);
  });

  test("sees half a commit, from either side, and two amounts", async () => {
    await right.query("DELETE FROM transfer");
    await right.query("DELETE FROM conclave_mark");
    expect(await judge()).toMatch(/I2: g1 is only in PostgreSQL/);
    await left.query("TRUNCATE transfer");
    await right.query("INSERT INTO transfer VALUES ('g1', 10)");
    expect(await judge()).toMatch(/I2: g1 is only in MariaDB/);
    await left.query("INSERT INTO transfer VALUES ('g1', 11)");
    expect(await judge()).toMatch(/I2: g1 moved 11 on one side and 10/);
  });

  test("sees a marker without its work and work without its marker", async () => {
    await left.query("DELETE FROM conclave_mark");
    expect(await judge()).toMatch(/I2: g1 is in PostgreSQL without its marker/);
    await right.query("INSERT INTO conclave_mark (gid, br, op) VALUES ('g9', 1, 'do')");
    expect(await judge()).toMatch(/I2: MariaDB has the marker of g9/);
  });

  test("sees a lost acknowledgement, a false refusal and a halved unknown", async () => {
    writeFileSync(journal, lines({ said: "committed", gid: "g1" }, { said: "committed", gid: "g3" }));
    expect(await judge()).toMatch(/I3: g3 was answered "committed" and is in 0 of 2/);
    writeFileSync(journal, lines({ said: "aborted", gid: "g1" }));
    expect(await judge()).toMatch(/I3: g1 was answered "aborted" and is in 2 of 2/);
    writeFileSync(journal, lines({ said: "unknown", gid: "g1" }));
    expect(await judge()).toBe("");
    await right.query("DELETE FROM transfer");
    expect(await judge()).toMatch(/I3: g1 is in 1 of 2/);
  });

  test("sees what is prepared in either database, and what is left in the store", async () => {
    const client = await left.connect();
    await client.query("BEGIN");
    await client.query("UPDATE account SET balance = balance");
    await client.query("PREPARE TRANSACTION 'left-over'");
    client.release();
    expect(await judge()).toMatch(/I4: prepared in PostgreSQL: left-over/);
    await left.query("ROLLBACK PREPARED 'left-over'");
    const connection = await right.getConnection();
    await connection.query("XA START 'left-over'");
    await connection.query("UPDATE account SET balance = balance + 0");
    await connection.query("INSERT INTO transfer VALUES ('g7', 1)");
    await connection.query("XA END 'left-over'");
    await connection.query("XA PREPARE 'left-over'");
    expect(await judge()).toMatch(/I4: prepared in MariaDB/);
    await connection.query("XA ROLLBACK 'left-over'");
    connection.release();
    keys = "domain\nd/g1\n";
    expect(await judge()).toMatch(/I4: in the store: d\/g1/);
    keys = "h/g1\n";
    expect(await judge()).toMatch(/I4: in the store: h\/g1/);
  });

  test("sees a key that was carried out twice", async () => {
    await left.query("UPDATE transfer SET purpose = 'k'");
    await inBoth("INSERT INTO transfer (gid, amount) VALUES ('g4', 10)");
    await inBoth("INSERT INTO conclave_mark (gid, br, op) VALUES ('g4', 1, 'do')");
    await left.query("UPDATE transfer SET purpose = 'k'");
    expect(await judge()).toMatch(/I5: carried out twice: k/);
  });
});
