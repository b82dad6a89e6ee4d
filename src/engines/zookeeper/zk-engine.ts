/**
 * ZooKeeper 3.6+ behind the waist: `connect("zookeeper://a:2181,b:2181,c:2181/app")`.
 *
 *   store.txn ─► read, rehearse, multi under guards; a place in a queue and its end go blind, in one round trip
 *   store.watch ◄─ one connection: a persistent recursive watch for each namespace, and readings
 *   session ─► a share of one session of ZooKeeper's per TTL, kept alive by writes
 *
 * What it promises, and what breaks it: docs/engines/zookeeper.md. Why a client of our own: docs/decisions/0021.
 */
import type { ConnectionOptions as TlsOptions } from "node:tls";
import { binaryStringToUtf8 } from "../../base/bytes.ts";
import { conclaveError } from "../../base/errors.ts";
import type { ConclaveEvent } from "../../base/event.ts";
import type { Telemetry } from "../../base/ports.ts";
import { ProcessHold } from "../../client/process-hold.ts";
import { nodePlatform } from "../../host/node-platform.ts";
import type { Caps } from "../../store/caps.ts";
import type { Finding } from "../../store/finding.ts";
import { namespacePrefix } from "../../store/key.ts";
import { pickNames } from "../../store/namespaces.ts";
import type { CallOptions, Engine, NamespacesOptions, Store } from "../../store/store.ts";
import { parseZkUrl, type ZkUrl } from "./address.ts";
import { examine } from "./doctor.ts";
import { ZkPaths } from "./paths.ts";
import { anybody, codes, create, creator, errorOfCode, exists, getChildren, sync } from "./protocol.ts";
import { Guesses } from "./scene.ts";
import { askMembers, type ServerReport } from "./server-report.ts";
import { zkCaps } from "./zk-caps.ts";
import { ZkClient, type ZkClientOptions } from "./zk-client.ts";
import { ZkSessions } from "./zk-sessions.ts";
import { ZkStore, type ZkStoreParts } from "./zk-store.ts";
import { KnownNamespaces, timeoutMsDefault } from "./zk-txn.ts";
import { ZkWatches } from "./zk-watches.ts";

export interface ZkOptions {
  /** See `parseZkUrl`. */
  readonly url: string;
  /**
   * How a reading makes sure that it sees what was answered before it. `sync`: asks the leader, who may have been deposed and not
   * know. `quorum`: by a write, which costs its sync to disk. Default `sync`. Locks and tokens do not rest on it.
   */
  readonly reads?: "sync" | "quorum";
  /** For `zookeepers:`: certificates and the like, as Node's `tls.connect` takes them. */
  readonly tls?: TlsOptions;
  /** How long a connection may take. Milliseconds. Default 5_000. */
  readonly timeoutMs?: number;
  readonly telemetry?: Telemetry<ConclaveEvent>;
}

export const zkDefaults = { reads: "sync", timeoutMs: 5_000 } as const;

/** What the servers make of a wish for the longest session that there is. */
const ttlMsHuge = 2 ** 31 - 1;
const nothing = Buffer.alloc(0);

/**
 * Connects, learns what sessions are granted, and makes the chroot where it is missing.
 * @throws INVALID_OPTION, CONNECTION_REFUSED, TLS_FAILED, UNAUTHORIZED, TIMEOUT, UNSUPPORTED (older than 3.6)
 */
export async function openZooKeeper(options: ZkOptions): Promise<ZkEngine> {
  const url = parseZkUrl(options.url);
  const { reads, timeoutMs } = settle(url, options);
  const processHold = new ProcessHold(nodePlatform);
  const common = {
    tls: url.tls ? (options.tls ?? {}) : (false as const),
    platform: nodePlatform,
    credentials: url.credentials,
    servers: url.servers,
    connectTimeoutMs: timeoutMs,
  };
  processHold.retain();
  try {
    const shortest = await ZkClient.open({ ...common, ttlMs: 1 });
    const ttlMsMin = shortest.ttlMs;
    await shortest.close();
    const told = await askMembers(url.servers, { isTls: url.tls, timeoutMs: Math.min(timeoutMs, 2_000) });
    const events: Pick<MainHandlers, "current"> = { current: undefined };
    const openMain = (): Promise<ZkClient> =>
      ZkClient.open({
        ...common,
        ttlMs: ttlMsHuge,
        onEvent: ({ path }) => events.current?.onEvent(path),
        onConnected: () => events.current?.onConnected(),
      });
    const main = await openMain();
    try {
      const paths = new ZkPaths(url.root);
      const acl = url.credentials === undefined ? anybody : creator;
      const made = [
        ...url.root
          .split("/")
          .slice(1)
          .map((_, at, all) => `/${all.slice(0, at + 1).join("/")}`),
        paths.sessions,
      ];
      for (const reply of await main.call(
        made.map((path) => create(path, { data: nothing, kind: "persistent", acl })),
        { timeoutMs },
      ))
        if (reply.code !== codes.ok && reply.code !== codes.nodeExists) throw errorOfCode(reply.code, `Making ${url.root}`);
      const report: ServerReport = { ...told, ttlMsMin, ttlMsMax: Math.min(main.ttlMs, 600_000) };
      return new ZkEngine({
        url,
        reads,
        report,
        processHold,
        main,
        openMain,
        events,
        common,
        paths,
        acl,
        telemetry: options.telemetry,
      });
    } catch (error) {
      await main.close();
      throw error;
    }
  } finally {
    processHold.release();
  }
}

interface MainHandlers {
  current: { readonly onEvent: (path: string) => void; readonly onConnected: () => void } | undefined;
}

export interface ZkEngineOptions {
  readonly url: ZkUrl;
  readonly reads: "sync" | "quorum";
  readonly report: ServerReport;
  readonly processHold: ProcessHold;
  readonly main: ZkClient;
  readonly openMain: () => Promise<ZkClient>;
  readonly events: MainHandlers;
  readonly common: Omit<ZkClientOptions, "ttlMs">;
  readonly paths: ZkPaths;
  readonly acl: typeof anybody;
  readonly telemetry: Telemetry<ConclaveEvent> | undefined;
}

export class ZkEngine implements Engine {
  readonly caps: Caps;
  readonly #options: ZkEngineOptions;
  readonly #parts: ZkStoreParts;
  #main: Promise<ZkClient>;
  #closing: Promise<void> | undefined;

  constructor(options: ZkEngineOptions) {
    const { acl, common, events, main, paths, processHold, reads, report, telemetry } = options;
    const platform = nodePlatform;
    this.#options = options;
    this.#main = Promise.resolve(main);
    this.caps = zkCaps(report, { reads });
    const guesses = new Guesses();
    const mainClient = (): Promise<ZkClient> => this.#mainClient();
    const sessions = new ZkSessions({
      platform,
      processHold,
      paths,
      acl,
      telemetry,
      openClient: (wanted) => ZkClient.open({ ...common, ...wanted }),
    });
    const watches = new ZkWatches({ main: mainClient, paths, guesses, platform, processHold });
    events.current = { onEvent: (path) => watches.onEvent(path), onConnected: () => watches.onConnected() };
    const txns = {
      main: mainClient,
      sessions,
      paths,
      acl,
      limits: this.caps.limits,
      platform,
      guesses,
      known: new KnownNamespaces(),
      reads,
    };
    this.#parts = { caps: this.caps, platform, processHold, sessions, watches, txns };
  }

  store(namespace: string): Store {
    namespacePrefix(namespace);
    return new ZkStore(namespace, this.#parts);
  }

  async namespaces(options: NamespacesOptions = {}): Promise<readonly string[]> {
    const { processHold } = this.#options;
    processHold.retain();
    try {
      return pickNames(await this.#filledNamespaces(options), options);
    } finally {
      processHold.release();
    }
  }

  /** What weakens its promise as the servers are now. Asks them anew. */
  async doctor({ timeoutMs = timeoutMsDefault }: CallOptions = {}): Promise<readonly Finding[]> {
    const { reads, report, url } = this.#options;
    const told = await askMembers(url.servers, { isTls: url.tls, timeoutMs: Math.min(timeoutMs, 2_000) });
    return examine({ report: { ...report, ...told }, reads });
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #filledNamespaces({ signal, timeoutMs = timeoutMsDefault }: CallOptions): Promise<readonly string[]> {
    const { paths } = this.#options;
    const client = await this.#mainClient();
    const call = { timeoutMs, signal };
    const [, listed] = await client.call([sync(paths.root), getChildren(paths.root)], call);
    if (listed.code !== codes.ok || listed.value === undefined) throw errorOfCode(listed.code, "Listing namespaces");
    const names = listed.value.names.flatMap((name) => paths.parse(`${paths.root}/${name}`)?.namespace ?? []);
    // A container stays a while after its last key.
    const seen = await client.call(
      names.map((name) => exists(paths.namespace(name))),
      call,
    );
    return names.filter((_, at) => (seen[at]?.value?.childCount ?? 0) > 0).map(binaryStringToUtf8);
  }

  /** What is read and watched by; nothing is bound to its session, so a new one is as good when that is over. */
  async #mainClient(): Promise<ZkClient> {
    if (this.#closing !== undefined) throw conclaveError("CLOSED", "The engine was closed.");
    const opening = this.#main;
    const client = await opening.catch(() => undefined);
    if (client !== undefined && !client.isOver) return client;
    if (this.#main === opening) {
      this.#main = this.#options.openMain();
      this.#main.then(
        () => this.#parts.watches.onConnected(),
        // Whoever waits for it is told.
        () => undefined,
      );
    }
    return this.#main;
  }

  async #close(): Promise<void> {
    const { processHold, sessions, watches } = this.#parts;
    processHold.retain();
    try {
      watches.close();
      await sessions.close();
      await (await this.#main.catch(() => undefined))?.close();
    } finally {
      processHold.release();
    }
  }
}

/** Options, else the URL's parameters, else the defaults. @throws INVALID_OPTION */
function settle({ parameters }: ZkUrl, options: ZkOptions): { readonly reads: "sync" | "quorum"; readonly timeoutMs: number } {
  for (const name of parameters.keys()) {
    if (!(name in zkDefaults)) throw conclaveError("INVALID_OPTION", `A URL of ZooKeeper takes no parameter \`${name}\`.`);
  }
  const timeoutMs = options.timeoutMs ?? Number(parameters.get("timeoutMs") ?? zkDefaults.timeoutMs);
  if (!Number.isSafeInteger(timeoutMs) || timeoutMs < 1)
    throw conclaveError("INVALID_OPTION", "`timeoutMs` must be a whole number from 1.");
  const reads = options.reads ?? parameters.get("reads") ?? zkDefaults.reads;
  if (reads !== "sync" && reads !== "quorum") throw conclaveError("INVALID_OPTION", "`reads` must be sync or quorum.");
  return { reads, timeoutMs };
}
