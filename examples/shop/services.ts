/**
 * The shop's three services, each a process of its own: inventory, payment, orders.
 *
 *   wallet   one transaction: the order, a reservation (Try/Confirm/Cancel) and a payment (the same), all or nothing
 *   card     a saga: reserve, authorize, then the pivot "capture", then ship and record until it is done
 */
import { createServer } from "node:http";
import { connect } from "../../src/index.ts";
import {
  Abort,
  barrierStep,
  http,
  inbox,
  queueSink,
  relayOutbox,
  saga,
  sagas,
  serviceStep,
  type TccAction,
  tccHandler,
  tccService,
  transactions,
} from "../../src/transactions/index.ts";
import { type Ledger, openLedger } from "./ledger.ts";

export interface ServiceOrder {
  readonly name: "inventory" | "payment" | "orders";
  readonly port: number;
  readonly store: string;
  readonly database: string | null;
  readonly inventory: string;
  readonly payment: string;
}

export const stockAtStart = 2_000;
export const moneyAtStart = 100_000;
const price = 30;

export async function runService(order: ServiceOrder): Promise<void> {
  const conclave = await connect({ url: order.store, timeoutMs: 20_000 });
  const ledger = openLedger(conclave, order.name, order.database);
  const serve = order.name === "orders" ? await ordersService(conclave, ledger, order) : await stockOrMoney(order.name, ledger);
  const server = createServer(async (request, response) => {
    try {
      if (request.url === "/ledger") return response.end(JSON.stringify(await ledger.read()));
      await serve(request, response);
    } catch (error) {
      response.statusCode = 500;
      response.end(String(error));
    }
  });
  server.listen(order.port, "127.0.0.1", () => process.send?.("ready"));
  process.once("disconnect", () => process.exit(0));
}

/** From one column of the ledger to another: what a Try reserves, a Confirm makes final and a Cancel gives back. */
async function stockOrMoney(name: "inventory" | "payment", ledger: Ledger) {
  const [free, kept, gone] = name === "inventory" ? ["free", "reserved", "sold"] : ["balance", "held", "captured"];
  const move = async (handle: unknown, from: string, to: string, amount: number): Promise<void> => {
    await ledger.add(handle, from, -amount);
    await ledger.add(handle, to, amount);
  };
  const reserve: TccAction<unknown> = {
    try: async ({ handle, body }) => {
      await move(handle, free as string, kept as string, body.amount);
      return { amount: body.amount };
    },
    confirm: ({ handle, tried }) => move(handle, kept as string, gone as string, tried.amount),
    cancel: ({ handle, tried }) => move(handle, kept as string, free as string, tried.amount),
  };
  const finish: TccAction<unknown> = {
    try: async ({ handle, body }) => {
      if (body.declined === true) throw new Abort("the card was declined");
      await move(handle, kept as string, gone as string, body.amount);
      return { amount: body.amount };
    },
  };
  const service = tccService({ barrier: ledger.barrier, actions: { reserve, finish } });
  await service.install();
  await ledger.install({
    [free as string]: name === "inventory" ? stockAtStart : moneyAtStart,
    [kept as string]: 0,
    [gone as string]: 0,
  });
  return tccHandler(service);
}

async function ordersService(conclave: Awaited<ReturnType<typeof connect>>, ledger: Ledger, order: ServiceOrder) {
  await ledger.barrier.install();
  await ledger.outbox.install();
  await ledger.install({ orders: 0, items: 0, mails: 0 });
  const [inventory, payment] = [http({ url: order.inventory, answerMs: 1_000 }), http({ url: order.payment, answerMs: 1_000 })];
  const tm = await transactions({
    store: conclave.engine,
    resources: { orders: ledger.resource, inventory, payment },
    ttlMs: 1_500,
    scanEveryMs: 2_000,
  });
  const record = async (handle: unknown, key: string, items: number): Promise<void> => {
    await ledger.add(handle, "orders", 1);
    await ledger.add(handle, "items", items);
    await ledger.outbox.emit(handle, { topic: "order.placed", key, payload: { items } });
  };
  const byCard = saga<{ items: number; declined: boolean }>("by-card@1")
    .step(
      "reserve",
      serviceStep(inventory, "reserve", ({ input }) => ({ amount: input.items })),
    )
    .step(
      "authorize",
      serviceStep(payment, "reserve", ({ input }) => ({ amount: input.items * price })),
    )
    .pivot(
      "capture",
      serviceStep(payment, "finish", ({ input }) => ({ amount: input.items * price, declined: input.declined })),
    )
    .retriable(
      "ship",
      serviceStep(inventory, "finish", ({ input }) => ({ amount: input.items })),
    )
    .retriable("record", barrierStep(ledger.barrier, { do: (handle, { gid, input }) => record(handle, gid, input.items) }));
  const runner = sagas({
    transactions: tm,
    store: conclave.engine,
    definitions: [byCard],
    scanEveryMs: 1_000,
    retryMsMax: 1_000,
  });
  relayOutbox({ outbox: ledger.outbox, sink: queueSink(conclave.engine, "mails"), store: conclave.engine, ttlMs: 1_500 });
  // The worker behind the queue: at least once delivered, once worked on.
  const seen = inbox(ledger.barrier);
  const consuming = conclave.queue("mails").consume(
    async ({ payload }) => {
      await seen.once(payload as never, (handle) => ledger.add(handle, "mails", 1));
    },
    { signal: new AbortController().signal },
  );
  consuming.catch((error: unknown) => console.error(error));
  return async (request: import("node:http").IncomingMessage, response: import("node:http").ServerResponse): Promise<void> => {
    const { searchParams: asked } = new URL(request.url ?? "/", "http://shop");
    const [items, key] = [Number(asked.get("items")), asked.get("key") ?? ""];
    let answer: string;
    try {
      if (asked.get("pay") === "card") {
        const end = await runner.run(byCard, { items, declined: asked.get("declined") === "1" }, { key, timeoutMs: 8_000 });
        answer = end.kind === "completed" ? "sold" : `refused: ${end.why}`;
      } else {
        await tm.run({ key, timeoutMs: 4_000 }, async (tx) => {
          await record(tx.on("orders"), tx.gid, items);
          await Promise.all([
            tx.on("inventory").try("reserve", { amount: items }),
            tx.on("payment").try("reserve", { amount: items * price }),
          ]);
        });
        answer = "sold";
      }
    } catch (error) {
      answer = `refused: ${error instanceof Error ? error.message : error}`;
    }
    response.end(answer);
  };
}

/** What must be true of the three ledgers once everything has come to its end. */
export function audit(ledgers: Readonly<Record<ServiceOrder["name"], Readonly<Record<string, number>>>>): readonly string[] {
  const { inventory, payment, orders } = ledgers;
  const wrong: string[] = [];
  const must = (holds: boolean, text: string): void => {
    if (!holds) wrong.push(text);
  };
  const of = (ledger: Readonly<Record<string, number>>, name: string): number => ledger[name] ?? 0;
  must(
    of(inventory, "free") + of(inventory, "reserved") + of(inventory, "sold") === stockAtStart,
    "goods have vanished or appeared",
  );
  must(of(payment, "balance") + of(payment, "held") + of(payment, "captured") === moneyAtStart, "money has vanished or appeared");
  must(of(inventory, "reserved") === 0, `${of(inventory, "reserved")} goods are reserved for nobody`);
  must(of(payment, "held") === 0, `${of(payment, "held")} of money is held for nobody`);
  must(of(inventory, "sold") === of(orders, "items"), `${of(inventory, "sold")} sold, ${of(orders, "items")} ordered`);
  must(
    of(payment, "captured") === of(orders, "items") * price,
    `${of(payment, "captured")} paid for ${of(orders, "items")} items`,
  );
  must(of(orders, "mails") === of(orders, "orders"), `${of(orders, "mails")} mails for ${of(orders, "orders")} orders`);
  return wrong;
}
