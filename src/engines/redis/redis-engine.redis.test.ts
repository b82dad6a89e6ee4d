/**
 * The contract of `Store` on a real Redis or Valkey: as it is, behind Sentinels, in a Cluster, and with a network that does
 * what networks do.
 */
import { afterAll, describe, test } from "vitest";
import { type AnswerFault, FaultProxy } from "../../../test/servers/fault-proxy.ts";
import { startRedis, startRedisCluster, startRedisSentinel } from "../../../test/servers/redis.ts";
import { contractSuite } from "../../testing/contract-suite.ts";
import { openRedis } from "./redis-engine.ts";

const redis = await startRedis();

if ("skipped" in redis) {
  test.skip(`the contract on Redis: ${redis.skipped}`, () => undefined);
} else {
  afterAll(() => redis.stop());
  const url = (port: number): string => `redis://127.0.0.1:${port}?quarantineMs=-1`;
  const probe = await openRedis({ url: url(redis.port) });
  const { caps } = probe;
  await probe.close();

  contractSuite({
    describe,
    test,
    skip: test.skip,
    caps,
    isolates: true,
    open: async () => {
      const engine = await openRedis({ url: url(redis.port) });
      const proxies: FaultProxy[] = [];
      return {
        engine,
        isolate: async () => {
          const proxy = await FaultProxy.start(redis.port);
          proxies.push(proxy);
          return { engine: await openRedis({ url: url(proxy.port) }), cutOff: () => proxy.silence() };
        },
        dispose: async () => {
          await engine.close();
          for (const proxy of proxies) await proxy.close();
        },
      };
    },
  });

  // Pushes are recognised by their kind; replies to commands arrive as they are.
  const faults: Readonly<Record<string, (random: () => number) => AnswerFault | undefined>> = {
    "pushes are told twice": () => ({ kind: "twice" }),
    "pushes are held back and come together": (random) => (random() < 0.5 ? { kind: "coalesce", delayMs: 20 } : undefined),
    "the push channel is cut at every third push": (random) => (random() < 0.33 ? { kind: "cut" } : undefined),
  };
  for (const [name, fault] of Object.entries(faults)) {
    contractSuite({
      describe: (title, body) => describe(`${title}, where ${name}`, body),
      test,
      skip: test.skip,
      caps,
      open: async () => {
        const random = seeded(7);
        const proxy = await FaultProxy.start(redis.port);
        proxy.onAnswer = (chunk) => (chunk.includes("smessage") ? fault(random) : undefined);
        const engine = await openRedis({ url: url(proxy.port) });
        return {
          engine,
          dispose: async () => {
            await engine.close();
            await proxy.close();
          },
        };
      },
    });
  }
}

for (const [form, start] of [
  ["behind Sentinels", startRedisSentinel],
  ["in a Cluster", startRedisCluster],
] as const) {
  const group = await start();
  if ("skipped" in group) {
    test.skip(`the contract on Redis ${form}: ${group.skipped}`, () => undefined);
    continue;
  }
  afterAll(() => group.stop());
  const url = `${group.url}?quarantineMs=-1`;
  const probe = await openRedis({ url });
  const { caps } = probe;
  await probe.close();
  contractSuite({
    describe: (title, body) => describe(`${title}, ${form}`, body),
    test,
    skip: test.skip,
    caps,
    open: async () => {
      const engine = await openRedis({ url });
      return { engine, dispose: () => engine.close() };
    },
  });
}

/** Mulberry32. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
