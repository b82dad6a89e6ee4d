/**
 * The contract of `Store` on a real Redis or Valkey.
 */
import { afterAll, describe, test } from "vitest";
import { startRedis } from "../../../test/servers/redis.ts";
import { contractSuite } from "../../testing/contract-suite.ts";
import { openRedis } from "./redis-engine.ts";

const redis = await startRedis();

if ("skipped" in redis) {
  test.skip(`the contract on Redis: ${redis.skipped}`, () => undefined);
} else {
  afterAll(() => redis.stop());
  const url = `${redis.url}?quarantineMs=-1`;
  const probe = await openRedis({ url });
  const { caps } = probe;
  await probe.close();
  contractSuite({
    describe,
    test,
    skip: test.skip,
    caps,
    open: async () => {
      const engine = await openRedis({ url });
      return { engine, dispose: () => engine.close() };
    },
  });
}
