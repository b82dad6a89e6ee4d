/**
 * Sessions: what is bound to them, and whose clock says how long they last.
 */
import { LostError } from "../../base/errors.ts";
import { KeyValue } from "../../recipes/key-value.ts";
import { op } from "../../recipes/when.ts";
import { equal, isTrue, rejects } from "./check.ts";
import type { ContractCase } from "./contract-case.ts";

export const sessionCases: readonly ContractCase[] = [
  {
    name: "what is bound to a session vanishes when it is closed, and nothing else does",
    async run(bed) {
      const store = bed.store();
      const [session, other] = [await store.session(), await store.session()];
      isTrue(session.id !== other.id, "two sessions have two ids");
      await store.txn({
        then: [
          op.put("bound", "1", { session: session.id }),
          op.put("free", "1"),
          op.put("others", "1", { session: other.id }),
          op.put("unbound", "1", { session: session.id }),
          op.put("moved", "1", { session: session.id }),
          op.put("taken", "1"),
        ],
      });
      // A put decides the binding anew.
      await store.txn({
        then: [
          op.put("unbound", "2"),
          op.put("moved", "2", { session: other.id }),
          op.put("taken", "2", { session: session.id }),
        ],
      });
      await session.close();
      await session.close();
      const keys = async () => (await new KeyValue(store).range({ prefix: "" })).entries.map((entry) => entry.key);
      equal(await keys(), ["free", "moved", "others", "unbound"], "the keys after the end of one session");
      await other.close();
      equal(await keys(), ["free", "unbound"], "the keys after the end of both");
    },
  },
  {
    name: "an `add` keeps the binding of its key",
    async run(bed) {
      const store = bed.store();
      const session = await store.session();
      await store.txn({ then: [op.put("n", "1", { session: session.id })] });
      await store.txn({ then: [op.add("n", 1)] });
      equal((await new KeyValue(store).get("n"))?.session, session.id, "the session of the counter");
      await session.close();
      equal(await new KeyValue(store).get("n"), null, "the counter after the end of its session");
    },
  },
  {
    name: "the keys of a session go in all namespaces",
    skip: (caps) => (caps.crossNamespace ? undefined : "each namespace is an order of its own"),
    async run(bed) {
      const stores = [bed.store(), bed.store()];
      const session = await bed.store().session();
      for (const store of stores) await store.txn({ then: [op.put("a", "1", { session: session.id })] });
      await session.close();
      for (const store of stores) equal(await new KeyValue(store).get("a"), null, `the key in ${store.namespace}`);
    },
  },
  {
    name: "nothing can be bound to a session that has ended",
    async run(bed) {
      const store = bed.store();
      const session = await store.session();
      await session.close();
      await rejects(
        () => store.txn({ then: [op.put("a", "1"), op.put("b", "1", { session: session.id })] }),
        "SESSION_EXPIRED",
        "a put bound to it",
      );
      equal((await new KeyValue(store).range({ prefix: "" })).count, 0, "the number of keys");
    },
  },
  {
    name: "a session lives by its own clock: two thirds of the TTL from the moment of asking, renewed in time",
    async run(bed) {
      const ttlMs = Math.max(bed.caps.limits.ttlMsMin, 1_500);
      const askedMs = bed.platform.now();
      await using session = await bed.store().session({ ttlMs });
      equal(session.ttlMs, ttlMs, "the TTL");
      isTrue(session.alive && !session.lost.aborted, "a new session is alive");
      isTrue(
        session.deadline >= askedMs && session.deadline <= session.now() + (ttlMs * 2) / 3,
        "the deadline lies within two thirds of the TTL",
      );
      const first = session.deadline;
      for (let passed = 0; passed < 3 * ttlMs; passed += ttlMs / 6) {
        await bed.pass(ttlMs / 6);
        isTrue(session.alive && !session.lost.aborted, "a session that is confirmed stays alive");
        isTrue(
          session.deadline <= session.now() + (ttlMs * 2) / 3,
          "the deadline never lies beyond two thirds of the TTL from now",
        );
      }
      isTrue(session.deadline > first, "the deadline has moved");
    },
  },
  {
    name: "a closed session is lost at once, and says so with a LostError",
    async run(bed) {
      const session = await bed.store().session();
      let heard = 0;
      session.lost.addEventListener("abort", () => heard++);
      const letGo = session.hold();
      await session.close();
      letGo();
      letGo();
      isTrue(!session.alive && session.lost.aborted && heard === 1, "it is not alive, and `lost` has fired once");
      isTrue(session.lost.reason instanceof LostError, "the reason is a LostError");
    },
  },
  {
    name: "the shared session is one per TTL",
    async run(bed) {
      const [store, other] = [bed.store(), bed.store()];
      const [a, b] = await Promise.all([store.sharedSession(), store.sharedSession()]);
      equal(a.id, b.id, "the id of the shared session");
      if (bed.caps.crossNamespace)
        equal((await other.sharedSession()).id, a.id, "the id of the shared session in another namespace");
      isTrue((await store.sharedSession({ ttlMs: 20_000 })).id !== a.id, "another TTL has another session");
      isTrue((await store.session()).id !== a.id, "a session asked for by itself is not the shared one");
    },
  },
  {
    name: "a silent client counts its session as lost before the store lets the keys go",
    isolates: true,
    async run(bed) {
      const client = await bed.isolate();
      const ttlMs = Math.max(bed.caps.limits.ttlMsMin, 1_500);
      const name = bed.name();
      const session = await client.engine.store(name).session({ ttlMs });
      await client.engine.store(name).txn({ then: [op.put("a", "1", { session: session.id })] });
      client.cutOff();
      const values = new KeyValue(bed.engine.store(name));
      await bed.until(
        async () => {
          const isThere = (await values.get("a")) !== null;
          isTrue(isThere || !session.alive, "the key is there as long as its session counts itself as alive");
          return !isThere;
        },
        "the store lets the key go",
        4 * ttlMs,
      );
      isTrue(session.lost.aborted && session.lost.reason instanceof LostError, "`lost` has fired without a network");
    },
  },
];
