/**
 * `npm run crash`: kills processes, databases and the store at every crash point, on durable databases, then lets recovery work
 * and asks an independent checker. Nothing is simulated here; the simulator does the breadth, this the proof of the shells.
 */
import { type ChildProcess, fork, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import mysql from "mysql2/promise";
import pg from "pg";
import { freePorts } from "../../src/cli/free-ports.ts";
import { connect } from "../../src/index.ts";
import { type TransactionManager, transactions } from "../../src/transactions/manager.ts";
import { mariadb } from "../../src/transactions/mariadb.ts";
import { postgres } from "../../src/transactions/postgres.ts";
import { ended, until } from "../servers/database-process.ts";
import { startMariadb } from "../servers/mariadb.ts";
import { type DatabaseServer, startPostgres } from "../servers/postgres.ts";
import { accounts, type Bank, schema, startBalance } from "./bank.ts";
import { check } from "./checker.ts";
import { type CrashPoint, crashPoints } from "./points.ts";
import type { VictimOrder } from "./victim.ts";

const { values } = parseArgs({
  options: {
    points: { type: "string", default: "all" },
    times: { type: "string", default: "20" },
    together: { type: "string", default: "4" },
    storms: { type: "string", default: "0" },
    "binary-log": { type: "boolean", default: false },
    json: { type: "string" },
    help: { type: "boolean", default: false },
  },
});
if (values.help) {
  console.log(
    "npm run crash -- [--points all|none|C06,Z1,...] [--times 20] [--together 4] [--storms N] [--binary-log] [--json FILE]",
  );
  process.exit(0);
}
const times = Number(values.times);
const together = Number(values.together);
const ttlMs = 1_000;
const chosen = crashPoints.filter(({ id }) => values.points === "all" || values.points.split(",").includes(id));

const folder = mkdtempSync(join(tmpdir(), "conclave-crash-"));
const started = await Promise.all([startPostgres(), startMariadb({ binaryLog: values["binary-log"] })]);
const [left, right] = started.map((each) => {
  if ("skipped" in each) {
    console.log(`Skipped: ${each.skipped}.`);
    process.exit(0);
  }
  return each;
}) as [DatabaseServer, DatabaseServer];
const store = await startStore();
const leftPool = new pg.Pool({ connectionString: left.url, max: 4 });
leftPool.on("error", () => undefined);
const rightPool = mysql.createPool({ uri: right.url, connectionLimit: 4 });
await prepareBank();

/** The process that recovers: this one. Closed while recoverers are to die. */
let conclave = await connect({ url: store.url, timeoutMs: 20_000 });
let recoverer: TransactionManager<Bank> | undefined = await openManager();
let heuristics = 0;
let victims = 0;
const journals: string[] = [];
const rows: Record<string, unknown>[] = [];
/** When each coordinator's key vanished, and when a branch of its epoch was last seen prepared. */
const fencedAt = new Map<string, number>();
const clearing = { worstMs: 0, count: 0, sumMs: 0 };
const watching = watchFences();

let failed = false;
for (const point of chosen) {
  const startedMs = Date.now();
  const served = await runPoint(point);
  const judgement = await settleAndJudge();
  failed ||= judgement.violations.length > 0 || served < times;
  const row = { id: point.id, what: point.what, times: served, seconds: (Date.now() - startedMs) / 1_000, ...judgement };
  rows.push(row);
  console.log(
    `${point.id.padEnd(4)} ${point.what.padEnd(46)} ${served}x  ${judgement.violations.length} violations  ${row.seconds.toFixed(1)} s` +
      `  (${judgement.transfers} transfers, ${judgement.acknowledged} told committed, ${judgement.refused} aborted, ${judgement.unknown} unknown)`,
  );
  for (const violation of judgement.violations.slice(0, 5)) console.log(`     ${violation}`);
}
for (let storm = 1; storm <= Number(values.storms); storm++) {
  const startedMs = Date.now();
  const acts = await runStorm();
  const judgement = await settleAndJudge();
  failed ||= judgement.violations.length > 0;
  rows.push({ id: `storm ${storm}`, acts, ...judgement });
  console.log(
    `storm ${String(storm).padStart(2)}: ${acts.join(", ")}; ${judgement.violations.length} violations, ${judgement.transfers} transfers, ${((Date.now() - startedMs) / 1_000).toFixed(1)} s`,
  );
  for (const violation of judgement.violations.slice(0, 5)) console.log(`     ${violation}`);
}
const average = clearing.count === 0 ? 0 : clearing.sumMs / clearing.count;
console.log(
  `${rows.length} rows, ${victims} victims; ${heuristics} heuristics; prepared branches of ${clearing.count} dead coordinators were last seen ` +
    `${average.toFixed(0)} ms (worst ${clearing.worstMs.toFixed(0)} ms) after the fence. ${failed ? "FAILED" : "no violation"}`,
);
if (values.json !== undefined)
  writeFileSync(values.json, `${JSON.stringify({ rows, heuristics, victims, clearing }, null, 2)}\n`);
watching.stop();
await recoverer?.close();
await conclave.close();
await leftPool.end();
await rightPool.end();
await store.stop();
await Promise.all([left.stop(), right.stop()]);
rmSync(folder, { recursive: true, force: true });
process.exit(failed || heuristics > 0 ? 1 : 0);

/** How many victims came to their point. */
async function runPoint(point: CrashPoint): Promise<number> {
  let served = 0;
  if (point.act === "kill-postgres" || point.act === "kill-mariadb" || point.act === "kill-store") return killServers(point);
  const width = point.act === "kill-recoverer" ? 1 : together;
  for (let at = 0; at < times; at += width) {
    const batch = Array.from({ length: Math.min(width, times - at) }, () => runOnce(point));
    for (const did of await Promise.all(batch)) if (did) served++;
  }
  return served;
}

async function runOnce(point: CrashPoint): Promise<boolean> {
  if (point.act === "kill-recoverer") return killRecoverer(point);
  const child = startVictim({ role: "victim", point, ...(point.id === "C13" ? { key: `k${victims}` } : {}) });
  if (point.act === "kill") {
    await endedWithin(child, 30_000);
    const isKilled = child.signalCode === "SIGKILL";
    // The key is asked again by somebody else: it must be answered, or run, once.
    if (point.id === "C13" && isKilled) await retryKeys(victims);
    return isKilled;
  }
  if (point.act === "stop") {
    const isStopped = await heard(child, "stopping");
    // The lease ends, the others recover, and the zombie wakes.
    await pause(ttlMs * 2 + Math.random() * 1_000);
    child.kill("SIGCONT");
    await endedWithin(child, 20_000);
    return isStopped;
  }
  throw new Error(`${point.id} is no act of one process`);
}

/** So many processes stand at the point when the server dies under them, as often as it takes. */
async function killServers(point: CrashPoint): Promise<number> {
  let served = 0;
  for (let at = 0; at < times; at += together) {
    const children = Array.from({ length: Math.min(together, times - at) }, () => startVictim({ role: "victim", point }));
    const reached = await Promise.all(children.map((child) => heard(child, "reached")));
    served += reached.filter(Boolean).length;
    const server = point.act === "kill-store" ? store : point.act === "kill-postgres" ? left : right;
    await server.kill();
    for (const child of children) if (child.connected) child.send("dead");
    await (server === store ? store.start() : (server as DatabaseServer).restart());
    await Promise.all(children.map((child) => endedWithin(child, 40_000)));
  }
  return served;
}

/** The transaction is left by one, begun to be recovered by another who dies, and finished by a third. */
async function killRecoverer(point: CrashPoint): Promise<boolean> {
  await recoverer?.close();
  recoverer = undefined;
  const { kind } = point;
  const leave: CrashPoint = {
    id: point.id,
    what: point.what,
    at: point.leftAt ?? "all-prepared",
    act: "kill",
    ...(kind === undefined ? {} : { kind }),
  };
  await endedWithin(startVictim({ role: "victim", point: leave }), 30_000);
  const second = startVictim({ role: "recoverer", point });
  const died = await endedWithin(second, 30_000);
  await conclave.close();
  conclave = await connect({ url: store.url, timeoutMs: 20_000 });
  recoverer = await openManager();
  return died && second.signalCode === "SIGKILL";
}

/** Four loaded processes; every little while something dies, sleeps or comes back. */
async function runStorm(): Promise<readonly string[]> {
  const acts: string[] = [];
  let loads = Array.from({ length: 4 }, () => startVictim({ role: "load" }));
  await Promise.all(loads.map((child) => heard(child, "ready")));
  for (let at = 0; at < 4; at++) {
    await pause(300 + Math.random() * 500);
    const dice = Math.random();
    const victim = loads[Math.floor(Math.random() * loads.length)] as ChildProcess;
    if (dice < 0.55) {
      acts.push("kill");
      victim.kill("SIGKILL");
      loads = loads.filter((child) => child !== victim);
      const next = startVictim({ role: "load" });
      loads.push(next);
    } else if (dice < 0.7) {
      acts.push("zombie");
      victim.kill("SIGSTOP");
      setTimeout(() => victim.kill("SIGCONT"), ttlMs * 2 + 500);
    } else if (dice < 0.8) {
      acts.push("PostgreSQL");
      await left.kill();
      await left.restart();
    } else if (dice < 0.9) {
      acts.push("MariaDB");
      await right.kill();
      await right.restart();
    } else {
      acts.push("store");
      await store.kill();
      await store.start();
    }
  }
  await pause(600);
  for (const child of loads) {
    child.kill("SIGCONT");
    child.kill("SIGKILL");
  }
  await Promise.all(loads.map((child) => endedWithin(child, 10_000)));
  return acts;
}

async function retryKeys(number: number): Promise<void> {
  const point: CrashPoint = { id: "C13", what: "", at: "forgotten", act: "kill", resource: "wallet" };
  const child = startVictim({ role: "victim", point, key: `k${number}` });
  await endedWithin(child, 30_000);
}

function startVictim(about: Pick<VictimOrder, "role" | "point" | "key">): ChildProcess {
  victims++;
  const journal = join(folder, "journals", `${victims}.jsonl`);
  journals.push(journal);
  const order: VictimOrder = {
    store: store.url,
    postgres: left.url,
    mariadb: right.url,
    journal,
    nth: 1 + Math.floor(Math.random() * 3),
    ttlMs,
    ...about,
  };
  writeFileSync(journal, "");
  const child = fork(new URL("./victim.js", import.meta.url), [JSON.stringify(order)], {
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  });
  child.on("error", () => undefined);
  return child;
}

async function settleAndJudge() {
  const order = {
    postgres: left.url,
    mariadb: right.url,
    listKeys: [process.execPath, "dist/cli/main.js", "range", "--keys-only", "--namespace", "transactions", "--store", store.url],
    journals,
    money: 2 * accounts * startBalance,
  };
  // Bounded: what is not settled by then is a violation.
  const untilMs = Date.now() + 15_000;
  for (;;) {
    const judgement = await check(order);
    if (judgement.violations.length === 0 || Date.now() > untilMs) return judgement;
    await pause(200);
  }
}

async function openManager(): Promise<TransactionManager<Bank>> {
  return transactions<Bank>({
    store: conclave.engine,
    resources: { orders: postgres({ url: left.url }), wallet: mariadb({ url: right.url }) },
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

/** Polls what is prepared, and compares with the moment at which each coordinator's key vanished. */
function watchFences(): { stop(): void } {
  const ending = new AbortController();
  const lastSeen = new Map<string, number>();
  const follow = async (): Promise<void> => {
    while (!ending.signal.aborted) {
      try {
        for await (const batch of conclave.engine.store("transactions").watch({ prefix: "coord/" }, { signal: ending.signal })) {
          if (batch.kind !== "changes") continue;
          for (const event of batch.events)
            if (event.kind === "delete") fencedAt.set(event.key.slice("coord/".length), performance.now());
        }
      } catch {
        // The connection is replaced now and then.
      }
      await pause(50);
    }
  };
  const poll = async (): Promise<void> => {
    while (!ending.signal.aborted) {
      try {
        const { rows: listed } = await leftPool.query("SELECT gid FROM pg_prepared_xacts");
        const [recover] = await rightPool.query("XA RECOVER");
        const names = [
          ...listed.map(({ gid }) => gid as string),
          ...(recover as { data: string }[]).map(({ data }) => data.toString()),
        ];
        const nowMs = performance.now();
        const present = new Set(names.map((name) => name.split(".")[2] ?? ""));
        for (const coordinator of present) if (fencedAt.has(coordinator)) lastSeen.set(coordinator, nowMs);
        for (const [coordinator, seenMs] of lastSeen) {
          if (present.has(coordinator)) continue;
          lastSeen.delete(coordinator);
          const tookMs = seenMs - (fencedAt.get(coordinator) ?? seenMs);
          clearing.count++;
          clearing.sumMs += tookMs;
          clearing.worstMs = Math.max(clearing.worstMs, tookMs);
        }
      } catch {
        // A database is down at this moment.
      }
      await pause(10);
    }
  };
  void follow();
  void poll();
  return { stop: () => ending.abort() };
}

async function prepareBank(): Promise<void> {
  mkdirSync(join(folder, "journals"));
  for (const statement of schema.left) await leftPool.query(statement);
  for (const statement of schema.right) await rightPool.query(statement);
  const rowsText = Array.from({ length: accounts }, (_, at) => `(${at + 1}, ${startBalance})`).join(",");
  await leftPool.query(`INSERT INTO account VALUES ${rowsText}`);
  await rightPool.query(`INSERT INTO account VALUES ${rowsText}`);
}

/** A member of its own, on disk, so that decisions outlive every process here. */
async function startStore() {
  const [port] = (await freePorts(1)) as [number];
  const url = `conclave://127.0.0.1:${port}`;
  let child: ChildProcess;
  const start = async (): Promise<void> => {
    child = spawn(
      process.execPath,
      ["dist/cli/main.js", "serve", "--data", join(folder, "store"), "--listen", `127.0.0.1:${port}`, "--log-level", "error"],
      {
        stdio: ["ignore", "ignore", "inherit"],
      },
    );
    await until(async () => {
      const probe = await connect({ url, timeoutMs: 2_000 });
      await probe.engine.store("probe").txn({ then: [{ kind: "get", key: "x" }] });
      await probe.close();
    });
  };
  await start();
  return {
    url,
    start,
    kill: async () => {
      child.kill("SIGKILL");
      await ended(child);
    },
    stop: async () => {
      child.kill("SIGTERM");
      await ended(child);
    },
  };
}

async function endedWithin(child: ChildProcess, timeoutMs: number): Promise<boolean> {
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    child.kill("SIGCONT");
    child.kill("SIGKILL");
  }, timeoutMs);
  await ended(child);
  clearTimeout(timer);
  return !isLate;
}

/** Whether it said the word before it ended. */
function heard(child: ChildProcess, word: string): Promise<boolean> {
  return new Promise((resolve) => {
    const listen = (message: unknown): void => {
      if (message === word) resolve(true);
    };
    child.on("message", listen);
    child.once("exit", () => resolve(false));
  });
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
