/**
 * A PostgreSQL of its own for a test: durable, with room for prepared transactions; a replica that follows it, and a
 * PgBouncer before it. Skipped, with the reason, where none is installed.
 */
import type { ChildProcess } from "node:child_process";
import { appendFileSync, chmodSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { freePorts } from "../../src/cli/free-ports.ts";
import { canConnect, ended, findProgram, runCommand, startProcess, until } from "./database-process.ts";
import { noteEngine } from "./engine-report.ts";

export interface DatabaseServer {
  readonly url: string;
  readonly port: number;
  /** Of the server. */
  readonly pid: () => number;
  /** SIGKILL, to the whole server. */
  kill(): Promise<void>;
  /** After `kill`: on the same data and port. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

export type Started = DatabaseServer | { readonly skipped: string };

export interface PostgresServer extends DatabaseServer {
  /** One statement, as the superuser; the rows. */
  query(text: string, values?: unknown[]): Promise<readonly Record<string, unknown>[]>;
  /** The server and its backends stand still. */
  pause(): Promise<void>;
  resume(): Promise<void>;
}

export interface PostgresOptions {
  /** `name=value`, as after `-c`. */
  readonly settings?: readonly string[];
  /** Lines of pg_hba.conf, before those that trust everybody here. */
  readonly hba?: readonly string[];
  /** Files for the data directory: name and content, readable by the server alone. */
  readonly files?: Readonly<Record<string, string>>;
}

interface Installed {
  /** Program and arguments, under the user that PostgreSQL runs as. */
  readonly run: (program: string, args: readonly string[]) => readonly [string, readonly string[]];
  readonly folder: string;
}

const getIt = "Debian: apt-get install postgresql pgbouncer";

export async function startPostgres(options: PostgresOptions = {}): Promise<PostgresServer | { readonly skipped: string }> {
  const installed = await install("PostgreSQL, single");
  if ("skipped" in installed) return installed;
  const { folder, run } = installed;
  const data = join(folder, "data");
  const [initdb, initArgs] = run("initdb", [
    "-D",
    data,
    "-U",
    "postgres",
    "-A",
    "trust",
    "--no-sync",
    "-E",
    "UTF8",
    "--no-locale",
  ]);
  await runCommand(initdb, [...initArgs], { cwd: folder });
  await addFiles(data, options);
  return launch(installed, data, options.settings ?? []);
}

/** Follows the primary, by streaming. `promote` makes it one. */
export async function startReplica(
  primary: Pick<PostgresServer, "port">,
): Promise<(PostgresServer & { promote(): Promise<void> }) | { readonly skipped: string }> {
  const installed = await install("PostgreSQL, with a replica");
  if ("skipped" in installed) return installed;
  const { folder, run } = installed;
  const data = join(folder, "data");
  const from = ["-h", "127.0.0.1", "-p", String(primary.port), "-U", "postgres"];
  const [backup, args] = run("pg_basebackup", ["-D", data, ...from, "-R", "--checkpoint=fast", "--no-sync"]);
  await runCommand(backup, [...args], { cwd: folder });
  const server = await launch(installed, data, ["hot_standby=on"]);
  return {
    ...server,
    async promote() {
      await server.query("SELECT pg_promote(true, 30)");
    },
  };
}

/** A PgBouncer in transaction mode (or another) before the server. */
export async function startPgBouncer(
  server: PostgresServer,
  { mode = "transaction" }: { readonly mode?: "transaction" | "session" } = {},
): Promise<{ readonly url: string; readonly port: number; stop(): Promise<void> } | { readonly skipped: string }> {
  const program = findProgram("pgbouncer");
  const engine = "PgBouncer before PostgreSQL";
  if (program === null) {
    noteEngine({ engine, skipped: "pgbouncer is not installed", getIt });
    return { skipped: "pgbouncer is not installed" };
  }
  const installed = await install("PostgreSQL, single");
  if ("skipped" in installed) return installed;
  noteEngine({ engine, version: (await runCommand(program, ["--version"])).stdout.split("\n")[0] ?? "" });
  const { folder } = installed;
  const [port] = (await freePorts(1)) as [number];
  const file = join(folder, "pgbouncer.ini");
  writeFileSync(
    file,
    [
      "[databases]",
      `postgres = host=127.0.0.1 port=${server.port} dbname=postgres user=postgres`,
      "[pgbouncer]",
      "listen_addr = 127.0.0.1",
      `listen_port = ${port}`,
      "unix_socket_dir =",
      "auth_type = any",
      `pool_mode = ${mode}`,
      "default_pool_size = 4",
      "max_client_conn = 200",
    ].join("\n"),
  );
  const [command, args] = asServerUser(program, [file]);
  const child = startProcess(command, args, join(folder, "bouncer.log"));
  await until(() => canConnect(port));
  return {
    url: `postgres://postgres@127.0.0.1:${port}/postgres`,
    port,
    async stop() {
      child.kill("SIGKILL");
      await ended(child);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

async function install(engine: string): Promise<Installed | { readonly skipped: string }> {
  const bin = postgresFolder();
  const skipped =
    bin === null
      ? "PostgreSQL is not installed"
      : isRoot && findProgram("setpriv") === null
        ? "PostgreSQL refuses to run as root and setpriv is not installed"
        : undefined;
  if (bin === null || skipped !== undefined) {
    noteEngine({ engine, skipped: skipped ?? "", getIt });
    return { skipped: skipped ?? "" };
  }
  noteEngine({ engine, version: /[\d.]+/.exec((await runCommand(join(bin, "postgres"), ["--version"])).stdout)?.[0] ?? "" });
  const folder = mkdtempSync(join(tmpdir(), "conclave-pg-"));
  await owned(folder);
  chmodSync(folder, 0o755);
  return { folder, run: (program, args) => asServerUser(join(bin, program), args) };
}

const isRoot = userInfo().uid === 0;

/** Root starts it under its own user: PostgreSQL refuses root. */
function asServerUser(program: string, args: readonly string[]): readonly [string, readonly string[]] {
  const as = isRoot ? ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] : [];
  const [first, ...rest] = [...as, program, ...args];
  return [first as string, rest];
}

async function owned(path: string): Promise<void> {
  if (isRoot) await runCommand("chown", ["postgres", path]);
}

async function addFiles(data: string, { files = {}, hba = [] }: PostgresOptions): Promise<void> {
  for (const [name, content] of Object.entries(files)) {
    writeFileSync(join(data, name), content, { mode: 0o600 });
    await owned(join(data, name));
  }
  if (hba.length === 0) return;
  const file = join(data, "pg_hba.conf");
  writeFileSync(file, `${hba.join("\n")}\n`);
  appendFileSync(file, "host all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n");
}

async function launch({ folder, run }: Installed, data: string, more: readonly string[]): Promise<PostgresServer> {
  const [port] = (await freePorts(1)) as [number];
  const url = `postgres://postgres@127.0.0.1:${port}/postgres`;
  const settings = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_prepared_transactions=64",
    "max_connections=200",
    "fsync=on",
    "full_page_writes=on",
    "shared_buffers=32MB",
    "log_min_messages=panic",
    ...more,
  ];
  let child: ChildProcess;
  const query = async (text: string, values: unknown[] = []): Promise<readonly Record<string, unknown>[]> => {
    const client = new pg.Client({ connectionString: url });
    client.on("error", () => undefined);
    try {
      await client.connect();
      return (await client.query(text, values)).rows;
    } finally {
      await client.end();
    }
  };
  const start = async (): Promise<void> => {
    const [postgres, args] = run("postgres", ["-D", data, "-p", String(port), ...settings.flatMap((each) => ["-c", each])]);
    child = startProcess(postgres, args, join(folder, "log"));
    await until(() => query("SELECT 1"));
  };
  await start();
  return {
    url,
    port,
    query,
    pid: () => child.pid as number,
    pause: () => signalFamily(child.pid as number, "SIGSTOP"),
    resume: () => signalFamily(child.pid as number, "SIGCONT"),
    kill: async () => {
      await signalFamily(child.pid as number, "SIGKILL");
      await ended(child);
      // A killed postmaster leaves its lock, and maybe shared memory that its children still hold.
      rmSync(join(data, "postmaster.pid"), { force: true });
    },
    restart: start,
    stop: async () => {
      child.kill("SIGINT");
      const slow = setTimeout(() => child.kill("SIGKILL"), 5_000);
      await ended(child);
      clearTimeout(slow);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

function postgresFolder(): string | null {
  try {
    const versions = readdirSync("/usr/lib/postgresql").sort((left, right) => Number(right) - Number(left));
    const [newest] = versions;
    if (newest !== undefined && findProgram("postgres", [`/usr/lib/postgresql/${newest}/bin`]) !== null) {
      return `/usr/lib/postgresql/${newest}/bin`;
    }
  } catch {
    // Not a Debian: the path may know.
  }
  const found = findProgram("initdb");
  return found === null ? null : join(found, "..");
}

/** The server and its children, so that none of them writes on. */
async function signalFamily(pid: number, signal: NodeJS.Signals): Promise<void> {
  const children = await runCommand("pgrep", ["-P", String(pid)]).then(
    ({ stdout }) => stdout.trim().split("\n").filter(Boolean).map(Number),
    () => [],
  );
  for (const each of [pid, ...children]) {
    try {
      process.kill(each, signal);
    } catch {
      // Gone already.
    }
  }
}
