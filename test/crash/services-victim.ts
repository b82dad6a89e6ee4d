/**
 * A process that works with services until its point comes, or one that only carries on what others left. Started by `services-main.ts`.
 *   node services-victim.js JSON
 */
import { fsyncSync, openSync, writeSync } from "node:fs";
import { connect } from "../../src/index.ts";
import { Abort } from "../../src/transactions/errors.ts";
import { http } from "../../src/transactions/http.ts";
import { transactions } from "../../src/transactions/manager.ts";
import { postgresOutbox } from "../../src/transactions/outbox.ts";
import { relayOutbox } from "../../src/transactions/outbox-relay.ts";
import { httpSink } from "../../src/transactions/outbox-sinks.ts";
import { postgres } from "../../src/transactions/postgres.ts";
import { saga, serviceStep } from "../../src/transactions/saga.ts";
import { sagas } from "../../src/transactions/saga-manager.ts";
import type { ServiceLine } from "./services-checker.ts";
import type { ServicePoint } from "./services-points.ts";

export interface ServiceOrder {
  readonly store: string;
  readonly postgres: string;
  readonly stock: string;
  readonly pay: string;
  readonly journal: string;
  readonly number: number;
  readonly ttlMs: number;
  /** Left out: carries on what others left. */
  readonly point?: ServicePoint;
}

const order = JSON.parse(process.argv[2] ?? "") as ServiceOrder;
const { point } = order;
const journal = openSync(order.journal, "a");
const say = (line: ServiceLine): void => {
  writeSync(journal, `${JSON.stringify(line)}\n`);
  fsyncSync(journal);
};

/** The round in which the point counts: those before run through. */
const nth = 2;
let round = 0;
let isDone = false;
const isRelayPoint = point?.at?.startsWith("relay-") === true;

const conclave = await connect({ url: order.store, timeoutMs: 20_000 });
const [stock, pay] = [service("stock", order.stock), service("pay", order.pay)];
const orders = postgres({ url: order.postgres, connectionsMax: 6 });
const outbox = postgresOutbox(orders, { name: "orders" });
const tm = await transactions({
  store: conclave.engine,
  resources: { orders, stock, pay },
  ttlMs: order.ttlMs,
  answerMs: 2_000,
  scanEveryMs: point === undefined ? 1_000 : 60_000,
  checkpoint: (at, _gid, resource) => reach(at, resource),
});
export const trip = saga<{ refuse: string }>("trip@1")
  .step(
    "reserve",
    serviceStep(stock, "reserve", ({ input }) => input, { timeoutMs: 2_000 }),
  )
  .step(
    "hold",
    serviceStep(pay, "hold", ({ input }) => input, { timeoutMs: 2_000 }),
  )
  .pivot("charge", serviceStep(pay, "charge", undefined, { timeoutMs: 2_000 }))
  .retriable("ship", serviceStep(stock, "ship", undefined, { timeoutMs: 2_000 }));
/** The same steps, and no pivot. */
const plain = saga<{ refuse: string }>("plain@1")
  .step(
    "reserve",
    serviceStep(stock, "reserve", ({ input }) => input, { timeoutMs: 2_000 }),
  )
  .together({
    hold: serviceStep(pay, "hold", ({ input }) => input, { timeoutMs: 2_000 }),
    charge: serviceStep(pay, "charge", undefined, { timeoutMs: 2_000 }),
  })
  .step("ship", serviceStep(stock, "ship", undefined, { timeoutMs: 2_000 }));
/** Ends are written behind the client's back, when a later round is under way. */
const roundOf = new Map<string, number>();
const runner = sagas({
  transactions: tm,
  store: conclave.engine,
  definitions: [trip, plain],
  scanEveryMs: 1_000,
  retryMsMin: 30,
  retryMsMax: 500,
  checkpoint: (at, gid, name) => {
    // Before its first write leaves: killed between that and its answer, the saga is taken over, and its name must be known.
    if (at === "saga-beginning") {
      say({ kind: "saga", said: "began", gid, ...(point?.plain === true ? { plain: true } : {}) });
      roundOf.set(gid, round);
    }
    return reach(at, name, roundOf.get(gid));
  },
});
const relay =
  point === undefined || isRelayPoint
    ? relayOutbox({
        outbox,
        sink: httpSink({ url: `${order.stock.replace(/\/tx$/, "")}/events`, timeoutMs: 3_000 }),
        store: conclave.engine,
        ttlMs: 1_000,
        pollMs: 20,
        checkpoint: (at) => reach(at, ""),
      })
    : undefined;
process.send?.("ready");
if (point === undefined) {
  process.once("disconnect", () => process.exit(0));
  process.on("message", async (message) => {
    if (message !== "close") return;
    await relay?.close();
    await runner.close();
    await tm.close();
    process.exit(0);
  });
} else {
  for (round = 1; round <= nth + 1; round++) await run(point);
  // A point of the relay may come later: the lease of a relay that died before may have to run out first.
  for (let waited = 0; isRelayPoint && !isDone && waited < 150; waited++) await pause(100);
  // A zombie that woke goes on with what it was about to do.
  if (isRelayPoint) await pause(1_500);
  await runner.close();
  await tm.close();
  process.exit(0);
}

async function run({ kind, refused }: ServicePoint): Promise<void> {
  const refuse = refused === true && round === nth ? "pay" : "";
  let gid = "";
  try {
    if (kind === "saga") {
      // Long enough for its steps, and over before the lease of a process that dies.
      const started = await (point?.plain === true
        ? runner.start(plain, { refuse }, { timeoutMs: order.ttlMs * 0.8 })
        : runner.start(trip, { refuse }, { timeoutMs: 20_000 }));
      gid = started.gid;
      say({ kind, said: (await started.outcome()).kind, gid });
      await reach("saga-told", "");
      return;
    }
    await tm.run({ timeoutMs: 6_000 }, async (tx) => {
      gid = tx.gid;
      say({ kind, said: "began", gid });
      const key = `v${order.number}`;
      await tx.on("orders").query("INSERT INTO ordered (gid, k, number) VALUES ($1, $2, $3)", [gid, key, round]);
      await outbox.emit(tx.on("orders"), { topic: "order.placed", key, payload: { number: round } });
      if (kind === "outbox") {
        // A second branch, so that there is something to prepare and to decide.
        tx.on("orders");
        if (point?.at === "all-prepared" || point?.at === "decided") await tx.on("stock").try("take", {});
        return;
      }
      await Promise.all([tx.on("stock").try("take", { refuse }), tx.on("pay").try("take", { refuse })]);
    });
    say({ kind, said: "committed", gid });
  } catch (error) {
    const { code } = error as { readonly code?: string };
    if (gid !== "" && kind !== "saga") say({ kind, said: code === "TRANSACTION_ABORTED" ? "aborted" : "unknown", gid });
    if (!(error instanceof Abort) && code === undefined) throw error;
  }
}

/** Every request passes here: the wire's own points, five copies of everything, and the mark for a service to die. */
function service(name: "stock" | "pay", url: string) {
  const send: typeof fetch = async (target, init) => {
    const phase = /\/(try|confirm|cancel|status)/.exec(String(target))?.[1] ?? "";
    const isTry = phase === "try";
    const isOurs = round === nth && (point?.name === undefined || point.name === name);
    if (isTry && isOurs && point?.at === "wire-before") {
      process.send?.({ late: { url: String(target), headers: init?.headers, body: init?.body } });
      await pause(20);
      await reach("wire-before", name);
    }
    const headers = { ...(init?.headers as Record<string, string>) };
    if (isOurs && point?.act === "kill-service" && point.phase === phase && name === "pay" && !isDone) {
      isDone = true;
      headers["x-crash"] = "1";
      process.send?.("service dies");
    } else if (isOurs && point?.act === "kill-service" && point.phase === phase && point.phase === "cancel" && !isDone) {
      isDone = true;
      headers["x-crash"] = "1";
      process.send?.("service dies");
    }
    const copies = point?.act === "five-times" ? 5 : 1;
    const answers = await Promise.all(Array.from({ length: copies }, () => fetch(target, { ...init, headers })));
    if (copies > 1) isDone = true;
    if (isTry && isOurs) await reach("wire-after", name);
    const texts = await Promise.all(answers.map((answer) => answer.clone().text()));
    if (answers.every(({ status }) => status < 500) && new Set(texts).size > 1)
      throw new Error(`copies differ: ${texts.join(" | ")}`);
    return answers[0] as Response;
  };
  return http({ url, answerMs: 2_000, fetch: send });
}

function reach(at: NonNullable<ServicePoint["at"]>, name: string, ofRound = round): void | Promise<void> {
  if (point === undefined || isDone || point.at !== at) return undefined;
  // The relay works at its own pace: it may read the event of this round while a later one runs, or after the last.
  if (isRelayPoint ? round < nth : ofRound !== nth) return undefined;
  if (point.name !== undefined && point.name !== name) return undefined;
  isDone = true;
  if (point.afterMsMax === undefined) return act();
  setTimeout(() => void act(), Math.random() * point.afterMsMax);
  return undefined;
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function act(): void | Promise<void> {
  if (point?.act === "stop") {
    process.send?.("stopping");
    process.kill(process.pid, "SIGSTOP");
    return undefined;
  }
  process.kill(process.pid, "SIGKILL");
  // The signal may take a moment; nothing goes on until then.
  return new Promise(() => undefined);
}
