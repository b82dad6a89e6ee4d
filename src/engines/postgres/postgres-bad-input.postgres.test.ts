/**
 * What a user or an operator gets wrong: a typed error that names the way out, and a lock that is never silently lost.
 */
import { execFileSync } from "node:child_process";
import { createServer, type Socket } from "node:net";
import pg from "pg";
import { afterAll, expect, test } from "vitest";
import { type PostgresServer, startPgBouncer, startPostgres, startReplica } from "../../../test/servers/postgres.ts";
import { installed } from "../../../test/servers/server-process.ts";
import { ConclaveError } from "../../base/errors.ts";
import { connect } from "../../index.ts";
import { op } from "../../recipes/when.ts";
import { postgresSchema } from "./install.ts";
import { openPostgres } from "./postgres-engine.ts";

const hba = [
  "host all guarded 127.0.0.1/32 scram-sha-256",
  "hostssl all sealed 127.0.0.1/32 trust",
  "host all sealed 127.0.0.1/32 reject",
];
const certificate = selfSigned();
const found = await startPostgres({
  hba,
  ...(certificate === undefined
    ? {}
    : { files: certificate, settings: ["ssl=on", "ssl_cert_file=own.crt", "ssl_key_file=own.key"] }),
});
const isMissing = "skipped" in found;
const server = found as PostgresServer;
afterAll(() => (isMissing ? undefined : server.stop()));

/** Undefined: no openssl here. */
function selfSigned(): Readonly<Record<string, string>> | undefined {
  if (installed(["openssl"], ["version"]) === undefined) return undefined;
  const args = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "-", "-days", "2", "-subj", "/CN=localhost"];
  const text = execFileSync("openssl", args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
  const at = text.indexOf("-----BEGIN CERTIFICATE");
  return { "own.key": text.slice(0, at), "own.crt": text.slice(at) };
}

async function errorOf(work: Promise<unknown>): Promise<ConclaveError> {
  const error = await work.then(
    () => undefined,
    (caught: unknown) => caught,
  );
  expect(error).toBeInstanceOf(ConclaveError);
  return error as ConclaveError;
}

const as = (user: string, more = ""): string => `postgres://${user}@127.0.0.1:${server.port}/postgres${more}`;

test("URLs that say too little or too much are refused by name, without their password", async () => {
  for (const url of [
    "postgres://h:99999/x",
    "postgres://u:geheim@h/x?speed=1",
    "postgres://h/x?group=Big",
    "postgres://h/x?group=pg_mine",
    "postgres://u:geheim@h/a/b",
    "postgres://h/x?quarantineMs=-2",
    "postgres://h/x?connectionsMax=1",
  ]) {
    const error = await errorOf(connect(url));
    expect([url, error.code]).toEqual([url, "INVALID_OPTION"]);
    expect(error.message).not.toContain("geheim");
  }
});

test.skipIf(isMissing)("a wrong or missing password, an unknown user and an unknown database are named", async () => {
  await server.query("CREATE ROLE guarded LOGIN PASSWORD 'secret'");
  expect((await errorOf(connect(as("guarded:wrong")))).code).toBe("UNAUTHORIZED");
  expect((await errorOf(connect(as("guarded")))).code).toBe("UNAUTHORIZED");
  expect((await errorOf(connect(as("nobody")))).code).toBe("UNAUTHORIZED");
  const unknown = await errorOf(connect(`postgres://postgres@127.0.0.1:${server.port}/nowhere`));
  expect([unknown.code, unknown.message.includes("nowhere")]).toEqual(["INVALID_OPTION", true]);
});

test.skipIf(isMissing)(
  "TLS to a plain server, without TLS where it is asked for, and an unknown authority are TLS_FAILED",
  async () => {
    const plain = (await startPostgres()) as PostgresServer;
    expect((await errorOf(connect({ url: plain.url, tls: {} }))).code).toBe("TLS_FAILED");
    await plain.stop();
    await server.query("CREATE ROLE sealed LOGIN SUPERUSER");
    expect((await errorOf(connect(as("sealed")))).code).toBe("TLS_FAILED");
    if (certificate === undefined) return;
    expect((await errorOf(connect({ url: as("sealed"), tls: {} }))).code).toBe("TLS_FAILED");
    const tls = { ca: certificate["own.crt"] as string, servername: "localhost" };
    const sealed = await connect({ url: as("sealed"), tls });
    await sealed.lock("sealed").run((hold) => expect(hold.held).toBe(true));
    await sealed.close();
  },
);

test("a port where nobody listens is CONNECTION_REFUSED, and one that never answers is TIMEOUT", async () => {
  const sockets: Socket[] = [];
  const silent = createServer((socket) => void sockets.push(socket));
  await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
  const { port } = silent.address() as { readonly port: number };
  const error = await errorOf(connect({ url: `postgres://u@127.0.0.1:${port}/x`, timeoutMs: 300 }));
  expect([error.code, error.definite]).toEqual(["TIMEOUT", true]);
  for (const socket of sockets) socket.destroy();
  await new Promise<void>((resolve) => void silent.close(() => resolve()));
  expect((await errorOf(connect(`postgres://u@127.0.0.1:${port}/x`))).code).toBe("CONNECTION_REFUSED");
});

test.skipIf(isMissing)(
  "a replica is READ_ONLY, and so is a user whose transactions are",
  async () => {
    const replica = await startReplica(server);
    if ("skipped" in replica) return;
    expect((await errorOf(connect(replica.url))).code).toBe("READ_ONLY");
    await replica.stop();
    await server.query("CREATE ROLE onlooker LOGIN SUPERUSER");
    await server.query("ALTER ROLE onlooker SET default_transaction_read_only = on");
    expect((await errorOf(connect(as("onlooker")))).code).toBe("READ_ONLY");
  },
  60_000,
);

test.skipIf(isMissing)("whoever may not create is told what to run, and needs no more than that", async () => {
  await server.query("CREATE ROLE plain LOGIN");
  const error = await errorOf(connect(as("plain", "?group=given")));
  expect([error.code, error.message.includes('postgresSchema("given")')]).toEqual(["UNAUTHORIZED", true]);
  await server.query(postgresSchema("given"));
  expect((await errorOf(connect(as("plain", "?group=given")))).code).toBe("UNAUTHORIZED");
  await server.query("GRANT USAGE ON SCHEMA given TO plain");
  const lacking = await errorOf(connect(as("plain", "?group=given")));
  expect([lacking.code, lacking.message.includes("SELECT")]).toEqual(["UNAUTHORIZED", true]);
  await server.query("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA given TO plain");
  const conclave = await connect(as("plain", "?group=given"));
  await conclave.lock("a").run((hold) => expect(hold.held).toBe(true));
  // Taken away while it runs.
  await server.query("REVOKE INSERT ON given.entries FROM plain");
  expect((await errorOf(conclave.lock("a").acquire({ waitMs: 5_000 }))).code).toBe("UNAUTHORIZED");
  await server.query("GRANT INSERT ON given.entries TO plain");
  await conclave.lock("a").run((hold) => expect(hold.held).toBe(true));
  await server.query("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA given FROM PUBLIC");
  expect((await errorOf(conclave.lock("a").acquire({ waitMs: 5_000 }))).code).toBe("UNAUTHORIZED");
  await conclave.close();
  const barred = await errorOf(connect(as("plain", "?group=given")));
  expect([barred.code, barred.message.includes("EXECUTE on function")]).toEqual(["UNAUTHORIZED", true]);
});

test.skipIf(isMissing)("whoever may not NOTIFY is told so at the door", async () => {
  await server.query("CREATE ROLE mute LOGIN");
  await server.query("REVOKE EXECUTE ON FUNCTION pg_notify(text, text) FROM PUBLIC");
  const error = await errorOf(connect(as("mute")));
  expect([error.code, error.message.includes("pg_notify")]).toEqual(["UNAUTHORIZED", true]);
  await server.query("GRANT EXECUTE ON FUNCTION pg_notify(text, text) TO PUBLIC");
});

test.skipIf(isMissing)(
  "a newer layout is WRONG_PROTOCOL, at the door and in the middle; what was dropped is made again",
  async () => {
    const conclave = await connect(as("postgres", "?group=newer"));
    await conclave.lock("a").run(() => undefined);
    await server.query("UPDATE newer.meta SET layout = 99");
    expect((await errorOf(connect(as("postgres", "?group=newer")))).code).toBe("WRONG_PROTOCOL");
    expect((await errorOf(conclave.lock("a").acquire())).code).toBe("WRONG_PROTOCOL");
    await server.query("DROP SCHEMA newer CASCADE");
    expect((await errorOf(conclave.lock("a").acquire())).code).toBe("UNSUPPORTED");
    const again = await connect(as("postgres", "?group=newer"));
    // Its session is gone with the schema; it opens another.
    await conclave.lock("a").run(async (hold) => {
      expect(hold.held).toBe(true);
      expect(await again.lock("a").tryAcquire()).toBe(null);
    });
    await again.close();
    await conclave.close();
  },
);

test.skipIf(isMissing)("names with quotes, slashes, dollars, emoji and 1,500 letters are plain letters", async () => {
  const conclave = await connect(as("postgres"));
  const names = ["a'b", 'a"b', "a\\b", "$1", "%s", "a/b", "a;DROP SCHEMA conclave", "é", "🔒", "x".repeat(1_500)];
  const holds = await Promise.all(names.map((name) => conclave.lock(name).acquire()));
  expect(new Set(holds.map(({ name }) => name)).size).toBe(names.length);
  for (const [index, hold] of holds.entries()) {
    expect(await conclave.lock(names[index] as string).tryAcquire()).toBe(null);
    await hold.release();
  }
  await conclave.close();
});

test.skipIf(isMissing)(
  "a server that is gone in mid-call says that the call may have happened",
  async () => {
    const own = (await startPostgres()) as PostgresServer;
    const engine = await openPostgres({ url: own.url });
    const store = engine.store("x");
    await store.txn({ then: [op.put("a", "1")] });
    await own.pause();
    const call = errorOf(store.txn({ then: [op.put("a", "2")] }, { timeoutMs: 10_000 }));
    await new Promise((resolve) => setTimeout(resolve, 100));
    await own.kill();
    const error = await call;
    expect([error.code, error.definite]).toEqual(["CONNECTION_LOST", false]);
    const late = await errorOf(store.txn({ then: [op.put("a", "3")] }, { timeoutMs: 300 }));
    expect([late.code, late.definite]).toEqual(["CONNECTION_REFUSED", true]);
    await engine.close();
    await own.stop();
  },
  60_000,
);

test.skipIf(isMissing)("a row that somebody's transaction holds is TIMEOUT, for certain", async () => {
  const engine = await openPostgres({ url: as("postgres") });
  const store = engine.store("held");
  await store.txn({ then: [op.put("a", "1")] });
  const client = new pg.Client({ connectionString: server.url });
  await client.connect();
  await client.query("BEGIN");
  await client.query("SELECT FROM conclave.namespaces WHERE name = 'held' FOR UPDATE");
  const error = await errorOf(store.txn({ then: [op.put("a", "2")] }, { timeoutMs: 500 }));
  expect([error.code, error.definite]).toEqual(["TIMEOUT", true]);
  expect((await store.txn({ then: [op.get("a")] })).results).toMatchObject([{ kind: "get", entry: { text: "1" } }]);
  await client.end();
  await engine.close();
});

test.skipIf(isMissing)(
  "a pool of the user's own is used by its shape and stays theirs, and a single client is refused",
  async () => {
    const pool = new pg.Pool({ connectionString: server.url, max: 4 });
    const conclave = await connect({ url: "postgres://given", client: pool });
    const other = await connect(as("postgres"));
    const tokens: number[] = [];
    let inside = 0;
    const work = async (hold: { readonly token: number }): Promise<void> => {
      expect(++inside).toBe(1);
      tokens.push(hold.token);
      await new Promise((resolve) => setTimeout(resolve, 2));
      inside--;
    };
    await Promise.all(Array.from({ length: 20 }, (_, index) => (index % 2 === 0 ? conclave : other).lock("given").run(work)));
    expect(tokens).toHaveLength(20);
    expect(tokens).toEqual([...tokens].sort((left, right) => left - right));
    await conclave.close();
    await other.close();
    expect((await pool.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
    await pool.end();
    const client = new pg.Client({ connectionString: server.url });
    const refused = await errorOf(connect({ url: "postgres://given", client }));
    expect([refused.code, refused.message.includes("Pool")]).toEqual(["FOREIGN_CLIENT", true]);
    expect((await errorOf(connect({ url: "postgres://given", client: {} }))).code).toBe("FOREIGN_CLIENT");
  },
);

test.skipIf(isMissing)(
  "behind a pooler that lends connections per transaction locks hold, waiters look, and the doctor names it",
  async () => {
    const bouncer = await startPgBouncer(server);
    if ("skipped" in bouncer) return;
    const [one, two] = [await connect(bouncer.url), await connect(bouncer.url)];
    expect([one.caps.watch, one.caps.handOff]).toEqual(["poll", "poll"]);
    const findings = (await one.engine.doctor?.()) ?? [];
    const pooler = findings.find(({ code }) => code === "TRANSACTION_POOLER");
    expect(pooler?.severity).toBe("danger");
    expect([pooler?.message.includes("LISTEN"), pooler?.remedy.includes("?listen=")]).toEqual([true, true]);
    let [inside, count] = [0, 0];
    await Promise.all(
      Array.from({ length: 8 }, (_, index) =>
        (index % 2 === 0 ? one : two).lock("pooled").run(async () => {
          expect(++inside).toBe(1);
          const seen = count;
          await new Promise((resolve) => setTimeout(resolve, 2));
          count = seen + 1;
          inside--;
        }),
      ),
    );
    expect(count).toBe(8);
    // With a way past it, what is told arrives.
    const pushed = await connect(`${bouncer.url}?listen=${encodeURIComponent(server.url)}`);
    expect([pushed.caps.watch, pushed.caps.handOff]).toEqual(["log", "server"]);
    expect((await pushed.engine.doctor?.())?.map(({ code }) => code)).not.toContain("TRANSACTION_POOLER");
    const hold = await one.lock("pooled").acquire();
    const waiting = pushed.lock("pooled").acquire();
    await new Promise((resolve) => setTimeout(resolve, 300));
    await hold.release();
    await (await waiting).release();
    for (const each of [one, two, pushed]) await each.close();
    await bouncer.stop();
  },
  60_000,
);

test.skipIf(isMissing)(
  "a pooler that lends connections for sessions is noted, and pushes arrive",
  async () => {
    const bouncer = await startPgBouncer(server, { mode: "session" });
    if ("skipped" in bouncer) return;
    const conclave = await connect(`${bouncer.url}?connectionsMax=3`);
    expect(conclave.caps.watch).toBe("log");
    expect((await conclave.engine.doctor?.())?.map(({ code }) => code)).toContain("POOLER");
    await conclave.close();
    await bouncer.stop();
  },
  60_000,
);

test.skipIf(isMissing)("making what is there already does not get in the way of clients at work, nor they in its", async () => {
  const group = "busy_install";
  const first = await openPostgres({ url: server.url, group });
  await first.close();
  const [atWork, installing] = [1, 2].map(() => new pg.Client({ connectionString: server.url })) as [pg.Client, pg.Client];
  await Promise.all([atWork.connect(), installing.connect()]);
  // As the function that opens a session: the row of `meta`, then the table of sessions. What was made while it stands
  // between the two is everything that `connect` makes, or an administrator's migration.
  await atWork.query("BEGIN");
  await atWork.query(`UPDATE ${group}.meta SET session = session + 1`);
  const installed = installing.query(postgresSchema(group)).catch((error: unknown) => error);
  await new Promise((resolve) => setTimeout(resolve, 300));
  await atWork.query(`INSERT INTO ${group}.sessions (id, deadline) VALUES (1, now())`);
  await atWork.query("COMMIT");
  expect(await installed).not.toBeInstanceOf(Error);
  await Promise.all([atWork.end(), installing.end()]);
});

test.skipIf(isMissing)(
  "many clients that come to an empty database at once all get to work",
  async () => {
    const group = "fleet";
    const work = async (): Promise<void> => {
      const engine = await openPostgres({ url: server.url, group, connectionsMax: 3 });
      for (let time = 0; time < 5; time++) {
        const session = await engine.store("fleet").session();
        await engine.store("fleet").txn({ then: [op.add("n", 1)] });
        await session.close();
      }
      await engine.close();
    };
    await Promise.all(Array.from({ length: 10 }, work));
    const engine = await openPostgres({ url: server.url, group });
    expect((await engine.store("fleet").txn({ then: [op.add("n", 0)] })).results).toEqual([{ kind: "add", value: 50 }]);
    await engine.close();
  },
  60_000,
);

test.skipIf(isMissing)(
  "the doctor names settings that weaken the promise, and no more",
  async () => {
    const careless = (await startPostgres({
      settings: ["fsync=off", "default_transaction_isolation=serializable", "synchronous_commit=off"],
    })) as PostgresServer;
    const engine = await openPostgres({ url: `${careless.url}?quarantineMs=-1` });
    expect(engine.caps.durability).toBe("memory");
    const findings = await engine.doctor();
    expect(Object.fromEntries(findings.map(({ code, severity }) => [code, severity]))).toEqual({
      FSYNC_OFF: "danger",
      ISOLATION_DEFAULT: "warning",
      NO_QUARANTINE: "danger",
    });
    expect(findings.every(({ message, remedy }) => message.length > 20 && remedy.length > 20)).toBe(true);
    // Conflicts of serializable transactions are asked again, not handed on.
    const store = engine.store("busy");
    await Promise.all(Array.from({ length: 30 }, () => store.txn({ then: [op.add("n", 1)] })));
    expect((await store.txn({ then: [op.add("n", 0)] })).results).toEqual([{ kind: "add", value: 30 }]);
    await engine.close();
    await careless.stop();
    const careful = await openPostgres({ url: as("postgres") });
    expect(await careful.doctor()).toEqual([]);
    expect(careful.caps).toMatchObject({ linearizable: "always", durability: "local-fsync" });
    await careful.close();
  },
  60_000,
);
