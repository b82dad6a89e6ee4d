/**
 * A bank in two databases: current accounts in PostgreSQL, savings in MariaDB, and money that moves between them while processes
 * die. A checker runs beside it: every second it reads both banks atomically and counts.
 *
 *   npm run example:bank            for 20 seconds; where no database is installed, on the store alone
 *   npm run example:bank -- 60      for a minute
 */
import { type ChildProcess, fork } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "../../src/index.ts";
import { startMariadb } from "../../test/servers/mariadb.ts";
import { startPostgres } from "../../test/servers/postgres.ts";
import { accounts, balancesOf, openBank, prepareBank, startBalance, type Where } from "./accounts.ts";

let transfers = 0;
if (process.argv[2] === "teller") await import("./teller.ts");
else await main(Number(process.argv[2] ?? 20));

async function main(seconds: number): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "conclave-bank-"));
  const [left, right] = await Promise.all([startPostgres(), startMariadb()]);
  const hasDatabases = !("skipped" in left) && !("skipped" in right);
  if ("skipped" in left) console.log(`${left.skipped}: the bank lives in the store alone.`);
  else if ("skipped" in right) console.log(`${right.skipped}: the bank lives in the store alone.`);
  const { serve } = await import("./store-process.ts");
  const store = await serve(join(folder, "store"));
  const where: Where = hasDatabases ? { store: store.url, postgres: left.url, mariadb: right.url } : { store: store.url };
  const conclave = await connect(where.store);
  const bank = await openBank(conclave, where);
  await prepareBank(where, conclave);
  console.log(
    `${accounts} accounts on each side with ${startBalance} each; three tellers move money, and one is killed every two seconds.`,
  );

  const tellers = [1, 2, 3].map(() => hire(where));
  const total = 2 * accounts * startBalance;
  let wrong = 0;
  let looks = 0;
  const endMs = Date.now() + seconds * 1_000;
  while (Date.now() < endMs) {
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    const sum = await balancesOf(bank, conclave);
    looks++;
    if (sum !== total) wrong++;
    console.log(`  ${sum === total ? "right" : "WRONG"}: ${sum} in both banks together; ${transfers} transfers so far`);
    if (looks % 2 === 0) {
      tellers.shift()?.kill("SIGKILL");
      tellers.push(hire(where));
      console.log("  a teller was killed; another one comes");
    }
  }
  for (const teller of tellers) teller.kill("SIGKILL");
  // Their leases end, and what they left is brought to its end.
  await new Promise((resolve) => setTimeout(resolve, 2_500));
  const report = await bank.coordinator.recovery.pass();
  const sum = await balancesOf(bank, conclave);
  console.log(
    `At the end: ${sum === total ? "right" : "WRONG"}, ${transfers} transfers, ${report.left} transactions left open, ${looks} looks, ${wrong} of them wrong.`,
  );
  await bank.close();
  await conclave.close();
  await store.stop();
  if (hasDatabases) await Promise.all([left.stop(), right.stop()]);
  rmSync(folder, { recursive: true, force: true });
  process.exit(sum === total && wrong === 0 && report.left === 0 && transfers > 0 ? 0 : 1);
}

function hire(where: Where): ChildProcess {
  const child = fork(new URL(import.meta.url).pathname, ["teller", JSON.stringify(where)], { stdio: "inherit" });
  child.on("error", () => undefined);
  child.on("message", () => transfers++);
  return child;
}
