/**
 * The two banks and the one thing that happens between them: a transfer.
 */
import mysql from "mysql2/promise";
import pg from "pg";
import type { Conclave } from "../../src/index.ts";
import {
  Abort,
  type MariadbResource,
  mariadb,
  type PostgresResource,
  postgres,
  type StoreResource,
  storeResource,
  type TransactionManager,
  transactions,
} from "../../src/transactions/index.ts";

export interface Where {
  readonly store: string;
  /** Left out: both banks are keys of the store. */
  readonly postgres?: string;
  readonly mariadb?: string;
}

export const accounts = 16;
export const startBalance = 1_000;

/** Two databases, or the store for both. */
type Sides = { readonly current: PostgresResource; readonly savings: MariadbResource; readonly bank: StoreResource };
export type Bank = TransactionManager<Sides>;

export async function openBank(conclave: Conclave, where: Where): Promise<Bank> {
  const databases =
    where.postgres === undefined || where.mariadb === undefined
      ? { bank: storeResource({ namespace: "bank" }) }
      : { current: postgres({ url: where.postgres }), savings: mariadb({ url: where.mariadb }) };
  return transactions({ store: conclave.engine, resources: databases as unknown as Sides, ttlMs: 1_500 });
}

/** Money from a current account to a savings account, or nothing. */
export async function transfer(
  bank: Bank,
  where: Where,
  { from, to, amount }: { readonly from: number; readonly to: number; readonly amount: number },
) {
  return bank.run({ timeoutMs: 3_000 }, async (tx) => {
    if (where.postgres === undefined) {
      const store = tx.on("bank");
      const [current, savings] = [
        Number((await store.get(`current/${from}`))?.text),
        Number((await store.get(`savings/${to}`))?.text),
      ];
      if (current < amount) throw new Abort("insufficient funds");
      store.put(`current/${from}`, String(current - amount));
      store.put(`savings/${to}`, String(savings + amount));
      return;
    }
    const { rowCount } = await tx
      .on("current")
      .query("UPDATE account SET balance = balance - $1 WHERE id = $2 AND balance >= $1", [amount, from]);
    if (rowCount !== 1) throw new Abort("insufficient funds");
    // The last statement of a branch may ride with its vote.
    tx.on("savings").last("UPDATE account SET balance = balance + ? WHERE id = ?", [amount, to], { rows: 1 });
  });
}

/** What both banks hold, each transfer whole or not at all. */
export async function balancesOf(bank: Bank, conclave: Conclave): Promise<number> {
  try {
    return await bank.readAtomic(
      ["current", "savings"],
      async (reader) => {
        const { rows } = await reader.on("current").query("SELECT sum(balance)::int AS sum FROM account");
        const [found] = await reader.on("savings").query("SELECT CAST(sum(balance) AS SIGNED) AS sum FROM account");
        return rows[0].sum + Number(found[0].sum);
      },
      { attemptsMax: 500 },
    );
  } catch (error) {
    if ((error as { code?: string }).code !== "INVALID_OPTION") throw error;
    const { results } = await conclave.engine.store("bank").txn({ then: [{ kind: "range", range: { prefix: "" } }] });
    const [all] = results;
    return all?.kind === "range" ? all.entries.reduce((sum, { text }) => sum + Number(text), 0) : 0;
  }
}

export async function prepareBank(where: Where, conclave: Conclave): Promise<void> {
  const ids = Array.from({ length: accounts }, (_, at) => at);
  if (where.postgres === undefined || where.mariadb === undefined) {
    const store = conclave.engine.store("bank");
    await store.txn({
      then: ids.flatMap((id) =>
        ["current", "savings"].map((side) => ({ kind: "put" as const, key: `${side}/${id}`, value: String(startBalance) })),
      ),
    });
    return;
  }
  const rows = ids.map((id) => `(${id}, ${startBalance})`).join(",");
  const left = new pg.Client({ connectionString: where.postgres });
  await left.connect();
  await left.query("CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL CHECK (balance >= 0))");
  await left.query(`INSERT INTO account VALUES ${rows}`);
  await left.end();
  const right = await mysql.createConnection({ uri: where.mariadb });
  await right.query("CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL) ENGINE=InnoDB");
  await right.query(`INSERT INTO account VALUES ${rows}`);
  await right.end();
}
