/**
 * A process that makes transfers until its point comes, or one that only recovers. Started by `main.ts`.
 *   node victim.js JSON
 */
import { fsyncSync, openSync, writeSync } from "node:fs";
import type { Checkpoint } from "../../src/coordinator/options.ts";
import { connect } from "../../src/index.ts";
import { transactions } from "../../src/transactions/manager.ts";
import { mariadb } from "../../src/transactions/mariadb.ts";
import { postgres } from "../../src/transactions/postgres.ts";
import { type Bank, type Line, transfer } from "./bank.ts";
import type { CrashPoint } from "./points.ts";

export interface VictimOrder {
  readonly store: string;
  readonly postgres: string;
  readonly mariadb: string;
  readonly journal: string;
  readonly role: "victim" | "recoverer" | "load";
  readonly point?: CrashPoint;
  /** The point counts in this transfer, from 1. */
  readonly nth: number;
  readonly key?: string;
  readonly ttlMs: number;
}

const order = JSON.parse(process.argv[2] ?? "") as VictimOrder;
const { point, nth } = order;
const journal = openSync(order.journal, "a");
const say = (line: Line): void => {
  writeSync(journal, `${JSON.stringify(line)}\n`);
  fsyncSync(journal);
};

let transfers = 0;
let isDone = false;
const conclave = await connect({ url: order.store, timeoutMs: 20_000 });
const tm = await transactions<Bank>({
  store: conclave.engine,
  resources: { orders: postgres({ url: order.postgres }), wallet: mariadb({ url: order.mariadb }) },
  ttlMs: order.ttlMs,
  answerMs: 3_000,
  scanEveryMs: order.role === "recoverer" ? 2_000 : 60_000,
  checkpoint,
});
process.send?.("ready");
const kind = point?.kind ?? "both";
const run = (): Promise<void> =>
  transfer(tm, {
    kind,
    refused: point?.refused === true && transfers === nth,
    say,
    working: () => reach("working", ""),
    ...(order.key === undefined ? {} : { key: `${order.key}-${transfers}` }),
  });
if (order.role === "recoverer") setInterval(() => undefined, 1_000);
else if (order.role === "load") {
  const worker = async (): Promise<void> => {
    for (;;) {
      transfers++;
      await run();
    }
  };
  await Promise.all([worker(), worker(), worker(), worker()]);
} else {
  for (transfers = 1; transfers <= nth + 1 && !isDone; transfers++) {
    await Promise.all(Array.from({ length: point?.together ?? 1 }, run));
    await reach("answered", "");
    // The batch that forgets goes half a second later.
    if (point?.at === "forgotten") await new Promise((resolve) => setTimeout(resolve, 700));
  }
  await tm.close();
  await conclave.close();
  process.exit(0);
}

function checkpoint(at: Checkpoint, _gid: string, resource: string): void | Promise<void> {
  const hold = point?.hold;
  if (order.role === "victim" && transfers === nth && hold?.at === at && hold.resource === resource) {
    return new Promise((resolve) => setTimeout(resolve, 400)).then(() => reach(at, resource));
  }
  return reach(at, resource);
}

function reach(at: CrashPoint["at"], resource: string): void | Promise<void> {
  if (point === undefined || isDone || point.at !== at) return undefined;
  if (order.role === "victim" && transfers !== nth) return undefined;
  if (point.resource !== undefined && resource !== point.resource) return undefined;
  isDone = true;
  const waitMs = point.afterMsMax === undefined ? 0 : Math.random() * point.afterMsMax;
  if (waitMs === 0) return act();
  setTimeout(() => void act(), waitMs);
  return undefined;
}

function act(): void | Promise<void> {
  switch (point?.act) {
    case "kill-recoverer":
      // The parent also kills recoverers that found nothing to do: this one it must know.
      return new Promise(() => {
        process.send?.("at the point", undefined, undefined, () => process.kill(process.pid, "SIGKILL"));
      });
    case "kill":
      process.kill(process.pid, "SIGKILL");
      // The signal may take a moment; nothing goes on until then.
      return new Promise(() => undefined);
    case "stop":
      process.send?.("stopping");
      process.kill(process.pid, "SIGSTOP");
      return undefined;
    default:
      // The parent kills the server, and answers when it is dead.
      process.send?.("reached");
      return new Promise((resolve) => process.once("message", () => resolve()));
  }
}
