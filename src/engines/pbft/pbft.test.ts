/**
 * Four real replicas with real keys, sockets and disks in one process, and what may not hurt them.
 */

import { mkdtemp, rm } from "node:fs/promises";
import { createConnection } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { ByteWriter } from "../../base/byte-codec.ts";
import { freePorts } from "../../cli/free-ports.ts";
import { encodeStatement } from "../../consensus/pbft/statements.ts";
import { connect as openFrontDoor } from "../../index.ts";
import { encodePbftMessage } from "../../wire/pbft-messages.ts";
import type { ClusterFile } from "./cluster-file.ts";
import { connectPbft, type PbftConnection } from "./connect-pbft.ts";
import { claimOf, encodePbftHello } from "./hello.ts";
import { generateKey, type KeyFile, signingKey } from "./keys.ts";
import { type PbftServer, servePbft } from "./serve-pbft.ts";

const names = ["a", "b", "c", "d"] as const;
const pbft = { checkpointEvery: 4, windowLength: 16, viewChangeTimeoutMs: 200, statusMs: 50, statusIdleMs: 100 };

let folder: string;
let keys: Map<string, KeyFile>;
let clusterFile: ClusterFile;
const servers = new Map<string, PbftServer>();
const connections: PbftConnection[] = [];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "conclave-pbft-"));
  keys = new Map([...names, "teller", "stranger"].map((name) => [name, generateKey(name)]));
  const ports = await freePorts(names.length);
  const replicas = names.map((name, at) => ({
    name,
    address: `127.0.0.1:${ports[at]}`,
    publicKey: (keys.get(name) as KeyFile).publicKey,
  }));
  const { publicKey } = keys.get("teller") as KeyFile;
  clusterFile = { cluster: "bank", replicas, clients: [{ name: "teller", publicKey }] };
});

afterEach(async () => {
  for (const connection of connections.splice(0)) await connection.close();
  for (const server of servers.values()) await server.close();
  servers.clear();
  await rm(folder, { recursive: true, force: true });
});

async function start(name: string): Promise<PbftServer> {
  const server = await servePbft({ directory: join(folder, name), clusterFile, key: keys.get(name) as KeyFile, pbft });
  servers.set(name, server);
  return server;
}

async function startAll(): Promise<void> {
  await Promise.all(names.map((name) => start(name)));
}

async function stop(name: string): Promise<void> {
  await servers.get(name)?.close();
  servers.delete(name);
}

function connect(): PbftConnection {
  const connection = connectPbft({ clusterFile, key: keys.get("teller") as KeyFile, retryMs: 100 });
  connections.push(connection);
  return connection;
}

async function until(holds: () => boolean, what: string): Promise<void> {
  const untilMs = Date.now() + 15_000;
  while (!holds()) {
    if (Date.now() > untilMs) {
      const replicas = [...servers.values()]
        .map((server) => server.status())
        .map(
          ({ member, role, view, executed, stable, halted }) =>
            `${member} ${role} in ${view}, ${executed} (${stable}) ${halted ?? ""}`,
        );
      throw new Error(`Not within 15 s: ${what}; ${replicas.join("; ")}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

test("keys are set, compared, deleted and listed, each answer said alike by f + 1 replicas", async () => {
  await startAll();
  const store = connect().cas("accounts");
  const first = await store.compareAndSet({ key: "ann", expected: null, value: "1" });
  expect(first.applied).toBe(true);
  expect(await store.compareAndSet({ key: "ann", expected: null, value: "2" })).toEqual({
    applied: false,
    current: first.current,
  });
  const second = await store.compareAndSet({ key: "ann", expected: first.current?.revision ?? null, value: "2" });
  expect(second.current?.revision).toBeGreaterThan(first.current?.revision as number);
  await store.compareAndSet({ key: "bob", expected: null, value: "3" });
  expect((await store.range({ prefix: "" })).map((entry) => entry.key)).toEqual(["ann", "bob"]);
  expect((await store.range({ from: "ann", to: "bob" })).map((entry) => entry.key)).toEqual(["ann"]);
  expect((await store.range({ prefix: "" }, { limit: 1 })).map((entry) => entry.key)).toEqual(["ann"]);
  await store.compareAndSet({ key: "bob", expected: (await store.get("bob"))?.revision as number, value: null });
  expect(await store.get("bob")).toBeNull();
  expect(new TextDecoder().decode((await store.get("ann"))?.value)).toBe("2");
});

test("a silent primary is replaced, and a replica that comes back catches up by a checkpoint's state", {
  timeout: 60_000,
}, async () => {
  await startAll();
  const store = connect().cas();
  await store.compareAndSet({ key: "0", expected: null, value: "before" });
  await stop("a");
  for (let count = 1; count <= 30; count++) await store.compareAndSet({ key: String(count), expected: null, value: "x" });
  expect(servers.get("b")?.status().view).toBeGreaterThan(0);
  const a = await start("a");
  await until(() => a.status().executed >= 24, "a has caught up");
  // Of the three that remain a is now needed: its state has to be the right one.
  await stop("d");
  for (let count = 31; count <= 40; count++) await store.compareAndSet({ key: String(count), expected: null, value: "y" });
  expect((await store.range({ prefix: "" })).length).toBe(41);
});

test("everything answered is there after all four were stopped and started", { timeout: 60_000 }, async () => {
  await startAll();
  const store = connect().cas();
  for (let count = 0; count < 20; count++) await store.compareAndSet({ key: `k${count}`, expected: null, value: `v${count}` });
  for (const name of names) await stop(name);
  await startAll();
  const entries = await store.range({ prefix: "k" });
  expect(entries.length).toBe(20);
});

test("sessions, locks and watches are refused with the reason", async () => {
  const connection = connect();
  expect(() => connection.store()).toThrow(expect.objectContaining({ code: "UNSUPPORTED" }));
  await expect(openFrontDoor("conclave+pbft://127.0.0.1:7400")).rejects.toMatchObject({ code: "UNSUPPORTED" });
  await expect(openFrontDoor({ url: "memory:", protocol: "pbft" })).rejects.toMatchObject({ code: "UNSUPPORTED" });
});

test("nobody but the key's owner is a replica or client, and one key is one voice", async () => {
  const stranger = keys.get("stranger") as KeyFile;
  const wrong = { directory: join(folder, "x"), clusterFile, pbft };
  await expect(servePbft({ ...wrong, key: stranger })).rejects.toMatchObject({ code: "INVALID_OPTION" });
  await expect(servePbft({ ...wrong, key: { ...stranger, name: "a" } })).rejects.toMatchObject({ code: "INVALID_OPTION" });
  expect(() => connectPbft({ clusterFile, key: stranger })).toThrow(expect.objectContaining({ code: "INVALID_OPTION" }));
  const [first] = clusterFile.replicas as [ClusterFile["replicas"][0]];
  const doubled = {
    ...clusterFile,
    replicas: clusterFile.replicas.map((replica) => ({ ...replica, publicKey: first.publicKey })),
  };
  await expect(servePbft({ ...wrong, clusterFile: doubled, key: keys.get("a") as KeyFile })).rejects.toMatchObject({
    code: "INVALID_OPTION",
  });
});

test("garbage, strangers, forged seals and another cluster's letters are dropped, counted, and hurt nobody", {
  timeout: 60_000,
}, async () => {
  await startAll();
  const store = connect().cas();
  await store.compareAndSet({ key: "x", expected: null, value: "1" });
  const { address } = clusterFile.replicas[0] as { address: string };
  const hello = encodePbftHello({
    kind: "replica",
    cluster: "bank",
    replica: 1,
    signature: signingKey(keys.get("b") as KeyFile, "bank").sign(claimOf(1, 0)),
  });
  const writer = new ByteWriter();
  const vote = (signature: Uint8Array): Uint8Array => {
    const statement = { kind: "prepare", replica: 1, view: 0, sequence: 2, digest: "d".repeat(32) } as const;
    encodePbftMessage(writer, { kind: "prepare", vote: { statement, bytes: encodeStatement(statement), signature } });
    return writer.finish();
  };
  const forged = signingKey(keys.get("stranger") as KeyFile, "bank").sign(
    encodeStatement({ kind: "prepare", replica: 1, view: 0, sequence: 2, digest: "d".repeat(32) }),
  );
  const elsewhere = signingKey(keys.get("b") as KeyFile, "another bank").sign(
    encodeStatement({ kind: "prepare", replica: 1, view: 0, sequence: 2, digest: "d".repeat(32) }),
  );
  const good = vote(forged);
  await sendRaw(address, [Uint8Array.of(1, 2, 3)]);
  await sendRaw(address, [encodePbftHello({ kind: "replica", cluster: "other", replica: 1, signature: new Uint8Array(64) })]);
  await sendRaw(address, [encodePbftHello({ kind: "client", cluster: "bank", client: "teller", signature: new Uint8Array(64) })]);
  await sendRaw(address, [hello, vote(forged), vote(elsewhere), vote(new Uint8Array(3)), vote(forged)]);
  for (let cut = 1; cut < good.length; cut += 7) await sendRaw(address, [hello, good.subarray(0, cut)]);
  await sendRaw(address, [hello, Uint8Array.from([...good, 0])]);
  const a = servers.get("a") as PbftServer;
  await until(() => a.status().dropped.unsealed >= 4 && a.status().dropped.unreadable > 10, "all of it is counted");
  expect(await store.compareAndSet({ key: "y", expected: null, value: "2" })).toMatchObject({ applied: true });
  expect(a.status().halted).toBeUndefined();
});

/** Writes frames on a connection of its own, and waits until it is closed or everything is written. */
function sendRaw(address: string, frames: readonly Uint8Array[]): Promise<void> {
  const [host, port] = address.split(":") as [string, string];
  return new Promise((resolve) => {
    const socket = createConnection({ host, port: Number(port) });
    socket.on("error", () => socket.destroy());
    socket.on("close", () => resolve());
    socket.on("connect", () => {
      for (const frame of frames) {
        const header = Buffer.alloc(4);
        header.writeUInt32LE(frame.length);
        socket.write(Buffer.concat([header, frame]));
      }
      socket.end();
    });
    // What came is of no interest; the end is.
    socket.resume();
  });
}
