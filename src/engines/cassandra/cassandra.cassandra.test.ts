/**
 * Locks, elections and counters on a real Cassandra: the contract of a compare-and-set store, and what breaks locks on one.
 */
import { afterAll, expect, test } from "vitest";
import { type CassandraServer, startCassandra } from "../../../test/servers/cassandra.ts";
import { FaultProxy } from "../../../test/servers/fault-proxy.ts";
import { ConclaveError, hasCode } from "../../base/errors.ts";
import type { CasStore } from "../../store/store.ts";
import { type CassandraConnection, connectCassandra } from "./cassandra-connection.ts";

const found = await startCassandra();
const isMissing = "skipped" in found;
const server = found as CassandraServer;
const closing: (() => Promise<unknown>)[] = [];
afterAll(async () => {
  for (const close of closing.reverse()) await close();
  if (!isMissing) await server.stop();
});

if (isMissing) test.skip(`Cassandra: ${found.skipped}`, () => undefined);

async function connectionOn(url = server.url): Promise<CassandraConnection> {
  const connection = await connectCassandra(url);
  closing.push(() => connection.close());
  return connection;
}

/** Through a proxy: the driver is told of no other address, because the only node has this one. */
async function proxied(): Promise<{ readonly proxy: FaultProxy; readonly connection: CassandraConnection }> {
  const proxy = await FaultProxy.start(server.port);
  closing.push(() => proxy.close());
  return { proxy, connection: await connectionOn(server.url.replace(`:${server.port}/`, `:${proxy.port}/`)) };
}

const pass = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

let names = 0;
const name = (): string => `cassandra-${++names}`;
const text = (value: Uint8Array | undefined): string => Buffer.from(value ?? []).toString();

async function errorOf(work: Promise<unknown>): Promise<ConclaveError> {
  const error = await work.then(
    () => undefined,
    (caught: unknown) => caught,
  );
  expect(error).toBeInstanceOf(ConclaveError);
  return error as ConclaveError;
}

test.skipIf(isMissing)(
  "a key is set only where the revision that was expected is there, and revisions never repeat",
  async () => {
    const store = (await connectionOn()).cas(name());
    const other = (await connectionOn()).cas(store.namespace);
    expect(await store.get("a")).toBe(null);
    const first = await store.compareAndSet({ key: "a", expected: null, value: "1" });
    expect([first.applied, text(first.current?.value)]).toEqual([true, "1"]);
    const revision = first.current?.revision as number;
    const taken = await other.compareAndSet({ key: "a", expected: null, value: "2" });
    expect([taken.applied, text(taken.current?.value), taken.current?.revision]).toEqual([false, "1", revision]);
    const stale = await other.compareAndSet({ key: "a", expected: revision - 1, value: "2" });
    expect([stale.applied, text(stale.current?.value), stale.current?.revision]).toEqual([false, "1", revision]);
    const second = await other.compareAndSet({ key: "a", expected: revision, value: new Uint8Array([0, 255]) });
    expect([second.applied, [...(second.current?.value ?? [])]]).toEqual([true, [0, 255]]);
    const gone = await store.compareAndSet({ key: "a", expected: second.current?.revision as number, value: null });
    expect([gone.applied, gone.current, await other.get("a")]).toEqual([true, null, null]);
    // By one who knows that it was deleted, and by one who does not.
    const again = await other.compareAndSet({ key: "a", expected: null, value: "" });
    expect(again.applied).toBe(true);
    const revisions = [revision, second.current?.revision, again.current?.revision] as number[];
    expect(revisions).toEqual([...new Set(revisions)].sort((left, right) => left - right));
    const third = (await connectionOn()).cas(store.namespace);
    await other.compareAndSet({ key: "a", expected: again.current?.revision as number, value: null });
    expect((await third.compareAndSet({ key: "a", expected: null, value: "new" })).applied).toBe(true);
    expect((await store.compareAndSet({ key: "absent", expected: 5, value: "x" })).applied).toBe(false);
  },
);

test.skipIf(isMissing)("keys are bytes in order, and ranges are of one namespace", async () => {
  const connection = await connectionOn();
  const [store, neighbour] = [connection.cas("odd/🔒 'a' \"b\""), connection.cas("odd/🔒 'a' \"b\"/")];
  for (const key of ["b", "a/1", "a/2", "é", "🔒"]) await store.compareAndSet({ key, expected: null, value: key });
  await neighbour.compareAndSet({ key: "a/3", expected: null, value: "no" });
  const keys = async (range: Parameters<CasStore["range"]>[0]): Promise<string[]> =>
    (await store.range(range)).map(({ key }) => key);
  expect(await keys({ prefix: "" })).toEqual(["a/1", "a/2", "b", "é", "🔒"]);
  expect(await keys({ prefix: "a/" })).toEqual(["a/1", "a/2"]);
  expect(await keys({ from: "a/2", to: "é" })).toEqual(["a/2", "b"]);
  expect(await keys({ key: "b" })).toEqual(["b"]);
  await store.compareAndSet({ key: "b", expected: (await store.get("b"))?.revision as number, value: null });
  expect(await keys({ from: "a/2" })).toEqual(["a/2", "é", "🔒"]);
});

test.skipIf(isMissing)(
  "among three clients one holds at a time, tokens rise, and no increment is lost",
  async () => {
    const clients = await Promise.all([connectionOn(), connectionOn(), connectionOn()]);
    const lockName = name();
    const tokens: number[] = [];
    let [inside, count] = [0, 0];
    await Promise.all(
      clients.map(async (client) => {
        const lock = client.lock(lockName);
        for (let round = 0; round < 6; round++) {
          await lock.run(async (hold) => {
            expect(++inside).toBe(1);
            tokens.push(hold.token);
            const seen = count;
            await pass(2);
            count = seen + 1;
            inside--;
          });
        }
      }),
    );
    expect(count).toBe(18);
    expect(tokens).toEqual([...new Set(tokens)].sort((left, right) => left - right));
  },
  60_000,
);

test.skipIf(isMissing)("a free lock is one set, a held one is told by the same set, and a held one is LOCK_TIMEOUT", async () => {
  const [one, two] = [await connectionOn(), await connectionOn()];
  const lockName = name();
  const hold = await one.lock(lockName, { meta: { job: 7 } }).acquire();
  expect(await two.lock(lockName).tryAcquire()).toBe(null);
  expect(await two.lock(lockName).holder()).toMatchObject({ meta: { job: 7 } });
  expect((await errorOf(two.lock(lockName).acquire({ waitMs: 200 }))).code).toBe("LOCK_TIMEOUT");
  const stop = new AbortController();
  const waiting = two.lock(lockName).acquire({ signal: stop.signal });
  stop.abort(new Error("enough"));
  await expect(waiting).rejects.toThrow("enough");
  await hold.release();
  expect(hold.held).toBe(false);
  const next = await two.lock(lockName).tryAcquire();
  expect(next?.token).toBeGreaterThan(hold.token);
  await next?.release();
});

test.skipIf(isMissing)(
  "a holder that is cut off stops by its own clock, and is taken over only then",
  async () => {
    const { proxy, connection } = await proxied();
    const lockName = name();
    const hold = await connection.lock(lockName, { ttlMs: 3_000 }).acquire();
    const waiting = (await connectionOn()).lock(lockName, { ttlMs: 3_000 }).acquire({ waitMs: 30_000 });
    await pass(4_500);
    // Renewed so far.
    expect(hold.held).toBe(true);
    proxy.silence();
    const silentMs = performance.now();
    let lostMs = 0;
    hold.signal.addEventListener("abort", () => {
      lostMs = performance.now();
    });
    const next = await waiting;
    expect(hold.held).toBe(false);
    expect(lostMs).toBeGreaterThan(0);
    expect(lostMs - silentMs).toBeLessThan(3_000);
    expect(hasCode(hold.signal.reason, "LOCK_LOST")).toBe(true);
    expect(next.token).toBeGreaterThan(hold.token);
    await next.release();
  },
  60_000,
);

test.skipIf(isMissing)(
  "a set whose answer is lost is set once: the counter loses and doubles nothing",
  async () => {
    const { proxy, connection } = await proxied();
    const counter = connection.counter(name());
    await counter.addAndGet(1);
    let cuts = 0;
    // Every third answer that is long enough to be one of a set.
    proxy.onAnswer = (chunk) => (chunk.includes("[applied]") && cuts++ % 3 === 0 ? { kind: "cut" } : undefined);
    for (let round = 0; round < 6; round++) await counter.addAndGet(1, { timeoutMs: 20_000 });
    expect(cuts).toBeGreaterThan(3);
    proxy.onAnswer = undefined;
    expect(await (await connectionOn()).counter(counter.name).get()).toBe(7);
  },
  90_000,
);

test.skipIf(isMissing)(
  "an operator breaks a lock: its holder is told with the next renewal, and cannot take it back",
  async () => {
    const connection = await connectionOn();
    const lock = connection.lock(name(), { ttlMs: 3_000 });
    const hold = await lock.acquire();
    await lock.break();
    await new Promise((resolve) => hold.signal.addEventListener("abort", resolve));
    expect(hasCode(hold.signal.reason, "LOCK_LOST")).toBe(true);
    const next = await lock.acquire();
    await hold.release();
    await pass(1_500);
    expect(next.held).toBe(true);
    await next.release();
  },
);

test.skipIf(isMissing)("one leads at a time, is announced, and hands over when its callback ends", async () => {
  const [one, two] = [await connectionOn(), await connectionOn()];
  const electionName = name();
  const order: string[] = [];
  let leading = 0;
  const lead = (connection: CassandraConnection, value: string): Promise<void> =>
    connection.election(electionName).lead(
      async (term) => {
        expect(++leading).toBe(1);
        expect(term.held).toBe(true);
        expect((await connection.election(electionName).leader())?.value).toBe(value);
        order.push(value);
        leading--;
      },
      { value },
    );
  await Promise.all([lead(one, "one"), lead(two, "two")]);
  expect(order.sort()).toEqual(["one", "two"]);
  expect(await one.election(electionName).leader()).toBe(null);
});

test.skipIf(isMissing)(
  "concurrent adds of several clients are all counted",
  async () => {
    const counters = (await Promise.all([connectionOn(), connectionOn(), connectionOn()])).map((each) => each.counter("shared"));
    const sums = await Promise.all(
      counters.flatMap((counter) => [1, 2, 3, 4].map(() => counter.addAndGet(1, { timeoutMs: 30_000 }))),
    );
    expect(new Set(sums).size).toBe(12);
    expect(await counters[0]?.get()).toBe(12);
  },
  60_000,
);

test("URLs that say too little or too much are refused by name, without their password", async () => {
  for (const url of [
    "cassandra://",
    "cassandra://u:geheim@h/Key",
    "cassandra://h:99999",
    "cassandra://u:geheim@h?speed=1",
    "cassandra://h?serial=no",
  ]) {
    const error = await errorOf(connectCassandra(url));
    expect([url, error.code]).toEqual([url, "INVALID_OPTION"]);
    expect(error.message).not.toContain("geheim");
  }
});

test("a port where nobody listens is CONNECTION_REFUSED, and a client without the methods is refused by name", async () => {
  expect((await errorOf(connectCassandra("cassandra://127.0.0.1:1"))).code).toBe("CONNECTION_REFUSED");
  const refused = await errorOf(connectCassandra({ url: "cassandra://given", client: { connect: () => undefined } }));
  expect([refused.code, refused.message.includes("execute")]).toEqual(["FOREIGN_CLIENT", true]);
});

test.skipIf(isMissing)("a wrong data centre is named, and TLS to a plain server is TLS_FAILED", async () => {
  const wrong = await errorOf(connectCassandra(`${server.url}&dc=nowhere`));
  expect([wrong.code, wrong.message.includes("nowhere")]).toEqual(["INVALID_OPTION", true]);
  const tls = await errorOf(connectCassandra({ url: server.url.replace("timeoutMs=20000", "timeoutMs=3000"), tls: {} }));
  expect(["TLS_FAILED", "TIMEOUT", "CONNECTION_LOST"]).toContain(tls.code);
});

test.skipIf(isMissing)("the doctor names one copy as a danger", async () => {
  const findings = await (await connectionOn()).doctor();
  expect(findings.map(({ code, severity }) => [code, severity])).toEqual([["FEW_REPLICAS", "danger"]]);
});

test.skipIf(isMissing)(
  "a server that stands still ends a hold before its TTL; one that is gone is a typed error",
  async () => {
    const connection = await connectionOn();
    const hold = await connection.lock(name(), { ttlMs: 2_000 }).acquire();
    server.process.pause();
    const pausedMs = performance.now();
    await new Promise((resolve) => hold.signal.addEventListener("abort", resolve));
    expect(performance.now() - pausedMs).toBeLessThan(2_000);
    expect(hold.held).toBe(false);
    const error = await errorOf(connection.cas("x").compareAndSet({ key: "a", expected: null, value: "1" }, { timeoutMs: 800 }));
    expect([error.code, error.definite]).toEqual(["TIMEOUT", false]);
    server.process.resume();
    const next = await connection.lock(hold.name, { ttlMs: 2_000 }).acquire({ waitMs: 30_000 });
    expect(next.token).toBeGreaterThan(hold.token);
    await next.release();
    await server.process.kill();
    const gone = await errorOf(connection.cas("x").get("a", { timeoutMs: 800 }));
    expect(["CONNECTION_REFUSED", "CONNECTION_LOST", "TIMEOUT"]).toContain(gone.code);
  },
  60_000,
);
