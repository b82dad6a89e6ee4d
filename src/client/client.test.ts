// biome-ignore-all lint/suspicious/noThenProperty: the `then` of a txn is a list, never called.
import { expect, test } from "vitest";
import { type ConclaveError, hasCode } from "../base/errors.ts";
import type { Connection } from "../base/ports.ts";
import { embeddedLimits } from "../store/caps.ts";
import type { Store, TxnResult, WatchBatch } from "../store/store.ts";
import { VirtualPlatform } from "../testing/virtual-platform.ts";
import type { Client } from "./client.ts";
import { TestCluster, type TestClusterOptions, testCaps } from "./test-cluster.test.ts";

function world(options: Omit<TestClusterOptions, "platform"> = {}) {
  const platform = new VirtualPlatform();
  const cluster = new TestCluster({ platform, ...options });
  return { platform, cluster };
}

const put = (key: string, value = "v") => ({ then: [{ kind: "put", key, value }] }) as const;
const add = (key: string) => ({ then: [{ kind: "add", key, delta: 1 }] }) as const;
const get = (key: string) => ({ then: [{ kind: "get", key }] }) as const;

/** What became of a promise, for looking at it before it is awaited. */
function watched<T>(promise: Promise<T>): { value?: T; error?: ConclaveError; isSettled: boolean } {
  const state: { value?: T; error?: ConclaveError; isSettled: boolean } = { isSettled: false };
  promise.then(
    (value) => Object.assign(state, { value, isSettled: true }),
    (error: unknown) => Object.assign(state, { error, isSettled: true }),
  );
  return state;
}

async function finish(platform: VirtualPlatform, client: Client): Promise<void> {
  const closing = watched(client.close());
  await platform.advance(3_000);
  expect(closing.isSettled).toBe(true);
}

async function counter(platform: VirtualPlatform, store: Store, key: string): Promise<string | undefined> {
  const read = watched(store.txn(get(key)));
  await platform.advance(2_000);
  const [result] = (read.value as TxnResult).results;
  return result?.kind === "get" ? result.entry?.text : undefined;
}

// --- calls -------------------------------------------------------------------------------------------------------------

test("a put is answered and a get sees it; closing leaves no timer that keeps the process", async () => {
  const { platform, cluster } = world();
  const client = cluster.client();
  const store = client.store("jobs");
  const written = watched(store.txn(put("k")));
  expect(platform.pending.refs).toBe(1);
  await platform.advance(100);
  const read = watched(store.txn(get("k")));
  await platform.advance(100);
  expect(read.value?.results[0]).toMatchObject({
    kind: "get",
    entry: { key: "k", text: "v", createRevision: written.value?.revision },
  });
  // The session of the claims is kept alive, but not for its sake.
  expect(platform.pending.refs).toBe(0);
  await finish(platform, client);
  expect(platform.pending.timers).toBe(0);
  expect([...cluster.machine.sessions()]).toEqual([]);
});

test("a namespace does not see another one's keys", async () => {
  const { platform, cluster } = world();
  const client = cluster.client();
  const written = watched(client.store("one").txn(put("k")));
  await platform.advance(50);
  expect(written.isSettled).toBe(true);
  expect(await counter(platform, client.store("two"), "k")).toBeUndefined();
});

test("an answer's values outlive the frame that brought them", async () => {
  const { platform, cluster } = world();
  const client = cluster.client();
  const store = client.store("s");
  void store.txn(put("k", "keep"));
  await platform.advance(50);
  const original = cluster.transport.dial.bind(cluster.transport);
  // A transport that uses its buffer again as soon as the receiver returns.
  cluster.transport.dial = (address, handler) =>
    original(address, {
      ...(handler.onOpen === undefined ? {} : { onOpen: handler.onOpen.bind(handler) }),
      onFrame: (connection: Connection, frame: Uint8Array) => {
        handler.onFrame(connection, frame);
        frame.fill(0xee);
      },
      onClose: handler.onClose.bind(handler),
    });
  const second = cluster.client();
  const read = watched(second.store("s").txn(get("k")));
  const batches: WatchBatch[] = [];
  void (async () => {
    for await (const batch of second.store("s").watch({ prefix: "" }, { from: 1 })) batches.push(batch);
  })();
  await platform.advance(50);
  expect(read.value?.results[0]).toMatchObject({ entry: { text: "keep", key: "k" } });
  expect(batches[0]).toMatchObject({ kind: "resync", entries: [{ text: "keep", key: "k" }] });
  await finish(platform, second);
});

test("a value that the caller overwrites while the call waits is written as it was", async () => {
  const { platform, cluster } = world();
  const client = cluster.client();
  const store = client.store("s");
  const value = new TextEncoder().encode("before");
  void store.txn({ then: [{ kind: "put", key: "k", value }] });
  value.fill(120);
  await platform.advance(50);
  expect(await counter(platform, store, "k")).toBe("before");
});

test("wrong calls are refused by name, before anything is sent", async () => {
  const { cluster } = world();
  const client = cluster.client();
  const store = client.store("s");
  await expect(store.txn(put(""))).rejects.toMatchObject({ code: "KEY_INVALID" });
  await expect(store.txn(put("k", "x".repeat(2_000_000)))).rejects.toMatchObject({ code: "VALUE_TOO_LARGE" });
  await expect(store.txn(put("k"), { timeoutMs: -1 })).rejects.toThrow(/timeoutMs/);
  await expect(store.txn(put("k"), { consistency: "stale" })).rejects.toThrow(/consistency/);
  await expect(store.session({ ttlMs: 5 })).rejects.toThrow(/ttlMs/);
  expect(() => store.watch({ prefix: "" }, { from: -3 })).toThrow(/from/);
  expect(() => client.store("a\0b")).toThrow(/U\+0000/);
  expect(() => cluster.client({ addresses: [] })).toThrow(/addresses/);
  expect(() => cluster.client({ limits: { silenceMs: 0 } })).toThrow(/limits\.silenceMs/);
  expect(cluster.member("a").doors.size).toBe(0);
});

test("an abort gives up waiting with the signal's reason, before and after sending", async () => {
  const { platform, cluster } = world();
  const client = cluster.client();
  const store = client.store("s");
  const gone = AbortSignal.abort("gone");
  await expect(store.txn(put("k"), { signal: gone })).rejects.toBe("gone");
  void store.txn(put("warm"));
  await platform.advance(50);
  cluster.commitMode = "held";
  const controller = new AbortController();
  const late = watched(store.txn(put("k"), { signal: controller.signal }));
  await platform.advance(50);
  controller.abort("enough");
  await platform.advance(10);
  expect(late.error).toBe("enough");
  expect(platform.pending.refs).toBe(0);
});

test("beyond the queue's bound a call is BUSY, and the others are answered", async () => {
  const { platform, cluster } = world();
  const client = cluster.client({ limits: { callsInFlightMax: 4, callsQueuedMax: 6 } });
  const store = client.store("s");
  void store.txn(put("warm"));
  await platform.advance(50);
  const calls = Array.from({ length: 12 }, (_, at) => watched(store.txn(put(`k${at}`))));
  await platform.settle();
  expect(calls.filter(({ error }) => hasCode(error, "BUSY") && error.definite)).toHaveLength(2);
  await platform.advance(50);
  expect(calls.filter(({ value }) => value !== undefined)).toHaveLength(10);
});

test("everything said in a turn leaves in one frame", async () => {
  const { platform, cluster } = world();
  const client = cluster.client();
  const store = client.store("s");
  void store.txn(put("warm"));
  await platform.advance(50);
  const [door] = [...cluster.member("a").doors].slice(-1);
  let frames = 0;
  const onFrame = door?.onFrame.bind(door);
  Object.assign(door as object, {
    onFrame: (connection: Connection, frame: Uint8Array) => {
      frames++;
      onFrame?.(connection, frame);
    },
  });
  const calls = Array.from({ length: 100 }, (_, at) => watched(store.txn(put(`k${at}`))));
  await platform.settle();
  expect(calls.every(({ value }) => value !== undefined)).toBe(true);
  expect(frames).toBe(1);
});

// --- finding and following the leader ----------------------------------------------------------------------------------

test("the leader is found from any address", async () => {
  const { platform, cluster } = world({ members: ["a", "b", "c"] });
  cluster.leader = "c";
  for (const address of ["a:7400", "b:7400", "c:7400"]) {
    const client = cluster.client({ addresses: [address] });
    const call = watched(client.store("s").txn(put("k")));
    await platform.advance(50);
    expect(call.value).toBeDefined();
    expect(client.connected).toMatchObject({ leader: "c", address: "c:7400" });
  }
});

test("a client with the address of one member outlives it: the others were told by its welcome", async () => {
  const { platform, cluster } = world({ members: ["a", "b", "c"] });
  const client = cluster.client({ addresses: ["a:7400"] });
  const store = client.store("s");
  void store.txn(put("warm"));
  await platform.advance(50);
  cluster.kill("a");
  cluster.elect("c", { quietly: true });
  const call = watched(store.txn(put("k")));
  await platform.advance(1_000);
  expect(call.value?.succeeded).toBe(true);
  expect(client.connected).toMatchObject({ leader: "c", address: "c:7400" });
});

test("a leader that changes while calls wait gets them again, and each happens once", async () => {
  const { platform, cluster } = world({ members: ["a", "b", "c"] });
  const client = cluster.client();
  const store = client.store("s");
  void store.txn(put("warm"));
  await platform.advance(50);
  // The first leader applies the commands, and its answers are lost.
  cluster.commitMode = "unanswered";
  const calls = Array.from({ length: 20 }, () => watched(store.txn(add("n"))));
  await platform.advance(50);
  expect(calls.some(({ isSettled }) => isSettled)).toBe(false);
  cluster.commitMode = "normal";
  cluster.elect("b");
  await platform.advance(300);
  expect(calls.map(({ value }) => (value?.results[0] as { value: number } | undefined)?.value)).toEqual(
    Array.from({ length: 20 }, (_, at) => at + 1),
  );
  expect(client.connected.leader).toBe("b");
  expect(await counter(platform, store, "n")).toBe("20");
});

test("calls that the old leader refused happen once, in order, at the new one", async () => {
  const { platform, cluster } = world({ members: ["a", "b"] });
  const client = cluster.client();
  const store = client.store("s");
  void store.txn(put("warm"));
  await platform.advance(50);
  cluster.commitMode = "held";
  const calls = Array.from({ length: 5 }, (_, at) => watched(store.txn(put("k", String(at)))));
  await platform.advance(20);
  cluster.commitMode = "normal";
  cluster.elect("b");
  await platform.advance(300);
  expect(calls.every(({ value }) => value !== undefined)).toBe(true);
  const revisions = calls.map(({ value }) => value?.revision as number);
  expect(revisions).toEqual([...revisions].sort((left, right) => left - right));
  expect(await counter(platform, store, "k")).toBe("4");
});

test("a connection that is cut is dialled again and the calls are said again, once each", async () => {
  const { platform, cluster } = world();
  const client = cluster.client();
  const store = client.store("s");
  void store.txn(put("warm"));
  await platform.advance(50);
  cluster.commitMode = "unanswered";
  const call = watched(store.txn(add("n")));
  await platform.settle();
  cluster.commitMode = "normal";
  cluster.transport.cut("a:7400");
  await platform.advance(500);
  expect(call.value?.results).toEqual([{ kind: "add", value: 1 }]);
  expect(await counter(platform, store, "n")).toBe("1");
});

test("a frozen leader is left once another member claims a higher term, and its late answers do no harm", async () => {
  const { platform, cluster } = world({ members: ["a", "b", "c"] });
  const client = cluster.client({ addresses: ["a:7400"] });
  const store = client.store("s");
  void store.txn(put("warm"));
  await platform.advance(50);
  cluster.commitMode = "held";
  const calls = Array.from({ length: 5 }, () => watched(store.txn(add("n"))));
  await platform.settle();
  cluster.transport.freeze("a:7400");
  cluster.commitMode = "normal";
  cluster.elect("b", { quietly: true });
  await platform.advance(399);
  expect(calls.some(({ isSettled }) => isSettled)).toBe(false);
  await platform.advance(700);
  expect(calls.every(({ value }) => value !== undefined)).toBe(true);
  expect(client.connected.leader).toBe("b");
  cluster.transport.thaw("a:7400");
  await platform.advance(500);
  expect(client.connected.leader).toBe("b");
  expect(await counter(platform, store, "n")).toBe("5");
});

test("a frozen leader that nobody replaces is kept, and answers when it thaws", async () => {
  const { platform, cluster } = world({ members: ["a", "b"] });
  const client = cluster.client();
  const store = client.store("s");
  void store.txn(put("warm"));
  await platform.advance(50);
  cluster.transport.freeze("a:7400");
  const call = watched(store.txn(add("n")));
  await platform.advance(2_000);
  expect(call.isSettled).toBe(false);
  cluster.transport.thaw("a:7400");
  await platform.advance(50);
  expect(call.value).toBeDefined();
});

test("a link that is silent for long is given up and dialled anew", async () => {
  const { platform, cluster } = world();
  const client = cluster.client();
  const store = client.store("s");
  void store.txn(put("warm"));
  await platform.advance(50);
  // Half-open: this connection is dead and neither side is told.
  const [door] = [...cluster.member("a").doors].slice(-1);
  Object.assign(door as object, { onFrame: () => undefined });
  const call = watched(store.txn(add("n")));
  await platform.advance(3_000);
  expect(call.isSettled).toBe(false);
  await platform.advance(2_500);
  expect(call.value).toBeDefined();
  expect(await counter(platform, store, "n")).toBe("1");
});

test("a member that still believes in a lower term moves nobody", async () => {
  const { platform, cluster } = world({ members: ["a", "b"] });
  const client = cluster.client();
  const store = client.store("s");
  void store.txn(put("warm"));
  await platform.advance(50);
  cluster.elect("b");
  await platform.advance(50);
  void store.txn(put("k"));
  await platform.advance(50);
  const a = cluster.member("a");
  a.leader = () => ({ leader: "a", term: 1 });
  a.tellLeader();
  await platform.advance(50);
  expect(client.connected).toMatchObject({ leader: "b", term: 2 });
});

test("a late refusal of a member that was left does not end the call", async () => {
  const { platform, cluster } = world({ members: ["a", "b"] });
  const client = cluster.client();
  const store = client.store("s");
  void store.txn(put("warm"));
  await platform.advance(50);
  let refuseLate: () => void = () => undefined;
  cluster.member("a").propose = (_command, sink, tag) => {
    refuseLate = () => sink.onRefused(tag, { code: "DISK_FULL", message: "Full.", definite: true, leader: undefined });
  };
  const call = watched(store.txn(add("n")));
  await platform.settle();
  cluster.commitMode = "held";
  cluster.elect("b");
  await platform.advance(50);
  refuseLate();
  await platform.advance(50);
  expect(call.isSettled).toBe(false);
  cluster.release();
  await platform.advance(50);
  expect(call.value?.results).toEqual([{ kind: "add", value: 1 }]);
});

test("two members that point at each other are asked at a bounded pace", async () => {
  const { platform, cluster } = world({ members: ["a", "b"] });
  const client = cluster.client();
  const store = client.store("s");
  void store.txn(put("warm"));
  await platform.advance(50);
  let asked = 0;
  for (const member of cluster.members) {
    const other = member.member === "a" ? "b" : "a";
    member.propose = (_command, sink, tag) => {
      asked++;
      sink.onRefused(tag, { code: "NOT_LEADER", message: "Not me.", definite: true, leader: other });
    };
  }
  const call = watched(store.txn(put("k"), { timeoutMs: 2_000 }));
  await platform.advance(2_100);
  expect(call.error?.definite).toBe(false);
  expect(asked).toBeGreaterThan(2);
  expect(asked).toBeLessThan(100);
});

test("a cluster that lost its quorum for a while is asked again, by claim", async () => {
  const { platform, cluster } = world();
  const client = cluster.client();
  const store = client.store("s");
  void store.txn(put("warm"));
  await platform.advance(50);
  cluster.commitMode = "no-quorum";
  const call = watched(store.txn(add("n")));
  await platform.advance(1_000);
  expect(call.isSettled).toBe(false);
  cluster.commitMode = "normal";
  await platform.advance(300);
  expect(call.value?.results).toEqual([{ kind: "add", value: 1 }]);
});

// --- the errors of calls that run out of time ---------------------------------------------------------------------------

test("nobody listens: CONNECTION_REFUSED, definite, with the addresses and the reason", async () => {
  const { platform, cluster } = world();
  const client = cluster.client({ addresses: ["x:1", "y:2"] });
  const call = watched(client.store("s").txn(put("k"), { timeoutMs: 1_000 }));
  await platform.advance(1_000);
  expect(call.error).toMatchObject({ code: "CONNECTION_REFUSED", definite: true });
  expect(call.error?.message).toMatch(/x:1: Nobody listens at x:1.*y:2: Nobody listens/);
});

test("members without a leader: NO_QUORUM; definite for a call that never left", async () => {
  const { platform, cluster } = world({ members: ["a", "b"] });
  cluster.leader = undefined;
  const client = cluster.client();
  const call = watched(client.store("s").txn(get("k"), { timeoutMs: 1_000 }));
  await platform.advance(1_000);
  expect(call.error).toMatchObject({ code: "NO_QUORUM", definite: true });
  expect(call.error?.message).toMatch(/a:7400: connected as "a"/);
});

const diskFull = { code: "DISK_FULL", message: `Member "a" has stopped: a full disk.` } as const;

test("a cluster of one that has stopped: its reason at once, for calls before and after, until it is started anew", async () => {
  const { platform, cluster } = world();
  const client = cluster.client();
  const store = client.store("s");
  void store.txn(put("warm"));
  await platform.advance(50);
  const a = cluster.member("a");
  const { leader } = a;
  a.leader = () => ({ leader: undefined, term: 1, stopped: diskFull });
  cluster.elect(undefined);
  const [write, read, status] = [watched(store.txn(put("k"))), watched(store.txn(get("k"))), watched(client.status())];
  await platform.advance(500);
  expect(write.error).toMatchObject({ code: "DISK_FULL", definite: true });
  expect(write.error?.message).toContain("a full disk");
  expect(read.error).toMatchObject({ code: "DISK_FULL", definite: true });
  expect(status.value).toBeDefined();
  const stranger = watched(cluster.client().store("s").txn(put("k")));
  await platform.advance(500);
  expect(stranger.error).toMatchObject({ code: "DISK_FULL", definite: true });
  a.leader = leader;
  cluster.transport.cut("a:7400");
  cluster.elect("a");
  const again = watched(store.txn(put("k")));
  await platform.advance(500);
  expect(again.value?.succeeded).toBe(true);
});

test("a member that has stopped ends no call while another may lead", async () => {
  const { platform, cluster } = world({ members: ["a", "b"] });
  const client = cluster.client({ addresses: ["a:7400"] });
  const store = client.store("s");
  void store.txn(put("warm"));
  await platform.advance(50);
  cluster.member("a").leader = () => ({ leader: undefined, term: 1, stopped: diskFull });
  cluster.elect(undefined);
  const given = watched(store.txn(put("k"), { timeoutMs: 900 }));
  const call = watched(store.txn(put("k")));
  await platform.advance(1_000);
  expect(given.error).toMatchObject({ code: "NO_QUORUM", definite: true });
  expect(given.error?.message).toContain("a full disk");
  expect(call.isSettled).toBe(false);
  cluster.elect("b");
  await platform.advance(500);
  expect(call.value?.succeeded).toBe(true);
});

test("refused for want of a quorum until the end: NO_QUORUM, not definite", async () => {
  const { platform, cluster } = world();
  const client = cluster.client();
  const store = client.store("s");
  void store.txn(put("warm"));
  await platform.advance(50);
  cluster.commitMode = "no-quorum";
  const call = watched(store.txn(put("k"), { timeoutMs: 1_000 }));
  await platform.advance(1_100);
  expect(call.error).toMatchObject({ code: "NO_QUORUM", definite: false });
});

test("no answer: TIMEOUT, not definite when it was sent", async () => {
  const { platform, cluster } = world();
  const client = cluster.client();
  const store = client.store("s");
  void store.txn(put("warm"));
  await platform.advance(50);
  cluster.commitMode = "held";
  const call = watched(store.txn(put("k"), { timeoutMs: 1_000 }));
  await platform.advance(999);
  expect(call.isSettled).toBe(false);
  await platform.advance(1);
  expect(call.error).toMatchObject({ code: "TIMEOUT", definite: false, retryable: true });
});

test("the default deadline is ten seconds", async () => {
  const { platform, cluster } = world();
  const client = cluster.client();
  const store = client.store("s");
  void store.txn(put("warm"));
  await platform.advance(50);
  cluster.commitMode = "held";
  const call = watched(store.txn(put("k")));
  await platform.advance(9_999);
  expect(call.isSettled).toBe(false);
  await platform.advance(1);
  expect(call.error?.code).toBe("TIMEOUT");
});

test("a call that was given up holds up no claims: later ones go on", async () => {
  const { platform, cluster } = world();
  const client = cluster.client({ caps: { ...testCaps, limits: { ...embeddedLimits, claimsOpenMax: 8 } } });
  const store = client.store("s");
  void store.txn(put("warm"));
  await platform.advance(50);
  cluster.commitMode = "unanswered";
  for (let at = 0; at < 5; at++) watched(store.txn(put("lost"), { timeoutMs: 100 }));
  await platform.advance(150);
  cluster.commitMode = "normal";
  const calls = Array.from({ length: 30 }, (_, at) => watched(store.txn(put(`k${at}`))));
  await platform.advance(100);
  expect(calls.every(({ value }) => value !== undefined)).toBe(true);
});

test.each([
  ["WRONG_CLUSTER", { cluster: "other" }],
  ["UNAUTHORIZED", { credential: Uint8Array.of(1) }],
] as const)("%s at every address fails the calls at once", async (code, options) => {
  const authenticate = (credential: Uint8Array) => (credential.length > 0 ? undefined : null);
  const { platform, cluster } = world({ door: { authenticate } });
  const client = cluster.client(options);
  const call = watched(client.store("s").txn(put("k")));
  await platform.advance(100);
  expect(call.error).toMatchObject({ code, definite: true });
});

test("a server that speaks garbage is left with PROTOCOL", async () => {
  const { platform, cluster } = world();
  cluster.transport.listen("bad:1", (connection) => {
    connection.send(Uint8Array.of(34, 5, 1));
    return { onFrame: () => undefined, onClose: () => undefined };
  });
  const client = cluster.client({ addresses: ["bad:1"] });
  const call = watched(client.store("s").txn(put("k"), { timeoutMs: 500 }));
  await platform.advance(500);
  expect(call.error?.message).toMatch(/bad:1 sent what cannot be read/);
  const saved = cluster.client({ addresses: ["bad:1", "a:7400"] });
  const second = watched(saved.store("s").txn(put("k")));
  await platform.advance(500);
  expect(second.value).toBeDefined();
});

// --- sessions ----------------------------------------------------------------------------------------------------------

async function openSession(platform: VirtualPlatform, store: Store, ttlMs = 3_000) {
  const opening = watched(store.session({ ttlMs }));
  await platform.advance(20);
  const session = opening.value;
  if (session === undefined) throw new Error(`No session: ${opening.error?.message}`);
  return session;
}

test("a session is kept alive at a third of its TTL", async () => {
  const { platform, cluster } = world();
  const session = await openSession(platform, cluster.client().store("s"));
  await platform.advance(30_000);
  expect(session.alive).toBe(true);
  expect(session.lost.aborted).toBe(false);
  expect(cluster.member("a").keepAliveCount).toBeLessThanOrEqual(31);
  expect(session.deadline - session.now()).toBeGreaterThan(900);
});

test("behind a frozen server the session is lost at two thirds of the TTL, before the server may end it", async () => {
  const { platform, cluster } = world();
  const session = await openSession(platform, cluster.client().store("s"));
  await platform.advance(10_000);
  const deadlineMs = session.deadline;
  cluster.transport.freeze("a:7400");
  let lostAtMs = 0;
  session.lost.addEventListener("abort", () => (lostAtMs = platform.now()));
  await platform.advance(3_000);
  expect(lostAtMs).toBe(deadlineMs);
  expect(session.lost.reason).toMatchObject({ code: "SESSION_LOST" });
  expect(session.alive).toBe(false);
});

test("the deadline counts from the sending of the keep-alive, not from its answer", async () => {
  const { platform, cluster } = world({ delayMs: 200 });
  const opening = watched(cluster.client().store("s").session({ ttlMs: 3_000 }));
  await platform.advance(2_000);
  const session = opening.value;
  if (session === undefined) throw new Error("no session");
  let confirmations = 0;
  for (let step = 0, last = session.deadline; step < 500; step++) {
    await platform.advance(10);
    if (session.deadline === last) continue;
    confirmations++;
    last = session.deadline;
    // Confirmed within the last 10 ms, so said a round trip of 400 ms before that.
    expect(last - platform.now()).toBeLessThanOrEqual(2_000 - 400);
    expect(last - platform.now()).toBeGreaterThan(2_000 - 420);
  }
  expect(confirmations).toBeGreaterThan(3);
});

test("unanswered keep-alives are repeated quickly", async () => {
  const { platform, cluster } = world();
  const session = await openSession(platform, cluster.client().store("s"), 15_000);
  const member = cluster.member("a");
  member.isIgnoringKeepAlives = true;
  await platform.advance(8_500);
  expect(member.keepAliveCount).toBeGreaterThan(2);
  member.isIgnoringKeepAlives = false;
  await platform.advance(2_000);
  expect(session.alive).toBe(true);
});

test("a new leader is asked for the lease at once", async () => {
  const { platform, cluster } = world({ members: ["a", "b"] });
  const session = await openSession(platform, cluster.client().store("s"), 15_000);
  cluster.elect("b");
  await platform.advance(100);
  expect(cluster.member("b").keepAliveCount).toBe(1);
  expect(session.deadline - platform.now()).toBeGreaterThan(9_800);
});

test("alive is right in the first line after a stall, before any timer ran", async () => {
  const { platform, cluster } = world();
  const session = await openSession(platform, cluster.client().store("s"));
  platform.stall(2_001);
  expect(session.alive).toBe(false);
  await platform.advance(1);
  expect(session.lost.aborted).toBe(true);
});

test("a confirmation that is read after the deadline revives nothing", async () => {
  const { platform, cluster } = world();
  const session = await openSession(platform, cluster.client().store("s"));
  await platform.advance(979);
  cluster.transport.freeze("a:7400");
  await platform.advance(500);
  platform.stall(1_000);
  expect(session.alive).toBe(false);
  cluster.transport.thaw("a:7400");
  await platform.advance(100);
  expect(session.alive).toBe(false);
  expect(session.lost.aborted).toBe(true);
});

test("a session that the store has ended is lost at the next keep-alive", async () => {
  const { platform, cluster } = world();
  const session = await openSession(platform, cluster.client().store("s"));
  cluster.expireSessions();
  await platform.advance(1_050);
  expect(session.lost.aborted).toBe(true);
  expect(session.lost.reason.message).toMatch(/the store has ended it/);
});

test("a shared session is one per TTL, and opened anew once lost", async () => {
  const { platform, cluster } = world();
  const client = cluster.client();
  const asked = [
    client.store("a").sharedSession(),
    client.store("b").sharedSession(),
    client.store("a").sharedSession({ ttlMs: 5_000 }),
  ];
  await platform.advance(50);
  const [first, second, other] = await Promise.all(asked);
  expect(second).toBe(first);
  expect(other).not.toBe(first);
  cluster.expireSessions();
  await platform.advance(5_100);
  expect(first?.lost.aborted).toBe(true);
  const again = watched(client.store("a").sharedSession());
  await platform.advance(50);
  expect(again.value?.alive).toBe(true);
  expect(again.value?.id).not.toBe(first?.id);
});

test("a hold keeps the process alive until it is let go", async () => {
  const { platform, cluster } = world();
  const session = await openSession(platform, cluster.client().store("s"));
  expect(platform.pending.refs).toBe(0);
  const letGo = session.hold();
  const letGoToo = session.hold();
  expect(platform.pending.refs).toBe(1);
  await platform.advance(130_000);
  expect(platform.pending.refs).toBe(1);
  letGo();
  letGo();
  await platform.advance(10);
  expect(platform.pending.refs).toBe(1);
  letGoToo();
  await platform.advance(10);
  expect(platform.pending.refs).toBe(0);
});

test("closing a session deletes what is bound to it, and is idempotent", async () => {
  const { platform, cluster } = world();
  const client = cluster.client();
  const store = client.store("s");
  const session = await openSession(platform, store);
  void store.txn({ then: [{ kind: "put", key: "bound", value: "v", session: session.id }] });
  await platform.advance(50);
  const closing = [watched(session.close()), watched(session.close())];
  await platform.advance(50);
  expect(closing.every(({ isSettled }) => isSettled)).toBe(true);
  expect(session.lost.aborted).toBe(true);
  expect(await counter(platform, store, "bound")).toBeUndefined();
});

// --- claims ------------------------------------------------------------------------------------------------------------

test("a call whose claim expired before it was said takes the next session, unseen", async () => {
  const { platform, cluster } = world();
  const client = cluster.client();
  const store = client.store("s");
  void store.txn(put("warm"));
  await platform.advance(50);
  cluster.expireSessions();
  const call = watched(store.txn(add("n")));
  await platform.advance(100);
  expect(call.value?.results).toEqual([{ kind: "add", value: 1 }]);
});

test("a call that was said before its session expired may have happened: SESSION_EXPIRED, not definite", async () => {
  const { platform, cluster } = world({ members: ["a", "b"] });
  const client = cluster.client();
  const store = client.store("s");
  void store.txn(put("warm"));
  await platform.advance(50);
  cluster.commitMode = "unanswered";
  const call = watched(store.txn(add("n")));
  await platform.advance(20);
  cluster.expireSessions();
  cluster.commitMode = "normal";
  cluster.elect("b");
  await platform.advance(200);
  expect(call.error).toMatchObject({ code: "SESSION_EXPIRED", definite: false });
  expect(await counter(platform, store, "n")).toBe("1");
});

test("a put for a session that is gone fails for certain, and the client's own claims go on", async () => {
  const { platform, cluster } = world();
  const client = cluster.client();
  const store = client.store("s");
  const session = await openSession(platform, store);
  const shared = watched(store.sharedSession());
  await platform.advance(20);
  void session.close();
  await platform.advance(20);
  const call = watched(store.txn({ then: [{ kind: "put", key: "k", value: "v", session: session.id }] }));
  await platform.advance(50);
  expect(call.error).toMatchObject({ code: "SESSION_EXPIRED", definite: true });
  expect(shared.value?.alive).toBe(true);
});

test("a claim of the caller's own is passed through: the same one twice happens once", async () => {
  const { platform, cluster } = world();
  const client = cluster.client();
  const store = client.store("s");
  const session = await openSession(platform, store);
  const claim = { session: session.id, sequence: 1, lowestOpen: 1 };
  const calls = [watched(store.txn({ ...add("n"), claim })), watched(store.txn({ ...add("n"), claim }))];
  await platform.advance(50);
  expect(calls.map(({ value }) => value?.results)).toEqual([[{ kind: "add", value: 1 }], [{ kind: "add", value: 1 }]]);
  const shared = watched(store.sharedSession());
  void store.txn(put("k"));
  await platform.advance(50);
  const stolen = { session: shared.value?.id as string, sequence: 1, lowestOpen: 1 };
  await expect(store.txn({ ...add("n"), claim: stolen })).rejects.toThrow(/claim\.session/);
});

// --- watches -----------------------------------------------------------------------------------------------------------

function collect(store: Store, options: { signal?: AbortSignal; from?: number } = {}, prefix = "") {
  const state: { batches: WatchBatch[]; isDone: boolean; error?: unknown } = { batches: [], isDone: false };
  void (async () => {
    try {
      for await (const batch of store.watch({ prefix }, options)) state.batches.push(batch);
    } catch (error) {
      state.error = error;
    }
    state.isDone = true;
  })();
  return state;
}

function keysOf(batches: readonly WatchBatch[]): string[] {
  return batches.flatMap((batch) =>
    batch.kind === "changes" ? batch.events.map(({ key }) => key) : batch.entries.map(({ key }) => `=${key}`),
  );
}

test("a watch tells changes of its range alone, and ends quietly on abort", async () => {
  const { platform, cluster } = world();
  const client = cluster.client();
  const store = client.store("s");
  const controller = new AbortController();
  const seen = collect(store, { signal: controller.signal }, "a/");
  await platform.advance(50);
  expect(platform.pending.refs).toBe(1);
  for (const key of ["a/1", "b/1", "a/2"]) void store.txn(put(key));
  await platform.advance(50);
  expect(keysOf(seen.batches)).toEqual(["a/1", "a/2"]);
  controller.abort();
  await platform.settle();
  expect(seen).toMatchObject({ isDone: true });
  expect(seen.error).toBeUndefined();
  await platform.advance(10);
  expect(cluster.member("a").hub.watchCount).toBe(0);
  expect(platform.pending.refs).toBe(0);
});

test("a watch resumes at a new leader without losing or repeating a change", async () => {
  const { platform, cluster } = world({ members: ["a", "b"] });
  const client = cluster.client();
  const other = cluster.client();
  const seen = collect(client.store("s"));
  await platform.advance(50);
  const write = async (key: string): Promise<void> => {
    void other.store("s").txn(put(key));
    await platform.advance(300);
  };
  await write("1");
  cluster.transport.freeze("a:7400");
  cluster.elect("b", { quietly: true });
  await write("2");
  cluster.transport.thaw("a:7400");
  for (const member of cluster.members) member.tellLeader();
  await write("3");
  cluster.elect("a");
  await write("4");
  expect(keysOf(seen.batches)).toEqual(["1", "2", "3", "4"]);
});

test("a watch that was opened before anything happened resumes from there", async () => {
  const { platform, cluster } = world();
  const seen = collect(cluster.client().store("s"));
  await platform.advance(50);
  cluster.transport.cut("a:7400");
  const other = cluster.client();
  void other.store("s").txn(put("meanwhile"));
  await platform.advance(500);
  expect(keysOf(seen.batches)).toEqual(["meanwhile"]);
});

test("a gap that history cannot bridge comes as a resync, and revisions never go back", async () => {
  const { platform, cluster } = world({ limits: { ...embeddedLimits, historyRevisions: 3 } });
  const watcher = cluster.client();
  const seen = collect(watcher.store("s"));
  const other = cluster.client();
  void other.store("s").txn(put("first"));
  await platform.advance(50);
  const before = seen.batches.length;
  const held = [...cluster.member("a").doors][0];
  held?.close("for the test");
  // The writer is faster than the watcher's way back.
  for (let at = 0; at < 10; at++) cluster.machine.subscribe(() => undefined);
  for (let at = 0; at < 10; at++) void other.store("s").txn(put(`k${at}`));
  await platform.advance(1_000);
  expect(keysOf(seen.batches)).toContain("=first");
  expect(seen.batches.slice(before).some(({ kind }) => kind === "resync")).toBe(true);
  const revisions = seen.batches.map(({ revision }) => revision);
  expect(revisions).toEqual([...revisions].sort((left, right) => left - right));
  expect(new Set(revisions).size).toBe(revisions.length);
});

test("a consumer that takes nothing holds a bounded number of bytes, and gets the present state in the end", async () => {
  const { platform, cluster } = world({ limits: { ...embeddedLimits, historyRevisions: 5 } });
  const client = cluster.client({ limits: { watchBufferBytes: 10_000 } });
  const store = client.store("s");
  const iterator = store.watch({ prefix: "" })[Symbol.asyncIterator]();
  await platform.advance(50);
  for (let at = 0; at < 100; at++) {
    void store.txn(put(`k${at % 10}`, `${at}-${"x".repeat(1_000)}`));
    await platform.advance(5);
  }
  const batches: WatchBatch[] = [];
  for (let last = -1; batches.length !== last; ) {
    last = batches.length;
    const next = watched(iterator.next());
    await platform.advance(50);
    if (next.value?.done === false) batches.push(next.value.value);
  }
  expect(batches.length).toBeLessThan(30);
  expect(batches.some(({ kind }) => kind === "resync")).toBe(true);
  const state = new Map<string, string>();
  for (const batch of batches) {
    if (batch.kind === "resync") for (const entry of batch.entries) state.set(entry.key, entry.text);
    else for (const event of batch.events) if (event.kind === "put") state.set(event.key, event.entry.text);
  }
  expect([...state.values()].map((text) => Number.parseInt(text, 10)).sort((left, right) => left - right)).toEqual(
    Array.from({ length: 10 }, (_, at) => 90 + at),
  );
});

test("a watch that the member refuses ends with its error", async () => {
  const { platform, cluster } = world({ door: { authorize: () => false } });
  const seen = collect(cluster.client().store("s"));
  await platform.advance(50);
  expect(seen.error).toMatchObject({ code: "UNAUTHORIZED" });
});

// --- status and close --------------------------------------------------------------------------------------------------

test("status asks the member that is named, or any", async () => {
  const { platform, cluster } = world({ members: ["a", "b"] });
  const client = cluster.client();
  const named = watched(client.status("b:7400"));
  const any = watched(client.status());
  const absent = watched(client.status("nobody:1"));
  await platform.advance(100);
  expect(named.value).toMatchObject({ member: "b", role: "follower", leader: "a" });
  expect(any.value?.cluster).toBe("test");
  expect(absent.error?.code).toBe("CONNECTION_REFUSED");
});

test("a stale read needs no leader", async () => {
  const { platform, cluster } = world({ members: ["a", "b"] });
  cluster.leader = undefined;
  const client = cluster.client();
  const store = client.store("s");
  const waiting = watched(store.txn(get("k")));
  const stale = watched(store.txn(get("k"), { consistency: "stale" }));
  await platform.advance(200);
  expect(stale.value).toMatchObject({ succeeded: true });
  expect(waiting.isSettled).toBe(false);
});

test("close fails what is in flight with CLOSED, ends sessions and watches, and is idempotent", async () => {
  const { platform, cluster } = world();
  const client = cluster.client();
  const store = client.store("s");
  const session = await openSession(platform, store);
  const seen = collect(store);
  void store.txn(put("warm"));
  await platform.advance(50);
  cluster.commitMode = "held";
  const call = watched(store.txn(put("k")));
  await platform.settle();
  cluster.commitMode = "normal";
  const closing = client.close();
  expect(client.close()).toBe(closing);
  await platform.settle();
  expect(call.error).toMatchObject({ code: "CLOSED", definite: false });
  await platform.advance(100);
  await closing;
  expect(session.lost.aborted).toBe(true);
  expect(seen).toMatchObject({ isDone: true });
  expect([...cluster.machine.sessions()]).toEqual([]);
  await expect(store.txn(put("k"))).rejects.toMatchObject({ code: "CLOSED" });
  await expect(store.session()).rejects.toMatchObject({ code: "CLOSED" });
  expect(() => store.watch({ prefix: "" })).toThrow(/closed/);
  expect(platform.pending.timers).toBe(0);
});

test("close does not wait for a member that is frozen", async () => {
  const { platform, cluster } = world();
  const client = cluster.client();
  await openSession(platform, client.store("s"));
  cluster.transport.freeze("a:7400");
  const closing = watched(client.close());
  await platform.advance(1_100);
  expect(closing.isSettled).toBe(true);
});

test("closing a client that was never used does nothing", async () => {
  const { platform, cluster } = world();
  const client = cluster.client();
  await client.close();
  expect(platform.pending.timers).toBe(0);
  expect(cluster.member("a").doors.size).toBe(0);
});

test("a claim window lets the lowest open sequence rise only over settled ones", async () => {
  const { ClaimWindow } = await import("./claim-window.ts");
  const window = new ClaimWindow("1", 4);
  const [first, second, third] = [window.take(), window.take(), window.take()];
  window.settle(second);
  expect(window.lowestOpen).toBe(first);
  window.take();
  expect(window.isFull).toBe(true);
  window.settle(first);
  expect(window.lowestOpen).toBe(third);
  expect(window.isFull).toBe(false);
  window.settle(first);
  expect(window.lowestOpen).toBe(third);
});
