/**
 * The barrier in a SQL database: lines are rows of the marker table, written first in the transaction that does the work.
 *
 *   BEGIN; INSERT line (waits while somebody else is at it); SAVEPOINT; work; UPDATE line SET result; COMMIT
 *
 * A plain INSERT first, never SELECT ... FOR UPDATE: a lock on a row that is not there yet is a gap, and two gaps are a deadlock
 * (Seata's fences, issues 6383 and 6679). READ COMMITTED, because whoever waited must see what the other has written.
 */
import { conclaveError } from "../base/errors.ts";
import {
  type BarrierLines,
  type BranchStanding,
  type ForwardWord,
  judge,
  type SecondWord,
  standingOf,
} from "../coordinator/barrier.ts";
import {
  answerOf,
  type Barrier,
  type BarrierAnswer,
  type BarrierCall,
  type BarrierWork,
  barrierKeptMs,
  decodeResult,
  encodeResult,
  refusalOf,
} from "./barrier.ts";
import type { MariadbConnection, MariadbResource } from "./mariadb.ts";
import { markerTable } from "./marker.ts";
import type { PostgresClient, PostgresResource } from "./postgres.ts";

export interface SqlBarrierOptions {
  /** How long lines are kept. Milliseconds, an hour at least. Default seven days: longer than anything may be in doubt. */
  readonly keptMs?: number;
}

/** One local transaction of a database. */
interface Session<Handle> {
  readonly handle: Handle;
  run(sql: string, values?: readonly unknown[]): Promise<{ readonly count: number; readonly rows: readonly Row[] }>;
  release(isClean: boolean): void;
}

interface Row {
  readonly cls: number;
  readonly op: string;
  readonly result: string | null;
}

/** What differs between the two. `?` stands for a value in all texts. */
interface Dialect<Handle> {
  open(): Promise<Session<Handle>>;
  install(): Promise<void>;
  readonly begin: string;
  readonly claim: string;
  readonly read: string;
  readonly drop: string;
  /** The server gave way to another transaction: nothing happened, and a second try may go through. */
  isCollision(error: unknown): boolean;
}

/** A barrier in PostgreSQL: `postgresBarrier(postgres({ url }))`. Work is given the client. @since 0.2.0 */
export function postgresBarrier(database: PostgresResource, options: SqlBarrierOptions = {}): Barrier<PostgresClient> {
  return new SqlBarrier(
    {
      open: async () => {
        const client = await database.client();
        return {
          handle: client,
          run: async (sql, values = []) => {
            let at = 0;
            const { rows, rowCount } = await client.query(
              sql.replace(/\?/g, () => `$${++at}`),
              [...values],
            );
            return { count: rowCount ?? 0, rows };
          },
          release: (isClean) => client.release(!isClean),
        };
      },
      install: () => database.migrate(),
      begin: "BEGIN ISOLATION LEVEL READ COMMITTED",
      claim: `INSERT INTO ${markerTable} (gid, br, cls, op) VALUES (?, ?, ?, ?) ON CONFLICT (gid, br, cls) DO NOTHING`,
      read: `SELECT cls, op, result FROM ${markerTable} WHERE gid = ? AND br = ?`,
      drop: `DELETE FROM ${markerTable} WHERE ctid IN (SELECT ctid FROM ${markerTable} WHERE op <> 'do' AND at < now() - ? * interval '1 millisecond' LIMIT 1000)`,
      isCollision: (error) => ["40001", "40P01", "55P03"].includes(String((error as { code?: unknown }).code)),
    },
    options,
  );
}

/** A barrier in MariaDB or MySQL: `mariadbBarrier(mariadb({ url }))`. Work is given the connection. @since 0.2.0 */
export function mariadbBarrier(database: MariadbResource, options: SqlBarrierOptions = {}): Barrier<MariadbConnection> {
  return new SqlBarrier(
    {
      open: async () => {
        const connection = await database.connection();
        return {
          handle: connection,
          run: async (sql, values = []) => {
            const [result] = await connection.query(sql, [...values]);
            return Array.isArray(result)
              ? { count: result.length, rows: result as Row[] }
              : { count: Number(result.affectedRows), rows: [] };
          },
          release: (isClean) => (isClean ? connection.release() : connection.destroy()),
        };
      },
      install: () => database.migrate(),
      begin: "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; START TRANSACTION",
      claim: `INSERT IGNORE INTO ${markerTable} (gid, br, cls, op) VALUES (?, ?, ?, ?)`,
      read: `SELECT cls, op, result FROM ${markerTable} WHERE gid = ? AND br = ?`,
      // Milliseconds come in; the server counts microseconds.
      drop: `DELETE FROM ${markerTable} WHERE op <> 'do' AND at < now(3) - INTERVAL (? * 1000) MICROSECOND LIMIT 1000`,
      isCollision: (error) => [1205, 1213, 1020].includes(Number((error as { errno?: unknown }).errno)),
    },
    options,
  );
}

const collisionsMax = 5;

class SqlBarrier<Handle> implements Barrier<Handle> {
  readonly keptMs: number;
  readonly #dialect: Dialect<Handle>;

  constructor(dialect: Dialect<Handle>, { keptMs = barrierKeptMs }: SqlBarrierOptions) {
    if (!(keptMs >= 3_600_000)) throw conclaveError("INVALID_OPTION", `\`keptMs\` is ${keptMs}; it must be an hour or more.`);
    this.keptMs = keptMs;
    this.#dialect = dialect;
  }

  install(): Promise<void> {
    return this.#dialect.install();
  }

  run(call: BarrierCall, work: BarrierWork<Handle>): Promise<BarrierAnswer> {
    return this.#within((session) => this.#run(session, call, work));
  }

  async runOutside(call: BarrierCall, work: () => Promise<unknown>): Promise<BarrierAnswer> {
    const before = await this.#within(async (session): Promise<BarrierAnswer | undefined> => {
      await this.#claim(session, call, 0, "intent");
      const judgement = judge("try", await this.#read(session, call));
      return judgement.kind === "run" ? undefined : answerOf(judgement);
    });
    if (before !== undefined) return before;
    let word: ForwardWord = "try";
    let kept: unknown;
    try {
      kept = await work();
    } catch (error) {
      const refusal = refusalOf(error);
      // Nobody knows what it did outside: the intent stays, and a Cancel will run.
      if (refusal === null) throw error;
      word = "refuse";
      kept = refusal;
    }
    return this.#within(async (session) => {
      const text = encodeResult(kept);
      const sql = `UPDATE ${markerTable} SET op = ?, result = ? WHERE gid = ? AND br = ? AND cls = 0 AND op = 'intent' AND NOT EXISTS (SELECT 1 FROM (SELECT gid FROM ${markerTable} WHERE gid = ? AND br = ? AND cls = 1) AS second)`;
      const { count } = await session.run(sql, [word, text, call.gid, call.branch, call.gid, call.branch]);
      if (count === 0) return answerFor(judge("try", await this.#read(session, call)));
      if (word === "try") return { kind: "done", result: decodeResult(text), isReplay: false };
      const { reason, details } = kept as { reason: string; details: unknown };
      return { kind: "refused", reason, details, isReplay: false };
    });
  }

  standing(gid: string, branch: number): Promise<BranchStanding> {
    return this.#within(async (session) => standingOf(await this.#read(session, { gid, branch })));
  }

  async drop(): Promise<number> {
    return this.#within(async (session) => (await session.run(this.#dialect.drop, [this.keptMs])).count);
  }

  async #run(session: Session<Handle>, call: BarrierCall, work: BarrierWork<Handle>): Promise<BarrierAnswer> {
    const { phase } = call;
    if (phase === "confirm") {
      const judgement = judge(phase, await this.#read(session, call));
      if (judgement.kind !== "run") return answerOf(judgement);
    } else {
      // The claim comes first: it waits for whoever is at the same line, and nothing is read before it.
      const isFirst = await this.#claim(session, call, 0, phase === "try" ? "try" : "abort");
      if (phase === "try" && isFirst) return this.#work(session, call, 0, work, null);
      if (phase === "cancel" && isFirst) return { kind: "skipped" };
      const judgement = judge(phase, await this.#read(session, call));
      if (judgement.kind !== "run") return answerOf(judgement);
      if (phase === "try") throw conclaveError("BUSY", "This branch is being tried outside of the database.");
    }
    const isFirst = await this.#claim(session, call, 1, phase);
    const judgement = judge(phase, await this.#read(session, call));
    if (isFirst) {
      const { forward } = await this.#read(session, call);
      return this.#work(session, call, 1, work, forward?.word === "try" ? forward.result : null);
    }
    return answerFor(judgement);
  }

  async #work(
    session: Session<Handle>,
    call: BarrierCall,
    line: 0 | 1,
    work: BarrierWork<Handle>,
    tried: string | null,
  ): Promise<BarrierAnswer> {
    await session.run("SAVEPOINT conclave_work");
    let word: ForwardWord | SecondWord = call.phase;
    let kept: unknown;
    try {
      kept = await work(session.handle, decodeResult(tried));
    } catch (error) {
      const refusal = refusalOf(error);
      // Confirm and Cancel have no right to refuse: what they throw is a fault, and is asked again.
      if (refusal === null || line === 1) throw error;
      await session.run("ROLLBACK TO SAVEPOINT conclave_work");
      if (call.mustSucceed === true) throw new Refused(refusal);
      word = "refuse";
      kept = refusal;
    }
    const text = encodeResult(kept);
    const sql = `UPDATE ${markerTable} SET op = ?, result = ? WHERE gid = ? AND br = ? AND cls = ?`;
    await session.run(sql, [word, text, call.gid, call.branch, line]);
    if (word !== "refuse") return { kind: "done", result: decodeResult(text), isReplay: false };
    const { reason, details } = kept as { reason: string; details: unknown };
    return { kind: "refused", reason, details, isReplay: false };
  }

  async #claim(
    session: Session<Handle>,
    { gid, branch }: BarrierCall,
    line: 0 | 1,
    word: ForwardWord | SecondWord,
  ): Promise<boolean> {
    return (await session.run(this.#dialect.claim, [gid, branch, line, word])).count === 1;
  }

  async #read(
    session: Session<Handle>,
    { gid, branch }: { readonly gid: string; readonly branch: number },
  ): Promise<BarrierLines> {
    const { rows } = await session.run(this.#dialect.read, [gid, branch]);
    const line = (cls: number) => rows.find((row) => Number(row.cls) === cls);
    const [forward, second] = [line(0), line(1)];
    return {
      forward: forward === undefined ? null : { word: forward.op as ForwardWord, result: forward.result },
      second: second === undefined ? null : { word: second.op as SecondWord, result: second.result },
    };
  }

  /** One local transaction; again a few times where the server made it give way. */
  async #within<T>(work: (session: Session<Handle>) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      const session = await this.#dialect.open();
      let isClean = false;
      try {
        await session.run(this.#dialect.begin);
        const answer = await work(session);
        await session.run("COMMIT");
        isClean = true;
        return answer;
      } catch (error) {
        isClean = await session.run("ROLLBACK").then(
          () => true,
          () => false,
        );
        if (error instanceof Refused) return { kind: "refused", ...error.refusal, isReplay: false } as T;
        if (!this.#dialect.isCollision(error)) throw error;
        if (attempt === collisionsMax)
          throw conclaveError("BUSY", "The barrier gave way to others several times.", { cause: error });
      } finally {
        session.release(isClean);
      }
    }
  }
}

/** A refusal that is not kept: everything of it is rolled back. */
class Refused extends Error {
  readonly refusal: { readonly reason: string; readonly details: unknown };

  constructor(refusal: { readonly reason: string; readonly details: unknown }) {
    super(refusal.reason);
    this.refusal = refusal;
  }
}

/** After a lost race for a line there is nothing left to run. @throws BUSY */
function answerFor(judgement: ReturnType<typeof judge>): BarrierAnswer {
  if (judgement.kind === "run") throw conclaveError("BUSY", "This branch is in somebody else's hands at this moment.");
  return answerOf(judgement);
}
