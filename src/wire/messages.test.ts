// biome-ignore-all lint/suspicious/noThenProperty: the `then` of a txn is a list, never called.
import fc from "fast-check";
import { expect, test } from "vitest";
import { ByteWriter } from "../base/byte-codec.ts";
import { hasCode } from "../base/errors.ts";
import { decodeCommand, type ResolvedTxn } from "../store/command.ts";
import { Entry } from "../store/entry.ts";
import { type MachineEvent, readOutcome, writeOutcome } from "../store/outcome.ts";
import {
  type ClientMessageHandler,
  readClientMessages,
  writeCloseSession,
  writeKeepAlive,
  writeOpenSession,
  writePing,
  writeRead,
  writeStatus,
  writeTxn,
  writeWatchClose,
  writeWatchCredit,
  writeWatchOpen,
} from "./client-messages.ts";
import { beginLength, beginMessage, endLength, endMessage, readMessages } from "./envelope.ts";
import { checkHello, chooseProtocol, type Hello, readHello, writeHello, writeRefuse, writeWelcome } from "./hello.ts";
import {
  beginOutcome,
  beginWatchBatch,
  readServerMessages,
  type ServerMessageHandler,
  writeLeader,
  writePong,
  writeReady,
  writeRefused,
  writeStatusReply,
  writeWatchEnd,
} from "./server-messages.ts";
import { beginPart, endPart, readPart, writeEntryItem, writeEventItem } from "./watch-batch.ts";

const hello: Hello = {
  protocolMin: 1,
  protocolMax: 3,
  role: "client",
  cluster: "prod",
  member: "app-1",
  to: undefined,
  groupId: 7,
  credential: Uint8Array.of(1, 2, 3),
};

const txn: ResolvedTxn = {
  kind: "txn",
  claim: { session: 5, sequence: 9, lowestOpen: 8 },
  compares: [],
  then: [{ kind: "put", key: "n\0k", value: Uint8Array.of(1, 2), session: null, returnPrevious: false }],
  else: [],
};

/** Records each call as [method, ...arguments], with bytes copied. */
function recorder<T extends object>(): { readonly handler: T; readonly calls: unknown[][] } {
  const calls: unknown[][] = [];
  const handler = new Proxy({} as T, {
    get:
      (_target, name) =>
      (...values: unknown[]): void => {
        calls.push([name, ...values.map((value) => (value instanceof Uint8Array ? value.slice() : value))]);
      },
  });
  return { handler, calls };
}

function written(write: (writer: ByteWriter) => void): Uint8Array {
  const writer = new ByteWriter();
  write(writer);
  return writer.finish();
}

function readAsClientMessages(frame: Uint8Array): unknown[][] {
  const { handler, calls } = recorder<ClientMessageHandler>();
  readClientMessages(frame, handler);
  return calls;
}

function readAsServerMessages(frame: Uint8Array): unknown[][] {
  const { handler, calls } = recorder<ServerMessageHandler>();
  readServerMessages(frame, handler);
  return calls;
}

const everyClientMessage = written((writer) => {
  writeTxn(writer, 1, txn);
  writeRead(writer, 2 ** 40, "stale", { ...txn, claim: null, then: [{ kind: "get", key: "n\0k" }] });
  writeOpenSession(writer, 3, 15_000);
  writeCloseSession(writer, 4, 77);
  writeKeepAlive(writer, 5, 77);
  writeWatchOpen(writer, { watchId: 6, range: { from: "n\0a", to: "n\0\xff" }, from: 2 ** 50, creditBytes: 1_000 });
  writeWatchOpen(writer, { watchId: 7, range: { from: "n\0", to: "n\x01" }, from: undefined, creditBytes: 0 });
  writeWatchClose(writer, 6);
  writeWatchCredit(writer, 7, 500);
  writeStatus(writer, 8);
  writePing(writer, 9);
});

test("every client message arrives as it was said, in order, from one frame", () => {
  const calls = readAsClientMessages(everyClientMessage);
  expect(calls.map(([name]) => name)).toEqual([
    "onTxn",
    "onRead",
    "onOpenSession",
    "onCloseSession",
    "onKeepAlive",
    "onWatchOpen",
    "onWatchOpen",
    "onWatchClose",
    "onWatchCredit",
    "onStatus",
    "onPing",
  ]);
  expect(decodeCommand(calls[0]?.[2] as Uint8Array)).toEqual(txn);
  expect(calls[1]?.slice(1, 3)).toEqual([2 ** 40, "stale"]);
  expect(calls[2]).toEqual(["onOpenSession", 3, 15_000]);
  expect(calls[5]).toEqual([
    "onWatchOpen",
    { watchId: 6, range: { from: "n\0a", to: "n\0\xff" }, from: 2 ** 50, creditBytes: 1_000 },
  ]);
  expect(calls[6]).toEqual(["onWatchOpen", { watchId: 7, range: { from: "n\0", to: "n\x01" }, from: undefined, creditBytes: 0 }]);
});

test("every server message arrives as it was said", () => {
  const welcome = { protocol: 1, member: "a", cluster: "prod", addresses: new Map([["a", "h:1"]]), leader: undefined, term: 4 };
  const refused = { code: "NOT_LEADER", message: "no", definite: true, leader: "b" } as const;
  const stopped = { code: "DISK_FULL", message: "no room" } as const;
  const frame = written((writer) => {
    writeWelcome(writer, welcome);
    writeWelcome(writer, { ...welcome, stopped });
    writeRefuse(writer, { code: "WRONG_CLUSTER", message: "another one" });
    writeRefused(writer, 1, refused);
    writeReady(writer, 2);
    writeWatchEnd(writer, 3, { code: "UNAUTHORIZED", message: "not yours" });
    writeLeader(writer, { leader: undefined, term: 5 });
    writeLeader(writer, { leader: "c", term: 6 });
    writeLeader(writer, { leader: undefined, term: 6, stopped });
    writePong(writer, 1, { leader: "c", term: 6 });
    writePong(writer, 2, { leader: undefined, term: 7, stopped });
    writeStatusReply(writer, 7, "{}");
  });
  expect(readAsServerMessages(frame)).toEqual([
    ["onWelcome", welcome],
    ["onWelcome", { ...welcome, stopped }],
    ["onRefuse", { code: "WRONG_CLUSTER", message: "another one" }],
    ["onRefused", 1, refused],
    ["onReady", 2],
    ["onWatchEnd", 3, { code: "UNAUTHORIZED", message: "not yours" }],
    ["onLeader", { leader: undefined, term: 5 }],
    ["onLeader", { leader: "c", term: 6 }],
    ["onLeader", { leader: undefined, term: 6, stopped }],
    ["onPong", 1, { leader: "c", term: 6 }],
    ["onPong", 2, { leader: undefined, term: 7, stopped }],
    ["onStatusReply", 7, "{}"],
  ]);
});

test("an outcome is read in place", () => {
  const outcome = { kind: "txn", result: { succeeded: true, revision: 12, results: [{ kind: "add", value: -3 }] } } as const;
  const frame = written((writer) => {
    const at = beginOutcome(writer, 44);
    writeOutcome(writer, outcome);
    endMessage(writer, at);
  });
  const seen: unknown[] = [];
  const { handler } = recorder<ServerMessageHandler>();
  readServerMessages(
    frame,
    Object.assign(Object.create(handler), {
      onOutcome: (requestId: number, reader: Parameters<typeof readOutcome>[0]) =>
        seen.push(requestId, readOutcome(reader, "stripped")),
    }),
  );
  expect(seen).toEqual([44, outcome]);
});

test("a watch batch in parts keeps keys, values, sessions and revisions", () => {
  const entry = new Entry({
    binaryKey: "n\0k",
    value: Uint8Array.of(1),
    createRevision: 3,
    modRevision: 5,
    version: 2,
    session: "9",
  });
  const events: MachineEvent[] = [
    { revision: 5, key: "n\0k", entry, previous: null },
    { revision: 6, key: "n\0k", entry: null, previous: entry },
  ];
  const frame = written((writer) => {
    const at = beginWatchBatch(writer, 1);
    beginPart(writer, "changes", 6);
    for (const event of events) writeEventItem(writer, event);
    endPart(writer, false);
    endMessage(writer, at);
    const second = beginWatchBatch(writer, 1);
    beginPart(writer, "resync", 7);
    writeEntryItem(writer, entry);
    endPart(writer, true);
    endMessage(writer, second);
  });
  const parts: unknown[] = [];
  const { handler } = recorder<ServerMessageHandler>();
  readServerMessages(
    frame,
    Object.assign(Object.create(handler), {
      onWatchBatch: (_id: number, body: Parameters<typeof readPart>[0]) => parts.push(readPart(body)),
    }),
  );
  const stripped = { binaryKey: "k", value: Uint8Array.of(1), createRevision: 3, modRevision: 5, version: 2, session: "9" };
  expect(parts).toMatchObject([
    {
      kind: "changes",
      revision: 6,
      isLast: false,
      events: [
        { kind: "put", revision: 5, key: "k", entry: stripped, previous: null },
        { kind: "delete", revision: 6, key: "k", previous: stripped },
      ],
    },
    { kind: "resync", revision: 7, isLast: true, entries: [stripped] },
  ]);
});

test("unknown message types, and unknown bytes after the known fields of a body, are skipped", () => {
  const frame = written((writer) => {
    const unknown = beginMessage(writer, 200);
    writer.raw(new Uint8Array(500).fill(255));
    endMessage(writer, unknown);
    const longer = beginMessage(writer, 10);
    writer.varint(3);
    writer.utf8("a field of a later version");
    endMessage(writer, longer);
    writePing(writer, 4);
  });
  expect(readAsClientMessages(frame)).toEqual([
    ["onPing", 3],
    ["onPing", 4],
  ]);
});

test("a padded length reads as the varint that it is", () => {
  for (const bytes of [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 3_000_000]) {
    const frame = written((writer) => {
      const at = beginLength(writer);
      writer.raw(new Uint8Array(bytes));
      endLength(writer, at);
    });
    const seen: number[] = [];
    readMessages(
      written((writer) => {
        writer.u8(1);
        writer.raw(frame);
      }),
      (_type, body) => seen.push(body.remaining),
    );
    expect(seen).toEqual([bytes]);
  }
});

test("a hello keeps every field, and skips the fields of a later version", () => {
  const frame = written((writer) => {
    writeHello(writer, hello);
    writer.varint(99);
    writer.utf8("what a later version says");
  });
  expect(readHello(frame)).toEqual(hello);
  const peer: Hello = { ...hello, role: "peer", to: "b", cluster: undefined, credential: new Uint8Array(0), agreement: "paxos" };
  expect(readHello(written((writer) => writeHello(writer, peer)))).toEqual(peer);
});

test("a hello is recognised by its first four bytes", () => {
  expect(() => readHello(new TextEncoder().encode("GET / HTTP/1.1"))).toThrow(/CNCL/);
  expect(() => readHello(new Uint8Array(70_000))).toThrow(/no hello/);
  expect(() => readHello(new Uint8Array(0))).toThrow(/CNCL/);
});

test("a hello for another cluster, group, member or protocol is refused by name", () => {
  const expected = { cluster: "prod", member: "a", groupId: 7 };
  expect(checkHello(hello, expected)).toBeUndefined();
  expect(checkHello({ ...hello, cluster: undefined }, expected)).toBeUndefined();
  expect(checkHello({ ...hello, cluster: "dev" }, expected)?.code).toBe("WRONG_CLUSTER");
  expect(checkHello({ ...hello, groupId: 8 }, expected)?.code).toBe("WRONG_CLUSTER");
  expect(checkHello({ ...hello, to: "b" }, expected)?.code).toBe("WRONG_MEMBER");
  expect(checkHello({ ...hello, protocolMin: 2, protocolMax: 9 }, expected)?.code).toBe("WRONG_PROTOCOL");
  expect(chooseProtocol({ ...hello, protocolMax: 9 })).toBe(1);
});

const quiet = {
  onOutcome: (_id: number, reader: Parameters<typeof readOutcome>[0]) => void readOutcome(reader, "stripped"),
  onWatchBatch: (_id: number, reader: Parameters<typeof readPart>[0]) => void readPart(reader),
};

/** Reads the frame in every way there is; only PROTOCOL may be thrown. */
function readEveryWay(frame: Uint8Array): void {
  const { handler } = recorder<ServerMessageHandler>();
  const ways = [
    () => readHello(frame),
    () => readAsClientMessages(frame).map(([name, , , command]) => name === "onRead" && decodeCommand(command as Uint8Array)),
    () => readServerMessages(frame, Object.assign(Object.create(handler), quiet)),
  ];
  for (const way of ways) {
    try {
      way();
    } catch (error) {
      if (!hasCode(error, "PROTOCOL")) throw error;
    }
  }
}

test("garbage is PROTOCOL or nonsense, never a crash", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), readEveryWay), { numRuns: 3_000 });
});

test("real frames that were damaged are PROTOCOL or nonsense, never a crash", () => {
  const serverFrame = written((writer) => {
    writeWelcome(writer, { protocol: 1, member: "a", cluster: "c", addresses: new Map([["a", "h:1"]]), leader: "a", term: 1 });
    writeRefused(writer, 1, { code: "BUSY", message: "later", definite: true, leader: "a" });
    const at = beginOutcome(writer, 9);
    writeOutcome(writer, { kind: "error", code: "BUSY", message: "x", definite: true });
    endMessage(writer, at);
  });
  const helloFrame = written((writer) => writeHello(writer, hello));
  const damage = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(fc.constantFrom(everyClientMessage, serverFrame, helloFrame), damage, fc.nat(), (frame, changes, cut) => {
      const damaged = frame.slice(0, frame.length - (cut % 8));
      for (const [at, byte] of changes) damaged[at % damaged.length] = byte;
      readEveryWay(damaged);
    }),
    { numRuns: 5_000 },
  );
});
