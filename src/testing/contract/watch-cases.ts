/**
 * Watches. A `resync` may come at any time, so most cases look at the state that follows from what was told.
 */
import { KeyValue } from "../../recipes/key-value.ts";
import { op } from "../../recipes/when.ts";
import type { Caps } from "../../store/caps.ts";
import type { WatchEvent } from "../../store/store.ts";
import { equal, isRising, isTrue } from "./check.ts";
import type { ContractCase } from "./contract-case.ts";
import type { WatchReader } from "./test-bed.ts";

const needsWatch = (caps: Caps): string | undefined => (caps.watch === "none" ? "this engine cannot watch" : undefined);
const needsLog = (caps: Caps): string | undefined =>
  caps.watch === "log" ? undefined : `watches of this engine are \`${caps.watch}\`: states, not every event`;

export const watchCases: readonly ContractCase[] = [
  {
    name: "after a change at a revision a batch of at least that revision arrives, and leads to the state",
    skip: needsWatch,
    async run(bed) {
      const store = bed.store();
      const values = new KeyValue(store);
      const start = await values.put("a", "0");
      const reader = bed.watch(store, { prefix: "" }, { from: start });
      let revision = start;
      for (const act of [
        () => values.put("a", "1"),
        () => values.put("b", "1"),
        async () => (await store.txn({ then: [op.delete({ key: "a" })] })).revision,
        async () => (await store.txn({ then: [op.put("c", "1"), op.delete({ key: "b" }), op.add("n", 3)] })).revision,
      ]) {
        revision = await act();
        await bed.until(() => reader.revision >= revision, `a batch of revision ${revision}`);
      }
      equal(
        [...reader.state].sort(),
        [
          ["c", "1"],
          ["n", "3"],
        ],
        "the state that the watch tells",
      );
      isRising([0, ...new Set(reader.batches.map((batch) => batch.revision))], "the revisions of the batches");
    },
  },
  {
    name: "a watch of kind `log` tells every event in order, with what was there before",
    skip: needsLog,
    async run(bed) {
      const store = bed.store();
      const values = new KeyValue(store);
      const start = await values.put("z", "0");
      const reader = bed.watch(store, { prefix: "" }, { from: start + 1 });
      const put = await values.put("a", "1");
      const both = (await store.txn({ then: [op.put("a", "2"), op.add("n", 1)] })).revision;
      const gone = (await store.txn({ then: [op.delete({ prefix: "" })] })).revision;
      await bed.until(() => reader.revision >= gone, "the last batch");
      if (reader.batches.some((batch) => batch.kind === "resync")) return;
      equal(
        reader.events.map(told).sort(),
        [
          [put, "put", "a", "1", 1, null],
          [both, "put", "a", "2", 2, "1"],
          [both, "put", "n", "1", 1, null],
          [gone, "delete", "a", null, null, "2"],
          [gone, "delete", "n", null, null, "1"],
          [gone, "delete", "z", null, null, "0"],
        ].sort(),
        "the events",
      );
      isRising([0, ...new Set(reader.events.map((event) => event.revision))], "the revisions of the events");
    },
  },
  {
    name: "a watch from an older revision tells what has happened since, or the state",
    skip: needsWatch,
    async run(bed) {
      const store = bed.store();
      const values = new KeyValue(store);
      await values.put("before", "1");
      const from = await values.put("a", "1");
      await values.put("b", "1");
      const last = (await store.txn({ then: [op.delete({ key: "a" })] })).revision;
      const reader = bed.watch(store, { prefix: "" }, { from });
      await bed.until(() => reader.revision >= last, "the present revision");
      equal([reader.state.has("a"), reader.state.get("b")], [false, "1"], "the state that the watch tells");
      if (reader.batches.every((batch) => batch.kind === "changes")) {
        equal(
          reader.events.map((event) => `${event.kind} ${event.key}`),
          ["put a", "put b", "delete a"],
          "the events",
        );
      }
      const next = await values.put("c", "1");
      await bed.until(() => reader.revision >= next, "what happens after it");
      equal(reader.state.get("c"), "1", "the new key");
    },
  },
  {
    name: "a watch from a revision that is no longer kept starts with the whole state",
    skip: needsWatch,
    async run(bed) {
      const store = bed.store();
      await store.txn({ then: [op.put("a", "1"), op.put("b", "2")] });
      const reader = bed.watch(store, { prefix: "" }, { from: 1 });
      await bed.until(() => reader.state.size === 2, "the whole state");
      equal(
        [...reader.state].sort(),
        [
          ["a", "1"],
          ["b", "2"],
        ],
        "the state",
      );
    },
  },
  {
    name: "a watch tells of its own range and namespace only",
    skip: needsWatch,
    async run(bed) {
      const [store, other] = [bed.store(), bed.store()];
      const values = new KeyValue(store);
      const from = (await values.put("start", "1")) + 1;
      const one = bed.watch(store, { key: "k" }, { from });
      const prefixed = bed.watch(store, { prefix: "k" }, { from });
      const interval = bed.watch(store, { from: "k", to: "ka" }, { from });
      await other.txn({ then: [op.put("k", "no")] });
      for (const key of ["j", "k", "k/1", "ka", "l"]) await values.put(key, "1");
      await bed.until(
        () => one.state.size === 1 && prefixed.state.size === 3 && interval.state.size === 2,
        "each watch has its keys",
      );
      await bed.pass(50);
      const keys = (reader: WatchReader) => [...reader.state.keys()].sort();
      equal([keys(one), keys(prefixed), keys(interval)], [["k"], ["k", "k/1", "ka"], ["k", "k/1"]], "the keys of each watch");
      isTrue(
        [...one.state.values()].every((text) => text === "1"),
        "no watch tells of another namespace",
      );
    },
  },
  {
    name: "the end of a session is told like any deletion",
    skip: needsWatch,
    async run(bed) {
      const store = bed.store();
      const session = await store.session();
      const { revision } = await store.txn({
        then: [op.put("a", "1", { session: session.id }), op.put("b", "1", { session: session.id })],
      });
      const reader = bed.watch(store, { prefix: "" }, { from: revision });
      await bed.until(() => reader.state.size === 2, "the keys are there");
      await session.close();
      await bed.until(() => reader.state.size === 0, "the keys are gone");
    },
  },
  {
    name: "a reader that is slow, or has not begun, misses nothing that is still true",
    skip: needsWatch,
    async run(bed) {
      const store = bed.store();
      const values = new KeyValue(store);
      const from = (await values.put("a", "start")) + 1;
      const controller = new AbortController();
      const batches = store.watch({ prefix: "" }, { from, signal: controller.signal })[Symbol.asyncIterator]();
      for (let round = 0; round < 200; round++) await values.put(`k${round % 5}`, String(round));
      const state = new Map<string, string>();
      const read = async (): Promise<void> => {
        while (state.get("k4") !== "199") {
          const { value, done } = await batches.next();
          if (done === true) return;
          if (value.kind === "resync") for (const entry of value.entries) state.set(entry.key, entry.text);
          else for (const event of value.events) if (event.kind === "put") state.set(event.key, event.entry.text);
        }
      };
      await bed.soon(read(), "the last change");
      equal(
        ["k0", "k1", "k2", "k3"].map((key) => state.get(key)),
        ["195", "196", "197", "198"],
        "the state",
      );
      controller.abort();
      isTrue((await bed.soon(batches.next(), "the end after the abort")).done, "an aborted watch ends quietly");
    },
  },
  {
    name: "a watch ends when its signal aborts, also while nothing happens",
    skip: needsWatch,
    async run(bed) {
      const reader = bed.watch(bed.store(), { prefix: "" });
      await bed.pass(20);
      reader.end();
      await bed.until(() => reader.isOver, "the end");
      equal(reader.failure, undefined, "the failure");
      const aborted = bed.store().watch({ prefix: "" }, { signal: AbortSignal.abort() });
      isTrue(
        (await bed.soon(aborted[Symbol.asyncIterator]().next(), "the end")).done,
        "a watch aborted beforehand tells nothing",
      );
    },
  },
  {
    name: "many watches of one range all hear of a change",
    skip: needsWatch,
    async run(bed) {
      const store = bed.store();
      const values = new KeyValue(store);
      const from = (await values.put("a", "0")) + 1;
      const readers = Array.from({ length: 50 }, () => bed.watch(store, { key: "a" }, { from }));
      await values.put("a", "1");
      await bed.until(() => readers.every((reader) => reader.state.get("a") === "1"), "every watch has the change");
    },
  },
];

function told(event: WatchEvent): unknown {
  const { kind, key, previous, revision } = event;
  const entry = kind === "put" ? event.entry : null;
  return [revision, kind, key, entry?.text ?? null, entry?.version ?? null, previous?.text ?? null];
}
