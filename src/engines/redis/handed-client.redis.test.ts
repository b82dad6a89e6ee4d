/**
 * The contract of `Store` over a client of the user's own: `@redis/client`, and ioredis where `npm run bench -- locks` has
 * installed it beside the libraries that it measures; nothing else here needs it.
 */
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { createClient } from "@redis/client";
import { afterAll, describe, expect, test } from "vitest";
import { startRedis } from "../../../test/servers/redis.ts";
import { contractSuite } from "../../testing/contract-suite.ts";
import { openRedis, type RedisEngine } from "./redis-engine.ts";

/** What the tests do with it themselves. */
interface Handed {
  readonly client: unknown;
  close(): void;
}

type Making = (port: number) => Promise<Handed>;

async function nodeRedis(port: number): Promise<Handed> {
  const client = createClient({ url: `redis://127.0.0.1:${port}` });
  client.on("error", () => undefined);
  await client.connect();
  return { client, close: () => client.destroy() };
}

const peers = `${process.cwd()}/bench/peers/locks/package.json`;
const hasIoredis = existsSync(peers.replace("package.json", "node_modules/ioredis"));

async function ioredis(port: number): Promise<Handed> {
  const { Redis } = createRequire(peers)("ioredis");
  const client = new Redis({ host: "127.0.0.1", port, autoResendUnfulfilledCommands: false });
  client.on("error", () => undefined);
  return { client, close: () => client.disconnect() };
}

const makings: Readonly<Record<string, Making>> = { "@redis/client": nodeRedis, ...(hasIoredis ? { ioredis } : {}) };
if (!hasIoredis) test.skip("the contract over ioredis: `npm run bench -- locks` installs it", () => undefined);

const redis = await startRedis();
if ("skipped" in redis) {
  test.skip(`the contract over clients of one's own: ${redis.skipped}`, () => undefined);
} else {
  afterAll(() => redis.stop());
  const url = "redis://given?quarantineMs=-1";
  for (const [name, make] of Object.entries(makings)) {
    const open = async (): Promise<{ readonly engine: RedisEngine; readonly handed: Handed; dispose(): Promise<void> }> => {
      const handed = await make(redis.port);
      const engine = await openRedis({ url, client: handed.client });
      const dispose = async (): Promise<void> => {
        await engine.close();
        handed.close();
      };
      return { engine, handed, dispose };
    };
    const probe = await open();
    const { caps } = probe.engine;
    await probe.dispose();

    contractSuite({
      describe: (title, body) => describe(`${title}, over ${name}`, body),
      test,
      skip: test.skip,
      caps,
      open,
    });

    test(`a call over ${name} ends by its time and by its signal, though the client waits on`, async () => {
      const { dispose, engine } = await open();
      const store = engine.store("silent");
      redis.process.pause();
      try {
        const late = store.txn({ then: [{ kind: "put", key: "a", value: "1" }] }, { timeoutMs: 200 });
        await expect(late).rejects.toMatchObject({ code: "TIMEOUT", definite: false });
        const quitting = new AbortController();
        const left = store.txn({ then: [{ kind: "put", key: "a", value: "2" }] }, { signal: quitting.signal });
        setTimeout(() => quitting.abort(new Error("no longer wanted")), 50);
        await expect(left).rejects.toThrow("no longer wanted");
      } finally {
        redis.process.resume();
      }
      await dispose();
    });
  }
}
