/**
 * `npm run bench -- transactions`: what atomicity over two databases costs, beside what it is made of.
 *
 * One transfer is one UPDATE in PostgreSQL and one in MariaDB, on rows of its own per worker. Variants, in one run, interleaved:
 *   floor        both UPDATEs commit by themselves, in parallel: no atomicity, the least that the databases can do
 *   bare         the same packets and markers as ours, prepared and committed, with no decision written anywhere: not safe
 *   ours         the whole protocol, decisions in a `file:` store of this process
 *   last agent   PostgreSQL's own commit is the decision
 *   3 members    ours, with the decisions in a store of three processes on this machine, which share its two cores
 *   naive        a statement per round trip, one branch after the other, a state row of its own for begin, prepared and committed
 *   Atomikos     a JTA manager of the JVM on the same databases (`bench/peers/transactions`), in a process of its own, warm
 *   marked       the same, whose branches also write the marker rows that ours write: the same statements
 *
 * Sketch: forced writes per transfer, in sequence: floor 1, ours 3 (prepare, decision, commit), last agent 3 (prepare, the agent,
 * commit) but fewer in sum (MariaDB 2, PostgreSQL 1, store 0). On one disk and two cores the processor decides, and with it
 * the number of packets: floor 2, ours 4, naive 9 and more.
 * `--forced` counts the forced writes with strace instead.
 */
import { execFile, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { resolve } from "node:path";
import { parseArgs, promisify } from "node:util";
import mysql from "mysql2/promise";
import pg from "pg";
import { connect } from "../src/index.ts";
import { TransactionAborted } from "../src/transactions/errors.ts";
import { type TransactionManager, transactions } from "../src/transactions/manager.ts";
import { type MariadbResource, mariadb } from "../src/transactions/mariadb.ts";
import { type PostgresResource, postgres } from "../src/transactions/postgres.ts";
import { writtenIn } from "../src/transactions/written-in.ts";
import { StoreMembers } from "../test/crash/store-members.ts";
import { startMariadb } from "../test/servers/mariadb.ts";
import { startPostgres } from "../test/servers/postgres.ts";
import { type Figure, median, percentile, rounded, spread, writeFigures } from "./figures.ts";
import { startJta } from "./peers/transactions.ts";
import { familyProcessorMs } from "./processor.ts";

type Bank = { readonly orders: PostgresResource; readonly wallet: MariadbResource };
type Transfer = (worker: number, number: number) => Promise<unknown>;

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "3" },
    rounds: { type: "string", default: "3" },
    connections: { type: "string", default: "1,16,64" },
    /** Seconds of each variant before anything is measured, where the bars are. A third of it elsewhere. */
    warm: { type: "string", default: "10" },
    forced: { type: "boolean", default: false },
    /** Only these variants. */
    only: { type: "string", default: "" },
  },
});
const connectionsMax = 64;
/** Where the bars are, and the variants that only run there: the servers have no room for more connections at 64. */
const barConnections = 16;
const started = await Promise.all([startPostgres(), startMariadb()]);
for (const each of started) {
  if ("skipped" in each) {
    console.log(`Skipped: ${each.skipped}.`);
    process.exit(0);
  }
}
const [left, right] = started as [Extract<(typeof started)[0], { url: string }>, Extract<(typeof started)[1], { url: string }>];
const folder = mkdtempSync(resolve("node_modules/.bench-tx-"));
// The manager's pools are made like these: the same drivers, the same number of connections.
const leftPool = new pg.Pool({ connectionString: left.url, max: connectionsMax, pipeline: true } as pg.PoolConfig);
// Those that idle when the servers stop.
leftPool.on("error", () => undefined);
const rightPool = mysql.createPool({ uri: right.url, connectionLimit: connectionsMax, multipleStatements: true, trace: false });
const rowsText = Array.from({ length: 128 }, (_, at) => `(${at}, 1000000)`).join(",");
for (const sql of [
  "CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL)",
  `INSERT INTO account VALUES ${rowsText}`,
]) {
  await leftPool.query(sql);
  await rightPool.query(sql);
}
await leftPool.query("CREATE TABLE naive (gid varchar(60) PRIMARY KEY, state varchar(12))");
const conclave = await connect(`file:${folder}/store`);
const tm: TransactionManager<Bank> = await transactions<Bank>({
  store: conclave.engine,
  resources: {
    orders: postgres({ url: left.url, connectionsMax, preparedMax: 64 }),
    wallet: mariadb({ url: right.url, connectionsMax }),
  },
});
/** What nobody asked for is not started: it would share the two processors. */
const isWanted = (name: string): boolean => values.only === "" || values.only.split(",").includes(name);
const members = values.forced || !isWanted("3 members") ? undefined : await StoreMembers.start(folder, 3);
const three = members === undefined ? undefined : await connect({ url: members.url, timeoutMs: 20_000 });
const tmThree =
  three === undefined
    ? undefined
    : await transactions<Bank>({
        store: three.engine,
        resources: {
          orders: postgres({ url: left.url, connectionsMax: 32, preparedMax: 32 }),
          wallet: mariadb({ url: right.url, connectionsMax: 16 }),
        },
      });
const jta =
  values.forced || !(isWanted("Atomikos") || isWanted("marked"))
    ? undefined
    : await startJta({ postgres: left.port, mariadb: right.port });
if (jta !== undefined && "skipped" in jta) console.log(`No JVM manager: ${jta.skipped}.`);
const leftSql = "UPDATE account SET balance = balance - 1 WHERE id = $1";
const rightSql = "UPDATE account SET balance = balance + 1 WHERE id = ?";

let names = 0;
const everyVariant: Readonly<Record<string, Transfer>> = {
  floor: (worker) => Promise.all([leftPool.query(leftSql, [worker]), rightPool.query(rightSql, [worker])]),
  bare,
  ours: (worker) => ours(tm, worker),
  "last agent": (worker) =>
    tm.run({ lastAgent: "orders" }, (tx) => {
      tx.on("orders").last(leftSql, [worker]);
      tx.on("wallet").last(rightSql, [worker]);
    }),
  naive,
  // MariaDB touches no row and refuses: what PostgreSQL has prepared is rolled back. Only counted, not measured.
  ...(values.forced ? { abort: refused } : {}),
  ...(tmThree === undefined ? {} : { "3 members": (worker: number) => ours(tmThree, worker) }),
};

const variants: Readonly<Record<string, Transfer>> = Object.fromEntries(
  Object.entries(everyVariant).filter(([name]) => isWanted(name)),
);
if (values.forced) await countForced();
else await measure();
if (jta !== undefined && "stop" in jta) jta.stop();
await tmThree?.close();
await three?.close();
await tm.close();
await conclave.close();
await members?.stop();
await leftPool.end();
await rightPool.end();
await Promise.all([left.stop(), right.stop()]);
rmSync(folder, { recursive: true, force: true });

function ours(manager: TransactionManager<Bank>, worker: number): Promise<unknown> {
  return manager.run({}, (tx) => {
    tx.on("orders").last(leftSql, [worker]);
    tx.on("wallet").last(rightSql, [worker]);
  });
}

async function refused(worker: number): Promise<void> {
  const ended = await tm
    .run({}, (tx) => {
      tx.on("orders").last(leftSql, [worker]);
      tx.on("wallet").last(rightSql, [-1], { rows: 1 });
    })
    .catch((error: unknown) => error);
  if (!(ended instanceof TransactionAborted)) throw new Error("it was to be refused", { cause: ended });
}

/** The same packets and markers as ours, and nobody who could finish it after a crash. */
async function bare(worker: number): Promise<void> {
  names++;
  const gid = `bare.${process.pid}.${names}`;
  const [client, connection] = await Promise.all([leftPool.connect(), rightPool.getConnection()]);
  const xid = `'${gid}','1',1`;
  const prepareLeft = async (): Promise<void> => {
    // One text, as ours.
    await client.query(
      `BEGIN;\n${writtenIn(leftSql, [worker])};\n` +
        `INSERT INTO conclave_mark (gid, br, cls, op, parts) VALUES ('${gid}', 1, 0, 'do', 'orders:1,wallet:2');\n` +
        `PREPARE TRANSACTION '${gid}'`,
    );
    client.release();
  };
  const marker = connection.format("INSERT INTO conclave_mark (gid, br, cls, op, parts) VALUES (?, ?, 0, 'do', ?)", [
    gid,
    2,
    "orders:1,wallet:2",
  ]);
  await Promise.all([
    prepareLeft(),
    connection.query(`XA START ${xid}; ${connection.format(rightSql, [worker])}; ${marker}; XA END ${xid}; XA PREPARE ${xid}`),
  ]);
  await Promise.all([
    leftPool.query(`COMMIT PREPARED '${gid}'`),
    connection.query(`XA COMMIT ${xid}`).then(() => connection.release()),
  ]);
}

/** What one writes in an afternoon: each step a round trip, each state a row. */
async function naive(worker: number): Promise<void> {
  names++;
  const gid = `naive.${process.pid}.${names}`;
  const [client, connection] = await Promise.all([leftPool.connect(), rightPool.getConnection()]);
  const xid = `'${gid}','1',1`;
  await leftPool.query("INSERT INTO naive VALUES ($1, 'begun')", [gid]);
  await client.query("BEGIN");
  await client.query(leftSql, [worker]);
  await connection.query(`XA START ${xid}`);
  await connection.query(rightSql, [worker]);
  await client.query(`PREPARE TRANSACTION '${gid}'`);
  await connection.query(`XA END ${xid}`);
  await connection.query(`XA PREPARE ${xid}`);
  await leftPool.query("UPDATE naive SET state = 'prepared' WHERE gid = $1", [gid]);
  await client.query(`COMMIT PREPARED '${gid}'`);
  await connection.query(`XA COMMIT ${xid}`);
  await leftPool.query("UPDATE naive SET state = 'committed' WHERE gid = $1", [gid]);
  client.release();
  connection.release();
}

interface Load {
  readonly rate: number;
  readonly p50: number;
  readonly p99: number;
  /** Processor time a transfer, in milliseconds; unknown of what runs elsewhere. */
  readonly cpu: Processors | undefined;
}

interface Processors {
  readonly here: number;
  readonly postgres: number;
  readonly mariadb: number;
}

async function measure(): Promise<void> {
  const figures: Figure[] = [];
  const seconds = Number(values.seconds);
  for (const connections of values.connections.split(",").map(Number)) {
    const loads = loadsAt(connections);
    const found = new Map<string, Load[]>([...loads.keys()].map((name) => [name, []]));
    // Both machines compile what runs often, in threads of their own beside the same two processors: everybody gets the same
    // time for it. Over the first 6,600 transfers of ours a quarter of this process's time was V8's own threads.
    const warmSeconds = Number(values.warm) / (connections === barConnections ? 1 : 3);
    for (const run of loads.values()) await run(warmSeconds);
    for (let round = 0; round < Number(values.rounds); round++) {
      // There and back: what the machine does meanwhile meets all of them alike.
      const order = round % 2 === 0 ? [...loads] : [...loads].reverse();
      for (const [name, run] of order) found.get(name)?.push(await run(seconds));
    }
    const rateOf = (name: string): number => median((found.get(name) ?? []).map(({ rate }) => rate));
    const costsOf = (name: string): Processors | undefined => {
      const known = (found.get(name) ?? []).flatMap(({ cpu }) => (cpu === undefined ? [] : [cpu]));
      if (known.length === 0) return undefined;
      const of = (where: keyof Processors): number => median(known.map((each) => each[where]));
      return { here: of("here"), postgres: of("postgres"), mariadb: of("mariadb") };
    };
    const costOf = (name: string): number => {
      const costs = costsOf(name);
      return costs === undefined ? Number.NaN : costs.here + costs.postgres + costs.mariadb;
    };
    const describeProcessors = (name: string): string => {
      const costs = costsOf(name);
      if (costs === undefined) return "";
      const { here, postgres: left, mariadb: right } = costs;
      return `processor ${here.toFixed(2)} here + ${left.toFixed(2)} PostgreSQL + ${right.toFixed(2)} MariaDB = ${costOf(name).toFixed(2)} ms  `;
    };
    const [floor, bareRate] = [rateOf("floor"), rateOf("bare")];
    console.log(`\n${connections} connections`);
    for (const [name, rounds] of found) {
      const rate = rateOf(name);
      const all = rounds.map((each) => each.rate);
      const cpu = describeProcessors(name);
      const tail = `p50 ${median(rounds.map(({ p50 }) => p50)).toFixed(2)} ms, p99 ${median(rounds.map(({ p99 }) => p99)).toFixed(2)} ms`;
      console.log(
        `  ${name.padEnd(11)} ${rate.toFixed(0).padStart(6)} tx/s  ${(rate / floor).toFixed(2)} of the floor, ${(rate / bareRate).toFixed(2)} of bare  ` +
          `${cpu}${tail}  (${all.map((each) => each.toFixed(0)).join(", ")})`,
      );
      figures.push({
        case: `${name} at ${connections} connections`,
        ours: rounded(rate),
        peer: name === "floor" ? null : rounded(floor),
        peerName: name === "floor" ? null : "two plain commits",
        peerVersion: null,
        ratio: name === "floor" ? null : rounded(rate / floor),
        unit: "transactions/s",
        oursSpread: spread(all.map(rounded)),
        note: `${tail}; ${(rate / bareRate).toFixed(2)} of bare${cpu === "" ? "" : `; ${cpu.trim()}`}`,
      });
    }
    if (connections === barConnections) printBars({ rateOf, costOf });
  }
  writeFigures("transactions", figures);
}

function loadsAt(connections: number): ReadonlyMap<string, (seconds: number) => Promise<Load>> {
  const loads = new Map<string, (seconds: number) => Promise<Load>>();
  for (const [name, transfer] of Object.entries(variants)) {
    if (name === "3 members" && connections > barConnections) continue;
    loads.set(name, (seconds) => load(transfer, connections, seconds));
  }
  if (jta !== undefined && "measure" in jta && connections <= barConnections) {
    for (const name of ["Atomikos", "marked"].filter(isWanted)) {
      const run = async (seconds: number) => ({
        ...(await jta.measure(connections, seconds, name === "marked")),
        cpu: undefined,
      });
      loads.set(name, run);
    }
  }
  return loads;
}

/**
 * What was asked of this bench, and whether this run has it. Beside it the ratio of processor time, which is what the rates
 * come to where processors are the limit, and which other programs on the machine disturb less.
 */
function printBars({
  rateOf,
  costOf,
}: {
  readonly rateOf: (name: string) => number;
  readonly costOf: (name: string) => number;
}): void {
  const bars = [
    ["ours", "floor", 0.45],
    ["ours", "bare", 0.85],
    ["last agent", "floor", 0.55],
    ["ours", "Atomikos", 2],
    ["ours", "marked", 2],
    ["bare", "floor", undefined],
  ] as const;
  for (const [name, peer, bar] of bars) {
    const ratio = rateOf(name) / rateOf(peer);
    if (!Number.isFinite(ratio)) continue;
    const cost = costOf(peer) / costOf(name);
    const byProcessor = Number.isFinite(cost) ? ` (${cost.toFixed(2)} by processor time)` : "";
    const asked = bar === undefined ? "nothing asked" : `asked ${bar}: ${ratio >= bar ? "met" : "missed"}`;
    console.log(`  ${name} / ${peer}: ${ratio.toFixed(2)}${byProcessor}, ${asked}`);
  }
}

async function load(transfer: Transfer, connections: number, seconds: number): Promise<Load> {
  const took: number[] = [];
  const before = processorMs();
  const startedMs = performance.now();
  const untilMs = startedMs + seconds * 1_000;
  const work = async (worker: number): Promise<void> => {
    for (let number = 0; performance.now() < untilMs; number++) {
      const sentMs = performance.now();
      await transfer(worker, number);
      took.push(performance.now() - sentMs);
    }
  };
  await Promise.all(Array.from({ length: connections }, (_, at) => work(at)));
  const after = processorMs();
  const each = (where: keyof Processors): number => (after[where] - before[where]) / took.length;
  const cpu = { here: each("here"), postgres: each("postgres"), mariadb: each("mariadb") };
  const rate = took.length / ((performance.now() - startedMs) / 1_000);
  took.sort((one, other) => one - other);
  const [p50, p99] = [percentile(took, 0.5), percentile(took, 0.99)];
  return { rate, p50, p99, cpu: Number.isFinite(cpu.here + cpu.postgres + cpu.mariadb) ? cpu : undefined };
}

function processorMs(): Processors {
  const { user, system } = process.cpuUsage();
  return {
    here: (user + system) / 1_000,
    postgres: familyProcessorMs(left.pid()) ?? Number.NaN,
    mariadb: familyProcessorMs(right.pid()) ?? Number.NaN,
  };
}

/** Of each server and of this process, while so many transfers run one after another. */
async function countForced(): Promise<void> {
  const count = 50;
  const targets = { PostgreSQL: left.pid(), MariaDB: right.pid(), "this process (decisions)": process.pid };
  console.log(
    `Forced writes per transaction, of ${count} one after another, counted by strace (fsync, fdatasync, and writes with RWF_DSYNC):`,
  );
  for (const [name, transfer] of Object.entries(variants)) {
    for (let at = 0; at < 5; at++) await transfer(1, at);
    await new Promise((done) => setTimeout(done, 400));
    const traces = await Promise.all(
      Object.entries(targets).map(async ([target, pid]) => [target, await startTrace(pid)] as const),
    );
    for (let at = 0; at < count; at++) await transfer(1, at);
    const counts = await Promise.all(
      traces.map(async ([target, trace]) => `${target} ${((await trace.stop()) / count).toFixed(2)}`),
    );
    console.log(`  ${name.padEnd(11)} ${counts.join(", ")}`);
  }
}

async function startTrace(pid: number) {
  const file = `${folder}/trace-${pid}`;
  const children = await promisify(execFile)("pgrep", ["-P", String(pid)]).then(
    ({ stdout }) => stdout.trim().split("\n").filter(Boolean),
    () => [],
  );
  const family = pid === process.pid ? [String(pid)] : [String(pid), ...children];
  // The log of the store is a descriptor whose writes return when they are on the disk: each write to it is a forced one.
  const calls = "trace=fsync,fdatasync,pwritev,pwritev2,pwrite64,writev";
  const child = spawn("strace", ["-f", "-qq", "-e", calls, "-o", file, ...family.flatMap((each) => ["-p", each])], {
    stdio: "ignore",
  });
  await new Promise((done) => setTimeout(done, 700));
  return {
    stop: async (): Promise<number> => {
      // What is written lazily has its time; the markers' cleaning and the forgetting are no part of a transaction.
      await new Promise((done) => setTimeout(done, 150));
      child.kill("SIGINT");
      await new Promise((done) => child.once("exit", done));
      const text = readFileSync(file, "utf8");
      rmSync(file);
      return text.split("\n").filter((line) => isForced(line, pid)).length;
    },
  };
}

function isForced(line: string, pid: number): boolean {
  const [, call, descriptor] = /\b(fsync|fdatasync|pwritev2?|pwrite64|writev)\((\d+)/.exec(line) ?? [];
  if (call === undefined) return false;
  if (call.startsWith("f")) return true;
  try {
    const flags = /flags:\s*([0-7]+)/.exec(readFileSync(`/proc/${pid}/fdinfo/${descriptor}`, "utf8"))?.[1] ?? "0";
    return (Number.parseInt(flags, 8) & 0o10000) !== 0;
  } catch {
    return false;
  }
}
