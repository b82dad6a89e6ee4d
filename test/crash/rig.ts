/**
 * What a run stands on: durable databases with the bank in them, the members of the store, and a folder for journals.
 */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import mysql from "mysql2/promise";
import pg from "pg";
import { startMariadb } from "../servers/mariadb.ts";
import { type DatabaseServer, startPostgres } from "../servers/postgres.ts";
import { accounts, schema, startBalance } from "./bank.ts";
import { StoreMembers } from "./store-members.ts";

export interface Rig {
  readonly folder: string;
  readonly left: DatabaseServer;
  readonly right: DatabaseServer;
  readonly leftPool: pg.Pool;
  readonly rightPool: mysql.Pool;
  readonly store: StoreMembers;
  stop(): Promise<void>;
}

export async function startRig({
  binaryLog,
  members,
}: {
  readonly binaryLog: boolean;
  readonly members: number;
}): Promise<Rig | { readonly skipped: string }> {
  const [left, right] = await Promise.all([startPostgres(), startMariadb({ binaryLog })]);
  if ("skipped" in left) return left;
  if ("skipped" in right) return right;
  const folder = mkdtempSync(join(tmpdir(), "conclave-crash-"));
  mkdirSync(join(folder, "journals"));
  const store = await StoreMembers.start(folder, members);
  const leftPool = new pg.Pool({ connectionString: left.url, max: 4 });
  leftPool.on("error", () => undefined);
  // Also those that are in use when the server dies: the statement tells of it.
  leftPool.on("connect", (client) => client.on("error", () => undefined));
  const rightPool = mysql.createPool({ uri: right.url, connectionLimit: 4 });
  for (const statement of schema.left) await leftPool.query(statement);
  for (const statement of schema.right) await rightPool.query(statement);
  const rows = Array.from({ length: accounts }, (_, at) => `(${at + 1}, ${startBalance})`).join(",");
  await leftPool.query(`INSERT INTO account VALUES ${rows}`);
  await rightPool.query(`INSERT INTO account VALUES ${rows}`);
  return {
    folder,
    left,
    right,
    leftPool,
    rightPool,
    store,
    stop: async () => {
      await leftPool.end();
      await rightPool.end();
      await store.stop();
      await Promise.all([left.stop(), right.stop()]);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** As an administrator would: the server is told to stop and starts again on the same data. */
export async function restartGently(server: DatabaseServer, signal: "SIGINT" | "SIGTERM"): Promise<void> {
  const pid = server.pid();
  process.kill(pid, signal);
  for (;;) {
    try {
      process.kill(pid, 0);
    } catch {
      break;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  await server.restart();
}
