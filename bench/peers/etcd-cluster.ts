/**
 * A durable three-node etcd on loopback, for the length of a bench.
 *
 * What a careful user would run: default heartbeat (100 ms), election timeout (1000 ms), fsync and snapshot settings. Only three
 * flags differ from a plain start, none of which slows etcd: the log is cut to errors, the space quota is raised so a long
 * run does not hit the 2 GiB default, and everything lives in one temporary directory that is removed at the end.
 *
 * Assumes Linux or macOS. Leaves out TLS and auth, which could only cost etcd time.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { rmSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { get } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { freePorts } from "../../src/cli/free-ports.ts";
import { callUnary, type MemberStatus, memberStatus, paths } from "./etcd-wire.ts";

/** How a cluster is started. */
export interface EtcdClusterOptions {
  /** The etcd server binary. */
  readonly etcdPath: string;
  /** Where the temporary directory is made. Must be a real disk: on a RAM disk fsync is free. Default the system's. */
  readonly directory?: string | undefined;
  /** Abort stops the start. */
  readonly signal?: AbortSignal | undefined;
}

/** The member that leads, and the version it runs. */
export interface Leader {
  /** `host:port` for clients. */
  readonly endpoint: string;
  readonly version: string;
}

interface Member {
  readonly endpoint: string;
  readonly child: ChildProcess;
  /** The last of what it logged, for the error message. Invariant: at most `logCharactersMax` characters. */
  log: string;
}

const memberCount = 3;
const startTimeoutMs = 20_000;
const callTimeoutMs = 5_000;
const killTimeoutMs = 5_000;
const pollMs = 100;
const startAttemptsMax = 3;
const logCharactersMax = 4_000;

/** Three etcd processes; `stop()` kills them and removes what they wrote. */
export class EtcdCluster {
  readonly #directory: string;
  readonly #members: readonly Member[];
  /** Runs when this process exits without a `stop()`, so that no etcd outlives the bench. */
  readonly #onExit = (): void => {
    this.#kill();
    rmSync(this.#directory, { recursive: true, force: true, maxRetries: 5 });
  };

  private constructor(directory: string, members: readonly Member[]) {
    this.#directory = directory;
    this.#members = members;
    process.once("exit", this.#onExit);
  }

  /**
   * Starts three nodes and waits until one leads.
   * Free ports are found by asking the kernel and letting go, so another process may take one in between: tried three times.
   */
  static async start(options: EtcdClusterOptions): Promise<EtcdCluster> {
    for (let attempt = 1; ; attempt++) {
      options.signal?.throwIfAborted();
      const cluster = await EtcdCluster.#spawn(options);
      try {
        await cluster.leader(options.signal);
        return cluster;
      } catch (error) {
        await cluster.stop();
        if (options.signal?.aborted || attempt === startAttemptsMax) throw error;
      }
    }
  }

  static async #spawn({ etcdPath, directory }: EtcdClusterOptions): Promise<EtcdCluster> {
    const home = await mkdtemp(join(directory ?? tmpdir(), "conclave-bench-etcd-"));
    const ports = await freePorts(2 * memberCount);
    const peerUrls = ports.slice(memberCount).map((port) => `http://127.0.0.1:${port}`);
    const initialCluster = peerUrls.map((url, index) => `n${index}=${url}`).join(",");
    const members = peerUrls.map((peerUrl, index) => {
      const endpoint = `127.0.0.1:${ports[index]}`;
      const flags = {
        name: `n${index}`,
        "data-dir": join(home, `n${index}`),
        "listen-client-urls": `http://${endpoint}`,
        "advertise-client-urls": `http://${endpoint}`,
        "listen-peer-urls": peerUrl,
        "initial-advertise-peer-urls": peerUrl,
        "initial-cluster": initialCluster,
        "initial-cluster-state": "new",
        logger: "zap",
        "log-level": "error",
        "quota-backend-bytes": String(8 * 2 ** 30),
      };
      return spawnMember({ etcdPath, endpoint, flags });
    });
    return new EtcdCluster(home, members);
  }

  /** Finds the leader: the member whose own id is the one it names as leader. Waits through an election. */
  async leader(signal?: AbortSignal): Promise<Leader> {
    const deadline = performance.now() + startTimeoutMs;
    while (performance.now() < deadline) {
      signal?.throwIfAborted();
      this.#assertRunning();
      for (const { endpoint } of this.#members) {
        const status = await statusOf(endpoint);
        if (status !== undefined && status.leader !== 0n && status.leader === status.member)
          return { endpoint, version: status.version };
      }
      await sleep(pollMs, undefined, { signal }).catch(() => signal?.throwIfAborted());
    }
    throw new Error(`etcd elected no leader in ${startTimeoutMs} ms${this.#logs()}`);
  }

  /** How many calls of `method` (`Put`, `Range`) the member at `endpoint` has answered with gRPC status OK since it started. */
  async answeredCount({ endpoint, method }: { readonly endpoint: string; readonly method: string }): Promise<number> {
    const metrics = await httpGet(`http://${endpoint}/metrics`);
    const line = metrics
      .split("\n")
      .find(
        (each) =>
          each.startsWith("grpc_server_handled_total{") &&
          each.includes('grpc_code="OK"') &&
          each.includes(`grpc_method="${method}"`),
      );
    return line === undefined ? 0 : Number(line.slice(line.lastIndexOf(" ") + 1));
  }

  /** Kills the three processes, waits until they are gone and removes their files. Idempotent. */
  async stop(): Promise<void> {
    process.off("exit", this.#onExit);
    const gone = this.#members.map(({ child }) => exited(child));
    this.#kill();
    await Promise.all(gone);
    await rm(this.#directory, { recursive: true, force: true, maxRetries: 5 });
  }

  #kill(): void {
    for (const { child } of this.#members) child.kill("SIGKILL");
  }

  #assertRunning(): void {
    if (this.#members.some(({ child }) => isGone(child))) throw new Error(`an etcd node ended before its time${this.#logs()}`);
  }

  #logs(): string {
    return this.#members.map(({ log }, index) => (log === "" ? "" : `\nn${index}: ${log.trim()}`)).join("");
  }
}

function spawnMember({
  etcdPath,
  endpoint,
  flags,
}: {
  etcdPath: string;
  endpoint: string;
  flags: Record<string, string>;
}): Member {
  const args = Object.entries(flags).map(([name, value]) => `--${name}=${value}`);
  // ETCD_* variables of the caller would override nothing given here but could change a default; the node starts without them.
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("ETCD")));
  const child = spawn(etcdPath, args, { env, stdio: ["ignore", "ignore", "pipe"] });
  const member: Member = { endpoint, child, log: "" };
  const note = (text: string): void => {
    member.log = (member.log + text).slice(-logCharactersMax);
  };
  child.stderr?.on("data", (chunk: Buffer) => note(chunk.toString("utf8")));
  child.on("error", (error) => note(error.message));
  return member;
}

function isGone(child: ChildProcess): boolean {
  return child.pid === undefined || child.exitCode !== null || child.signalCode !== null;
}

async function exited(child: ChildProcess): Promise<void> {
  if (isGone(child)) return;
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, killTimeoutMs);
    child.once("exit", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

async function statusOf(endpoint: string): Promise<MemberStatus | undefined> {
  try {
    return memberStatus(await callUnary({ endpoint, path: paths.status, message: Buffer.alloc(0), timeoutMs: callTimeoutMs }));
  } catch {
    return undefined; // Not up yet, or in an election: the caller polls.
  }
}

function httpGet(url: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = get(url, { timeout: callTimeoutMs, agent: false }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => {
        text += chunk;
      });
      response.on("end", () => resolve(text));
      response.on("error", reject);
    });
    request.on("timeout", () => request.destroy(new Error(`${url} gave no answer in ${callTimeoutMs} ms`)));
    request.on("error", reject);
  });
}
