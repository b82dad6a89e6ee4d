/**
 * Transactions: operations, compares, revisions, namespaces.
 */

import { KeyValue } from "../../recipes/key-value.ts";
import { every, op, type Subject, when, within } from "../../recipes/when.ts";
import type { Entry } from "../../store/entry.ts";
import type { Compare, Key, Op, Operator, OpResult, RangeOp, Store } from "../../store/store.ts";
import { equal, isRising, isTrue, rejects } from "./check.ts";
import type { ContractCase } from "./contract-case.ts";

export const txnCases: readonly ContractCase[] = [
  {
    name: "an absent key reads as null, a written one as its entry",
    async run(bed) {
      const values = new KeyValue(bed.store());
      equal(await values.get("a"), null, "an absent key");
      const revision = await values.put("a", "1");
      const entry = await values.get("a");
      equal(facts(entry), { key: "a", text: "1", create: revision, mod: revision, version: 1, session: null }, "the entry");
    },
  },
  {
    name: "a value may be empty or any bytes",
    async run(bed) {
      const values = new KeyValue(bed.store());
      const bytes = Uint8Array.from({ length: 256 }, (_, index) => index);
      await values.put("a", "");
      equal((await values.get("a"))?.value.length, 0, "the length of the empty value");
      await values.put("a", bytes);
      equal([...((await values.get("a"))?.value ?? [])], [...bytes], "the value");
    },
  },
  {
    name: "a second put raises the version and the modRevision, and keeps the createRevision",
    async run(bed) {
      const values = new KeyValue(bed.store());
      const first = await values.put("a", "1");
      const second = await values.put("a", "2");
      equal(
        facts(await values.get("a")),
        { key: "a", text: "2", create: first, mod: second, version: 2, session: null },
        "the entry",
      );
    },
  },
  {
    name: "a key that was deleted and written again starts anew at version 1",
    async run(bed) {
      const values = new KeyValue(bed.store());
      await values.put("a", "1");
      await values.put("a", "2");
      equal(await values.delete("a"), true, "the first deletion");
      equal(await values.delete("a"), false, "the second deletion");
      const third = await values.put("a", "3");
      equal(
        facts(await values.get("a")),
        { key: "a", text: "3", create: third, mod: third, version: 1, session: null },
        "the entry",
      );
    },
  },
  {
    name: "each writing txn takes the next revision; reads, failed compares and deletions of nothing take none",
    async run(bed) {
      const store = bed.store();
      const values = new KeyValue(store);
      const first = await values.put("a", "1");
      isTrue(Number.isSafeInteger(first) && first > 0, "a revision is a safe integer above 0");
      equal((await values.range({ prefix: "" })).revision, first, "the revision of a read");
      equal((await store.txn({ then: [op.delete({ key: "no" })] })).revision, first, "the revision of a deletion of nothing");
      equal(
        (await store.txn({ if: [when.absent("a")], then: [op.put("a", "x")] })).revision,
        first,
        "the revision of a refused write",
      );
      equal(await values.put("b", "1"), first + 1, "the next revision");
      equal((await store.txn({ then: [op.delete({ key: "a" })] })).revision, first + 2, "the one after it");
    },
  },
  {
    name: "all writes of one txn share its revision",
    async run(bed) {
      const store = bed.store();
      const { revision } = await store.txn({ then: [op.put("a", "1"), op.put("b", "2"), op.put("a", "3"), op.add("n", 4)] });
      const { entries } = await new KeyValue(store).range({ prefix: "" });
      equal(
        entries.map((entry) => [entry.key, entry.modRevision]),
        [
          ["a", revision],
          ["b", revision],
          ["n", revision],
        ],
        "the modRevisions",
      );
    },
  },
  {
    name: "operations of a txn run in order and see one another",
    async run(bed) {
      const store = bed.store();
      const { results } = await store.txn({
        then: [
          op.get("a"),
          op.put("a", "1"),
          op.get("a"),
          op.put("b", "2"),
          op.range({ prefix: "" }),
          op.delete({ key: "a" }),
          op.range({ prefix: "" }),
          op.put("n", "40"),
          op.add("n", 2),
          op.get("n"),
        ],
      });
      equal(
        results.map(summary),
        [null, "put", "a=1", "put", ["a=1", "b=2"], 1, ["b=2"], "put", 42, "n=42"],
        "the results, one for each operation",
      );
    },
  },
  {
    name: "only `then` happens when every compare holds, and only `else`, all of it, when one does not",
    async run(bed) {
      const store = bed.store();
      const attempt = (compares: readonly Compare[]) =>
        store.txn({
          if: compares,
          then: [op.put("then", "1")],
          else: [op.put("else-1", "1"), op.put("else-2", "1"), op.get("else-1")],
        });
      const failed = await attempt([when.absent("x"), when.exists("x")]);
      equal([failed.succeeded, failed.results.map(summary)], [false, ["put", "put", "else-1=1"]], "the failed txn");
      equal(await keysOf(store), ["else-1", "else-2"], "the keys after it");
      const held = await attempt([when.absent("x"), when.exists("else-1")]);
      equal([held.succeeded, held.results.map(summary)], [true, ["put"]], "the txn that held");
      equal(await keysOf(store), ["else-1", "else-2", "then"], "the keys after it");
    },
  },
  {
    name: "a txn that fails in the middle leaves nothing behind",
    async run(bed) {
      const store = bed.store();
      const before = await new KeyValue(store).put("text", "not a number");
      await rejects(() => store.txn({ then: [op.put("a", "1"), op.add("text", 1)] }), "NOT_A_NUMBER", "an add to a text");
      equal(await keysOf(store), ["text"], "the keys");
      equal((await new KeyValue(store).range({ prefix: "" })).revision, before, "the revision");
    },
  },
  {
    name: "every compare says of a key, present or absent, what its words say",
    async run(bed) {
      const store = bed.store();
      await using session = await store.session();
      await store.txn({ then: [op.put("p", "m", { session: session.id })] });
      await store.txn({ then: [op.put("p", "m", { session: session.id })] });
      const entry = await new KeyValue(store).get("p");
      isTrue(entry !== null, "the key is there");
      for (const [compare, expected] of compareTable({ entry, session: session.id })) {
        equal((await store.txn({ if: [compare], then: [] })).succeeded, expected, `the compare ${JSON.stringify(compare)}`);
      }
    },
  },
  {
    name: "a compare on a range must hold for each key that is there, and an empty range satisfies it",
    async run(bed) {
      const store = bed.store();
      await store.txn({ then: [op.put("a/1", "x"), op.put("a/2", "y"), op.put("b", "z")] });
      await store.txn({ then: [op.put("a/2", "y")] });
      const expectations: readonly (readonly [Compare, boolean])[] = [
        [when.version(every({ prefix: "a/" })).isAbove(0), true],
        [when.version(every({ prefix: "a/" })).isAbove(1), false],
        [when.version(every({ prefix: "a/" })).equals(1), false],
        [when.version(every({ from: "a/1", to: "a/2" })).equals(1), true],
        [when.value(every({ prefix: "a/" })).isBelow("z"), true],
        [when.value(every({ prefix: "" })).isBelow("z"), false],
        [when.value(every({ prefix: "" })).differsFrom("q"), true],
        [when.session(every({ prefix: "" })).equals(null), true],
        [when.exists(every({ prefix: "a/" })), true],
        [when.absent(every({ prefix: "a/" })), false],
        [when.absent(every({ prefix: "c/" })), true],
        [when.exists(every({ prefix: "c/" })), true],
        [when.version(every({ prefix: "c/" })).equals(99), true],
        [when.createRevision(every({ prefix: "" })).isBelow(1), false],
        [when.createRevision(every({ prefix: "c/" })).isBelow(1), true],
      ];
      for (const [compare, expected] of expectations) {
        equal((await store.txn({ if: [compare], then: [] })).succeeded, expected, `the compare ${JSON.stringify(compare)}`);
      }
    },
  },
  {
    name: "a range answers in the order asked for, and counts beyond its limit",
    async run(bed) {
      const store = bed.store();
      const created: number[] = [];
      for (const key of ["b", "a", "d", "c"]) created.push((await store.txn({ then: [op.put(key, key)] })).revision);
      await store.txn({ then: [op.put("b", "again")] });
      const read = async (options: Omit<RangeOp, "kind" | "range">, range: RangeOp["range"] = { prefix: "" }) => {
        const { entries, count, more } = await new KeyValue(store).range(range, options);
        return [entries.map((entry) => entry.key).join(""), count, more];
      };
      equal(await read({}), ["abcd", 4, false], "the range by key");
      equal(await read({ descending: true }), ["dcba", 4, false], "the range by key, descending");
      equal(await read({ limit: 2 }), ["ab", 4, true], "the limited range");
      equal(await read({ limit: 4 }), ["abcd", 4, false], "the range with just enough limit");
      equal(await read({ order: "create" }), ["badc", 4, false], "the range by creation");
      equal(await read({ order: "create", descending: true, limit: 1 }), ["c", 4, true], "the newest");
      equal(
        await read({ createdBefore: created[2] as number, order: "create", descending: true }),
        ["ab", 2, false],
        "those created before",
      );
      equal(await read({ createdBefore: created[2] as number, limit: 1 }), ["a", 2, true], "the first of those created before");
      equal(await read({}, { key: "c" }), ["c", 1, false], "one key");
      equal(await read({}, { from: "b", to: "d" }), ["bc", 2, false], "the half-open interval");
      equal(await read({}, { from: "c" }), ["cd", 2, false], "the interval without an end");
      equal(await read({}, { from: "d", to: "b" }), ["", 0, false], "the interval that ends before it begins");
      equal(await read({}, { prefix: "x" }), ["", 0, false], "a prefix that no key has");
    },
  },
  {
    name: "`keysOnly` leaves the values out and nothing else",
    async run(bed) {
      const values = new KeyValue(bed.store());
      const revision = await values.put("a", "1");
      const { entries } = await values.range({ prefix: "" }, { keysOnly: true });
      equal(
        entries.map(facts),
        [{ key: "a", text: "", create: revision, mod: revision, version: 1, session: null }],
        "the entries",
      );
    },
  },
  {
    name: "put and delete answer with what was there before, when asked",
    async run(bed) {
      const store = bed.store();
      await store.txn({ then: [op.put("a", "1"), op.put("b", "2")] });
      const { results } = await store.txn({
        then: [
          op.put("a", "3", { returnPrevious: true }),
          op.put("new", "4", { returnPrevious: true }),
          op.delete({ prefix: "" }, { returnPrevious: true }),
          op.delete({ prefix: "" }, { returnPrevious: true }),
        ],
      });
      const [first, second, third, fourth] = results;
      equal(first?.kind === "put" && first.previous?.text, "1", "the value before");
      equal(second?.kind === "put" && second.previous, null, "what was before a new key");
      equal(
        third?.kind === "delete" && third.previous.map((entry) => `${entry.key}=${entry.text}`),
        ["a=3", "b=2", "new=4"],
        "the deleted",
      );
      equal(fourth?.kind === "delete" && [fourth.count, fourth.previous], [0, []], "the second deletion");
    },
  },
  {
    name: "`add` counts from 0, takes whole numbers in decimal digits only, and refuses to leave 2^53",
    async run(bed) {
      const values = new KeyValue(bed.store());
      equal([await values.add("n", 5), await values.add("n", -7), await values.getText("n")], [5, -2, "-2"], "the sums");
      await values.put("max", String(Number.MAX_SAFE_INTEGER));
      await rejects(() => values.add("max", 1), "NOT_A_NUMBER", "a sum beyond 2^53");
      for (const text of ["", "1.5", "0x10", "1e3", "one"]) {
        await values.put("text", text);
        await rejects(() => values.add("text", 1), "NOT_A_NUMBER", `an add to ${JSON.stringify(text)}`);
      }
      await rejects(() => values.add("n", 0.5), ["NOT_A_NUMBER", "INVALID_OPTION"], "a delta that is not whole");
    },
  },
  {
    name: "keys are bytes in order, whatever they spell",
    async run(bed) {
      const store = bed.store();
      const keys: Uint8Array[] = [
        [0],
        [0, 0],
        [0, 255],
        [1],
        [97],
        [0xc3, 0xa9],
        [0xef, 0xbf, 0xbf],
        [0xf0, 0x9f, 0x94, 0x92],
        [255],
        [255, 255],
      ].map((bytes) => Uint8Array.from(bytes));
      for (const key of [...keys].reverse()) await store.txn({ then: [op.put(key, "v")] });
      const { entries } = await new KeyValue(store).range({ prefix: "" });
      equal(
        entries.map((entry) => [...entry.keyBytes]),
        keys.map((key) => [...key]),
        "the keys in order",
      );
      equal((await new KeyValue(store).range({ prefix: Uint8Array.of(255) })).count, 2, "the keys that start with 0xFF");
      equal(
        (await new KeyValue(store).range({ from: Uint8Array.of(0), to: Uint8Array.of(0, 255) })).count,
        2,
        "the keys of the interval",
      );
    },
  },
  {
    name: "a key given as text is its UTF-8: slashes, spaces and emoji are plain letters",
    async run(bed) {
      const values = new KeyValue(bed.store());
      const keys = ["a b", "a/", "a//b", "é", "🔒/🗝️"];
      for (const key of keys) await values.put(key, key);
      equal(
        (await values.range({ prefix: "" })).entries.map((entry) => [entry.key, entry.text]),
        keys.map((key) => [key, key]),
        "the entries",
      );
      equal(await values.getText(new TextEncoder().encode("🔒/🗝️")), "🔒/🗝️", "the value by the key's bytes");
    },
  },
  {
    name: "namespaces do not leak, whatever their names have in common",
    async run(bed) {
      const root = bed.name();
      const names = [root, `${root}/`, `${root}/a`, `${root}a`, `${root}/a/b`, `${root}🔒`];
      const stores = names.map((name) => bed.engine.store(name));
      for (const [index, store] of stores.entries())
        await store.txn({ then: [op.put("a/b", String(index)), op.put("a", String(index))] });
      for (const [index, store] of stores.entries()) {
        const { entries } = await new KeyValue(store).range({ prefix: "" });
        equal(
          entries.map((entry) => `${entry.key}=${entry.text}`),
          [`a=${index}`, `a/b=${index}`],
          `the entries of ${names[index]}`,
        );
      }
      equal(await new KeyValue(stores[0] as Store).deleteRange({ from: "" }), 2, "the deletion of one whole namespace");
      for (const store of stores.slice(1)) equal((await keysOf(store)).length, 2, `the keys of ${store.namespace}`);
    },
  },
  {
    name: "one txn may touch several namespaces",
    skip: (caps) => (caps.crossNamespace ? undefined : "each namespace is an order of its own"),
    async run(bed) {
      const [here, there] = [bed.store(), bed.store()];
      const both = await here.txn({ then: [op.put("a", "1"), within(there.namespace, op.put("b", "2"))] });
      const entry = await new KeyValue(there).get("b");
      equal([entry?.text, entry?.modRevision], ["2", both.revision], "the entry in the other namespace");
      const guarded = await here.txn({
        if: [within(there.namespace, when.exists("b"))],
        then: [within(there.namespace, op.range({ prefix: "" })), within(there.namespace, op.delete({ key: "b" }))],
      });
      equal([guarded.succeeded, guarded.results.map(summary)], [true, [["b=2"], 1]], "the guarded txn");
      equal([await keysOf(here), await keysOf(there)], [["a"], []], "the keys");
    },
  },
  {
    name: "an older state can be read by its revision",
    skip: (caps) => (caps.olderReads ? undefined : "this engine keeps the present only"),
    async run(bed) {
      const values = new KeyValue(bed.store());
      const first = await values.put("a", "1");
      const second = await values.put("b", "2");
      await values.put("a", "3");
      await values.delete("b");
      const at = async (atRevision: number) =>
        (await values.range({ prefix: "" }, { atRevision })).entries.map((entry) => `${entry.key}=${entry.text}`);
      equal(await at(first), ["a=1"], "the state after the first write");
      equal(await at(second), ["a=1", "b=2"], "the state after the second write");
      equal(await at(second + 2), ["a=3"], "the present state");
      await rejects(() => at(1), "COMPACTED", "a state of long ago");
    },
  },
  {
    name: "a read sees every write that was answered before it",
    skip: (caps) => (caps.linearizable === "per-partition" ? "this engine promises it per partition only" : undefined),
    async run(bed) {
      const name = bed.name();
      const [writer, reader] = [new KeyValue(bed.process().store(name)), new KeyValue(bed.process().store(name))];
      for (let round = 0; round < 20; round++) {
        await writer.put("a", String(round));
        equal(await reader.getText("a"), String(round), "the value read");
      }
    },
  },
  {
    name: "a stale read answers with some state, and in the end with the last one",
    async run(bed) {
      const values = new KeyValue(bed.store());
      await values.put("a", "1");
      await bed.until(async () => (await values.getText("a", { consistency: "stale" })) === "1", "the stale read catches up");
    },
  },
  {
    name: "of two txns that each falsify the other's condition exactly one happens",
    async run(bed) {
      for (let round = 0; round < 20; round++) {
        const store = bed.store();
        await store.txn({ then: [op.put("start", "1")] });
        const attempt = async (absent: string, put: string): Promise<boolean> =>
          (await store.txn({ if: [when.absent(absent)], then: [op.put(put, "1")] })).succeeded;
        const outcomes = await bed.soon(Promise.all([attempt("a", "b"), attempt("b", "a")]), "both answers");
        equal(outcomes.sort(), [false, true], "the outcomes");
        equal((await keysOf(store)).length, 2, "the number of keys");
      }
    },
  },
  {
    name: "concurrent compare-and-sets lose no increment, and each add answers with a sum of its own",
    async run(bed) {
      const values = new KeyValue(bed.store());
      const increment = async (): Promise<void> => {
        for (;;) {
          const entry = await values.get("cas");
          const value = String(Number(entry?.text ?? 0) + 1);
          if ((await values.compareAndSet({ key: "cas", expected: entry?.modRevision ?? null, value })).applied) return;
        }
      };
      await bed.soon(Promise.all(Array.from({ length: 20 }, increment)), "twenty increments are through", 30_000);
      equal(await values.getText("cas"), "20", "the counter");
      const sums = await bed.soon(Promise.all(Array.from({ length: 20 }, () => values.add("n", 1))), "twenty adds are through");
      isRising(
        sums.sort((left, right) => left - right),
        "the sums",
      );
      equal(sums.at(-1), 20, "the last sum");
    },
  },
];

const operators: readonly Operator[] = ["equal", "not-equal", "less", "greater"];

/** Every target with every operator, on a key that is there and on one that is not. */
function compareTable({ entry, session }: { readonly entry: Entry; readonly session: string }): (readonly [Compare, boolean])[] {
  const table: (readonly [Compare, boolean])[] = [];
  for (const target of ["createRevision", "modRevision", "version"] as const) {
    for (const is of operators) {
      for (const by of [-1, 0, 1]) {
        table.push([{ key: "p", target, is, to: entry[target] + by }, says(is, -by)]);
      }
      table.push([{ key: "absent", target, is, to: 0 }, says(is, 0)], [{ key: "absent", target, is, to: 1 }, says(is, -1)]);
    }
  }
  for (const is of operators) {
    for (const [to, order] of [
      ["l", 1],
      ["m", 0],
      ["mm", -1],
      ["n", -1],
      ["", 1],
      [Uint8Array.of(255), -1],
    ] as const) {
      table.push([{ key: "p", target: "value", is, to }, says(is, order)]);
    }
    table.push([{ key: "absent", target: "value", is, to: "" }, is === "not-equal"]);
  }
  const existing = (key: Key, isThere: boolean): (readonly [Compare, boolean])[] => [
    [when.exists(key), isThere],
    [when.absent(key), !isThere],
  ];
  table.push(...existing("p", true), ...existing("absent", false));
  const bound = (key: Subject, to: string | null, isEqual: boolean): (readonly [Compare, boolean])[] => [
    [when.session(key).equals(to), isEqual],
    [when.session(key).differsFrom(to), !isEqual],
  ];
  table.push(
    ...bound("p", session, true),
    ...bound("p", null, false),
    ...bound("absent", session, false),
    ...bound("absent", null, true),
  );
  return table;
}

/** `order`: negative when the key's own lies below what it is compared with. */
function says(is: Operator, order: number): boolean {
  switch (is) {
    case "equal":
      return order === 0;
    case "not-equal":
      return order !== 0;
    case "less":
      return order < 0;
    case "greater":
      return order > 0;
  }
}

function facts(entry: Entry | null): unknown {
  if (entry === null) return null;
  const { createRevision: create, key, modRevision: mod, session, text, version } = entry;
  return { key, text, create, mod, version, session };
}

function summary(result: OpResult): unknown {
  switch (result.kind) {
    case "get":
      return result.entry === null ? null : `${result.entry.key}=${result.entry.text}`;
    case "range":
      return result.entries.map((entry) => `${entry.key}=${entry.text}`);
    case "put":
      return "put";
    case "delete":
      return result.count;
    case "add":
      return result.value;
  }
}

async function keysOf(store: Store): Promise<readonly string[]> {
  const listing: Op = op.range({ prefix: "" }, { keysOnly: true });
  const [result] = (await store.txn({ then: [listing] })).results;
  return result?.kind === "range" ? result.entries.map((entry) => entry.key) : [];
}
