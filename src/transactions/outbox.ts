/**
 * The outbox: an event is a row in the same transaction as the change it tells of, so it is told if and only if that happened.
 *
 *   BEGIN; UPDATE orders ...; INSERT INTO conclave_event ...; [PREPARE;] COMMIT     emit
 *   rows that are there ─► sink ─► DELETE the same rows                             relay (`outbox-relay.ts`)
 *
 * Rows are found by being there, never by a number that has been reached: a branch may be prepared for a minute while later numbers
 * commit, and a reader that goes by the number skips it for ever.
 * Delivery is at least once: who consumes keeps an inbox (`inbox.ts`). Order: events of one key come in the order of their rows,
 * which is that of their commits where the transactions of a key wait for one another (they change the same row, say).
 * Source of the pattern: Richardson, "Microservices Patterns", 2018, §3.3.7.
 */
import { randomUUID } from "node:crypto";
import { conclaveError } from "../base/errors.ts";
import type { Compare, Engine, Store } from "../store/store.ts";
import type { MariadbResource } from "./mariadb.ts";
import type { PostgresResource } from "./postgres.ts";
import type { StoreHandle } from "./store-branch.ts";

/** What is told. */
export interface EmittedEvent {
  readonly topic: string;
  /** Events of one key stay in order. Default: the topic's own key "". */
  readonly key?: string;
  /** JSON carries it; up to 65_536 characters. */
  readonly payload: unknown;
}

/** As it comes out. */
export interface OutboxEvent {
  /** The same for every delivery: what an inbox remembers. Up to 56 characters. */
  readonly id: string;
  readonly topic: string;
  readonly key: string;
  readonly payload: unknown;
  /** Calendar milliseconds of whoever wrote it. */
  readonly atMs: number;
}

/** Where events wait. */
export interface Outbox<Handle> {
  /** Up to 20 small letters, digits and `-`: part of every event's id, so never give it to another place. */
  readonly name: string;
  /** Makes what it needs. Idempotent. */
  install(): Promise<void>;
  /** Inside a transaction: `outbox.emit(tx.on("orders"), { topic: "order.placed", key: id, payload })`. */
  emit(handle: Handle, event: EmittedEvent): Promise<void>;
  /** The first that wait, in order. */
  read(limit: number): Promise<readonly OutboxEvent[]>;
  /** They were delivered. `guard` holds while the relay may still say so. */
  remove(events: readonly OutboxEvent[], guard: Compare): Promise<void>;
  backlog(): Promise<number>;
}

const payloadMax = 65_536;
const eventTable = "conclave_event";

/** What is used of a handle or client of `pg`. */
interface PostgresEmitter {
  query(text: string, values: unknown[]): Promise<unknown>;
}
/** What is used of a handle or connection of `mysql2/promise`. */
interface MariadbEmitter {
  query(sql: string, values: unknown[]): Promise<unknown>;
}

/** An outbox in PostgreSQL. `emit` takes a transaction's handle, or any client of `pg` with a transaction of its own. @since 0.2.0 */
export function postgresOutbox(database: PostgresResource, { name }: { readonly name: string }): Outbox<PostgresEmitter> {
  checkOutboxName(name);
  return {
    name,
    install: async () => {
      await database.ask(
        `CREATE TABLE IF NOT EXISTS ${eventTable} (id bigserial PRIMARY KEY, outbox varchar(20) NOT NULL, topic text NOT NULL, key text NOT NULL, payload text NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp())`,
      );
    },
    emit: async (handle, event) => {
      const { topic, key, payload } = encodeEvent(event);
      await handle.query(`INSERT INTO ${eventTable} (outbox, topic, key, payload) VALUES ($1, $2, $3, $4)`, [
        name,
        topic,
        key,
        payload,
      ]);
    },
    read: async (limit) => {
      const { rows } = await database.ask(
        `SELECT id::text AS id, topic, key, payload, (extract(epoch FROM at) * 1000)::float8 AS at FROM ${eventTable} WHERE outbox = $1 ORDER BY ${eventTable}.id LIMIT $2`,
        [name, limit],
      );
      return rows.map((row) => eventOf(name, row));
    },
    remove: async (events) => {
      await database.ask(`DELETE FROM ${eventTable} WHERE id = ANY($1::bigint[])`, [events.map(numberOf)]);
    },
    backlog: async () => {
      const { rows } = await database.ask(`SELECT count(*)::int AS count FROM ${eventTable} WHERE outbox = $1`, [name]);
      return rows[0].count as number;
    },
  };
}

/** An outbox in MariaDB or MySQL. @since 0.2.0 */
export function mariadbOutbox(database: MariadbResource, { name }: { readonly name: string }): Outbox<MariadbEmitter> {
  checkOutboxName(name);
  return {
    name,
    install: async () => {
      await database.ask(
        `CREATE TABLE IF NOT EXISTS ${eventTable} (id bigint AUTO_INCREMENT PRIMARY KEY, outbox varchar(20) CHARACTER SET ascii NOT NULL, topic varchar(200) NOT NULL, \`key\` varchar(200) NOT NULL, payload mediumtext NOT NULL, at timestamp(3) NOT NULL DEFAULT current_timestamp(3)) ENGINE=InnoDB CHARACTER SET utf8mb4`,
      );
    },
    emit: async (handle, event) => {
      const { topic, key, payload } = encodeEvent(event);
      await handle.query(`INSERT INTO ${eventTable} (outbox, topic, \`key\`, payload) VALUES (?, ?, ?, ?)`, [
        name,
        topic,
        key,
        payload,
      ]);
    },
    read: async (limit) => {
      const rows = await database.ask(
        `SELECT CAST(id AS CHAR) AS id, topic, \`key\`, payload, CAST(UNIX_TIMESTAMP(at) * 1000 AS DOUBLE) AS at FROM ${eventTable} WHERE outbox = ? ORDER BY ${eventTable}.id LIMIT ?`,
        [name, limit],
      );
      return (rows as readonly EventRow[]).map((row) => eventOf(name, row));
    },
    remove: async (events) => {
      await database.ask(`DELETE FROM ${eventTable} WHERE id IN (?)`, [events.map(numberOf)]);
    },
    backlog: async () => {
      const rows = await database.ask(`SELECT count(*) AS count FROM ${eventTable} WHERE outbox = ?`, [name]);
      return Number((rows as readonly { count: number }[])[0]?.count);
    },
  };
}

/**
 * An outbox in the Conclave store: the event rides in the decision. `namespace` is that of the resource whose handle is given.
 * @since 0.2.0
 */
export function storeOutbox(
  engine: Engine,
  { name, namespace = "default" }: { readonly name: string; readonly namespace?: string },
): Outbox<Pick<StoreHandle, "put">> {
  checkOutboxName(name);
  const store: Store = engine.store(namespace);
  const prefix = `outbox/${name}/`;
  // Several of one transaction share a revision: their keys say which came first.
  const begun = new WeakMap<object, { readonly base: string; count: number }>();
  return {
    name,
    install: () => Promise.resolve(),
    emit: (handle, event) => {
      const { topic, key, payload } = encodeEvent(event);
      const run = begun.get(handle) ?? { base: randomUUID().replaceAll("-", "").slice(0, 24), count: 0 };
      begun.set(handle, run);
      run.count++;
      const id = `${run.base}.${String(run.count).padStart(4, "0")}`;
      handle.put(prefix + id, JSON.stringify({ topic, key, payload, at: store.platform.wallMs() }));
      return Promise.resolve();
    },
    read: async (limit) => {
      const { results } = await store.txn({ then: [{ kind: "range", range: { prefix }, order: "create", limit }] });
      const [listed] = results;
      if (listed?.kind !== "range") return [];
      return listed.entries.map(({ key, text }) => eventOf(name, { ...JSON.parse(text), id: key.slice(prefix.length) }));
    },
    remove: async (events, guard) => {
      const gone = events.map((event) => ({ kind: "delete", range: { key: prefix + numberOf(event) } }) as const);
      // Exact here: a relay that was replaced takes nothing away.
      for (let at = 0; at < gone.length; at += 100) await store.txn({ if: [guard], then: gone.slice(at, at + 100) });
    },
    backlog: async () => {
      const { results } = await store.txn({ then: [{ kind: "range", range: { prefix }, limit: 1, keysOnly: true }] });
      return results[0]?.kind === "range" ? results[0].count : 0;
    },
  };
}

interface EventRow {
  readonly id: string;
  readonly topic: string;
  readonly key: string;
  readonly payload: string;
  readonly at: number;
}

function eventOf(name: string, { id, topic, key, payload, at }: EventRow): OutboxEvent {
  return { id: `${name}.${id}`, topic, key, payload: JSON.parse(payload), atMs: Number(at) };
}

/** What the place itself calls it. */
function numberOf({ id }: OutboxEvent): string {
  return id.slice(id.indexOf(".") + 1);
}

function encodeEvent({ topic, key = "", payload }: EmittedEvent): {
  readonly topic: string;
  readonly key: string;
  readonly payload: string;
} {
  if (typeof topic !== "string" || topic === "" || topic.length > 200 || key.length > 200) {
    throw conclaveError("INVALID_OPTION", "An event has a `topic` of 1 to 200 characters, and a `key` of up to 200.");
  }
  const text = JSON.stringify(payload ?? null) ?? "null";
  if (text.length > payloadMax) {
    throw conclaveError("VALUE_TOO_LARGE", `The event ${topic} has ${text.length} characters; up to ${payloadMax} are told.`);
  }
  return { topic, key, payload: text };
}

function checkOutboxName(name: string): void {
  if (!/^[a-z][a-z0-9-]{0,19}$/.test(name)) {
    throw conclaveError(
      "INVALID_OPTION",
      `An outbox's name is up to 20 small letters, digits and "-", not ${JSON.stringify(name)}.`,
    );
  }
}
