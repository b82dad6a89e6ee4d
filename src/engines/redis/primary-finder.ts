/**
 * Who is the primary now: the one address of a URL, what the Sentinels say, or the owner of our slot in a Cluster.
 *
 * All state of a group lives in one slot, so in a Cluster too there is one server to talk to; MOVED tells when it changes.
 * Sources: redis.io "Guidelines for Redis clients with support for Redis Sentinel"; Cluster specification, "Client
 * redirection".
 */
import { ConclaveError, conclaveError } from "../../base/errors.ts";
import { type Address, addressText, type RedisUrl } from "./address.ts";
import { Connection, type ConnectionSettings, errorOfReply } from "./connection.ts";
import { type Argument, type Reply, RespError } from "./resp.ts";
import { listOf, numberOf, textOf } from "./txn-codec.ts";

export interface PrimaryFinder {
  /** Opens a connection to the primary. @throws what kept it from that */
  open(): Promise<Connection>;
  /** A server has said that our slot lives there. */
  onMoved(address: Address): void;
  /** Whether another try may find another server. */
  readonly follows: boolean;
}

export function primaryFinder(url: RedisUrl, slot: number, settings: ConnectionSettings): PrimaryFinder {
  switch (url.kind) {
    case "single":
      return new SingleFinder(url.addresses[0] as Address, settings);
    case "sentinel":
      return new SentinelFinder(url, settings);
    case "cluster":
      return new ClusterFinder(url.addresses, slot, settings);
  }
}

class SingleFinder implements PrimaryFinder {
  readonly follows = false;
  readonly #address: Address;
  readonly #settings: ConnectionSettings;

  constructor(address: Address, settings: ConnectionSettings) {
    this.#address = address;
    this.#settings = settings;
  }

  async open(): Promise<Connection> {
    return asPrimary(await Connection.open(this.#address, this.#settings));
  }

  onMoved(address: Address): void {
    throw conclaveError(
      "INVALID_OPTION",
      `${addressText(this.#address)} is a node of a Cluster and sends us to ${addressText(address)}: write redis+cluster:.`,
    );
  }
}

class SentinelFinder implements PrimaryFinder {
  readonly follows = true;
  readonly #url: RedisUrl;
  readonly #settings: ConnectionSettings;
  /** The Sentinel that answered last comes first. */
  #sentinels: readonly Address[];

  constructor(url: RedisUrl, settings: ConnectionSettings) {
    this.#url = url;
    this.#settings = settings;
    this.#sentinels = url.addresses;
  }

  async open(): Promise<Connection> {
    const name = this.#url.primaryName as string;
    // A Sentinel has no databases, and rarely the password of what it watches.
    const settings = { ...this.#settings, database: 0, username: undefined, password: undefined };
    const address = await firstAnswer(this.#sentinels, async (sentinel) => {
      const found = await ask(sentinel, settings, ["SENTINEL", "get-master-addr-by-name", name]);
      if (found === null)
        throw conclaveError("INVALID_OPTION", `Sentinel ${addressText(sentinel)} watches nothing called "${name}".`);
      this.#sentinels = [sentinel, ...this.#sentinels.filter((each) => each !== sentinel)];
      const [host, port] = listOf(found);
      return { host: textOf(host), port: numberOf(port) };
    });
    return asPrimary(await Connection.open(address, this.#settings));
  }

  onMoved(): void {
    throw conclaveError("INVALID_OPTION", "What the Sentinels watch is a node of a Cluster: write redis+cluster:.");
  }
}

class ClusterFinder implements PrimaryFinder {
  readonly follows = true;
  readonly #slot: number;
  readonly #settings: ConnectionSettings;
  /** Every node that we have heard of, the likeliest first. */
  #nodes: readonly Address[];
  #moved: Address | undefined;

  constructor(nodes: readonly Address[], slot: number, settings: ConnectionSettings) {
    this.#nodes = nodes;
    this.#slot = slot;
    this.#settings = settings;
  }

  async open(): Promise<Connection> {
    const moved = this.#moved;
    this.#moved = undefined;
    const owner = moved ?? (await this.#owner());
    return Connection.open(owner, this.#settings);
  }

  onMoved(address: Address): void {
    this.#moved = address;
  }

  #owner(): Promise<Address> {
    return firstAnswer(this.#nodes, async (node) => {
      const slots = listOf(await ask(node, this.#settings, ["CLUSTER", "SLOTS"]));
      const nodes: Address[] = [];
      let owner: Address | undefined;
      for (const range of slots) {
        const [from, to, ...servers] = listOf(range);
        const addresses = servers.map((server) => nodeAddress(server, node));
        nodes.push(...addresses);
        if (numberOf(from) <= this.#slot && this.#slot <= numberOf(to)) owner = addresses[0];
      }
      if (nodes.length > 0) this.#nodes = unique([...nodes, ...this.#nodes]);
      if (owner === undefined)
        throw conclaveError("ENGINE_REFUSED", `No node of the Cluster serves slot ${this.#slot}, says ${addressText(node)}.`);
      return owner;
    });
  }
}

/** An empty host means the node that was asked. */
function nodeAddress(server: Reply, asked: Address): Address {
  const [host, port] = listOf(server);
  const name = host === null || host === undefined ? "" : textOf(host);
  return { host: name === "" || name === "?" ? asked.host : name, port: numberOf(port) };
}

function unique(addresses: readonly Address[]): Address[] {
  return [...new Map(addresses.map((address) => [addressText(address), address])).values()].slice(0, 100);
}

/** The first that answers; the last one's error when none does. */
async function firstAnswer<T>(addresses: readonly Address[], attempt: (address: Address) => Promise<T>): Promise<T> {
  let failure: unknown;
  for (const address of addresses) {
    try {
      return await attempt(address);
    } catch (error) {
      failure = error;
      if (error instanceof ConclaveError && error.code === "INVALID_OPTION") break;
    }
  }
  throw failure;
}

async function ask(address: Address, settings: ConnectionSettings, args: readonly Argument[]): Promise<Reply> {
  const connection = await Connection.open(address, settings);
  try {
    const reply = await connection.call(args);
    if (reply instanceof RespError) throw errorOfReply(reply, address);
    return reply;
  } finally {
    connection.destroy();
  }
}

/** @throws READ_ONLY, UNAUTHORIZED (it may not say) */
async function asPrimary(connection: Connection): Promise<Connection> {
  const reply = await connection.call(["ROLE"]);
  // Whoever may not ask learns it from the first write.
  const role = Array.isArray(reply) ? textOf(reply[0]) : "master";
  if (role === "master") return connection;
  connection.destroy();
  throw conclaveError("READ_ONLY", `${addressText(connection.address)} is a ${role}: nothing can be written there.`);
}
