/**
 * Services over HTTP in transactions: Try, Confirm and Cancel through real sockets, on a barrier in the store. The barrier in SQL is
 * the same judge over other rows: `transactions-barriers.postgres-mariadb.test.ts`.
 */
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { volatileWords } from "../src/coordinator/options.ts";
import { type Conclave, connect } from "../src/index.ts";
import { Abort, type TransactionAborted } from "../src/transactions/errors.ts";
import { type HttpResource, http } from "../src/transactions/http.ts";
import { type TransactionManager, transactions } from "../src/transactions/manager.ts";
import { storeBarrier } from "../src/transactions/store-barrier.ts";
import { type StoreHandle, type StoreResource, storeResource } from "../src/transactions/store-branch.ts";
import { tccHandler } from "../src/transactions/tcc-handler.ts";
import { type TccService, tccService } from "../src/transactions/tcc-service.ts";

type Shop = { readonly stock: HttpResource; readonly pay: HttpResource; readonly orders: StoreResource };

/** What happens to the next answers of a service: the request is served in full, and its answer is lost. */
interface Weather {
  loseAnswers: number;
  down: boolean;
}

let conclave: Conclave;
let tm: TransactionManager<Shop>;
const open: (() => unknown)[] = [];
const weather: Record<"stock" | "pay", Weather> = { stock: calm(), pay: calm() };
let runs: string[] = [];
let urls: Record<"stock" | "pay", string>;

function calm(): Weather {
  return { loseAnswers: 0, down: false };
}

beforeEach(async () => {
  runs = [];
  Object.assign(weather, { stock: calm(), pay: calm() });
  conclave = await connect("memory:");
  urls = { stock: await serve("stock"), pay: await serve("pay") };
  tm = await transactions<Shop>({
    store: conclave.engine,
    resources: {
      stock: http({ url: urls.stock, answerMs: 1_000 }),
      pay: http({ url: urls.pay, answerMs: 1_000 }),
      orders: storeResource({ namespace: "orders" }),
    },
    answerMs: 500,
    scanEveryMs: 300,
    acceptVolatileDecisions: volatileWords,
  });
});

afterEach(async () => {
  for (const close of open.splice(0)) await close();
  await tm.close();
  await conclave.close();
});

/** Each service counts: `<name>/free` falls with a Try, `<name>/sold` rises with a Confirm. */
function service(name: "stock" | "pay"): TccService<StoreHandle> {
  const number = async (handle: StoreHandle, key: string): Promise<number> => Number((await handle.get(key))?.text ?? 0);
  return tccService({
    barrier: storeBarrier(conclave.engine, { name, namespace: name }),
    actions: {
      take: {
        try: async ({ handle, body, branch }) => {
          const free = await number(handle, "free");
          runs.push(`${name} try ${branch}`);
          if (free < body.count) throw new Abort("sold out", { free });
          handle.put("free", String(free - body.count));
          return { count: body.count };
        },
        confirm: ({ handle, tried, branch }) => {
          runs.push(`${name} confirm ${branch}`);
          handle.add("sold", tried.count);
        },
        cancel: async ({ handle, tried, branch }) => {
          runs.push(`${name} cancel ${branch}`);
          handle.add("free", tried.count);
        },
      },
    },
  });
}

async function serve(name: "stock" | "pay"): Promise<string> {
  await conclave.engine.store(name).txn({ then: [{ kind: "put", key: "free", value: "10" }] });
  const handler = tccHandler(service(name));
  const server = createServer((request, response) => {
    const now = weather[name];
    if (now.down) return request.socket.destroy();
    if (now.loseAnswers > 0) {
      now.loseAnswers--;
      response.end = () => request.socket.destroy() as never;
    }
    void handler(request, response);
  });
  await listen(server);
  open.push(
    () => server.closeAllConnections(),
    () => server.close(),
  );
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/tx`;
}

function listen(server: Server): Promise<void> {
  return new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
}

async function kept(namespace: string, key: string): Promise<string | null> {
  const { results } = await conclave.engine.store(namespace).txn({ then: [{ kind: "get", key }] });
  return results[0]?.kind === "get" ? (results[0].entry?.text ?? null) : null;
}

async function left(): Promise<readonly string[]> {
  const { results } = await conclave.engine.store("transactions").txn({ then: [{ kind: "range", range: { prefix: "" } }] });
  const [all] = results;
  return all?.kind === "range" ? all.entries.map(({ key }) => key).filter((key) => /^[mdhsk]\//.test(key)) : [];
}

async function until(holds: () => Promise<boolean> | boolean, what: string): Promise<void> {
  for (const startedMs = Date.now(); Date.now() - startedMs < 20_000; ) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error(`After 20 s still not: ${what}; left: ${(await left()).join(", ")}; ran: ${runs.join(", ")}`);
}

const nothingLeft = () => until(async () => (await left()).length === 0, "nothing is left in the store");

function order(count = 1) {
  return tm.run({ timeoutMs: 3_000, traceparent: `00-${"a".repeat(32)}-${"b".repeat(16)}-01` }, async (tx) => {
    const [stock, pay] = await Promise.all([
      tx.on("stock").try("take", { count }),
      tx.on("pay").try("take", { count: count * 2 }),
    ]);
    tx.on("orders").put("order", JSON.stringify({ stock, pay }));
    return tx.gid;
  });
}

describe("a transaction over services", { timeout: 60_000 }, () => {
  test("all confirm, with the store's part in the decision, and nothing is left", async () => {
    const { isSettled } = await order();
    expect(isSettled).toBe(true);
    expect(await kept("stock", "free")).toBe("9");
    expect(await kept("stock", "sold")).toBe("1");
    expect(await kept("pay", "sold")).toBe("2");
    expect(await kept("orders", "order")).toBe('{"stock":{"count":1},"pay":{"count":2}}');
    expect([...new Set(runs)].sort()).toEqual(["pay confirm 2", "pay try 2", "stock confirm 1", "stock try 1"]);
    await nothingLeft();
  });

  test("a refusal aborts with the service's own words, and the others are cancelled", async () => {
    await expect(order(8)).rejects.toMatchObject({
      code: "TRANSACTION_ABORTED",
      why: "business",
      reason: "sold out",
      details: { free: 10 },
    });
    await nothingLeft();
    expect(await kept("stock", "free")).toBe("10");
    expect(await kept("pay", "sold")).toBe(null);
    expect(await kept("orders", "order")).toBe(null);
    const { gid } = (await order(8).catch((error: unknown) => error)) as TransactionAborted;
    // The store is a resource: its part leaves no trace, and "nothing found" is no evidence.
    expect(["unknown", "pending"]).toContain(await tm.outcome(gid));
  });

  test("lost answers of Try and Confirm: each ran once, and the second asking is answered as the first", async () => {
    weather.stock.loseAnswers = 1;
    const { gid } = await order();
    weather.pay.loseAnswers = 2;
    await order();
    await nothingLeft();
    expect(await kept("stock", "sold")).toBe("2");
    expect(await kept("pay", "free")).toBe("6");
    expect(await tm.outcome(gid)).toBe("committed");
  });

  test("a service that is down at the decision is confirmed when it is back, and until then the answer says so", async () => {
    let decided = false;
    const running = tm.run({ timeoutMs: 1_500 }, async (tx) => {
      await tx.on("stock").try("take", { count: 1 });
      await tx.on("pay").try("take", { count: 1 });
      weather.pay.down = true;
      decided = true;
    });
    const { isSettled } = await running;
    expect([decided, isSettled]).toEqual([true, false]);
    expect(tm.figures.inDoubt).toBe(1);
    expect(tm.figures.oldestInDoubtMs).toBeGreaterThan(0);
    weather.pay.down = false;
    await until(async () => (await kept("pay", "sold")) === "1", "the service that was down is confirmed");
    await nothingLeft();
    expect(tm.figures.inDoubt).toBe(0);
  });

  test("a service without an answer aborts the transaction in time; when it is back, it is cancelled", async () => {
    weather.pay.down = true;
    const startedMs = Date.now();
    await expect(
      tm.run({ timeoutMs: 800 }, async (tx) => {
        await tx.on("stock").try("take", { count: 1 });
        await tx.on("pay").try("take", { count: 1 });
      }),
    ).rejects.toMatchObject({ code: "TRANSACTION_ABORTED", why: "deadline" });
    expect(Date.now() - startedMs).toBeLessThan(8_000);
    weather.pay.down = false;
    await nothingLeft();
    expect(await kept("stock", "free")).toBe("10");
    expect(await kept("pay", "free")).toBe("10");
  });

  test("a Try that is not waited for takes part all the same", async () => {
    await tm.run({ timeoutMs: 3_000 }, (tx) => {
      tx.on("stock")
        .try("take", { count: 1 })
        .catch(() => undefined);
    });
    expect(await kept("stock", "sold")).toBe("1");
    await nothingLeft();
  });

  test("a coordinator that dies after the Try is recovered by another one: the Cancel runs once", async () => {
    const other = await transactions<Shop>({
      store: conclave.engine,
      resources: {
        stock: http({ url: urls.stock }),
        pay: http({ url: urls.pay }),
        orders: storeResource({ namespace: "orders" }),
      },
      acceptVolatileDecisions: volatileWords,
      checkpoint: (step) => (step === "all-prepared" ? new Promise<void>(() => undefined) : undefined),
    });
    const hanging = other.run({ timeoutMs: 60_000 }, async (tx) => {
      await tx.on("stock").try("take", { count: 3 });
      await tx.on("pay").try("take", { count: 3 });
    });
    hanging.catch(() => undefined);
    await until(() => runs.includes("pay try 2"), "both were tried");
    expect((await left()).length).toBe(2);
    await other.close();
    await nothingLeft();
    expect(await kept("stock", "free")).toBe("10");
    expect([...new Set(runs)].filter((run) => run.includes("cancel")).sort()).toEqual(["pay cancel 2", "stock cancel 1"]);
  });
});

describe("a service's barrier over HTTP", { timeout: 60_000 }, () => {
  const gid = "cv1.abcdef.abcdefgh.1a.1";
  const call = async (path: string, headers: Record<string, string> = {}, body: unknown = { count: 1 }) => {
    const response = await fetch(`${urls.stock}${path}`, {
      method: path === "/status" ? "GET" : "POST",
      headers: { "conclave-tx": gid, "conclave-tx-branch": "1", "content-type": "application/json", ...headers },
      ...(path === "/status" ? {} : { body: JSON.stringify(body) }),
    });
    return { status: response.status, body: await response.json() };
  };

  test("an empty Cancel is remembered, and the Try that comes after it is refused (H2, H4)", async () => {
    expect(await call("/cancel")).toEqual({ status: 200, body: { skipped: true } });
    expect(await call("/try/take")).toMatchObject({ status: 409, body: { title: "TRANSACTION_CLOSED", why: "cancelled" } });
    expect(await call("/confirm")).toMatchObject({ status: 409, body: { why: "cancelled" } });
    expect(runs).toEqual([]);
  });

  test("five of each at one time run once and are answered alike (H5)", async () => {
    for (const path of ["/try/take", "/confirm"]) {
      const answers = await Promise.all(Array.from({ length: 5 }, () => call(path)));
      expect(new Set(answers.map((answer) => JSON.stringify(answer))).size).toBe(1);
    }
    expect(await kept("stock", "free")).toBe("9");
    expect(await kept("stock", "sold")).toBe("1");
    expect(await call("/cancel")).toMatchObject({ status: 409, body: { why: "confirmed" } });
    expect(await call("/status")).toEqual({ status: 200, body: { standing: "confirmed" } });
  });

  test("a refusal is kept: asked again, the service says the same though it could do it by now", async () => {
    expect(await call("/try/take", {}, { count: 11 })).toMatchObject({
      status: 409,
      body: { title: "REFUSED", reason: "sold out" },
    });
    expect(await call("/try/take", {}, { count: 1 })).toMatchObject({
      status: 409,
      body: { title: "REFUSED", details: { free: 10 } },
    });
    expect(await call("/cancel")).toEqual({ status: 200, body: { skipped: true } });
    // Behind a pivot it is asked until it is done.
    const forward = { "conclave-tx-branch": "2", "conclave-tx-forward": "1" };
    expect(await call("/try/take", forward, { count: 11 })).toMatchObject({ status: 409 });
    expect(await call("/try/take", forward, { count: 1 })).toMatchObject({ status: 200 });
  });

  test("bad input: no gid, a foreign gid, a branch that is no number, an action that is not there, a time that is over, a long body", async () => {
    const refused = [
      [await call("/try/take", { "conclave-tx": "" }), 400],
      [await call("/try/take", { "conclave-tx": "cv1.abcdef.abcdefgh.1a.1; drop" }), 400],
      [await call("/try/take", { "conclave-tx-branch": "-1" }), 400],
      [await call("/try/nothing"), 404],
      [await call("/confirm"), 409],
      [await call("/try/take", { "conclave-tx-deadline": String(Date.now() - 120_000) }), 409],
      [await call("/try/take", {}, { count: 1, more: "x".repeat(1_200_000) }), 413],
    ] as const;
    for (const [answer, status] of refused) expect(answer.status, JSON.stringify(answer.body)).toBe(status);
    expect(runs).toEqual([]);
  });
});
