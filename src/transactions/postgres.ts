/**
 * PostgreSQL as a participant, over the `pg` driver.
 *
 *   first statement   BEGIN rides before it                          (one packet)
 *   prepare           last statement, marker, PREPARE TRANSACTION    (one packet; the vote is the command tag)
 *   second phase      COMMIT PREPARED on any connection
 *
 * Where the last statement's values can stand in its text, `prepare` is one text: the server answers once. One that is also the
 * first and commits alone needs no BEGIN: a text of several statements is a transaction by itself.
 *
 * Facts that were sprung as traps (`research/transactions.md` §4.1, PostgreSQL 15): PREPARE TRANSACTION in a failed transaction
 * answers with the tag ROLLBACK and no error; "does not exist" (42704) says nothing about the outcome; `max_prepared_transactions`
 * is 0 by default; only the same role, in the same database, may finish a branch; temporary tables, LISTEN and cursors WITH HOLD
 * cannot be prepared.
 * Any session may finish a branch, so the connection goes back to the pool as soon as the vote is known.
 */
import { conclaveError } from "../base/errors.ts";
import { domainPrefix, parseGid } from "../coordinator/gid.ts";
import type { BranchRef, Evidence, FenceReply, FinishReply, Outcome, Participant, Vote } from "../coordinator/participant.ts";
import { AtHand } from "./at-hand.ts";
import { Gate } from "./gate.ts";
import { formatParts, isTransactionControl, markerTable, parseParts } from "./marker.ts";
import { within } from "./node-timers.ts";
import { postgresDoctor } from "./postgres-doctor.ts";
import type { Finding, MarkerRow, OpenOptions, ResourceBranch, Snapshot, SqlResource } from "./resource.ts";
import { writtenIn } from "./written-in.ts";

/** What is used of `pg`'s result. */
export interface PostgresResult {
  readonly command: string;
  readonly rowCount: number | null;
  // biome-ignore lint/suspicious/noExplicitAny: rows are whatever the statement selects.
  readonly rows: any[];
}

/** What is used of `pg`'s client. */
export interface PostgresClient {
  query(
    text: string | { readonly text: string; readonly values?: unknown[]; readonly name?: string },
    values?: unknown[],
  ): Promise<PostgresResult>;
  release(destroy?: boolean | Error): void;
  on(event: "error", listener: (error: Error) => void): unknown;
  /** The driver's own; where it is not there, statements leave one by one. */
  readonly connection?: { readonly stream?: { cork?(): void; uncork?(): void } };
}

/** What is used of `pg`'s Pool. */
export interface PostgresPool {
  connect(): Promise<PostgresClient>;
  end(): Promise<void>;
  /** Those who wait for a client. */
  readonly waitingCount?: number;
  on(event: "error", listener: (error: Error) => void): unknown;
}

export interface PostgresOptions {
  /** `postgres://user:password@host:port/database`. A pool of the participant's own is made with it. */
  readonly url?: string;
  /** A pool of yours, by shape; nobody else may begin transactions on clients while they are handed out. */
  readonly pool?: PostgresPool;
  /** Connections of the pool that is made. Default 20. */
  readonly connectionsMax?: number;
  /** Branches prepared at one time by this process. Default: four fifths of the server's `max_prepared_transactions`. */
  readonly preparedMax?: number;
  /** How long one answer may take. Milliseconds. Default 5_000. */
  readonly answerMs?: number;
  /** Default: the server's. */
  readonly isolation?: "read committed" | "repeatable read" | "serializable";
}

/** What user code works with: the statements of one branch. Has the shape that Kysely's and Drizzle's drivers want. */
export interface PostgresHandle {
  /** As `pg`'s `client.query`. @throws UNSUPPORTED for BEGIN, COMMIT and the like: those are the coordinator's */
  // biome-ignore lint/suspicious/noExplicitAny: the shape of `pg`, whose second argument differs by the first.
  query(statement: any, values?: any): Promise<PostgresResult>;
  /**
   * The last statement of the branch, sent together with the vote: one round trip less. `rows`: the transaction aborts with
   * `otherwise` unless so many rows were touched.
   */
  last(text: string, values?: unknown[], expect?: { readonly rows: number; readonly otherwise?: string }): void;
  /** A client of it: what a Kysely dialect asks of a pool. */
  connect(): Promise<PostgresHandle & { release(): void }>;
}

/** @since 0.2.0 */
export const postgresDefaults = { connectionsMax: 20, answerMs: 5_000, preparedMax: 51 } as const;

/**
 * A PostgreSQL database (12 or newer) for `transactions({ resources })`.
 * @throws INVALID_OPTION, FOREIGN_CLIENT
 * @since 0.2.0
 */
export function postgres(options: PostgresOptions): PostgresResource {
  if ((options.url === undefined) === (options.pool === undefined)) {
    throw conclaveError("INVALID_OPTION", "`postgres` takes a `url` or a `pool`.");
  }
  for (const method of ["connect", "end", "on"] as const) {
    if (options.pool !== undefined && typeof options.pool[method] !== "function") {
      throw conclaveError("FOREIGN_CLIENT", `\`pool\` has no method \`${method}\`; hand in a Pool of \`pg\`.`);
    }
  }
  return new PostgresResource(options);
}

export class PostgresResource implements SqlResource<PostgresHandle> {
  readonly kind = "postgres";
  readonly title: string;
  readonly #options: PostgresOptions;
  readonly #answerMs: number;
  #pool: Promise<PostgresPool> | undefined;
  #gate: Promise<Gate> | undefined;
  /** The same, once it is there. */
  #openedGate: Gate | undefined;
  #name = "";
  readonly #heard = new WeakSet<PostgresClient>();
  readonly #broken = new WeakSet<PostgresClient>();
  /** Of the pool that was made here. One that was handed in is somebody else's too, and has them back at once. */
  #atHand: AtHand<PostgresClient> | undefined;

  /** Use `postgres`, which checks the options. */
  constructor(options: PostgresOptions) {
    this.#options = options;
    this.#answerMs = options.answerMs ?? postgresDefaults.answerMs;
    this.title = options.url === undefined ? "PostgreSQL" : `PostgreSQL at ${withoutPassword(options.url)}`;
  }

  bind(name: string): Participant {
    this.#name = name;
    return {
      finish: (ref, outcome) => this.finish(ref, outcome),
      evidence: (ref) => this.#evidence(ref),
      fence: (ref) => this.#fence(ref),
      // Any session may finish a branch here: nobody holds one for long.
      evict: () => Promise.resolve(false),
      scan: (domain) => this.#scan(domain),
    };
  }

  branch(ref: BranchRef, options: OpenOptions): PostgresBranch {
    return new PostgresBranch(this, ref, options);
  }

  get isolation(): PostgresOptions["isolation"] {
    return this.#options.isolation;
  }

  async finish(ref: BranchRef, outcome: Outcome): Promise<FinishReply> {
    try {
      await this.ask(`${outcome === "commit" ? "COMMIT" : "ROLLBACK"} PREPARED '${preparedName(ref)}'`);
      return "done";
    } catch (error) {
      switch (sqlState(error)) {
        case "42704":
          return "not-found";
        // "is busy": another session is finishing it, or has not finished preparing it.
        case "55000":
          return "held";
        case "42501":
        case "0A000":
          return "misconfigured";
        default:
          return "unreachable";
      }
    }
  }

  async #evidence(ref: BranchRef): Promise<Evidence> {
    try {
      // Two statements, in this order: the list of prepared ones is live, the marker is seen by the snapshot of its statement.
      const listed = await this.ask("SELECT 1 FROM pg_prepared_xacts WHERE gid = $1", [preparedName(ref)]);
      if (listed.rows.length > 0) return { state: "prepared" };
      const found = await this.ask(`SELECT op, parts FROM ${markerTable} WHERE gid = $1 AND br = $2 AND cls = 0`, [
        ref.gid,
        ref.branch,
      ]);
      const row = found.rows[0] as { op: string; parts: string | null } | undefined;
      if (row?.op !== "do") return { state: "absent" };
      return { state: "committed", parts: parseParts(ref.gid, row.parts ?? "") };
    } catch {
      return { state: "unreachable" };
    }
  }

  async #fence({ gid, branch }: BranchRef): Promise<FenceReply> {
    try {
      // Waits for a commit that is under way, for a second. One text of several statements is one transaction.
      await this.ask(
        `SET LOCAL lock_timeout = '1s'; INSERT INTO ${markerTable} (gid, br, cls, op) VALUES ('${gid}', ${Number(branch)}, 0, 'abort') ON CONFLICT (gid, br, cls) DO NOTHING`,
      );
      const { rows } = await this.ask(`SELECT op FROM ${markerTable} WHERE gid = $1 AND br = $2 AND cls = 0`, [gid, branch]);
      return (rows[0] as { op: string } | undefined)?.op === "do" ? "committed" : "fenced";
    } catch (error) {
      return ["55P03", "57014"].includes(sqlState(error)) ? "busy" : "unreachable";
    }
  }

  async #scan(domain: string): Promise<readonly BranchRef[] | "unreachable"> {
    try {
      const { rows } = await this.ask(
        "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND gid LIKE $1 || '%'",
        [domainPrefix(domain)],
      );
      return (rows as { gid: string }[]).flatMap(({ gid: name }) => {
        const at = name.lastIndexOf("/");
        const gid = name.slice(0, at);
        return parseGid(gid) === null ? [] : [{ gid, branch: Number(name.slice(at + 1)), resource: this.#name }];
      });
    } catch {
      return "unreachable";
    }
  }

  async snapshot(): Promise<Snapshot<PostgresHandle>> {
    const client = await this.client();
    try {
      await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
      // The snapshot is taken by the first statement, not by BEGIN.
      await client.query("SELECT 1");
    } catch (error) {
      client.release(true);
      throw error;
    }
    return {
      handle: handleOf((statement, values) => client.query(statement, values), noLast),
      markers: async (withinMs) => {
        const { rows } = await client.query(
          `SELECT gid, br, parts FROM ${markerTable} WHERE op = 'do' AND at > now() - $1 * interval '1 millisecond'`,
          [withinMs],
        );
        return rows.map(markerOf);
      },
      close: async () => {
        await client.query("COMMIT").then(
          () => client.release(),
          () => client.release(true),
        );
      },
    };
  }

  async migrate(): Promise<void> {
    const client = await this.client();
    try {
      await client.query("BEGIN");
      // Two processes that start together make it once.
      await client.query("SELECT pg_advisory_xact_lock(1129729073)");
      await client.query(`CREATE TABLE IF NOT EXISTS ${markerTable} (
        gid varchar(60) NOT NULL, br smallint NOT NULL, cls smallint NOT NULL DEFAULT 0, op varchar(8) NOT NULL,
        parts varchar(400), result text, at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (gid, br, cls))`);
      await client.query(`CREATE INDEX IF NOT EXISTS ${markerTable}_at ON ${markerTable} (at)`);
      await client.query("COMMIT");
      client.release();
    } catch (error) {
      client.release(true);
      throw error;
    }
  }

  async marker(gid: string): Promise<MarkerRow | null> {
    const { rows } = await this.ask(`SELECT gid, br, parts FROM ${markerTable} WHERE gid = $1 AND op = 'do' LIMIT 1`, [gid]);
    return rows[0] === undefined ? null : markerOf(rows[0]);
  }

  async markersSince(sinceMs: number, limit: number): Promise<readonly MarkerRow[]> {
    const { rows } = await this.ask(
      `SELECT gid, br, parts FROM ${markerTable} WHERE op = 'do' AND cls = 0 AND at > now() - $1 * interval '1 millisecond' ORDER BY at DESC LIMIT $2`,
      [sinceMs, limit],
    );
    return rows.map(markerOf);
  }

  async dropMarkers(olderThanMs: number, keep: readonly string[]): Promise<number> {
    const { rowCount } = await this.ask(
      `DELETE FROM ${markerTable} WHERE ctid IN (SELECT ctid FROM ${markerTable}
         WHERE at < now() - $1 * interval '1 millisecond' AND NOT gid = ANY($2) LIMIT 1000)`,
      [olderThanMs, keep],
    );
    return rowCount ?? 0;
  }

  doctor(): Promise<readonly Finding[]> {
    return postgresDoctor((text, values) => this.ask(text, values));
  }

  async close(): Promise<void> {
    const pool = await this.#pool?.catch(() => undefined);
    this.#atHand?.close();
    if (this.#options.pool === undefined) await pool?.end();
  }

  /** One statement on a connection of its own. A connection that failed is not given back. */
  async ask(text: string, values?: unknown[]): Promise<PostgresResult> {
    const client = await this.client();
    try {
      const result = await within(client.query(text, values), this.#answerMs, noAnswer);
      this.release(client);
      return result;
    } catch (error) {
      // An answer of the server leaves the connection as it was; anything else leaves it in doubt.
      client.release(sqlState(error) === "" || sqlState(error).startsWith("57P"));
      throw error;
    }
  }

  client(): Promise<PostgresClient> {
    const client = this.#atHand?.take();
    return client === undefined ? this.#fromPool() : Promise.resolve(client);
  }

  /** After a use that left it as it was. `client.release` does as well. */
  release(client: PostgresClient): void {
    if (this.#atHand === undefined || this.#broken.has(client)) client.release();
    else this.#atHand.lay(client);
  }

  async #fromPool(): Promise<PostgresClient> {
    this.#pool ??= this.#openPool();
    const connecting = (await this.#pool).connect().then((client) => {
      // A server that dies while a branch holds the client: unheard, the event would end the process.
      if (!this.#heard.has(client)) client.on("error", () => this.#onBroken(client));
      this.#heard.add(client);
      return client;
    });
    // A pool that was made here keeps to the same time by itself.
    if (this.#options.pool === undefined) return connecting;
    return within(connecting, this.#answerMs, noAnswer).catch((error: unknown) => {
      // One that comes too late goes back.
      connecting.then((client) => client.release(), ignoreIdle);
      throw error;
    });
  }

  /** Whoever waits for an answer on it hears of it there; where nobody does, it is given out no more. */
  #onBroken(client: PostgresClient): void {
    this.#broken.add(client);
    if (this.#atHand?.remove(client)) client.release(true);
  }

  /** To the places among the server's prepared transactions; a promise before the first. */
  gate(): Gate | Promise<Gate> {
    if (this.#openedGate !== undefined) return this.#openedGate;
    this.#gate ??= this.#openGate();
    return this.#gate;
  }

  async #openGate(): Promise<Gate> {
    const { preparedMax } = this.#options;
    if (preparedMax !== undefined) {
      this.#openedGate = new Gate(preparedMax);
      return this.#openedGate;
    }
    try {
      const { rows } = await this.ask("SHOW max_prepared_transactions");
      const max = Number((rows[0] as { max_prepared_transactions: string }).max_prepared_transactions);
      // At least one: where the server allows none it says so itself, in words.
      this.#openedGate = new Gate(Math.max(1, Math.floor(max * 0.8)));
      return this.#openedGate;
    } catch {
      this.#gate = undefined;
      return new Gate(postgresDefaults.preparedMax);
    }
  }

  async #openPool(): Promise<PostgresPool> {
    const { pool, url, connectionsMax = postgresDefaults.connectionsMax } = this.#options;
    const made = pool ?? (await makePool(url as string, connectionsMax, this.#answerMs));
    // An idle connection that breaks is replaced; whoever uses one hears of it by the statement.
    made.on("error", ignoreIdle);
    if (pool === undefined) {
      this.#atHand = new AtHand({
        isWaitedFor: () => made.waitingCount !== 0,
        giveBack: (client) => client.release(),
      });
    }
    return made;
  }
}

/** `voting`: PREPARE is on its way, and nobody knows. `ending`: ROLLBACK is on its way; whatever came after it would stand alone. */
type BranchState = "unused" | "active" | "preparing" | "voting" | "prepared" | "ending" | "ended";

class PostgresBranch implements ResourceBranch<PostgresHandle> {
  readonly ref: BranchRef;
  readonly isReadOnly: boolean;
  readonly handle: PostgresHandle;
  readonly #resource: PostgresResource;
  readonly #timeoutMs: number;
  #state: BranchState = "unused";
  #isSealed = false;
  #client: Promise<PostgresClient> | undefined;
  /** Whether BEGIN has been sent. */
  #isBegun = false;
  /** The last statement, where it is said together with the order. */
  #riding: string | null = null;
  #last:
    | {
        readonly text: string;
        readonly values: unknown[] | undefined;
        readonly expect: { rows: number; otherwise?: string } | undefined;
      }
    | undefined;
  /** Whose place it holds. */
  #gate: Gate | undefined;

  constructor(resource: PostgresResource, ref: BranchRef, { isReadOnly, timeoutMs }: OpenOptions) {
    this.#resource = resource;
    this.ref = ref;
    this.#timeoutMs = timeoutMs;
    this.isReadOnly = isReadOnly;
    this.handle = handleOf(
      (statement, values) => this.#query(statement, values),
      (text, values, expect) => {
        this.#checkOpen(text);
        this.#last = { text, values, expect };
      },
    );
  }

  get isUsed(): boolean {
    return this.#state !== "unused" || this.#last !== undefined;
  }

  seal(): void {
    this.#isSealed = true;
  }

  async prepare(parts: readonly BranchRef[]): Promise<{ readonly vote: Vote; readonly why?: string }> {
    this.seal();
    if (this.isReadOnly) return this.#endReading();
    const opened = this.#resource.gate();
    const gate = opened instanceof Gate ? opened : await opened;
    if (!gate.maybeEnter() && !(await gate.enter(this.#timeoutMs))) {
      await this.rollback();
      return { vote: "no", why: "no free slot among max_prepared_transactions" };
    }
    this.#gate = gate;
    const client = await this.#connect();
    if (this.#isOver) return this.#overtaken();
    this.#state = "preparing";
    // A statement that touched the wrong number of rows must not be prepared: with an expectation the vote waits for its
    // answer, without one everything is on the wire at once.
    const told = this.#sendLast(client);
    const early = this.#last?.expect === undefined ? undefined : await told;
    if (this.#isOver) return this.#overtaken();
    if (early !== undefined) {
      await this.rollback();
      return { vote: "no", why: early };
    }
    this.#state = "voting";
    const sent = this.#sendOrder(client, { parts, order: `PREPARE TRANSACTION '${preparedName(this.ref)}'` });
    const [refusal, answer] = told === undefined ? [undefined, await sent] : await Promise.all([told, sent]);
    if ("error" in answer) {
      if (isDoubtful(answer.error)) throw answer.error;
      if (this.#isOver) return this.#overtaken();
      // The order was not reached: the transaction is still open.
      this.#state = "preparing";
      await this.rollback();
      return { vote: "no", why: refusal ?? messageOf(answer.error) };
    }
    if (answer.command !== "PREPARE") {
      // The tag is ROLLBACK: a statement had failed, and the transaction is over. After any other nobody knows.
      this.#end(client, answer.command === "ROLLBACK");
      return { vote: "no", why: refusal ?? "a statement of the branch had failed" };
    }
    // The order to roll back came before this answer, and left what is prepared to recovery.
    if (this.#isOver) return this.#overtaken();
    this.#state = "prepared";
    this.#resource.release(client);
    return { vote: "yes" };
  }

  async commit(): Promise<FinishReply> {
    const reply = await this.#resource.finish(this.ref, "commit");
    this.#leaveGate();
    return reply;
  }

  async rollback(): Promise<FinishReply> {
    switch (this.#state) {
      case "unused":
      case "ending":
      case "ended":
        this.#isSealed = true;
        this.#leaveGate();
        return "done";
      case "prepared": {
        const reply = await this.#resource.finish(this.ref, "rollback");
        this.#leaveGate();
        return reply;
      }
      case "voting": {
        // It may be prepared, now or in a moment: the connection goes, and recovery finds what is left.
        const client = await this.#client;
        if (client !== undefined) this.#end(client, false);
        return "unreachable";
      }
      case "preparing":
      case "active": {
        // Before anything is waited for: a statement that still waits for the connection must not go out after the ROLLBACK.
        this.#state = "ending";
        const client = await this.#client?.catch(() => undefined);
        if (client === undefined) {
          this.#state = "ended";
          this.#leaveGate();
          return "done";
        }
        if (!this.#isBegun) {
          this.#end(client, true);
          return "done";
        }
        // What is not prepared goes with its connection, if it does not go by itself.
        const isClean = await within(client.query("ROLLBACK"), postgresDefaults.answerMs, noAnswer).then(
          ({ command }) => command === "ROLLBACK",
          () => false,
        );
        this.#end(client, isClean);
        return "done";
      }
    }
  }

  async commitAlone(parts: readonly BranchRef[]): Promise<"done" | "rolled-back" | "unknown"> {
    this.seal();
    const client = await this.#connect();
    if (this.#isOver) return "rolled-back";
    this.#state = "preparing";
    const told = this.#sendLast(client);
    const isRefused = this.#last?.expect !== undefined && (await told) !== undefined;
    if (isRefused || this.#isOver) {
      await this.rollback();
      return "rolled-back";
    }
    // What is sent as one text is one transaction, and committed when its last answer comes.
    const isOneText = !this.#isBegun && this.#resource.isolation === undefined;
    const sent = this.#sendOrder(client, isOneText ? { parts } : { parts, order: "COMMIT" });
    if (told !== undefined) await told;
    const answer = await sent;
    if ("error" in answer) {
      // A deferred constraint that fails at COMMIT is an answer; a lost connection is none.
      if (isDoubtful(answer.error)) {
        this.#end(client, false);
        return "unknown";
      }
      await this.rollback();
      return "rolled-back";
    }
    this.#end(client, true);
    return answer.command === (isOneText ? "INSERT" : "COMMIT") ? "done" : "rolled-back";
  }

  /**
   * The kept statement, on the wire: resolves with why the branch must not commit, if so. Undefined where there is none, or where
   * it rides in one text with the order.
   */
  #sendLast(client: PostgresClient): Promise<string | undefined> | undefined {
    const last = this.#last;
    if (last === undefined) return undefined;
    const { text, values, expect } = last;
    if (expect === undefined) {
      this.#riding = writtenIn(text, values);
      if (this.#riding !== null) return undefined;
    }
    this.#begin(client);
    corkForNow(client);
    return client
      .query(text, values)
      .then(
        ({ rowCount }) =>
          expect === undefined || rowCount === expect.rows
            ? undefined
            : (expect.otherwise ?? `${rowCount ?? 0} rows were touched instead of ${expect.rows}`),
        messageOf,
      );
  }

  /** What is left to say, in one text: where a statement of it fails, the order is not reached. */
  async #sendOrder(
    client: PostgresClient,
    { parts, order }: { readonly parts: readonly BranchRef[]; readonly order?: string },
  ): Promise<{ readonly command: string } | { readonly error: unknown }> {
    const { gid, branch } = this.ref;
    let text = `INSERT INTO ${markerTable} (gid, br, cls, op, parts) VALUES ('${gid}', ${branch}, 0, 'do', '${formatParts(parts)}')`;
    if (this.#riding !== null) text = `${this.#riding};\n${text}`;
    if (order !== undefined) {
      text = this.#isBegun ? `${text};\n${order}` : `${this.#beginning};\n${text};\n${order}`;
      this.#isBegun = true;
    }
    corkForNow(client);
    try {
      // One result, or one for each statement.
      const results: PostgresResult | PostgresResult[] = await client.query(text);
      const last = Array.isArray(results) ? (results.at(-1) as PostgresResult | undefined) : results;
      return { command: last?.command ?? "" };
    } catch (error) {
      return { error };
    }
  }

  async #endReading(): Promise<{ readonly vote: Vote; readonly why?: string }> {
    if (this.#state === "unused") return { vote: "read-only" };
    const client = await this.#connect();
    this.#begin(client);
    try {
      const { command } = await client.query("COMMIT");
      this.#end(client, true);
      return command === "COMMIT" ? { vote: "read-only" } : { vote: "no", why: "a statement of the branch had failed" };
    } catch (error) {
      this.#end(client, false);
      return { vote: "no", why: messageOf(error) };
    }
  }

  async #query(statement: unknown, values: unknown): Promise<PostgresResult> {
    this.#checkOpen(textOf(statement));
    const client = await this.#connect();
    // Rolled back while it waited for the connection, which by now may be somebody else's.
    if (this.#state !== "active") throw this.#closed();
    this.#begin(client);
    return client.query(statement as string, values as unknown[]);
  }

  #checkOpen(text: string): void {
    if (this.#isSealed || !["unused", "active"].includes(this.#state) || this.#last !== undefined) throw this.#closed();
    if (isTransactionControl(text)) {
      throw conclaveError(
        "UNSUPPORTED",
        `${JSON.stringify(text.slice(0, 40))} is the coordinator's to say; use savepoints inside a branch.`,
      );
    }
  }

  #connect(): Promise<PostgresClient> {
    this.#client ??= this.#resource.client();
    if (this.#state === "unused") this.#state = "active";
    return this.#client;
  }

  /** BEGIN travels before the first statement, not ahead of it. */
  #begin(client: PostgresClient): void {
    if (this.#isBegun) return;
    this.#isBegun = true;
    corkForNow(client);
    // Should it fail, so does what follows.
    client.query(this.#beginning).catch(ignoreIdle);
  }

  get #beginning(): string {
    const { isolation } = this.#resource;
    const level = isolation === undefined ? "" : ` ISOLATION LEVEL ${isolation.toUpperCase()}`;
    return `BEGIN${level}${this.isReadOnly ? " READ ONLY" : ""}`;
  }

  #closed(): Error {
    return conclaveError("CLOSED", `This branch of ${this.ref.gid} takes no more statements.`);
  }

  /** Rolled back, or on the way there, by somebody who did not wait for what goes on here. */
  get #isOver(): boolean {
    return this.#state === "ending" || this.#state === "ended";
  }

  #overtaken(): { readonly vote: Vote; readonly why: string } {
    this.#leaveGate();
    return { vote: "no", why: "it was rolled back meanwhile" };
  }

  #end(client: PostgresClient, isClean: boolean): void {
    if (this.#state === "ended") return;
    this.#state = "ended";
    this.#leaveGate();
    if (isClean) this.#resource.release(client);
    else client.release(true);
  }

  #leaveGate(): void {
    this.#gate?.leave();
    this.#gate = undefined;
  }
}

/** What is sent until this turn ends leaves as one packet: each of its own would wake the server once more. */
function corkForNow(client: PostgresClient): void {
  const stream = client.connection?.stream;
  if (stream?.cork === undefined) return;
  stream.cork();
  process.nextTick(() => stream.uncork?.());
}

type Query = (statement: string, values?: unknown[]) => Promise<PostgresResult>;

function handleOf(query: Query, last: PostgresHandle["last"]): PostgresHandle {
  const handle: PostgresHandle = {
    query,
    last,
    connect: () => Promise.resolve({ ...handle, release: () => undefined }),
  };
  return handle;
}

function noLast(): never {
  throw conclaveError("UNSUPPORTED", "A snapshot only reads.");
}

/** Of the server's list: the transaction and the branch. */
function preparedName({ gid, branch }: BranchRef): string {
  return `${gid}/${branch}`;
}

function markerOf(row: { gid: string; br: number; parts: string | null }): MarkerRow {
  return { gid: row.gid, branch: Number(row.br), parts: parseParts(row.gid, row.parts ?? "") };
}

function textOf(statement: unknown): string {
  if (typeof statement === "string") return statement;
  return String((statement as { readonly text?: unknown }).text ?? "");
}

/** Five characters where the server answered; empty where the connection failed. */
function sqlState(error: unknown): string {
  const { code } = error as { readonly code?: unknown };
  return typeof code === "string" && /^[0-9A-Z]{5}$/.test(code) ? code : "";
}

/** No answer, or the server's last words before it went: it may have happened. */
function isDoubtful(error: unknown): boolean {
  return /^(?:|57P.*|08.*)$/.test(sqlState(error));
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function noAnswer(): Error {
  return new Error("PostgreSQL did not answer in time.");
}

function ignoreIdle(): void {
  // Whoever waits for an answer on this connection hears of it there.
}

function withoutPassword(url: string): string {
  return url.replace(/\/\/([^:@/]*):[^@/]*@/, "//$1@");
}

async function makePool(url: string, connectionsMax: number, answerMs: number): Promise<PostgresPool> {
  const driver = (await import("pg").catch((cause: unknown) => {
    throw conclaveError("FOREIGN_CLIENT", "The package `pg` is not installed; it talks to PostgreSQL.", { cause });
  })) as { default: { Pool: new (options: unknown) => PostgresPool } };
  return new driver.default.Pool({
    connectionString: url,
    max: connectionsMax,
    connectionTimeoutMillis: answerMs,
    // Statements of one branch travel without waiting for one another; their order is kept.
    pipeline: true,
    // A client that hangs is ended by the server, and with it what it had not prepared.
    options: "-c idle_in_transaction_session_timeout=20000 -c lock_timeout=5000 -c statement_timeout=30000",
    application_name: "conclave-tx",
  });
}
