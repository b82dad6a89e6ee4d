/**
 * Invalidations that happen exactly if a SQL transaction commits: a row in the same transaction, and a relay that turns rows
 * into invalidations.
 *
 *   BEGIN; UPDATE users ...; INSERT INTO conclave_outbox ...; COMMIT         the row is there iff the write is
 *   relay, in any process: lock rows nobody else has, invalidate, delete the rows, COMMIT
 *
 * A process that dies between COMMIT and the relay loses nothing: whoever relays next finds the row. A relay that dies
 * between the invalidation and its own COMMIT invalidates twice, which is once. Rows are found by being there, not by a
 * number that has been reached: numbers of transactions that commit late are not skipped.
 * For PostgreSQL, MySQL and MariaDB. Source of the pattern: Richardson, "Microservices Patterns", 2018, §3.3.7.
 */
import { background } from "../base/background.ts";
import { conclaveError } from "../base/errors.ts";
import { linkSignal } from "../base/link-signal.ts";
import type { Target } from "../cache-core/invalidation.ts";
import { type ClientOf, type MysqlPool, type OutboxDatabase, outboxDatabase, type SqlPool } from "./sql-outbox-database.ts";

/** What the relay needs of a cache. */
export interface Invalidatable {
  readonly name: string;
  invalidate(targets: readonly Target[]): Promise<string>;
}

export interface SqlOutboxOptions<P extends SqlPool | MysqlPool = SqlPool> {
  /** A Pool of `pg`, or one of `mysql2/promise`. */
  readonly pool: P;
  /** The caches whose rows this process relays. Rows of others wait for a process that has them. */
  readonly caches: readonly Invalidatable[];
  /** Default "conclave_outbox". Letters, digits and `_`, with a schema before a dot if need be. */
  readonly table?: string;
  /** How often the relay looks. Milliseconds, 10 to 3_600_000. Default 200. */
  readonly pollMs?: number;
  /** Told when a round of the relay fails; it goes on with the next. Default: nobody. */
  readonly onError?: (error: unknown) => void;
}

/** Writes the row of an invalidation into the transaction that is open. */
export type InvalidateWithin = (cache: { readonly name: string }, target: Target | readonly Target[]) => Promise<void>;

interface Written {
  readonly id: unknown;
  readonly name: string;
  readonly targets: readonly Target[];
}

const batchMax = 100;

/**
 * ```ts
 * const outbox = new SqlOutbox({ pool, caches: [users] });
 * await outbox.install();
 * outbox.start();
 * const token = await outbox.transaction(async (client, invalidate) => {
 *   await client.query("UPDATE users SET name = $1 WHERE id = $2", [name, id]);
 *   await invalidate(users, id);
 * });
 * await users.get(id, load, { atLeast: token });
 * ```
 * @since 0.2.0
 */
export class SqlOutbox<P extends SqlPool | MysqlPool = SqlPool> implements AsyncDisposable {
  readonly #database: OutboxDatabase<ClientOf<P>>;
  readonly #caches: ReadonlyMap<string, Invalidatable>;
  readonly #pollMs: number;
  readonly #onError: ((error: unknown) => void) | undefined;
  readonly #life = linkSignal(undefined);
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isStarted = false;

  /** @throws INVALID_OPTION, FOREIGN_CLIENT */
  constructor({ pool, caches, table = "conclave_outbox", pollMs = 200, onError }: SqlOutboxOptions<P>) {
    // It goes into the text of statements: nothing but a name may.
    if (!/^(?:[a-z_][a-z0-9_]*\.)?[a-z_][a-z0-9_]*$/i.test(table)) {
      throw conclaveError("INVALID_OPTION", `\`table\` ${JSON.stringify(table)} is not a plain name.`);
    }
    if (!(pollMs >= 10 && pollMs <= 3_600_000)) {
      throw conclaveError("INVALID_OPTION", `\`pollMs\` is ${pollMs}; it must be from 10 to 3_600_000.`);
    }
    this.#database = outboxDatabase(pool, table);
    this.#caches = new Map(caches.map((cache) => [cache.name, cache]));
    this.#pollMs = pollMs;
    this.#onError = onError;
  }

  /** Makes the table where it is not there yet. */
  async install(): Promise<void> {
    await this.#database.with((client) => this.#database.install(client));
  }

  /** Writes the row, and answers with its number; inside a transaction of yours, on its client. */
  async invalidate(client: ClientOf<P>, cache: { readonly name: string }, target: Target | readonly Target[]): Promise<unknown> {
    const targets = Array.isArray(target) ? target : [target];
    return this.#database.insert(client, { cache: cache.name, targets: JSON.stringify(targets) });
  }

  /**
   * BEGIN, your work, COMMIT, and then the invalidation at once. Answers with its token, for `atLeast`; undefined when it could
   * not be done yet: the write stands, and the relay does it. When the work throws, everything is rolled back, and nothing
   * was invalidated.
   */
  async transaction(work: (client: ClientOf<P>, invalidate: InvalidateWithin) => Promise<void>): Promise<string | undefined> {
    const written: Written[] = [];
    await this.#inTransaction((client) =>
      work(client, async (cache, target) => {
        const id = await this.invalidate(client, cache, target);
        written.push({ id, name: cache.name, targets: (Array.isArray(target) ? target : [target]) as Target[] });
      }),
    );
    try {
      return await this.#relayOwn(written);
    } catch (error) {
      this.#onError?.(error);
      return undefined;
    }
  }

  /** Relays every row that is committed and that nobody else is relaying. Answers with the last token; undefined: none were. */
  async flush(): Promise<string | undefined> {
    let token: string | undefined;
    for (;;) {
      const { count, last } = await this.#relaySome();
      token = last ?? token;
      if (count < batchMax) return token;
    }
  }

  /** Relays from now on, every `pollMs`, without keeping the process alive. */
  start(): void {
    if (this.#isStarted || this.#life.signal.aborted) return;
    this.#isStarted = true;
    this.#later();
  }

  /** The pool stays open: it is yours. Idempotent. */
  async close(): Promise<void> {
    this.#life.abort();
    clearTimeout(this.#timer);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #later(): void {
    if (this.#life.signal.aborted) return;
    this.#timer = setTimeout(() => {
      background(
        this.flush()
          .catch((error: unknown) => this.#onError?.(error))
          .finally(() => this.#later()),
        "relay the outbox",
      );
    }, this.#pollMs);
    this.#timer.unref();
  }

  /** Those just committed: the relay of another process may hold the rows, and this one must know what it invalidated. */
  async #relayOwn(written: readonly Written[]): Promise<string | undefined> {
    let token: string | undefined;
    const done: unknown[] = [];
    for (const { id, name, targets } of written) {
      const cache = this.#caches.get(name);
      if (cache === undefined) continue;
      token = await cache.invalidate(targets);
      done.push(id);
    }
    if (done.length > 0) await this.#database.with((client) => this.#database.delete(client, done));
    return token;
  }

  /** The rows stay locked until they are invalidated and deleted: another relay skips them, and has them if this one dies. */
  async #relaySome(): Promise<{ readonly count: number; readonly last: string | undefined }> {
    return this.#inTransaction(async (client) => {
      const rows = await this.#database.lock(client, { caches: [...this.#caches.keys()], limit: batchMax });
      let last: string | undefined;
      for (const [name, cache] of this.#caches) {
        const mine = rows.filter((row) => row.cache === name);
        if (mine.length > 0) last = await cache.invalidate(mine.flatMap(({ targets }) => targetsOf(targets)));
      }
      const ids = rows.map(({ id }) => id);
      if (ids.length > 0) await this.#database.delete(client, ids);
      return { count: rows.length, last };
    });
  }

  #inTransaction<T>(work: (client: ClientOf<P>) => Promise<T>): Promise<T> {
    const database = this.#database;
    return database.with(async (client) => {
      await database.begin(client);
      try {
        const answer = await work(client);
        await database.end(client, "COMMIT");
        return answer;
      } catch (error) {
        // Where it fails, the connection that is given up rolls back as well; what went wrong first is what counts.
        await database.end(client, "ROLLBACK").catch(() => undefined);
        throw error;
      }
    });
  }
}

function targetsOf(json: unknown): readonly Target[] {
  return (typeof json === "string" ? JSON.parse(json) : json) as Target[];
}
