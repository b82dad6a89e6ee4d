/**
 * Joins and leaves by their own requests: they leave what the txn would leave, and nobody who reads meanwhile is deceived.
 */
import { afterAll, expect, test } from "vitest";
import { FaultProxy } from "../../../test/servers/fault-proxy.ts";
import { startZooKeeper, type ZooKeeperEnsemble } from "../../../test/servers/zookeeper.ts";
import { createLock } from "../../recipes/lock.ts";
import type { Compare, Joined, Store } from "../../store/store.ts";
import { openZooKeeper, type ZkEngine } from "./zk-engine.ts";

const found = await startZooKeeper();
const isMissing = "skipped" in found;
const zookeeper = found as ZooKeeperEnsemble;
const engines: ZkEngine[] = [];
afterAll(async () => {
  for (const engine of engines) await engine.close();
  if (!isMissing) await zookeeper.stop();
});

async function open(port = zookeeper.port): Promise<ZkEngine> {
  const engine = await openZooKeeper({ url: `zookeeper://127.0.0.1:${port}` });
  engines.push(engine);
  return engine;
}

/** A store whose namespace has its node already. */
async function used(engine: ZkEngine, namespace: string): Promise<Store> {
  const store = engine.store(namespace);
  const { id } = await store.sharedSession();
  const put = { kind: "put", key: "0/0", value: "", session: id } as const;
  await store.txn({ if: [{ key: "0/0", target: "exists", is: "equal", to: false }], then: [put] });
  await store.txn({ then: [{ kind: "delete", range: { key: "0/0" } }] });
  return store;
}

/** Null: the server had taken the empty namespace's node away in between, and the txn makes it anew; then once more. */
async function joinFree(engine: ZkEngine, namespace: string, key: string, value = ""): Promise<Joined> {
  for (let tries = 0; tries < 10; tries++) {
    const store = await used(engine, namespace);
    const { id } = await store.sharedSession();
    const joined = await store.native?.joinQueue?.({ key, value, session: id }, {});
    if (joined !== null && joined !== undefined) return joined;
  }
  throw new Error("Ten joins of a free queue were left to the txn.");
}

/** Packets that the server had of all its clients: this question is none. */
async function packets(): Promise<number> {
  return Number(/zk_packets_received\t(\d+)/.exec(await zookeeper.word(zookeeper.port, "mntr"))?.[1]);
}

test.skipIf(isMissing)("a free queue is joined by one request and left by one, and leaves what a txn leaves", async () => {
  const engine = await open();
  const store = await used(engine, "free");
  const { id } = await store.sharedSession();
  const joined = await joinFree(engine, "free", "1/a", "me");
  expect(joined.ahead).toBeNull();
  const { results } = await (await open()).store("free").txn({ then: [{ kind: "get", key: "1/a" }] });
  const [got] = results;
  const entry = got?.kind === "get" ? got.entry : null;
  expect([entry?.text, entry?.session, entry?.version]).toEqual(["me", id, 1]);
  expect([entry?.createRevision, entry?.modRevision]).toEqual([joined.revision, joined.revision]);
  expect(await store.native?.leaveQueue?.("1/a", {})).toBe(true);
  let before = await packets();
  for (let turn = 0; turn < 20; turn++) {
    const next = await store.native?.joinQueue?.({ key: `1/${turn}`, value: "", session: id }, {});
    if (next === null) {
      // Its node was taken away while it was empty: not what is counted here.
      const sofar = await packets();
      await joinFree(engine, "free", `1/${turn}`);
      before += (await packets()) - sofar - 1;
    } else expect(next?.ahead).toBeNull();
    expect(await store.native?.leaveQueue?.(`1/${turn}`, {})).toBe(true);
  }
  // A few beats of the sessions may have come in between.
  expect((await packets()) - before).toBeLessThan(48);
  // Taken away by somebody else, though this process still counts it as its own.
  await joinFree(engine, "free", "1/taken");
  await (await open()).store("free").txn({ then: [{ kind: "delete", range: { key: "1/taken" } }] });
  expect(await store.native?.leaveQueue?.("1/taken", {})).toBeNull();
  // Gone already, and never there: the txn's to say.
  expect(await store.native?.leaveQueue?.("1/a", {})).toBeNull();
  expect((await store.txn({ then: [{ kind: "range", range: { prefix: "" } }] })).results[0]).toMatchObject({ count: 0 });
});

test.skipIf(isMissing)("who joins behind others is told of the one right ahead and of how many there are", async () => {
  const [first, second] = [await open(), await open()];
  const store = await used(first, "behind");
  const other = second.store("behind");
  const { id } = await store.sharedSession();
  const theirs = (await other.sharedSession()).id;
  for (const key of ["2/c", "2/b"]) {
    const put = { kind: "put", key, value: "", session: theirs } as const;
    await other.txn({ if: [{ key, target: "exists", is: "equal", to: false }], then: [put] });
  }
  const joined = await store.native?.joinQueue?.({ key: "1/a", value: "", session: id }, {});
  expect([String(Buffer.from(joined?.ahead?.key ?? [])), joined?.ahead?.count]).toEqual(["2/b", 2]);
  // Others are known to be here: the txn reads who, in the round trip that joins.
  expect(await store.native?.joinQueue?.({ key: "1/z", value: "", session: id }, {})).toBeNull();
});

/** Whether a txn of another client succeeds that read before `meanwhile` and would write after it. */
async function writesAfter(compare: Compare, { store, meanwhile }: { readonly store: Store; meanwhile(): Promise<unknown> }) {
  const proxy = await FaultProxy.start(zookeeper.port);
  const slow = await open(proxy.port);
  // What it reads is answered, and held back on the way until the others have done theirs.
  let isHeld = false;
  proxy.onAnswer = () => {
    isHeld = true;
    return { kind: "coalesce", delayMs: 1_500 };
  };
  const writing = slow.store(store.namespace).txn({ if: [compare], then: [{ kind: "put", key: "late", value: "" }] });
  await expect.poll(() => isHeld).toBe(true);
  await new Promise((resolve) => setTimeout(resolve, 50));
  await meanwhile();
  proxy.onAnswer = undefined;
  const { succeeded } = await writing;
  await slow.close();
  await proxy.close();
  return succeeded;
}

test.skipIf(isMissing)("who has read a place that is left meanwhile writes nothing by what was read", async () => {
  const engine = await open();
  const store = engine.store("left");
  await joinFree(engine, "left", "1/a");
  // Else the server takes the empty namespace's node away, and who has read that writes nothing for that reason.
  await store.txn({ then: [{ kind: "put", key: "9/stays", value: "" }] });
  const isThere = { key: "1/a", target: "exists", is: "equal", to: true } as const;
  const meanwhile = async (): Promise<void> => expect(await store.native?.leaveQueue?.("1/a", {})).toBe(true);
  expect(await writesAfter(isThere, { store, meanwhile })).toBe(false);
});

test.skipIf(isMissing)("who has read that nobody is there writes nothing once somebody has joined", async () => {
  const engine = await open();
  const store = await used(engine, "joined");
  // Keeps the server from taking the empty namespace's node away; by another client, so that this one still expects nobody.
  await (await open()).store("joined").txn({ then: [{ kind: "put", key: "9/stays", value: "" }] });
  const isEmpty = { range: { prefix: "1/" }, target: "createRevision", is: "less", to: 1 } as const;
  const { id } = await store.sharedSession();
  const meanwhile = async (): Promise<void> => {
    expect(await store.native?.joinQueue?.({ key: "1/a", value: "", session: id }, {})).not.toBeNull();
  };
  expect(await writesAfter(isEmpty, { store, meanwhile })).toBe(false);
});

test.skipIf(isMissing)("one holder at a time, in the order of tokens, whether the queue is free or full", async () => {
  const locks = [createLock(await open(), "mixed"), createLock(await open(), "mixed")];
  let inside = 0;
  const tokens: number[] = [];
  const work = async (index: number): Promise<void> => {
    for (let turn = 0; turn < 5; turn++) {
      await locks[index % 2]?.run(async (hold) => {
        expect(++inside).toBe(1);
        tokens.push(hold.token);
        await new Promise((resolve) => setTimeout(resolve, index));
        inside--;
      });
      // Long enough for the queue to be free now and then.
      await new Promise((resolve) => setTimeout(resolve, 7 * index));
    }
  };
  await Promise.all(Array.from({ length: 4 }, (_, index) => work(index)));
  expect(tokens).toEqual([...tokens].sort((left, right) => left - right));
  expect(new Set(tokens).size).toBe(20);
});
