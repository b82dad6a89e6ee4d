/**
 * The contract of `Store` on a real PostgreSQL: as it is, and with a network that does what networks do.
 */
import { afterAll, describe, test } from "vitest";
import { type AnswerFault, FaultProxy } from "../../../test/servers/fault-proxy.ts";
import { startPostgres } from "../../../test/servers/postgres.ts";
import { contractSuite } from "../../testing/contract-suite.ts";
import { openPostgres } from "./postgres-engine.ts";

const postgres = await startPostgres();

if ("skipped" in postgres) {
  test.skip(`the contract on PostgreSQL: ${postgres.skipped}`, () => undefined);
} else {
  afterAll(() => postgres.stop());
  const url = (port: number): string => `postgres://postgres@127.0.0.1:${port}/postgres?connectionsMax=6`;
  const probe = await openPostgres({ url: url(postgres.port) });
  const { caps } = probe;
  await probe.close();

  contractSuite({
    describe,
    test,
    skip: test.skip,
    caps,
    isolates: true,
    open: async () => {
      const engine = await openPostgres({ url: url(postgres.port) });
      const proxies: FaultProxy[] = [];
      return {
        engine,
        isolate: async () => {
          const proxy = await FaultProxy.start(postgres.port);
          proxies.push(proxy);
          return { engine: await openPostgres({ url: url(proxy.port) }), cutOff: () => proxy.silence() };
        },
        dispose: async () => {
          await engine.close();
          for (const proxy of proxies) await proxy.close();
        },
      };
    },
  });

  // Notifications are recognised by their payload; answers of functions arrive as they are.
  const faults: Readonly<Record<string, (random: () => number) => AnswerFault | undefined>> = {
    "notifications are told twice": () => ({ kind: "twice" }),
    "notifications are held back and come together": (random) => (random() < 0.5 ? { kind: "coalesce", delayMs: 20 } : undefined),
    "the listening connection is cut at every third notification": (random) => (random() < 0.33 ? { kind: "cut" } : undefined),
  };
  for (const [name, fault] of Object.entries(faults)) {
    contractSuite({
      describe: (title, body) => describe(`${title}, where ${name}`, body),
      test,
      skip: test.skip,
      caps,
      open: async () => {
        const random = seeded(7);
        const proxy = await FaultProxy.start(postgres.port);
        proxy.onAnswer = (chunk) => (isNotification(chunk) ? fault(random) : undefined);
        const engine = await openPostgres({ url: url(proxy.port) });
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

/** A chunk that begins with NotificationResponse ("A"), and a payload of ours. */
function isNotification(chunk: Buffer): boolean {
  return chunk[0] === 0x41 && chunk.includes('{"n" : ');
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
