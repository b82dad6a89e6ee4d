/**
 * What a user or an operator gets wrong: a typed error that names the way out, and a lock that is never silently lost.
 */
import { createServer, type Socket } from "node:net";
import { createClient } from "@redis/client";
import { afterAll, expect, test } from "vitest";
import { type RedisServer, startRedis } from "../../../test/servers/redis.ts";
import { ConclaveError } from "../../base/errors.ts";
import { connect } from "../../index.ts";
import { createLock } from "../../recipes/lock.ts";
import { op } from "../../recipes/when.ts";
import { openRedis } from "./redis-engine.ts";

const found = await startRedis({ password: "secret" });
const isMissing = "skipped" in found;
const redis = found as RedisServer;
afterAll(() => (isMissing ? undefined : redis.stop()));

async function errorOf(work: Promise<unknown>): Promise<ConclaveError> {
  const error = await work.then(
    () => undefined,
    (caught: unknown) => caught,
  );
  expect(error).toBeInstanceOf(ConclaveError);
  return error as ConclaveError;
}

test("URLs that say too little or too much are refused by name, without their password", async () => {
  for (const url of [
    "redis://",
    "redis://a,b",
    "redis+sentinel://a:1",
    "redis://h/notanumber",
    "redis+cluster://a/3",
    "redis://h:99999",
    "redis://u:geheim@h?speed=1",
  ]) {
    const error = await errorOf(connect(url));
    expect([url, error.code]).toEqual([url, "INVALID_OPTION"]);
    expect(error.message).not.toContain("geheim");
  }
});

test.skipIf(isMissing)("a wrong or missing password is UNAUTHORIZED", async () => {
  expect((await errorOf(connect(`redis://:wrong@127.0.0.1:${redis.port}`))).code).toBe("UNAUTHORIZED");
  expect((await errorOf(connect(`redis://127.0.0.1:${redis.port}`))).code).toBe("UNAUTHORIZED");
  expect((await errorOf(connect(`redis://nobody:secret@127.0.0.1:${redis.port}`))).code).toBe("UNAUTHORIZED");
});

test.skipIf(isMissing)("TLS to a plain server, and plain to what speaks something else, is TLS_FAILED", async () => {
  expect((await errorOf(connect({ url: `rediss://:secret@127.0.0.1:${redis.port}`, timeoutMs: 2_000 }))).code).toBe("TLS_FAILED");
  const alert = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.end(Buffer.from([0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x0a, 0x0d, 0x0a]));
  });
  await new Promise<void>((resolve) => alert.listen(0, "127.0.0.1", resolve));
  const { port } = alert.address() as { readonly port: number };
  expect((await errorOf(connect(`redis://127.0.0.1:${port}`))).code).toBe("TLS_FAILED");
  alert.close();
});

test("a port where nobody listens is CONNECTION_REFUSED, and one that never answers is TIMEOUT", async () => {
  const sockets: Socket[] = [];
  const silent = createServer((socket) => void sockets.push(socket));
  await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
  const { port } = silent.address() as { readonly port: number };
  const error = await errorOf(connect({ url: `redis://127.0.0.1:${port}`, timeoutMs: 300 }));
  expect([error.code, error.definite]).toEqual(["TIMEOUT", true]);
  for (const socket of sockets) socket.destroy();
  await new Promise<void>((resolve) => void silent.close(() => resolve()));
  expect((await errorOf(connect(`redis://127.0.0.1:${port}`))).code).toBe("CONNECTION_REFUSED");
});

test.skipIf(isMissing)("a replica is READ_ONLY, and names the way", async () => {
  const replica = (await startRedis({ args: ["--replicaof", "127.0.0.1", "1"] })) as RedisServer;
  const error = await errorOf(connect(replica.url));
  expect(error.code).toBe("READ_ONLY");
  await replica.stop();
});

test.skipIf(isMissing)("a user who may not run scripts gets UNAUTHORIZED from the first use, not a wait", async () => {
  await redis.command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "&*", "+@read", "+ping", "+info", "+role", "+client");
  const conclave = await connect(`redis://reader:secret@127.0.0.1:${redis.port}`);
  expect((await errorOf(conclave.lock("a").acquire({ waitMs: 5_000 }))).code).toBe("UNAUTHORIZED");
  await conclave.close();
});

test.skipIf(isMissing)("keys of another kind in our place are INVARIANT, and a newer layout is WRONG_PROTOCOL", async () => {
  await redis.command("SET", "{other}:e", "a plain string");
  const engine = await openRedis({ url: `${redis.url}?group=other&quarantineMs=-1` });
  expect((await errorOf(engine.store("x").txn({ then: [op.put("a", "1")] }))).code).toBe("INVARIANT");
  await redis.command("HSET", "{newer}:m", "r", "5", "f", "99");
  const newer = await openRedis({ url: `${redis.url}?group=newer&quarantineMs=-1` });
  expect((await errorOf(newer.store("x").txn({ then: [op.put("a", "1")] }))).code).toBe("WRONG_PROTOCOL");
  expect((await errorOf(createLock(newer, "x").acquire())).code).toBe("WRONG_PROTOCOL");
  await engine.close();
  await newer.close();
});

test.skipIf(isMissing)(
  "a store of the older layout is refused while anybody uses it, and taken over once nobody does, tokens and all",
  async () => {
    // As the first layout had it: a session that lives, which holds a key.
    await redis.command("HSET", "{older}:m", "r", "1900000000000000", "f", "1", "i", "1900000000000001");
    await redis.command("ZADD", "{older}:s", Date.now() + 60_000, "1900000000000001");
    await redis.command("HSET", "{older}:e", "lock/x\0a", "5 5 1 1900000000000001\n");
    const engine = await openRedis({ url: `${redis.url}?group=older&quarantineMs=-1` });
    const refused = await errorOf(createLock(engine, "x").acquire());
    expect([refused.code, refused.definite]).toEqual(["WRONG_PROTOCOL", true]);
    expect(refused.message).toMatch(/layout 1, ours is 2.*group/s);
    expect((await errorOf(engine.store("lock/x").txn({ then: [op.get("a")] }))).code).toBe("WRONG_PROTOCOL");
    expect(await engine.store("lock/x").native?.joinQueue?.({ key: "1/a", value: "", session: "1900000000000001" }, {})).toBe(
      null,
    );
    expect(await engine.store("lock/x").native?.leaveQueue?.("a", {})).toBe(null);
    expect(String(await redis.command("HGET", "{older}:e", "lock/x\0a"))).toContain("1900000000000001");
    await redis.command("DEL", "{older}:e", "{older}:s");
    const hold = await createLock(engine, "x").acquire();
    expect(hold.token).toBeGreaterThan(1_900_000_000_000_000);
    expect(String(await redis.command("HGET", "{older}:m", "f"))).toBe("2");
    await hold.release();
    await engine.close();
  },
);

test.skipIf(isMissing)("full memory refuses a lock for certain, and still lets one go", async () => {
  const engine = await openRedis({ url: `${redis.url}?quarantineMs=-1` });
  const lock = createLock(engine, "full");
  const hold = await lock.acquire();
  await redis.command("CONFIG", "SET", "maxmemory", "1");
  const error = await errorOf(engine.store("x").txn({ then: [op.put("a", "1")] }));
  expect([error.code, error.definite]).toEqual(["ENGINE_REFUSED", true]);
  await hold.release();
  expect(await lock.queue()).toHaveLength(0);
  await redis.command("CONFIG", "SET", "maxmemory", "0");
  await engine.close();
});

test.skipIf(isMissing)("a server that is gone in mid-call says that the call may have happened", async () => {
  const own = (await startRedis()) as RedisServer;
  const engine = await openRedis({ url: `${own.url}?quarantineMs=-1` });
  const store = engine.store("x");
  await store.txn({ then: [op.put("a", "1")] });
  own.process.pause();
  const call = errorOf(store.txn({ then: [op.put("a", "2")] }, { timeoutMs: 5_000 }));
  await new Promise((resolve) => setTimeout(resolve, 50));
  await own.process.kill();
  const error = await call;
  expect([error.code, error.definite]).toEqual(["CONNECTION_LOST", false]);
  const late = await errorOf(store.txn({ then: [op.put("a", "3")] }, { timeoutMs: 300 }));
  expect([late.code, late.definite]).toEqual(["TIMEOUT", true]);
  await engine.close();
  await own.stop();
});

test.skipIf(isMissing)(
  "a client of the user's own is used by its shape, and one that lacks a method is refused by name",
  async () => {
    const client = createClient({ url: redis.url });
    client.on("error", () => undefined);
    await client.connect();
    const conclave = await connect({ url: "redis://given?quarantineMs=-1", client });
    const other = await connect(`${redis.url}?quarantineMs=-1`);
    const [mine, theirs] = [conclave.lock("given"), other.lock("given")];
    const tokens: number[] = [];
    let inside = 0;
    const work = async (hold: { readonly token: number }): Promise<void> => {
      expect(++inside).toBe(1);
      tokens.push(hold.token);
      await new Promise((resolve) => setTimeout(resolve, 2));
      inside--;
    };
    await Promise.all(Array.from({ length: 20 }, (_, index) => (index % 2 === 0 ? mine : theirs).run(work)));
    expect(tokens).toHaveLength(20);
    expect(tokens).toEqual([...tokens].sort((left, right) => left - right));
    await conclave.close();
    await other.close();
    expect(await client.ping()).toBe("PONG");
    client.destroy();
    const refused = await errorOf(connect({ url: "redis://given", client: { sendCommand: () => undefined } }));
    expect([refused.code, refused.message.includes("duplicate")]).toEqual(["FOREIGN_CLIENT", true]);
    const resending = { callBuffer: () => 0, duplicate: () => 0, ssubscribe: () => 0, options: {} };
    expect((await errorOf(connect({ url: "redis://given", client: resending }))).message).toContain(
      "autoResendUnfulfilledCommands",
    );
  },
);

test.skipIf(isMissing)(
  "the doctor names what weakens the promise, and how to mend it",
  async () => {
    const own = (await startRedis({ args: ["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"] })) as RedisServer;
    const engine = await openRedis({ url: `${own.url}?quarantineMs=-1` });
    const findings = await engine.doctor();
    const severities = Object.fromEntries(findings.map(({ code, severity }) => [code, severity]));
    expect(severities).toEqual({
      MAXMEMORY_EVICTS: "danger",
      NOT_PERSISTENT: "warning",
      NO_QUARANTINE: "danger",
    });
    expect(findings.every(({ message, remedy }) => message.length > 20 && remedy.length > 20)).toBe(true);
    await engine.close();
    const replica = (await startRedis({ args: ["--replicaof", "127.0.0.1", String(own.port)] })) as RedisServer;
    await own.command("CONFIG", "SET", "maxmemory-policy", "noeviction");
    await own.command("CONFIG", "SET", "appendonly", "yes");
    await own.command("CONFIG", "SET", "appendfsync", "always");
    for (let tries = 0; tries < 200 && !String(await own.command("INFO", "replication")).includes("connected_slaves:1"); tries++)
      await new Promise((resolve) => setTimeout(resolve, 50));
    const careful = await openRedis({ url: own.url });
    expect((await careful.doctor()).map(({ code }) => code)).toEqual(["PRIMARY_MAY_BE_ALONE", "REPLICAS_LAG"]);
    expect(careful.caps.linearizable).toBe("until-failover");
    await careful.close();
    await replica.stop();
    await own.stop();
  },
  60_000,
);
