/**
 * MariaDB (10.5 or newer) and MySQL (8.0.30 or newer) as participants, over the `mysql2` driver and XA.
 *
 *   first statement   XA START 'gid','branch.connection',format
 *   prepare           last statement, marker, XA END, XA PREPARE      (one packet)
 *   second phase      XA COMMIT on the same connection, which stays pinned until then
 *
 * Facts that were sprung as traps (`research/transactions.md` §4.2, MariaDB 10.11): while the session that prepared a branch is
 * connected, nobody else may finish it, and the server says 1397 XAER_NOTA, the same as of an unknown one; so the connection's
 * number stands in the name, and whoever takes over ends that session first. A statement that fails rolls back alone, and XA
 * PREPARE then succeeds with half of the work: any failed statement forbids the branch to commit. A branch that only read loses
 * its locks when its connection breaks: the marker makes every branch a writer.
 */
import { conclaveError } from "../base/errors.ts";
import { domainPrefix, parseGid } from "../coordinator/gid.ts";
import type { BranchRef, Evidence, FenceReply, FinishReply, Outcome, Participant, Vote } from "../coordinator/participant.ts";
import { AtHand } from "./at-hand.ts";
import { mariadbDoctor } from "./mariadb-doctor.ts";
import { formatParts, isTransactionControl, markerTable, parseParts } from "./marker.ts";
import { within } from "./node-timers.ts";
import type { Finding, MarkerRow, OpenOptions, ResourceBranch, Snapshot, SqlResource } from "./resource.ts";

/** "CVL1" */
const formatId = 1_129_729_073;

/** Rows of a SELECT, or the header of a change. */
// biome-ignore lint/suspicious/noExplicitAny: rows are whatever the statement selects.
export type MariadbResult = any;

/** What is used of a connection, in the shape of `mysql2/promise`. */
export interface MariadbConnection {
  readonly threadId: number;
  query(sql: unknown, values?: unknown): Promise<[MariadbResult, unknown]>;
  format(sql: string, values?: unknown): string;
  release(): void;
  destroy(): void;
}

/** The same of a pool. */
export interface MariadbPool {
  /** One that was used a moment ago, if there is one. */
  atHand(): MariadbConnection | undefined;
  getConnection(): Promise<MariadbConnection>;
  end(): Promise<void>;
}

export interface MariadbOptions {
  /** `mysql://user:password@host:port/database`. A pool of the participant's own is made with it. */
  readonly url: string;
  /** Connections of the pool; each branch keeps one until it is settled. Default 20. */
  readonly connectionsMax?: number;
  /** How long one answer may take. Milliseconds. Default 5_000. */
  readonly answerMs?: number;
}

/** What user code works with: the statements of one branch, in the shape of `mysql2/promise`. */
export interface MariadbHandle {
  /** As `mysql2/promise`'s `connection.query`. @throws UNSUPPORTED for BEGIN, COMMIT and the like */
  query(sql: unknown, values?: unknown): Promise<[MariadbResult, unknown]>;
  /** The same: values are escaped by the driver, not bound by the server. */
  execute(sql: unknown, values?: unknown): Promise<[MariadbResult, unknown]>;
  /** The last statement, in one packet with the vote. `rows`: abort with `otherwise` unless so many were touched. */
  last(sql: string, values?: unknown[], expect?: { readonly rows: number; readonly otherwise?: string }): void;
  /** A connection of it: what a pool gives. */
  getConnection(): Promise<MariadbHandle & { release(): void }>;
}

/** @since 0.2.0 */
export const mariadbDefaults = { connectionsMax: 20, answerMs: 5_000 } as const;

/**
 * A MariaDB or MySQL database for `transactions({ resources })`.
 * @throws INVALID_OPTION
 * @since 0.2.0
 */
export function mariadb(options: MariadbOptions): MariadbResource {
  if (typeof options.url !== "string") throw conclaveError("INVALID_OPTION", "`mariadb` takes a `url`.");
  return new MariadbResource(options);
}

export class MariadbResource implements SqlResource<MariadbHandle> {
  readonly kind = "mariadb";
  readonly title: string;
  readonly #options: MariadbOptions;
  readonly #answerMs: number;
  #pool: Promise<MariadbPool> | undefined;
  /** The same, once it is there. */
  #openedPool: MariadbPool | undefined;
  #name = "";

  /** Use `mariadb`, which checks the options. */
  constructor(options: MariadbOptions) {
    this.#options = options;
    this.#answerMs = options.answerMs ?? mariadbDefaults.answerMs;
    this.title = `MariaDB at ${options.url.replace(/\/\/([^:@/]*):[^@/]*@/, "//$1@")}`;
  }

  bind(name: string): Participant {
    this.#name = name;
    return {
      finish: (ref, outcome) => this.#finish(ref, outcome),
      evidence: (ref) => this.#evidence(ref),
      fence: (ref) => this.#fence(ref),
      evict: (ref) => this.#evict(ref),
      scan: (domain) => this.#scan(domain),
    };
  }

  branch(ref: BranchRef, options: OpenOptions): MariadbBranch {
    return new MariadbBranch(this, ref, options);
  }

  async #finish(ref: BranchRef, outcome: Outcome): Promise<FinishReply> {
    try {
      const owner = ref.owner ?? (await this.#listed(ref))?.owner;
      if (owner === undefined) return "not-found";
      await this.ask(`XA ${outcome === "commit" ? "COMMIT" : "ROLLBACK"} ${xidOf({ ...ref, owner })}`);
      return "done";
    } catch (error) {
      const reply = finishReplyOf(error);
      if (reply !== "not-found") return reply;
      // The server says the same of "unknown" and of "held": the list tells them apart.
      return this.#listed(ref).then(
        (listed) => (listed === undefined ? "not-found" : "held"),
        () => "unreachable",
      );
    }
  }

  async #evidence(ref: BranchRef): Promise<Evidence> {
    try {
      if ((await this.#listed(ref)) !== undefined) return { state: "prepared" };
      const rows = await this.ask(`SELECT op, parts FROM ${markerTable} WHERE gid = ? AND br = ? AND cls = 0`, [
        ref.gid,
        ref.branch,
      ]);
      const [row] = rows as { op: string; parts: string | null }[];
      if (row?.op !== "do") return { state: "absent" };
      return { state: "committed", parts: parseParts(ref.gid, row.parts ?? "") };
    } catch {
      return { state: "unreachable" };
    }
  }

  async #fence({ gid, branch }: BranchRef): Promise<FenceReply> {
    try {
      await this.ask(
        `SET SESSION innodb_lock_wait_timeout = 1; INSERT IGNORE INTO ${markerTable} (gid, br, cls, op) VALUES (?, ?, 0, 'abort'); SET SESSION innodb_lock_wait_timeout = 5`,
        [gid, branch],
      );
      const rows = await this.ask(`SELECT op FROM ${markerTable} WHERE gid = ? AND br = ? AND cls = 0`, [gid, branch]);
      return (rows as { op: string }[])[0]?.op === "do" ? "committed" : "fenced";
    } catch (error) {
      // The row is locked by a branch that lives, or is in the middle of its commit.
      return [1205, 1213, 3024, 1969].includes(errno(error)) ? "busy" : "unreachable";
    }
  }

  /**
   * Ends the session that prepared the branch. A number is given out again only after the server has restarted, and then nobody
   * holds the branch; so a held branch is looked at twice before anybody is ended.
   */
  async #evict(ref: BranchRef): Promise<boolean> {
    try {
      const owner = ref.owner ?? (await this.#listed(ref))?.owner;
      if (owner === undefined) return false;
      const rows = await this.ask(
        "SELECT ID FROM information_schema.PROCESSLIST WHERE ID = ? AND USER = SUBSTRING_INDEX(CURRENT_USER(), '@', 1)",
        [owner],
      );
      if ((rows as unknown[]).length === 0) return false;
      await this.ask(`KILL ${Number(owner)}`);
      // The session goes at its own pace; until then the branch is still held.
      for (let at = 0; at < 20; at++) {
        const left = await this.ask("SELECT ID FROM information_schema.PROCESSLIST WHERE ID = ?", [owner]);
        if ((left as unknown[]).length === 0) return true;
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      return true;
    } catch {
      return false;
    }
  }

  async #scan(domain: string): Promise<readonly BranchRef[] | "unreachable"> {
    try {
      return (await this.#recover()).filter(({ gid }) => gid.startsWith(domainPrefix(domain)));
    } catch {
      return "unreachable";
    }
  }

  async #listed({ gid, branch }: BranchRef): Promise<BranchRef | undefined> {
    return (await this.#recover()).find((each) => each.gid === gid && each.branch === branch);
  }

  async #recover(): Promise<readonly BranchRef[]> {
    const rows = (await this.ask("XA RECOVER")) as { formatID: number; gtrid_length: number; data: string | Buffer }[];
    return rows.flatMap(({ formatID, gtrid_length: length, data }) => {
      if (Number(formatID) !== formatId) return [];
      const text = data.toString();
      const gid = text.slice(0, Number(length));
      const [branch = "0", owner = ""] = text.slice(Number(length)).split(".");
      return parseGid(gid) === null ? [] : [{ gid, branch: Number(branch), resource: this.#name, owner }];
    });
  }

  async snapshot(): Promise<Snapshot<MariadbHandle>> {
    const connection = await this.connection();
    try {
      await connection.query(
        "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
      );
    } catch (error) {
      connection.destroy();
      throw error;
    }
    return {
      handle: handleOf((sql, values) => connection.query(sql, values), noLast),
      markers: async (withinMs) => {
        const [rows] = await connection.query(
          `SELECT gid, br, parts FROM ${markerTable} WHERE op = 'do' AND at > now(3) - INTERVAL ? MICROSECOND`,
          [withinMs * 1_000],
        );
        return (rows as never[]).map(markerOf);
      },
      close: async () => {
        await connection.query("COMMIT").then(
          () => connection.release(),
          () => connection.destroy(),
        );
      },
    };
  }

  async migrate(): Promise<void> {
    await this.ask(`CREATE TABLE IF NOT EXISTS ${markerTable} (
      gid varchar(60) CHARACTER SET ascii NOT NULL, br smallint NOT NULL, cls smallint NOT NULL DEFAULT 0, op varchar(8) NOT NULL,
      parts varchar(400), result text, at timestamp(3) NOT NULL DEFAULT current_timestamp(3),
      PRIMARY KEY (gid, br, cls), KEY ${markerTable}_at (at)) ENGINE=InnoDB`);
  }

  async marker(gid: string): Promise<MarkerRow | null> {
    const rows = await this.ask(`SELECT gid, br, parts FROM ${markerTable} WHERE gid = ? AND op = 'do' LIMIT 1`, [gid]);
    const [row] = rows as never[];
    return row === undefined ? null : markerOf(row);
  }

  async markersSince(sinceMs: number, limit: number): Promise<readonly MarkerRow[]> {
    const rows = await this.ask(
      `SELECT gid, br, parts FROM ${markerTable} WHERE op = 'do' AND cls = 0 AND at > now(3) - INTERVAL ? MICROSECOND ORDER BY at DESC LIMIT ?`,
      [sinceMs * 1_000, limit],
    );
    return (rows as never[]).map(markerOf);
  }

  async dropMarkers(olderThanMs: number, keep: readonly string[]): Promise<number> {
    const result = await this.ask(
      `DELETE FROM ${markerTable} WHERE at < now(3) - INTERVAL ? MICROSECOND AND gid NOT IN (?) LIMIT 1000`,
      [olderThanMs * 1_000, keep.length === 0 ? [""] : keep],
    );
    return (result as { affectedRows: number }).affectedRows;
  }

  doctor(): Promise<readonly Finding[]> {
    return mariadbDoctor((sql, values) => this.ask(sql, values));
  }

  async close(): Promise<void> {
    await (await this.#pool?.catch(() => undefined))?.end();
  }

  /** One statement on a connection of its own. A connection that failed is not given back. */
  async ask(sql: string, values?: unknown[]): Promise<MariadbResult> {
    const connection = await this.connection();
    try {
      const [result] = await within(connection.query(sql, values), this.#answerMs, noAnswer);
      connection.release();
      return result;
    } catch (error) {
      if (errno(error) === 0 || isConnectionLoss(error)) connection.destroy();
      else connection.release();
      throw error;
    }
  }

  connection(): Promise<MariadbConnection> {
    const connection = this.#openedPool?.atHand();
    return connection === undefined ? this.#fromPool() : Promise.resolve(connection);
  }

  async #fromPool(): Promise<MariadbConnection> {
    this.#pool ??= makePool(this.#options.url, this.#options.connectionsMax ?? mariadbDefaults.connectionsMax, this.#answerMs);
    const pool = await this.#pool;
    this.#openedPool = pool;
    const connecting = pool.getConnection();
    return within(connecting, this.#answerMs, noAnswer).catch((error: unknown) => {
      // One that comes too late goes back.
      connecting.then((connection) => connection.release(), ignore);
      throw error;
    });
  }
}

/** `ending`: XA ROLLBACK is on its way; whatever came after it would stand alone. */
type BranchState = "unused" | "active" | "preparing" | "prepared" | "ending" | "ended";

class MariadbBranch implements ResourceBranch<MariadbHandle> {
  readonly isReadOnly: boolean;
  readonly handle: MariadbHandle;
  readonly #resource: MariadbResource;
  #ref: BranchRef;
  #state: BranchState = "unused";
  #isSealed = false;
  #connection: Promise<MariadbConnection> | undefined;
  #opened: MariadbConnection | undefined;
  /** Whether XA START, or START TRANSACTION, has been sent. */
  #isStarted = false;
  /** The packet with the start. Nothing follows it before its answer: without a transaction it would stand alone. */
  #starting: Promise<unknown> | undefined;
  /** Statements that were taken and not answered yet. */
  readonly #pending = new Set<Promise<unknown>>();
  #failure: string | undefined;
  #last:
    | { readonly sql: string; readonly expect: { rows: number; otherwise?: string } | undefined; readonly values: unknown }
    | undefined;

  constructor(resource: MariadbResource, ref: BranchRef, options: OpenOptions) {
    this.#resource = resource;
    this.#ref = ref;
    this.isReadOnly = options.isReadOnly;
    this.handle = handleOf(
      (sql, values) => this.#take(sql, values),
      (sql, values, expect) => {
        this.#checkOpen(sql);
        this.#last = { sql, values, expect };
      },
    );
  }

  /** With the connection's number, once there is one: whoever takes over ends that session first. */
  get ref(): BranchRef {
    return this.#ref;
  }

  get isUsed(): boolean {
    return this.#state !== "unused" || this.#last !== undefined;
  }

  seal(): void {
    this.#isSealed = true;
  }

  async prepare(parts: readonly BranchRef[]): Promise<{ readonly vote: Vote; readonly why?: string }> {
    this.seal();
    if (this.#pending.size > 0) await Promise.allSettled(this.#pending);
    if (this.isReadOnly) return this.#endReading();
    const told = await this.#sendLast(parts, (xid) => `XA PREPARE ${xid}`);
    if (told !== undefined) return { vote: "no", why: told };
    // The order to roll back came before this answer, and left what is prepared to recovery.
    if (this.#isOver) return { vote: "no", why: overtaken };
    this.#state = "prepared";
    return { vote: "yes" };
  }

  async commit(): Promise<FinishReply> {
    const connection = this.#opened;
    if (connection === undefined) return "unreachable";
    try {
      await connection.query(`XA COMMIT ${xidOf(this.ref)}`);
      this.#end(true);
      return "done";
    } catch (error) {
      this.#end(false);
      return finishReplyOf(error);
    }
  }

  async rollback(): Promise<FinishReply> {
    this.seal();
    if (this.#isOver) return "done";
    if (this.#state === "preparing") {
      // Its answer did not come: the connection goes, and what it prepared is found by recovery.
      this.#end(false);
      return "unreachable";
    }
    const wasPrepared = this.#state === "prepared";
    // Before anything is waited for: a statement that still waits for the connection must not go out after the order.
    this.#state = "ending";
    const connection = await this.#connection?.catch(() => undefined);
    if (connection === undefined || !this.#isStarted) {
      this.#end(true);
      return "done";
    }
    const end = this.isReadOnly
      ? "ROLLBACK"
      : wasPrepared
        ? `XA ROLLBACK ${xidOf(this.ref)}`
        : `XA END ${xidOf(this.ref)}; XA ROLLBACK ${xidOf(this.ref)}`;
    try {
      await within(connection.query(end), mariadbDefaults.answerMs, noAnswer);
      this.#end(true);
      return "done";
    } catch (error) {
      this.#end(false);
      // What is not prepared goes with its connection.
      return wasPrepared ? finishReplyOf(error) : "done";
    }
  }

  async commitAlone(parts: readonly BranchRef[]): Promise<"done" | "rolled-back" | "unknown"> {
    this.seal();
    try {
      if (this.#pending.size > 0) await Promise.allSettled(this.#pending);
      const told = await this.#sendLast(parts, (xid) => `XA COMMIT ${xid} ONE PHASE`);
      if (told !== undefined) return "rolled-back";
      this.#end(true);
      return "done";
    } catch {
      this.#end(false);
      return "unknown";
    }
  }

  /**
   * Start, last statement, marker, end, and `order`: one packet, which the server leaves at the first error. Resolves with why
   * the branch did not get through, and rejects when nobody knows.
   */
  async #sendLast(parts: readonly BranchRef[], order: (xid: string) => string): Promise<string | undefined> {
    if (this.#failure !== undefined) {
      await this.rollback();
      return `a statement of the branch had failed: ${this.#failure}`;
    }
    const connection = this.#opened ?? (await this.#open());
    if (this.#isOver) return overtaken;
    const xid = xidOf(this.ref);
    const start = this.#isStarted ? [] : [`XA START ${xid}`];
    const last = this.#last === undefined ? [] : [connection.format(this.#last.sql, this.#last.values)];
    const { gid, branch } = this.#ref;
    // Names of ours, which need no escaping: small letters, digits, and `.:,` between them.
    const marker = `INSERT INTO ${markerTable} (gid, br, cls, op, parts) VALUES ('${gid}', ${branch}, 0, 'do', '${formatParts(parts)}')`;
    const expect = this.#last?.expect;
    const end = [marker, `XA END ${xid}`, order(xid)];
    this.#isStarted = true;
    this.#state = "preparing";
    try {
      if (expect !== undefined) {
        // The vote hangs on the number of rows: it is asked for first.
        const [result] = await connection.query(packet([...start, ...last]));
        if (this.#isOver) return overtaken;
        const results: unknown = start.length > 0 ? (result as unknown[]).at(-1) : result;
        const { affectedRows } = results as { affectedRows?: number };
        if (affectedRows !== expect.rows) {
          this.#state = "active";
          await this.rollback();
          return expect.otherwise ?? `${affectedRows ?? 0} rows were touched instead of ${expect.rows}`;
        }
        await connection.query(packet(end));
      } else await connection.query(packet([...start, ...last, ...end]));
      return undefined;
    } catch (error) {
      if (errno(error) === 0 || isConnectionLoss(error)) throw error;
      // The server answered: the branch is not prepared, and goes with its connection.
      this.#end(false);
      return messageOf(error);
    }
  }

  async #endReading(): Promise<{ readonly vote: Vote; readonly why?: string }> {
    if (!this.#isStarted) {
      this.#end(true);
      return { vote: "read-only" };
    }
    try {
      await this.#opened?.query("COMMIT");
      this.#end(true);
      return { vote: "read-only" };
    } catch (error) {
      this.#end(false);
      return { vote: "no", why: messageOf(error) };
    }
  }

  #take(sql: unknown, values: unknown): Promise<[MariadbResult, unknown]> {
    const answered = this.#query(sql, values);
    this.#pending.add(answered);
    const forget = (): void => {
      this.#pending.delete(answered);
    };
    answered.then(forget, forget);
    return answered;
  }

  async #query(sql: unknown, values: unknown): Promise<[MariadbResult, unknown]> {
    this.#checkOpen(textOf(sql));
    const connection = await this.#open();
    if (this.#isStarted) await this.#starting;
    // Rolled back while it waited for the connection, which by now may be somebody else's.
    if (this.#state !== "active") throw this.#closed();
    try {
      return this.#isStarted ? await connection.query(sql, values) : await this.#start(connection, { sql, values });
    } catch (error) {
      // The server has undone the statement alone, and would prepare the rest.
      this.#failure ??= messageOf(error);
      throw error;
    }
  }

  /** The first statement, in one packet with the start, which the server leaves at the first error. */
  async #start(connection: MariadbConnection, { sql, values }: { readonly sql: unknown; readonly values: unknown }) {
    this.#isStarted = true;
    const start = this.isReadOnly ? "START TRANSACTION READ ONLY" : `XA START ${xidOf(this.ref)}`;
    const options = typeof sql === "string" ? { sql } : (sql as { readonly sql: string; readonly values?: unknown });
    const text = packet([start, connection.format(options.sql, values ?? options.values)]);
    const sent = connection.query({ ...options, sql: text, values: undefined });
    this.#starting = sent.catch((error: unknown) => {
      // Whether or not it was the start that failed: without it nothing more may be said on this connection.
      if (isXaRefusal(error)) this.#end(false);
    });
    const [[, ...results], [, ...fields]] = (await sent) as [unknown[], unknown[]];
    return (results.length === 1 ? [results[0], fields[0]] : [results, fields]) as [MariadbResult, unknown];
  }

  #checkOpen(sql: string): void {
    if (this.#isSealed || !["unused", "active"].includes(this.#state) || this.#last !== undefined) throw this.#closed();
    if (isTransactionControl(sql)) {
      throw conclaveError(
        "UNSUPPORTED",
        `${JSON.stringify(sql.slice(0, 40))} is the coordinator's to say; use savepoints inside a branch.`,
      );
    }
  }

  async #open(): Promise<MariadbConnection> {
    if (this.#state === "unused") this.#state = "active";
    if (this.#opened !== undefined) return this.#opened;
    this.#connection ??= this.#resource.connection();
    const connection = await this.#connection;
    if (this.#opened === undefined) {
      const { gid, branch, resource } = this.#ref;
      this.#ref = { gid, branch, resource, owner: String(connection.threadId) };
      this.#opened = connection;
    }
    return connection;
  }

  #closed(): Error {
    return conclaveError("CLOSED", `This branch of ${this.#ref.gid} takes no more statements.`);
  }

  /** Rolled back, or on the way there, by somebody who did not wait for what goes on here. */
  get #isOver(): boolean {
    return this.#state === "ending" || this.#state === "ended";
  }

  #end(isClean: boolean): void {
    if (this.#state === "ended") return;
    this.#state = "ended";
    if (isClean) this.#opened?.release();
    else this.#opened?.destroy();
  }
}

const overtaken = "it was rolled back meanwhile";

type Query = MariadbHandle["query"];

/** Several statements at once. Each on a line of its own: a comment at the end of one must not swallow the next. */
function packet(statements: readonly string[]): string {
  return statements.map(withoutEnd).join(";\n");
}

/** Without semicolons and white space behind it. An expression that looks for them tries every place of the text: most have none. */
function withoutEnd(sql: string): string {
  const last = sql.charCodeAt(sql.length - 1);
  const isPlain = last > 32 && last < 128 && last !== 59;
  return isPlain ? sql : sql.replace(/[;\s]+$/, "");
}

function handleOf(query: Query, last: MariadbHandle["last"]): MariadbHandle {
  const handle: MariadbHandle = {
    query,
    execute: query,
    last,
    getConnection: () => Promise.resolve({ ...handle, release: () => undefined }),
  };
  return handle;
}

function noLast(): never {
  throw conclaveError("UNSUPPORTED", "A snapshot only reads.");
}

function xidOf({ gid, branch, owner }: BranchRef): string {
  return `'${gid}','${branch}.${owner ?? ""}',${formatId}`;
}

function markerOf(row: { gid: string; br: number; parts: string | null }): MarkerRow {
  return { gid: row.gid, branch: Number(row.br), parts: parseParts(row.gid, row.parts ?? "") };
}

/** 1397 XAER_NOTA, 1399 XAER_RMFAIL, 1402 XA_RBROLLBACK and its kin 1613, 1614; 1227 and 1044 are missing rights. */
function finishReplyOf(error: unknown): FinishReply {
  switch (errno(error)) {
    case 1397:
      return "not-found";
    case 1402:
    case 1613:
    case 1614:
      return "rolled-back";
    case 1044:
    case 1227:
      return "misconfigured";
    default:
      return "unreachable";
  }
}

/** The server's number of an error; 0 where the connection failed. */
function errno(error: unknown): number {
  const { errno: number, sqlState } = error as { readonly errno?: unknown; readonly sqlState?: unknown };
  return typeof number === "number" && typeof sqlState === "string" ? number : 0;
}

/** 1397 to 1402 and 1440: the connection is not in the state that the order asks for. */
function isXaRefusal(error: unknown): boolean {
  return (errno(error) >= 1397 && errno(error) <= 1402) || errno(error) === 1440;
}

/** Said by the server as its last word: shutdown, killed, ... */
function isConnectionLoss(error: unknown): boolean {
  return [1053, 1317, 1927, 1152, 1158, 1159, 1160, 1161, 1184, 4031].includes(errno(error));
}

function textOf(sql: unknown): string {
  if (typeof sql === "string") return sql;
  return String((sql as { readonly sql?: unknown }).sql ?? "");
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function noAnswer(): Error {
  return new Error("MariaDB did not answer in time.");
}

async function makePool(url: string, connectionsMax: number, answerMs: number): Promise<MariadbPool> {
  const driver = (await import("mysql2").catch((cause: unknown) => {
    throw conclaveError("FOREIGN_CLIENT", "The package `mysql2` is not installed; it talks to MariaDB and MySQL.", { cause });
  })) as unknown as { createPool(options: unknown): RawPool };
  const pool = driver.createPool({
    uri: url,
    connectionLimit: connectionsMax,
    connectTimeout: answerMs,
    // One packet per phase. The pool is private: no text of anybody else comes here unescaped.
    multipleStatements: true,
    maxIdle: connectionsMax,
    enableKeepAlive: true,
    // The stack of whoever asked, collected at every statement for the sake of those that fail: too dear.
    trace: false,
  });
  // A client that hangs is ended by the server, and with it what it had not prepared.
  pool.on("connection", (connection) => {
    // The driver listens to the first error of a connection; unheard, a second one would end the process.
    connection.on("error", ignore);
    connection.query("SET SESSION innodb_lock_wait_timeout = 5", undefined, ignore);
    connection.query("SET SESSION idle_transaction_timeout = 20", undefined, ignore);
  });
  const promised = new WeakMap<RawConnection, PromisedConnection>();
  let waiting = 0;
  const atHand = new AtHand<PromisedConnection>({
    isWaitedFor: () => waiting > 0,
    giveBack: (connection) => connection.giveBack(),
  });
  return {
    atHand: () => atHand.take()?.handOut(),
    getConnection: () =>
      new Promise((resolve, reject) => {
        waiting++;
        pool.getConnection((error, connection) => {
          waiting--;
          if (error) return reject(error);
          const found = promised.get(connection) ?? new PromisedConnection(connection, atHand);
          promised.set(connection, found);
          resolve(found.handOut());
        });
      }),
    end: () => {
      atHand.close();
      return new Promise((resolve, reject) => pool.end((error) => (error ? reject(error) : resolve())));
    },
  };
}

/** Promises around the driver's callbacks. The driver's own makes an emitter with two listeners each time a connection is had. */
class PromisedConnection implements MariadbConnection {
  readonly #raw: RawConnection;
  readonly #atHand: AtHand<PromisedConnection>;
  #isBroken = false;
  /** A second release, as of a close after an end, must not lay it down twice. */
  #isOut = false;

  constructor(raw: RawConnection, atHand: AtHand<PromisedConnection>) {
    this.#raw = raw;
    this.#atHand = atHand;
    const onBroken = (): void => {
      this.#isBroken = true;
      // The pool has taken it off its list by itself.
      atHand.remove(this);
    };
    raw.on("error", onBroken);
    raw.on("end", onBroken);
  }

  get threadId(): number {
    return this.#raw.threadId;
  }

  query(sql: unknown, values?: unknown): Promise<[MariadbResult, unknown]> {
    // Without values there is nothing to look for: the driver would go through the whole text for places to put some.
    const given = values === undefined && typeof sql === "string" ? null : values;
    return new Promise((resolve, reject) => {
      this.#raw.query(sql, given, (error, result, fields) => (error ? reject(error) : resolve([result, fields])));
    });
  }

  format(sql: string, values?: unknown): string {
    return this.#raw.format(sql, values);
  }

  handOut(): this {
    this.#isOut = true;
    return this;
  }

  release(): void {
    if (!this.#isOut) return;
    this.#isOut = false;
    if (this.#isBroken) this.giveBack();
    else this.#atHand.lay(this);
  }

  giveBack(): void {
    this.#raw.release();
  }

  destroy(): void {
    this.#isBroken = true;
    this.#raw.destroy();
  }
}

/** What is used of `mysql2`'s pool. */
interface RawPool {
  getConnection(callback: (error: unknown, connection: RawConnection) => void): void;
  end(callback: (error: unknown) => void): void;
  on(event: "connection", listener: (connection: RawConnection) => void): void;
}

interface RawConnection {
  readonly threadId: number;
  query(sql: unknown, values: unknown, callback: (error: unknown, result?: MariadbResult, fields?: unknown) => void): void;
  format(sql: string, values?: unknown): string;
  release(): void;
  destroy(): void;
  on(event: "error" | "end", listener: (error: unknown) => void): unknown;
}

function ignore(): void {
  // MySQL has no `idle_transaction_timeout`; there `wait_timeout` ends a client that hangs.
}
