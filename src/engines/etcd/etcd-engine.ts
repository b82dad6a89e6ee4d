/**
 * etcd v3 behind the waist: `connect("etcd://a:2379,b:2379,c:2379")`.
 *
 *   store.txn ─► one Txn (compare, then, else) ─► link: one connection, one member at a time
 *   store.watch ◄─ one stream of watches for the process
 *   session ─► a lease; one stream of keep-alives for the process; the holder's own clock says when to stop
 *
 * What it promises, and what breaks it: docs/engines/etcd.md. Why over @grpc/grpc-js: docs/decisions/0021.
 */
import type { ConnectionOptions as TlsOptions } from "node:tls";
import { conclaveError } from "../../base/errors.ts";
import type { ConclaveEvent } from "../../base/event.ts";
import type { Platform, Telemetry } from "../../base/ports.ts";
import { ProcessHold } from "../../client/process-hold.ts";
import type { ClientSession } from "../../client/session.ts";
import type { LeaseKeeping, LeaseToKeep, StallKeeper } from "../../client/stall-keeper.ts";
import { nodePlatform } from "../../host/node-platform.ts";
import { ThreadKeeper } from "../../host/thread-keeper.ts";
import type { Caps } from "../../store/caps.ts";
import type { Finding } from "../../store/finding.ts";
import { namespacePrefix } from "../../store/key.ts";
import { findNamespaces } from "../../store/namespaces.ts";
import type { CallOptions, Engine, NamespacesOptions, Store } from "../../store/store.ts";
import { type EtcdUrl, parseEtcdUrl } from "./address.ts";
import { examine } from "./doctor.ts";
import { etcdCaps } from "./etcd-caps.ts";
import { EtcdSessions } from "./etcd-sessions.ts";
import { type EtcdParts, EtcdStore, runTxn, timeoutMsDefault } from "./etcd-store.ts";
import { adoptGrpcClient, loadGrpc } from "./grpc.ts";
import { EtcdKeys } from "./keys.ts";
import { EtcdLink } from "./link.ts";
import { decodeTxn, encodeTxn, paths } from "./messages.ts";
import { readServerReport, type ServerReport } from "./server-report.ts";
import { WatchStream } from "./watch-stream.ts";

export interface EtcdOptions {
  /** See `parseEtcdUrl`. */
  readonly url: string;
  /** What every key begins with; what begins otherwise is never touched. Default "conclave/". */
  readonly prefix?: string;
  /** A `Client` of `@grpc/grpc-js` of the user's own; its credentials and closing stay the user's. */
  readonly client?: unknown;
  /** For `etcds:`: `ca`, `cert`, `key` as PEM, and `servername`. */
  readonly tls?: TlsOptions;
  /** How long the first answer may take. Milliseconds. Default 5_000. */
  readonly timeoutMs?: number;
  readonly telemetry?: Telemetry<ConclaveEvent>;
}

export const etcdDefaults = { prefix: "conclave/", timeoutMs: 5_000 } as const;

/**
 * Connects, and asks the members what they are.
 * @throws INVALID_OPTION, FOREIGN_CLIENT, UNSUPPORTED (no @grpc/grpc-js), CONNECTION_REFUSED, TLS_FAILED, UNAUTHORIZED, NO_QUORUM, TIMEOUT
 */
export async function openEtcd(options: EtcdOptions): Promise<EtcdEngine> {
  const url = parseEtcdUrl(options.url);
  const { prefix, timeoutMs } = settle(url, options);
  const { password, username } = url;
  if ((username === undefined) !== (password === undefined))
    throw conclaveError("INVALID_OPTION", "A URL of etcd names a user and a password, or none of them.");
  const grpc =
    options.client === undefined ? await loadGrpc(url.tls ? (options.tls ?? {}) : false) : adoptGrpcClient(options.client);
  const processHold = new ProcessHold(nodePlatform);
  const link = new EtcdLink({
    grpc,
    endpoints: url.endpoints,
    user: username === undefined || password === undefined ? undefined : { name: username, password },
    platform: nodePlatform,
    processHold,
  });
  try {
    const report = await readServerReport(link, { timeoutMs });
    const { client, telemetry, ...settings } = options;
    // A client of the user's own cannot be taken to another thread.
    const stallKeeper =
      client === undefined
        ? new ThreadKeeper({ module: import.meta.url, settings, platform: nodePlatform, telemetry })
        : undefined;
    return new EtcdEngine({ link, report, keys: new EtcdKeys(prefix), processHold, stallKeeper, telemetry });
  } catch (error) {
    link.close();
    throw error;
  }
}

/** In the thread of a keeper. */
export function openLeases(settings: unknown): Promise<LeaseKeeping> {
  return openEtcd(settings as EtcdOptions);
}

export interface EtcdEngineOptions {
  readonly link: EtcdLink;
  readonly report: ServerReport;
  readonly keys: EtcdKeys;
  readonly processHold: ProcessHold;
  readonly stallKeeper: StallKeeper | undefined;
  readonly telemetry: Telemetry<ConclaveEvent> | undefined;
}

export class EtcdEngine implements Engine, LeaseKeeping {
  readonly caps: Caps;
  readonly #parts: EtcdParts;
  readonly #processHold: ProcessHold;
  #closing: Promise<void> | undefined;

  constructor({ keys, link, processHold, report, stallKeeper, telemetry }: EtcdEngineOptions) {
    const platform: Platform = nodePlatform;
    const caps = { ...etcdCaps(report), stallKeeper: stallKeeper !== undefined };
    this.caps = caps;
    this.#processHold = processHold;
    const sessions = new EtcdSessions({ platform, processHold, link, stallKeeper, telemetry });
    const watches = new WatchStream({
      link,
      keys,
      platform,
      processHold,
      read: async (range) => {
        const op = { kind: "range", range, order: "key", descending: false, keysOnly: false } as const;
        const reading = { ...op, limit: null, createdBefore: null, atRevision: null };
        const txn = { kind: "txn", claim: null, compares: [], then: [reading], else: [] } as const;
        const { results, revision } = await runTxn({ caps, keys, link, platform }, txn, {});
        const [found] = results;
        return { revision, entries: found?.kind === "range" ? found.entries : [] };
      },
    });
    link.onMove = () => {
      sessions.onMove();
      watches.onMove();
    };
    this.#parts = { caps, platform, link, keys, sessions, watches };
  }

  store(namespace: string): Store {
    namespacePrefix(namespace);
    return new EtcdStore(namespace, this.#parts);
  }

  namespaces(options: NamespacesOptions = {}): Promise<readonly string[]> {
    const { keys, link } = this.#parts;
    const { signal, timeoutMs = timeoutMsDefault } = options;
    return findNamespaces(options, async (range, limit) => {
      const then = [{ kind: "range", span: keys.span(range), keysOnly: true, limit }] as const;
      const request = encodeTxn({ compares: [], then, else: [] });
      const [listed] = decodeTxn(await link.call(paths.txn, request, { timeoutMs, signal })).answers;
      return listed?.kind === "range" ? listed.entries.map((found) => keys.wholeEntry(found).binaryKey) : [];
    });
  }

  /** In the thread of a keeper: keeps alive a session of another thread. */
  adopt(lease: LeaseToKeep): ClientSession {
    return this.#parts.sessions.adopt(lease);
  }

  /** What weakens its promise as the members are now. Asks them anew. */
  async doctor({ timeoutMs = timeoutMsDefault, signal }: CallOptions = {}): Promise<readonly Finding[]> {
    return examine(await readServerReport(this.#parts.link, { timeoutMs, signal }));
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(): Promise<void> {
    const { link, sessions, watches } = this.#parts;
    this.#processHold.retain();
    try {
      watches.close();
      await sessions.close();
      link.close();
    } finally {
      this.#processHold.release();
    }
  }
}

/** Options, else the URL's parameters, else the defaults. @throws INVALID_OPTION */
function settle({ parameters }: EtcdUrl, options: EtcdOptions): { readonly prefix: string; readonly timeoutMs: number } {
  for (const name of parameters.keys()) {
    if (!(name in etcdDefaults)) throw conclaveError("INVALID_OPTION", `A URL of etcd takes no parameter \`${name}\`.`);
  }
  const timeoutMs = options.timeoutMs ?? Number(parameters.get("timeoutMs") ?? etcdDefaults.timeoutMs);
  if (!Number.isSafeInteger(timeoutMs) || timeoutMs < 1)
    throw conclaveError("INVALID_OPTION", "`timeoutMs` must be a whole number from 1.");
  const prefix = options.prefix ?? parameters.get("prefix") ?? etcdDefaults.prefix;
  // An empty one would let the namespace decide whether foreign keys are touched.
  if (!/^[\x21-\x7e]{1,128}$/.test(prefix))
    throw conclaveError("INVALID_OPTION", "`prefix` must be 1 to 128 printable ASCII characters without spaces.");
  return { prefix, timeoutMs };
}
