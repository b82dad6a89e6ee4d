/**
 * A Cassandra of its own for a test, one node, from the artefacts that its project publishes on Maven Central: there is no
 * package of it in Debian or npm. Skipped, with the reason, where Java 17 or Maven is missing, or Maven finds no artefacts.
 */
import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePorts } from "../../src/cli/free-ports.ts";
import { noteEngine } from "./engine-report.ts";
import { acceptsTcp, installed, ServerProcess, type Skipped, serverFolder } from "./server-process.ts";

export interface CassandraServer {
  readonly port: number;
  /** With one copy of everything: there is one node. */
  readonly url: string;
  readonly process: ServerProcess;
  stop(): Promise<void>;
}

const version = "4.1.7";
const engine = "Cassandra, single";
const getIt = "Java 17 and Maven (Debian: apt-get install openjdk-17-jre-headless maven) with Maven Central in reach";
const resolveMs = 240_000;

/** What Java 17 hides from it otherwise. */
const opened = [
  "java.base/java.io",
  "java.base/java.lang",
  "java.base/java.lang.module",
  "java.base/java.nio",
  "java.base/java.util",
  "java.base/java.util.concurrent",
  "java.base/java.util.concurrent.atomic",
  "java.base/jdk.internal.loader",
  "java.base/jdk.internal.math",
  "java.base/jdk.internal.misc",
  "java.base/jdk.internal.module",
  "java.base/jdk.internal.ref",
  "java.base/jdk.internal.reflect",
  "java.base/jdk.internal.util.jar",
  "java.base/sun.nio.ch",
  "java.management.rmi/com.sun.jmx.remote.internal.rmi",
  "java.rmi/sun.rmi.registry",
  "java.rmi/sun.rmi.server",
  "java.rmi/sun.rmi.transport",
  "java.rmi/sun.rmi.transport.tcp",
  "java.sql/java.sql",
  "jdk.management/com.sun.management.internal",
];

/** `authenticates`: users must show a password; `cassandra` with `cassandra` is there. */
export async function startCassandra({
  authenticates = false,
}: {
  readonly authenticates?: boolean;
} = {}): Promise<CassandraServer | Skipped> {
  const java = installed(["java"], ["--version"]);
  const skipped =
    java === undefined
      ? "java is not installed"
      : !/\b17\./.test(java.version)
        ? `java is ${java.version}, not 17`
        : artefacts().skipped;
  if (skipped !== undefined) {
    noteEngine({ engine, skipped, getIt });
    return { skipped };
  }
  noteEngine({ engine, version });
  const folder = serverFolder("cassandra");
  const [port, storagePort] = (await freePorts(2)) as [number, number];
  writeFileSync(join(folder.path, "cassandra.yaml"), settings(folder.path, { port, storagePort, authenticates }));
  writeFileSync(join(folder.path, "logback.xml"), logging);
  const properties = {
    "jdk.attach.allowAttachSelf": "true",
    "cassandra.config": `file://${folder.path}/cassandra.yaml`,
    "cassandra.storagedir": folder.path,
    "cassandra.logdir": folder.path,
    "cassandra-foreground": "yes",
    "cassandra.superuser_setup_delay_ms": "0",
    "cassandra.skip_wait_for_gossip_to_settle": "0",
    "cassandra.ring_delay_ms": "100",
    "logback.configurationFile": `${folder.path}/logback.xml`,
  };
  const server = await ServerProcess.start({
    name: "cassandra",
    command: "java",
    folder: folder.path,
    args: [
      "-Xms256m",
      "-Xmx512m",
      "-XX:+UseSerialGC",
      "-XX:TieredStopAtLevel=1",
      // Measures objects; without it the server does so by fields that Java 17 hides.
      `-javaagent:${artefacts().folder}/jamm-0.3.2.jar`,
      ...opened.flatMap((each) => [`--add-opens=${each}=ALL-UNNAMED`, `--add-exports=${each}=ALL-UNNAMED`]),
      ...Object.entries(properties).map(([name, value]) => `-D${name}=${value}`),
      "-cp",
      `${folder.path}:${artefacts().folder}/*`,
      "org.apache.cassandra.service.CassandraDaemon",
    ],
    isReady: () => acceptsTcp(port),
    timeoutMs: 150_000,
  });
  return {
    port,
    url: `cassandra://127.0.0.1:${port}/conclave?replication=1&timeoutMs=20000`,
    process: server,
    async stop() {
      await server.kill();
      folder.remove();
    },
  };
}

let resolved: { readonly folder: string; readonly skipped?: string } | undefined;

/** Its jar files, resolved once and kept among temporary files. */
function artefacts(): { readonly folder: string; readonly skipped?: string } {
  resolved ??= resolveArtefacts();
  return resolved;
}

function resolveArtefacts(): { readonly folder: string; readonly skipped?: string } {
  const folder = join(tmpdir(), `conclave-cassandra-${version}`);
  if (existsSync(folder)) return { folder };
  if (installed(["mvn"], ["--version"]) === undefined) return { folder, skipped: "mvn is not installed" };
  const work = mkdtempSync(join(tmpdir(), "conclave-maven-"));
  try {
    writeFileSync(join(work, "pom.xml"), project);
    const jars = join(work, "jars");
    execFileSync("mvn", ["-q", "-B", "dependency:copy-dependencies", `-DoutputDirectory=${jars}`], {
      cwd: work,
      stdio: "ignore",
      timeout: resolveMs,
    });
    // Whole or not at all: another test process may be at it too.
    const whole = `${folder}.${process.pid}`;
    mkdirSync(whole, { recursive: true });
    cpSync(jars, whole, { recursive: true });
    if (existsSync(folder)) rmSync(whole, { recursive: true, force: true });
    else renameSync(whole, folder);
    return { folder };
  } catch {
    return { folder, skipped: `Maven found no org.apache.cassandra:cassandra-all:${version}` };
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

const project = `<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>conclave</groupId><artifactId>cassandra-for-tests</artifactId><version>1</version>
<dependencies><dependency><groupId>org.apache.cassandra</groupId><artifactId>cassandra-all</artifactId><version>${version}</version></dependency></dependencies>
</project>`;

const logging = `<configuration><appender name="out" class="ch.qos.logback.core.ConsoleAppender"><encoder><pattern>%-5level %d %msg%n</pattern></encoder></appender>
<root level="WARN"><appender-ref ref="out"/></root></configuration>`;

function settings(
  path: string,
  { port, storagePort, authenticates }: { readonly port: number; readonly storagePort: number; readonly authenticates: boolean },
): string {
  return `cluster_name: test
num_tokens: 1
hinted_handoff_enabled: false
authenticator: ${authenticates ? "PasswordAuthenticator" : "AllowAllAuthenticator"}
authorizer: ${authenticates ? "CassandraAuthorizer" : "AllowAllAuthorizer"}
role_manager: CassandraRoleManager
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
data_file_directories: [${path}/data]
commitlog_directory: ${path}/commitlog
saved_caches_directory: ${path}/saved
hints_directory: ${path}/hints
cdc_raw_directory: ${path}/cdc
commitlog_sync: batch
commitlog_segment_size: 4MiB
commitlog_total_space: 64MiB
memtable_heap_space: 64MiB
memtable_offheap_space: 32MiB
concurrent_compactors: 1
storage_port: ${storagePort}
listen_address: 127.0.0.1
start_native_transport: true
native_transport_port: ${port}
rpc_address: 127.0.0.1
endpoint_snitch: SimpleSnitch
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters: [{seeds: "127.0.0.1:${storagePort}"}]
`;
}
