/**
 * The purpose-made scripts beside the general one: the same acts on two namespaces leave the same, answer the same and tell
 * the same; and what a free lock leaves on the server while nobody looks.
 */
import fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import { type RedisServer, startRedis } from "../../../test/servers/redis.ts";
import { utf8Decode } from "../../base/bytes.ts";
import { createLock } from "../../recipes/lock.ts";
import type { Session, Store, WatchBatch } from "../../store/store.ts";
import { openRedis, type RedisEngine } from "./redis-engine.ts";

const found = await startRedis();
const isMissing = "skipped" in found;
const redis = found as RedisServer;
const engines: RedisEngine[] = [];
afterAll(async () => {
  for (const engine of engines) await engine.close();
  if (!isMissing) await redis.stop();
});

let groups = 0;

/** A group of its own, so that its keys can be counted. */
async function openGroup(name = `g${++groups}`): Promise<{ readonly engine: RedisEngine; readonly name: string }> {
  const engine = await openRedis({ url: `${redis.url}?quarantineMs=-1&group=${name}` });
  engines.push(engine);
  return { engine, name };
}

const field = (name: string, of: string): Promise<unknown> => redis.command("HGET", `{${name}}:m`, of);
const sizes = async (name: string): Promise<readonly unknown[]> => [
  await redis.command("HLEN", `{${name}}:e`),
  await redis.command("ZCARD", `{${name}}:k`),
  await redis.command("ZCARD", `{${name}}:c`),
  await redis.command("ZCARD", `{${name}}:b`),
];
/** Namespaces that have a cell. */
async function cells(name: string): Promise<readonly string[]> {
  const fields = (await redis.command("HKEYS", `{${name}}:m`)) as readonly Buffer[];
  return fields
    .map(String)
    .filter((each) => each.startsWith("n"))
    .map((each) => each.slice(1))
    .sort();
}

type Act =
  | { readonly kind: "join"; readonly key: string; readonly value: string; readonly by: number }
  | { readonly kind: "leave"; readonly key: string }
  | { readonly kind: "list" | "end"; readonly by: number }
  | { readonly kind: "listen" };

const keys = fc.constantFrom("1/a", "1/b", "2/c", "2/d", "é/1");
const by = fc.constantFrom(0, 1);
const act: fc.Arbitrary<Act> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ kind: fc.constant("join" as const), key: keys, value: anyValue(), by }) },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant("leave" as const), key: keys }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom("list" as const, "end" as const), by }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("listen" as const) }) },
);

function anyValue(): fc.Arbitrary<string> {
  return fc.constantFrom("", "text", "line\nline", "\u0000", "3 4 5\n");
}

test.skipIf(isMissing)("joins and leaves by the short scripts leave, answer and tell what the general script would", async () => {
  const { engine, name } = await openGroup();
  const sessions: Session[] = [await engine.store("x").session(), await engine.store("x").session()];
  let run = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(act, { maxLength: 25 }), async (acts) => {
      const [short, general, mixed] = [`short-${++run}`, `general-${run}`, `mixed-${run}`].map((each) => engine.store(each)) as [
        Store,
        Store,
        Store,
      ];
      const heard: Promise<{ end(): Promise<unknown> }>[] = [];
      for (const [index, each] of acts.entries()) {
        switch (each.kind) {
          case "join": {
            const { key, value } = each;
            const session = (sessions[each.by] as Session).id;
            const expected = await joinByTxn(general, { key, value, session });
            expect(await join(short, { key, value, session })).toEqual(expected);
            // Both kinds of script in turn on one queue, as by a native client and a generic one.
            expect(await (index % 2 === 0 ? join : joinByTxn)(mixed, { key, value, session })).toEqual(expected);
            break;
          }
          case "leave":
            await leaveByTxn(general, each.key);
            await leave(short, each.key);
            await (index % 2 === 0 ? leave : leaveByTxn)(mixed, each.key);
            break;
          case "list":
            expect(await listing(short)).toEqual(await listing(general));
            break;
          case "end":
            await (sessions[each.by] as Session).close();
            sessions[each.by] = await engine.store("x").session();
            break;
          case "listen":
            if (heard.length === 0) heard.push(listen(short), listen(general));
            await Promise.all(heard);
        }
      }
      expect(await listing(mixed)).toEqual(await listing(general));
      expect(await listing(short)).toEqual(await listing(general));
      const [one, other] = await Promise.all(heard.map(async (listener) => (await listener).end()));
      expect(one).toEqual(other);
    }),
    { numRuns: 60 },
  );
  // What the scripts bound to the sessions goes with them, in every namespace.
  for (const session of sessions) await session.close();
  expect(await sizes(name)).toEqual([0, 0, 0, 0]);
});

test.skipIf(isMissing)(
  "a free lock leaves one cell while it is held and nothing after, in no index, and pushes nothing",
  async () => {
    const { engine, name } = await openGroup();
    const lock = createLock(engine, "free");
    const before = Number(await field(name, "r")) || 0;
    const hold = await lock.acquire();
    expect(await cells(name)).toEqual(["lock/free"]);
    expect(await sizes(name)).toEqual([0, 0, 0, 0]);
    expect(Number(await field(name, "r"))).toBe(hold.token);
    await hold.release();
    expect(await cells(name)).toEqual([]);
    expect(Number(await field(name, "r"))).toBe(hold.token + 1);
    expect(hold.token).toBeGreaterThan(before);
  },
);

test.skipIf(isMissing)("whoever looks, waits or guards finds a free lock's key as any other", async () => {
  const { engine } = await openGroup();
  const other = engine.store("elsewhere");
  const lock = createLock(engine, "looked-at", { meta: { job: 7 } });
  const hold = await lock.acquire();
  const guarded = { if: [hold.guard()], then: [{ kind: "put", key: "a", value: "1" }] } as const;
  expect((await other.txn(guarded)).succeeded).toBe(true);
  expect(await lock.holder()).toMatchObject({ meta: { job: 7 }, createRevision: hold.token });
  const waiting = lock.acquire();
  await until(async () => (await lock.waiters()).length === 1);
  await hold.release();
  const next = await waiting;
  expect(next.token).toBeGreaterThan(hold.token);
  expect((await other.txn(guarded)).succeeded).toBe(false);
  await next.release();
});

test.skipIf(isMissing)(
  "a holder's watch hears of a break, also when the lock was free of watchers when it was taken",
  async () => {
    const { engine, name } = await openGroup();
    const { engine: thief } = await openGroup(name);
    const hold = await createLock(engine, "watched").acquire();
    const { signal } = hold;
    // Whether the break comes before the subscription stands or after it, it is told.
    await createLock(thief, "watched").break("an operator says so");
    await until(async () => signal.aborted);
    expect(hold.held).toBe(false);
  },
);

test.skipIf(isMissing)(
  "a thin cell ends with its session: the next in line needs nobody to delete it, and it is swept",
  async () => {
    const { engine, name } = await openGroup();
    const { engine: other } = await openGroup(name);
    const session = await engine.store("x").session();
    for (let index = 0; index < 100; index++) {
      await join(engine.store(`lock/gone-${index}`), { key: `${session.id}/1`, value: "", session: session.id });
    }
    expect((await cells(name)).length).toBe(100);
    await session.close();
    // Nobody joins by a session that has ended: the general script says so, in words.
    const ghost = { key: `${session.id}/2`, value: "", session: session.id };
    expect(await engine.store("lock/ghost").native?.joinQueue?.(ghost, {})).toBe(null);
    await expect(joinByTxn(engine.store("lock/ghost"), ghost)).rejects.toMatchObject({ code: "SESSION_EXPIRED" });
    const mine = await other.store("x").sharedSession({ ttlMs: 3_000 });
    // By the short script, by the general one, and by reading.
    expect(await join(other.store("lock/gone-0"), { key: "n/1", value: "", session: mine.id })).toMatchObject({ aheadCount: 0 });
    expect(await joinByTxn(other.store("lock/gone-1"), { key: "n/1", value: "", session: mine.id })).toMatchObject({
      aheadCount: 0,
    });
    const revision = Number(await field(name, "r"));
    const read = await other.store("lock/gone-2").txn({ then: [{ kind: "range", range: { prefix: "" } }] });
    expect(read.results).toMatchObject([{ count: 0 }]);
    // Its end has a revision, so that no two states have the same.
    expect(read.revision).toBe(revision + 1);
    expect(await other.namespaces({ prefix: "lock/gone-" })).toEqual(["lock/gone-0", "lock/gone-1"]);
    await until(async () => (await cells(name)).length < 30);
    expect(await cells(name)).toContain("lock/gone-0");
  },
);

test.skipIf(isMissing)(
  "a namespace that was watched is let go of when nobody watches any more and its last key goes",
  async () => {
    const { engine, name } = await openGroup();
    const store = engine.store("lock/once");
    const session = await store.session();
    const stop = new AbortController();
    const watching = (async () => {
      for await (const _ of store.watch({ prefix: "" }, { from: 1, signal: stop.signal }));
    })();
    await until(async () => (await cells(name)).includes("lock/once"));
    expect(await field(name, "nlock/once")).toEqual(Buffer.from("*"));
    await join(store, { key: "1/a", value: "", session: session.id });
    await leave(store, "1/a");
    // Somebody listens: what comes next must be told.
    expect(await cells(name)).toEqual(["lock/once"]);
    stop.abort();
    await watching;
    await engine.close();
    const { engine: other } = await openGroup(name);
    const another = await other.store("x").session();
    await join(other.store("lock/once"), { key: "1/b", value: "", session: another.id });
    expect((await sizes(name))[0]).toBe(1);
    await leave(other.store("lock/once"), "1/b");
    expect(await cells(name)).toEqual([]);
  },
);

interface Joining {
  readonly key: string;
  readonly value: string;
  readonly session: string;
}

/** By the short script, or as a recipe does where that says no. Without revisions, which differ between namespaces. */
async function join(store: Store, joining: Joining): Promise<unknown> {
  const joined = await store.native?.joinQueue?.(joining, {});
  if (joined === undefined || joined === null) return joinByTxn(store, joining);
  return { ahead: joined.ahead && utf8Decode(joined.ahead.key), aheadCount: joined.ahead?.count ?? 0 };
}

async function leave(store: Store, key: string): Promise<void> {
  if ((await store.native?.leaveQueue?.(key, {})) !== true) await leaveByTxn(store, key);
}

async function joinByTxn(store: Store, { key, value, session }: Joining): Promise<unknown> {
  const { succeeded, results } = await store.txn({
    if: [{ key, target: "exists", is: "equal", to: false }],
    then: [
      { kind: "put", key, value, session },
      { kind: "range", range: { prefix: "" }, order: "create", descending: true, limit: 2, keysOnly: true },
    ],
    else: [{ kind: "get", key }],
  });
  const [first, newest] = results;
  if (newest?.kind === "range") return { ahead: newest.entries[1]?.key ?? null, aheadCount: newest.count - 1 };
  return [succeeded, first?.kind === "get" && first.entry?.text];
}

async function leaveByTxn(store: Store, key: string): Promise<void> {
  await store.txn({ then: [{ kind: "delete", range: { key } }] });
}

async function listing(store: Store): Promise<unknown> {
  const { results } = await store.txn({
    then: [
      { kind: "range", range: { prefix: "" } },
      { kind: "range", range: { prefix: "" }, order: "create" },
      { kind: "range", range: { prefix: "" }, order: "create", descending: true, limit: 2, keysOnly: true },
    ],
  });
  return results.map((result) => {
    if (result.kind !== "range") throw new Error("a range was asked for");
    return [result.count, result.more, result.entries.map(({ key, text, version, session }) => [key, text, version, session])];
  });
}

/** Everything that is told from now on, until it ends. */
async function listen(store: Store): Promise<{ end(): Promise<unknown> }> {
  const stop = new AbortController();
  const heard: unknown[] = [];
  let isHearing = false;
  const note = (batch: WatchBatch): void => {
    if (batch.kind !== "changes") return;
    isHearing = true;
    for (const { kind, key, previous } of batch.events) if (key !== "start") heard.push([kind, key, previous?.text]);
  };
  const reading = (async () => {
    for await (const batch of store.watch({ prefix: "" }, { signal: stop.signal })) {
      if (batch.kind === "changes" && batch.events.some(({ key }) => key === "end")) break;
      note(batch);
    }
  })();
  while (!isHearing) {
    await store.txn({ then: [{ kind: "put", key: "start", value: "" }] });
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await leaveByTxn(store, "start");
  return {
    async end() {
      await store.txn({ then: [{ kind: "put", key: "end", value: "" }] });
      await reading;
      stop.abort();
      await leaveByTxn(store, "end");
      return heard;
    },
  };
}

async function until(isSo: () => Promise<boolean>): Promise<void> {
  const untilMs = performance.now() + 10_000;
  while (!(await isSo())) {
    if (performance.now() > untilMs) throw new Error("It did not become so within 10 s.");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
