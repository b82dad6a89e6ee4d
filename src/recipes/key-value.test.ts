import { expect, test } from "vitest";
import { LocalEngine } from "../testing/local-engine.ts";
import { VirtualPlatform } from "../testing/virtual-platform.ts";
import { KeyValue } from "./key-value.ts";
import { every, op, when, within } from "./when.ts";

function open() {
  const engine = new LocalEngine({ platform: new VirtualPlatform() });
  return { engine, values: new KeyValue(engine.store("data")) };
}

test("each word is one round trip", async () => {
  const { engine, values } = open();
  const acts = [
    () => values.put("a", "1"),
    () => values.get("a"),
    () => values.getText("a"),
    () => values.range({ prefix: "" }),
    () => values.add("n", 1),
    () => values.compareAndSet({ key: "a", expected: null, value: "2" }),
    () => values.delete("a"),
    () => values.deleteRange({ prefix: "" }),
    () => values.txn({ then: [op.get("a")] }),
  ];
  for (const [index, act] of acts.entries()) {
    await act();
    expect(engine.txnCount).toBe(index + 1);
  }
});

test("compareAndSet writes only what nobody has changed, creates, deletes, and tells what stood in the way", async () => {
  const { values } = open();
  const created = await values.compareAndSet({ key: "a", expected: null, value: "1" });
  expect(created).toMatchObject({ applied: true, current: null });
  expect(await values.compareAndSet({ key: "a", expected: null, value: "2" })).toMatchObject({
    applied: false,
    current: { text: "1" },
  });
  const changed = await values.compareAndSet({ key: "a", expected: created.revision, value: "2" });
  expect(changed.applied).toBe(true);
  expect(await values.compareAndSet({ key: "a", expected: created.revision, value: null })).toMatchObject({ applied: false });
  expect(await values.compareAndSet({ key: "a", expected: changed.revision, value: null })).toMatchObject({ applied: true });
  expect(await values.compareAndSet({ key: "a", expected: changed.revision, value: "3" })).toMatchObject({
    applied: false,
    current: null,
  });
});

test("a put binds to a session where one is given", async () => {
  const { engine, values } = open();
  const session = await engine.store("data").session();
  await values.put("a", "1", { session: session.id });
  await values.compareAndSet({ key: "b", expected: null, value: "1", session: session.id });
  expect((await values.get("a"))?.session).toBe(session.id);
  await session.close();
  expect((await values.range({ prefix: "" })).count).toBe(0);
});

test("conditions and operations are what their words say", () => {
  expect(when.exists("a")).toEqual({ key: "a", target: "exists", is: "equal", to: true });
  expect(when.absent(every({ prefix: "a" }))).toEqual({ range: { prefix: "a" }, target: "exists", is: "equal", to: false });
  expect(when.version("a").isAbove(3)).toEqual({ key: "a", target: "version", is: "greater", to: 3 });
  expect(within("n", when.session("a").differsFrom(null))).toEqual({
    key: "a",
    target: "session",
    is: "not-equal",
    to: null,
    namespace: "n",
  });
  expect(within("n", op.put("a", "v", { returnPrevious: true }))).toEqual({
    kind: "put",
    key: "a",
    value: "v",
    returnPrevious: true,
    namespace: "n",
  });
});

test("a key given as bytes is a key, not a range", () => {
  const key = Uint8Array.of(1);
  expect(when.value(key).equals("v")).toEqual({ key, target: "value", is: "equal", to: "v" });
});
