/**
 * The cache's promise on real processes, with what goes wrong in production:
 *
 *   npm run bench -- cache-faults [--short]
 *
 * L2 (a redis-server) is killed for 30 s, everything between one process and the Store is lost for 5 s, one process is frozen
 * (SIGSTOP) for 3 s, and one lives with a wall clock that is ten minutes off. `--short`: 4 s, 3 s, 2.5 s, for CI.
 * One process writes to an origin (a store of its own) and invalidates; three read without pause. All stamps are of the
 * machine's monotonic clock, so that processes can be compared. Judged afterwards, from what each of them wrote down:
 * - a read is stale beyond the bound when a newer version had been invalidated longer than `maxStaleMs` before it began;
 * - a read was blocked for as long as it took beyond its own load and the worst pause of its event loop meanwhile.
 * Exit code 1 when anything was stale beyond the bound, or blocked longer than L2's timeout. Writes bench/results/cache-faults.json.
 */
import { type ChildProcess, fork } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { createClient } from "@redis/client";
import { createCache } from "../src/cache/create-cache.ts";
import { type RedisClient, redisL2 } from "../src/cache/redis-l2.ts";
import { connect } from "../src/index.ts";
import { LossyStores, ourNodes, startRedis } from "./cache-rig.ts";
import { commit, machine } from "./figures.ts";

interface Role {
  readonly name: string;
  readonly work: "write" | "read";
  /** Of the member, for the origin. */
  readonly address: string;
  readonly redisPort: number;
  readonly file: string;
  readonly wallOffMs: number;
}

/** [key, version, returned at] of a writer. */
type Written = readonly [string, number, number];
/** [key, version, began at, took, own load, worst pause] of a reader. */
type Read = readonly [string, number, number, number, number, number];

interface ReaderReport {
  readonly reads: readonly Read[];
  readonly metrics: Readonly<Record<string, number>>;
  readonly errors: number;
  readonly bareTimerMsMax: number;
}

const maxStaleMs = 1_000;
const l2TimeoutMs = 100;
/** What a timer may be late beyond the pause that was seen. */
const slackMs = 25;
const keys = Array.from({ length: 20 }, (_, at) => `k${at}`);
const monotonicMs = (): number => Number(process.hrtime.bigint() / 1_000n) / 1_000;
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

const roleText = process.env["CONCLAVE_CACHE_FAULTS_ROLE"];
if (roleText !== undefined) await play(JSON.parse(roleText));
else await main();

// ------------------------------------------------------------------------------------------------ the parent

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { short: { type: "boolean", default: false } }, allowPositionals: true });
  const [deadMs, cutMs, frozenMs] = values.short ? [4_000, 3_000, 2_500] : [30_000, 5_000, 3_000];
  const redis = await startRedis();
  if (redis === undefined) throw new Error("The fault runs need redis-server (Debian: apt-get install redis-server).");
  const cluster = await ourNodes(0, { redisPort: undefined });
  const roles = ["writer", "skewed", "deaf", "frozen"].map(
    (name): Role => ({
      name,
      work: name === "writer" ? "write" : "read",
      address: cluster.address,
      redisPort: redis.port,
      file: join(tmpdir(), `conclave-cache-faults-${process.pid}-${name}.json`),
      wallOffMs: name === "skewed" ? 600_000 : 0,
    }),
  );
  const children = new Map(roles.map((role) => [role.name, start(role)]));
  const timeline: { readonly what: string; readonly atMs: number; readonly forMs: number }[] = [];
  const happens = async (what: string, forMs: number, begin: () => void, end: () => Promise<void> | void): Promise<void> => {
    timeline.push({ what, atMs: monotonicMs(), forMs });
    console.log(`${what} for ${forMs} ms`);
    begin();
    await sleep(forMs);
    await end();
    await sleep(2_000);
  };
  await sleep(3_000);
  const { port } = redis;
  let server = redis.child;
  await happens(
    "L2 is killed",
    deadMs as number,
    () => void server.kill("SIGKILL"),
    async () => {
      server = ((await startRedis(port)) as { child: ChildProcess }).child;
    },
  );
  const deaf = children.get("deaf") as ChildProcess;
  await happens(
    "the stream of invalidations is lost",
    cutMs as number,
    () => void deaf.send("lose"),
    () => void deaf.send("find"),
  );
  const frozen = children.get("frozen") as ChildProcess;
  await happens(
    "a process is frozen",
    frozenMs as number,
    () => void frozen.kill("SIGSTOP"),
    () => void frozen.kill("SIGCONT"),
  );
  for (const child of children.values()) child.send("stop");
  await Promise.all([...children.values()].map((child) => new Promise((resolve) => child.once("exit", resolve))));
  server.kill("SIGKILL");
  await cluster.close();
  const failed = report(roles, timeline);
  process.exit(failed ? 1 : 0);
}

function start(role: Role): ChildProcess {
  return fork(fileURLToPath(import.meta.url), { env: { ...process.env, CONCLAVE_CACHE_FAULTS_ROLE: JSON.stringify(role) } });
}

function report(roles: readonly Role[], timeline: readonly object[]): boolean {
  const read = (name: string): unknown =>
    JSON.parse(readFileSync((roles.find((role) => role.name === name) as Role).file, "utf8"));
  const { written } = read("writer") as { written: Written[] };
  const byKey = new Map<string, Written[]>(keys.map((key) => [key, written.filter(([each]) => each === key)]));
  const rows = roles
    .filter(({ work }) => work === "read")
    .map(({ name }) => {
      const { reads, metrics, errors, bareTimerMsMax } = read(name) as ReaderReport;
      let beyond = 0;
      let within = 0;
      let blockedMs = 0;
      for (const [key, version, beganAt, tookMs, loadMs, pauseMs] of reads) {
        for (const [, newer, answeredAt] of byKey.get(key) as Written[]) {
          if (newer <= version || answeredAt >= beganAt) continue;
          if (answeredAt + maxStaleMs < beganAt) beyond++;
          else within++;
          break;
        }
        blockedMs = Math.max(blockedMs, tookMs - loadMs - pauseMs);
      }
      return {
        process: name,
        reads: reads.length,
        errors,
        hits: metrics["hits"] ?? 0,
        l2Hits: metrics["l2Hits"] ?? 0,
        distrusted: metrics["distrusted"] ?? 0,
        staleWithinBound: within,
        staleBeyondBound: beyond,
        blockedMsMax: Math.round(blockedMs * 10) / 10,
        bareTimerMsMax: Math.round(bareTimerMsMax * 10) / 10,
      };
    });
  console.table(rows);
  const stale = rows.reduce((sum, row) => sum + row.staleBeyondBound, 0);
  const blocked = Math.max(...rows.map((row) => row.blockedMsMax));
  const total = rows.reduce((sum, row) => sum + row.reads, 0);
  console.log(`${total} reads, ${written.length} invalidations; maxStaleMs ${maxStaleMs}, l2TimeoutMs ${l2TimeoutMs}`);
  console.log(
    `stale reads beyond the bound: ${stale}; longest that a read was blocked: ${blocked} ms (allowed ${l2TimeoutMs} + ${slackMs})`,
  );
  mkdirSync("bench/results", { recursive: true });
  const result = { machine: machine(), commit: commit(), maxStaleMs, l2TimeoutMs, timeline, rows };
  writeFileSync("bench/results/cache-faults.json", `${JSON.stringify(result, null, 2)}\n`);
  const deaf = rows.find(({ process: name }) => name === "deaf");
  if (deaf?.distrusted === 0) console.log("The process that lost the stream never noticed.");
  const isVacuous = deaf?.distrusted === 0 || rows.some((row) => row.hits === 0 || row.reads === 0) || written.length === 0;
  if (isVacuous) console.log("Nothing was proven: somebody read or wrote nothing.");
  return isVacuous || stale > 0 || blocked > l2TimeoutMs + slackMs;
}

// ------------------------------------------------------------------------------------------------ the children

async function play(role: Role): Promise<void> {
  if (role.wallOffMs !== 0) {
    const real = Date.now;
    Date.now = () => real() + role.wallOffMs;
  }
  const origin = (await connect(`conclave://${role.address}`)).store("origin");
  const stores = new LossyStores((await connect(`conclave://${role.address}`)).engine);
  const client = createClient({
    socket: { host: "127.0.0.1", port: role.redisPort, reconnectStrategy: () => 100 },
    disableOfflineQueue: true,
  });
  client.on("error", () => undefined);
  await client.connect();
  const cache = createCache<number>(stores, "faults", {
    ttlMs: 60_000,
    maxStaleMs,
    l2TimeoutMs,
    l2: redisL2({ client: client as unknown as RedisClient }),
  });
  await cache.ready();
  let isOver = false;
  process.on("message", (message) => {
    if (message === "stop") isOver = true;
    else stores.isLost = message === "lose";
  });
  if (role.work === "write") {
    const written: Written[] = [];
    for (let version = 1; !isOver; version++) {
      const key = keys[version % keys.length] as string;
      await origin.put(key, String(version));
      await cache.invalidate(key);
      written.push([key, version, monotonicMs()]);
      await sleep(10);
    }
    writeFileSync(role.file, JSON.stringify({ written }));
  } else {
    writeFileSync(role.file, JSON.stringify(await readOn()));
  }
  process.exit(0);

  async function readOn() {
    const reads: Read[] = [];
    let errors = 0;
    let lastTick = monotonicMs();
    /** Pauses of the event loop, as [ended at, how long beyond what was asked]. */
    const pauses: [number, number][] = [];
    const tick = setInterval(() => {
      const now = monotonicMs();
      pauses.push([now, now - lastTick - 2]);
      lastTick = now;
      if (pauses.length > 1_000) pauses.splice(0, 500);
    }, 2);
    const pausedSince = (beganAt: number, endedAt: number): number =>
      pauses.reduce((sum, [when, long]) => (when >= beganAt && long > 1 ? sum + long : sum), 0) +
      Math.max(0, endedAt - lastTick - 2);
    let bareTimerMsMax = 0;
    /** What a timer of as long, and nothing else, takes in this process by the same reckoning. */
    const control = async (): Promise<void> => {
      while (!isOver) {
        const beganAt = monotonicMs();
        await sleep(l2TimeoutMs);
        const endedAt = monotonicMs();
        bareTimerMsMax = Math.max(bareTimerMsMax, endedAt - beganAt - pausedSince(beganAt, endedAt));
      }
    };
    const reader = async (offset: number): Promise<void> => {
      for (let at = offset; !isOver; at++) {
        const key = keys[(at * 7) % keys.length] as string;
        let loadMs = 0;
        const beganAt = monotonicMs();
        try {
          const version = await cache.get(key, async () => {
            const loadAt = monotonicMs();
            const value = Number((await origin.getText(key)) ?? 0);
            loadMs += monotonicMs() - loadAt;
            return value;
          });
          const endedAt = monotonicMs();
          reads.push([key, version, beganAt, endedAt - beganAt, loadMs, pausedSince(beganAt, endedAt)]);
        } catch {
          errors++;
        }
        await sleep(2);
      }
    };
    await Promise.all([...[0, 5, 11].map(reader), control()]);
    clearInterval(tick);
    return { reads, errors, metrics: cache.metrics, bareTimerMsMax };
  }
}
