/**
 * Limits and claims: what is refused, for certain and by name; and what happens once however often it is sent.
 */
import { compareBytes, utf8Encode } from "../../base/bytes.ts";
import type { ErrorCode } from "../../base/errors.ts";
import { KeyValue } from "../../recipes/key-value.ts";
import { op, when } from "../../recipes/when.ts";
import type { Claim, Store, TxnResult } from "../../store/store.ts";
import { equal, isTrue, rejects } from "./check.ts";
import type { ContractCase } from "./contract-case.ts";
import type { TestBed } from "./test-bed.ts";

const needsClaims: ContractCase["skip"] = (caps) =>
  caps.claims ? undefined : "this engine has no claims; recipes are idempotent by key names";

export const limitCases: readonly ContractCase[] = [
  {
    name: "namespaces that hold a key are listed in order, by prefix and page; what is empty is not",
    async run(bed) {
      const { engine } = bed;
      // Left out where an engine cannot; `Engine.namespaces` is optional.
      if (engine.namespaces === undefined) return;
      const root = `${bed.name()}/`;
      const names = ["a", "a/b", "a b", "a\u0001", "é", "🔒/%2F", "z"].map((name) => `${root}${name}`);
      for (const name of [...names, `${root}emptied`])
        await engine.store(name).txn({ then: [op.put("k", "v"), op.put("l", "v")] });
      // More keys than one step reads.
      const many = Array.from({ length: 30 }, (_, at) => op.put(`many-${at}`, "v"));
      for (let time = 0; time < 4; time++) {
        const puts = many.map((put) => ({ ...put, key: `${String(put.key)}-${time}` }));
        await engine.store(`${root}a`).txn({ then: puts });
      }
      await engine.store(`${root}emptied`).txn({ then: [op.delete({ prefix: "" })] });
      const byBytes = [...names].sort((left, right) => compareBytes(utf8Encode(left), utf8Encode(right)));
      equal(await engine.namespaces({ prefix: root }), byBytes, "all of them");
      equal(await engine.namespaces({ prefix: `${root}a/` }), [`${root}a/b`], "by prefix");
      const paged: string[] = [];
      for (;;) {
        const after = paged.at(-1);
        const page = await engine.namespaces({ prefix: root, limit: 2, ...(after === undefined ? {} : { after }) });
        paged.push(...page);
        if (page.length < 2) break;
      }
      equal(paged, byBytes, "all of them, two at a time");
      await rejects(async () => engine.namespaces?.({ limit: 0 }), "INVALID_OPTION", "a limit of nothing");
    },
  },
  {
    name: "an empty key is refused",
    run: (bed) => isRefused(bed, (store) => store.txn({ then: [op.put("", "v")] }), "KEY_INVALID", "an empty key"),
  },
  {
    name: "a key of 10 MB is refused",
    run: (bed) =>
      isRefused(bed, (store) => store.txn({ then: [op.put("k".repeat(10_000_000), "v")] }), "KEY_TOO_LARGE", "the key"),
  },
  {
    name: "a key counts by its bytes",
    async run(bed) {
      const emoji = "🔒".repeat(Math.ceil(bed.caps.limits.keyBytesMax / 4) + 1);
      await isRefused(bed, (store) => store.txn({ then: [op.get(emoji)] }), "KEY_TOO_LARGE", "the key");
      const store = bed.store();
      // Room for the namespace, which counts.
      const key = "k".repeat(bed.caps.limits.keyBytesMax - store.namespace.length - 64);
      await store.txn({ then: [op.put(key, "v")] });
      equal(await new KeyValue(store).getText(key), "v", "the value of a long key");
    },
  },
  {
    name: "a value up to the limit is kept, and one byte more is refused",
    async run(bed) {
      const bytesMax = bed.caps.limits.valueBytesMax;
      const values = new KeyValue(bed.store());
      await values.put("a", new Uint8Array(bytesMax).fill(7));
      const entry = await values.get("a");
      isTrue(entry?.value.length === bytesMax && entry.value.every((byte) => byte === 7), "the whole value comes back");
      await isRefused(
        bed,
        (store) => store.txn({ then: [op.put("a", new Uint8Array(bytesMax + 1))] }),
        "VALUE_TOO_LARGE",
        "the value",
      );
    },
  },
  {
    name: "a txn with too many operations or compares, or too many bytes, is refused",
    async run(bed) {
      const { txnBytesMax, txnOpsMax, valueBytesMax } = bed.caps.limits;
      const gets = Array.from({ length: txnOpsMax + 1 }, () => op.get("a"));
      await isRefused(bed, (store) => store.txn({ then: gets }), "TXN_TOO_LARGE", "the txn by its operations");
      await isRefused(bed, (store) => store.txn({ then: [], else: gets }), "TXN_TOO_LARGE", "the txn by its else");
      const compares = gets.map(() => when.absent("a"));
      await isRefused(bed, (store) => store.txn({ if: compares, then: [] }), "TXN_TOO_LARGE", "the txn by its compares");
      const puts = Array.from({ length: Math.ceil(txnBytesMax / valueBytesMax) + 1 }, (_, index) =>
        op.put(`k${index}`, new Uint8Array(valueBytesMax)),
      );
      if (puts.length <= txnOpsMax)
        await isRefused(bed, (store) => store.txn({ then: puts }), "TXN_TOO_LARGE", "the txn by its bytes");
      await bed.store().txn({ then: gets.slice(1) });
    },
  },
  {
    name: "a TTL that is negative, no number, or out of range is refused",
    async run(bed) {
      const { ttlMsMax, ttlMsMin } = bed.caps.limits;
      for (const ttlMs of [-1, 0, Number.NaN, ttlMsMin - 1, ttlMsMax + 1, Number.POSITIVE_INFINITY]) {
        await isRefused(bed, (store) => store.session({ ttlMs }), "INVALID_OPTION", `a TTL of ${ttlMs}`);
      }
    },
  },
  {
    name: "a namespace with U+0000 is refused",
    run: (bed) =>
      isRefused(
        bed,
        async () => bed.engine.store(`${bed.name()}\u0000x`).txn({ then: [op.get("a")] }),
        "INVALID_OPTION",
        "the namespace",
      ),
  },
  {
    name: "what was aborted before it was sent rejects with the signal's reason, and did not happen",
    async run(bed) {
      const store = bed.store();
      const reason = new Error("enough");
      const sent = store.txn({ then: [op.put("a", "1")] }, { signal: AbortSignal.abort(reason) });
      const error = await sent.catch((caught: unknown) => caught);
      isTrue(error === reason, "the reason comes back as it is");
      equal(await new KeyValue(store).get("a"), null, "the key");
    },
  },
  {
    name: "a mutation sent twice under one claim happens once and answers the same",
    skip: needsClaims,
    async run(bed) {
      const store = bed.store();
      await using session = await store.session();
      const claim: Claim = { session: session.id, sequence: 1, lowestOpen: 1 };
      const add = (): Promise<TxnResult> => store.txn({ then: [op.add("n", 1)], claim });
      const first = await add();
      await store.txn({ then: [op.put("other", "x")] });
      equal(await add(), first, "the second answer");
      equal(await new KeyValue(store).getText("n"), "1", "the counter");
      // A new sequence is a new mutation.
      await store.txn({ then: [op.add("n", 1)], claim: { ...claim, sequence: 2 } });
      equal(await new KeyValue(store).getText("n"), "2", "the counter");
    },
  },
  {
    name: "a claim answers with its first outcome also when the compares would hold by now",
    skip: needsClaims,
    async run(bed) {
      const store = bed.store();
      await using session = await store.session();
      const claim: Claim = { session: session.id, sequence: 1, lowestOpen: 1 };
      const attempt = (): Promise<TxnResult> =>
        store.txn({ if: [when.exists("gate")], then: [op.put("a", "then")], else: [op.put("a", "else")], claim });
      equal((await attempt()).succeeded, false, "the first outcome");
      await store.txn({ then: [op.put("gate", "")] });
      equal((await attempt()).succeeded, false, "the second outcome");
      equal(await new KeyValue(store).getText("a"), "else", "the value");
    },
  },
  {
    name: "a claim below the lowest open one is refused and does not run again",
    skip: needsClaims,
    async run(bed) {
      const store = bed.store();
      await using session = await store.session();
      const claimed = (sequence: number, lowestOpen: number): Promise<TxnResult> =>
        store.txn({ then: [op.add("n", 1)], claim: { session: session.id, sequence, lowestOpen } });
      await claimed(1, 1);
      await claimed(2, 2);
      await rejects(() => claimed(1, 1), "CLAIM_TOO_OLD", "a claim that was answered long ago");
      // Given up before it arrived: its client does not wait for it any more.
      await claimed(4, 4);
      await rejects(() => claimed(3, 3), "CLAIM_TOO_OLD", "a claim that arrives late");
      equal(await new KeyValue(store).getText("n"), "3", "the counter");
    },
  },
  {
    name: "claims of different sessions do not meet, and those of an ended session are refused",
    skip: needsClaims,
    async run(bed) {
      const store = bed.store();
      const [one, two] = [await store.session(), await store.session()];
      const claimed = (session: string): Promise<TxnResult> =>
        store.txn({ then: [op.add("n", 1)], claim: { session, sequence: 1, lowestOpen: 1 } });
      await claimed(one.id);
      await claimed(two.id);
      equal(await new KeyValue(store).getText("n"), "2", "the counter");
      await one.close();
      await rejects(() => claimed(one.id), "SESSION_EXPIRED", "a claim of an ended session");
      equal(await new KeyValue(store).getText("n"), "2", "the counter");
      await two.close();
    },
  },
];

/** Refused for certain, and the store works on. */
async function isRefused(bed: TestBed, act: (store: Store) => Promise<unknown>, code: ErrorCode, what: string): Promise<void> {
  const store = bed.store();
  const error = await rejects(() => act(store), code, what);
  isTrue(
    error.definite && !error.retryable,
    `the refusal of ${what} says that it did not happen, and that trying again is no use`,
  );
  await store.txn({ then: [op.put("after", "1")] });
  equal((await new KeyValue(store).range({ prefix: "" })).count, 1, "the number of keys afterwards");
}
