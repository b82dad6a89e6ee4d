/**
 * A PostgreSQL of its own for a test: durable, with room for prepared transactions. Skipped, with the reason, where none is
 * installed.
 */
import type { ChildProcess } from "node:child_process";
import { chmodSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { freePorts } from "../../src/cli/free-ports.ts";

import { ended, findProgram, runCommand, startProcess, until } from "./database-process.ts";
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

const getIt = "Debian: apt-get install postgresql";

export async function startPostgres(): Promise<Started> {
  const bin = postgresFolder();
  if (bin === null) {
    noteEngine({ engine: "PostgreSQL", skipped: "PostgreSQL is not installed", getIt });
    return { skipped: "PostgreSQL is not installed" };
  }
  const isRoot = userInfo().uid === 0;
  if (isRoot && findProgram("setpriv") === null)
    return { skipped: "PostgreSQL refuses to run as root and setpriv is not installed" };
  const folder = mkdtempSync(join(tmpdir(), "conclave-pg-"));
  // Root starts it under its own user: PostgreSQL refuses root.
  const as = isRoot ? ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] : [];
  if (isRoot) await runCommand("chown", ["postgres", folder]);
  chmodSync(folder, 0o755);
  const run = (program: string, args: readonly string[]): readonly [string, readonly string[]] => {
    const [first, ...rest] = [...as, join(bin, program), ...args];
    return [first as string, rest];
  };
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
  const [port] = (await freePorts(1)) as [number];
  const url = `postgres://postgres@127.0.0.1:${port}/postgres`;
  const settings = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_prepared_transactions=64",
    "max_connections=200",
  ];
  settings.push("fsync=on", "full_page_writes=on", "shared_buffers=32MB", "log_min_messages=panic");
  let child: ChildProcess;
  const start = async (): Promise<void> => {
    const [postgres, args] = run("postgres", ["-D", data, "-p", String(port), ...settings.flatMap((each) => ["-c", each])]);
    child = startProcess(postgres, args, join(folder, "log"));
    await until(async () => {
      const client = new pg.Client({ connectionString: url });
      client.on("error", () => undefined);
      try {
        await client.connect();
        await client.query("SELECT 1");
      } finally {
        await client.end();
      }
    });
  };
  await start();
  return {
    url,
    port,
    pid: () => child.pid as number,
    kill: async () => {
      await killFamily(child.pid as number);
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
async function killFamily(pid: number): Promise<void> {
  const children = await runCommand("pgrep", ["-P", String(pid)]).then(
    ({ stdout }) => stdout.trim().split("\n").filter(Boolean).map(Number),
    () => [],
  );
  for (const each of [pid, ...children]) {
    try {
      process.kill(each, "SIGKILL");
    } catch {
      // Gone already.
    }
  }
}
