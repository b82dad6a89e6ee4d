/**
 * Cassandra on the smaller profile: `connectCassandra("cassandra://...")` gives locks, elections and counters.
 *
 * There are no sessions, no watches and no transactions over keys: a lock is one cell, renewed by its holder, polled by who
 * waits. What it promises, and what breaks it: docs/engines/cassandra.md.
 */
import type { ConnectionOptions as TlsOptions } from "node:tls";
import { conclaveError } from "../../base/errors.ts";
import { raceSignal } from "../../base/link-signal.ts";
import type { Platform } from "../../base/ports.ts";
import { nodePlatform } from "../../host/node-platform.ts";
import { type CasCounter, createCasCounter } from "../../recipes/cas-counter.ts";
import { type CasElection, createCasElection } from "../../recipes/cas-election.ts";
import { type CasLock, type CasLockOptions, type CasSource, createCasLock } from "../../recipes/cas-lock.ts";
import type { Caps } from "../../store/caps.ts";
import { embeddedLimits } from "../../store/caps.ts";
import type { Finding } from "../../store/finding.ts";
import type { CasStore, Revision } from "../../store/store.ts";
import { type CassandraUrl, parseCassandraUrl } from "./address.ts";
import { cassandraError } from "./cassandra-error.ts";
import { CassandraStore } from "./cassandra-store.ts";
import { type ClusterReport, examine } from "./doctor.ts";
import { adoptClient, type CassandraClient, type CassandraRow, makeClient } from "./driver.ts";

export interface ConnectCassandraOptions {
  /** `cassandra://[user:password@]host[:port],.../[keyspace]?dc=datacenter1&serial=serial&replication=3&timeoutMs=5000` */
  readonly url: string;
  /** A `Client` of `cassandra-driver` of your own, by shape. Closing stays yours. Then the URL only names the options. */
  readonly client?: unknown;
  /** As Node's `tls.connect` takes them. Default: no TLS. */
  readonly tls?: TlsOptions;
}

/**
 * Connects, and makes keyspace and table where they are missing (in production rather make them by a migration).
 * @throws INVALID_OPTION, FOREIGN_CLIENT, CONNECTION_REFUSED, TLS_FAILED, UNAUTHORIZED, UNSUPPORTED, NO_QUORUM, TIMEOUT
 * @since 0.3.0
 */
export async function connectCassandra(where: string | ConnectCassandraOptions): Promise<CassandraConnection> {
  const options: ConnectCassandraOptions = typeof where === "string" ? { url: where } : where;
  const url = parseCassandraUrl(options.url);
  const isOwn = options.client === undefined;
  const client = isOwn ? await makeClient(url, options.tls) : adoptClient(options.client);
  const late = new AbortController();
  const timer = nodePlatform.setTimer(
    Math.max(url.timeoutMs, isOwn ? 0 : 1),
    () => late.abort(conclaveError("TIMEOUT", `Cassandra did not answer within ${url.timeoutMs} ms.`, { definite: true })),
    { ref: true },
  );
  try {
    await raceSignal(client.connect(), late.signal);
    timer.cancel();
    await ensureTable(client, url);
    return new CassandraConnection({ client, isOwn, url, version: await versionOf(client) });
  } catch (error) {
    if (isOwn) client.shutdown().catch(() => undefined);
    throw cassandraError(error);
  } finally {
    timer.cancel();
  }
}

/** A connection. @since 0.3.0 */
export class CassandraConnection implements CasSource, AsyncDisposable {
  readonly caps: Caps;
  readonly platform: Platform = nodePlatform;
  readonly #client: CassandraClient;
  readonly #isOwn: boolean;
  readonly #url: CassandraUrl;
  readonly #deleted = new Map<string, Revision>();
  #isClosed = false;

  /** Use `connectCassandra`. */
  constructor({ client, isOwn, url, version }: Parts) {
    this.#client = client;
    this.#isOwn = isOwn;
    this.#url = url;
    this.caps = cassandraCaps(version);
  }

  /** Keys of a namespace, one partition: get, compare-and-set, ranges in order. */
  cas(namespace = "default"): CasStore {
    const { keyspace, serial } = this.#url;
    return new CassandraStore(namespace, {
      client: this.#client,
      platform: this.platform,
      caps: this.caps,
      keyspace,
      serial,
      deleted: this.#deleted,
      isClosed: () => this.#isClosed,
    });
  }

  /** A lock by name. Everyone who names it shares it. */
  lock(name: string, options?: CasLockOptions): CasLock {
    return createCasLock(this, name, options);
  }

  /** An election by name: one leader at a time, in terms. */
  election(name: string, options?: Pick<CasLockOptions, "ttlMs">): CasElection {
    return createCasElection(this, name, options);
  }

  /** A counter by name. */
  counter(name: string): CasCounter {
    return createCasCounter(this, name);
  }

  /** What weakens its promise in the cluster's present set-up. */
  async doctor(): Promise<readonly Finding[]> {
    return examine(await reportOf(this.#client, this.#url).catch((error: unknown) => Promise.reject(cassandraError(error))));
  }

  /** Holds are not released: release them first. Idempotent. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (this.#isOwn) await this.#client.shutdown();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

interface Parts {
  readonly client: CassandraClient;
  readonly isOwn: boolean;
  readonly url: CassandraUrl;
  readonly version: string;
}

async function ensureTable(client: CassandraClient, { dataCenter, keyspace, replication }: CassandraUrl): Promise<void> {
  const text = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ? AND table_name = 'cells'";
  if (((await client.execute(text, [keyspace], { prepare: true })).rows ?? []).length > 0) return;
  await client.execute(
    `CREATE KEYSPACE IF NOT EXISTS ${keyspace} WITH replication = {'class': 'NetworkTopologyStrategy', '${dataCenter.replaceAll("'", "''")}': ${replication}}`,
  );
  await client.execute(
    `CREATE TABLE IF NOT EXISTS ${keyspace}.cells (namespace blob, key blob, revision bigint, value blob, claim text, PRIMARY KEY ((namespace), key))`,
  );
}

async function versionOf(client: CassandraClient): Promise<string> {
  const { rows } = await client.execute("SELECT release_version FROM system.local");
  return String(rows?.[0]?.["release_version"] ?? "0");
}

async function reportOf(client: CassandraClient, { keyspace, serial }: CassandraUrl): Promise<ClusterReport> {
  const ask = async (text: string, values: readonly unknown[] = []): Promise<readonly CassandraRow[]> =>
    (await client.execute(text, values, { prepare: values.length > 0 })).rows ?? [];
  const [found] = await ask("SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = ?", [keyspace]);
  const { class: strategy = "", ...copies } = (found?.["replication"] ?? {}) as Record<string, string>;
  const [local] = await ask("SELECT data_center FROM system.local");
  const peers = await ask("SELECT data_center FROM system.peers");
  const [sync] = await ask("SELECT value FROM system_views.settings WHERE name = 'commitlog_sync'").catch(() => []);
  return {
    version: await versionOf(client),
    replication: Object.values(copies).map(Number),
    isSimpleStrategy: strategy.endsWith("SimpleStrategy"),
    dataCenters: new Set([local, ...peers].map((row) => row?.["data_center"])).size,
    commitlogSync: sync === undefined ? undefined : String(sync["value"]),
    serial,
  };
}

function cassandraCaps(version: string): Caps {
  return {
    engine: `Cassandra ${version}`,
    linearizable: "per-partition",
    durability: "quorum",
    watch: "none",
    handOff: "poll",
    clock: "none of the store's: who waits has watched the holder being silent for its whole TTL, by his own clock",
    fair: false,
    crossNamespace: false,
    claims: true,
    olderReads: false,
    // Revisions follow the clients' clocks where those are ahead.
    tokenSurvives: ["restart", "failover", "restore"],
    limits: { ...embeddedLimits, keyBytesMax: 2_048, valueBytesMax: 65_536, txnOpsMax: 1, historyRevisions: 0, historyBytes: 0 },
  };
}
