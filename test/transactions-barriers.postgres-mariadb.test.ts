/**
 * The barrier in real databases: lines and work in one local transaction, under duplicates, wrong order and collisions.
 */
import mysql from "mysql2/promise";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Barrier } from "../src/transactions/barrier.ts";
import { Abort } from "../src/transactions/errors.ts";
import { mariadb } from "../src/transactions/mariadb.ts";
import { postgres } from "../src/transactions/postgres.ts";
import { mariadbBarrier, postgresBarrier } from "../src/transactions/sql-barrier.ts";
import { startMariadb } from "./servers/mariadb.ts";
import { startPostgres } from "./servers/postgres.ts";

const servers = await Promise.all([startPostgres(), startMariadb()]);

interface Fixture {
  readonly name: string;
  readonly skipped: string | undefined;
  readonly barrier: Barrier<{ query(sql: string): Promise<unknown> }>;
  readonly ask: (sql: string) => Promise<readonly Record<string, unknown>[]>;
  readonly close: () => Promise<void>;
}

function fixtures(): readonly Fixture[] {
  const [left, right] = servers;
  const none = (name: string, skipped: string) => ({ name, skipped }) as unknown as Fixture;
  const made: Fixture[] = [];
  if ("skipped" in left) made.push(none("PostgreSQL", left.skipped));
  else {
    const pool = new pg.Pool({ connectionString: left.url });
    // The server may stop before its last idle connection has closed.
    pool.on("error", () => undefined);
    const resource = postgres({ url: left.url });
    made.push({
      name: "PostgreSQL",
      skipped: undefined,
      barrier: postgresBarrier(resource) as never,
      ask: async (sql) => (await pool.query(sql)).rows,
      close: async () => {
        await pool.end();
        await resource.close();
        await left.stop();
      },
    });
  }
  if ("skipped" in right) made.push(none("MariaDB", right.skipped));
  else {
    const pool = mysql.createPool({ uri: right.url });
    const resource = mariadb({ url: right.url });
    made.push({
      name: "MariaDB",
      skipped: undefined,
      barrier: mariadbBarrier(resource) as never,
      ask: async (sql) => (await pool.query(sql))[0] as never,
      close: async () => {
        await pool.end();
        await resource.close();
        await right.stop();
      },
    });
  }
  return made;
}

for (const { name, skipped, barrier, ask, close } of fixtures()) {
  if (skipped !== undefined) console.log(`The barrier on ${name} is skipped: ${skipped}.`);
  describe.skipIf(skipped !== undefined)(`a barrier in ${name}`, { timeout: 60_000 }, () => {
    let count = 0;
    const next = () => ({ gid: `cv1.abcdef.abcdefgh.1a.${++count}`, branch: 1 });
    const stock = async (): Promise<number> => Number((await ask("SELECT free FROM stock"))[0]?.["free"]);
    const take =
      (amount: number) =>
      async (handle: { query(sql: string): Promise<unknown> }): Promise<unknown> => {
        await handle.query(`UPDATE stock SET free = free - ${amount}`);
        return { amount };
      };

    beforeAll(async () => {
      await barrier.install();
      await ask("CREATE TABLE stock (free int NOT NULL)");
      await ask("INSERT INTO stock VALUES (100)");
    }, 60_000);
    afterAll(close);

    test("Try and Confirm run once; ten at a time are answered with the first result", async () => {
      const call = next();
      const before = await stock();
      const tries = await Promise.all(Array.from({ length: 10 }, () => barrier.run({ ...call, phase: "try" }, take(3))));
      expect(tries.filter((answer) => answer.kind === "done" && !answer.isReplay).length).toBe(1);
      for (const answer of tries) expect(answer).toMatchObject({ kind: "done", result: { amount: 3 } });
      const seen: unknown[] = [];
      const confirms = await Promise.all(
        Array.from({ length: 10 }, () => barrier.run({ ...call, phase: "confirm" }, (_, tried) => void seen.push(tried))),
      );
      expect(confirms.every(({ kind }) => kind === "done")).toBe(true);
      expect(seen).toEqual([{ amount: 3 }]);
      expect(await stock()).toBe(before - 3);
      expect(await barrier.run({ ...call, phase: "cancel" }, take(-3))).toEqual({ kind: "closed", why: "confirmed" });
      expect(await barrier.standing(call.gid, 1)).toBe("confirmed");
    });

    test("Try and Cancel at the same moment: one order or the other, never a reservation that stays", async () => {
      const before = await stock();
      for (let round = 0; round < 30; round++) {
        const call = next();
        const [tried, cancelled] = await Promise.all([
          barrier.run({ ...call, phase: "try" }, take(1)),
          barrier.run({ ...call, phase: "cancel" }, take(-1)),
        ]);
        const isHanging = cancelled.kind === "skipped";
        expect(tried.kind).toBe(isHanging ? "closed" : "done");
        expect(cancelled.kind).toBe(isHanging ? "skipped" : "done");
        expect(await barrier.run({ ...call, phase: "try" }, take(1))).toEqual({ kind: "closed", why: "cancelled" });
      }
      expect(await stock()).toBe(before);
    });

    test("a refusal undoes the work and is kept; an error undoes both and is asked again", async () => {
      const before = await stock();
      const refused = next();
      const refuse = async (handle: { query(sql: string): Promise<unknown> }): Promise<never> => {
        await take(50)(handle);
        throw new Abort("too much", { limit: 7 });
      };
      expect(await barrier.run({ ...refused, phase: "try" }, refuse)).toMatchObject({ kind: "refused", isReplay: false });
      expect(await barrier.run({ ...refused, phase: "try" }, take(50))).toEqual({
        kind: "refused",
        reason: "too much",
        details: { limit: 7 },
        isReplay: true,
      });
      expect(await barrier.run({ ...refused, phase: "cancel" }, take(-50))).toEqual({ kind: "skipped" });
      const failing = next();
      const fail = async (handle: { query(sql: string): Promise<unknown> }): Promise<never> => {
        await take(50)(handle);
        throw new Error("the network");
      };
      await expect(barrier.run({ ...failing, phase: "try" }, fail)).rejects.toThrow("the network");
      expect(await barrier.standing(failing.gid, 1)).toBe("absent");
      expect(await barrier.run({ ...failing, phase: "try", mustSucceed: true }, refuse)).toMatchObject({ kind: "refused" });
      expect(await barrier.run({ ...failing, phase: "try" }, take(0))).toMatchObject({ kind: "done" });
      expect(await stock()).toBe(before);
    });

    test("effects outside: a Try that failed is cancelled all the same (H8)", async () => {
      const call = next();
      await expect(barrier.runOutside({ ...call, phase: "try" }, () => Promise.reject(new Error("lost")))).rejects.toThrow(
        "lost",
      );
      let cancels = 0;
      const cancel = () => barrier.run({ ...call, phase: "cancel" }, () => void cancels++);
      expect((await cancel()).kind).toBe("done");
      expect((await cancel()).kind).toBe("done");
      expect(cancels).toBe(1);
      expect(await barrier.runOutside({ ...call, phase: "try" }, () => Promise.resolve(1))).toEqual({
        kind: "closed",
        why: "cancelled",
      });
      const good = next();
      expect(await barrier.runOutside({ ...good, phase: "try" }, () => Promise.resolve({ hold: 7 }))).toMatchObject({
        result: { hold: 7 },
      });
      expect(await barrier.runOutside({ ...good, phase: "try" }, () => Promise.resolve(8))).toMatchObject({
        result: { hold: 7 },
        isReplay: true,
      });
      expect(await barrier.run({ ...good, phase: "confirm" }, (_, tried) => tried)).toMatchObject({ result: { hold: 7 } });
    });

    test("lines that are old go, others stay; a result that is too long is refused and leaves nothing", async () => {
      const call = next();
      await expect(barrier.run({ ...call, phase: "try" }, () => "x".repeat(20_000))).rejects.toMatchObject({
        code: "VALUE_TOO_LARGE",
      });
      expect(await barrier.standing(call.gid, 1)).toBe("absent");
      const old = next();
      await barrier.run({ ...old, phase: "try" }, () => 1);
      await barrier.run({ ...call, phase: "try" }, () => 1);
      const past = name === "MariaDB" ? "now(3) - INTERVAL 8 DAY" : "now() - interval '8 days'";
      await ask(`UPDATE conclave_mark SET at = ${past} WHERE gid = '${old.gid}'`);
      expect(await barrier.drop()).toBe(1);
      expect(await barrier.standing(old.gid, 1)).toBe("absent");
      expect(await barrier.standing(call.gid, 1)).toBe("tried");
    });
  });
}
