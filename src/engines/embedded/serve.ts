/**
 * A member with an open port: what `conclave serve` runs, and what tests and tools may run in their own process.
 */
import { conclaveError } from "../../base/errors.ts";
import type { ConclaveEvent } from "../../base/event.ts";
import type { Telemetry } from "../../base/ports.ts";
import type { ProtocolName } from "../../base/protocol-name.ts";
import type { MemberOptions } from "../../replica/member.ts";
import type { ProtocolOptions } from "../../replica/protocols.ts";
import type { Replica } from "../../replica/replica.ts";
import type { MemberStatus } from "../../wire/member-status.ts";
import { connectCluster } from "./cluster-engine.ts";
import { identityOf } from "./directory-identity.ts";
import { hostMember } from "./host.ts";
import { listen } from "./listener.ts";
import { parseAddress } from "./tcp-transport.ts";

export interface ServeOptions extends ProtocolOptions {
  /** Where everything is kept. */
  readonly directory: string;
  /** This member's name in the cluster. Default "local". */
  readonly member?: string;
  /** Default "local". Clients that name another cluster are refused. */
  readonly cluster?: string;
  /** Where to listen: `host:port`; port 0 takes a free one. Default 127.0.0.1:7400. */
  readonly listen?: string;
  /**
   * Every member with the address at which the others and the clients reach it, this one included.
   * Default: this member alone, at the address where it listens.
   */
  readonly members?: ReadonlyMap<string, string>;
  /**
   * Addresses of members of a running cluster that this one is to join; one is enough. It waits, without a vote, until
   * `conclave member add` names it. Only for an empty directory; later starts know the cluster from their log.
   */
  readonly join?: readonly string[];
  /** How the members agree; the same in all of them, and for good. Default: that of the directory, raft for an empty one. */
  readonly protocol?: ProtocolName;
  readonly reception?: NonNullable<MemberOptions["reception"]>;
  readonly onEvent?: (event: ConclaveEvent) => void;
  /** The member can go on no more: close and exit. */
  readonly onHalt?: (why: string, error?: unknown) => void;
}

export interface Server extends AsyncDisposable {
  /** Where it listens, with the port that it got. */
  readonly address: string;
  status(): MemberStatus;
  /** Before a planned end: where this member leads, another takes over. Resolves when it has, or cannot. */
  handOver(): Promise<void>;
  close(): Promise<void>;
}

export const serveDefaults = { member: "local", cluster: "local", listen: "127.0.0.1:7400" } as const;

/**
 * @throws ADDRESS_IN_USE (the port cannot be had)
 * @throws DIRECTORY_IN_USE, DIRECTORY_FOREIGN, DIRECTORY_OTHER_PROTOCOL, DIRECTORY_NEWER, LOG_CORRUPT, SNAPSHOT_CORRUPT, DISK_FULL, DISK_FAILED
 */
export async function serve(options: ServeOptions): Promise<Server> {
  const { directory, reception, onEvent, onHalt, members, join, listen: _, ...rest } = options;
  const { member, listen: address } = { ...serveDefaults, ...options };
  if (members !== undefined && join !== undefined) {
    throw conclaveError("INVALID_OPTION", "`members` founds a cluster and `join` enters one: give one of them.");
  }
  const joined = join === undefined ? undefined : await lookAround(join, options);
  const cluster = options.cluster ?? joined?.cluster ?? serveDefaults.cluster;
  if (members !== undefined && !members.has(member)) {
    throw conclaveError("INVALID_OPTION", `\`members\` does not name this member, "${member}".`);
  }
  for (const each of members?.values() ?? []) parseAddress(each);
  // The port first: a member that nobody can reach must not take part.
  let accept: Parameters<typeof listen>[0]["accept"] | undefined;
  let status: (() => MemberStatus) | undefined;
  const listener = await listen({
    address,
    accept: (connection) => {
      if (accept !== undefined) return accept(connection);
      // Still recovering: whoever knocks comes back.
      connection.close();
      return { onFrame: () => undefined, onClose: () => undefined };
    },
    status: () => status?.() ?? recovering(member, cluster),
  });
  const bound = `${listener.host.includes(":") ? `[${listener.host}]` : listener.host}:${listener.port}`;
  try {
    const telemetry: Telemetry<ConclaveEvent> | undefined = onEvent === undefined ? undefined : { emit: onEvent };
    const hosted = await hostMember({
      ...rest,
      directory,
      member,
      cluster,
      addresses: members ?? new Map([...(joined?.addresses ?? []), [member, bound]]),
      joins: join !== undefined,
      ...(reception === undefined ? {} : { reception }),
      ...(telemetry === undefined ? {} : { telemetry }),
      ...(onHalt === undefined ? {} : { onHalt }),
    });
    accept = (connection) => hosted.member.accept(connection);
    status = () => hosted.member.replica.status();
    let closing: Promise<void> | undefined;
    const close = async (): Promise<void> => {
      await hosted.close();
      await listener.close();
    };
    const server: Server = {
      address: bound,
      status: () => hosted.member.replica.status(),
      handOver: () => handOver(hosted.member.replica),
      close: () => {
        closing ??= close();
        return closing;
      },
      [Symbol.asyncDispose]: () => server.close(),
    };
    return server;
  } catch (error) {
    await listener.close();
    throw error;
  }
}

/** A member whose directory knows the cluster needs nobody to tell it. @throws CONNECTION_REFUSED, WRONG_CLUSTER */
async function lookAround(
  join: readonly string[],
  { directory, cluster }: Pick<ServeOptions, "directory" | "cluster">,
): Promise<{ readonly cluster: string; readonly addresses: ReadonlyMap<string, string> } | undefined> {
  try {
    const named = cluster === undefined ? {} : { cluster };
    const client = await connectCluster({ url: `conclave://${join.join(",")}`, clientName: "a member that joins", ...named });
    try {
      const status = await client.status();
      return { cluster: status.cluster, addresses: new Map(status.peers.map(({ member, address }) => [member, address])) };
    } finally {
      await client.close();
    }
  } catch (error) {
    if ((await identityOf(directory)) === undefined) throw error;
    return undefined;
  }
}

/** The transfer itself ends within an election timeout; this is for a member that is too busy to say so. */
const handOverMsMax = 2_000;

async function handOver(replica: Replica): Promise<void> {
  const { leader, voters, halted } = replica.status();
  if (halted !== undefined || leader !== replica.member || (voters?.length ?? 1) < 2) return;
  let timer: NodeJS.Timeout | undefined;
  await new Promise<void>((resolve) => {
    timer = setTimeout(resolve, handOverMsMax);
    replica.administer({ kind: "transfer" }, () => resolve());
  });
  clearTimeout(timer);
}

function recovering(member: string, cluster: string): MemberStatus {
  return {
    member,
    cluster,
    role: "recovering",
    term: 0,
    leader: undefined,
    committedIndex: 0,
    appliedIndex: 0,
    lastIndex: 0,
    revision: 0,
    sessions: 0,
    syncs: 0,
    elapsedMs: 0,
    peers: [],
    halted: undefined,
  };
}
