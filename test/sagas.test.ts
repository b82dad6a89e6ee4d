/**
 * Sagas on a real store: order, refusals, the pivot, take-over, keys, and what they write.
 */
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { ConclaveEvent } from "../src/base/event.ts";
import { volatileWords } from "../src/coordinator/options.ts";
import type { SagaCheckpoint } from "../src/coordinator/saga-run.ts";
import { type Conclave, connect } from "../src/index.ts";
import { Abort } from "../src/transactions/errors.ts";
import { transactions } from "../src/transactions/manager.ts";
import { barrierStep, type Saga, saga } from "../src/transactions/saga.ts";
import { type SagaRunner, sagas } from "../src/transactions/saga-manager.ts";
import { storeBarrier } from "../src/transactions/store-barrier.ts";
import { storeResource } from "../src/transactions/store-branch.ts";

interface Input {
  readonly amount: number;
  readonly refuse?: string;
}

let conclave: Conclave;
let did: string[] = [];
let writes = 0;
const events: ConclaveEvent[] = [];
const open: (() => Promise<void>)[] = [];

beforeEach(async () => {
  did = [];
  events.length = 0;
  conclave = await connect("memory:");
});

afterEach(async () => {
  for (const close of open.splice(0).reverse()) await close();
  await conclave.close();
});

/** A step that takes from an account of its own, once, by its barrier. */
function take(name: string) {
  return barrierStep(storeBarrier(conclave.engine, { name, namespace: "accounts" }), {
    do: async (handle, { input, branch }: { input: Input; branch: number }) => {
      if (input.refuse === name) throw new Abort(`${name} refuses`, { branch });
      did.push(name);
      handle.add(name, -input.amount);
      return { took: input.amount };
    },
    undo: (handle, done) => {
      did.push(`undo ${name}`);
      handle.add(name, done.took);
    },
    attemptsMax: 3,
  });
}

function trip() {
  return saga<Input>("trip@1")
    .step("hotel", take("hotel"))
    .together({ car: take("car"), train: take("train") })
    .pivot("pay", take("pay"))
    .retriable("mail", {
      do: ({ results }) => {
        did.push("mail");
        // Typed: the steps before are known.
        return results.hotel.took + results.car.took + results.pay.took;
      },
    });
}

async function process(
  definitions: readonly Saga<never, unknown>[],
  checkpoint?: (at: SagaCheckpoint, name: string) => Promise<void> | undefined,
  /** As if killed: nothing that its sagas write arrives. */
  isDead: () => boolean = () => false,
): Promise<{ readonly runner: SagaRunner; readonly die: () => Promise<void> }> {
  const engine = conclave.engine;
  const tm = await transactions({
    store: engine,
    resources: { bank: storeResource({ namespace: "accounts" }) },
    acceptVolatileDecisions: volatileWords,
  });
  const counting = {
    ...engine,
    caps: engine.caps,
    store: (namespace: string) => counted(engine.store(namespace), isDead),
  } as never;
  const runner = sagas({
    transactions: tm,
    store: counting,
    definitions,
    scanEveryMs: 200,
    retryMsMin: 5,
    retryMsMax: 50,
    onEvent: (event) => events.push(event),
    ...(checkpoint === undefined ? {} : { checkpoint: (at, _gid, name) => checkpoint(at, name) }),
  });
  const die = async (): Promise<void> => {
    await runner.close();
    await tm.close();
  };
  open.push(die);
  return { runner, die };
}

/** Counts what changes the record of a saga. */
function counted<S extends { txn: (txn: never, options?: never) => Promise<unknown> }>(store: S, isDead: () => boolean): S {
  return new Proxy(store, {
    get: (target, name) => {
      if (name !== "txn") {
        const value = Reflect.get(target, name);
        return typeof value === "function" ? value.bind(target) : value;
      }
      return (txn: { then: readonly { kind: string }[] }, options: never) => {
        if (isDead()) return Promise.reject(new Error("This process is dead."));
        if (txn.then.some(({ kind }) => kind !== "get" && kind !== "range")) writes++;
        return target.txn(txn as never, options);
      };
    },
  });
}

async function account(name: string): Promise<number> {
  const { results } = await conclave.engine.store("accounts").txn({ then: [{ kind: "get", key: name }] });
  return results[0]?.kind === "get" ? Number(results[0].entry?.text ?? 0) : Number.NaN;
}

async function left(): Promise<readonly string[]> {
  const { results } = await conclave.engine.store("transactions").txn({ then: [{ kind: "range", range: { prefix: "" } }] });
  const [all] = results;
  return all?.kind === "range" ? all.entries.map(({ key }) => key).filter((key) => /^[mdhsk]\//.test(key)) : [];
}

async function until(holds: () => Promise<boolean> | boolean, what: string): Promise<void> {
  for (const startedMs = Date.now(); Date.now() - startedMs < 20_000; ) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`After 20 s still not: ${what}; did: ${did.join(", ")}; left: ${(await left()).join(", ")}`);
}

describe("a saga", { timeout: 60_000 }, () => {
  test("goes through its stages in order, and writes twice, whatever the number of steps", async () => {
    const { runner } = await process([trip()]);
    writes = 0;
    const end = await runner.run(trip(), { amount: 5 });
    // The end is written later, with those of others.
    expect(writes).toBe(2);
    expect(end).toMatchObject({ kind: "completed", results: { hotel: { took: 5 }, mail: 15 } });
    expect(did[0]).toBe("hotel");
    expect(did.slice(1, 3).sort()).toEqual(["car", "train"]);
    expect(did.slice(3)).toEqual(["pay", "mail"]);
    await until(async () => (await left()).length === 0, "its record is gone");
    expect(writes).toBe(3);
    expect(await runner.outcome(end.gid)).toMatchObject({ kind: "completed", results: { mail: 15 } });
  });

  test("a refusal before the pivot undoes what was done, last stage first; one of the pivot the same", async () => {
    const { runner } = await process([trip()]);
    expect(await runner.run(trip(), { amount: 5, refuse: "train" })).toMatchObject({
      kind: "compensated",
      why: "train: train refuses",
      details: { branch: 3 },
    });
    expect(did).toEqual(["hotel", "car", "undo car", "undo hotel"]);
    did = [];
    writes = 0;
    expect(await runner.run(trip(), { amount: 5, refuse: "pay" })).toMatchObject({
      kind: "compensated",
      why: "pay: pay refuses",
    });
    expect(writes).toBe(2);
    expect(did.slice(3, 5).sort()).toEqual(["undo car", "undo train"]);
    expect(did.slice(5)).toEqual(["undo hotel"]);
    expect(await account("hotel")).toBe(0);
    expect(await account("car")).toBe(0);
  });

  test("a key runs once, also while it runs; other input is refused", async () => {
    const { runner } = await process([trip()]);
    const [first, second] = await Promise.all([
      runner.run(trip(), { amount: 1 }, { key: "k" }),
      runner.run(trip(), { amount: 1 }, { key: "k" }),
    ]);
    expect(first.gid).toBe(second.gid);
    expect(await runner.run(trip(), { amount: 1 }, { key: "k" })).toMatchObject({
      gid: first.gid,
      isReplay: true,
      kind: "completed",
    });
    await expect(runner.run(trip(), { amount: 2 }, { key: "k" })).rejects.toMatchObject({ code: "TRANSACTION_KEY_REUSED" });
    await until(async () => (await left()).length === 0, "its record is gone");
    expect(await runner.run(trip(), { amount: 1 }, { key: "k" })).toMatchObject({ gid: first.gid, isReplay: true });
    await expect(runner.run(trip(), { amount: 2 }, { key: "k" })).rejects.toMatchObject({ code: "TRANSACTION_KEY_REUSED" });
    expect(await account("pay")).toBe(-1);
  });

  for (const [at, name, kind] of [
    ["saga-begun", "", "completed"],
    ["saga-done", "hotel", "completed"],
    ["saga-do", "pay", "completed"],
    ["saga-done", "pay", "completed"],
    ["saga-do", "mail", "completed"],
    ["saga-ending", "", "completed"],
    ["saga-refused", "train", "compensated"],
    ["saga-undo", "car", "compensated"],
    ["saga-undone", "car", "compensated"],
  ] as const) {
    test(`whose process dies at ${at} ${name} is taken over, and every step happens once`, async () => {
      const refuse = kind === "compensated" ? { refuse: "train" } : {};
      const hang = await process([trip()], (step, stepName) =>
        step === at && stepName === name ? new Promise<void>(() => undefined) : undefined,
      );
      const started = hang.runner.start(trip(), { amount: 7, ...refuse }, { key: "order" });
      started.catch(() => undefined);
      await until(async () => (await left()).some((key) => key.startsWith("s/")), "it is written down");
      // Long enough to come to its point; what is judged does not depend on it.
      await new Promise((resolve) => setTimeout(resolve, 150));
      const other = await process([trip()]);
      await hang.die();
      await until(async () => (await left()).length === 0, "somebody ended it");
      const again = await other.runner.run(trip(), { amount: 7, ...refuse }, { key: "order" });
      expect(again).toMatchObject({ kind, isReplay: true });
      const due = kind === "completed" ? -7 : 0;
      for (const each of ["hotel", "car", "train", "pay"])
        expect(await account(each), each).toBe(each === "train" && due === 0 ? 0 : due);
      expect(events.some((event) => event.kind === "saga.taken-over")).toBe(true);
    });
  }

  test("a step without an answer is asked again, then turns the saga back; behind the pivot it is asked until it is done, and told", async () => {
    let mails = 0;
    let pings = 0;
    const flaky = saga<Input>("flaky@1")
      .step("hotel", take("hotel"))
      .step("ping", {
        do: () => {
          pings++;
          throw new Error("the line is dead");
        },
        attemptsMax: 3,
      });
    const stubborn = saga<Input>("stubborn@1")
      .step("hotel", take("hotel"))
      .pivot("pay", take("pay"))
      .retriable("mail", {
        do: () => {
          mails++;
          if (mails < 12) throw mails % 2 === 0 ? new Abort("mailbox full") : new Error("no route");
          return mails;
        },
      });
    const { runner } = await process([flaky, stubborn]);
    expect(await runner.run(flaky, { amount: 2 })).toMatchObject({ kind: "compensated", why: "ping: the line is dead" });
    expect(pings).toBe(3);
    expect(await account("hotel")).toBe(0);
    expect(await runner.run(stubborn, { amount: 2 })).toMatchObject({ kind: "completed", results: { mail: 12 } });
    expect(events.filter((event) => event.kind === "saga.attention")).toMatchObject([{ step: "mail" }]);
    expect(runner.figures).toMatchObject({ running: expect.any(Number), completed: 1, compensated: 1, needsAttention: 0 });
  });

  test("its time turns it back before the pivot, and not behind it", async () => {
    const slow = saga<Input>("slow@1")
      .step("hotel", take("hotel"))
      .step("wait", { do: ({ signal }) => new Promise((_, reject) => signal.addEventListener("abort", reject)), timeoutMs: 200 })
      .pivot("pay", take("pay"));
    const late = saga<Input>("late@1")
      .pivot("pay", { do: () => new Promise((resolve) => setTimeout(() => resolve("paid"), 400)) })
      .retriable("mail", { do: () => "sent" });
    const { runner } = await process([slow, late]);
    expect(await runner.run(slow, { amount: 2 }, { timeoutMs: 100 })).toMatchObject({
      kind: "compensated",
      why: "its time was over",
    });
    expect(await account("hotel")).toBe(0);
    expect(await runner.run(late, { amount: 2 }, { timeoutMs: 100 })).toMatchObject({ kind: "completed" });
  });

  test("one without a pivot that was answered stays completed, though its process died before its end was written and its time is over", async () => {
    const plain = () => saga<Input>("plain@1").step("hotel", take("hotel")).step("car", take("car"));
    let isDead = false;
    const first = await process([plain()], undefined, () => isDead);
    const started = await first.runner.start(plain(), { amount: 3 }, { timeoutMs: 150 });
    writes = 0;
    expect(await started.outcome()).toMatchObject({ kind: "completed" });
    expect(writes).toBe(1);
    isDead = true;
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect((await left()).some((key) => key.startsWith("s/"))).toBe(true);
    const heir = await process([plain()]);
    await first.die();
    await until(async () => (await left()).length === 0, "somebody ended it");
    expect(await heir.runner.outcome(started.gid)).toMatchObject({ kind: "completed", results: { car: { took: 3 } } });
    expect([await account("hotel"), await account("car")]).toEqual([-3, -3]);
    expect(did).toEqual(["hotel", "car"]);
  });

  test("a compensation that does not get through is told, the others go on, and it is tried until it does", async () => {
    let tries = 0;
    const sticky = saga<Input>("sticky@1")
      .step("hotel", take("hotel"))
      .step("glue", {
        do: () => "stuck",
        undo: () => {
          tries++;
          if (tries < 14) throw new Error("glued");
        },
      })
      .step("train", take("train"));
    const { runner } = await process([sticky]);
    expect(await runner.run(sticky, { amount: 3, refuse: "train" })).toMatchObject({ kind: "compensated" });
    expect(tries).toBe(14);
    expect(events.find((event) => event.kind === "saga.attention")).toMatchObject({ step: "glue", why: "glued" });
    expect(did.at(-1)).toBe("undo hotel");
  });

  test("a process that lacks a saga's version leaves it to one that has it, and shows it", async () => {
    const { runner, die } = await process([trip()], (at) =>
      at === "saga-begun" ? new Promise<void>(() => undefined) : undefined,
    );
    runner.start(trip(), { amount: 1 }, { key: "v" }).catch(() => undefined);
    await until(async () => (await left()).some((key) => key.startsWith("s/")), "it is written down");
    const newer = saga<Input>("trip@2").step("hotel", take("hotel"));
    const second = await process([newer]);
    await die();
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(await second.runner.list()).toMatchObject([{ isMinded: false, record: { name: "trip@1", turn: "none" } }]);
    await process([trip(), newer]);
    await until(async () => (await left()).length === 0, "the one that knows it ended it");
    expect(await account("pay")).toBe(-1);
  });

  test("bad input: a name without a version, two steps of a name, a saga that is not there, input that is too long", async () => {
    expect(() => saga("trip")).toThrow(expect.objectContaining({ code: "INVALID_OPTION" }));
    expect(() => saga<Input>("a@1").step("x", take("x")).step("x", take("x"))).toThrow(
      expect.objectContaining({ code: "INVALID_OPTION" }),
    );
    expect(() => saga("a@1").step("x", {} as never)).toThrow(expect.objectContaining({ code: "INVALID_OPTION" }));
    const { runner } = await process([trip()]);
    await expect(runner.run(saga<Input>("b@1").step("x", take("x")), { amount: 1 })).rejects.toMatchObject({
      code: "INVALID_OPTION",
    });
    await expect(runner.run(trip(), { amount: 1, refuse: "x".repeat(70_000) })).rejects.toMatchObject({
      code: "VALUE_TOO_LARGE",
    });
    await expect(runner.outcome("cv1.abcdef.abcdefgh.1.1")).rejects.toMatchObject({ code: "TRANSACTION_UNKNOWN" });
  });
});
