/**
 * What a PostgreSQL says about itself, as far as a promise hangs on it.
 */
import { conclaveError } from "../../base/errors.ts";
import type { Database, DatabaseCall } from "./database.ts";
import { hearErrors, type PostgresPool } from "./driver.ts";

export interface ServerFacts {
  readonly version: string;
  /** `fsync` and `full_page_writes` are on. */
  readonly syncsToDisk: boolean;
  /** Commits wait for a standby. */
  readonly isSynchronous: boolean;
  /** Standbys that stream from it now. */
  readonly replicas: number;
  readonly isolation: string;
  /** Its timeline can be asked for, so a promoted replica is known. */
  readonly tellsTimeline: boolean;
}

export interface ServerReport extends ServerFacts {
  /** What NOTIFY says arrives where LISTEN was said. */
  readonly canListen: boolean;
  /** Something stands between: it answers with another backend's number than the server. */
  readonly isPooled: boolean;
}

/** @throws READ_ONLY, UNSUPPORTED (older than 12), UNAUTHORIZED (may not call pg_notify) */
export async function readServerFacts(database: Database, call: DatabaseCall): Promise<ServerFacts> {
  const [row] = (await database.ask(
    `SELECT current_setting('server_version_num')::integer AS number, split_part(current_setting('server_version'), ' ', 1) AS version,
      pg_is_in_recovery() AS "isReplica", current_setting('fsync') = 'on' AS fsync,
      current_setting('full_page_writes') = 'on' AS pages, current_setting('synchronous_standby_names') <> '' AS synchronous,
      (SELECT count(*)::integer FROM pg_stat_replication) AS replicas,
      current_setting('default_transaction_isolation') AS isolation,
      current_setting('transaction_read_only') = 'on' AS "isReadOnly",
      has_function_privilege('pg_notify(text,text)', 'EXECUTE') AS "mayNotify"`,
    [],
    call,
  )) as readonly {
    readonly number: number;
    readonly version: string;
    readonly isReplica: boolean;
    readonly isReadOnly: boolean;
    readonly fsync: boolean;
    readonly pages: boolean;
    readonly synchronous: boolean;
    readonly replicas: number;
    readonly isolation: string;
    readonly mayNotify: boolean;
  }[];
  if (row === undefined) throw conclaveError("PROTOCOL", "PostgreSQL told nothing about itself.");
  if (row.isReplica) throw conclaveError("READ_ONLY", "This PostgreSQL is a replica (it is in recovery).");
  if (row.isReadOnly)
    throw conclaveError("READ_ONLY", "Transactions of this user are read-only (default_transaction_read_only).");
  if (row.number < 120_000) throw conclaveError("UNSUPPORTED", `PostgreSQL ${row.version} is older than 12.`);
  if (!row.mayNotify)
    throw conclaveError(
      "UNAUTHORIZED",
      "This user may not call pg_notify, by which a waiter is woken: GRANT EXECUTE ON FUNCTION pg_notify(text, text) TO it.",
    );
  const tellsTimeline = await database.ask("SELECT pg_walfile_name(pg_current_wal_insert_lsn())", [], call).then(
    () => true,
    () => false,
  );
  return {
    version: row.version,
    syncsToDisk: row.fsync && row.pages,
    isSynchronous: row.synchronous && row.replicas > 0,
    replicas: row.replicas,
    isolation: row.isolation,
    tellsTimeline,
  };
}

/** How long a notification may take until it counts as lost. */
const arrivalMs = 1_500;

/**
 * Whether there is a pooler between, and whether what is told on another connection arrives at the one that listens: behind
 * one that lends connections for a transaction it does not.
 */
export async function probePooler(
  pool: PostgresPool,
  database: Database,
  {
    channel,
    call,
    setTimer,
  }: {
    readonly channel: string;
    readonly call: DatabaseCall;
    readonly setTimer: (ms: number, callback: () => void) => { cancel(): void };
  },
): Promise<{ readonly isPooled: boolean; readonly canListen: boolean }> {
  const client = await pool.connect();
  hearErrors(client);
  let isBroken = false;
  try {
    const answer = await client.query("SELECT pg_backend_pid() AS pid");
    const [row] = ("rows" in answer ? answer.rows : []) as { readonly pid: number }[];
    const isPooled = typeof client.processID !== "number" || client.processID !== row?.pid;
    // Nothing between: there is nobody who could lose it.
    if (!isPooled) return { isPooled, canListen: true };
    let onArrival: (() => void) | undefined;
    const listener = (): void => onArrival?.();
    client.on("notification", listener);
    try {
      await client.query(`LISTEN "${channel}"`);
      const arrived = new Promise<boolean>((resolve) => {
        const timer = setTimer(arrivalMs, () => resolve(false));
        onArrival = () => {
          timer.cancel();
          resolve(true);
        };
      });
      await database.ask("SELECT pg_notify($1, 'here')", [channel], call);
      return { isPooled, canListen: await arrived };
    } finally {
      client.removeListener("notification", listener);
      await client.query(`UNLISTEN "${channel}"`);
    }
  } catch (error) {
    isBroken = true;
    throw error;
  } finally {
    client.release(isBroken);
  }
}
