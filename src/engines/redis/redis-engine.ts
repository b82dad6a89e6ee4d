/**
 * Redis or Valkey behind the waist: `connect("redis://...")`.
 *
 *   store.txn ─► script ─► link (one connection to the primary) ─► server
 *   store.watch ◄─ feed of the namespace ◄─ push channel (one connection) ◄─ what scripts publish
 *   session ─► open, keep-alive, close scripts; the server's clock judges, the holder's own says when to stop
 *
 * What it promises, and what breaks it: docs/engines/redis.md. Why one hash tag for a group: docs/decisions/0014.
 */
import type { ConnectionOptions as TlsOptions } from "node:tls";
import { conclaveError } from "../../base/errors.ts";
import type { ConclaveEvent } from "../../base/event.ts";
import type { Platform, Telemetry } from "../../base/ports.ts";
import type { Push } from "../../client/feed.ts";
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
import type { CallOptions, Engine, NamespacesOptions, Store } from "../../store/store.ts";
import { parseRedisUrl, type RedisUrl } from "./address.ts";
import { decodeChangeMessage } from "./change-message.ts";
import type { ConnectionSettings } from "./connection.ts";
import { examine } from "./doctor.ts";
import { adoptClient } from "./handed-client.ts";
import { leaseServer } from "./lease-server.ts";
import { PrimaryLink, type RedisLink } from "./link.ts";
import { primaryFinder } from "./primary-finder.ts";
import { PushConnection, type RedisPushHandler } from "./push.ts";
import { redisCaps, redisLimits, timeoutMsDefault } from "./redis-caps.ts";
import { namesInUse } from "./redis-names.ts";
import { RedisStore, runTxn, ttlMsDefault } from "./redis-store.ts";
import { channelOf, ScriptCaller, tagOf } from "./script-caller.ts";
import { readServerReport, type ServerReport } from "./server-report.ts";
import { slotOf } from "./slot.ts";

export interface RedisOptions {
  /** See `parseRedisUrl`. */
  readonly url: string;
  /** All stores of one group live in one slot and share one order. Others never meet. Default "conclave". */
  readonly group?: string;
  /**
   * How many replicas must confirm each write. A write that fewer confirm fails with REPLICAS_MISSING. Default 0.
   * More lose less in a failover, and cost a round trip of the replication each time; they do not make it linearizable.
   */
  readonly wait?: number;
  /**
   * How much longer than the longest TTL no session begins after the primary has changed or restarted, in ms: at least
   * what a primary that was cut off may go on confirming (`min-replicas-max-lag`). Default 1_000. -1: do not wait at all.
   */
  readonly quarantineMs?: number;
  /**
   * The longest TTL that anybody in the group asks for. Milliseconds. Default 120_000, and then failovers are waited out for
   * the longest that was asked for, but for 15_000 at least. A shorter one shortens that wait; tell every client the same.
   */
  readonly ttlMsMax?: number;
  /** A client of the user's own, connected: `@redis/client` or ioredis. Then the URL only names the options. */
  readonly client?: unknown;
  /** For `rediss:`: certificates and the like, as Node's `tls.connect` takes them. */
  readonly tls?: TlsOptions;
  /** How long a connection may take. Milliseconds. Default 5_000. */
  readonly timeoutMs?: number;
  readonly telemetry?: Telemetry<ConclaveEvent>;
}

export const redisDefaults = {
  group: "conclave",
  wait: 0,
  quarantineMs: 1_000,
  timeoutMs: 5_000,
  ttlMsMax: redisLimits.ttlMsMax,
} as const;

/**
 * Connects, and asks the server what it is.
 * @throws INVALID_OPTION, CONNECTION_REFUSED, TLS_FAILED, UNAUTHORIZED, READ_ONLY, UNSUPPORTED (older than 7.0), TIMEOUT
 */
export async function openRedis(options: RedisOptions): Promise<RedisEngine> {
  const url = parseRedisUrl(options.url);
  const settled = settle(url, options);
  const settings: ConnectionSettings = {
    tls: url.tls ? (options.tls ?? true) : false,
    username: url.username,
    password: url.password,
    database: url.database,
    clientName: `conclave-${process.pid}`,
    timeoutMs: settled.timeoutMs,
  };
  const processHold = new ProcessHold(nodePlatform);
  if (options.client !== undefined) {
    const adopted = adoptClient(options.client, { platform: nodePlatform, processHold });
    const report = await readServerReport(adopted.link, { kind: url.kind, timeoutMs: settled.timeoutMs });
    const { telemetry } = options;
    // It cannot be taken to another thread.
    return new RedisEngine({ ...settled, ...adopted, report, processHold, stallKeeper: undefined, telemetry });
  }
  const finder = primaryFinder(url, slotOf(tagOf(settled.group)), settings);
  const link = new PrimaryLink({ finder, settings, platform: nodePlatform, processHold });
  // Who waits for the first connection is a call like any other: without this a program ends in the middle of `connect`.
  processHold.retain();
  try {
    await link.open();
    const report = await readServerReport(link, { kind: url.kind, timeoutMs: settled.timeoutMs });
    const openPush = (handler: RedisPushHandler): Push =>
      new PushConnection({ open: () => link.openAnother(), platform: nodePlatform, handler });
    const { telemetry, ...plain } = options;
    const stallKeeper = new ThreadKeeper({ module: import.meta.url, settings: plain, platform: nodePlatform, telemetry });
    return new RedisEngine({ ...settled, link, openPush, report, processHold, stallKeeper, telemetry });
  } catch (error) {
    link.close();
    throw error;
  } finally {
    processHold.release();
  }
}

/** In the thread of a keeper. */
export function openLeases(settings: unknown): Promise<LeaseKeeping> {
  return openRedis(settings as RedisOptions);
}

export interface RedisEngineOptions {
  readonly group: string;
  readonly wait: number;
  readonly quarantineMs: number;
  readonly ttlMsMax: number;
  readonly link: RedisLink;
  readonly openPush: (handler: RedisPushHandler) => Push;
  readonly report: ServerReport;
  readonly processHold: ProcessHold;
  readonly stallKeeper: StallKeeper | undefined;
  readonly telemetry: Telemetry<ConclaveEvent> | undefined;
}

export class RedisEngine implements Engine, LeaseKeeping {
  readonly caps: Caps;
  readonly #options: RedisEngineOptions;
  readonly #platform: Platform = nodePlatform;
  readonly #caller: ScriptCaller;
  readonly #hub: FeedHub;
  readonly #sessions: LeaseSessions;
  #closing: Promise<void> | undefined;

  constructor(options: RedisEngineOptions) {
    const { group, link, processHold, quarantineMs, report, stallKeeper, telemetry, ttlMsMax, wait } = options;
    const platform = this.#platform;
    this.#options = options;
    this.caps = { ...redisCaps(report, { engine: report.engine, ttlMsMax }), stallKeeper: stallKeeper !== undefined };
    this.#caller = new ScriptCaller({
      link,
      group,
      quarantineMs,
      replicas: wait,
      ttlMsDefault: Math.min(ttlMsDefault, ttlMsMax),
    });
    const caller = this.#caller;
    this.#hub = new FeedHub({
      channelOf: (binaryNamespace) => channelOf(group, binaryNamespace),
      platform,
      processHold,
      openPush: (handler) =>
        options.openPush({
          onSubscribed: (channel) => handler.onSubscribed(channel),
          onMessage: (channel, payload) => handler.onMessage(channel, decodeChangeMessage(payload)),
        }),
      read: (txn) => runTxn({ caller, platform, follows: true }, txn, { timeoutMs: timeoutMsDefault }),
      onWatch: () => this.#sessions.onWatch(),
    });
    this.#sessions = new LeaseSessions({
      platform,
      processHold,
      server: leaseServer(caller),
      stallKeeper,
      telemetry,
      isAnyoneWatching: () => this.#hub.isWatched,
    });
    link.onUp = () => {
      this.#hub.reopen();
      this.#sessions.onUp();
    };
  }

  store(namespace: string): Store {
    return new RedisStore({
      namespace,
      prefix: namespacePrefix(namespace),
      caps: this.caps,
      platform: this.#platform,
      caller: this.#caller,
      sessions: this.#sessions,
      hub: this.#hub,
    });
  }

  namespaces(options: NamespacesOptions = {}): Promise<readonly string[]> {
    return namesInUse({ caller: this.#caller, link: this.#options.link }, options);
  }

  /** In the thread of a keeper: keeps alive a session of another thread. */
  adopt(lease: LeaseToKeep): ClientSession {
    return this.#sessions.adopt(lease);
  }

  /** What weakens its promise in the server's present configuration. Asks the server anew. */
  async doctor({ timeoutMs = timeoutMsDefault }: CallOptions = {}): Promise<readonly Finding[]> {
    const { link, quarantineMs, report, wait } = this.#options;
    const present = await readServerReport(link, { kind: report.kind, timeoutMs });
    return examine({ report: present, wait, quarantineMs });
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(): Promise<void> {
    const { link, processHold } = this.#options;
    processHold.retain();
    try {
      this.#hub.close();
      await this.#sessions.close();
      link.close();
    } finally {
      processHold.release();
    }
  }
}

interface Settled {
  readonly group: string;
  readonly wait: number;
  readonly quarantineMs: number;
  readonly timeoutMs: number;
  readonly ttlMsMax: number;
}

/** Options, else the URL's parameters, else the defaults. @throws INVALID_OPTION */
export function settle({ parameters }: Pick<RedisUrl, "parameters">, options: Omit<RedisOptions, "url">): Settled {
  for (const name of parameters.keys()) {
    if (!["group", "wait", "quarantineMs", "timeoutMs", "ttlMsMax"].includes(name))
      throw conclaveError("INVALID_OPTION", `A URL of Redis takes no parameter \`${name}\`.`);
  }
  const number = (name: "wait" | "quarantineMs" | "timeoutMs" | "ttlMsMax", min: number): number => {
    const value = options[name] ?? Number(parameters.get(name) ?? redisDefaults[name]);
    if (!Number.isSafeInteger(value) || value < min)
      throw conclaveError("INVALID_OPTION", `\`${name}\` must be a whole number from ${min}.`);
    return value;
  };
  const group = options.group ?? parameters.get("group") ?? redisDefaults.group;
  // Braces would move the hash tag.
  if (!/^[^{}\0]{1,128}$/.test(group))
    throw conclaveError("INVALID_OPTION", "`group` must be 1 to 128 characters without braces.");
  return {
    group,
    wait: number("wait", 0),
    quarantineMs: number("quarantineMs", -1),
    timeoutMs: number("timeoutMs", 1),
    ttlMsMax: number("ttlMsMax", redisLimits.ttlMsMin),
  };
}
