/**
 * What is used of `pg`, by shape: a pool of the user's own, or one that is made from a URL.
 */
import type { ConnectionOptions as TlsOptions } from "node:tls";
import { conclaveError } from "../../base/errors.ts";

export interface PostgresNotification {
  readonly channel: string;
  readonly payload?: string | undefined;
}

/** What is used of a client that a pool hands out. */
export interface PostgresClient {
  query(
    text: string,
    values?: unknown[],
  ): Promise<{ readonly rows: readonly unknown[] } | readonly { readonly rows: readonly unknown[] }[]>;
  /** True: the connection is broken, or must not be used again. */
  release(destroy?: boolean): void;
  on(event: string, listener: (...args: never[]) => void): unknown;
  removeListener(event: string, listener: (...args: never[]) => void): unknown;
  /** The backend that the server says it is. Behind a pooler: the pooler's own number. */
  readonly processID?: number | null;
  /** Lets the process end while it is connected. */
  unref?(): void;
}

/** What is used of a Pool of `pg`. */
export interface PostgresPool {
  connect(): Promise<PostgresClient>;
  end?(): Promise<void>;
  on?(event: "error", listener: (error: Error) => void): unknown;
}

const heard = new WeakSet<PostgresClient>();

/** While it is out of its pool nobody else hears of its connection's end, and an error that nobody hears ends the process. */
export function hearErrors(client: PostgresClient): void {
  if (heard.has(client)) return;
  heard.add(client);
  client.on("error", () => undefined);
}

export interface PoolOptions {
  readonly connectionString: string;
  readonly connectionsMax: number;
  readonly timeoutMs: number;
  readonly tls: TlsOptions | undefined;
}

/** @throws FOREIGN_CLIENT */
export function adoptPool(pool: unknown): PostgresPool {
  const hasConnect =
    typeof pool === "object" && pool !== null && typeof (pool as Record<string, unknown>)["connect"] === "function";
  // A Client connects too, but answers with nothing, and several calls would share its one transaction.
  const isPool = hasConnect && ("totalCount" in pool || !("release" in pool || "processID" in pool));
  if (!isPool)
    throw conclaveError(
      "FOREIGN_CLIENT",
      "The client of PostgreSQL has no method `connect` that hands out clients: hand in a Pool of `pg`, not a Client.",
    );
  return pool as PostgresPool;
}

/** @throws UNSUPPORTED where `pg` is not installed */
export async function makePool({ connectionString, connectionsMax, timeoutMs, tls }: PoolOptions): Promise<PostgresPool> {
  const { default: pg } = await import("pg").catch((error: unknown) => {
    throw conclaveError("UNSUPPORTED", "PostgreSQL is spoken to by the package `pg`, which is not installed: npm install pg.", {
      cause: error,
    });
  });
  const pool = new pg.Pool({
    connectionString,
    max: connectionsMax,
    connectionTimeoutMillis: timeoutMs,
    idleTimeoutMillis: 60_000,
    allowExitOnIdle: true,
    keepAlive: true,
    application_name: "conclave",
    ...(tls === undefined ? {} : { ssl: tls }),
  });
  // Of idle connections: the pool has dropped it already, the next call opens another.
  pool.on("error", () => undefined);
  return pool as unknown as PostgresPool;
}
