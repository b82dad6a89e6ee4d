/**
 * What breaks a Redis lock in other libraries, on real servers: answers that are lost, a server that sleeps, dies, comes
 * back empty, is replaced by one that lacks the last writes, a slot that moves.
 */
import { afterAll, expect, test } from "vitest";
import { FaultProxy } from "../../../test/servers/fault-proxy.ts";
import { type RedisServer, startRedis, startRedisCluster, startRedisSentinel } from "../../../test/servers/redis.ts";
import { hasCode } from "../../base/errors.ts";
import { createLock } from "../../recipes/lock.ts";
import { op } from "../../recipes/when.ts";
import { openRedis, type RedisEngine, type RedisOptions } from "./redis-engine.ts";
import { slotOf } from "./slot.ts";

const found = await startRedis();
const isMissing = "skipped" in found;
const redis = found as RedisServer;
const closing: (() => Promise<unknown>)[] = [];
afterAll(async () => {
  for (const close of closing.reverse()) await close();
  if (!isMissing) await redis.stop();
});

async function engineOn(url: string, options: Omit<RedisOptions, "url"> = {}): Promise<RedisEngine> {
  const engine = await openRedis({ url, ...options });
  closing.push(() => engine.close());
  return engine;
}

async function proxyOf(port: number): Promise<FaultProxy> {
  const proxy = await FaultProxy.start(port);
  closing.push(() => proxy.close());
  return proxy;
}

async function ownServer(options: Parameters<typeof startRedis>[0] = {}): Promise<RedisServer> {
  const server = (await startRedis(options)) as RedisServer;
  closing.push(() => server.stop());
  return server;
}

const pass = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function until(isSo: () => boolean | Promise<boolean>, what: string, ms = 20_000): Promise<void> {
  const untilMs = performance.now() + ms;
  while (!(await isSo())) {
    if (performance.now() > untilMs) throw new Error(`Not within ${ms} ms: ${what}.`);
    await pass(20);
  }
}

let names = 0;
const name = (): string => `fault-${++names}`;

test.skipIf(isMissing)("an acquisition whose answer is lost is asked again, holds once, and leaves one key", async () => {
  const proxy = await proxyOf(redis.port);
  const engine = await engineOn(`redis://127.0.0.1:${proxy.port}`, { quarantineMs: -1 });
  const lockName = name();
  const lock = createLock(engine, lockName);
  await (await lock.acquire()).release();
  let lost = 0;
  proxy.onAnswer = () => (lost++ === 0 ? { kind: "cut" } : undefined);
  const hold = await lock.acquire();
  expect(lost).toBeGreaterThan(1);
  expect(hold.held).toBe(true);
  expect(await lock.queue()).toHaveLength(1);
  await hold.release();
  await until(async () => (await lock.queue()).length === 0, "the queue is empty");
});

test.skipIf(isMissing)(
  "calls that are not answered end each at its own time, and their late answers reach nobody else",
  async () => {
    const proxy = await proxyOf(redis.port);
    const engine = await engineOn(`redis://127.0.0.1:${proxy.port}`, { quarantineMs: -1 });
    const store = engine.store(name());
    await store.txn({ then: [op.put("a", "1")] });
    // Answers come, but too late for all and in one piece.
    proxy.onAnswer = () => ({ kind: "coalesce", delayMs: 600 });
    const startedAt = performance.now();
    const timed = [300, 100, 450, 200, 10_000_000_000].map(async (timeoutMs) => {
      const outcome = await store.txn({ then: [op.get("a")] }, { timeoutMs }).catch((error: unknown) => error);
      return { timeoutMs, tookMs: performance.now() - startedAt, outcome };
    });
    const [patient] = (await Promise.all(timed)).splice(-1);
    for (const { timeoutMs, tookMs, outcome } of (await Promise.all(timed)).slice(0, -1)) {
      expect(hasCode(outcome, "TIMEOUT") && !outcome.definite).toBe(true);
      expect(tookMs).toBeGreaterThanOrEqual(timeoutMs - 2);
    }
    expect(patient?.outcome).toMatchObject({ results: [{ kind: "get", entry: { text: "1" } }] });
    expect(patient?.tookMs).toBeGreaterThanOrEqual(500);
    proxy.onAnswer = undefined;
    expect((await store.txn({ then: [op.get("a")] })).results).toMatchObject([{ entry: { text: "1" } }]);
  },
);

test.skipIf(isMissing)("a write whose answer is lost is never sent again behind the caller's back", async () => {
  const proxy = await proxyOf(redis.port);
  const engine = await engineOn(`redis://127.0.0.1:${proxy.port}`, { quarantineMs: -1 });
  const store = engine.store(name());
  await store.txn({ then: [op.add("n", 1)] });
  let lost = 0;
  proxy.onAnswer = () => (lost++ === 0 ? { kind: "cut" } : undefined);
  const error = await store.txn({ then: [op.add("n", 1)] }).catch((caught: unknown) => caught);
  expect(hasCode(error, "CONNECTION_LOST") && !error.definite).toBe(true);
  await pass(300);
  expect((await store.txn({ then: [op.add("n", 0)] })).results).toEqual([{ kind: "add", value: 2 }]);
});

test.skipIf(isMissing)(
  "a session that the server has ended is never revived by its keep-alives, and its holder is told",
  async () => {
    const engine = await engineOn(`redis://127.0.0.1:${redis.port}`, { quarantineMs: -1 });
    const lock = createLock(engine, name(), { ttlMs: 1_500 });
    const hold = await lock.acquire();
    const session = (await lock.queue())[0]?.session as string;
    // As if its deadline had passed, whatever it thinks itself; the next script ends it.
    await redis.command("ZADD", "{conclave}:s", 1, session);
    await engine.store("x").txn({ then: [op.get("a")] });
    await until(() => !hold.held, "the holder knows", 1_200);
    expect(await redis.command("ZSCORE", "{conclave}:s", session)).toBe(null);
    await (await lock.acquire()).release();
  },
);

test.skipIf(isMissing)(
  "the only waiter, with a long TTL of its own, is served soon after the deadline of a holder that died",
  async () => {
    const server = await ownServer();
    const proxy = await proxyOf(server.port);
    const holder = await engineOn(`redis://127.0.0.1:${proxy.port}`, { quarantineMs: -1 });
    const lockName = name();
    const hold = await createLock(holder, lockName, { ttlMs: 1_500 }).acquire();
    const waiter = await engineOn(server.url, { quarantineMs: -1 });
    const waiting = createLock(waiter, lockName, { ttlMs: 60_000 }).acquire();
    await pass(100);
    proxy.silence();
    const silentAt = performance.now();
    const granted = await waiting;
    // Nobody else asks anything, and the waiter's own keep-alives are 20 s apart.
    expect(performance.now() - silentAt).toBeLessThan(4_000);
    expect(hold.held).toBe(false);
    await granted.release();
  },
);

test.skipIf(isMissing)(
  "with answers lost at random on every call, no increment under the lock is lost and the queue ends empty",
  async () => {
    const direct = await engineOn(`redis://127.0.0.1:${redis.port}`, { quarantineMs: -1 });
    const lockName = name();
    let state = 12_345;
    const random = (): number => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
      return state / 0x7fffffff;
    };
    const engines: RedisEngine[] = [];
    for (let index = 0; index < 3; index++) {
      const proxy = await proxyOf(redis.port);
      const engine = await engineOn(`redis://127.0.0.1:${proxy.port}`, { quarantineMs: -1 });
      // An answer told twice would answer the next command: only pushes may be repeated.
      proxy.onAnswer = (chunk) => {
        if (chunk.includes("smessage")) return random() < 0.2 ? { kind: "twice" } : random() < 0.1 ? { kind: "drop" } : undefined;
        return random() < 0.08 ? { kind: "cut" } : undefined;
      };
      engines.push(engine);
    }
    let [inside, count, done] = [0, 0, 0];
    const tokens: number[] = [];
    const work = async (engine: RedisEngine): Promise<void> => {
      for (let round = 0; round < 12; round++) {
        try {
          await createLock(engine, lockName, { ttlMs: 2_000 }).run(async (hold) => {
            expect(++inside).toBe(1);
            tokens.push(hold.token);
            const seen = count;
            await pass(1);
            count = seen + 1;
            inside--;
            done++;
          });
        } catch (error) {
          // A session may be lost for good in such a network; then nobody was inside.
          if (!hasCode(error, "SESSION_LOST") && !hasCode(error, "LOCK_LOST")) throw error;
        }
      }
    };
    await Promise.all(engines.map(work));
    expect(count).toBe(done);
    expect(done).toBeGreaterThan(20);
    expect(tokens).toEqual([...tokens].sort((left, right) => left - right));
    await until(async () => (await createLock(direct, lockName).queue()).length === 0, "the queue is empty");
  },
  60_000,
);

test.skipIf(isMissing)(
  "who waits for a session in quarantine is told that, how long it lasts and which option it is",
  async () => {
    const server = await ownServer();
    const engine = await engineOn(server.url, { quarantineMs: 60_000 });
    const store = engine.store("quarantined");
    const refusal = await store.sharedSession({ timeoutMs: 300 }).catch((error: unknown) => error);
    expect(hasCode(refusal, "QUARANTINED")).toBe(true);
    const [, leftMs] = /another (\d+) ms\..*quarantineMs=-1/.exec((refusal as Error).message) ?? [];
    expect(Number(leftMs)).toBeGreaterThan(60_000);
    expect(Number(leftMs)).toBeLessThanOrEqual(75_000);
    // Told from the first answer, less the time that has passed since.
    const later = await store.sharedSession({ timeoutMs: 300 }).catch((error: unknown) => error);
    const [, laterMs] = /another (\d+) ms/.exec((later as Error).message) ?? [];
    expect(Number(leftMs) - Number(laterMs)).toBeGreaterThanOrEqual(250);
  },
);

test.skipIf(isMissing)("a holder learns of a stolen lock at once, and of a frozen server before its TTL is over", async () => {
  const server = await ownServer();
  const engine = await engineOn(server.url, { quarantineMs: -1 });
  const thief = await engineOn(server.url, { quarantineMs: -1 });
  const lockName = name();
  const lock = createLock(engine, lockName, { ttlMs: 1_500 });
  const stolen = await lock.acquire();
  const signal = stolen.signal;
  await pass(50);
  const stolenAt = performance.now();
  await thief.store(`lock/${lockName}`).txn({ then: [op.delete({ prefix: "" })] });
  await until(() => signal.aborted, "the holder knows");
  expect(performance.now() - stolenAt).toBeLessThan(500);
  const frozen = await lock.acquire();
  const frozenAt = performance.now();
  server.process.pause();
  await until(() => frozen.signal.aborted, "the holder knows");
  expect(performance.now() - frozenAt).toBeLessThanOrEqual(1_500);
  expect(frozen.held).toBe(false);
  server.process.resume();
});

test.skipIf(isMissing)(
  "a server that comes back empty grants nothing before the earlier holder has stopped, and then a higher token",
  async () => {
    const server = await ownServer();
    const first = await engineOn(server.url, { quarantineMs: 0, ttlMsMax: 3_000 });
    // A fresh server without persistence might have lost a store a moment ago: the first grant waits for that.
    const lockName = name();
    await server.process.kill();
    await server.process.start();
    const lock = createLock(first, lockName, { ttlMs: 2_000 });
    const hold = await lock.acquire();
    let wasHeld = true;
    const next = engineOn(server.url, { quarantineMs: 0, ttlMsMax: 3_000 }).then(async (second) => {
      await server.process.kill();
      await server.process.start();
      const granted = await createLock(second, lockName, { ttlMs: 2_000 }).acquire();
      wasHeld = hold.held;
      return granted;
    });
    const granted = await next;
    expect(wasHeld).toBe(false);
    expect(granted.token).toBeGreaterThan(hold.token);
  },
  60_000,
);

test.skipIf(isMissing)(
  "a promoted replica that lacks the last writes ends every session, waits, and goes on with higher tokens",
  async () => {
    const primary = await ownServer();
    const replica = await ownServer({ args: ["--replicaof", "127.0.0.1", String(primary.port)] });
    await until(
      async () => String(await replica.command("INFO", "replication")).includes("master_link_status:up"),
      "the replica follows",
    );
    const [proxyA, proxyB] = [await proxyOf(primary.port), await proxyOf(primary.port)];
    const a = await engineOn(`redis://127.0.0.1:${proxyA.port}`, { quarantineMs: 200, ttlMsMax: 2_000 });
    const b = await engineOn(`redis://127.0.0.1:${proxyB.port}`, { quarantineMs: 200, ttlMsMax: 2_000 });
    const lockName = name();
    const [lockA, lockB] = [createLock(a, lockName, { ttlMs: 2_000 }), createLock(b, lockName, { ttlMs: 2_000 })];
    await (await lockB.acquire()).release();
    // B takes part before the split, so the replica knows its session; then it is cut off from the writes.
    await until(async () => (await primary.command("WAIT", 1, 1_000)) === 1, "the replica has it all");
    await replica.command("REPLICAOF", "NO", "ONE");
    const hold = await lockA.acquire();
    // The primary goes, A cannot reach the new one, and B can.
    proxyA.silence();
    proxyB.target = replica.port;
    proxyB.cut();
    const askedAt = performance.now();
    // The waiting session is ended with all others; whoever still wants the lock asks again.
    const granted = await lockB.acquire().catch((error: unknown) => {
      if (!hasCode(error, "SESSION_LOST")) throw error;
      return lockB.acquire();
    });
    expect(hold.held, "two holders at one time").toBe(false);
    expect(performance.now() - askedAt).toBeGreaterThan(1_000);
    expect(granted.token).toBeGreaterThan(hold.token);
    await granted.release();
  },
  60_000,
);

test.skipIf(isMissing)(
  "who watches an empty namespace hears from the new primary, although its push connection still stands on the old one",
  async () => {
    const old = await ownServer();
    const next = await ownServer({ args: ["--replicaof", "127.0.0.1", String(old.port)] });
    await until(
      async () => String(await next.command("INFO", "replication")).includes("master_link_status:up"),
      "the replica follows",
    );
    const proxy = await proxyOf(old.port);
    const watcher = await engineOn(`redis://127.0.0.1:${proxy.port}`, { quarantineMs: -1 });
    const lockName = name();
    let holders = 0;
    const stop = new AbortController();
    const watching = (async () => {
      for await (const queue of createLock(watcher, lockName).observe({ signal: stop.signal })) holders = queue.length;
    })();
    const sees = async (lock: ReturnType<typeof createLock>): Promise<void> => {
      const hold = await lock.acquire();
      await until(() => holders === 1, "the watcher sees the holder", 3_000);
      await hold.release();
      await until(() => holders === 0, "the watcher sees it go", 3_000);
    };
    await sees(createLock(watcher, lockName));
    await next.command("REPLICAOF", "NO", "ONE");
    proxy.target = next.port;
    await old.command("REPLICAOF", "127.0.0.1", next.port);
    // It is told that the old one only reads, and goes to the new one.
    const other = await engineOn(next.url, { quarantineMs: -1 });
    const lock = createLock(other, lockName);
    await (await lock.acquire()).release();
    await watcher
      .store("x")
      .txn({ then: [op.put("a", "1")] })
      .catch(() => undefined);
    await watcher.store("x").txn({ then: [op.put("a", "2")] });
    await pass(300);
    await sees(lock);
    stop.abort();
    await watching;
  },
  60_000,
);

test.skipIf(isMissing)(
  "a write that too few replicas confirm fails with REPLICAS_MISSING and says that it may have happened",
  async () => {
    const primary = await ownServer();
    const engine = await engineOn(primary.url, { quarantineMs: -1, wait: 1 });
    const store = engine.store(name());
    const error = await store.txn({ then: [op.put("a", "1")] }, { timeoutMs: 2_000 }).catch((caught: unknown) => caught);
    expect(hasCode(error, "REPLICAS_MISSING") && !error.definite).toBe(true);
    const replica = await ownServer({ args: ["--replicaof", "127.0.0.1", String(primary.port)] });
    await until(
      async () => String(await replica.command("INFO", "replication")).includes("master_link_status:up"),
      "the replica follows",
    );
    await store.txn({ then: [op.put("a", "2")] });
    const kept = await replica.command("HVALS", "{conclave}:e");
    expect(String(kept)).toContain("2");
  },
  60_000,
);

test.skipIf(isMissing)(
  "behind Sentinels a killed primary costs a wait, never a second holder",
  async () => {
    const group = await startRedisSentinel();
    if ("skipped" in group) return;
    closing.push(() => group.stop());
    const [a, b] = [
      await engineOn(group.url, { quarantineMs: 0, ttlMsMax: 3_000 }),
      await engineOn(group.url, { quarantineMs: 0, ttlMsMax: 3_000 }),
    ];
    const lockName = name();
    const hold = await createLock(a, lockName, { ttlMs: 3_000 }).acquire();
    let wasHeld: boolean | undefined;
    const next = createLock(b, lockName, { ttlMs: 3_000 }).acquire({ waitMs: 40_000 });
    const settled = next.then(
      (granted) => {
        wasHeld = hold.held;
        return granted;
      },
      () => undefined,
    );
    await pass(200);
    await group.primary.process.kill();
    // The wait may end with its session; then it is asked again, as a user would.
    const granted = (await settled) ?? (await createLock(b, lockName, { ttlMs: 3_000 }).acquire({ waitMs: 40_000 }));
    expect(wasHeld ?? hold.held).toBe(false);
    expect(granted.token).toBeGreaterThan(hold.token);
    await granted.release();
  },
  90_000,
);

test.skipIf(isMissing)(
  "in a Cluster the slot may move and its primary may die under a lock that is in use",
  async () => {
    const cluster = await startRedisCluster();
    if ("skipped" in cluster) return;
    closing.push(() => cluster.stop());
    const engine = await engineOn(cluster.url, { quarantineMs: 0, ttlMsMax: 3_000 });
    const lockName = name();
    const lock = createLock(engine, lockName, { ttlMs: 2_000 });
    const before = await lock.acquire();
    await before.release();
    const slot = slotOf("{conclave}");
    const owners = [cluster.servers[0], cluster.servers[1], cluster.servers[2]] as RedisServer[];
    const ownerIndex = Math.floor(slot / Math.ceil(16_384 / 3));
    const from = owners[ownerIndex] as RedisServer;
    const to = owners[(ownerIndex + 1) % 3] as RedisServer;
    let [rounds, inside] = [0, 0];
    let stop = false;
    // Beside the lock, what goes by the general script: several keys of one namespace, bound and not, in one txn.
    const store = engine.store("moving");
    let pairs = 0;
    const writing = (async () => {
      while (!stop) {
        const session = await store.sharedSession({ ttlMs: 3_000 });
        const value = String(++pairs);
        const then = [
          op.put("left", value),
          op.put("right", value),
          op.put(`bound/${pairs % 5}`, value, { session: session.id }),
        ];
        await store.txn({ then }).catch((error: unknown) => {
          // Refused before its first line, or its session is gone; never broken off in the middle.
          if (!hasCode(error, "SESSION_EXPIRED") && !hasCode(error, "TIMEOUT") && !hasCode(error, "ENGINE_REFUSED")) throw error;
        });
        await pass(1);
      }
    })();
    const working = (async () => {
      while (!stop) {
        await lock
          .run(async () => {
            expect(++inside).toBe(1);
            await pass(1);
            inside--;
          })
          .catch((error: unknown) => {
            if (!hasCode(error, "SESSION_LOST") && !hasCode(error, "LOCK_LOST")) throw error;
            inside = 0;
          });
        rounds++;
      }
    })();
    await moveSlot({ slot, from, to });
    const [moved, paired] = [rounds, pairs];
    // The node is new to the store, so it waits as after a failover.
    await until(() => rounds > moved + 5 && pairs > paired + 5, "the work goes on after the slot has moved", 30_000);
    stop = true;
    await working;
    await writing;
    const byKey = await store.txn({ then: [op.get("left"), op.get("right"), { kind: "range", range: { prefix: "" } }] });
    const byCreation = await store.txn({ then: [{ kind: "range", range: { prefix: "" }, order: "create" }] });
    const [left, right, all] = byKey.results;
    expect(left?.kind === "get" && left.entry?.text).toBe(right?.kind === "get" && right.entry?.text);
    // The indexes know of the same keys, and every bound key goes with its session.
    expect(byCreation.results[0]).toMatchObject({ count: all?.kind === "range" ? all.count : -1 });
    const rest = ["left", "right"];
    await (await store.sharedSession({ ttlMs: 3_000 })).close();
    const { results } = await store.txn({ then: [{ kind: "range", range: { prefix: "" } }] });
    expect(results[0]?.kind === "range" && results[0].entries.map((entry) => entry.key)).toEqual(rest);
    const after = await lock.acquire();
    expect(after.token).toBeGreaterThan(before.token);
    await to.process.kill();
    const next = await createLock(await engineOn(cluster.url, { quarantineMs: 0, ttlMsMax: 3_000 }), lockName, {
      ttlMs: 2_000,
    }).acquire();
    expect(after.held).toBe(false);
    expect(next.token).toBeGreaterThan(after.token);
  },
  120_000,
);

async function moveSlot({ slot, from, to }: { slot: number; from: RedisServer; to: RedisServer }): Promise<void> {
  const [fromId, toId] = [String(await from.command("CLUSTER", "MYID")), String(await to.command("CLUSTER", "MYID"))];
  await to.command("CLUSTER", "SETSLOT", slot, "IMPORTING", fromId);
  await from.command("CLUSTER", "SETSLOT", slot, "MIGRATING", toId);
  for (;;) {
    const keys = (await from.command("CLUSTER", "GETKEYSINSLOT", slot, 10)) as readonly Buffer[];
    if (keys.length === 0) break;
    for (const key of keys) {
      const reply = await from.command("MIGRATE", "127.0.0.1", to.port, key, 0, 5_000);
      if (String(reply) !== "OK" && String(reply) !== "NOKEY") throw new Error(`MIGRATE: ${JSON.stringify(reply)}`);
    }
  }
  await to.command("CLUSTER", "SETSLOT", slot, "NODE", toId);
  await from.command("CLUSTER", "SETSLOT", slot, "NODE", toId);
}
