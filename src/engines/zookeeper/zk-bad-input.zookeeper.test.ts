/**
 * What a user or an operator gets wrong with ZooKeeper: a typed error that names the way out, and a lock that is never silently lost.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { isRising, tryLock } from "../../../test/servers/lock-trial.ts";
import { installed } from "../../../test/servers/server-process.ts";
import { startSilentServers } from "../../../test/servers/silent-servers.ts";
import { startZooKeeper, tlsJars, type ZooKeeperEnsemble } from "../../../test/servers/zookeeper.ts";
import { ConclaveError } from "../../base/errors.ts";
import { freePorts } from "../../cli/free-ports.ts";
import { connect } from "../../index.ts";
import { op } from "../../recipes/when.ts";
import { binaryOfName, nodeName } from "./paths.ts";
import { openZooKeeper } from "./zk-engine.ts";

const found = await startZooKeeper();
const isMissing = "skipped" in found;
const zookeeper = found as ZooKeeperEnsemble;
const closing: (() => Promise<unknown>)[] = [];
afterAll(async () => {
  for (const close of closing.reverse()) await close();
  if (!isMissing) await zookeeper.stop();
});

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
    "zk://",
    "zk://h:99999",
    "zk://h/a/../b",
    "zk://h//a",
    "zookeeper://u:geheim@h?speed=1",
    "zk://u@h",
    "zk://h/zookeeper",
    "zk://h?reads=never",
  ]) {
    const error = await errorOf(connect(url));
    expect([url, error.code]).toEqual([url, "INVALID_OPTION"]);
    expect(error.message).not.toContain("geheim");
  }
  expect((await errorOf(connect({ url: "zk://h", client: {} }))).code).toBe("INVALID_OPTION");
});

test("names of nodes go there and back for every byte, and are never `.` nor `..`", () => {
  const every = String.fromCharCode(...Array.from({ length: 256 }, (_, byte) => byte));
  for (const text of [every, ".", "..", "a/b", "%2F", "~s", ""]) {
    const name = nodeName(text);
    expect(name).toMatch(/^[\x21-\x2d\x30-\x7d]*$/);
    expect(binaryOfName(name)).toBe(text);
  }
  expect(binaryOfName("not ours~")).toBe(undefined);
});

test("a port where nobody listens is CONNECTION_REFUSED, one that never answers is TIMEOUT, one that speaks something else PROTOCOL or TLS_FAILED", async () => {
  const sockets: Socket[] = [];
  const silent = createServer((socket) => {
    socket.on("error", () => undefined);
    sockets.push(socket);
  });
  await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
  const { port } = silent.address() as { readonly port: number };
  const error = await errorOf(connect({ url: `zk://127.0.0.1:${port}`, timeoutMs: 500 }));
  expect([error.code, error.definite]).toEqual(["TIMEOUT", true]);
  for (const socket of sockets) socket.destroy();
  await new Promise<void>((resolve) => void silent.close(() => resolve()));
  expect((await errorOf(connect(`zk://127.0.0.1:${port}`))).code).toBe("CONNECTION_REFUSED");
  for (const [bytes, code] of [
    [Buffer.from([0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x0a, 0x0d, 0x0a]), "TLS_FAILED"],
    [Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n"), "PROTOCOL"],
  ] as const) {
    const other = createServer((socket) => {
      socket.on("error", () => undefined);
      socket.write(bytes);
    });
    await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
    const at = (other.address() as { readonly port: number }).port;
    expect((await errorOf(connect({ url: `zk://127.0.0.1:${at}`, timeoutMs: 1_000 }))).code).toBe(code);
    other.close();
  }
});

test.skipIf(isMissing || installed(["openssl"], ["version"]) === undefined || !tlsJars.every((jar) => existsSync(jar)))(
  "TLS: the right authority is let in and locks; a foreign authority, another host's name and plain to TLS are refused",
  async () => {
    const folder = mkdtempSync(join(tmpdir(), "conclave-certificates-"));
    const [key, cert, pem] = ["key.pem", "cert.pem", "both.pem"].map((file) => join(folder, file)) as [string, string, string];
    const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"];
    const request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key, "-out", cert, ...subject];
    execFileSync("openssl", request, { stdio: "ignore" });
    writeFileSync(pem, readFileSync(key, "utf8") + readFileSync(cert, "utf8"));
    const [port] = (await freePorts(1)) as [number];
    const own = (await startZooKeeper({ tls: { port, pem } })) as ZooKeeperEnsemble;
    closing.push(() => own.stop());
    const url = `zookeepers://127.0.0.1:${port}`;
    const ca = readFileSync(cert, "utf8");
    const conclave = await connect({ url, tls: { ca } });
    const first = await conclave.lock("a").acquire();
    const waiting = conclave.lock("a").acquire();
    await first.release();
    expect((await waiting).token).toBeGreaterThan(first.token);
    await conclave.close();
    expect((await errorOf(connect({ url, timeoutMs: 5_000 }))).code).toBe("TLS_FAILED");
    const named = connect({ url, tls: { ca, servername: "elsewhere" }, timeoutMs: 5_000 });
    expect((await errorOf(named)).code).toBe("TLS_FAILED");
    expect((await errorOf(connect({ url: url.replace("keepers", "keeper"), timeoutMs: 3_000 }))).code).toMatch(
      /TLS_FAILED|CONNECTION_REFUSED|TIMEOUT/,
    );
    rmSync(folder, { recursive: true });
  },
  60_000,
);

test.skipIf(isMissing)("TLS to a plain server is TLS_FAILED", async () => {
  const error = await errorOf(connect({ url: zookeeper.url.replace("zookeeper:", "zookeepers:"), timeoutMs: 2_000 }));
  expect(["TLS_FAILED", "TIMEOUT"]).toContain(error.code);
  expect(error.definite).toBe(true);
});

test.skipIf(isMissing)("what belongs to one user is UNAUTHORIZED to another, from the first use, not a wait", async () => {
  const mine = await connect(`${zookeeper.url.replace("//", "//app:secret@")}/mine`);
  expect(await mine.lock("a").run(() => "in")).toBe("in");
  for (const who of ["", "app:wrong@"]) {
    const error = await connect(`${zookeeper.url.replace("//", `//${who}`)}/mine`).then(
      async (conclave) => {
        const refused = await errorOf(conclave.lock("a").acquire({ waitMs: 5_000 }));
        await conclave.close();
        return refused;
      },
      (caught: ConclaveError) => caught,
    );
    expect([who, error.code]).toEqual([who, "UNAUTHORIZED"]);
  }
  await mine.close();
});

test.skipIf(isMissing)("odd namespaces and keys stay apart, below one chroot", async () => {
  const conclave = await connect(`${zookeeper.url}/odd/below`);
  const names = ["", "/", "a/b", "a", "a\u0001", "🔒", "x".repeat(1_000), "..", "%2F", "~s"];
  for (const name of names) await conclave.engine.store(name).txn({ then: [op.put("k/../.", name)] });
  for (const name of names) {
    const { results } = await conclave.engine.store(name).txn({ then: [op.range({ prefix: "" })] });
    expect(results[0]?.kind === "range" && results[0].entries.map(({ key, text }) => [key, text])).toEqual([["k/../.", name]]);
  }
  await conclave.close();
});

test.skipIf(isMissing)(
  "a server that is gone in mid-call says that the call may have happened",
  async () => {
    const own = (await startZooKeeper()) as ZooKeeperEnsemble;
    closing.push(() => own.stop());
    const engine = await openZooKeeper({ url: own.url });
    const store = engine.store("x");
    const session = await store.session();
    const join = (key: string) => ({
      if: [{ key, target: "exists", is: "equal", to: false } as const],
      then: [op.put(key, "1", { session: session.id })],
    });
    await store.txn(join("a"));
    own.servers[0]?.process.pause();
    const call = errorOf(store.txn(join("b"), { timeoutMs: 5_000 }));
    await new Promise((resolve) => setTimeout(resolve, 50));
    await own.servers[0]?.process.kill();
    const error = await call;
    expect([error.code, error.definite]).toEqual(["CONNECTION_LOST", false]);
    const late = await errorOf(store.txn(join("c"), { timeoutMs: 500 }));
    expect([late.code, late.definite]).toEqual(["TIMEOUT", true]);
    await engine.close();
  },
  60_000,
);

test.skipIf(isMissing)("what ZooKeeper has no word for is refused in words", async () => {
  const engine = await openZooKeeper({ url: zookeeper.url });
  const store = engine.store("refused");
  const [short, long] = [await store.session({ ttlMs: 5_000 }), await store.session({ ttlMs: 9_000 })];
  const claim = { session: short.id, sequence: 1, lowestOpen: 1 };
  expect((await errorOf(store.txn({ then: [op.put("a", "1")], claim }))).code).toBe("UNSUPPORTED");
  const two = store.txn({ then: [op.put("a", "1", { session: short.id }), op.put("b", "1", { session: long.id })] });
  expect((await errorOf(two)).message).toContain("different TTLs");
  expect((await errorOf(store.txn({ then: [op.range({ prefix: "" }, { atRevision: 5 })] }))).code).toBe("UNSUPPORTED");
  // A session of another process is none of ours.
  const other = await openZooKeeper({ url: zookeeper.url });
  const theirs = await other.store("refused").session();
  expect((await errorOf(store.txn({ then: [op.put("a", "1", { session: theirs.id })] }))).code).toBe("SESSION_EXPIRED");
  await engine.close();
  await other.close();
});

test.skipIf(isMissing)(
  "two clients, one with quorum readings, share one lock",
  async () => {
    const [one, two] = [
      await openZooKeeper({ url: zookeeper.url }),
      await openZooKeeper({ url: `${zookeeper.url}?reads=quorum` }),
    ];
    const { entered, together, tokens } = await tryLock({ engines: [one, two], name: "both", ttlMs: 5_000, turns: 15 });
    expect([entered, together, isRising(tokens)]).toEqual([30, 0, true]);
    await one.close();
    await two.close();
  },
  60_000,
);

test.skipIf(isMissing)(
  "the doctor says what weakens the promise, and the caps tell the sessions that are granted",
  async () => {
    const engine = await openZooKeeper({ url: `${zookeeper.url},127.0.0.1:1` });
    const findings = await engine.doctor();
    expect(findings.map(({ code }) => code).sort()).toEqual(["MEMBER_SILENT", "ONE_MEMBER"]);
    expect(findings.every(({ message, remedy }) => message.length > 20 && remedy.length > 20)).toBe(true);
    expect([engine.caps.limits.ttlMsMin, engine.caps.limits.ttlMsMax]).toEqual([1_500, 60_000]);
    await engine.close();
    const three = (await startZooKeeper({ servers: 3 })) as ZooKeeperEnsemble;
    closing.push(() => three.stop());
    const careful = await openZooKeeper({ url: three.url });
    expect([careful.caps.linearizable, careful.caps.durability]).toEqual(["until-failover", "quorum"]);
    expect((await careful.doctor()).map(({ code }) => code)).toEqual(["READS_MAY_LAG"]);
    await careful.close();
  },
  60_000,
);

test.skipIf(isMissing)(
  "a member that takes connections and says nothing keeps nobody from the others",
  async () => {
    // Whichever is asked first.
    const silent = await startSilentServers(2);
    const url = `zookeeper://${silent.addresses.join(",")},127.0.0.1:${zookeeper.port}`;
    const conclave = await connect({ url, timeoutMs: 6_000 });
    expect(await conclave.lock("past the silent").run(() => "in")).toBe("in");
    await conclave.close();
    silent.close();
  },
  60_000,
);
