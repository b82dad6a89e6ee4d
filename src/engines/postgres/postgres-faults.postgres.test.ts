/**
 * What breaks a lock on a SQL database in other libraries, on real servers: answers that are lost, a server that sleeps, dies,
 * is replaced by one that lacks the last commits; transactions that stay open; NOTIFY that nobody needs.
 */
import pg from "pg";
import { afterAll, expect, test } from "vitest";
import { FaultProxy } from "../../../test/servers/fault-proxy.ts";
import { type PostgresServer, startPostgres, startReplica } from "../../../test/servers/postgres.ts";
import { hasCode } from "../../base/errors.ts";
import { createLock } from "../../recipes/lock.ts";
import { op, within } from "../../recipes/when.ts";
import { versionHash } from "./functions.ts";
import { guardInTransaction, lockInTransaction } from "./in-transaction.ts";
import { openPostgres, type PostgresEngine, type PostgresOptions } from "./postgres-engine.ts";

const found = await startPostgres({ settings: ["track_functions=pl"] });
const isMissing = "skipped" in found;
const server = found as PostgresServer;
const closing: (() => Promise<unknown>)[] = [];
afterAll(async () => {
  for (const close of closing.reverse()) await close();
  if (!isMissing) await server.stop();
});

const urlOf = (port: number): string => `postgres://postgres@127.0.0.1:${port}/postgres`;

async function engineOn(port: number, options: Omit<PostgresOptions, "url"> = {}): Promise<PostgresEngine> {
  const engine = await openPostgres({ url: urlOf(port), ...options });
  closing.push(() => engine.close());
  return engine;
}

async function proxyOf(port: number): Promise<FaultProxy> {
  const proxy = await FaultProxy.start(port);
  closing.push(() => proxy.close());
  return proxy;
}

async function ownServer(): Promise<PostgresServer> {
  const own = (await startPostgres()) as PostgresServer;
  closing.push(() => own.stop());
  return own;
}

async function clientOn(port: number): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: urlOf(port) });
  client.on("error", () => undefined);
  await client.connect();
  closing.push(() => client.end());
  return client;
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

/** An answer of the server that says more than that it is ready. */
const isAnswer = (chunk: Buffer): boolean => chunk.length > 20 && chunk[0] !== 0x41;

test.skipIf(isMissing)("an acquisition whose answer is lost is asked again, holds once, and leaves one key", async () => {
  const proxy = await proxyOf(server.port);
  const engine = await engineOn(proxy.port);
  const lock = createLock(engine, name());
  await (await lock.acquire()).release();
  let lost = 0;
  // New connections may greet.
  proxy.onAnswer = (chunk) => (isAnswer(chunk) && chunk.includes("revision") && lost++ === 0 ? { kind: "cut" } : undefined);
  const hold = await lock.acquire();
  expect(lost).toBeGreaterThan(1);
  expect(hold.held).toBe(true);
  expect(await lock.queue()).toHaveLength(1);
  await hold.release();
  await until(async () => (await lock.queue()).length === 0, "the queue is empty");
});

test.skipIf(isMissing)("a write whose answer is lost is never sent again behind the caller's back", async () => {
  const proxy = await proxyOf(server.port);
  const engine = await engineOn(proxy.port);
  const store = engine.store(name());
  await store.txn({ then: [op.add("n", 1)] });
  let lost = 0;
  proxy.onAnswer = (chunk) => (chunk.includes("revision") && lost++ === 0 ? { kind: "cut" } : undefined);
  const error = await store.txn({ then: [op.add("n", 1)] }).catch((caught: unknown) => caught);
  expect(hasCode(error, "CONNECTION_LOST") && !error.definite).toBe(true);
  await pass(300);
  expect((await store.txn({ then: [op.add("n", 0)] })).results).toEqual([{ kind: "add", value: 2 }]);
});

test.skipIf(isMissing)(
  "a session that the database has ended is never revived by its keep-alives, and its holder is told",
  async () => {
    const engine = await engineOn(server.port);
    const lock = createLock(engine, name(), { ttlMs: 1_500 });
    const hold = await lock.acquire();
    const session = (await lock.queue())[0]?.session as string;
    // As if its deadline had passed, whatever it thinks itself. Nobody has ended it yet: a keep-alive must not revive it.
    await server.query("UPDATE conclave.sessions SET deadline = clock_timestamp() - interval '1 ms' WHERE id = $1", [session]);
    await until(() => !hold.held, "the holder knows", 1_200);
    await (await lock.acquire()).release();
    expect(await server.query("SELECT FROM conclave.sessions WHERE id = $1", [session])).toHaveLength(0);
  },
);

test.skipIf(isMissing)(
  "the only waiter, with a long TTL of its own, is served soon after the deadline of a holder that died",
  async () => {
    const own = await ownServer();
    const proxy = await proxyOf(own.port);
    const holder = await engineOn(proxy.port);
    const lockName = name();
    const hold = await createLock(holder, lockName, { ttlMs: 1_500 }).acquire();
    const waiter = await engineOn(own.port);
    const waiting = createLock(waiter, lockName, { ttlMs: 60_000 }).acquire();
    await pass(200);
    proxy.silence();
    const silentAt = performance.now();
    const granted = await waiting;
    // Nobody else asks anything, and the waiter's own keep-alives are 20 s apart.
    expect(performance.now() - silentAt).toBeLessThan(8_000);
    expect(hold.held).toBe(false);
    expect(granted.token).toBeGreaterThan(hold.token);
    await granted.release();
  },
  60_000,
);

test.skipIf(isMissing)(
  "with answers lost at random on every call, no increment under the lock is lost and the queue ends empty",
  async () => {
    const direct = await engineOn(server.port);
    const lockName = name();
    let state = 12_345;
    const random = (): number => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
      return state / 0x7fffffff;
    };
    const engines: PostgresEngine[] = [];
    for (let index = 0; index < 3; index++) {
      const proxy = await proxyOf(server.port);
      engines.push(await engineOn(proxy.port));
      proxy.onAnswer = (chunk) => {
        if (chunk[0] === 0x41) return random() < 0.2 ? { kind: "twice" } : random() < 0.1 ? { kind: "drop" } : undefined;
        return random() < 0.05 ? { kind: "cut" } : undefined;
      };
    }
    let [inside, count, done] = [0, 0, 0];
    const tokens: number[] = [];
    const work = async (engine: PostgresEngine): Promise<void> => {
      for (let round = 0; round < 10; round++) {
        try {
          await createLock(engine, lockName, { ttlMs: 3_000 }).run(async (hold) => {
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
    expect(done).toBeGreaterThan(15);
    expect(tokens).toEqual([...tokens].sort((left, right) => left - right));
    await until(async () => (await createLock(direct, lockName).queue()).length === 0, "the queue is empty");
  },
  120_000,
);

test.skipIf(isMissing)("a holder whose event loop stood still is not held in the first line after it", async () => {
  const engine = await engineOn(server.port);
  const hold = await createLock(engine, name(), { ttlMs: 1_500 }).acquire();
  expect(hold.held).toBe(true);
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1_600);
  expect(hold.held).toBe(false);
});

test.skipIf(isMissing)(
  "a holder learns of a frozen server before its TTL is over, and the lock works on when it thaws",
  async () => {
    const own = await ownServer();
    const engine = await engineOn(own.port);
    const lock = createLock(engine, name(), { ttlMs: 1_500 });
    const hold = await lock.acquire();
    await own.pause();
    const frozenAt = performance.now();
    await until(() => hold.signal.aborted, "the holder knows", 10_000);
    expect(hold.held).toBe(false);
    expect(performance.now() - frozenAt).toBeLessThan(1_500);
    await own.resume();
    const next = await lock.acquire();
    expect(next.token).toBeGreaterThan(hold.token);
    await next.release();
  },
  60_000,
);

test.skipIf(isMissing)(
  "a server that was killed and comes back has lost nothing: the hold goes on, and nobody waits",
  async () => {
    const own = await ownServer();
    const [engine, other] = [await engineOn(own.port), await engineOn(own.port)];
    const lockName = name();
    const hold = await createLock(engine, lockName, { ttlMs: 30_000 }).acquire();
    const waiting = createLock(other, lockName, { ttlMs: 30_000 }).acquire();
    await until(async () => (await createLock(engine, lockName).queue()).length === 2, "somebody waits");
    await own.kill();
    await own.restart();
    await until(
      () =>
        createLock(engine, lockName)
          .queue()
          .then(
            ({ length }) => length === 2,
            () => false,
          ),
      "the queue is there",
    );
    expect(hold.held).toBe(true);
    await hold.release();
    const granted = await waiting;
    expect(granted.token).toBeGreaterThan(hold.token);
    await granted.release();
  },
  60_000,
);

test.skipIf(isMissing)(
  "a promoted replica that lacks the last commits costs a wait, never a second holder",
  async () => {
    const primary = await ownServer();
    const wire = await proxyOf(primary.port);
    const replica = await startReplica(wire);
    if ("skipped" in replica) return;
    closing.push(() => replica.stop());
    // Clients know one address, which leads to the primary of the day.
    const entrance = await proxyOf(primary.port);
    const options = { quarantineMs: 200, ttlMsMax: 3_000 };
    const [a, b] = [await engineOn(entrance.port, options), await engineOn(entrance.port, options)];
    expect(a.caps.linearizable).toBe("until-failover");
    expect((await a.doctor()).map(({ code }) => code)).toEqual(["REPLICAS_LAG"]);
    const lockName = name();
    const lockA = createLock(a, lockName, { ttlMs: 3_000 });
    const before = await lockA.acquire();
    await before.release();
    const position = "SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), replay_lsn)::integer AS behind FROM pg_stat_replication";
    await until(async () => (await primary.query(position))[0]?.behind === 0, "the replica has everything");
    // From here the replica hears nothing: what is granted now will be lost.
    wire.silence();
    const hold = await lockA.acquire();
    await replica.promote();
    entrance.target = replica.port;
    entrance.cut();
    const askedAt = performance.now();
    const lockB = createLock(b, lockName, { ttlMs: 3_000 });
    const granted = await lockB.acquire().catch((error: unknown) => {
      if (!hasCode(error, "SESSION_LOST")) throw error;
      return lockB.acquire();
    });
    expect(hold.held, "two holders at one time").toBe(false);
    expect(performance.now() - askedAt).toBeGreaterThan(1_500);
    expect(granted.token).toBeGreaterThan(hold.token);
    await granted.release();
  },
  90_000,
);

test.skipIf(isMissing)("NOTIFY is said only where somebody waits", async () => {
  const engine = await engineOn(server.port, { group: "quiet" });
  const told = async (): Promise<number> => {
    const [row] = await server.query(
      "SELECT calls::integer FROM pg_stat_user_functions WHERE schemaname = 'quiet' AND funcname = $1",
      [`tell_${versionHash}`],
    );
    return Number(row?.calls ?? 0);
  };
  const lock = createLock(engine, name());
  for (let round = 0; round < 10; round++) await (await lock.acquire()).release();
  await pass(1_500);
  expect(await told()).toBe(0);
  const hold = await lock.acquire();
  const other = await engineOn(server.port, { group: "quiet" });
  const waiting = createLock(other, lock.name).acquire();
  await until(async () => (await server.query("SELECT FROM quiet.watchers")).length === 1, "the waiter is registered");
  await hold.release();
  await (await waiting).release();
  await until(async () => (await told()) > 0, "somebody was told");
});

test.skipIf(isMissing)("a transaction over two namespaces has one revision, above every earlier one of both", async () => {
  const engine = await engineOn(server.port);
  const [one, two] = [engine.store(name()), engine.store(name())];
  const first = await one.txn({ then: [op.put("a", "1")] });
  const second = await two.txn({ then: [op.put("a", "1")] });
  const both = await one.txn({ then: [op.put("a", "2"), within(two.namespace, op.get("a"))] });
  expect(both.revision).toBe(Math.max(first.revision, second.revision) + 1);
  // Also where it was only read: who watches on from here misses nothing there.
  const after = await two.txn({ then: [op.put("a", "2")] });
  expect(after.revision).toBe(both.revision + 1);
});

test.skipIf(isMissing)(
  "locks in transactions and locks by lease are one lock, and their tokens rise together",
  async () => {
    const engine = await engineOn(server.port);
    const lockName = "orders/🔒 'quoted' \\ and so on";
    const lock = createLock(engine, lockName, { ttlMs: 5_000 });
    await server.query("CREATE TABLE IF NOT EXISTS tally (n integer NOT NULL)");
    await server.query("INSERT INTO tally VALUES (0)");
    let inside = 0;
    const tokens: number[] = [];
    const bump = async (client: pg.Client, token: number): Promise<void> => {
      expect(++inside).toBe(1);
      tokens.push(token);
      const [row] = (await client.query("SELECT n FROM tally")).rows as { n: number }[];
      await pass(2);
      await client.query("UPDATE tally SET n = $1", [(row?.n ?? 0) + 1]);
      inside--;
    };
    const byTransaction = async (): Promise<void> => {
      const client = await clientOn(server.port);
      for (let round = 0; round < 10; round++) {
        await client.query("BEGIN");
        const { token } = await lockInTransaction(client, lockName, { waitMs: 30_000 });
        await bump(client, token);
        await client.query("COMMIT");
      }
    };
    const byLease = async (): Promise<void> => {
      const client = await clientOn(server.port);
      for (let round = 0; round < 10; round++) await lock.run((hold) => bump(client, hold.token));
    };
    await Promise.all([byTransaction(), byLease(), byTransaction(), byLease()]);
    expect((await server.query("SELECT n FROM tally"))[0]?.n).toBe(40);
    expect(tokens).toEqual([...tokens].sort((left, right) => left - right));
    expect(new Set(tokens).size).toBe(40);
  },
  60_000,
);

test.skipIf(isMissing)(
  "a lock in a transaction that is held is LOCK_TIMEOUT, and the transaction can go on; a rollback frees it",
  async () => {
    const engine = await engineOn(server.port);
    const lockName = name();
    const hold = await createLock(engine, lockName).acquire();
    const [one, two] = [await clientOn(server.port), await clientOn(server.port)];
    await one.query("BEGIN");
    const busy = await lockInTransaction(one, lockName, { waitMs: 100 }).catch((error: unknown) => error);
    expect(hasCode(busy, "LOCK_TIMEOUT")).toBe(true);
    expect((await one.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
    await hold.release();
    const mine = await lockInTransaction(one, lockName);
    expect(mine.token).toBeGreaterThan(hold.token);
    await two.query("BEGIN");
    const other = await lockInTransaction(two, lockName, { waitMs: 100 }).catch((error: unknown) => error);
    expect(hasCode(other, "LOCK_TIMEOUT")).toBe(true);
    await one.query("ROLLBACK");
    expect((await lockInTransaction(two, lockName)).token).toBeGreaterThan(hold.token);
    await two.query("COMMIT");
  },
);

test.skipIf(isMissing)(
  "a hold that a transaction is tied to passes on only when the transaction has ended, though its session died",
  async () => {
    const proxy = await proxyOf(server.port);
    const lockName = name();
    const hold = await createLock(await engineOn(proxy.port), lockName, { ttlMs: 1_500 }).acquire();
    const client = await clientOn(server.port);
    await client.query("BEGIN");
    await guardInTransaction(client, hold.guard());
    proxy.silence();
    const other = await engineOn(server.port);
    let granted = false;
    const waiting = createLock(other, lockName, { ttlMs: 5_000 })
      .acquire()
      .then((next) => {
        granted = true;
        return next;
      });
    await pass(3_500);
    expect(hold.held).toBe(false);
    expect(granted).toBe(false);
    await client.query("COMMIT");
    const next = await waiting;
    expect(next.token).toBeGreaterThan(hold.token);
    await client.query("BEGIN");
    const stale = await guardInTransaction(client, hold.guard()).catch((error: unknown) => error);
    expect(hasCode(stale, "LOCK_LOST")).toBe(true);
    await client.query("ROLLBACK");
    await next.release();
  },
  60_000,
);

test.skipIf(isMissing)("clients of two versions, each with its own functions, are on one lock", async () => {
  const engine = await engineOn(server.port, { group: "versions" });
  // The other version: the same functions under another hash, as an older or newer client would have left them.
  const sources = await server.query(
    "SELECT pg_get_functiondef(p.oid) AS text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'versions' AND p.proname LIKE '%' || $1 ORDER BY p.oid",
    [versionHash],
  );
  for (const { text } of sources) await server.query(String(text).replaceAll(versionHash, "0ther000"));
  const again = await engineOn(server.port, { group: "versions" });
  const namespace = Buffer.from("lock/shared").toString("base64");
  const key = Buffer.from("1/other").toString("base64");
  const call = async (request: unknown): Promise<void> => {
    await server.query("SELECT versions.txn_0ther000($1, false, 1000, 1000000, null)", [JSON.stringify(request)]);
  };
  await call({ n: [namespace], s: [], c: [], t: [["p", 1, key, "", null, false]], e: [] });
  const lock = createLock(again, "shared");
  expect(await lock.tryAcquire()).toBe(null);
  const waiting = lock.acquire();
  await until(async () => (await server.query("SELECT FROM versions.watchers")).length === 1, "the waiter is registered");
  const releasedAt = performance.now();
  await call({ n: [namespace], s: [], c: [], t: [["d", 1, key, Buffer.from("1/other\0").toString("base64"), false]], e: [] });
  await (await waiting).release();
  expect(performance.now() - releasedAt).toBeLessThan(3_000);
  await createLock(engine, "shared").run(() => undefined);
});
