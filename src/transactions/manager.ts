/**
 * Transactions over several databases: `tm.run(options, work)` commits everything that the work did, or nothing.
 *
 * ```ts
 * const tm = await transactions({
 *   store: conclave.engine,
 *   resources: { orders: postgres({ url }), wallet: mariadb({ url: other }) },
 * });
 * const { value } = await tm.run({ key: request.id, timeoutMs: 5_000 }, async (tx) => {
 *   await tx.on("orders").query("INSERT INTO orders (id, total) VALUES ($1, $2)", [id, total]);
 *   const [changed] = await tx.on("wallet").query("UPDATE wallet SET balance = balance - ? WHERE id = ? AND balance >= ?", [total, user, total]);
 *   if (changed.affectedRows !== 1) throw new Abort("insufficient funds");
 *   return { id };
 * });
 * ```
 * Committed is an answer; `TransactionAborted` and `TransactionUnknown` are thrown. What is promised: atomicity and durability of
 * the outcome. What is not: each database keeps its own isolation, so a reader may see one side before the other
 * (`readAtomic` does not).
 */
import { hostname } from "node:os";
import { background } from "../base/background.ts";
import { conclaveError } from "../base/errors.ts";
import type { ConclaveEvent } from "../base/event.ts";
import type { Telemetry } from "../base/ports.ts";
import { type AbortWhy, Coordinator, type CoordinatorFigures, type Ticket, type Verdict } from "../coordinator/coordinator.ts";
import { isResourceName } from "../coordinator/gid.ts";
import type { CoordinatorOptions } from "../coordinator/options.ts";
import type { BranchRef } from "../coordinator/participant.ts";
import { decodeRecord, type IdempotencyRecord, recordKeys, transactionsNamespace } from "../coordinator/records.ts";
import type { Engine } from "../store/store.ts";
import { Abort, type AbortKind, TransactionAborted, TransactionUnknown } from "./errors.ts";
import { fingerprintOf } from "./fingerprint.ts";
import type { HttpResource } from "./http.ts";
import { markersKeptMs } from "./marker.ts";
import { within } from "./node-timers.ts";
import { type OutcomeAnswer, type OutcomeParts, outcomeOf } from "./outcome.ts";
import { type ReadAtomicOptions, readAtomic, type SnapshotReader } from "./read-atomic.ts";
import type { Finding, SqlResource } from "./resource.ts";
import type { StoreResource } from "./store-branch.ts";
import { Transaction } from "./transaction.ts";

// biome-ignore lint/suspicious/noExplicitAny: any handle will do here; `on` gives back the exact one.
export type Resource = SqlResource<any> | StoreResource | HttpResource;
export type Resources = Readonly<Record<string, Resource>>;

export interface TransactionsOptions<R extends Resources>
  extends Pick<
    CoordinatorOptions,
    "ttlMs" | "answerMs" | "scanEveryMs" | "inFlightMax" | "keysKeptMs" | "keysMax" | "acceptVolatileDecisions" | "checkpoint"
  > {
  /** Holds the decisions: what `connect` gave, as `conclave.engine`. Must keep what it answers. */
  readonly store: Engine;
  /** By name: 1 to 12 small letters and digits, a letter first. At most one is the store. */
  readonly resources: R;
  /** Told of what happens. */
  readonly onEvent?: (event: ConclaveEvent) => void;
  /** How long proof of commit is kept in the databases. Milliseconds. Default a day; at least an hour. */
  readonly markersKeptMs?: number;
}

export interface RunOptions {
  /**
   * Idempotency key: the work of a key is committed once, and later calls are answered with the first result. Kept for a day,
   * at most 100_000 of them. Costs one read of the store; also where otherwise no decision would be written.
   */
  readonly key?: string;
  /** With a key: what was asked. The same key with other input is refused. */
  readonly input?: unknown;
  /** For the work and the decision. Milliseconds. Default 10_000. */
  readonly timeoutMs?: number;
  /**
   * This resource is not prepared: it commits last, and its commit is the decision. Saves two forced writes; in exchange, what is
   * in doubt waits for this one database. Not with a key, and not with the store as a resource.
   */
  readonly lastAgent?: string;
  /** W3C trace context; it stands in the decision, and in `tx.headers`. */
  readonly traceparent?: string;
  /** Ends the work; rejects with TransactionAborted. Does nothing once the decision is on its way. */
  readonly signal?: AbortSignal;
}

export interface Committed<T> {
  readonly gid: string;
  readonly value: T;
  /** Every resource has confirmed. False: decided, durable, and being carried out. */
  readonly isSettled: boolean;
  /** The key had been used: `value` is what the first run returned, as JSON keeps it. */
  readonly isReplay: boolean;
}

/** @since 0.2.0 */
export const transactionsDefaults = { timeoutMs: 10_000, markersKeptMs } as const;

const dropEveryMs = 600_000;
const migrateAgainMs = 5_000;
const resultBytesMax = 65_536;

/**
 * Opens a manager: checks the store, makes the marker tables, takes an epoch and starts to recover what others left.
 * A database that cannot be reached does not keep it from starting: what it owes is recovered when it is back.
 * @throws INVALID_OPTION, UNSUPPORTED (the store cannot hold a decision), TIMEOUT, NO_QUORUM
 * @since 0.2.0
 */
export async function transactions<R extends Resources>(options: TransactionsOptions<R>): Promise<TransactionManager<R>> {
  checkResources(options.resources);
  const { store: engine, resources, onEvent, markersKeptMs: keptMs = markersKeptMs } = options;
  if (keptMs < 3_600_000) throw conclaveError("INVALID_OPTION", `\`markersKeptMs\` is ${keptMs}; it must be an hour or more.`);
  const store = engine.store(transactionsNamespace);
  const sql = new Map(
    Object.entries(resources).flatMap(([name, each]) =>
      each.kind === "store" || each.kind === "http" ? [] : [[name, each] as const],
    ),
  );
  const participants = new Map([...sql].map(([name, each]) => [name, each.bind(name)]));
  const services = new Map(
    Object.entries(resources).flatMap(([name, each]) => (each.kind === "http" ? [[name, each.bind(name, store)] as const] : [])),
  );
  for (const [name, each] of services) participants.set(name, each);
  const telemetry: Telemetry<ConclaveEvent> | undefined = onEvent === undefined ? undefined : { emit: onEvent };
  const { store: _, resources: __, onEvent: ___, markersKeptMs: ____, ...rest } = options;
  const coordinator = await Coordinator.open({
    ...rest,
    store,
    participants,
    host: hostname(),
    pid: process.pid,
    ...(telemetry === undefined ? {} : { telemetry }),
  });
  const manager = new TransactionManager({
    coordinator,
    store,
    resources,
    sql,
    services,
    hasStore: Object.values(resources).some(({ kind }) => kind === "store"),
    keptMs,
  });
  await manager.migrate();
  return manager;
}

export interface ManagerParts<R extends Resources> extends OutcomeParts {
  readonly resources: R;
  readonly keptMs: number;
}

export class TransactionManager<R extends Resources> implements AsyncDisposable {
  readonly #parts: ManagerParts<R>;
  readonly #dropping: NodeJS.Timeout;
  #migrating: NodeJS.Timeout | undefined;
  #isClosed = false;

  /** Use `transactions`, which opens the coordinator. */
  constructor(parts: ManagerParts<R>) {
    this.#parts = parts;
    this.#dropping = setInterval(() => background(this.#dropMarkers(), "dropping old markers"), dropEveryMs);
    this.#dropping.unref();
  }

  /** Makes the marker tables; a database that does not answer is asked again until it does, or until `close`. */
  async migrate(): Promise<void> {
    const results = await Promise.allSettled([...this.#parts.sql.values()].map((each) => each.migrate()));
    if (results.every(({ status }) => status === "fulfilled") || this.#isClosed) return;
    this.#migrating = setTimeout(() => background(this.migrate(), "marker tables"), migrateAgainMs);
    this.#migrating.unref();
  }

  /**
   * Runs the work and commits what it did in all resources, or in none.
   * @throws TRANSACTION_ABORTED (`TransactionAborted`: nothing happened), TRANSACTION_UNKNOWN (`TransactionUnknown`: ask `outcome`),
   * TRANSACTION_KEY_REUSED, INVALID_OPTION, BUSY, CLOSED (nothing happened)
   */
  async run<T>(options: RunOptions, work: (tx: Transaction<R>) => T | Promise<T>): Promise<Committed<T>> {
    const { key, timeoutMs = transactionsDefaults.timeoutMs, lastAgent, traceparent, signal } = options;
    this.#check(options);
    const { coordinator } = this.#parts;
    const startedMs = coordinator.platform.now();
    const fingerprint = fingerprintOf(options.input);
    if (key !== undefined) {
      const earlier = await this.#earlier<T>(key, fingerprint);
      if (earlier !== null) return earlier;
    }
    const ticket = await this.#begin({ agent: lastAgent, signal }, timeoutMs);
    const tx = new Transaction<R>(this.#parts, {
      gid: ticket.gid,
      epoch: ticket.epoch,
      agent: lastAgent,
      deadlineMs: startedMs + timeoutMs,
      traceparent,
      signal,
    });
    const value = await this.#work(ticket, tx, work);
    tx.close();
    const { branches, agent, storeBranch } = tx.used();
    const result = key === undefined ? undefined : JSON.stringify(value ?? null);
    if (result !== undefined && result.length > resultBytesMax) {
      await coordinator.rollback(ticket, [...branches, ...(agent === undefined ? [] : [agent])]);
      throw aborted(ticket.gid, "refused", {
        message: `its result has more than ${resultBytesMax} characters, which a key cannot keep`,
      });
    }
    const verdict = await coordinator.commit(ticket, {
      branches,
      agent,
      compares: storeBranch?.compares ?? [],
      writes: storeBranch?.writes ?? [],
      key: key === undefined || result === undefined ? undefined : { name: key, fingerprint, result },
      deadlineMs: startedMs + timeoutMs,
      traceparent,
    });
    return this.#answer(ticket.gid, verdict, { value, fingerprint, key });
  }

  /** What became of a transaction. Never guesses: `unknown` where a database that may know does not answer. */
  outcome(gid: string): Promise<OutcomeAnswer> {
    return outcomeOf(this.#parts, gid);
  }

  /**
   * Reads several databases so that every transaction is seen whole or not at all: snapshots whose markers disagree are taken
   * again. @throws TRANSACTION_ABORTED (`conflict`) where they still disagree after all attempts
   */
  readAtomic<T>(
    names: readonly (keyof R & string)[],
    read: (reader: SnapshotReader<R>) => Promise<T>,
    options: ReadAtomicOptions = {},
  ): Promise<T> {
    return readAtomic({ sql: this.#parts.sql, names, read, options });
  }

  /** What each resource would say before the first transaction. */
  async doctor(): Promise<Readonly<Record<string, readonly Finding[]>>> {
    const rows = await Promise.all(
      [...this.#parts.sql].map(async ([name, each]) => [name, await each.doctor().catch(unreachable)] as const),
    );
    return Object.fromEntries(rows);
  }

  get figures(): CoordinatorFigures {
    return this.#parts.coordinator.figures;
  }

  /** For the command line and for tests: recovery, and what it looks at. */
  get coordinator(): Coordinator {
    return this.#parts.coordinator;
  }

  /** Gives up the epoch, which others see at once, and closes the pools that were made here. Idempotent. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearInterval(this.#dropping);
    clearTimeout(this.#migrating);
    await this.#parts.coordinator.close();
    await Promise.allSettled([...this.#parts.sql.values()].map((each) => each.close()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #begin(
    { agent, signal }: { readonly agent: string | undefined; readonly signal: AbortSignal | undefined },
    timeoutMs: number,
  ): Promise<Ticket> {
    const { coordinator } = this.#parts;
    const { isReady } = coordinator;
    const begin = coordinator.begin({ agent, signal });
    if (isReady) return begin;
    return within(begin, timeoutMs, () =>
      conclaveError("BUSY", "The coordinator's session was lost and is not replaced yet."),
    ).catch((error: unknown) => {
      // One that begins too late is nobody's.
      begin.then(({ gid, epoch }) => epoch.inFlight.delete(gid), ignore);
      throw error;
    });
  }

  async #work<T>(ticket: Ticket, tx: Transaction<R>, work: (tx: Transaction<R>) => T | Promise<T>): Promise<T> {
    const { coordinator } = this.#parts;
    try {
      return await tx.race(() => work(tx));
    } catch (error) {
      tx.close();
      const { branches, agent } = tx.used();
      await coordinator.rollback(ticket, [...branches, ...(agent === undefined ? [] : [agent])]);
      if (error instanceof Abort) {
        throw aborted(ticket.gid, "business", {
          message: error.reason,
          reason: error.reason,
          details: error.details,
          cause: error,
        });
      }
      const isLate = tx.isLate || coordinator.platform.now() >= tx.deadlineMs;
      const message = isLate
        ? "its time was over before the work was done"
        : error instanceof Error
          ? error.message
          : String(error);
      throw aborted(ticket.gid, isLate ? "deadline" : "work", { message, cause: error });
    }
  }

  #answer<T>(
    gid: string,
    verdict: Verdict,
    { value, fingerprint, key }: { readonly value: T; readonly fingerprint: string; readonly key: string | undefined },
  ): Committed<T> {
    switch (verdict.kind) {
      case "committed":
        return { gid, value, isSettled: verdict.isSettled, isReplay: false };
      case "replayed":
        return replay(key ?? "", verdict.record, fingerprint);
      case "unknown":
        throw new TransactionUnknown(`Nobody can say yet whether transaction ${gid} committed: ${verdict.why}.`, gid);
      case "aborted": {
        const { why, resource, detail, cause } = verdict;
        const message = detail ?? whys[why];
        throw aborted(gid, why, { message, cause, ...(resource === undefined ? {} : { resource }) });
      }
    }
  }

  /** What the key's first run returned; null where there was none. */
  async #earlier<T>(key: string, fingerprint: string): Promise<Committed<T> | null> {
    const { results } = await this.#parts.store.txn({ then: [{ kind: "get", key: recordKeys.idempotency(key) }] });
    const [found] = results;
    if (found?.kind !== "get" || found.entry === null) return null;
    return replay<T>(key, decodeRecord<IdempotencyRecord>(found.entry.text), fingerprint);
  }

  #check({ key, timeoutMs = 1, lastAgent }: RunOptions): void {
    if (key !== undefined && (typeof key !== "string" || key === "" || key.length > 512)) {
      throw conclaveError("INVALID_OPTION", "`key` must be a text of 1 to 512 characters.");
    }
    if (!(timeoutMs > 0) || timeoutMs > 3_600_000) {
      throw conclaveError("INVALID_OPTION", `\`timeoutMs\` is ${timeoutMs}; it must be above 0 and at most an hour.`);
    }
    if (lastAgent === undefined) return;
    if (!this.#parts.sql.has(lastAgent))
      throw conclaveError("INVALID_OPTION", `\`lastAgent\` ${JSON.stringify(lastAgent)} is no database of this manager.`);
    if (key !== undefined)
      throw conclaveError(
        "INVALID_OPTION",
        "`lastAgent` and `key` exclude one another: the key is kept with the decision, in the store.",
      );
  }

  /** Proof is kept while anybody may need it: what is in doubt anywhere keeps its markers. */
  async #dropMarkers(): Promise<void> {
    const { coordinator, sql, store, keptMs } = this.#parts;
    const scans = await Promise.all([...sql].map(([name, each]) => each.bind(name).scan(coordinator.domain)));
    // What a silent database still holds cannot be seen.
    if (scans.includes("unreachable")) return;
    const { results } = await store.txn({
      then: [{ kind: "range", range: { prefix: recordKeys.decisions }, keysOnly: true, limit: 5_000 }],
    });
    const [cells] = results;
    if (cells?.kind !== "range" || cells.more) return;
    const keep = new Set<string>(cells.entries.map(({ key }) => key.slice(recordKeys.decisions.length)));
    for (const refs of scans as readonly (readonly BranchRef[])[]) for (const { gid } of refs) keep.add(gid);
    await Promise.allSettled([...sql.values()].map((each) => each.dropMarkers(keptMs, [...keep])));
  }
}

const whys: Readonly<Record<AbortWhy, string>> = {
  conflict: "what it read of the store has changed",
  deadline: "its time was over before it was decided",
  fenced: "its coordinator was taken for dead while it ran",
  refused: "the store refused the decision",
  vote: "a resource refused to prepare",
};

function aborted(
  gid: string,
  why: AbortKind,
  {
    message,
    cause,
    ...about
  }: {
    readonly message: string;
    readonly cause?: unknown;
    readonly reason?: string;
    readonly details?: unknown;
    readonly resource?: string;
  },
): TransactionAborted {
  const where = about.resource === undefined ? "" : ` by ${about.resource}`;
  return new TransactionAborted(
    `Transaction ${gid} was rolled back${where}: ${message}.`,
    { gid, why, ...about },
    cause === undefined ? {} : { cause },
  );
}

function replay<T>(key: string, { gid, result, fingerprint }: IdempotencyRecord, asked: string): Committed<T> {
  if (fingerprint !== asked) {
    throw conclaveError("TRANSACTION_KEY_REUSED", `Key ${JSON.stringify(key)} was used by transaction ${gid} for other input.`);
  }
  return { gid, value: JSON.parse(result) as T, isSettled: true, isReplay: true };
}

function checkResources(resources: Resources): void {
  const entries = Object.entries(resources);
  if (entries.length === 0) throw conclaveError("INVALID_OPTION", "`resources` is empty.");
  for (const [name, resource] of entries) {
    if (!isResourceName(name)) {
      throw conclaveError(
        "INVALID_OPTION",
        `Resource name ${JSON.stringify(name)} must be 1 to 12 small letters and digits, a letter first.`,
      );
    }
    if (!["postgres", "mariadb", "store", "http"].includes(resource?.kind)) {
      throw conclaveError(
        "INVALID_OPTION",
        `Resource ${name} has no two-phase commit; make it with \`postgres\`, \`mariadb\`, \`http\` or \`storeResource\`.`,
      );
    }
  }
  if (entries.filter(([, { kind }]) => kind === "store").length > 1) {
    throw conclaveError("INVALID_OPTION", "One resource at most is the store: the one that holds the decisions.");
  }
}

function ignore(): void {
  // Said already, to whoever waited.
}

function unreachable(error: unknown): readonly Finding[] {
  return [{ level: "error", check: "connection", message: error instanceof Error ? error.message : String(error) }];
}
