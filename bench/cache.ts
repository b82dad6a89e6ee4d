/**
 * How fast the cache is, beside those that a user would take instead; every promise kept while it is measured: expiry and
 * `maxStaleMs` are on.
 *
 *   npm run bench -- cache [--rounds 5] [--seconds 0.4] [--l2-timeout 100] [--only local|sync|l2|expiry]
 *
 * With --only nothing is written. --l2-timeout: of the case with five processes; the default is the cache's.
 *
 * Sketch: a hit is one look into a Map (20-40 ns), one of the clock (50 ns, every eighth time in a storm) and a comparison;
 * an awaited one adds a turn of the promise queue (~60 ns). An L2 hit is a round trip on loopback (~40 us) and the parsing.
 * Each case runs the subjects in rotated order, in rounds; medians and spreads. Synchronous hits and those in L2 are measured
 * with a process for each subject and round, by the clock and by processor time. Writes bench/results/cache.{json,md}.
 */
import { type ChildProcess, fork } from "node:child_process";
import { writeFileSync } from "node:fs";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { createClient } from "@redis/client";
import { createCache } from "../src/cache/create-cache.ts";
import { redisL2 } from "../src/cache/redis-l2.ts";
import type { Cache } from "../src/cache-core/cache.ts";
import type { L2 } from "../src/cache-core/l2.ts";
import { cacheDefaults } from "../src/cache-core/options.ts";
import { connect } from "../src/index.ts";
import { ourNodes, type Peer, type PeerCache, startRedis } from "./cache-rig.ts";
import { keys, keysCount, type Rate, type Subject, small, untilTrusted } from "./cache-subject.ts";
import { commit, type Figure, machine, median, rounded, spread, writeFigures } from "./figures.ts";
import { installPeers } from "./peers/install-peers.ts";

interface Named {
  readonly name: string;
  readonly version: string;
}

interface Contestant extends Named, Subject {}

/** What may make a load one too many: no answer of the Store, a wait given up, none of L2, no proof of being current, an L2 value refused. */
const reasons = ["leasesUnknown", "leasesGivenUp", "l2Failures", "distrusted", "invalidated", "l2Poisoned"] as const;

if (process.env["CONCLAVE_BENCH_CACHE_CHILD"] !== undefined) await expiryChild();
else await main();

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rounds: { type: "string", default: "5" },
      seconds: { type: "string", default: "0.4" },
      only: { type: "string" },
      "l2-timeout": { type: "string", default: String(cacheDefaults.l2TimeoutMs) },
    },
    allowPositionals: true,
  });
  const rounds = Number(values.rounds);
  const seconds = Number(values.seconds);
  const l2TimeoutMs = Number(values["l2-timeout"]);
  if (values.only === "sync") {
    console.log(toMarkdown(await syncFigures({ rounds, seconds })));
    process.exit(0);
  }
  if (values.only === "l2" || values.only === "expiry") {
    const redis = await startRedis();
    if (redis === undefined) throw new Error("No redis-server on this machine.");
    const how = { rounds, seconds };
    console.log(toMarkdown(await (values.only === "l2" ? l2Figures(redis.port, how) : expiryFigures(redis.port, l2TimeoutMs))));
    redis.child.kill("SIGKILL");
    process.exit(0);
  }
  const folder = installPeers("cache");
  const { peers } = (await import(pathToFileURL(`${folder}/peers.mjs`).href)) as { peers: readonly Peer[] };
  const figures: Figure[] = [];
  const conclave = await connect("memory:");
  const ours = createCache<unknown>(conclave, "ours", { ttlMs: 600_000, maxStaleMs: 2_000, entriesMax: 200_000 });
  await ours.ready();
  const fill = (cache: { get(key: string, load: () => Promise<unknown>): Promise<unknown> }): Promise<unknown> =>
    Promise.all(keys.map((key) => cache.get(key, async () => small)));
  await fill(ours);
  await untilTrusted(ours);

  // ---------------------------------------------------------------- synchronous hits
  figures.push(...(await syncFigures({ rounds, seconds })));

  // ---------------------------------------------------------------- awaited hits
  const opened: { peer: Peer; cache: PeerCache }[] = [];
  for (const peer of peers) {
    const cache = await peer.single();
    await fill(cache);
    opened.push({ peer, cache });
  }
  const load = async (): Promise<unknown> => small;
  figures.push(
    ...(await compare("awaited hit", "hits/s", { rounds, seconds }, [
      {
        name: "conclave",
        version: commit(),
        ready: () => untilTrusted(ours),
        run: (times) => runHits(ours, (key) => ours.get(key, load), times),
      },
      ...opened.map(({ peer, cache }) => ({
        name: peer.name,
        version: peer.version,
        run: (times: number) => runAwaited((key) => cache.get(key, load), times),
      })),
    ])),
  );

  // ---------------------------------------------------------------- tagged hits
  const tagged = createCache<unknown>(conclave, "tagged", { ttlMs: 600_000, entriesMax: 200_000 });
  await tagged.ready();
  const options = { tags: ["org:7"] };
  const [bentoPeer] = peers.filter(({ name }) => name === "bentocache") as [Peer];
  const bento = await bentoPeer.single({ tags: true });
  for (const cache of [tagged, bento]) await Promise.all(keys.map((key) => cache.get(key, load, options)));
  figures.push(
    ...(await compare("tagged hit", "hits/s", { rounds, seconds }, [
      {
        name: "conclave",
        version: commit(),
        ready: () => untilTrusted(tagged),
        run: (times) => runHits(tagged, (key) => tagged.get(key, load, options), times),
      },
      {
        name: "bentocache",
        version: bentoPeer.version,
        run: (times) => runAwaited((key) => bento.get(key, load, options), times),
      },
    ])),
  );

  // ---------------------------------------------------------------- stampede
  let loads = 0;
  await Promise.all(
    Array.from({ length: 1_000 }, () =>
      ours.get("cold", async () => {
        loads++;
        await new Promise((resolve) => setTimeout(resolve, 20));
        return small;
      }),
    ),
  );
  figures.push(alone("loads of a 1,000-way stampede", loads, "loads"));

  // ---------------------------------------------------------------- memory
  figures.push(await memoryFigure(peers));

  // ---------------------------------------------------------------- L2
  const redis = values.only === "local" ? undefined : await startRedis();
  if (values.only === "local") {
    console.log("Without the cases with an L2.");
  } else if (redis === undefined) {
    console.log("No redis-server: the cases with an L2 are left out.");
  } else {
    figures.push(...(await l2Figures(redis.port, { rounds, seconds })));
    figures.push(...(await expiryFigures(redis.port, l2TimeoutMs)));
    redis.child.kill("SIGKILL");
  }
  for (const { cache } of opened) await cache.close();
  await bento.close();
  await ours.close();
  await tagged.close();
  await conclave.close();
  const table = toMarkdown(figures);
  console.log(table);
  if (values.only === undefined) {
    writeFigures("cache", figures);
    writeFileSync("bench/results/cache.md", `${table}\n`);
  }
  process.exit(0);
}

// ------------------------------------------------------------------------------------------------ loops

async function runAwaited(read: (key: string) => Promise<unknown>, times: number): Promise<void> {
  let found = 0;
  for (let at = 0; at < times; at++) if ((await read(keys[(at * 7) % keysCount] as string)) !== undefined) found++;
  if (found !== times) throw new Error(`${times - found} of ${times} were no hits`);
}

/** Awaited reads of ours, and the proof that they were hits. */
async function runHits(cache: Cache<unknown>, read: (key: string) => Promise<unknown>, times: number): Promise<void> {
  const before = cache.metrics.loads;
  await runAwaited(read, times);
  const loads = cache.metrics.loads - before;
  if (loads > 0) console.log(`${loads} of ${times} awaited reads were loads, not hits.`);
}

async function compare(
  title: string,
  unit: string,
  { rounds, seconds }: How,
  subjects: readonly Contestant[],
): Promise<Figure[]> {
  const rates = new Map<string, number[]>(subjects.map(({ name }) => [name, []]));
  const sizes = new Map<string, number>();
  for (const subject of subjects) sizes.set(subject.name, await sizeFor(subject, seconds));
  for (let round = 0; round < rounds; round++) {
    for (let at = 0; at < subjects.length; at++) {
      const subject = subjects[(at + round) % subjects.length] as Contestant;
      const times = sizes.get(subject.name) as number;
      await subject.ready?.();
      const startedMs = performance.now();
      await subject.run(times);
      rates.get(subject.name)?.push((times / (performance.now() - startedMs)) * 1_000);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
  return besideFirst(title, unit, subjects, ({ name }) => rates.get(name) as number[]);
}

/** The medians of the first beside those of each other one. */
function besideFirst<S extends Named>(
  title: string,
  unit: string,
  subjects: readonly S[],
  ratesOfSubject: (subject: S) => readonly number[],
): Figure[] {
  const [first, ...others] = subjects as [S, ...S[]];
  const mine = ratesOfSubject(first);
  return others.map((other) => {
    const theirs = ratesOfSubject(other);
    return {
      case: title,
      ours: rounded(median(mine)),
      peer: rounded(median(theirs)),
      peerName: other.name,
      peerVersion: other.version,
      ratio: rounded(median(mine) / median(theirs)),
      unit,
      oursSpread: spread(mine.map(rounded)),
      peerSpread: spread(theirs.map(rounded)),
    };
  });
}

/** So many that one run takes about the time; warms up on the way. */
async function sizeFor(subject: Subject, seconds: number): Promise<number> {
  for (let times = 1_000; ; times *= 4) {
    await subject.ready?.();
    const startedMs = performance.now();
    await subject.run(times);
    const tookMs = performance.now() - startedMs;
    if (tookMs > seconds * 250) return Math.ceil((times * seconds * 1_000) / tookMs);
  }
}

interface How {
  readonly rounds: number;
  readonly seconds: number;
}

function syncFigures(how: How): Promise<Figure[]> {
  installPeers("l1");
  return compareAlone("synchronous hit", "hits/s", how, [
    { subject: "sync/conclave", name: "conclave", version: commit() },
    { subject: "sync/lru-cache", name: "lru-cache (ttl)", version: "11.5.3" },
  ]);
}

/** Each subject in a process of its own (cache-subject.ts), in turns; the medians over all rounds of all processes. */
async function compareAlone(
  title: string,
  unit: string,
  { rounds, seconds, port = 0 }: How & { readonly port?: number },
  subjects: readonly (Named & { readonly subject: string })[],
): Promise<Figure[]> {
  const rates = new Map<string, Rate[]>(subjects.map(({ subject }) => [subject, []]));
  for (let round = 0; round < rounds; round++) {
    for (let at = 0; at < subjects.length; at++) {
      const { subject } = subjects[(at + round) % subjects.length] as (typeof subjects)[number];
      rates.get(subject)?.push(...(await ratesOf([subject, String(seconds), "3", String(port)])));
    }
  }
  const figuresBy = (by: keyof Rate, what: string): Figure[] =>
    besideFirst(title, what, subjects, ({ subject }) => (rates.get(subject) as Rate[]).map((rate) => rate[by]));
  return [...figuresBy("perSecond", unit), ...figuresBy("perProcessorSecond", `${unit} of processor time`)];
}

function ratesOf(args: readonly string[]): Promise<Rate[]> {
  return new Promise((resolve, reject) => {
    const child = fork(fileURLToPath(new URL("cache-subject.js", import.meta.url)), args, { execArgv: ["--expose-gc"] });
    child.once("message", (rates) => resolve(rates as Rate[]));
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`The process of ${args[0]} ended with ${code}.`)));
  });
}

function alone(title: string, ours: number, unit: string, note?: string): Figure {
  return {
    case: title,
    ours,
    peer: null,
    peerName: null,
    peerVersion: null,
    ratio: null,
    unit,
    ...(note === undefined ? {} : { note }),
  };
}

// ------------------------------------------------------------------------------------------------ memory

async function memoryFigure(peers: readonly Peer[]): Promise<Figure> {
  const count = 100_000;
  const conclave = await connect("memory:");
  const cache = createCache<unknown>(conclave, "memory", { ttlMs: 600_000, entriesMax: count });
  await cache.ready();
  const mine = await heapOf(async () => {
    for (let at = 0; at < count; at++) await cache.get(`key:${at}`, async () => at);
  });
  const [bento] = peers.filter(({ name }) => name === "bentocache") as [Peer];
  const other = await bento.single();
  const theirs = await heapOf(async () => {
    for (let at = 0; at < count; at++) await other.get(`key:${at}`, async () => at);
  });
  const { entries } = cache.metrics;
  await cache.close();
  await other.close();
  await conclave.close();
  const toMb = (bytes: number): number => rounded(bytes / 1e6);
  return {
    case: "memory per 100,000 entries",
    ours: toMb(mine),
    peer: toMb(theirs),
    peerName: bento.name,
    peerVersion: bento.version,
    ratio: rounded(theirs / mine),
    unit: "MB",
    note: `${entries} entries, keys and a number each`,
  };
}

async function heapOf(work: () => Promise<void>): Promise<number> {
  const collect = async (): Promise<number> => {
    for (let times = 0; times < 3; times++) {
      (globalThis as { gc?: () => void }).gc?.();
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const { heapUsed, arrayBuffers } = process.memoryUsage();
    return heapUsed + arrayBuffers;
  };
  const before = await collect();
  await work();
  return (await collect()) - before;
}

// ------------------------------------------------------------------------------------------------ L2

async function l2Figures(port: number, how: How): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const [title, bytes] of [
    ["200 B", 200],
    ["8 KB", 8_000],
  ] as const) {
    for (const width of [1, 50]) {
      const subject = (who: string): string => `l2/${who}/${bytes}/${width}`;
      figures.push(
        ...(await compareAlone(`L2 hit, ${title}, ${width} at a time`, "reads/s", { ...how, port }, [
          { subject: subject("conclave"), name: "conclave", version: commit() },
          { subject: subject("bare"), name: "@redis/client, GET and JSON.parse", version: "6.3.1" },
          { subject: subject("checked"), name: "the same, checksum and freezing", version: "6.3.1" },
        ])),
      );
    }
  }
  return figures;
}

/** Five processes read one key for a while; how often is it loaded per expiry? */
async function expiryFigures(port: number, l2TimeoutMs: number): Promise<Figure[]> {
  const cluster = await ourNodes(0, { redisPort: undefined });
  const ttlMs = 500;
  const readForMs = 6_000;
  const count = 5;
  const ready: ChildProcess[] = [];
  const children = await Promise.all(
    Array.from(
      { length: count },
      () =>
        new Promise<ExpiryReport>((resolve, reject) => {
          const child = fork(fileURLToPath(import.meta.url), {
            env: {
              ...process.env,
              CONCLAVE_BENCH_CACHE_CHILD: JSON.stringify({ address: cluster.address, port, ttlMs, readForMs, l2TimeoutMs }),
            },
          });
          child.on("message", (message) => {
            if (message !== "ready") resolve(message as ExpiryReport);
            // All begin at once, and so end at once.
            else if (ready.push(child) === count) for (const each of ready) each.send("begin");
          });
          child.once("error", reject);
          child.once("exit", (code) => reject(new Error(`A process of the cluster ended with ${code}.`)));
        }),
    ),
  );
  await cluster.close();
  const loads = children
    .flatMap((child, process) => child.loads.map((load) => ({ ...load, process })))
    .sort((left, right) => left.atMs - right.atMs);
  const begun = loads.map(({ atMs }) => atMs);
  const reads = children.reduce((sum, each) => sum + each.reads, 0);
  const counted = reasons.map((reason) => `${reason} ${children.reduce((sum, each) => sum + each.reasons[reason], 0)}`);
  // A load that begins within half a TTL of the one before loads what that one loads.
  const apart = begun.filter((atMs, at) => at === 0 || atMs - (begun[at - 1] as number) > ttlMs / 2).length;
  // More than the TTL allows are values that ended early, not expiries.
  const expiries = Math.min(apart, Math.ceil(readForMs / ttlMs));
  if (begun.length > expiries) console.log(toWhy(loads));
  return [
    alone(
      "loads per expiry over five processes",
      rounded(begun.length / expiries),
      "loads",
      `${begun.length} loads (${counted.join(", ")}), ${expiries} expiries, ${reads} reads, a TTL of ${ttlMs} ms for ${readForMs} ms, no early refresh, no jitter, an l2TimeoutMs of ${l2TimeoutMs}`,
    ),
  ];
}

/** Who loaded when, and what was known of the reason: for the run that had a load too many. */
function toWhy(loads: readonly (ExpiryLoad & { readonly process: number })[]): string {
  const firstMs = loads[0]?.atMs ?? 0;
  const lines = loads.map(({ atMs, clockErrorMs, counted, process }) => {
    const clock = clockErrorMs === null ? "unknown" : `${clockErrorMs.toFixed(1)} ms wrong`;
    return `at ${(atMs - firstMs).toFixed(0)} ms process ${process}, its clock of Redis ${clock}; ${counted.join(", ") || "by a lease"}`;
  });
  return lines.join("\n");
}

interface ExpiryLoad {
  /** By the machine's clock. */
  readonly atMs: number;
  /** How far this process judges Redis's clock wrongly: on one machine both have the same. Null: not known yet. */
  readonly clockErrorMs: number | null;
  /** Which counters moved since this process' load before. */
  readonly counted: readonly string[];
}

interface ExpiryReport {
  readonly loads: readonly ExpiryLoad[];
  readonly reads: number;
  /** What may have made a load one too many, each by its own counter. */
  readonly reasons: Readonly<Record<(typeof reasons)[number], number>>;
}

async function expiryChild(): Promise<void> {
  const { address, port, ttlMs, readForMs, l2TimeoutMs } = JSON.parse(process.env["CONCLAVE_BENCH_CACHE_CHILD"] as string);
  const client = createClient({ socket: { host: "127.0.0.1", port } });
  await client.connect();
  const conclave = await connect(`conclave://${address}`);
  let tier: L2 | undefined;
  const cache: Cache<string> = createCache<string>(conclave, "expiry", {
    ttlMs,
    jitter: 0,
    earlyRefresh: 0,
    // Beyond it a read loads without a lease rather than wait.
    l2TimeoutMs,
    l2: (name) => {
      tier = redisL2({ client: client as never })(name);
      return tier;
    },
  });
  await cache.ready();
  const loads: ExpiryLoad[] = [];
  const counts = (): number[] => [...reasons, "leasesAwaited" as const].map((reason) => cache.metrics[reason]);
  let before = counts();
  const noteLoad = (): void => {
    const now = counts();
    const counted = [...reasons, "leasesAwaited"].filter((_, at) => now[at] !== before[at]);
    before = now;
    const clockMs = tier?.clockMs("hot");
    const atMs = performance.timeOrigin + performance.now();
    loads.push({ atMs, counted, clockErrorMs: clockMs === undefined ? null : clockMs - atMs });
  };
  let reads = 0;
  const begun = new Promise((resolve) => process.once("message", resolve));
  process.send?.("ready");
  await begun;
  const startMs = performance.now();
  while (performance.now() < startMs + readForMs) {
    await cache.get("hot", async () => {
      noteLoad();
      await new Promise((resolve) => setTimeout(resolve, 20));
      return "v";
    });
    reads++;
    if (reads % 50 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  }
  const { metrics } = cache;
  const counted = Object.fromEntries(reasons.map((reason) => [reason, metrics[reason]])) as ExpiryReport["reasons"];
  const report: ExpiryReport = { loads, reads, reasons: counted };
  // Who goes with a lease in hand is a dead holder, for whom the others wait until its session is over.
  await cache.close();
  await conclave.close();
  process.send?.(report, undefined, undefined, () => process.exit(0));
}

function toMarkdown(figures: readonly Figure[]): string {
  const lines = ["| case | conclave | peer | | ratio |", "|---|---|---|---|---|"];
  const number = (value: number): string => value.toLocaleString("en-US");
  for (const { case: title, ours, peer, peerName, peerVersion, ratio, unit, note } of figures) {
    const name = peerName === null ? (note ?? "") : `${peerName} ${peerVersion}${note === undefined ? "" : ` (${note})`}`;
    lines.push(`| ${title} (${unit}) | ${number(ours)} | ${peer === null ? "" : number(peer)} | ${name} | ${ratio ?? ""} |`);
  }
  return `${lines.join("\n")}\n\n${machine()}`;
}
