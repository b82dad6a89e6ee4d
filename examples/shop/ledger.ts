/**
 * Where a service of the shop keeps its numbers: a table of a database where one is installed, keys of the store otherwise.
 */
import type { Conclave } from "../../src/index.ts";
import {
  Abort,
  type Barrier,
  mariadb,
  mariadbBarrier,
  mariadbOutbox,
  type Outbox,
  postgres,
  postgresBarrier,
  postgresOutbox,
  storeBarrier,
  storeOutbox,
  storeResource,
} from "../../src/transactions/index.ts";

// biome-ignore lint/suspicious/noExplicitAny: a client, a connection or a store's handle; only this file looks into it.
type Handle = any;

export interface Ledger {
  readonly kind: "postgres" | "mariadb" | "store";
  readonly barrier: Barrier<Handle>;
  /** For `transactions({ resources })`. */
  readonly resource: ReturnType<typeof postgres> | ReturnType<typeof mariadb> | ReturnType<typeof storeResource>;
  readonly outbox: Outbox<Handle>;
  install(start: Readonly<Record<string, number>>): Promise<void>;
  /** Refuses what would go below zero. */
  add(handle: Handle, name: string, delta: number): Promise<void>;
  read(): Promise<Readonly<Record<string, number>>>;
}

/** @param url of a PostgreSQL or MariaDB; null: the store. */
export function openLedger(conclave: Conclave, service: string, url: string | null): Ledger {
  const kind = url === null ? "store" : url.startsWith("postgres") ? "postgres" : "mariadb";
  const table = `${service}_ledger`;
  const refuse = (name: string): never => {
    throw new Abort(`not enough ${name}`);
  };
  if (kind === "store" || url === null) {
    const store = conclave.engine.store(service);
    return {
      kind: "store",
      barrier: storeBarrier(conclave.engine, { name: service, namespace: service }),
      resource: storeResource({ namespace: service }),
      outbox: storeOutbox(conclave.engine, { name: service, namespace: service }),
      install: async (start) => {
        for (const [name, value] of Object.entries(start)) {
          const key = `ledger/${name}`;
          const isAbsent = { key, target: "exists", is: "equal", to: false } as const;
          await store.txn({ if: [isAbsent], then: [{ kind: "put", key, value: String(value) }] });
        }
      },
      add: async (handle, name, delta) => {
        const value = Number((await handle.get(`ledger/${name}`))?.text ?? 0) + delta;
        if (value < 0) refuse(name);
        handle.put(`ledger/${name}`, String(value));
      },
      read: async () => {
        const { results } = await store.txn({ then: [{ kind: "range", range: { prefix: "ledger/" } }] });
        const [all] = results;
        const entries = all?.kind === "range" ? all.entries : [];
        return Object.fromEntries(entries.map(({ key, text }) => [key.slice("ledger/".length), Number(text)]));
      },
    };
  }
  const create = `CREATE TABLE IF NOT EXISTS ${table} (name varchar(40) PRIMARY KEY, value int NOT NULL)`;
  const select = `SELECT name, value FROM ${table}`;
  const toRecord = (rows: readonly { name: string; value: number }[]) =>
    Object.fromEntries(rows.map(({ name, value }) => [name, value]));
  if (kind === "postgres") {
    const database = postgres({ url });
    return {
      kind,
      barrier: postgresBarrier(database),
      resource: database,
      outbox: postgresOutbox(database, { name: service }),
      install: async (start) => {
        await database.ask(create);
        for (const [name, value] of Object.entries(start)) {
          await database.ask(`INSERT INTO ${table} VALUES ($1, $2) ON CONFLICT DO NOTHING`, [name, value]);
        }
      },
      add: async (handle, name, delta) => {
        const sql = `UPDATE ${table} SET value = value + $1 WHERE name = $2 AND value + $1 >= 0`;
        if ((await handle.query(sql, [delta, name])).rowCount !== 1) refuse(name);
      },
      read: async () => toRecord((await database.ask(select)).rows),
    };
  }
  const database = mariadb({ url });
  return {
    kind,
    barrier: mariadbBarrier(database),
    resource: database,
    outbox: mariadbOutbox(database, { name: service }),
    install: async (start) => {
      await database.ask(`${create} ENGINE=InnoDB`);
      for (const [name, value] of Object.entries(start))
        await database.ask(`INSERT IGNORE INTO ${table} VALUES (?, ?)`, [name, value]);
    },
    add: async (handle, name, delta) => {
      const sql = `UPDATE ${table} SET value = value + ? WHERE name = ? AND value + ? >= 0`;
      if ((await handle.query(sql, [delta, name, delta]))[0].affectedRows !== 1) refuse(name);
    },
    read: async () => toRecord(await database.ask(select)),
  };
}
