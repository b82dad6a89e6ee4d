/**
 * What a user or an operator gets wrong with etcd: a typed error that names the way out, and a lock that is never silently lost.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as grpc from "@grpc/grpc-js";
import { afterAll, expect, test } from "vitest";
import { type EtcdCluster, startEtcd } from "../../../test/servers/etcd.ts";
import { isRising, tryLock } from "../../../test/servers/lock-trial.ts";
import { installed } from "../../../test/servers/server-process.ts";
import { startSilentServers } from "../../../test/servers/silent-servers.ts";
import { ConclaveError } from "../../base/errors.ts";
import { connect } from "../../index.ts";
import { createLock } from "../../recipes/lock.ts";
import { op } from "../../recipes/when.ts";
import { openEtcd } from "./etcd-engine.ts";
import { canBumpRevision, losesLeases } from "./server-report.ts";

const found = await startEtcd();
const isMissing = "skipped" in found;
const etcd = found as EtcdCluster;
const closing: (() => Promise<unknown>)[] = [];
afterAll(async () => {
  for (const close of closing.reverse()) await close();
  if (!isMissing) await etcd.stop();
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
    "etcd://",
    "etcd://h:99999",
    "etcd://h/path",
    "etcd://u:geheim@h?speed=1",
    "etcd://u@h",
    "etcd://h?prefix=",
  ]) {
    const error = await errorOf(connect(url));
    expect([url, error.code]).toEqual([url, "INVALID_OPTION"]);
    expect(error.message).not.toContain("geheim");
  }
});

test("versions are judged by what their change logs say", () => {
  const judged = ["3.4.23", "3.4.31", "3.5.0", "3.5.12", "3.5.13", "3.6.1", "3.3.10"].map((version) => [
    version,
    losesLeases(version),
    canBumpRevision(version),
  ]);
  expect(judged).toEqual([
    ["3.4.23", true, false],
    ["3.4.31", false, true],
    ["3.5.0", true, false],
    ["3.5.12", true, true],
    ["3.5.13", false, true],
    ["3.6.1", false, true],
    ["3.3.10", true, false],
  ]);
});

test("a port where nobody listens is CONNECTION_REFUSED, and one that never answers is TIMEOUT, both for certain", async () => {
  const sockets: Socket[] = [];
  const silent = createServer((socket) => {
    socket.on("error", () => undefined);
    sockets.push(socket);
  });
  await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
  const { port } = silent.address() as { readonly port: number };
  const error = await errorOf(connect({ url: `etcd://127.0.0.1:${port}`, timeoutMs: 500 }));
  expect(error.code).toBe("TIMEOUT");
  for (const socket of sockets) socket.destroy();
  await new Promise<void>((resolve) => void silent.close(() => resolve()));
  const refused = await errorOf(connect(`etcd://127.0.0.1:${port}`));
  expect([refused.code, refused.definite]).toEqual(["CONNECTION_REFUSED", true]);
});

test.skipIf(isMissing)(
  "a wrong password, no password, and a user who may not are UNAUTHORIZED from the first use",
  async () => {
    const own = (await startEtcd()) as EtcdCluster;
    closing.push(() => own.stop());
    own.ctl("user", "add", "root:secret");
    own.ctl("user", "grant-role", "root", "root");
    own.ctl("user", "add", "app:pass");
    own.ctl("role", "add", "app");
    own.ctl("role", "grant-permission", "app", "readwrite", "--prefix=true", "app/");
    own.ctl("user", "grant-role", "app", "app");
    own.ctl("auth", "enable");
    const at = `127.0.0.1:${own.port}`;
    expect((await errorOf(connect(`etcd://root:wrong@${at}`))).code).toBe("UNAUTHORIZED");
    const nobody = await connect(`etcd://${at}`).then(
      async (conclave) => {
        const error = await errorOf(conclave.lock("a").acquire({ waitMs: 5_000 }));
        await conclave.close();
        return error;
      },
      (error: ConclaveError) => error,
    );
    expect(nobody.code).toBe("UNAUTHORIZED");
    const stranger = await connect(`etcd://app:pass@${at}`);
    expect((await errorOf(stranger.lock("a").acquire({ waitMs: 5_000 }))).code).toBe("UNAUTHORIZED");
    await stranger.close();
    const app = await connect(`etcd://app:pass@${at}/?prefix=app/`);
    expect(await app.lock("a").run(() => "mine")).toBe("mine");
    await app.close();
  },
  60_000,
);

test.for(["etcd", "etcds"])(
  "a server that accepts %s:// and hangs up before it speaks is asked about TLS, not said to refuse",
  async (scheme) => {
    const server = createServer((socket: Socket) => {
      socket.on("error", () => undefined);
      socket.once("data", () => socket.resetAndDestroy());
    });
    await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    const error = await errorOf(connect({ url: `${scheme}://127.0.0.1:${port}`, timeoutMs: 2_000 }));
    expect(error).toMatchObject({ code: "TLS_FAILED", definite: true });
    server.close();
  },
);

test.skipIf(isMissing || installed(["openssl"], ["version"]) === undefined)(
  "TLS: the right authority is let in; plain to TLS, TLS to plain and a foreign authority are TLS_FAILED",
  async () => {
    const folder = mkdtempSync(join(tmpdir(), "conclave-certificates-"));
    const [key, cert] = [join(folder, "key.pem"), join(folder, "cert.pem")];
    const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"];
    execFileSync(
      "openssl",
      ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key, "-out", cert, ...subject],
      {
        stdio: "ignore",
      },
    );
    const own = (await startEtcd({
      tls: { ca: cert, cert, key },
      args: ["--cert-file", cert, "--key-file", key],
    })) as EtcdCluster;
    closing.push(() => own.stop());
    const ca = readFileSync(cert, "utf8");
    const conclave = await connect({ url: own.url, tls: { ca } });
    expect(await conclave.lock("a").run(() => "in")).toBe("in");
    await conclave.close();
    expect((await errorOf(connect({ url: own.url, timeoutMs: 3_000 }))).code).toBe("TLS_FAILED");
    expect((await errorOf(connect({ url: own.url.replace("etcds", "etcd"), timeoutMs: 3_000 }))).code).toMatch(
      /TLS_FAILED|CONNECTION_LOST|CONNECTION_REFUSED|TIMEOUT/,
    );
    expect(await errorOf(connect({ url: `etcds://127.0.0.1:${etcd.port}`, timeoutMs: 3_000 }))).toMatchObject({
      code: "TLS_FAILED",
    });
    rmSync(folder, { recursive: true });
  },
  60_000,
);

test.skipIf(isMissing)("odd namespaces and keys stay apart, below one prefix", async () => {
  const conclave = await connect(`${etcd.url}/?prefix=odd/`);
  const names = ["", "/", "a/b", "a", "a\u0001", "🔒", "x".repeat(1_000), "..", "%2F"];
  for (const name of names) await conclave.engine.store(name).txn({ then: [op.put("k", name)] });
  for (const name of names) {
    const { results } = await conclave.engine.store(name).txn({ then: [op.range({ prefix: "" })] });
    expect(results[0]?.kind === "range" && results[0].entries.map(({ text }) => text)).toEqual([name]);
  }
  expect(
    etcd
      .ctl("get", "", "--from-key", "--keys-only")
      .split("\n")
      .filter((key) => key !== "" && !/^odd\//.test(key)),
  ).toEqual([]);
  await conclave.close();
});

test.skipIf(isMissing)("a server that is gone in mid-call says that the call may have happened", async () => {
  const own = (await startEtcd()) as EtcdCluster;
  closing.push(() => own.stop());
  const engine = await openEtcd({ url: own.url });
  const store = engine.store("x");
  await store.txn({ then: [op.put("a", "1")] });
  own.members[0]?.process.pause();
  const call = errorOf(store.txn({ then: [op.put("a", "2")] }, { timeoutMs: 5_000 }));
  await new Promise((resolve) => setTimeout(resolve, 50));
  await own.members[0]?.process.kill();
  const error = await call;
  expect([error.code, error.definite]).toEqual(["CONNECTION_LOST", false]);
  const late = await errorOf(store.txn({ then: [op.put("a", "3")] }, { timeoutMs: 1_000 }));
  expect([["TIMEOUT", "CONNECTION_REFUSED"].includes(late.code), late.definite]).toEqual([true, true]);
  await engine.close();
});

test.skipIf(isMissing)("what etcd has no word for is refused in words", async () => {
  const engine = await openEtcd({ url: etcd.url });
  const store = engine.store("refused");
  const session = await store.session();
  const claim = { session: session.id, sequence: 1, lowestOpen: 1 };
  expect((await errorOf(store.txn({ then: [op.put("a", "1")], claim }))).code).toBe("UNSUPPORTED");
  await store.txn({ then: [op.put("a", "1")] });
  expect((await errorOf(store.txn({ then: [op.delete({ key: "a" }), op.put("a", "2")] }))).code).toBe("UNSUPPORTED");
  const keys = Array.from({ length: 60 }, (_, index) => op.put(`k${index}`, "1"));
  for (let part = 0; part < 3; part++)
    await store.txn({ then: keys.map((each) => ({ ...each, key: `${part}${String(each.key)}` })) });
  const tooMany = await errorOf(store.txn({ then: [op.add("n", 1), op.range({ prefix: "" })] }));
  expect([tooMany.code, tooMany.definite]).toEqual(["TXN_TOO_LARGE", true]);
  await engine.close();
});

test.skipIf(isMissing)(
  "a client of the user's own is used by its shape beside ours on one lock, and one that lacks a method is refused by name",
  async () => {
    const client = new grpc.Client(`127.0.0.1:${etcd.port}`, grpc.credentials.createInsecure());
    const given = await openEtcd({ url: "etcd://given", client });
    const own = await openEtcd({ url: etcd.url });
    const { entered, together, tokens } = await tryLock({ engines: [given, own], name: "both", ttlMs: 5_000, turns: 15 });
    expect([entered, together, isRising(tokens)]).toEqual([30, 0, true]);
    await given.close();
    // Closing stays the user's.
    await new Promise<void>((resolve, reject) =>
      client.waitForReady(Date.now() + 2_000, (error) => (error === undefined || error === null ? resolve() : reject(error))),
    );
    client.close();
    await own.close();
    const refused = await errorOf(connect({ url: "etcd://given", client: { close: () => undefined } }));
    expect([refused.code, refused.message.includes("makeUnaryRequest")]).toEqual(["FOREIGN_CLIENT", true]);
  },
  60_000,
);

test.skipIf(isMissing)(
  "the doctor names the version that loses leases, and the caps are lowered where that matters",
  async () => {
    const engine = await openEtcd({ url: etcd.url });
    const findings = await engine.doctor();
    const isFaulty = losesLeases(etcd.version);
    expect(findings.some(({ code, severity }) => code === "LEASES_LOST" && severity === "danger")).toBe(isFaulty);
    if (isFaulty) expect(findings.find(({ code }) => code === "LEASES_LOST")?.remedy).toContain("3.4.31");
    expect(findings.map(({ code }) => code)).toContain("ONE_MEMBER");
    expect(findings.every(({ message, remedy }) => message.length > 20 && remedy.length > 20)).toBe(true);
    await engine.close();
    const three = (await startEtcd({ members: 3 })) as EtcdCluster;
    closing.push(() => three.stop());
    const careful = await openEtcd({ url: three.url });
    expect(careful.caps.linearizable).toBe(isFaulty ? "until-failover" : "always");
    expect(careful.caps.durability).toBe("quorum");
    expect(await createLock(careful, "works").acquire()).toBeDefined();
    await careful.close();
  },
);

test.skipIf(isMissing)(
  "a member that takes connections and says nothing keeps nobody from the others",
  async () => {
    // Whichever is asked first.
    const silent = await startSilentServers(2);
    const url = `etcd://${silent.addresses.join(",")},127.0.0.1:${etcd.port}`;
    const conclave = await connect({ url, timeoutMs: 6_000 });
    expect(await conclave.lock("past the silent").run(() => "in")).toBe("in");
    await conclave.close();
    silent.close();
  },
  60_000,
);
