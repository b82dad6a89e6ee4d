/**
 * What Conclave keeps in a PostgreSQL database: one schema for each group, and the tables in it.
 *
 *     meta         one row: layout, the server that the leases stand on, quarantine, longest TTL, last session, floor of revisions
 *     namespaces   the revision counter of each: the row that orders all writes of a namespace
 *     entries      keys and values, by key and by creation
 *     sessions     leases: their deadlines by the database's clock
 *     watchers     which channel of which process wants to hear of which namespace; nobody: no NOTIFY
 *
 * Locks are always taken in this order, each table's rows in the order of their keys, so that no two calls wait for each other:
 * meta, sessions, namespaces, entries.
 */

/** Of the tables. A client that meets a higher one refuses. */
export const layoutVersion = 1;

/** Double quotes around a name that `checkGroup` let pass. */
export function schemaOf(group: string): string {
  return `"${group}"`;
}

/** Where it stands, the others do. */
export const lastTable = "watchers";

/** Statements, in order; each may be run again. `S` stands for the schema. */
export const tableStatements: readonly string[] = [
  "CREATE SCHEMA IF NOT EXISTS S",
  `CREATE TABLE IF NOT EXISTS S.meta (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    layout integer NOT NULL,
    server text NOT NULL,
    quarantine timestamptz NOT NULL DEFAULT '-infinity',
    ttl_ms bigint NOT NULL DEFAULT 0,
    session bigint NOT NULL DEFAULT 0,
    floor bigint NOT NULL DEFAULT 0)`,
  // Half of each page stays free: the row is updated in place by every write of the namespace.
  `CREATE TABLE IF NOT EXISTS S.namespaces (
    name bytea PRIMARY KEY,
    revision bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()) WITH (fillfactor = 50)`,
  `CREATE TABLE IF NOT EXISTS S.entries (
    namespace bytea NOT NULL,
    key bytea NOT NULL,
    value bytea NOT NULL,
    created bigint NOT NULL,
    modified bigint NOT NULL,
    version bigint NOT NULL,
    session bigint,
    PRIMARY KEY (namespace, key))`,
  "CREATE INDEX IF NOT EXISTS entries_created ON S.entries (namespace, created, key)",
  "CREATE INDEX IF NOT EXISTS entries_session ON S.entries (session) WHERE session IS NOT NULL",
  `CREATE TABLE IF NOT EXISTS S.sessions (
    id bigint PRIMARY KEY,
    deadline timestamptz NOT NULL) WITH (fillfactor = 50)`,
  "CREATE INDEX IF NOT EXISTS sessions_deadline ON S.sessions (deadline)",
  `CREATE TABLE IF NOT EXISTS S.watchers (
    namespace bytea NOT NULL,
    channel text NOT NULL,
    until timestamptz NOT NULL,
    PRIMARY KEY (namespace, channel))`,
];
