/**
 * The contract of `Store` on three servers of etcd and of ZooKeeper, after the one that led was killed, and while it sleeps
 * and keeps its connections: the addresses of the clients name it all the same.
 */
import { afterAll, describe, test } from "vitest";
import { openEtcd } from "../src/engines/etcd/etcd-engine.ts";
import { openZooKeeper } from "../src/engines/zookeeper/zk-engine.ts";
import type { Engine } from "../src/store/store.ts";
import { contractSuite } from "../src/testing/contract-suite.ts";
import { startEtcd } from "./servers/etcd.ts";
import { until } from "./servers/lock-trial.ts";
import type { ServerProcess, Skipped } from "./servers/server-process.ts";
import { startZooKeeper } from "./servers/zookeeper.ts";

interface Cluster {
  readonly url: string;
  readonly processes: readonly ServerProcess[];
  leader(): Promise<ServerProcess>;
  stop(): Promise<void>;
}

const engines: Readonly<Record<string, { start(): Promise<Cluster | Skipped>; open(url: string): Promise<Engine> }>> = {
  etcd: {
    async start() {
      const etcd = await startEtcd({ members: 3 });
      if ("skipped" in etcd) return etcd;
      // So that there is something that is no longer kept.
      for (let write = 0; write < 5; write++) etcd.ctl("put", "elsewhere", String(write));
      etcd.ctl("compact", "5");
      const processes = etcd.members.map(({ process }) => process);
      return { url: etcd.url, processes, leader: async () => etcd.leader().process, stop: () => etcd.stop() };
    },
    open: (url) => openEtcd({ url }),
  },
  ZooKeeper: {
    async start() {
      const ensemble = await startZooKeeper({ servers: 3 });
      if ("skipped" in ensemble) return ensemble;
      const processes = ensemble.servers.map(({ process }) => process);
      return { url: ensemble.url, processes, leader: async () => (await ensemble.leader()).process, stop: () => ensemble.stop() };
    },
    open: (url) => openZooKeeper({ url }),
  },
};

const harms = {
  "was killed": (leader: ServerProcess) => leader.kill(),
  sleeps: async (leader: ServerProcess) => leader.pause(),
} as const;

for (const [name, { open, start }] of Object.entries(engines)) {
  for (const [harm, act] of Object.entries(harms)) {
    const cluster = await start();
    if ("skipped" in cluster) {
      test.skip(`the contract on three servers of ${name}: ${cluster.skipped}`, () => undefined);
      continue;
    }
    const led = await cluster.leader();
    await act(led);
    // The others agree on another one once somebody is answered. One engine for all cases: to find out that one of three sleeps
    // takes a client its time.
    let engine: Engine | undefined;
    await until(
      async () => {
        engine = await open(cluster.url).catch(() => undefined);
        return engine !== undefined;
      },
      `the two that are left of ${name} serve`,
      60_000,
    );
    if (engine === undefined) throw new Error("unreachable");
    const served = engine;
    afterAll(async () => {
      await served.close();
      await cluster.stop();
    });
    contractSuite({
      describe: (title, body) => describe(`${title}, of three whose leader ${harm}`, body),
      test,
      skip: test.skip,
      caps: served.caps,
      open: async () => ({ engine: served, dispose: () => undefined }),
    });
  }
}
