/**
 * What is used of `cassandra-driver`, by shape: a client of the user's own, or one that is made from a URL.
 */
import type { ConnectionOptions as TlsOptions } from "node:tls";
import { conclaveError } from "../../base/errors.ts";
import type { CassandraUrl } from "./address.ts";

export interface CassandraRow {
  readonly [column: string]: unknown;
}

export interface CassandraResult {
  readonly rows: readonly CassandraRow[] | null | undefined;
}

/** What is used of a Client. */
export interface CassandraClient {
  connect(): Promise<void>;
  execute(query: string, params?: readonly unknown[], options?: object): Promise<CassandraResult>;
  shutdown(): Promise<void>;
}

/** The protocol's numbers of consistencies. */
export const consistencies = { quorum: 4, localQuorum: 6, serial: 8, localSerial: 9 } as const;

/** @throws FOREIGN_CLIENT */
export function adoptClient(client: unknown): CassandraClient {
  const missing = ["connect", "execute", "shutdown"].find(
    (name) => typeof client !== "object" || client === null || typeof (client as Record<string, unknown>)[name] !== "function",
  );
  if (missing !== undefined)
    throw conclaveError(
      "FOREIGN_CLIENT",
      `The client of Cassandra has no method \`${missing}\`: hand in a Client of cassandra-driver.`,
    );
  return client as CassandraClient;
}

/** @throws UNSUPPORTED where the package is not installed */
export async function makeClient(url: CassandraUrl, tls: TlsOptions | undefined): Promise<CassandraClient> {
  const { default: cassandra } = await import("cassandra-driver").catch((error: unknown) => {
    throw conclaveError(
      "UNSUPPORTED",
      "Cassandra is spoken to by cassandra-driver, which is not installed: npm install cassandra-driver.",
      {
        cause: error,
      },
    );
  });
  return new cassandra.Client({
    contactPoints: [...url.contactPoints],
    localDataCenter: url.dataCenter,
    ...(url.username === undefined ? {} : { credentials: { username: url.username, password: url.password ?? "" } }),
    ...(tls === undefined ? {} : { sslOptions: tls }),
    socketOptions: { connectTimeout: url.timeoutMs },
    // What was not answered is ours to judge: a set that is repeated must carry the same claim.
    policies: { retry: new cassandra.policies.retry.FallthroughRetryPolicy() },
  }) as CassandraClient;
}
