// biome-ignore-all lint/suspicious/noThenProperty: the `then` of a txn is a list, never called.
import fc from "fast-check";
import { expect, test } from "vitest";
import { ByteWriter } from "../base/byte-codec.ts";
import type { Connection } from "../base/ports.ts";
import { TestCluster, type TestClusterOptions } from "../client/test-cluster.test.ts";
import { encodeCommand, type ResolvedTxn } from "../store/command.ts";
import { type Outcome, readOutcome } from "../store/outcome.ts";
import { VirtualPlatform } from "../testing/virtual-platform.ts";
import {
  writeKeepAlive,
  writeOpenSession,
  writePing,
  writeRead,
  writeStatus,
  writeTxn,
  writeWatchCredit,
  writeWatchOpen,
} from "../wire/client-messages.ts";
import { beginMessage, endMessage, messageTypes } from "../wire/envelope.ts";
import { type Hello, type LeaderNews, type Refuse, type Welcome, writeHello } from "../wire/hello.ts";
import { type Refused, readServerMessages, type ServerMessageHandler } from "../wire/server-messages.ts";
import { readPart, type WatchPart } from "../wire/watch-batch.ts";

const hello: Hello = {
  protocolMin: 1,
  protocolMax: 1,
  role: "client",
  cluster: "test",
  member: "raw",
  to: undefined,
  groupId: 0,
  credential: new Uint8Array(0),
};

/** A client that says exactly what the test says, and keeps what it hears. */
class RawClient implements ServerMessageHandler {
  readonly outcomes = new Map<number, Outcome>();
  readonly refusals = new Map<number, Refused>();
  readonly ready: number[] = [];
  readonly parts: (WatchPart & { readonly watchId: number })[] = [];
  readonly ended: (Refuse & { readonly watchId: number })[] = [];
  readonly leaders: (string | undefined)[] = [];
  readonly pongs: number[] = [];
  readonly statuses: unknown[] = [];
  welcome: Welcome | undefined;
  refuse: Refuse | undefined;
  isClosed = false;
  frames = 0;
  readonly connection: Connection;

  constructor(cluster: TestCluster, address = "a:7400") {
    this.connection = cluster.transport.dial(address, {
      onFrame: (_connection, frame) => {
        this.frames++;
        readServerMessages(frame, this);
      },
      onClose: () => {
        this.isClosed = true;
      },
    });
  }

  say(write: (writer: ByteWriter) => void): this {
    const writer = new ByteWriter();
    write(writer);
    this.connection.send(writer.finish());
    return this;
  }

  hello(changes: Partial<Hello> = {}): this {
    return this.say((writer) => writeHello(writer, { ...hello, ...changes }));
  }

  onWelcome(welcome: Welcome): void {
    this.welcome = welcome;
  }
  onRefuse(refuse: Refuse): void {
    this.refuse = refuse;
  }
  onOutcome(requestId: number, reader: Parameters<typeof readOutcome>[0]): void {
    this.outcomes.set(requestId, readOutcome(reader, "stripped"));
  }
  onRefused(requestId: number, refused: Refused): void {
    this.refusals.set(requestId, refused);
  }
  onReady(requestId: number): void {
    this.ready.push(requestId);
  }
  onWatchBatch(watchId: number, body: Parameters<typeof readPart>[0]): void {
    this.parts.push({ watchId, ...readPart(body) });
  }
  onWatchEnd(watchId: number, refuse: Refuse): void {
    this.ended.push({ watchId, ...refuse });
  }
  onLeader({ leader }: LeaderNews): void {
    this.leaders.push(leader);
  }
  onPong(token: number): void {
    this.pongs.push(token);
  }
  onStatusReply(_requestId: number, status: string): void {
    this.statuses.push(JSON.parse(status));
  }
}

function world(options: Omit<TestClusterOptions, "platform"> = {}) {
  const platform = new VirtualPlatform();
  const cluster = new TestCluster({ platform, ...options });
  return { platform, cluster, raw: (address?: string) => new RawClient(cluster, address) };
}

function putOf(key: string, value = "v"): ResolvedTxn {
  const bytes = new TextEncoder().encode(value);
  return {
    kind: "txn",
    claim: null,
    compares: [],
    then: [{ kind: "put", key: `n\0${key}`, value: bytes, session: null, returnPrevious: false }],
    else: [],
  };
}

function getOf(key: string): ResolvedTxn {
  return { kind: "txn", claim: null, compares: [], then: [{ kind: "get", key: `n\0${key}` }], else: [] };
}

const everything = { from: "n\0", to: "n\x01" };

test("a hello that fits is welcomed with members, leader and term", async () => {
  const { platform, raw } = world({ members: ["a", "b"] });
  const client = raw("b:7400").hello();
  await platform.settle();
  expect(client.welcome).toMatchObject({ protocol: 1, member: "b", cluster: "test", leader: "a", term: 1 });
  expect([...(client.welcome as Welcome).addresses]).toEqual([
    ["a", "a:7400"],
    ["b", "b:7400"],
  ]);
});

test.each([
  ["WRONG_CLUSTER", { cluster: "other" }],
  ["WRONG_CLUSTER", { groupId: 3 }],
  ["WRONG_MEMBER", { to: "z" }],
  ["WRONG_PROTOCOL", { protocolMin: 5, protocolMax: 6 }],
  ["PROTOCOL", { role: "peer" }],
] as const)("%s is refused in words and the connection closed: %j", async (code, changes) => {
  const { platform, raw } = world();
  const client = raw().hello(changes);
  await platform.settle();
  expect(client.refuse?.code).toBe(code);
  expect(client.welcome).toBeUndefined();
  expect(client.isClosed).toBe(true);
});

test("an unknown credential is UNAUTHORIZED", async () => {
  const authenticate = (credential: Uint8Array) => (credential[0] === 7 ? { name: "me" } : undefined);
  const { platform, raw } = world({ door: { authenticate } });
  const stranger = raw().hello({ credential: Uint8Array.of(8) });
  const friend = raw().hello({ credential: Uint8Array.of(7) });
  await platform.settle();
  expect(stranger.refuse?.code).toBe("UNAUTHORIZED");
  expect(friend.welcome?.member).toBe("a");
});

test("a connection that never says hello is closed", async () => {
  const { platform, raw } = world();
  const client = raw();
  await platform.advance(4_900);
  expect(client.isClosed).toBe(false);
  await platform.advance(200);
  expect(client.isClosed).toBe(true);
});

test("all answers of a turn come in one frame", async () => {
  const { platform, raw } = world();
  const client = raw().hello();
  await platform.settle();
  const before = client.frames;
  client.say((writer) => {
    for (let id = 1; id <= 50; id++) writeTxn(writer, id, putOf(`k${id}`));
  });
  await platform.settle();
  expect(client.outcomes.size).toBe(50);
  expect(client.frames - before).toBe(1);
});

test("the reads of a frame share one proof of leadership", async () => {
  const { platform, cluster, raw } = world();
  const client = raw().hello();
  client.say((writer) => writeTxn(writer, 1, putOf("k", "first")));
  await platform.settle();
  client.say((writer) => {
    for (let id = 2; id <= 9; id++) writeRead(writer, id, "linearizable", getOf("k"));
  });
  await platform.settle();
  expect(cluster.member("a").readCount).toBe(1);
  expect(client.outcomes.get(9)).toMatchObject({
    kind: "txn",
    result: { results: [{ kind: "get", entry: { key: "k", text: "first" } }] },
  });
});

test("a stale read is answered by a member that does not lead; a linearizable one is refused with the hint", async () => {
  const { platform, raw } = world({ members: ["a", "b"] });
  const client = raw("b:7400").hello();
  client.say((writer) => {
    writeRead(writer, 1, "stale", getOf("k"));
    writeRead(writer, 2, "linearizable", getOf("k"));
    writeTxn(writer, 3, putOf("k"));
  });
  await platform.settle();
  expect(client.outcomes.get(1)).toMatchObject({ kind: "txn" });
  expect(client.refusals.get(2)).toMatchObject({ code: "NOT_LEADER", leader: "a" });
  expect(client.refusals.get(3)).toMatchObject({ code: "NOT_LEADER", leader: "a" });
});

test("a read by lease asks for a proof only where the lease is not held", async () => {
  const { platform, cluster, raw } = world();
  const client = raw().hello();
  const member = cluster.member("a");
  client.say((writer) => writeRead(writer, 1, "lease", getOf("k")));
  await platform.settle();
  expect(member.readCount).toBe(1);
  member.hasLease = true;
  client.say((writer) => {
    writeRead(writer, 2, "lease", getOf("k"));
    writeRead(writer, 3, "linearizable", getOf("k"));
  });
  await platform.settle();
  expect(member.readCount).toBe(2);
  expect([...client.outcomes.keys()].sort()).toEqual([1, 2, 3]);
});

test("a write sent as a read by lease is refused, lease or not", async () => {
  const { platform, cluster, raw } = world();
  const client = raw().hello();
  cluster.member("a").hasLease = true;
  client.say((writer) => writeRead(writer, 1, "lease", putOf("k")));
  await platform.settle();
  expect(client.refusals.get(1)).toMatchObject({ code: "INVALID_OPTION" });
});

test("requests beyond the bound are BUSY, and there is room again after the answers", async () => {
  const { platform, cluster, raw } = world({ door: { limits: { requestsPendingMax: 3 } } });
  const client = raw().hello();
  cluster.commitMode = "held";
  client.say((writer) => {
    for (let id = 1; id <= 5; id++) writeTxn(writer, id, putOf(`k${id}`));
  });
  await platform.settle();
  expect([...client.refusals].map(([id, { code, definite }]) => [id, code, definite])).toEqual([
    [4, "BUSY", true],
    [5, "BUSY", true],
  ]);
  cluster.commitMode = "normal";
  cluster.release();
  client.say((writer) => writeTxn(writer, 6, putOf("k6")));
  await platform.settle();
  expect([...client.outcomes.keys()]).toEqual([1, 2, 3, 6]);
});

test("reads count towards the bound and free it again", async () => {
  const { platform, raw } = world({ door: { limits: { requestsPendingMax: 4 } } });
  const client = raw().hello();
  for (let round = 0; round < 5; round++) {
    client.say((writer) => {
      for (let id = 1; id <= 4; id++) writeRead(writer, round * 10 + id, "linearizable", getOf("k"));
    });
    await platform.settle();
  }
  expect(client.outcomes.size).toBe(20);
  expect(client.refusals.size).toBe(0);
});

test("every key range passes the authorisation hook", async () => {
  const seen: string[] = [];
  const authorize = (_principal: unknown, use: { range: { from: string }; access: string }): boolean => {
    seen.push(`${use.access} ${use.range.from.slice(2)}`);
    return !use.range.from.startsWith("n\0secret");
  };
  const { platform, raw } = world({ door: { authorize } });
  const client = raw().hello();
  client.say((writer) => {
    writeTxn(writer, 1, { ...putOf("open"), compares: [{ key: "n\0seen", target: "exists", is: "equal", to: false }] });
    writeTxn(writer, 2, putOf("secret/1"));
    writeTxn(writer, 3, { ...putOf("open"), else: [{ kind: "get", key: "n\0secret/2" }] });
    writeRead(writer, 4, "stale", getOf("secret/3"));
    writeRead(writer, 5, "linearizable", getOf("secret/4"));
    writeTxn(writer, 6, { ...putOf("open"), then: [{ kind: "add", key: "n\0counter", delta: 1 }] });
    writeWatchOpen(writer, { watchId: 7, range: { from: "n\0secret", to: "n\0t" }, from: undefined, creditBytes: 100 });
  });
  await platform.settle();
  expect([...client.outcomes.keys()]).toEqual([1, 6]);
  expect([...client.refusals.keys()].sort()).toEqual([2, 3, 4, 5]);
  expect([...client.refusals.values()].every(({ code }) => code === "UNAUTHORIZED")).toBe(true);
  expect(client.ended).toMatchObject([{ watchId: 7, code: "UNAUTHORIZED" }]);
  expect(seen).toContain("read seen");
  expect(seen).toContain("read counter");
  expect(seen).toContain("write counter");
});

test("a client may propose transactions alone: expiries are refused", async () => {
  const { platform, cluster, raw } = world();
  const client = raw().hello();
  client.say((writer) => writeOpenSession(writer, 1, 15_000));
  await platform.settle();
  const command = encodeCommand({
    kind: "expire-sessions",
    sessions: [...cluster.machine.sessions()].map(({ id }) => Number(id)),
  });
  client.say((writer) => {
    const at = beginMessage(writer, messageTypes.txn);
    writer.varint(2);
    writer.bytes(command);
    endMessage(writer, at);
  });
  await platform.settle();
  expect(client.refusals.get(2)?.code).toBe("PROTOCOL");
  expect([...cluster.machine.sessions()]).toHaveLength(1);
});

test("a command that cannot be read is refused; the connection goes on", async () => {
  const { platform, raw } = world();
  const client = raw().hello();
  client.say((writer) => {
    const at = beginMessage(writer, messageTypes.txn);
    writer.varint(1);
    writer.bytes(Uint8Array.of(99, 1, 2));
    endMessage(writer, at);
    writePing(writer, 5);
  });
  await platform.settle();
  expect(client.refusals.get(1)?.code).toBe("PROTOCOL");
  expect(client.pongs).toEqual([5]);
});

test("garbage closes the connection with PROTOCOL, before and after the hello", async () => {
  const { platform, raw } = world();
  const stranger = raw();
  stranger.connection.send(new TextEncoder().encode("GET / HTTP/1.1\r\n"));
  const client = raw().hello();
  client.connection.send(Uint8Array.of(1, 200, 1, 0));
  await platform.settle();
  expect(stranger.refuse?.code).toBe("PROTOCOL");
  expect(stranger.isClosed).toBe(true);
  expect(client.refuse?.code).toBe("PROTOCOL");
  expect(client.isClosed).toBe(true);
});

test("no frame of any bytes makes a door throw", async () => {
  const { platform, cluster, raw } = world();
  await fc.assert(
    fc.asyncProperty(fc.array(fc.uint8Array({ maxLength: 60 }), { maxLength: 4 }), async (frames) => {
      const client = raw().hello();
      for (const frame of frames) client.connection.send(frame);
      await platform.settle();
      client.connection.close();
      await platform.settle();
    }),
    { numRuns: 400 },
  );
  expect(cluster.member("a").hub.watchCount).toBe(0);
});

test("keep-alives, sessions, status and leader changes are told", async () => {
  const { platform, cluster, raw } = world({ members: ["a", "b"] });
  const client = raw().hello();
  client.say((writer) => {
    writeOpenSession(writer, 1, 15_000);
    writeOpenSession(writer, 2, 5);
    writeStatus(writer, 3);
  });
  await platform.settle();
  const opened = client.outcomes.get(1) as Extract<Outcome, { kind: "opened" }>;
  expect(client.refusals.get(2)?.code).toBe("INVALID_OPTION");
  expect(client.statuses).toMatchObject(
    [{ member: "a", role: "leader", sessions: 1 }].map((status) => ({ ...status, sessions: 0 })),
  );
  client.say((writer) => {
    writeKeepAlive(writer, 4, Number(opened.session));
    writeKeepAlive(writer, 5, 424_242);
  });
  await platform.settle();
  expect(client.ready).toEqual([4]);
  expect(client.refusals.get(5)?.code).toBe("SESSION_EXPIRED");
  cluster.elect(undefined);
  cluster.elect("b");
  await platform.settle();
  expect(client.leaders).toEqual([undefined, "b"]);
});

test("a watch says where it begins, then what changes, in one batch a turn", async () => {
  const { platform, cluster, raw } = world();
  const client = raw().hello();
  client.say((writer) => writeWatchOpen(writer, { watchId: 1, range: everything, from: undefined, creditBytes: 10_000 }));
  await platform.settle();
  expect(client.parts).toMatchObject([
    { watchId: 1, kind: "changes", revision: cluster.machine.revision, events: [], isLast: true },
  ]);
  client.say((writer) => {
    writeTxn(writer, 1, putOf("a"));
    writeTxn(writer, 2, putOf("b"));
  });
  await platform.settle();
  expect(client.parts).toHaveLength(2);
  expect(client.parts[1]?.events.map(({ key }) => key)).toEqual(["a", "b"]);
});

test("a watch resumes from a revision, and resyncs where that is no longer kept", async () => {
  const { platform, cluster, raw } = world();
  const client = raw().hello();
  client.say((writer) => {
    for (let id = 1; id <= 5; id++) writeTxn(writer, id, putOf(`k${id}`));
  });
  await platform.settle();
  const last = cluster.machine.revision;
  client.say((writer) => {
    writeWatchOpen(writer, { watchId: 1, range: everything, from: last - 1, creditBytes: 10_000 });
    writeWatchOpen(writer, { watchId: 2, range: everything, from: 5, creditBytes: 10_000 });
  });
  await platform.settle();
  expect(client.parts[0]).toMatchObject({ watchId: 1, kind: "changes", revision: last });
  expect(client.parts[0]?.events.map(({ key }) => key)).toEqual(["k4", "k5"]);
  expect(client.parts[1]).toMatchObject({ watchId: 2, kind: "resync", revision: last });
  expect(client.parts[1]?.entries).toHaveLength(5);
});

test("without credit nothing is sent, and what was missed comes with it", async () => {
  const { platform, raw } = world();
  const client = raw().hello();
  client.say((writer) => writeWatchOpen(writer, { watchId: 1, range: everything, from: undefined, creditBytes: 1 }));
  await platform.settle();
  client.parts.length = 0;
  for (let id = 1; id <= 3; id++) {
    client.say((writer) => writeTxn(writer, id, putOf(`k${id}`)));
    await platform.settle();
  }
  expect(client.parts).toEqual([]);
  client.say((writer) => writeWatchCredit(writer, 1, 100_000));
  await platform.settle();
  expect(client.parts.flatMap(({ events }) => events.map(({ key }) => key))).toEqual(["k1", "k2", "k3"]);
  client.say((writer) => writeTxn(writer, 9, putOf("live")));
  await platform.settle();
  expect(client.parts.at(-1)?.events.map(({ key }) => key)).toEqual(["live"]);
});

test("a large state is resynced in parts that make one batch, as credit comes", async () => {
  const { platform, raw } = world();
  const client = raw().hello();
  const large = "x".repeat(10_000);
  client.say((writer) => {
    for (let id = 1; id <= 60; id++) writeTxn(writer, id, putOf(`k${String(id).padStart(3, "0")}`, large));
  });
  await platform.settle();
  client.say((writer) => writeWatchOpen(writer, { watchId: 1, range: everything, from: 1, creditBytes: 100_000 }));
  await platform.settle();
  const first = client.parts.length;
  expect(first).toBe(2);
  expect(client.parts.every(({ isLast }) => !isLast)).toBe(true);
  client.say((writer) => writeTxn(writer, 100, putOf("later")));
  client.say((writer) => writeWatchCredit(writer, 1, 10_000_000));
  await platform.settle();
  const resync = client.parts.filter(({ kind }) => kind === "resync");
  expect(resync.flatMap(({ entries }) => entries)).toHaveLength(60);
  expect(new Set(resync.map(({ revision }) => revision)).size).toBe(1);
  expect(resync.map(({ isLast }) => isLast).filter(Boolean)).toHaveLength(1);
  expect(client.parts.at(-1)?.events.map(({ key }) => key)).toEqual(["later"]);
});

test("a client that takes nothing gets no more batches, then is closed", async () => {
  const { platform, cluster, raw } = world({ door: { limits: { outgoingBytesWatch: 5_000, stalledMs: 1_000 } } });
  const watcher = raw().hello();
  const writerClient = raw().hello();
  watcher.say((writer) => writeWatchOpen(writer, { watchId: 1, range: everything, from: undefined, creditBytes: 1_000_000 }));
  await platform.settle();
  const [door] = cluster.member("a").doors;
  const received = watcher.parts.length;
  // What the watcher does not take stays with its connection.
  const connection = watcher.connection as unknown as { deliver(): void };
  const deliver = connection.deliver;
  connection.deliver = () => undefined;
  for (let id = 1; id <= 40; id++) {
    writerClient.say((writer) => writeTxn(writer, id, putOf(`k${id}`, "y".repeat(1_000))));
    await platform.settle();
  }
  expect(door?.hasRoom()).toBe(false);
  connection.deliver = deliver;
  connection.deliver();
  await platform.advance(100);
  const keys = watcher.parts.slice(received).flatMap(({ events }) => events.map(({ key }) => key));
  expect(keys).toEqual(Array.from({ length: 40 }, (_, at) => `k${at + 1}`));
  connection.deliver = () => undefined;
  for (let id = 1; id <= 40; id++) {
    writerClient.say((writer) => writeTxn(writer, id, putOf(`k${id}`, "z".repeat(1_000))));
    await platform.settle();
  }
  await platform.advance(1_500);
  expect(cluster.member("a").hub.watchCount).toBe(0);
});

test("a door that closes leaves nothing behind", async () => {
  const { platform, cluster, raw } = world();
  const client = raw().hello();
  cluster.commitMode = "held";
  client.say((writer) => {
    writeWatchOpen(writer, { watchId: 1, range: everything, from: undefined, creditBytes: 100 });
    writeTxn(writer, 1, putOf("k"));
  });
  await platform.settle();
  client.connection.close();
  await platform.settle();
  cluster.release();
  await platform.settle();
  expect(cluster.machine.entryCount).toBe(1);
  expect(cluster.member("a").hub.watchCount).toBe(0);
  expect(platform.pending.timers).toBe(0);
});
