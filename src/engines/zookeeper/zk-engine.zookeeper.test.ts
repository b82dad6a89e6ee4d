/**
 * The contract of `Store` on a real ZooKeeper: as it is, and with a network that can be cut off.
 */
import { afterAll, describe, test } from "vitest";
import { FaultProxy } from "../../../test/servers/fault-proxy.ts";
import { startZooKeeper } from "../../../test/servers/zookeeper.ts";
import { contractSuite } from "../../testing/contract-suite.ts";
import { openZooKeeper } from "./zk-engine.ts";

const zookeeper = await startZooKeeper();

if ("skipped" in zookeeper) {
  test.skip(`the contract on zookeeper: ${zookeeper.skipped}`, () => undefined);
} else {
  afterAll(() => zookeeper.stop());
  const url = (port: number): string => `zookeeper://127.0.0.1:${port}`;
  const probe = await openZooKeeper({ url: url(zookeeper.port) });
  const { caps } = probe;
  await probe.close();

  contractSuite({
    describe,
    test,
    skip: test.skip,
    caps,
    isolates: true,
    open: async () => {
      const engine = await openZooKeeper({ url: url(zookeeper.port) });
      const proxies: FaultProxy[] = [];
      return {
        engine,
        isolate: async () => {
          const proxy = await FaultProxy.start(zookeeper.port);
          proxies.push(proxy);
          return { engine: await openZooKeeper({ url: url(proxy.port) }), cutOff: () => proxy.silence() };
        },
        dispose: async () => {
          await engine.close();
          for (const proxy of proxies) await proxy.close();
        },
      };
    },
  });
}
