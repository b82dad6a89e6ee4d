/**
 * `memory:` and `file:`: a cluster of one on the caller's thread. The same member, door and client as over the network,
 * with a transport that ends in the same process; a second process is told how to share instead.
 */
import type { ConclaveEvent } from "../../base/event.ts";
import type { Telemetry } from "../../base/ports.ts";
import type { ProtocolName } from "../../base/protocol-name.ts";
import { Client } from "../../client/client.ts";
import { MemoryTransport } from "../../client/memory-transport.ts";
import { nodePlatform } from "../../host/node-platform.ts";
import type { Caps } from "../../store/caps.ts";
import type { Engine, NamespacesOptions, Store } from "../../store/store.ts";
import { embeddedCaps } from "./embedded-caps.ts";
import { type HostedMember, hostMember } from "./host.ts";

export interface InProcessOptions {
  /** Undefined: `memory:`. */
  readonly directory: string | undefined;
  /** Default: that of the directory, raft for an empty one and for `memory:`. */
  readonly protocol?: ProtocolName;
  readonly telemetry?: Telemetry<ConclaveEvent>;
}

const address = "local";

/** @throws DIRECTORY_IN_USE, DIRECTORY_FOREIGN, DIRECTORY_OTHER_PROTOCOL, DIRECTORY_NEWER, LOG_CORRUPT, SNAPSHOT_CORRUPT, DISK_FULL, DISK_FAILED */
export async function openInProcess(options: InProcessOptions): Promise<InProcessEngine> {
  const { directory, protocol, telemetry } = options;
  const observed = telemetry === undefined ? {} : { telemetry };
  const addresses = new Map([["local", address]]);
  const hosted = await hostMember({
    directory,
    member: "local",
    cluster: "local",
    addresses,
    ...(protocol === undefined ? {} : { protocol }),
    ...observed,
  });
  const transport = new MemoryTransport({ platform: nodePlatform });
  transport.listen(address, (connection) => hosted.member.accept(connection));
  const caps = embeddedCaps(directory === undefined ? "memory" : "file", hosted.member.replica.protocol);
  return new InProcessEngine(new Client({ platform: nodePlatform, transport, addresses: [address], caps, ...observed }), hosted);
}

export class InProcessEngine implements Engine {
  readonly caps: Caps;
  readonly #client: Client;
  readonly #hosted: HostedMember;

  constructor(client: Client, hosted: HostedMember) {
    this.caps = client.caps;
    this.#client = client;
    this.#hosted = hosted;
  }

  store(namespace: string): Store {
    return this.#client.store(namespace);
  }

  namespaces(options?: NamespacesOptions): Promise<readonly string[]> {
    return this.#client.namespaces(options);
  }

  /** Says goodbye first, so that sessions end now instead of by their TTL after the next start. */
  async close(): Promise<void> {
    await this.#client.close();
    await this.#hosted.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
