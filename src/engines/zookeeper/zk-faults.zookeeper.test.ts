/**
 * What breaks a ZooKeeper lock in other libraries, on real servers: answers that are lost, events that come twice or together, a
 * server that was cut off from the others and goes on answering pings, a session that ends at any step, a leader that dies.
 */
import { afterAll, expect, test, vi } from "vitest";
import { FaultProxy } from "../../../test/servers/fault-proxy.ts";
import { dice, isRising, pass, tryLock, until } from "../../../test/servers/lock-trial.ts";
import { startZooKeeper, type ZooKeeperEnsemble } from "../../../test/servers/zookeeper.ts";
import { type ConclaveError, hasCode } from "../../base/errors.ts";
import { nodePlatform } from "../../host/node-platform.ts";
import { createLock } from "../../recipes/lock.ts";
import { op } from "../../recipes/when.ts";
import { ZkConnection } from "./connection.ts";
import { create, getData, multi } from "./protocol.ts";
import { openZooKeeper, type ZkEngine } from "./zk-engine.ts";

const found = await startZooKeeper();
const isMissing = "skipped" in found;
const zookeeper = found as ZooKeeperEnsemble;
const closing: (() => Promise<unknown>)[] = [];
afterAll(async () => {
  for (const close of closing.reverse()) await close();
  if (!isMissing) await zookeeper.stop();
});

async function engineOn(url: string): Promise<ZkEngine> {
  const engine = await openZooKeeper({ url });
  closing.push(() => engine.close());
  return engine;
}

async function proxyOf(port: number): Promise<FaultProxy> {
  const proxy = await FaultProxy.start(port);
  closing.push(() => proxy.close());
  return proxy;
}

async function ownEnsemble(options: Parameters<typeof startZooKeeper>[0] = {}): Promise<ZooKeeperEnsemble> {
  const ensemble = (await startZooKeeper(options)) as ZooKeeperEnsemble;
  closing.push(() => ensemble.stop());
  return ensemble;
}

let names = 0;
const name = (): string => `fault-${++names}`;

test.skipIf(isMissing)("an acquisition whose answer is lost is asked again, holds once, and leaves one key", async () => {
  const proxy = await proxyOf(zookeeper.port);
  const engine = await engineOn(`zookeeper://127.0.0.1:${proxy.port}`);
  const direct = await engineOn(zookeeper.url);
  const lockName = name();
  const lock = createLock(engine, lockName);
  await (await lock.acquire()).release();
  let lost = 0;
  // The answer to a multi: pings have 16 bytes after their length.
  proxy.onAnswer = (chunk) => (chunk.length > 60 && lost++ === 0 ? { kind: "cut" } : undefined);
  const hold = await lock.acquire();
  expect(lost).toBeGreaterThan(0);
  expect(hold.held).toBe(true);
  expect(await createLock(direct, lockName).queue()).toHaveLength(1);
  await hold.release();
  await until(async () => (await createLock(direct, lockName).queue()).length === 0, "the queue is empty");
});

test.skipIf(isMissing)("a join that cannot read who else is there says that it may have happened, and it has", async () => {
  const proxy = await proxyOf(zookeeper.port);
  const engine = await engineOn(`zookeeper://127.0.0.1:${proxy.port}`);
  const direct = (await engineOn(zookeeper.url)).store(name());
  const theirs = (await direct.sharedSession()).id;
  await direct.txn({ then: [{ kind: "put", key: "2/b", value: "", session: theirs }] });
  const store = engine.store(direct.namespace);
  const session = (await store.sharedSession()).id;
  // The join and the list go out in one write; that somebody is there is not known, so his node is asked for in a second one.
  let requests = 0;
  proxy.onRequest = () => ++requests === 2;
  const absent = { key: "1/a", target: "exists", is: "equal", to: false } as const;
  const join = [
    { kind: "put", key: "1/a", value: "", session },
    { kind: "range", range: { prefix: "" }, order: "create" },
  ] as const;
  await expect(store.txn({ if: [absent], then: join })).rejects.toMatchObject({ code: "CONNECTION_LOST", definite: false });
  proxy.onRequest = undefined;
  const { results } = await direct.txn({ then: [{ kind: "get", key: "1/a" }] });
  expect(results[0]).toMatchObject({ entry: { session } });
});

test.skipIf(isMissing)("a write whose answer is lost is never sent again behind the caller's back", async () => {
  const proxy = await proxyOf(zookeeper.port);
  const engine = await engineOn(`zookeeper://127.0.0.1:${proxy.port}`);
  const direct = await engineOn(zookeeper.url);
  const namespace = name();
  const random = dice(5);
  let [answered, doubtful] = [0, 0];
  await engine.store(namespace).txn({ then: [op.add("n", 0)] });
  proxy.onAnswer = () => (random() < 0.15 ? { kind: "cut" } : undefined);
  for (let round = 0; round < 40; round++) {
    try {
      await engine.store(namespace).txn({ then: [op.add("n", 1)] });
      answered++;
    } catch (error) {
      if (!(error as ConclaveError).definite) doubtful++;
    }
  }
  const { results } = await direct.store(namespace).txn({ then: [op.add("n", 0)] });
  const value = results[0]?.kind === "add" ? results[0].value : Number.NaN;
  expect(doubtful).toBeGreaterThan(0);
  expect(value).toBeGreaterThanOrEqual(answered);
  expect(value).toBeLessThanOrEqual(answered + doubtful);
});

test.skipIf(isMissing)(
  "with answers and events lost, told twice or together at random, nobody is inside together and tokens rise",
  async () => {
    const random = dice(12_345);
    const engines: ZkEngine[] = [];
    for (let index = 0; index < 3; index++) {
      const proxy = await proxyOf(zookeeper.port);
      engines.push(await engineOn(`zookeeper://127.0.0.1:${proxy.port}`));
      proxy.onAnswer = () => {
        const drawn = random();
        if (drawn < 0.02) return { kind: "cut" };
        if (drawn < 0.03) return { kind: "drop" };
        if (drawn < 0.05) return { kind: "twice" };
        return drawn < 0.1 ? { kind: "coalesce", delayMs: 20 } : undefined;
      };
    }
    const lockName = name();
    const { entered, together, tokens } = await tryLock({ engines, name: lockName, ttlMs: 5_000, turns: 6 });
    expect([entered >= 18, together, isRising(tokens)]).toEqual([true, 0, true]);
    const direct = await engineOn(zookeeper.url);
    await until(async () => (await createLock(direct, lockName).queue()).length === 0, "the queue is empty");
  },
  150_000,
);

test.skipIf(isMissing)("a session whose node an operator deletes ends the hold, and the next one is let in", async () => {
  const engine = await engineOn(`${zookeeper.url}/operated`);
  const other = await engineOn(`${zookeeper.url}/operated`);
  const lockName = name();
  const hold = await createLock(engine, lockName, { ttlMs: 1_500 }).acquire();
  // Who asks for the signal hears of an operator.
  const { signal } = hold;
  const waiting = createLock(other, lockName, { ttlMs: 1_500 }).acquire();
  const handshake = {
    address: { host: "127.0.0.1", port: zookeeper.port },
    ticket: null,
    lastZxid: 0,
    ttlMs: 4_000,
    timeoutMs: 2_000,
  };
  const connection = await ZkConnection.open(handshake, { tls: false, platform: nodePlatform, credentials: undefined });
  connection.attach({ onEvent: () => undefined, onEnd: () => undefined });
  await until(async () => (await createLock(other, lockName).queue()).length === 2, "two in the queue");
  // The holder's key, as an operator would break the lock.
  const path = `/operated/nlock%2F${lockName}`;
  const key = (hold.guard() as { readonly key: string }).key.replaceAll("/", "%2F");
  const [reply] = await Promise.all(connection.send([multi([{ kind: "delete", path: `${path}/${key}`, version: -1 }])]));
  expect(reply?.code).toBe(0);
  const next = await waiting;
  expect(next.token).toBeGreaterThan(hold.token);
  await until(() => signal.aborted && !hold.held, "the holder knows", 3_000);
  await next.release();
  connection.end("done");
});

test.skipIf(isMissing)(
  "while the server sleeps the holder stops by its own clock, and the lock is to be had again when it wakes",
  async () => {
    const own = await ownEnsemble();
    const engine = await engineOn(own.url);
    const lockName = name();
    const hold = await createLock(engine, lockName, { ttlMs: 2_000 }).acquire();
    own.servers[0]?.process.pause();
    const pausedAt = performance.now();
    await until(() => !hold.held, "the holder stops", 5_000);
    expect(performance.now() - pausedAt).toBeLessThan(2_000 + 500);
    expect(hold.signal.aborted).toBe(true);
    await pass(2_000);
    own.servers[0]?.process.resume();
    const next = await createLock(engine, lockName, { ttlMs: 2_000 }).acquire({ waitMs: 30_000 });
    expect(next.token).toBeGreaterThan(hold.token);
    await next.release();
  },
  90_000,
);

test.skipIf(isMissing)(
  "who reads, writes or asks for a session while a server sleeps past its session is answered when it wakes, not told that it is over",
  async () => {
    // So that the session of readings ends as soon as the others.
    const own = await ownEnsemble({ lines: ["maxSessionTimeout=2000"] });
    const engine = await engineOn(own.url);
    const store = engine.store(name());
    await store.txn({ then: [op.put("a", "1")] });
    const before = await store.session({ ttlMs: 2_000 });
    own.servers[0]?.process.pause();
    await until(() => !before.alive, "the session is lost", 5_000);
    await pass(2_000);
    const asking = Promise.all([
      store.txn({ then: [op.range({ key: "a" })] }, { timeoutMs: 30_000 }),
      // What was sent to a server that then ended the session may have happened; nothing else may be said of it.
      store.txn({ then: [op.put("b", "2")] }, { timeoutMs: 30_000 }).catch((error: unknown) => {
        if (!hasCode(error, "CONNECTION_LOST")) throw error;
      }),
      store.session({ ttlMs: 2_000, timeoutMs: 30_000 }),
    ]);
    await pass(100);
    own.servers[0]?.process.resume();
    const [{ results }, , session] = await asking;
    expect(results[0]?.kind === "range" && results[0].entries.map(({ text }) => text)).toEqual(["1"]);
    expect(await store.txn({ then: [op.put("mine", "", { session: session.id })] })).toMatchObject({ succeeded: true });
  },
  90_000,
);

test.skipIf(isMissing)(
  "after an event loop that stood still for longer than the TTL, the first line knows, and its key goes",
  async () => {
    const engine = await engineOn(zookeeper.url);
    const direct = await engineOn(zookeeper.url);
    const lockName = name();
    const hold = await createLock(engine, lockName, { ttlMs: 2_000 }).acquire();
    const untilMs = performance.now() + 2_500;
    while (performance.now() < untilMs);
    expect(hold.held).toBe(false);
    await until(async () => (await createLock(direct, lockName).queue()).length === 0, "its key is gone", 15_000);
  },
);

test.skipIf(isMissing)("an hour's jump of the client's wall clock, either way, changes nothing", async () => {
  const engine = await engineOn(zookeeper.url);
  const lockName = name();
  const hold = await createLock(engine, lockName, { ttlMs: 2_000 }).acquire();
  const real = Date.now.bind(Date);
  for (const hours of [1, -1]) {
    const jump = vi.spyOn(Date, "now").mockImplementation(() => real() + hours * 3_600_000);
    await pass(2_500);
    expect(hold.held).toBe(true);
    expect(await createLock(engine, lockName).tryAcquire()).toBe(null);
    jump.mockRestore();
  }
  await hold.release();
});

test.skipIf(isMissing)(
  "a server that is cut off from the others and still answers pings confirms nobody: the holder stops in time",
  async () => {
    const ensemble = await ownEnsemble({ servers: 3 });
    const leader = await ensemble.leader();
    const alone = ensemble.servers.find((server) => server !== leader) as (typeof ensemble.servers)[number];
    const engine = await engineOn(`zookeeper://127.0.0.1:${alone.port}`);
    const hold = await createLock(engine, name(), { ttlMs: 3_000 }).acquire();
    // Both others sleep: this one notices only after syncLimit, five seconds here.
    for (const server of ensemble.servers) if (server !== alone) server.process.pause();
    const cutAt = performance.now();
    await until(() => !hold.held, "the holder stops", 10_000);
    expect(performance.now() - cutAt).toBeLessThan(3_000);
    for (const server of ensemble.servers) server.process.resume();
  },
  120_000,
);

test.skipIf(isMissing)(
  "three servers: the leader is killed, a server sleeps; holds of 10 s stay, nobody is inside together, tokens rise",
  async () => {
    const ensemble = await ownEnsemble({ servers: 3 });
    const engines = [await engineOn(ensemble.url), await engineOn(ensemble.url), await engineOn(ensemble.url)];
    const kept = await createLock(engines[0] as ZkEngine, name(), { ttlMs: 10_000 }).acquire();
    const trial = tryLock({ engines, name: name(), ttlMs: 10_000, turns: 40 });
    await pass(300);
    const dead = await ensemble.leader();
    await dead.process.kill();
    await pass(3_000);
    await dead.process.start();
    await pass(1_000);
    const asleep = ensemble.servers.find((server) => server !== dead);
    asleep?.process.pause();
    await pass(4_000);
    asleep?.process.resume();
    const { together, tokens } = await trial;
    expect([together, isRising(tokens), tokens.length >= 120]).toEqual([0, true, true]);
    expect(kept.held).toBe(true);
    await kept.release();
  },
  180_000,
);

test.skipIf(isMissing)("a join beside others costs one round trip more, and a free one costs one", async () => {
  const engine = await engineOn(zookeeper.url);
  const proxy = await proxyOf(zookeeper.port);
  const counted = await engineOn(`zookeeper://127.0.0.1:${proxy.port}`);
  const lockName = name();
  const lock = createLock(counted, lockName);
  let requests = 0;
  let counts: readonly number[] = [];
  // Once a second the server takes an empty namespace's node away, and a join makes it anew: then it is counted again.
  for (let tries = 0; tries < 5 && counts.join() !== "1,2"; tries++) {
    proxy.onRequest = undefined;
    // The session and the namespace are there from the first time on.
    await (await lock.acquire()).release();
    await pass(50);
    requests = 0;
    proxy.onRequest = (chunk) => {
      // A ping is 12 bytes.
      if (chunk.length > 12) requests++;
      return false;
    };
    const hold = await lock.acquire();
    const acquiring = requests;
    await hold.release();
    counts = [acquiring, requests];
  }
  expect(counts).toEqual([1, 2]);
  proxy.onRequest = undefined;
  await createLock(engine, lockName).run(() => undefined);
});

test.skipIf(isMissing)("a node that somebody else put into our place is read as it is, and stops nobody", async () => {
  const engine = await engineOn(`${zookeeper.url}/shared`);
  const store = engine.store("mixed");
  await store.txn({ then: [op.put("ours", "1")] });
  const handshake = {
    address: { host: "127.0.0.1", port: zookeeper.port },
    ticket: null,
    lastZxid: 0,
    ttlMs: 4_000,
    timeoutMs: 2_000,
  };
  const connection = await ZkConnection.open(handshake, { tls: false, platform: nodePlatform, credentials: undefined });
  connection.attach({ onEvent: () => undefined, onEnd: () => undefined });
  const acl = { scheme: "world", id: "anyone" };
  await Promise.all(connection.send([create("/shared/nmixed/theirs", { data: Buffer.from("plain"), kind: "persistent", acl })]));
  const [ours] = await Promise.all(connection.send([getData("/shared/nmixed/ours")]));
  expect(ours?.value?.data.toString("latin1")).toBe("\xc01");
  const { results } = await store.txn({ then: [op.range({ prefix: "" })] });
  expect(results[0]?.kind === "range" && results[0].entries.map(({ key, text }) => [key, text])).toEqual([
    ["ours", "1"],
    ["theirs", "plain"],
  ]);
  expect(hasCode(await store.txn({ then: [op.add("theirs", 1)] }).catch((error: unknown) => error), "NOT_A_NUMBER")).toBe(true);
  connection.end("done");
});
