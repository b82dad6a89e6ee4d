/**
 * What the victims do: transfers from accounts in PostgreSQL to accounts in MariaDB, each with a row of its own in both.
 */
import type { TransactionManager } from "../../src/transactions/manager.ts";
import type { MariadbResource } from "../../src/transactions/mariadb.ts";
import type { PostgresHandle, PostgresResource } from "../../src/transactions/postgres.ts";

export type Bank = { readonly orders: PostgresResource; readonly wallet: MariadbResource };
export type Kind = "both" | "left" | "agent";

export const accounts = 64;
export const startBalance = 1_000_000;

export const schema = {
  left: [
    "CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL)",
    "CREATE TABLE transfer (gid varchar(60) PRIMARY KEY, amount int NOT NULL, purpose varchar(60), account int)",
    // A whole branch in one statement: a transfer that names its account takes the money by itself.
    "CREATE FUNCTION pay() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE account SET balance = balance - NEW.amount WHERE id = NEW.account; RETURN NEW; END $$",
    "CREATE TRIGGER paid AFTER INSERT ON transfer FOR EACH ROW EXECUTE FUNCTION pay()",
  ],
  right: [
    "CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL) ENGINE=InnoDB",
    "CREATE TABLE transfer (gid varchar(60) CHARACTER SET ascii PRIMARY KEY, amount int NOT NULL, CHECK (amount > 0)) ENGINE=InnoDB",
  ],
} as const;

/** One line of the journal, on disk before anybody goes on. */
export interface Line {
  readonly said: "began" | "committed" | "aborted" | "unknown";
  readonly gid: string;
  readonly kind: Kind;
}

export async function transfer(
  tm: TransactionManager<Bank>,
  {
    kind,
    refused,
    say,
    working,
    key,
    timeoutMs = 5_000,
  }: {
    readonly kind: Kind;
    readonly refused: boolean;
    readonly say: (line: Line) => void;
    readonly working: (gid: string) => void | Promise<void>;
    readonly key?: string;
    readonly timeoutMs?: number;
  },
): Promise<void> {
  const [from, to] = [1 + Math.floor(Math.random() * accounts), 1 + Math.floor(Math.random() * accounts)];
  const amount = 1 + Math.floor(Math.random() * 100);
  let gid = "";
  try {
    await tm.run(
      { timeoutMs, ...(kind === "agent" ? { lastAgent: "orders" } : {}), ...(key === undefined ? {} : { key }) },
      async (tx) => {
        gid = tx.gid;
        say({ said: "began", gid, kind });
        const left = tx.on("orders");
        await branchOfPostgres(left, { row: [gid, amount, key ?? null], from, isAlone: kind === "left" });
        if (kind !== "left") {
          const right = tx.on("wallet");
          await right.query("UPDATE account SET balance = balance + ? WHERE id = ?", [amount, to]);
          // The check refuses it together with the vote.
          right.last("INSERT INTO transfer (gid, amount) VALUES (?, ?)", [gid, refused ? -amount : amount]);
        }
        await working(gid);
      },
    );
    if (gid !== "") say({ said: "committed", gid, kind });
  } catch (error) {
    const { code } = error as { readonly code?: string };
    if (gid !== "") say({ said: code === "TRANSACTION_ABORTED" ? "aborted" : "unknown", gid, kind });
  }
}

/** Each way in which its statements may travel: one by one, the last with the vote, all in one text with it. */
async function branchOfPostgres(
  left: PostgresHandle,
  {
    row,
    from,
    isAlone,
  }: { readonly row: readonly [string, number, string | null]; readonly from: number; readonly isAlone: boolean },
): Promise<void> {
  const insert = "INSERT INTO transfer (gid, amount, purpose, account) VALUES ($1, $2, $3, $4)";
  const way = Math.floor(Math.random() * 3);
  // One that is alone leaves the money where it was.
  if (way === 0) return left.last(insert, [...row, isAlone ? null : from]);
  const [, amount] = row;
  await left.query("UPDATE account SET balance = balance - $1 WHERE id = $2", [amount, from]);
  if (isAlone) await left.query("UPDATE account SET balance = balance + $1 WHERE id = $2", [amount, (from % accounts) + 1]);
  if (way === 1) left.last(insert, [...row, null]);
  else await left.query(insert, [...row, null]);
}
