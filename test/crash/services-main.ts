/**
 * `npm run crash -- --only tcc|saga|outbox`: kills coordinators, orchestrators, relays and services at every point, on durable
 * databases and a served store, lets others carry on, and asks a judge that shares no code with what it judges.
 */
import { type ChildProcess, execFile, fork, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs, promisify } from "node:util";
import mysql from "mysql2/promise";
import pg from "pg";
import { freePorts } from "../../src/cli/free-ports.ts";
import { canConnect, ended, until } from "../servers/database-process.ts";
import { startMariadb } from "../servers/mariadb.ts";
import { type DatabaseServer, startPostgres } from "../servers/postgres.ts";
import type { Judgement } from "./checker.ts";
import { commonFlags, planOf } from "./flags.ts";
import { isClean, printRow, type Row, writeRow } from "./results.ts";
import { type Deed, type Facts, judgeServices, type ServiceLine } from "./services-checker.ts";
import { type ServicePoint, servicePoints } from "./services-points.ts";
import type { ServiceOrder } from "./services-victim.ts";

const { values } = parseArgs({
  options: {
    ...commonFlags,
    only: { type: "string", default: "all" },
    together: { type: "string", default: "4" },
  },
});
const plan = planOf(values, {
  usage: "npm run crash -- --only all|tcc,saga,outbox [--points all|H3,B1,...] [--times 20] [--together 4]",
  binaryLog: false,
});
const times = Number(values.times);
const together = Number(values.together);
const ttlMs = 1_000;
const chosen = servicePoints.filter(({ kind }) => values.only === "all" || values.only.split(",").includes(kind));

const folder = mkdtempSync(join(tmpdir(), "conclave-crash-services-"));
mkdirSync(join(folder, "journals"));
const [left, right] = (await Promise.all([startPostgres(), startMariadb()])).map((each) => {
  if ("skipped" in each) {
    console.log(`Skipped: ${each.skipped}.`);
    process.exit(0);
  }
  return each;
}) as [DatabaseServer, DatabaseServer];
const [storePort, stockPort, payPort] = (await freePorts(3)) as [number, number, number];
const store = `conclave://127.0.0.1:${storePort}`;
const member = spawn(
  process.execPath,
  ["dist/cli/main.js", "serve", "--data", join(folder, "store"), "--listen", `127.0.0.1:${storePort}`, "--log-level", "error"],
  { stdio: ["ignore", "ignore", "inherit"] },
);
await until(() => canConnect(storePort));
const leftPool = new pg.Pool({ connectionString: left.url, max: 4 });
leftPool.on("error", () => undefined);
const rightPool = mysql.createPool({ uri: right.url, connectionLimit: 4 });
const deedTable =
  "CREATE TABLE deed (gid varchar(60) NOT NULL, branch int NOT NULL, did varchar(10) NOT NULL, action varchar(20) NOT NULL)";
await leftPool.query(deedTable);
await rightPool.query(`${deedTable} ENGINE=InnoDB`);
await leftPool.query("CREATE TABLE ordered (gid varchar(60) PRIMARY KEY, k varchar(20) NOT NULL, number int NOT NULL)");
await leftPool.query("CREATE TABLE consumed (id bigserial PRIMARY KEY, k varchar(20) NOT NULL, number int NOT NULL)");
await leftPool.query(
  "CREATE TABLE IF NOT EXISTS conclave_event (id bigserial PRIMARY KEY, outbox varchar(20) NOT NULL, topic text NOT NULL, key text NOT NULL, payload text NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp())",
);

let isEnding = false;
const services = new Map<string, ChildProcess>();
/** Services are held back while a point wants one to be down. */
let downUntilMs = 0;
await Promise.all([startService("stock", stockPort, left.url), startService("pay", payPort, right.url)]);
const journals: string[] = [];
let victims = 0;
let rows = 0;
let failed = false;
let heir = startProcess();

for (const point of chosen) {
  if (!plan.wants(point.id)) continue;
  const startedMs = Date.now();
  let served = 0;
  // One at a time where the point is about what all share: a service, or the one relay.
  const isShared = point.act === "kill-service" || point.downMs !== undefined || point.at?.startsWith("relay-") === true;
  const width = isShared ? 1 : together;
  // Some come too late for a moment on the way: others take their place, up to a bound.
  for (let begun = 0; served < times && begun < 2 * times; ) {
    const batch = Array.from({ length: Math.min(width, times - served) }, () => runOnce(point));
    begun += batch.length;
    for (const did of await Promise.all(batch)) if (did) served++;
  }
  const { said, ...judgement } = await settleAndJudge();
  const row: Row = {
    id: point.id,
    what: point.what,
    asked: times,
    served,
    ...judgement,
    // Each is a key in the store, and as such a violation already.
    heuristics: 0,
    seconds: (Date.now() - startedMs) / 1_000,
    clearing: { count: 0, medianMs: 0, p99Ms: 0, worstMs: 0 },
    binaryLog: false,
    members: 1,
  };
  rows++;
  failed ||= !isClean(row);
  writeRow(values.results, row);
  printRow(row);
  console.log(`     ${said}`);
}
console.log(`${rows} points, ${victims} processes; ${failed ? "FAILED" : "no violation"}`);
isEnding = true;
heir.kill("SIGKILL");
for (const child of services.values()) child.kill("SIGKILL");
await leftPool.end();
await rightPool.end();
member.kill("SIGKILL");
await Promise.all([left.stop(), right.stop()]);
rmSync(folder, { recursive: true, force: true });
process.exit(failed ? 1 : 0);

/** Whether the point was reached. */
async function runOnce(point: ServicePoint): Promise<boolean> {
  const isRelayPoint = point.at?.startsWith("relay-") === true;
  if (isRelayPoint) {
    // The victim is to relay: whoever carries on steps aside.
    heir.send("close");
    await ended(heir);
  }
  const child = startProcess(point);
  let late: { url: string; headers: Record<string, string>; body: string } | undefined;
  let isStopped = false;
  let serviceDied = false;
  child.on("message", (message: unknown) => {
    if (message === "stopping") isStopped = true;
    if (message === "service dies") serviceDied = true;
    if (typeof message === "object" && message !== null && "late" in message) late = message.late as never;
  });
  if (point.act === "stop") {
    await until(() =>
      Promise.resolve(isStopped || child.exitCode !== null || child.signalCode !== null ? true : Promise.reject()),
    );
    if (isRelayPoint) heir = startProcess();
    await pause(ttlMs * 2 + Math.random() * 1_000);
    child.kill("SIGCONT");
    await endedWithin(child, 30_000);
    return isStopped;
  }
  if (point.downMs !== undefined) {
    await until(() => Promise.resolve(child.signalCode !== null || child.exitCode !== null ? true : Promise.reject()));
    downUntilMs = Date.now() + point.downMs;
    services.get("pay")?.kill("SIGKILL");
  }
  await endedWithin(child, 40_000);
  if (isRelayPoint) heir = startProcess();
  if (point.act === "kill-service") return serviceDied;
  if (point.act === "five-times") return child.exitCode === 0;
  if (point.lateTry === true && late !== undefined) {
    const { url, headers, body } = late;
    // Its coordinator is dead; the Cancel has come, or comes in a moment: the Try is kept until then.
    await pause(ttlMs * 3);
    const answer = await fetch(url, { method: "POST", headers, body });
    if (answer.status !== 409) {
      failed = true;
      console.log(`     a late Try was answered with ${answer.status}`);
    }
  }
  return child.signalCode === "SIGKILL";
}

function startProcess(point?: ServicePoint): ChildProcess {
  victims++;
  const journal = join(folder, "journals", `${victims}.jsonl`);
  journals.push(journal);
  writeFileSync(journal, "");
  const order: ServiceOrder = {
    store,
    postgres: left.url,
    stock: `http://127.0.0.1:${stockPort}/tx`,
    pay: `http://127.0.0.1:${payPort}/tx`,
    journal,
    number: victims,
    ttlMs,
    ...(point === undefined ? {} : { point }),
  };
  const child = fork(new URL("./services-victim.js", import.meta.url), [JSON.stringify(order)], {
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  child.on("error", () => undefined);
  return child;
}

function startService(name: string, port: number, url: string): Promise<void> {
  const child = fork(new URL("./services-service.js", import.meta.url), [JSON.stringify({ name, port, url })], {
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  });
  services.set(name, child);
  child.on("error", () => undefined);
  child.once("exit", () => {
    if (isEnding) return;
    setTimeout(() => void startService(name, port, url), Math.max(20, downUntilMs - Date.now()));
  });
  return new Promise((resolve) => child.once("message", () => resolve()));
}

async function settleAndJudge(): Promise<Judgement & { readonly said: string }> {
  // Bounded: what is not settled by then is a violation.
  const untilMs = Date.now() + 25_000;
  for (;;) {
    const facts = await readFacts();
    const violations = judgeServices(facts);
    const counts = new Map<string, number>();
    for (const { said } of facts.lines) counts.set(said, (counts.get(said) ?? 0) + 1);
    const of = (...words: readonly string[]): number => words.reduce((sum, word) => sum + (counts.get(word) ?? 0), 0);
    if (violations.length === 0 || Date.now() > untilMs) {
      return {
        violations,
        transfers: facts.ordered.length,
        acknowledged: of("committed", "completed"),
        refused: of("aborted", "compensated"),
        unknown: of("unknown"),
        said: [...counts].map(([word, count]) => `${count} ${word}`).join(", "),
      };
    }
    await pause(200);
  }
}

async function readFacts(): Promise<Facts> {
  const inLeft = (await leftPool.query("SELECT gid, branch, did, action FROM deed")).rows as Deed[];
  const [inRight] = await rightPool.query("SELECT gid, branch, did, action FROM deed");
  const { rows: ordered } = await leftPool.query("SELECT gid, k AS key, number FROM ordered");
  const { rows: consumed } = await leftPool.query("SELECT k AS key, number FROM consumed ORDER BY id");
  const { rows: waiting } = await leftPool.query("SELECT count(*)::int AS count FROM conclave_event");
  const { rows: prepared } = await leftPool.query("SELECT gid FROM pg_prepared_xacts");
  const args = ["dist/cli/main.js", "range", "--keys-only", "--namespace", "transactions", "--store", store];
  const { stdout } = await promisify(execFile)(process.execPath, args, { maxBuffer: 1e8 });
  const lines = journals.flatMap((file) =>
    readFileSync(file, "utf8")
      .split("\n")
      .filter(Boolean)
      .map((line) => JSON.parse(line) as ServiceLine),
  );
  return {
    deeds: [...inLeft, ...(inRight as Deed[])],
    ordered,
    consumed,
    waiting: waiting[0].count,
    prepared: prepared.length,
    keys: stdout.split("\n").filter(Boolean),
    lines,
  };
}

async function endedWithin(child: ChildProcess, timeoutMs: number): Promise<void> {
  const timer = setTimeout(() => {
    child.kill("SIGCONT");
    child.kill("SIGKILL");
  }, timeoutMs);
  await ended(child);
  clearTimeout(timer);
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
