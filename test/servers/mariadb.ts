/**
 * A MariaDB of its own for a test: durable. Skipped, with the reason, where none is installed.
 */
import type { ChildProcess } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import mysql from "mysql2/promise";
import { freePorts } from "../../src/cli/free-ports.ts";
import { ended, findProgram, runCommand, startProcess, until } from "./database-process.ts";
import type { Started } from "./postgres.ts";

export async function startMariadb(options: { readonly binaryLog?: boolean } = {}): Promise<Started> {
  const server = findProgram("mariadbd");
  const install = findProgram("mariadb-install-db");
  if (server === null || install === null) return { skipped: "MariaDB is not installed" };
  const folder = mkdtempSync(join(tmpdir(), "conclave-maria-"));
  const data = join(folder, "data");
  mkdirSync(join(folder, "tmp"));
  const user = userInfo().username;
  const common = ["--no-defaults", "--basedir=/usr", `--datadir=${data}`, `--user=${user}`];
  await runCommand(install, [...common, "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]);
  const [port] = (await freePorts(1)) as [number];
  const url = `mysql://root@127.0.0.1:${port}/bank`;
  const args = [
    ...common,
    `--tmpdir=${join(folder, "tmp")}`,
    `--socket=${join(folder, "s.sock")}`,
    `--pid-file=${join(folder, "pid")}`,
    `--port=${port}`,
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    "--innodb-flush-log-at-trx-commit=1",
    "--innodb-buffer-pool-size=32M",
    "--max-connections=200",
    ...(options.binaryLog === true ? [`--log-bin=${join(folder, "binlog")}`, "--server-id=1", "--sync-binlog=1"] : []),
  ];
  let child: ChildProcess;
  const start = async (): Promise<void> => {
    child = startProcess(server, args, join(folder, "log"));
    await until(async () => {
      const connection = await mysql.createConnection({ host: "127.0.0.1", port, user: "root" });
      await connection.query("CREATE DATABASE IF NOT EXISTS bank");
      await connection.end();
    });
  };
  await start();
  return {
    url,
    port,
    pid: () => child.pid as number,
    kill: async () => {
      child.kill("SIGKILL");
      await ended(child);
    },
    restart: start,
    stop: async () => {
      child.kill("SIGTERM");
      const slow = setTimeout(() => child.kill("SIGKILL"), 8_000);
      await ended(child);
      clearTimeout(slow);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
