/**
 * `npm run crash`: kills processes, databases and the store at every crash point, on durable databases, then lets recovery work
 * and asks an independent checker. Nothing is simulated here; the simulator does the breadth, this the proof of the shells.
 * With `--results FILE` each row is on disk when it is done, and a run that was cut off goes on where it was.
 */
import { parseArgs } from "node:util";
import { connect } from "../../src/index.ts";
import { type TransactionManager, transactions } from "../../src/transactions/manager.ts";
import { mariadb } from "../../src/transactions/mariadb.ts";
import { postgres } from "../../src/transactions/postgres.ts";
import { Acts } from "./acts.ts";
import { accounts, type Bank, startBalance } from "./bank.ts";
import { check, type Judgement } from "./checker.ts";
import { Fences } from "./fences.ts";
import { commonFlags, planOf } from "./flags.ts";
import { crashPoints } from "./points.ts";
import { isClean, printRow, type Row, writeRow } from "./results.ts";
import { startRig } from "./rig.ts";

const { values } = parseArgs({
  options: {
    ...commonFlags,
    together: { type: "string", default: "10" },
    storms: { type: "string", default: "0" },
    members: { type: "string", default: "3" },
    "ttl-ms": { type: "string", default: "1000" },
    "binary-log": { type: "boolean", default: false },
  },
});
const { results, "binary-log": binaryLog } = values;
const plan = planOf(values, {
  usage:
    "npm run crash -- [--points all|none|C06,Z1,...] [--times 20] [--together 10] [--storms N] [--members 3] [--ttl-ms 1000] [--binary-log]\n" +
    "                 [--only tcc,saga,outbox]  services, sagas and outboxes instead; --only all --help says how",
  binaryLog,
});
const times = Number(values.times);
const members = Number(values.members);
const ttlMs = Number(values["ttl-ms"]);

const rig = await startRig({ binaryLog, members });
if ("skipped" in rig) {
  console.log(`Skipped: ${rig.skipped}.`);
  process.exit(0);
}
let heuristics = 0;
/** The process that recovers: this one. Stopped while recoverers are to die. */
let conclave = await connect({ url: rig.store.url, timeoutMs: 20_000 });
let recoverer: TransactionManager<Bank> | undefined = await openManager();
const own = {
  stop: async () => {
    await recoverer?.close();
    recoverer = undefined;
  },
  start: async () => {
    await conclave.close();
    conclave = await connect({ url: rig.store.url, timeoutMs: 20_000 });
    recoverer = await openManager();
  },
};
const acts = new Acts(rig, own, { times, together: Number(values.together), ttlMs });
const fences = new Fences(rig, () => conclave.engine.store("transactions"));
const rows: Row[] = [];

for (const point of crashPoints) {
  if (plan.wants(point.id)) await row({ id: point.id, what: point.what, asked: times }, () => acts.run(point));
}
for (let storm = 1; storm <= Number(values.storms); storm++) {
  const about = { id: `T${storm}`, what: "", asked: 1 };
  if (!plan.isOpen(about.id)) continue;
  await row(about, async () => {
    about.what = `storm: ${(await acts.storm()).join(", ")}`;
    return 1;
  });
}
const isFailed = !rows.every(isClean);
console.log(`${rows.length} rows run. ${isFailed ? "FAILED" : "no violation"}`);
fences.stop();
await recoverer?.close();
await conclave.close();
await rig.stop();
process.exit(isFailed ? 1 : 0);

async function row(
  about: { readonly id: string; what: string; readonly asked: number },
  act: () => Promise<number>,
): Promise<void> {
  const startedMs = Date.now();
  const before = heuristics;
  const served = await act();
  const judgement = await settleAndJudge();
  const made: Row = {
    ...about,
    served,
    ...judgement,
    heuristics: heuristics - before,
    seconds: (Date.now() - startedMs) / 1_000,
    clearing: fences.take(),
    binaryLog,
    members,
  };
  rows.push(made);
  writeRow(results, made);
  printRow(made);
}

async function settleAndJudge(): Promise<Judgement> {
  if ("skipped" in rig) throw new Error("there is nothing to judge");
  const list = ["dist/cli/main.js", "range", "--keys-only", "--namespace", "transactions", "--store", rig.store.url];
  const order = {
    postgres: rig.left.url,
    mariadb: rig.right.url,
    listKeys: [process.execPath, ...list],
    journals: acts.journals,
    money: 2 * accounts * startBalance,
  };
  // Bounded: what is not settled by then is a violation.
  const untilMs = Date.now() + 20_000;
  for (;;) {
    const judgement = await check(order);
    if (judgement.violations.length === 0 || Date.now() > untilMs) return judgement;
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
}

async function openManager(): Promise<TransactionManager<Bank>> {
  if ("skipped" in rig) throw new Error("there is nothing to recover");
  return transactions<Bank>({
    store: conclave.engine,
    resources: { orders: postgres({ url: rig.left.url }), wallet: mariadb({ url: rig.right.url }) },
    ttlMs: 5_000,
    answerMs: 3_000,
    scanEveryMs: 2_000,
    onEvent: (event) => {
      if (event.kind !== "transaction.heuristic") return;
      heuristics++;
      console.log(`HEURISTIC ${JSON.stringify(event)}`);
    },
  });
}
