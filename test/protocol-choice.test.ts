/**
 * One option chooses how the members agree; a directory and a cluster keep their protocol, and whoever comes with another
 * is refused by name.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { ByteWriter } from "../src/base/byte-codec.ts";
import { type ProtocolName, protocolNames } from "../src/base/protocol-name.ts";
import { serve } from "../src/engines/embedded/serve.ts";
import { TcpTransport } from "../src/engines/embedded/tcp-transport.ts";
import { type ConclaveError, type ConclaveEvent, connect } from "../src/index.ts";
import { readMessages } from "../src/wire/envelope.ts";
import { type Refuse, readRefuse, writeHello } from "../src/wire/hello.ts";

const folder = mkdtempSync(join(tmpdir(), "conclave-protocol-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function errorOf(work: Promise<unknown>): Promise<ConclaveError> {
  return work.then(
    () => expect.unreachable("it was not refused"),
    (error: ConclaveError) => error,
  );
}

test("a store says how its members agree, raft where nobody chose", async () => {
  await using conclave = await connect("memory:");
  expect(conclave.caps.protocol).toBe("raft");
  const error = await errorOf(connect({ url: "memory:", protocol: "viewstamped" as ProtocolName }));
  expect(error.code).toBe("INVALID_OPTION");
  for (const name of protocolNames) expect(error.message).toContain(name);
});

test("a directory keeps its protocol, and is found again without naming it", async () => {
  const url = `file:${join(folder, "kept")}`;
  await using first = await connect({ url, protocol: "paxos" });
  await first.store().put("who", "agrees");
  await first.close();
  const error = await errorOf(connect({ url, protocol: "raft" }));
  expect(error.code).toBe("DIRECTORY_OTHER_PROTOCOL");
  expect(error.message).toMatch(/written by paxos .* with raft/);
  await using again = await connect(url);
  expect(again.caps.protocol).toBe("paxos");
  expect((await again.store().get("who"))?.text).toBe("agrees");
});

test("a cluster of another protocol is refused by the client that named one, and told to the one that did not", async () => {
  await using server = await serve({ directory: join(folder, "served"), listen: "127.0.0.1:0" });
  const url = `conclave://${server.address}`;
  const error = await errorOf(connect({ url, protocol: "paxos" }));
  expect(error.code).toBe("OTHER_PROTOCOL");
  expect(error.message).toMatch(/raft.*paxos/);
  await using conclave = await connect(url);
  expect(conclave.caps.protocol).toBe("raft");
  expect(server.status().protocol).toBe("raft");
});

test("a peer of another protocol is refused with a code, one that names none is taken for raft", async () => {
  const events: ConclaveEvent[] = [];
  await using server = await serve({
    directory: join(folder, "peers"),
    listen: "127.0.0.1:0",
    member: "a",
    members: new Map([
      ["a", "127.0.0.1:1"],
      ["b", "127.0.0.1:2"],
    ]),
    onEvent: (event) => events.push(event),
  });
  expect(await greet(server.address, { agreement: "paxos" })).toMatchObject({
    code: "OTHER_PROTOCOL",
    message: `Member "a" agrees by raft; "b" came with paxos.`,
  });
  expect(events).toContainEqual(expect.objectContaining({ kind: "connection.refused", code: "OTHER_PROTOCOL" }));
  expect(await greet(server.address, {})).toBeUndefined();
  expect(await greet(server.address, { agreement: "raft" })).toBeUndefined();
});

/** The refusal, or undefined for a welcome. */
function greet(address: string, changes: { readonly agreement?: string }): Promise<Refuse | undefined> {
  return new Promise((resolve, reject) => {
    new TcpTransport().dial(address, {
      onOpen: (connection) => {
        const writer = new ByteWriter();
        const names = { cluster: "local", member: "b", to: "a", groupId: 0, credential: new Uint8Array(0) };
        writeHello(writer, { protocolMin: 1, protocolMax: 1, role: "peer", ...names, ...changes });
        connection.send(writer.finish());
      },
      onFrame: (connection, frame) => {
        readMessages(frame, (type, body) => resolve(type === 33 ? readRefuse(body) : undefined));
        connection.close();
      },
      onClose: (_, error) => reject(error ?? new Error("closed without an answer")),
    });
  });
}
