import { expect, test } from "vitest";
import type { Platform } from "../base/ports.ts";
import type { ResolvedTxn } from "../store/command.ts";
import type { Entry } from "../store/entry.ts";
import type { Revision, TxnResult } from "../store/store.ts";
import { FeedHub } from "./feed-hub.ts";
import type { Change } from "./feed-reader.ts";
import { ProcessHold } from "./process-hold.ts";

const platform = {
  now: () => 0,
  setTimer: () => ({ cancel: () => undefined }),
} as unknown as Platform;

/** A hub whose server is this test: `read` answers with the revision of the moment. */
function world() {
  let revision = 10;
  const turns: (Revision | null)[] = [];
  let reads = 0;
  const hub = new FeedHub({
    channelOf: (name) => name,
    platform,
    processHold: new ProcessHold(platform),
    openPush: () => ({ subscribe: () => undefined, unsubscribe: () => undefined, close: () => undefined }),
    read: async (txn: ResolvedTxn): Promise<TxnResult> => {
      reads++;
      const results = txn.then.map(() => ({ kind: "range", entries: [], count: 0 }));
      return { succeeded: true, revision, results } as unknown as TxnResult;
    },
    onWatch: () => undefined,
  });
  return {
    hub,
    turns,
    get reads() {
      return reads;
    },
    wait: (options: { count: number; createRevision?: Revision; from?: Revision; key?: string }) =>
      hub.watchDepartures("jobs", {
        whole: `jobs\0${options.key ?? "mine"}`,
        createRevision: options.createRevision ?? 10,
        count: options.count,
        from: options.from ?? 11,
        onTurn: (turn) => turns.push(turn),
      }),
    async subscribed(at = 10) {
      revision = at;
      hub.onSubscribed("jobs");
      await new Promise((resolve) => setImmediate(resolve));
    },
    push: (at: Revision, ...changes: readonly Change[]) => hub.onMessage("jobs", { revision: at, changes }),
  };
}

const entryOf = (key: string, createRevision: Revision): Entry => ({ key, createRevision }) as unknown as Entry;
const gone = (key: string, createRevision: Revision): Change => ({
  whole: `jobs\0${key}`,
  previous: entryOf(key, createRevision),
  entry: null,
});
const came = (key: string, createRevision: Revision): Change => ({
  whole: `jobs\0${key}`,
  previous: null,
  entry: entryOf(key, createRevision),
});

test("the turn comes with the departure of the last one ahead, at its revision", async () => {
  const { push, subscribed, turns, wait } = world();
  wait({ count: 2 });
  await subscribed();
  push(11, gone("first", 1));
  expect(turns).toEqual([]);
  push(12, gone("second", 5));
  expect(turns).toEqual([12]);
});

test("who came later does not count, neither coming nor going; the same revision told twice counts once", async () => {
  const { push, subscribed, turns, wait } = world();
  wait({ count: 2 });
  await subscribed();
  push(11, came("later", 11));
  push(12, gone("later", 11));
  push(13, gone("first", 1));
  push(13, gone("first", 1));
  expect(turns).toEqual([]);
});

test("two who leave in one revision are two", async () => {
  const { push, subscribed, turns, wait } = world();
  wait({ count: 2 });
  await subscribed();
  push(11, gone("first", 1), gone("second", 5));
  expect(turns).toEqual([11]);
});

test("where its own key goes with those ahead of it, there is no turn", async () => {
  const { push, subscribed, turns, wait } = world();
  wait({ count: 1 });
  await subscribed();
  push(11, gone("first", 1), gone("mine", 10));
  expect(turns).toEqual([null]);
});

test("departures that were pushed before it was asked to count are counted", async () => {
  const { push, subscribed, turns, wait } = world();
  wait({ count: 5, key: "other" });
  await subscribed();
  push(11, gone("first", 1));
  push(12, gone("second", 5));
  wait({ count: 1, from: 12 });
  expect(turns).toEqual([12]);
});

test("a subscription that stands anew is a reason to look, unless nothing happened since the count was read", async () => {
  const here = world();
  here.wait({ count: 1 });
  await here.subscribed(10);
  expect(here.turns).toEqual([]);
  await here.subscribed(14);
  expect(here.turns).toEqual([null]);
  expect(here.reads).toBe(2);
});

test("whoever is ended is told once, and counts no more", async () => {
  const { push, subscribed, turns, wait } = world();
  const stop = wait({ count: 1 });
  await subscribed();
  stop();
  stop();
  push(11, gone("first", 1));
  expect(turns).toEqual([null]);
});
