/** The fence in real databases: two holders at once, the late one refused, whichever of them asks first. */
import { createConnection } from "mysql2/promise";
import pg from "pg";
import { afterAll, describe, expect, test } from "vitest";
import { startMariadb } from "../../test/servers/mariadb.ts";
import { startPostgres } from "../../test/servers/postgres.ts";
import { fenceMysql, fencePostgres, fenceTable } from "./sql-fence.ts";

const postgres = await startPostgres();
const mariadb = await startMariadb();
afterAll(async () => {
  for (const server of [postgres, mariadb]) if (!("skipped" in server)) await server.stop();
}, 30_000);

interface Client {
  readonly run: (sql: string) => Promise<unknown>;
  readonly fence: (token: number) => Promise<void>;
  readonly close: () => Promise<void>;
}

const databases = [
  {
    name: "PostgreSQL",
    skipped: "skipped" in postgres ? postgres.skipped : undefined,
    table: fenceTable.postgres,
    open: async (): Promise<Client> => {
      const client = new pg.Client({ connectionString: "skipped" in postgres ? "" : postgres.url });
      await client.connect();
      return {
        run: (sql) => client.query(sql),
        fence: (token) => fencePostgres(client, { name: "invoice:42", token }),
        close: () => client.end(),
      };
    },
  },
  {
    name: "MariaDB",
    skipped: "skipped" in mariadb ? mariadb.skipped : undefined,
    table: fenceTable.mysql,
    open: async (): Promise<Client> => {
      const client = await createConnection("skipped" in mariadb ? "" : mariadb.url);
      const shaped = {
        query: (text: string, values?: readonly unknown[]) => client.query(text, values as unknown[]),
      };
      return {
        run: (sql) => client.query(sql),
        fence: (token) => fenceMysql(shaped, { name: "invoice:42", token }),
        close: () => client.end(),
      };
    },
  },
];

const stale = { code: "STALE_TOKEN", definite: true };
const base = 1_732_180_000_000_000;

describe.each(databases)("a fence in $name", ({ skipped, table, open }) => {
  test.skipIf(skipped !== undefined)(
    `refuses a late holder, also while the later one has not committed${skipped === undefined ? "" : ` (skipped: ${skipped})`}`,
    async () => {
      const [early, late] = [await open(), await open()];
      try {
        await early.run(table);
        await early.run("BEGIN");
        await early.fence(base + 1);
        await early.run("COMMIT");

        // The later holder is in the middle of its transaction when the earlier one comes.
        await late.run("BEGIN");
        await late.fence(base + 2);
        await early.run("BEGIN");
        const refused = early.fence(base + 1).catch((error: unknown) => error);
        await new Promise((resolve) => setTimeout(resolve, 50));
        await late.run("COMMIT");
        expect(await refused).toMatchObject(stale);
        await early.run("ROLLBACK");

        // What the later one has rolled back was never there.
        await late.run("BEGIN");
        await late.fence(base + 9);
        await late.run("ROLLBACK");
        await early.run("BEGIN");
        await early.fence(base + 3);
        await early.fence(base + 3);
        await early.run("COMMIT");
        await late.run("BEGIN");
        await expect(late.fence(base + 2)).rejects.toMatchObject(stale);
        await late.run("ROLLBACK");
      } finally {
        await early.close();
        await late.close();
      }
    },
  );
});
