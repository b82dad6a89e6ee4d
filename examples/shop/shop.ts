/**
 * A shop of three services over HTTP, and customers who pay by wallet (one transaction) or by card (a saga), while services and the
 * shop's own process are killed. At the end the three ledgers are read and compared.
 *
 *   npm run example:shop            for 20 seconds; inventory on PostgreSQL and payment on MariaDB where they are installed, else the store
 *   npm run example:shop -- 60      for a minute
 *   npm run example:shop -- 20 store     on the store alone, whatever is installed
 */
import { type ChildProcess, fork } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePorts } from "../../src/cli/free-ports.ts";
import { startMariadb } from "../../test/servers/mariadb.ts";
import { startPostgres } from "../../test/servers/postgres.ts";
import { serve } from "../bank/store-process.ts";
import { audit, runService, type ServiceOrder } from "./services.ts";

if (process.argv[2] === "service") await runService(JSON.parse(process.argv[3] ?? "") as ServiceOrder);
else await main(Number(process.argv[2] ?? 20));

async function main(seconds: number): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "conclave-shop-"));
  const asked = { skipped: "The store alone was asked for" };
  const databases = process.argv[3] === "store" ? [asked, asked] : await Promise.all([startPostgres(), startMariadb()]);
  const [left, right] = databases.map((each) => {
    if (!("skipped" in each)) return each.url;
    console.log(`${each.skipped}: the store keeps its numbers.`);
    return null;
  }) as [string | null, string | null];
  const store = await serve(join(folder, "store"));
  const ports = (await freePorts(3)) as [number, number, number];
  const [inventory, payment] = [`http://127.0.0.1:${ports[0]}/tx`, `http://127.0.0.1:${ports[1]}/tx`];
  const common = { store: store.url, inventory, payment };
  const plans: readonly ServiceOrder[] = [
    { ...common, name: "inventory", port: ports[0], database: left },
    { ...common, name: "payment", port: ports[1], database: right },
    { ...common, name: "orders", port: ports[2], database: left },
  ];
  const running = new Map<string, ChildProcess>();
  let isClosing = false;
  const start = (plan: ServiceOrder): Promise<void> =>
    new Promise((resolve) => {
      const child = fork(new URL(import.meta.url).pathname, ["service", JSON.stringify(plan)], { stdio: "inherit" });
      running.set(plan.name, child);
      child.once("message", () => resolve());
      child.on("error", () => undefined);
      child.once("exit", () => {
        if (!isClosing) setTimeout(() => void start(plan), 100);
      });
    });
  await Promise.all(plans.map(start));
  console.log("The shop is open: inventory, payment and orders. Every two seconds one of them is killed.");

  const counts = { sold: 0, refused: 0, unheard: 0 };
  const endMs = Date.now() + seconds * 1_000;
  let orders = 0;
  const customer = async (): Promise<void> => {
    while (Date.now() < endMs) {
      orders++;
      const isCard = Math.random() < 0.5;
      const query = `items=${1 + Math.floor(Math.random() * 3)}&key=order-${orders}&pay=${isCard ? "card" : "wallet"}&declined=${Math.random() < 0.1 ? 1 : 0}`;
      // No answer: the same order again, with the same key. It is carried out once.
      for (let attempt = 0; attempt < 20; attempt++) {
        const answer = await fetch(`http://127.0.0.1:${ports[2]}/checkout?${query}`, {
          signal: AbortSignal.timeout(10_000),
        }).then(
          (response) => response.text(),
          () => undefined,
        );
        if (answer === undefined) {
          counts.unheard++;
          await pause(200);
          continue;
        }
        if (answer === "sold") counts.sold++;
        else counts.refused++;
        break;
      }
    }
  };
  const killing = setInterval(() => {
    if (Date.now() > endMs) return;
    const names = [...running.keys()];
    const name = names[Math.floor(Math.random() * names.length)] as string;
    running.get(name)?.kill("SIGKILL");
    console.log(`  ${name} was killed; ${counts.sold} sold, ${counts.refused} refused, ${counts.unheard} asked again`);
  }, 2_000);
  await Promise.all([customer(), customer(), customer(), customer()]);
  clearInterval(killing);
  // What was under way comes to its end; bounded.
  let wrong: readonly string[] = ["nothing was read"];
  const untilMs = Date.now() + 30_000;
  while (wrong.length > 0 && Date.now() < untilMs) {
    await pause(500);
    try {
      const [first, second, third] = await Promise.all(
        ports.map(async (port) => (await fetch(`http://127.0.0.1:${port}/ledger`)).json()),
      );
      wrong = audit({ inventory: first, payment: second, orders: third } as never);
      if (wrong.length === 0) console.log(JSON.stringify({ inventory: first, payment: second, orders: third }));
    } catch (error) {
      wrong = [String(error)];
    }
  }
  console.log(
    wrong.length === 0
      ? `At the end: right. ${counts.sold} sold, ${counts.refused} refused, ${counts.unheard} times asked again.`
      : `At the end: WRONG. ${wrong.join("; ")}`,
  );
  isClosing = true;
  for (const child of running.values()) child.kill("SIGKILL");
  await store.stop();
  for (const each of databases) if (!("skipped" in each)) await each.stop();
  rmSync(folder, { recursive: true, force: true });
  process.exit(wrong.length === 0 && counts.sold > 0 ? 0 : 1);
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
