/**
 * What breaks an etcd lock in other libraries, on real servers: answers that are lost, streams that are cut, a lease that
 * is revoked at any step, a member that sleeps or dies, a process that stood still, a clock that jumps.
 */
import { afterAll, expect, test, vi } from "vitest";
import { type EtcdCluster, startEtcd } from "../../../test/servers/etcd.ts";
import { FaultProxy } from "../../../test/servers/fault-proxy.ts";
import { dice, isRising, pass, tryLock, until } from "../../../test/servers/lock-trial.ts";
import { type ConclaveError, hasCode } from "../../base/errors.ts";
import { createLock } from "../../recipes/lock.ts";
import { op } from "../../recipes/when.ts";
import { type EtcdEngine, openEtcd } from "./etcd-engine.ts";

const found = await startEtcd();
const isMissing = "skipped" in found;
const etcd = found as EtcdCluster;
const closing: (() => Promise<unknown>)[] = [];
afterAll(async () => {
  for (const close of closing.reverse()) await close();
  if (!isMissing) await etcd.stop();
});

async function engineOn(url: string): Promise<EtcdEngine> {
  const engine = await openEtcd({ url });
  closing.push(() => engine.close());
  return engine;
}

async function proxyOf(port: number): Promise<FaultProxy> {
  const proxy = await FaultProxy.start(port);
  closing.push(() => proxy.close());
  return proxy;
}

async function ownCluster(options: Parameters<typeof startEtcd>[0] = {}): Promise<EtcdCluster> {
  const cluster = (await startEtcd(options)) as EtcdCluster;
  closing.push(() => cluster.stop());
  return cluster;
}

/** Leases by id, as etcdctl lists them. */
const revoke = (cluster: EtcdCluster, session: string): string =>
  cluster.ctl("lease", "revoke", BigInt(session).toString(16).padStart(16, "0"));

let names = 0;
const name = (): string => `fault-${++names}`;

test.skipIf(isMissing)("an acquisition whose answer is lost is asked again, holds once, and leaves one key", async () => {
  const proxy = await proxyOf(etcd.port);
  const engine = await engineOn(`etcd://127.0.0.1:${proxy.port}`);
  const lock = createLock(engine, name());
  await (await lock.acquire()).release();
  await pass(100);
  let lost = 0;
  // Answers to a txn carry data of some length; acknowledgements of HTTP/2 are short.
  proxy.onAnswer = (chunk) => (chunk.length > 60 && lost++ === 0 ? { kind: "cut" } : undefined);
  const hold = await lock.acquire();
  expect(lost).toBeGreaterThan(1);
  expect(hold.held).toBe(true);
  expect(await lock.queue()).toHaveLength(1);
  await hold.release();
  await until(async () => (await lock.queue()).length === 0, "the queue is empty");
});

test.skipIf(isMissing)("a write whose answer is lost is never sent again behind the caller's back", async () => {
  const proxy = await proxyOf(etcd.port);
  const engine = await engineOn(`etcd://127.0.0.1:${proxy.port}`);
  const direct = await engineOn(etcd.url);
  const namespace = name();
  const random = dice(3);
  let [answered, doubtful] = [0, 0];
  proxy.onAnswer = (chunk) => (chunk.length > 60 && random() < 0.3 ? { kind: "cut" } : undefined);
  for (let round = 0; round < 40; round++) {
    try {
      await engine.store(namespace).txn({ then: [op.put(`k${round}`, "1", { returnPrevious: true })] });
      answered++;
    } catch (error) {
      if (!(error as ConclaveError).definite) doubtful++;
    }
  }
  const { results } = await direct.store(namespace).txn({ then: [op.range({ prefix: "" })] });
  const entries = results[0]?.kind === "range" ? results[0].entries : [];
  expect(doubtful).toBeGreaterThan(0);
  expect(entries.length).toBeGreaterThanOrEqual(answered);
  expect(entries.length).toBeLessThanOrEqual(answered + doubtful);
  // Sent twice it would be at version 2.
  expect(entries.every(({ version }) => version === 1)).toBe(true);
});

test.skipIf(isMissing)(
  "with connections cut and answers held back at random, nobody is inside together and tokens rise",
  async () => {
    const random = dice(12_345);
    const engines: EtcdEngine[] = [];
    for (let index = 0; index < 3; index++) {
      const proxy = await proxyOf(etcd.port);
      engines.push(await engineOn(`etcd://127.0.0.1:${proxy.port}`));
      proxy.onAnswer = () => {
        const drawn = random();
        return drawn < 0.03 ? { kind: "cut" } : drawn < 0.1 ? { kind: "coalesce", delayMs: 20 } : undefined;
      };
    }
    const lockName = name();
    const { entered, together, tokens } = await tryLock({ engines, name: lockName, ttlMs: 5_000, turns: 15 });
    expect([entered >= 45, together, isRising(tokens)]).toEqual([true, 0, true]);
    const direct = await engineOn(etcd.url);
    await until(async () => (await createLock(direct, lockName).queue()).length === 0, "the queue is empty");
  },
  120_000,
);

test.skipIf(isMissing)("a lease that is revoked ends the hold, or the wait, at whatever step it is", async () => {
  const engine = await engineOn(etcd.url);
  const other = await engineOn(etcd.url);
  const lockName = name();
  const [mine, theirs] = [createLock(engine, lockName), createLock(other, lockName)];
  // While it is held.
  const hold = await mine.acquire();
  // Who asks for the signal hears of it at once.
  const { signal } = hold;
  const waiting = theirs.acquire();
  await until(async () => (await mine.queue()).length === 2, "two in the queue");
  const [holder, waiter] = await mine.queue();
  revoke(etcd, holder?.session as string);
  const next = await waiting;
  expect(next.token).toBeGreaterThan(hold.token);
  await until(() => signal.aborted && !hold.held, "the holder knows", 2_000);
  // While it waits, on the session that comes after the lost one.
  const again = mine.acquire().catch((error: unknown) => error);
  await until(async () => (await mine.queue()).length === 2, "two in the queue");
  const own = (await mine.queue())[1]?.session as string;
  revoke(etcd, own);
  const ended = await again;
  expect(hasCode(ended, "LOCK_LOST") || hasCode(ended, "SESSION_LOST")).toBe(true);
  // Before it asks, and before anybody can know.
  const lost = waiter?.session as string;
  await next.release();
  revoke(etcd, lost);
  const late = await theirs.acquire().catch((error: unknown) => error);
  if (late instanceof Error) expect(hasCode(late, "SESSION_EXPIRED") || hasCode(late, "SESSION_LOST")).toBe(true);
  else await (late as { release(): Promise<void> }).release();
  await until(async () => (await mine.queue()).length === 0, "the queue is empty");
});

test.skipIf(isMissing)(
  "while the server sleeps the holder stops by its own clock, and the lock is to be had again when it wakes",
  async () => {
    const own = await ownCluster();
    const engine = await engineOn(own.url);
    const lockName = name();
    const hold = await createLock(engine, lockName, { ttlMs: 2_000 }).acquire();
    own.members[0]?.process.pause();
    const pausedAt = performance.now();
    await until(() => !hold.held, "the holder stops", 5_000);
    expect(performance.now() - pausedAt).toBeLessThan(2_000 + 500);
    expect(hold.signal.aborted).toBe(true);
    await pass(2_000);
    own.members[0]?.process.resume();
    const next = await createLock(engine, lockName, { ttlMs: 2_000 }).acquire({ waitMs: 20_000 });
    expect(next.token).toBeGreaterThan(hold.token);
    await next.release();
  },
  60_000,
);

test.skipIf(isMissing)("after an event loop that stood still for longer than the TTL, the first line knows", async () => {
  const engine = await engineOn(etcd.url);
  const hold = await createLock(engine, name(), { ttlMs: 2_000 }).acquire();
  const untilMs = performance.now() + 2_500;
  while (performance.now() < untilMs);
  expect(hold.held).toBe(false);
});

test.skipIf(isMissing)("an hour's jump of the client's wall clock, either way, changes nothing", async () => {
  const engine = await engineOn(etcd.url);
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
  "three members: the leader is killed, a member sleeps; holds of 10 s stay, nobody is inside together, tokens rise",
  async () => {
    const cluster = await ownCluster({ members: 3 });
    const engines = [await engineOn(cluster.url), await engineOn(cluster.url), await engineOn(cluster.url)];
    const kept = await createLock(engines[0] as EtcdEngine, name(), { ttlMs: 10_000 }).acquire();
    let isOver = false;
    const trial = tryLock({ engines, name: name(), ttlMs: 10_000, turns: 40 }).finally(() => {
      isOver = true;
    });
    await pass(300);
    const dead = cluster.leader();
    await dead.process.kill();
    await pass(4_000);
    const asleep = cluster.members.find((member) => member !== dead);
    await dead.process.start();
    await pass(1_000);
    asleep?.process.pause();
    await pass(5_000);
    asleep?.process.resume();
    const { together, tokens } = await trial;
    expect(isOver).toBe(true);
    expect([together, isRising(tokens), tokens.length >= 120]).toEqual([0, true, true]);
    expect(kept.held).toBe(true);
    await kept.release();
  },
  150_000,
);

test.skipIf(isMissing)(
  "a hold stays when the leader sleeps and the client asks a follower, the sleeper, and only then the third",
  async () => {
    const cluster = await ownCluster({ members: 3 });
    const leader = cluster.leader();
    const [first, third] = cluster.members.filter((member) => member !== leader);
    const engine = await engineOn(`etcd://${[first, leader, third].map((member) => `127.0.0.1:${member?.port}`).join(",")}`);
    const hold = await createLock(engine, name(), { ttlMs: 10_000 }).acquire();
    // Just before the first keep-alive, at a third of the TTL.
    await pass(2_800);
    leader.process.pause();
    await pass(7_000);
    leader.process.resume();
    expect(hold.held).toBe(true);
    await hold.release();
  },
  60_000,
);

test.skipIf(isMissing)(
  "the space quota: writes are refused for certain, the doctor names it",
  async () => {
    const own = await ownCluster({ args: ["--quota-backend-bytes", "2000000"] });
    const engine = await engineOn(own.url);
    const lock = createLock(engine, name());
    const hold = await lock.acquire();
    let error: unknown;
    for (let index = 0; index < 40 && error === undefined; index++)
      error = await engine
        .store("fill")
        .txn({ then: [op.put(`k${index}`, new Uint8Array(200_000))] })
        .then(
          () => undefined,
          (caught: unknown) => caught,
        );
    expect([hasCode(error, "ENGINE_REFUSED"), (error as ConclaveError).definite]).toEqual([true, true]);
    await hold.release();
    expect(await lock.queue()).toHaveLength(0);
    expect((await engine.doctor()).some(({ code, severity }) => code === "NOSPACE" && severity === "danger")).toBe(true);
  },
  60_000,
);
