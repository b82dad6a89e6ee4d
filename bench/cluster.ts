/**
 * A cluster for a bench: `conclave serve` three times or more, on free ports, with its data in the repository's own file system.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { resolve } from "node:path";
import { freePorts } from "../src/cli/free-ports.ts";

/** A larger young generation: short-lived commands and outcomes then die young. Stated with the figures. */
export const nodeFlags = ["--max-semi-space-size=64"];

export interface BenchCluster {
  readonly url: string;
  readonly addresses: readonly string[];
  readonly pids: readonly number[];
  stop(): Promise<void>;
}

/** Members as processes of their own, ready to serve. */
export async function startCluster(
  flags: readonly string[] = nodeFlags,
  protocol = "raft",
  membersCount = 3,
): Promise<BenchCluster> {
  const folder = mkdtempSync(resolve("node_modules/.bench-data-"));
  const ports = await freePorts(membersCount);
  const members = ports.map((port, at) => `m${at + 1}=127.0.0.1:${port}`).join(",");
  const children: ChildProcess[] = ports.map((port, at) => {
    const args = [
      "dist/cli/main.js",
      "serve",
      "--data",
      `${folder}/m${at + 1}`,
      "--member",
      `m${at + 1}`,
      "--cluster",
      "bench",
      "--listen",
      `127.0.0.1:${port}`,
      "--members",
      members,
      "--protocol",
      protocol,
    ];
    return spawn(process.execPath, [...flags, ...args], { stdio: ["ignore", "ignore", "inherit"] });
  });
  const stop = stopAll(children, folder);
  const addresses = ports.map((port) => `127.0.0.1:${port}`);
  for (const address of addresses) await untilReady(address);
  return { url: `conclave://${addresses.join(",")}`, addresses, pids: children.map((child) => child.pid as number), stop };
}

/** How the members and their data go; with the bench they go at the latest. */
export function stopAll(children: readonly ChildProcess[], folder: string): () => Promise<void> {
  process.once("exit", () => {
    for (const child of children) child.kill("SIGKILL");
  });
  return async () => {
    const gone = children.map(
      (child) => new Promise<void>((done) => (child.exitCode === null ? child.once("exit", () => done()) : done())),
    );
    for (const child of children) child.kill("SIGTERM");
    await Promise.all(gone);
    rmSync(folder, { recursive: true, force: true });
  };
}

export async function untilReady(address: string): Promise<void> {
  for (const untilMs = Date.now() + 10_000; ; ) {
    const response = await fetch(`http://${address}/readyz`).catch(() => undefined);
    if (response?.ok) return;
    if (Date.now() > untilMs) throw new Error(`The member at ${address} is not ready after 10 s.`);
    await new Promise((done) => setTimeout(done, 50));
  }
}
