/**
 * The servers that the lock workloads run on, and what the nemesis can do to each.
 */

import { connect } from "../../src/index.ts";
import { startEtcd } from "../servers/etcd.ts";
import { pass } from "../servers/lock-trial.ts";
import { startPostgres } from "../servers/postgres.ts";
import { startRedis } from "../servers/redis.ts";
import type { Skipped } from "../servers/server-process.ts";
import { startZooKeeper } from "../servers/zookeeper.ts";

export interface Rig {
  readonly url: string;
  /** By the engine's own word (`caps.linearizable`), a failover ends no lease that lives. */
  readonly keepsLeases: boolean;
  /** Puts a server to sleep: the one that leads, where there are several. Answers with what wakes it. */
  pause(): Promise<() => Promise<void>>;
  /** SIGKILL to it. Answers with what starts it again on its data. */
  kill(): Promise<() => Promise<void>>;
  stop(): Promise<unknown>;
}

/** What `ServerProcess` and PostgreSQL's server both are. */
interface Stoppable {
  pause(): void | Promise<void>;
  resume(): void | Promise<void>;
  kill(): Promise<void>;
}

export const rigs: Readonly<Record<string, (ttlMs: number) => Promise<Rig | Skipped>>> = {
  // Every write is synced, so a restart forgets nothing; the quarantine waits for the longest TTL that there is.
  redis: async (ttlMs) => {
    const redis = await startRedis({ args: ["--appendonly", "yes", "--appendfsync", "always"] });
    if ("skipped" in redis) return redis;
    const url = `${redis.url}?ttlMsMax=${Math.max(ttlMs, registersTtlMs)}&quarantineMs=200`;
    return rigOf({ url, stop: () => redis.stop(), target: async () => ofProcess(redis.process) });
  },
  etcd: () => etcdRig(1),
  etcd3: () => etcdRig(3),
  zookeeper: () => zooKeeperRig(1),
  zookeeper3: () => zooKeeperRig(3),
  postgres: async () => {
    const postgres = await startPostgres();
    if ("skipped" in postgres) return postgres;
    const target = async () => ({ stoppable: postgres, restart: () => postgres.restart() });
    return rigOf({ url: postgres.url, stop: () => postgres.stop(), target });
  },
};

const leaderMsMax = 30_000;
/** Nobody asks Redis for more. */
const registersTtlMs = 2_000;

async function etcdRig(members: 1 | 3): Promise<Rig | Skipped> {
  const etcd = await startEtcd({ members });
  if ("skipped" in etcd) return etcd;
  return rigOf({
    url: etcd.url,
    stop: () => etcd.stop(),
    target: async () => ofProcess((await leading(async () => etcd.leader())).process),
  });
}

async function zooKeeperRig(servers: 1 | 3): Promise<Rig | Skipped> {
  const ensemble = await startZooKeeper({ servers });
  if ("skipped" in ensemble) return ensemble;
  const [only] = ensemble.servers;
  const target = async () =>
    ofProcess((servers === 1 && only !== undefined ? only : await leading(() => ensemble.leader())).process);
  // `sync` may be answered by a leader that was deposed in its sleep: registers want the stronger reading.
  const url = servers === 1 ? ensemble.url : `${ensemble.url}?reads=quorum`;
  return rigOf({ url, stop: () => ensemble.stop(), target });
}

/** Right after a fault nobody may lead yet. */
async function leading<T>(find: () => Promise<T>): Promise<T> {
  for (const untilMs = performance.now() + leaderMsMax; ; ) {
    try {
      return await find();
    } catch (error) {
      if (performance.now() > untilMs) throw error;
      await pass(100);
    }
  }
}

interface Target {
  readonly stoppable: Stoppable;
  restart(): Promise<void>;
}

function ofProcess(process: Stoppable & { start(): Promise<void> }): Target {
  return { stoppable: process, restart: () => process.start() };
}

async function rigOf({ target, ...rest }: Pick<Rig, "url" | "stop"> & { readonly target: () => Promise<Target> }): Promise<Rig> {
  await using conclave = await connect(rest.url);
  return {
    ...rest,
    keepsLeases: conclave.caps.linearizable === "always",
    async pause() {
      const { stoppable } = await target();
      await stoppable.pause();
      return async () => stoppable.resume();
    },
    async kill() {
      const { restart, stoppable } = await target();
      await stoppable.kill();
      return restart;
    },
  };
}
