/**
 * The purpose-made scripts beside the general one: the same acts on two namespaces leave the same, tell the same.
 */
import fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import { type RedisServer, startRedis } from "../../../test/servers/redis.ts";
import type { Op, Store, Txn, TxnResult, WatchBatch } from "../../store/store.ts";
import { openRedis } from "./redis-engine.ts";

const found = await startRedis();
const isMissing = "skipped" in found;
const redis = found as RedisServer;
afterAll(() => (isMissing ? undefined : redis.stop()));

type Act = { readonly kind: "join" | "leave"; readonly key: string; readonly value: string };

test.skipIf(isMissing)("joins and leaves by the short scripts leave, answer and tell what the general script would", async () => {
  const engine = await openRedis({ url: `${redis.url}?quarantineMs=-1` });
  const session = await engine.store("x").session();
  let run = 0;
  const acts = fc.array(
    fc.record<Act>({
      kind: fc.constantFrom("join", "join", "leave"),
      key: fc.constantFrom("a", "b", "é/1", "c", "d"),
      value: fc.constantFrom("", "text", "line\nline", "\u0000"),
    }),
    { maxLength: 25 },
  );
  await fc.assert(
    fc.asyncProperty(acts, async (list) => {
      const [short, general] = [engine.store(`short-${++run}`), engine.store(`general-${run}`)];
      const mixed = engine.store(`mixed-${run}`);
      const [heardShort, heardGeneral] = [await listen(short), await listen(general)];
      for (const [index, act] of list.entries()) {
        // Both kinds of script in turn on one queue, as by clients of different versions.
        const either = await mixed.txn(txnOf(act, session.id, index % 2 === 0 ? [] : [{ kind: "get", key: "none" }]));
        const one = await short.txn(txnOf(act, session.id, []));
        // One more operation, and it is no longer plain.
        const other = await general.txn(txnOf(act, session.id, [{ kind: "get", key: "none" }]));
        expect(told(one)).toEqual(told({ ...other, results: other.results.slice(0, one.results.length) }));
        expect(told({ ...either, results: either.results.slice(0, one.results.length) })).toEqual(told(one));
      }
      expect(await listing(mixed)).toEqual(await listing(general));
      expect(await listing(short)).toEqual(await listing(general));
      expect(await heardShort.end()).toEqual(await heardGeneral.end());
    }),
    { numRuns: 40 },
  );
  const bound = Number(await redis.command("SCARD", `{conclave}:b:${session.id}`));
  expect(bound).toBe(Number(await redis.command("HLEN", "{conclave}:e")));
  // What the scripts bound to the session goes with it, in every namespace.
  await session.close();
  expect(Number(await redis.command("HLEN", "{conclave}:e"))).toBe(0);
  expect(Number(await redis.command("ZCARD", "{conclave}:k"))).toBe(0);
  await engine.close();
});

function txnOf({ kind, key, value }: Act, session: string, more: readonly Op[]): Txn {
  if (kind === "leave") return { then: [{ kind: "delete", range: { key } }, ...more] };
  return {
    if: [{ key, target: "exists", is: "equal", to: false }],
    then: [
      { kind: "put", key, value, session },
      { kind: "range", range: { prefix: "" }, order: "create", descending: true, limit: 3, keysOnly: true },
      ...more,
    ],
    else: [{ kind: "get", key }],
  };
}

/** Without revisions, which the two namespaces take in turns. */
function told({ succeeded, results }: TxnResult): unknown {
  return [
    succeeded,
    results.map((result) => {
      if (result.kind === "range")
        return [result.count, result.more, result.entries.map(({ key, text, version }) => [key, text, version])];
      if (result.kind === "get") return result.entry && [result.entry.key, result.entry.text, result.entry.version];
      return result.kind === "delete" ? result.count : result.kind;
    }),
  ];
}

async function listing(store: Store): Promise<unknown> {
  return told(
    await store.txn({
      then: [
        { kind: "range", range: { prefix: "" } },
        { kind: "range", range: { prefix: "" }, order: "create" },
      ],
    }),
  );
}

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
  await store.txn({ then: [{ kind: "delete", range: { key: "start" } }] });
  return {
    async end() {
      await store.txn({ then: [{ kind: "put", key: "end", value: "" }] });
      await reading;
      stop.abort();
      await store.txn({ then: [{ kind: "delete", range: { key: "end" } }] });
      return heard;
    },
  };
}
