/**
 * etcd as it is installed here: one member, or three; with TLS or without.
 *
 * `const etcd = await startEtcd()`, then `if ("skipped" in etcd)` leave the tests out by that reason.
 */
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { freePorts } from "../../src/cli/free-ports.ts";
import { noteEngine } from "./engine-report.ts";
import { acceptsTcp, installed, ServerProcess, type Skipped, serverFolder } from "./server-process.ts";

export interface EtcdMember {
  readonly port: number;
  readonly process: ServerProcess;
}

export interface EtcdCluster {
  /** `etcd://a,b,c`. */
  readonly url: string;
  /** Of the first member. */
  readonly port: number;
  readonly version: string;
  readonly members: readonly EtcdMember[];
  /** What `etcdctl` says to it. */
  ctl(...args: readonly string[]): string;
  /** The member that leads. */
  leader(): EtcdMember;
  stop(): Promise<void>;
}

export interface EtcdOptions {
  readonly members?: 1 | 3;
  /** Arguments of etcd beyond names and addresses. */
  readonly args?: readonly string[];
  /** With certificates in `args`. */
  readonly tls?: { readonly ca: string; readonly cert: string; readonly key: string };
}

const getIt = "Debian: apt-get install etcd-server etcd-client";

export async function startEtcd({ members: count = 1, args = [], tls }: EtcdOptions = {}): Promise<EtcdCluster | Skipped> {
  const engine = count === 1 ? "etcd, one member" : "etcd, three members";
  const found = installed(["etcd"], ["--version"]);
  if (found === undefined || installed(["etcdctl"], ["version"]) === undefined) {
    const skipped = "etcd or etcdctl is not installed";
    noteEngine({ engine, skipped, getIt });
    return { skipped };
  }
  const version = /[\d.]+/.exec(found.version)?.[0] ?? found.version;
  noteEngine({ engine, version });
  const scheme = tls === undefined ? "http" : "https";
  const ports = await freePorts(2 * count);
  const peers = ports.slice(count);
  const folders = Array.from({ length: count }, (_, index) => serverFolder(`etcd${index + 1}`));
  const cluster = peers.map((port, index) => `n${index + 1}=http://127.0.0.1:${port}`).join(",");
  const members = await Promise.all(
    folders.map(async (folder, index): Promise<EtcdMember> => {
      const [client, peer] = [`${scheme}://127.0.0.1:${ports[index]}`, `http://127.0.0.1:${peers[index]}`];
      const port = ports[index] as number;
      const process = await ServerProcess.start({
        name: "etcd",
        command: found.command,
        folder: folder.path,
        args: [
          ...["--name", `n${index + 1}`, "--data-dir", join(folder.path, "data")],
          ...["--listen-client-urls", client, "--advertise-client-urls", client],
          ...["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer],
          ...["--initial-cluster", cluster, "--initial-cluster-token", `t${peers[0]}`],
          ...["--heartbeat-interval", "100", "--election-timeout", "1000", "--log-level", "error"],
          ...args,
        ],
        isReady: () => acceptsTcp(port),
      });
      return { port, process };
    }),
  );
  const endpoints = members.map(({ port }) => `${scheme}://127.0.0.1:${port}`).join(",");
  const certificates = tls === undefined ? [] : ["--cacert", tls.ca, "--cert", tls.cert, "--key", tls.key];
  const ctl = (...words: readonly string[]): string =>
    execFileSync("etcdctl", ["--endpoints", endpoints, ...certificates, "--command-timeout", "10s", ...words], {
      encoding: "utf8",
      env: { ...process.env, ETCDCTL_API: "3" },
      stdio: ["ignore", "pipe", "pipe"],
    });
  await until(() => ctl("endpoint", "health").length >= 0, "etcd is healthy");
  return {
    url: `${tls === undefined ? "etcd" : "etcds"}://${members.map(({ port }) => `127.0.0.1:${port}`).join(",")}`,
    port: ports[0] as number,
    version,
    members,
    ctl,
    leader() {
      const rows = JSON.parse(ctl("endpoint", "status", "--write-out", "json")) as readonly {
        readonly Endpoint: string;
        readonly Status: { readonly header: { readonly member_id: number }; readonly leader: number };
      }[];
      const row = rows.find(({ Status }) => Status.header.member_id === Status.leader);
      const member = members.find(({ port }) => row?.Endpoint.endsWith(`:${port}`));
      if (member === undefined) throw new Error("etcd has no leader.");
      return member;
    },
    async stop() {
      await Promise.all(members.map(({ process }) => process.stop()));
      for (const folder of folders) folder.remove();
    },
  };
}

async function until(act: () => unknown, what: string): Promise<void> {
  const untilMs = performance.now() + 30_000;
  for (;;) {
    try {
      act();
      return;
    } catch (error) {
      if (performance.now() > untilMs) throw new Error(`Not within 30 s: ${what}.`, { cause: error });
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}
