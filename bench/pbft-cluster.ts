/**
 * A PBFT cluster for a bench: keys, cluster file and `conclave serve --protocol pbft` for each member, on free ports, with its
 * data in the repository's own file system. One client, `load`, whose key file the load generator reads.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdtempSync } from "node:fs";
import { resolve } from "node:path";
import { freePorts } from "../src/cli/free-ports.ts";
import { type BenchCluster, nodeFlags, stopAll, untilReady } from "./cluster.ts";

export interface PbftBenchCluster extends Omit<BenchCluster, "url"> {
  readonly clusterFile: string;
  readonly clientKey: string;
}

export async function startPbftCluster(membersCount: number): Promise<PbftBenchCluster> {
  const folder = mkdtempSync(resolve("node_modules/.bench-data-"));
  const ports = await freePorts(membersCount);
  const members = ports.map((port, at) => `m${at + 1}=127.0.0.1:${port}`).join(",");
  const keys = `${folder}/keys`;
  execFileSync(process.execPath, ["dist/cli/main.js", "pbft", "init", keys, "--members", members, "--clients", "load"]);
  const clusterFile = `${keys}/cluster.json`;
  const children: ChildProcess[] = ports.map((_, at) => {
    const own = ["--data", `${folder}/m${at + 1}`, "--key", `${keys}/m${at + 1}.key`];
    const args = ["dist/cli/main.js", "serve", "--protocol", "pbft", "--cluster-file", clusterFile, ...own];
    return spawn(process.execPath, [...nodeFlags, ...args], { stdio: ["ignore", "ignore", "inherit"] });
  });
  const stop = stopAll(children, folder);
  const addresses = ports.map((port) => `127.0.0.1:${port}`);
  for (const address of addresses) await untilReady(address);
  const pids = children.map((child) => child.pid as number);
  return { addresses, pids, stop, clusterFile, clientKey: `${keys}/load.key` };
}
