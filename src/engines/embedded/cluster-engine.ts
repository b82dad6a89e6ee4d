/**
 * `conclave://a:7400,b:7400,c:7400`: the client of a cluster over TCP.
 */
import { utf8Encode } from "../../base/bytes.ts";
import { conclaveError } from "../../base/errors.ts";
import type { ConclaveEvent } from "../../base/event.ts";
import type { Telemetry } from "../../base/ports.ts";
import { isProtocolName, type ProtocolName, protocolDefault, protocolNames } from "../../base/protocol-name.ts";
import { Client } from "../../client/client.ts";
import type { LeaseKeeping } from "../../client/stall-keeper.ts";
import { nodePlatform } from "../../host/node-platform.ts";
import { ThreadKeeper } from "../../host/thread-keeper.ts";
import { embeddedCaps } from "./embedded-caps.ts";
import { parseAddress, TcpTransport } from "./tcp-transport.ts";

export interface ClusterOptions {
  readonly url: string;
  readonly cluster?: string;
  readonly credential?: string | Uint8Array;
  /** Refuse a cluster that agrees by another protocol. Default: whichever it runs. */
  readonly protocol?: ProtocolName;
  readonly telemetry?: Telemetry<ConclaveEvent>;
  readonly clientName?: string;
  /** How long the first answer may take. Milliseconds. Default 5_000. */
  readonly timeoutMs?: number;
  /** Gives up waiting for it; rejects with its reason. */
  readonly signal?: AbortSignal;
}

const defaultPort = 7400;
const timeoutMsDefault = 5_000;

/**
 * Resolves once a member has answered.
 * @throws INVALID_OPTION, CONNECTION_REFUSED, WRONG_CLUSTER, WRONG_PROTOCOL, OTHER_PROTOCOL, UNAUTHORIZED
 */
export async function connectCluster(options: ClusterOptions): Promise<Client> {
  const { url, cluster, credential, telemetry, clientName, protocol, signal, timeoutMs = timeoutMsDefault } = options;
  const settings: ClusterOptions = {
    url,
    timeoutMs,
    clientName: `${clientName ?? `pid ${process.pid}`}, keeper`,
    ...(cluster === undefined ? {} : { cluster }),
    ...(credential === undefined ? {} : { credential }),
    ...(protocol === undefined ? {} : { protocol }),
  };
  const client = new Client({
    platform: nodePlatform,
    transport: new TcpTransport(),
    addresses: addressesOf(options.url),
    caps: embeddedCaps("cluster", options.protocol ?? protocolDefault),
    ...(cluster === undefined ? {} : { cluster }),
    ...(credential === undefined ? {} : { credential: typeof credential === "string" ? utf8Encode(credential) : credential }),
    ...(telemetry === undefined ? {} : { telemetry }),
    clientName: clientName ?? `pid ${process.pid}`,
    stallKeeper: new ThreadKeeper({ module: import.meta.url, settings, platform: nodePlatform, telemetry }),
  });
  try {
    // Any member will do: who leads is found with the first call.
    const status = await client.status(undefined, { timeoutMs, ...(signal === undefined ? {} : { signal }) });
    const found = status.protocol ?? protocolDefault;
    if (!isProtocolName(found) || (options.protocol !== undefined && options.protocol !== found)) {
      const wanted = options.protocol ?? `one of ${protocolNames.join(", ")}`;
      throw conclaveError(
        "OTHER_PROTOCOL",
        `The members of "${status.cluster}" agree by ${found}; the caller asked for ${wanted}.`,
      );
    }
    client.promises(embeddedCaps("cluster", found));
    return client;
  } catch (error) {
    await client.close();
    throw error;
  }
}

/** In the thread of a keeper. */
export function openLeases(settings: unknown): Promise<LeaseKeeping> {
  return connectCluster(settings as ClusterOptions);
}

/** `conclave://host[:port][,host[:port]...]`. @throws INVALID_OPTION */
export function addressesOf(url: string): readonly string[] {
  const list = /^conclave:\/\/([^/?#]+)\/?$/i.exec(url)?.[1];
  if (list === undefined) throw conclaveError("INVALID_OPTION", `"${url}" is not of the form conclave://host:port,host:port.`);
  return list.split(",").map((part) => {
    const address = /:\d+$/.test(part) ? part : `${part}:${defaultPort}`;
    parseAddress(address);
    return address;
  });
}
