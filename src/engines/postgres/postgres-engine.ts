/**
 * PostgreSQL behind the waist: `connect("postgres://...")`.
 *
 *   store.txn ─► one function ─► a connection of the pool ─► server
 *   store.watch ◄─ feed of the namespace ◄─ one connection that listens ◄─ NOTIFY, where somebody waits
 *   session ─► open, keep-alive, close; the database's clock judges, the holder's own says when to stop
 *
 * What it promises, and what breaks it: docs/engines/postgres.md. Why a counter row for each namespace: docs/decisions/0020.
 */
import type { ConnectionOptions as TlsOptions } from "node:tls";
import { background } from "../../base/background.ts";
import { binaryStringToUtf8 } from "../../base/bytes.ts";
import { conclaveError } from "../../base/errors.ts";
import type { ConclaveEvent } from "../../base/event.ts";
import type { Platform, Telemetry, Timer } from "../../base/ports.ts";
import type { Push, PushHandler } from "../../client/feed.ts";
import { FeedHub } from "../../client/feed-hub.ts";
import { LeaseSessions } from "../../client/lease-sessions.ts";
import { ProcessHold } from "../../client/process-hold.ts";
import type { ClientSession } from "../../client/session.ts";
import type { LeaseKeeping, LeaseToKeep, StallKeeper } from "../../client/stall-keeper.ts";
import { nodePlatform } from "../../host/node-platform.ts";
import { ThreadKeeper } from "../../host/thread-keeper.ts";
import type { Caps } from "../../store/caps.ts";
import type { Finding } from "../../store/finding.ts";
import { namespacePrefix } from "../../store/key.ts";
import { namespaceSearch } from "../../store/namespaces.ts";
import type { CallOptions, Engine, NamespacesOptions, Store } from "../../store/store.ts";
import { checkGroup, type PostgresUrl, parsePostgresUrl } from "./address.ts";
import { Database } from "./database.ts";
import { examine } from "./doctor.ts";
import { adoptPool, makePool, type PostgresPool } from "./driver.ts";
import { FunctionCaller } from "./function-caller.ts";
import { ensureInstalled } from "./install.ts";
import { Listener } from "./listener.ts";
import { Looker } from "./looker.ts";
import { postgresCaps, postgresLimits } from "./postgres-caps.ts";
import { PostgresStore, timeoutMsDefault, ttlMsDefault } from "./postgres-store.ts";
import { probePooler, readServerFacts, type ServerReport } from "./server-report.ts";

export interface PostgresOptions {
  /** `postgres://user:password@host:port/database`, with parameters of the driver's and ours. */
  readonly url: string;
  /** The schema that everything lives in. Others never meet. Default "conclave". */
  readonly group?: string;
  /**
   * How much longer than the longest TTL no session begins on a promoted or restored server. Milliseconds. Default 1_000.
   * -1: do not wait at all.
   */
  readonly quarantineMs?: number;
  /** The longest TTL that anybody in the group asks for. Milliseconds. Default 120_000. */
  readonly ttlMsMax?: number;
  /** A pool of `pg` of the user's own; one of its clients is kept for listening. Then the URL only names the options. */
  readonly client?: unknown;
  /** Past a pooler, for the one connection that listens. Default: the same way as the rest. */
  readonly listen?: string;
  /** Connections of the pool that is made, one of them for listening. Default 10. */
  readonly connectionsMax?: number;
  /** As Node's `tls.connect` takes them. Default: what the URL's `sslmode` says. */
  readonly tls?: TlsOptions;
  /** How long a connection may take. Milliseconds. Default 5_000. */
  readonly timeoutMs?: number;
  readonly telemetry?: Telemetry<ConclaveEvent>;
}

export const postgresDefaults = {
  group: "conclave",
  quarantineMs: 1_000,
  timeoutMs: 5_000,
  ttlMsMax: postgresLimits.ttlMsMax,
  connectionsMax: 10,
} as const;

/** Of a keeper's pool: it opens no watch, and asks one thing at a time. The fewest that a pool takes. */
const keeperConnections = 2;
/** Between looks, where nothing is pushed. */
const lookMs = 200;
/** Between tidyings of idle namespaces; spread by as much again. */
const tidyMs = 600_000;

/**
 * Connects, asks the server what it is, and makes tables and functions where they are missing.
 * @throws INVALID_OPTION, FOREIGN_CLIENT, CONNECTION_REFUSED, TLS_FAILED, UNAUTHORIZED, READ_ONLY, UNSUPPORTED, WRONG_PROTOCOL, TIMEOUT
 */
export async function openPostgres(options: PostgresOptions): Promise<PostgresEngine> {
  const url = parsePostgresUrl(options.url);
  const settled = settle(url, options);
  const { timeoutMs, connectionsMax } = settled;
  const { tls } = options;
  const own = options.client === undefined;
  const pool = own
    ? await makePool({ connectionString: url.connectionString, connectionsMax, timeoutMs, tls })
    : adoptPool(options.client);
  const listenPool =
    settled.listen === undefined
      ? pool
      : await makePool({
          connectionString: parsePostgresUrl(settled.listen).connectionString,
          connectionsMax: 1,
          timeoutMs,
          tls,
        });
  const pools = [...(own ? [pool] : []), ...(listenPool === pool ? [] : [listenPool])];
  const processHold = new ProcessHold(nodePlatform);
  const database = new Database({ pool, platform: nodePlatform, processHold });
  const channel = `conclave_${process.pid}_${nodePlatform.randomUint32().toString(36)}${nodePlatform.randomUint32().toString(36)}`;
  processHold.retain();
  try {
    const call = { timeoutMs };
    const facts = await readServerFacts(database, call);
    const serverGiven = facts.tellsTimeline ? null : "unknown";
    await ensureInstalled(database, { group: settled.group, serverGiven }, { timeoutMs: Math.max(timeoutMs, 30_000) });
    const pooler = await probePooler(listenPool, database, {
      channel: `${channel}_probe`,
      call,
      setTimer: (ms, callback) => nodePlatform.setTimer(ms, callback, { ref: true }),
    });
    const report = { ...facts, ...pooler };
    const { client, telemetry, ...asked } = options;
    const settings: PostgresOptions = { ...asked, connectionsMax: keeperConnections };
    // A pool of the user's own cannot be taken to another thread.
    const stallKeeper =
      client === undefined
        ? new ThreadKeeper({ module: import.meta.url, settings, platform: nodePlatform, telemetry })
        : undefined;
    return new PostgresEngine({
      ...settled,
      pools,
      listenPool,
      database,
      channel,
      report,
      serverGiven,
      processHold,
      stallKeeper,
      telemetry,
    });
  } catch (error) {
    for (const each of pools) background(each.end?.() ?? Promise.resolve(), "closing a pool of PostgreSQL");
    throw error;
  } finally {
    processHold.release();
  }
}

/** In the thread of a keeper. */
export function openLeases(settings: unknown): Promise<LeaseKeeping> {
  return openPostgres(settings as PostgresOptions);
}

export interface PostgresEngineOptions extends Settled {
  /** Ours to end. */
  readonly pools: readonly PostgresPool[];
  readonly listenPool: PostgresPool;
  readonly database: Database;
  readonly channel: string;
  readonly report: ServerReport;
  readonly serverGiven: string | null;
  readonly processHold: ProcessHold;
  readonly stallKeeper: StallKeeper | undefined;
  readonly telemetry: Telemetry<ConclaveEvent> | undefined;
}

export class PostgresEngine implements Engine, LeaseKeeping {
  readonly caps: Caps;
  readonly #options: PostgresEngineOptions;
  readonly #platform: Platform = nodePlatform;
  readonly #caller: FunctionCaller;
  readonly #hub: FeedHub;
  readonly #sessions: LeaseSessions;
  #tidyTimer: Timer | undefined;
  #isListening = false;
  #closing: Promise<void> | undefined;

  constructor(options: PostgresEngineOptions) {
    const { database, group, processHold, quarantineMs, report, serverGiven, stallKeeper, telemetry, ttlMsMax } = options;
    const platform = this.#platform;
    this.#options = options;
    this.caps = { ...postgresCaps(report, { ttlMsMax }), stallKeeper: stallKeeper !== undefined };
    this.#caller = new FunctionCaller({
      platform,
      database,
      group,
      quarantineMs,
      ttlMsDefault: Math.min(ttlMsDefault, ttlMsMax),
      serverGiven,
    });
    const caller = this.#caller;
    this.#hub = new FeedHub({
      channelOf: (binaryNamespace) => binaryNamespace,
      platform,
      processHold,
      openPush: (handler) => this.#openPush(handler),
      read: (txn) => caller.txn(txn, { timeoutMs: timeoutMsDefault }),
      onWatch: () => this.#sessions.onWatch(),
    });
    this.#sessions = new LeaseSessions({
      platform,
      processHold,
      server: caller,
      stallKeeper,
      telemetry,
      isAnyoneWatching: () => this.#hub.isWatched,
    });
    this.#tidyLater();
  }

  store(namespace: string): Store {
    namespacePrefix(namespace);
    const [caps, platform] = [this.caps, this.#platform];
    return new PostgresStore({ namespace, caps, platform, caller: this.#caller, sessions: this.#sessions, hub: this.#hub });
  }

  async namespaces(options: NamespacesOptions = {}): Promise<readonly string[]> {
    const { limit, range } = namespaceSearch(options);
    const { signal, timeoutMs = timeoutMsDefault } = options;
    return (await this.#caller.namespaces(range, limit, { timeoutMs, signal })).map(binaryStringToUtf8);
  }

  /** In the thread of a keeper: keeps alive a session of another thread. */
  adopt(lease: LeaseToKeep): ClientSession {
    return this.#sessions.adopt(lease);
  }

  /** What weakens its promise in the server's present configuration. Asks the server anew. */
  async doctor({ timeoutMs = timeoutMsDefault }: CallOptions = {}): Promise<readonly Finding[]> {
    const { database, quarantineMs, report } = this.#options;
    return examine({ report: { ...report, ...(await readServerFacts(database, { timeoutMs })) }, quarantineMs });
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(): Promise<void> {
    const { channel, database, pools, processHold } = this.#options;
    processHold.retain();
    try {
      this.#tidyTimer?.cancel();
      this.#hub.close();
      await this.#sessions.close();
      if (this.#isListening) await this.#caller.unwatch(null, channel, { timeoutMs: 2_000 }).catch(() => undefined);
      database.close();
      // Connections that still wait for an answer are dropped with the pool's end.
      for (const pool of pools) background(pool.end?.() ?? Promise.resolve(), "closing a pool of PostgreSQL");
    } finally {
      processHold.release();
    }
  }

  #openPush(handler: PushHandler): Push {
    const { channel, group, listenPool, report } = this.#options;
    const [caller, platform] = [this.#caller, this.#platform];
    if (!report.canListen) return new Looker({ caller, platform, handler, everyMs: lookMs });
    this.#isListening = true;
    return new Listener({ pool: listenPool, caller, platform, handler, group, channel });
  }

  #tidyLater(): void {
    const delayMs = tidyMs * (1 + this.#platform.randomUint32() / 2 ** 32);
    this.#tidyTimer = this.#platform.setTimer(delayMs, () => {
      const tidying = this.#caller.tidy({ timeoutMs: timeoutMsDefault }).catch(() => 0);
      background(
        tidying.then(() => this.#tidyLater()),
        "forgetting idle namespaces",
      );
    });
  }
}

interface Settled {
  readonly group: string;
  readonly quarantineMs: number;
  readonly timeoutMs: number;
  readonly ttlMsMax: number;
  readonly connectionsMax: number;
  readonly listen: string | undefined;
}

/** Options, else the URL's parameters, else the defaults. @throws INVALID_OPTION */
export function settle({ parameters }: PostgresUrl, options: Omit<PostgresOptions, "url">): Settled {
  const number = (name: "quarantineMs" | "timeoutMs" | "ttlMsMax" | "connectionsMax", min: number): number => {
    const value = options[name] ?? Number(parameters.get(name) ?? postgresDefaults[name]);
    if (!Number.isSafeInteger(value) || value < min)
      throw conclaveError("INVALID_OPTION", `\`${name}\` must be a whole number from ${min}.`);
    return value;
  };
  const group = options.group ?? parameters.get("group") ?? postgresDefaults.group;
  checkGroup(group);
  return {
    group,
    quarantineMs: number("quarantineMs", -1),
    timeoutMs: number("timeoutMs", 1),
    ttlMsMax: number("ttlMsMax", postgresLimits.ttlMsMin),
    connectionsMax: number("connectionsMax", 2),
    listen: options.listen ?? parameters.get("listen"),
  };
}
