/**
 * ZooKeeper as it is installed here (the jar of Debian's libzookeeper-java): one server, or three.
 *
 * `const zookeeper = await startZooKeeper()`, then `if ("skipped" in zookeeper)` leave the tests out by that reason.
 */
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { freePorts } from "../../src/cli/free-ports.ts";
import { noteEngine } from "./engine-report.ts";
import { installed, ServerProcess, type Skipped, serverFolder } from "./server-process.ts";

export interface ZooKeeperServer {
  readonly port: number;
  readonly process: ServerProcess;
}

export interface ZooKeeperEnsemble {
  /** `zookeeper://a,b,c`. */
  readonly url: string;
  readonly port: number;
  readonly servers: readonly ZooKeeperServer[];
  /** A four-letter word to one server. */
  word(port: number, text: string): Promise<string>;
  leader(): Promise<ZooKeeperServer>;
  stop(): Promise<void>;
}

export interface ZooKeeperOptions {
  readonly servers?: 1 | 3;
  /** More lines of zoo.cfg. */
  readonly lines?: readonly string[];
  /** Properties of the virtual machine: `-Dname=value`. */
  readonly properties?: readonly string[];
  /** With a second port that speaks TLS alone. `pem`: key and certificate in one file. */
  readonly tls?: { readonly port: number; readonly pem: string };
}

const jars = ["/usr/share/java/zookeeper.jar", "/usr/share/java/slf4j-simple.jar"];
/** What ZooKeeper speaks TLS by. Debian: libnetty-java, which libzookeeper-java wants. */
export const tlsJars = [
  "buffer",
  "codec",
  "common",
  "handler",
  "resolver",
  "transport",
  "transport-native-epoll",
  "transport-native-unix-common",
].map((part) => `/usr/share/java/netty-${part}.jar`);
const getIt = "Debian: apt-get install libzookeeper-java libslf4j-java default-jre-headless";

export async function startZooKeeper({
  servers: count = 1,
  lines = [],
  properties = [],
  tls,
}: ZooKeeperOptions = {}): Promise<ZooKeeperEnsemble | Skipped> {
  const engine = count === 1 ? "ZooKeeper, one server" : "ZooKeeper, three servers";
  const java = installed(["java"], ["-version"]);
  if (java === undefined || !existsSync(jars[0] as string)) {
    const skipped = java === undefined ? "java is not installed" : `${jars[0]} is not installed`;
    noteEngine({ engine, skipped, getIt });
    return { skipped };
  }
  const ports = await freePorts(3 * count);
  const folders = Array.from({ length: count }, (_, index) => serverFolder(`zookeeper${index + 1}`));
  const peers =
    count === 1
      ? []
      : folders.map((_, index) => `server.${index + 1}=127.0.0.1:${ports[count + index]}:${ports[2 * count + index]}`);
  const servers = await Promise.all(
    folders.map(async (folder, index): Promise<ZooKeeperServer> => {
      const port = ports[index] as number;
      mkdirSync(join(folder.path, "data"), { recursive: true });
      writeFileSync(join(folder.path, "data", "myid"), `${index + 1}\n`);
      const configuration = [
        "tickTime=500",
        "initLimit=20",
        "syncLimit=10",
        `dataDir=${join(folder.path, "data")}`,
        `clientPort=${port}`,
        "clientPortAddress=127.0.0.1",
        "admin.enableServer=false",
        "4lw.commands.whitelist=*",
        "maxClientCnxns=0",
        "minSessionTimeout=1500",
        "maxSessionTimeout=60000",
        ...(tls === undefined ? [] : [`secureClientPort=${tls.port}`, "secureClientPortAddress=127.0.0.1"]),
        ...peers,
        ...lines,
      ];
      writeFileSync(join(folder.path, "zoo.cfg"), `${configuration.join("\n")}\n`);
      const process = await ServerProcess.start({
        name: "zookeeper",
        command: java.command,
        folder: folder.path,
        args: [
          ...["-Xmx96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dzookeeper.extendedTypesEnabled=true"],
          ...["-Dznode.container.checkIntervalMs=1000", ...properties, ...(tls === undefined ? [] : tlsProperties(tls.pem))],
          ...[
            "-cp",
            [...jars, ...(tls === undefined ? [] : tlsJars)].join(":"),
            "org.apache.zookeeper.server.quorum.QuorumPeerMain",
            join(folder.path, "zoo.cfg"),
          ],
        ],
        isReady: async () => (await word(port, "srvr")).includes("Mode:"),
        timeoutMs: 60_000,
      });
      return { port, process };
    }),
  );
  const version = /version: ([\d.]+)/.exec(await word(ports[0] as number, "srvr"))?.[1] ?? "of unknown version";
  noteEngine({ engine, version });
  return {
    url: `zookeeper://${servers.map(({ port }) => `127.0.0.1:${port}`).join(",")}`,
    port: ports[0] as number,
    servers,
    word,
    async leader() {
      for (const server of servers) if ((await word(server.port, "srvr").catch(() => "")).includes("Mode: leader")) return server;
      throw new Error("ZooKeeper has no leader.");
    },
    async stop() {
      await Promise.all(servers.map(({ process }) => process.stop()));
      for (const folder of folders) folder.remove();
    },
  };
}

function tlsProperties(pem: string): readonly string[] {
  return [
    "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory",
    `ssl.keyStore.location=${pem}`,
    "ssl.keyStore.type=PEM",
    `ssl.trustStore.location=${pem}`,
    "ssl.trustStore.type=PEM",
    "ssl.clientAuth=none",
  ].map((property) => `-Dzookeeper.${property}`);
}

function word(port: number, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: "127.0.0.1", port });
    let said = "";
    socket.setTimeout(2_000, () => socket.destroy(new Error("no answer")));
    socket.once("connect", () => socket.write(text));
    socket.on("data", (chunk: Buffer) => {
      said += chunk.toString();
    });
    socket.once("error", reject);
    socket.once("close", () => resolve(said));
  });
}
