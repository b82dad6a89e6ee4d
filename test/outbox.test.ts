/**
 * Outbox, relay, sinks and inbox: on the store alone, on PostgreSQL and MariaDB within transactions over both, and into Redis.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, afterEach, beforeEach, describe, expect, test } from "vitest";
import { volatileWords } from "../src/coordinator/options.ts";
import { FenceGate } from "../src/guards/http-fence.ts";
import { type Conclave, connect } from "../src/index.ts";
import { createQueue } from "../src/recipes/queue.ts";
import { Abort } from "../src/transactions/errors.ts";
import { inbox } from "../src/transactions/inbox.ts";
import { transactions } from "../src/transactions/manager.ts";
import { mariadb } from "../src/transactions/mariadb.ts";
import { mariadbOutbox, type OutboxEvent, postgresOutbox, storeOutbox } from "../src/transactions/outbox.ts";
import { type OutboxRelay, type OutboxRelayOptions, relayOutbox } from "../src/transactions/outbox-relay.ts";
import { httpSink, queueSink, redisStreamSink, type Sink } from "../src/transactions/outbox-sinks.ts";
import { postgres } from "../src/transactions/postgres.ts";
import { storeBarrier } from "../src/transactions/store-barrier.ts";
import { storeResource } from "../src/transactions/store-branch.ts";
import { startMariadb } from "./servers/mariadb.ts";
import { startPostgres } from "./servers/postgres.ts";
import { startRedis } from "./servers/redis.ts";

const [left, right, redis] = await Promise.all([startPostgres(), startMariadb(), startRedis()]);
const databasesSkipped = "skipped" in left ? left.skipped : "skipped" in right ? right.skipped : undefined;
if (databasesSkipped !== undefined) console.log(`Outboxes on real databases are skipped: ${databasesSkipped}.`);
if ("skipped" in redis) console.log(`The Redis stream sink is skipped: ${redis.skipped}.`);

let conclave: Conclave;
const open: (() => unknown)[] = [];
beforeEach(async () => {
  conclave = await connect("memory:");
});
afterEach(async () => {
  for (const close of open.splice(0).reverse()) await close();
  await conclave.close();
});
afterAll(async () => {
  for (const server of [left, right, redis]) if (!("skipped" in server)) await server.stop();
});

function relay(options: Omit<OutboxRelayOptions, "store">): OutboxRelay {
  const made = relayOutbox({ ttlMs: 1_000, pollMs: 20, ...options, store: conclave.engine });
  open.push(() => made.close());
  return made;
}

async function manager() {
  const tm = await transactions({
    store: conclave.engine,
    resources: { shop: storeResource({ namespace: "shop" }) },
    acceptVolatileDecisions: volatileWords,
  });
  open.push(() => tm.close());
  return tm;
}

async function until(holds: () => Promise<boolean> | boolean, what: string): Promise<void> {
  for (const startedMs = Date.now(); Date.now() - startedMs < 20_000; ) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`After 20 s still not: ${what}`);
}

/** Keeps what it gets. */
function collector(): Sink & { readonly got: OutboxEvent[]; failures: number } {
  const sink = {
    got: [] as OutboxEvent[],
    failures: 0,
    publish: async (events: readonly OutboxEvent[]) => {
      if (sink.failures > 0) {
        sink.failures--;
        throw new Error("full");
      }
      sink.got.push(...events);
    },
  };
  return sink;
}

describe("an outbox in the store", { timeout: 60_000 }, () => {
  test("tells what committed, in order, and nothing of what was rolled back", async () => {
    const tm = await manager();
    const outbox = storeOutbox(conclave.engine, { name: "shop", namespace: "shop" });
    const sink = collector();
    for (let at = 0; at < 30; at++) {
      await tm
        .run({}, async (tx) => {
          await outbox.emit(tx.on("shop"), { topic: "order", key: "a", payload: { at, part: 1 } });
          await outbox.emit(tx.on("shop"), { topic: "order", key: "a", payload: { at, part: 2 } });
          if (at % 3 === 0) throw new Abort("no");
        })
        .catch(() => undefined);
    }
    expect(await outbox.backlog()).toBe(40);
    const running = relay({ outbox, sink, batchMax: 7 });
    await until(async () => (await outbox.backlog()) === 0, "everything was told");
    const due = Array.from({ length: 30 }, (_, at) => at).filter((at) => at % 3 !== 0);
    expect(sink.got.map(({ payload }) => payload)).toEqual(due.flatMap((at) => [1, 2].map((part) => ({ at, part }))));
    expect(running.figures).toMatchObject({ published: 40, failures: 0, isRelaying: true });
  });

  test("a sink that refuses is offered the same again, and the lag says so", async () => {
    const tm = await manager();
    const outbox = storeOutbox(conclave.engine, { name: "shop", namespace: "shop" });
    const sink = collector();
    sink.failures = 3;
    const errors: unknown[] = [];
    const running = relay({ outbox, sink, onError: (error) => errors.push(error) });
    await tm.run({}, (tx) => outbox.emit(tx.on("shop"), { topic: "t", payload: 1 }));
    running.wake();
    await until(() => sink.got.length === 1, "it was told");
    expect(errors.length).toBe(3);
    expect(running.figures.lagMs).toBeGreaterThan(0);
  });

  test("one relay at a time; when it dies between sink and deletion, the next one offers again, and the inbox drops it (B1, B2)", async () => {
    const tm = await manager();
    const outbox = storeOutbox(conclave.engine, { name: "shop", namespace: "shop" });
    const sink = collector();
    const tokens: number[] = [];
    const counting: Sink = {
      publish: (events, options) => {
        tokens.push(options.token);
        return sink.publish(events, options);
      },
    };
    let hang = true;
    const dying = relay({
      outbox,
      sink: counting,
      checkpoint: (step) => {
        if (step !== "relay-published" || !hang) return undefined;
        hang = false;
        throw new Error("dies");
      },
    });
    await tm.run({}, (tx) => outbox.emit(tx.on("shop"), { topic: "t", payload: "only" }));
    await until(() => sink.got.length >= 1, "it was told");
    await dying.close();
    relay({ outbox, sink: counting });
    await until(async () => (await outbox.backlog()) === 0, "it was taken away");
    expect(sink.got.length).toBe(2);
    const seen = inbox(storeBarrier(conclave.engine, { name: "consumer", namespace: "consumer" }));
    const worked: boolean[] = [];
    for (const event of sink.got) worked.push(await seen.once(event, (handle) => handle.add("count", 1)));
    expect(worked).toEqual([true, false]);
    expect([...tokens].sort((a, b) => a - b)).toEqual(tokens);
  });

  test("an inbox runs work once among many at a time, undoes it with its error, and refuses what it cannot remember", async () => {
    const seen = inbox(storeBarrier(conclave.engine, { name: "consumer", namespace: "consumer" }));
    const event = { id: "shop.abc", atMs: Date.now() };
    await expect(seen.once(event, () => Promise.reject(new Error("broken")))).rejects.toThrow("broken");
    const ran = await Promise.all(Array.from({ length: 8 }, () => seen.once(event, (handle) => handle.add("count", 1))));
    expect(ran.filter(Boolean).length).toBe(1);
    const { results } = await conclave.engine.store("consumer").txn({ then: [{ kind: "get", key: "count" }] });
    expect(results[0]?.kind === "get" && results[0].entry?.text).toBe("1");
    await expect(seen.once({ id: "shop.old", atMs: Date.now() - 6.5 * 86_400_000 }, () => 1)).rejects.toMatchObject({
      code: "TRANSACTION_CLOSED",
    });
    await expect(seen.once({ id: "no event", atMs: 1 }, () => 1)).rejects.toMatchObject({ code: "INVALID_OPTION" });
  });

  test("over HTTP with a fence: a relay whose time is over is refused; into the queue of the store, once while it waits there", async () => {
    const gate = new FenceGate();
    const bodies: { events: OutboxEvent[] }[] = [];
    const server = createServer((request, response) => {
      let text = "";
      request.on("data", (part) => {
        text += part;
      });
      request.on("end", () => {
        gate
          .run(request.headers["fence-token"], () => {
            bodies.push(JSON.parse(text));
            response.end();
          })
          .catch(() => {
            response.statusCode = 412;
            response.end();
          });
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    open.push(() => server.close());
    const sink = httpSink({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/events` });
    const events = [{ id: "shop.1", topic: "t", key: "", payload: { a: 1 }, atMs: 1 }];
    const { signal } = new AbortController();
    await sink.publish(events, { outbox: "shop", token: 9, signal });
    await expect(sink.publish(events, { outbox: "shop", token: 8, signal })).rejects.toMatchObject({ code: "STALE_TOKEN" });
    expect(bodies).toEqual([{ events }]);
    const queue = queueSink(conclave.engine, "mail");
    await queue.publish(events, { outbox: "shop", token: 9, signal });
    await queue.publish(events, { outbox: "shop", token: 9, signal });
    const shelf = createQueue(conclave.engine, "mail");
    expect(await shelf.size()).toBe(1);
    expect((await shelf.tryTake())?.payload).toEqual(events[0]);
    expect(() => httpSink({ url: "ftp://x" })).toThrow(expect.objectContaining({ code: "INVALID_OPTION" }));
  });
});

test.skipIf("skipped" in redis)(
  "a Redis stream takes a batch whole and in order, and refuses an older token",
  { timeout: 60_000 },
  async () => {
    if ("skipped" in redis) return;
    const client = { sendCommand: (args: readonly string[]) => redis.command(...args) as Promise<unknown> };
    const sink = redisStreamSink({ client, stream: "events" });
    const events = Array.from({ length: 250 }, (_, at) => ({
      id: `shop.${at}`,
      topic: "t",
      key: "k",
      payload: { at },
      atMs: at,
    }));
    const { signal } = new AbortController();
    await sink.publish(events, { outbox: "shop", token: 5, signal });
    await expect(sink.publish(events, { outbox: "shop", token: 4, signal })).rejects.toMatchObject({ code: "STALE_TOKEN" });
    const entries = (await redis.command("XRANGE", "events", "-", "+")) as unknown as [unknown, unknown[]][];
    expect(entries.length).toBe(250);
    expect(entries.map(([, fields]) => String(fields[1]))).toEqual(events.map(({ id }) => id));
    expect(() => redisStreamSink({ client: {} as never, stream: "x" })).toThrow(
      expect.objectContaining({ code: "FOREIGN_CLIENT" }),
    );
  },
);

describe.skipIf(databasesSkipped !== undefined)("an outbox in the branches of a transaction", { timeout: 60_000 }, () => {
  test("an event that is prepared for long while later ones commit is told all the same, and one that is rolled back never (B4)", async () => {
    if ("skipped" in left || "skipped" in right) return;
    const [orders, wallet] = [postgres({ url: left.url }), mariadb({ url: right.url })];
    let held: (() => void) | undefined;
    const tm = await transactions({
      store: conclave.engine,
      resources: { orders, wallet },
      acceptVolatileDecisions: volatileWords,
      // The first to be decided waits, prepared, until it is let go.
      checkpoint: (step) =>
        step === "all-prepared" && held === undefined
          ? new Promise<void>((resolve) => {
              held = resolve;
            })
          : undefined,
    });
    open.push(() => tm.close());
    const outboxes = [postgresOutbox(orders, { name: "orders" }), mariadbOutbox(wallet, { name: "wallet" })] as const;
    const sinks = [collector(), collector()] as const;
    for (const [at, outbox] of outboxes.entries()) {
      await outbox.install();
      relay({ outbox, sink: sinks[at] as Sink });
    }
    const emit = (name: string, refuse = false) =>
      tm.run({ timeoutMs: 20_000 }, async (tx) => {
        await outboxes[0].emit(tx.on("orders"), { topic: "order.placed", key: name, payload: { name } });
        await outboxes[1].emit(tx.on("wallet"), { topic: "paid", key: name, payload: { name, "it's": "é" } });
        if (refuse) throw new Abort("no");
      });
    const slow = emit("slow");
    await until(() => held !== undefined, "the slow one is prepared");
    await emit("quick");
    await emit("refused", true).catch(() => undefined);
    for (const sink of sinks) await until(() => sink.got.length === 1, "the quick one was told");
    held?.();
    await slow;
    for (const sink of sinks) {
      await until(() => sink.got.length === 2, "the slow one was told");
      expect(sink.got.map(({ key }) => key)).toEqual(["quick", "slow"]);
      expect(Math.abs(Date.now() - (sink.got[0]?.atMs ?? 0))).toBeLessThan(60_000);
    }
    expect(sinks[1].got[0]?.payload).toEqual({ name: "quick", "it's": "é" });
    for (const outbox of outboxes) await until(async () => (await outbox.backlog()) === 0, "nothing waits");
  });
});
