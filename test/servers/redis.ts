/**
 * Redis or Valkey as it is installed here: single, with replicas, behind Sentinels, as a Cluster.
 *
 * `const redis = await startRedis()`, then `if ("skipped" in redis)` leave the tests out by that reason.
 * Persistence is off unless asked for; nothing is ever written outside the temporary folder.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { freePorts } from "../../src/cli/free-ports.ts";
import { Connection } from "../../src/engines/redis/connection.ts";
import type { Argument, Reply } from "../../src/engines/redis/resp.ts";
import { noteEngine } from "./engine-report.ts";
import { installed, ServerProcess, type Skipped, serverFolder } from "./server-process.ts";

export interface RedisServer {
  readonly url: string;
  readonly port: number;
  readonly process: ServerProcess;
  /** A command of the test's own. */
  command(...args: readonly Argument[]): Promise<Reply>;
  stop(): Promise<void>;
}

export interface RedisOptions {
  /** Arguments of redis-server beyond port and folder. */
  readonly args?: readonly string[];
  readonly password?: string;
  /** Of how many milliseconds ago it must have been started. Default 0. */
  readonly port?: number;
}

const getIt = "Debian: apt-get install redis-server; or valkey-server";

function findRedis(engine: string): { readonly command: string; readonly version: string } | Skipped {
  const found = installed(["redis-server", "valkey-server"], ["--version"]);
  if (found === undefined) {
    const skipped = "neither redis-server nor valkey-server is installed";
    noteEngine({ engine, skipped, getIt });
    return { skipped };
  }
  noteEngine({ engine, version: /v=([\d.]+)/.exec(found.version)?.[1] ?? found.version });
  return found;
}

/** One server. */
export async function startRedis(options: RedisOptions = {}): Promise<RedisServer | Skipped> {
  const found = findRedis("Redis, single");
  if ("skipped" in found) return found;
  return launch(found.command, options);
}

async function launch(command: string, { args = [], password, port: given }: RedisOptions): Promise<RedisServer> {
  const folder = serverFolder("redis");
  const [port] = given === undefined ? await freePorts(1) : [given];
  const secret = password === undefined ? [] : ["--requirepass", password];
  const server = await ServerProcess.start({
    name: "redis",
    command,
    folder: folder.path,
    args: [
      "--port",
      String(port),
      "--bind",
      "127.0.0.1",
      "--dir",
      folder.path,
      "--save",
      "",
      "--appendonly",
      "no",
      ...secret,
      ...args,
    ],
    isReady: () => answers(port as number, password),
  });
  return {
    url: `redis://${password === undefined ? "" : `:${password}@`}127.0.0.1:${port}`,
    port: port as number,
    process: server,
    command: (...words) => tell(port as number, words, password),
    async stop() {
      await server.stop();
      folder.remove();
    },
  };
}

/** A primary with two replicas and three Sentinels that call it `main`. */
export async function startRedisSentinel(): Promise<(RedisServers & { readonly primary: RedisServer }) | Skipped> {
  const found = findRedis("Redis, Sentinel");
  if ("skipped" in found) return found;
  const primary = await launch(found.command, { args: ["--repl-diskless-sync-delay", "0"] });
  const replica = (): Promise<RedisServer> =>
    launch(found.command, { args: ["--repl-diskless-sync-delay", "0", "--replicaof", "127.0.0.1", String(primary.port)] });
  const replicas = await Promise.all([replica(), replica()]);
  // Else the Sentinels learn of them ten seconds later.
  await until(async () => String(await primary.command("INFO", "replication")).includes("connected_slaves:2"), "two replicas");
  const sentinels = await Promise.all(
    (await freePorts(3)).map((port) => launchSentinel(found.command, { port, watched: primary.port })),
  );
  for (const { port } of sentinels) {
    await until(async () => {
      const said = String(await tell(port, ["SENTINEL", "MASTER", "main"]));
      return said.includes("num-other-sentinels,2") && said.includes("num-slaves,2");
    }, "the Sentinels know one another");
  }
  const servers = [primary, ...replicas];
  return {
    url: `redis+sentinel://${sentinels.map(({ port }) => `127.0.0.1:${port}`).join(",")}/main`,
    primary,
    servers,
    async stop() {
      await Promise.all(sentinels.map((sentinel) => sentinel.stop()));
      await Promise.all(servers.map((server) => server.stop()));
    },
  };
}

export interface RedisServers {
  readonly url: string;
  readonly servers: readonly RedisServer[];
  stop(): Promise<void>;
}

async function launchSentinel(
  command: string,
  { port, watched }: { readonly port: number; readonly watched: number },
): Promise<{ readonly port: number; stop(): Promise<void> }> {
  const folder = serverFolder("sentinel");
  const file = join(folder.path, "sentinel.conf");
  const lines = [
    `port ${port}`,
    "bind 127.0.0.1",
    `dir ${folder.path}`,
    `sentinel monitor main 127.0.0.1 ${watched} 2`,
    "sentinel down-after-milliseconds main 500",
    "sentinel failover-timeout main 3000",
    "sentinel parallel-syncs main 1",
  ];
  writeFileSync(file, `${lines.join("\n")}\n`);
  const server = await ServerProcess.start({
    name: "sentinel",
    command,
    folder: folder.path,
    args: [file, "--sentinel"],
    isReady: () => answers(port, undefined),
  });
  return {
    port,
    async stop() {
      await server.stop();
      folder.remove();
    },
  };
}

/** Three primaries with one replica each. */
export async function startRedisCluster(): Promise<RedisServers | Skipped> {
  const found = findRedis("Redis, Cluster");
  if ("skipped" in found) return found;
  const ports = await freePorts(12);
  const servers = await Promise.all(
    ports.slice(0, 6).map((port, index) =>
      launch(found.command, {
        port,
        args: [
          "--cluster-enabled",
          "yes",
          "--cluster-config-file",
          "nodes.conf",
          "--cluster-node-timeout",
          "1000",
          "--cluster-port",
          String(ports[index + 6]),
          "--repl-diskless-sync-delay",
          "0",
        ],
      }),
    ),
  );
  await joinCluster(servers, ports.slice(6));
  return {
    url: `redis+cluster://${servers.map(({ port }) => `127.0.0.1:${port}`).join(",")}`,
    servers,
    async stop() {
      await Promise.all(servers.map((server) => server.stop()));
    },
  };
}

/** What `redis-cli --cluster create` does, without needing redis-cli. */
async function joinCluster(servers: readonly RedisServer[], busPorts: readonly number[]): Promise<void> {
  const [first] = servers as [RedisServer];
  for (const [index, server] of servers.entries()) {
    await server.command("CLUSTER", "SET-CONFIG-EPOCH", index + 1);
    if (index > 0) await first.command("CLUSTER", "MEET", "127.0.0.1", server.port, busPorts[index] as number);
  }
  const primaries = servers.slice(0, 3);
  const share = Math.ceil(16_384 / primaries.length);
  for (const [index, server] of primaries.entries())
    await server.command("CLUSTER", "ADDSLOTSRANGE", index * share, Math.min(16_383, (index + 1) * share - 1));
  await until(async () => {
    const known = await Promise.all(servers.map(async (server) => String(await server.command("CLUSTER", "INFO"))));
    return known.every((info) => info.includes(`cluster_known_nodes:${servers.length}`) && info.includes("cluster_state:ok"));
  }, "every node knows every other");
  for (const [index, server] of servers.slice(3).entries()) {
    const id = String(await (primaries[index] as RedisServer).command("CLUSTER", "MYID"));
    await until(async () => String(await server.command("CLUSTER", "REPLICATE", id)) === "OK", "the replica knows its primary");
  }
  for (const server of primaries)
    await until(async () => String(await server.command("INFO", "replication")).includes("connected_slaves:1"), "a replica each");
}

async function answers(port: number, password: string | undefined): Promise<boolean> {
  return String(await tell(port, ["PING"], password)) === "PONG";
}

async function tell(port: number, words: readonly Argument[], password?: string): Promise<Reply> {
  const connection = await Connection.open(
    { host: "127.0.0.1", port },
    { tls: false, username: undefined, password, database: 0, clientName: "test", timeoutMs: 2_000 },
  );
  try {
    return await connection.call(words);
  } finally {
    connection.destroy();
  }
}

async function until(isSo: () => Promise<boolean>, what: string): Promise<void> {
  const untilMs = performance.now() + 30_000;
  while (!(await isSo().catch(() => false))) {
    if (performance.now() > untilMs) throw new Error(`Not within 30 s: ${what}.`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
