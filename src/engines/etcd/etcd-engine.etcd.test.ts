/**
 * The contract of `Store` on a real etcd: as it is, and with a network that cuts the streams.
 */
import { afterAll, describe, test } from "vitest";
import { startEtcd } from "../../../test/servers/etcd.ts";
import { FaultProxy } from "../../../test/servers/fault-proxy.ts";
import { contractSuite } from "../../testing/contract-suite.ts";
import { openEtcd } from "./etcd-engine.ts";

const etcd = await startEtcd();

if ("skipped" in etcd) {
  test.skip(`the contract on etcd: ${etcd.skipped}`, () => undefined);
} else {
  afterAll(() => etcd.stop());
  // So that there is something that is no longer kept.
  for (let write = 0; write < 5; write++) etcd.ctl("put", "elsewhere", String(write));
  etcd.ctl("compact", "5");
  const url = (port: number): string => `etcd://127.0.0.1:${port}`;
  const probe = await openEtcd({ url: url(etcd.port) });
  const { caps } = probe;
  await probe.close();

  contractSuite({
    describe,
    test,
    skip: test.skip,
    caps,
    isolates: true,
    open: async () => {
      const engine = await openEtcd({ url: url(etcd.port) });
      const proxies: FaultProxy[] = [];
      return {
        engine,
        isolate: async () => {
          const proxy = await FaultProxy.start(etcd.port);
          proxies.push(proxy);
          return { engine: await openEtcd({ url: url(proxy.port) }), cutOff: () => proxy.silence() };
        },
        dispose: async () => {
          await engine.close();
          for (const proxy of proxies) await proxy.close();
        },
      };
    },
  });
}
