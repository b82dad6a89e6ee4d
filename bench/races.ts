/**
 * The race suite: what a cache serves when things happen at once. Ours and the peers, in one run, on this machine.
 *
 *   npm run bench -- races [--only NAME]
 *
 * T1  a key deleted while its load runs, then read        T6  the bus is cut while the other node deletes
 * T2  a tag deleted while a load runs, then read          T7  an L2 read that a delete overtook fills L1
 * T3  fifty readers of a failing load: calls, wall time   T8  L2 brings back what was deleted (a failover)
 * T4  a thousand readers of a cold key: loads             T9  a caller changes the value, the next one reads it
 * T5  two nodes, a hundred readers each: loads            T10 a tag deleted by a node whose clock is 5 s behind
 * `-`: it has no such thing. Writes bench/results/races.json. Exit code 1 when one of ours fails.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { asPeer, ourNodes, type Peer, type PeerCache, startRedis } from "./cache-rig.ts";
import { commit, machine } from "./figures.ts";
import { installPeers } from "./peers/install-peers.ts";

interface Verdict {
  readonly passed: boolean | null;
  readonly text: string;
}

interface Pair {
  readonly one: PeerCache;
  readonly two: PeerCache;
  /** Nothing of one's messages reaches two until the returned function is called. */
  cutBus(): Promise<() => Promise<void>>;
  /** Puts back what L2 had before. */
  rememberL2(): Promise<() => Promise<void>>;
  close(): Promise<void>;
}

interface Subject {
  readonly name: string;
  readonly version: string;
  readonly hasTags: boolean;
  single(options?: { readonly tags?: boolean }): Promise<PeerCache>;
  readonly pair: (() => Promise<Pair>) | undefined;
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const none: Verdict = { passed: null, text: "-" };
const served = (value: unknown): Verdict => ({
  passed: value === "new",
  text: value === "new" ? "fresh" : `stale (${String(value)})`,
});
const slowly =
  (value: string, ms = 60) =>
  async (): Promise<string> => {
    await sleep(ms);
    return value;
  };

const { values } = parseArgs({ options: { only: { type: "string", default: "" } }, allowPositionals: true });
const redis = await startRedis();
if (redis === undefined) throw new Error("The race suite needs redis-server (Debian: apt-get install redis-server).");
const { port } = redis;
const folder = installPeers("cache");
const { peers } = (await import(pathToFileURL(`${folder}/peers.mjs`).href)) as { peers: readonly Peer[] };
const { createClient } = await import("@redis/client");
const admin = createClient({ socket: { host: "127.0.0.1", port } });
await admin.connect();

const subjects = [...peers.map(peerSubject), ourSubject()].filter(({ name }) => name.includes(values.only));
const tests: Readonly<Record<string, (subject: Subject) => Promise<Verdict>>> = {
  "T1 delete during load": t1,
  "T2 tag during load": t2,
  "T3 failing load, 50 readers": t3,
  "T4 1,000 cold readers": t4,
  "T5 two nodes x 100 cold": t5,
  "T6 bus cut during delete": t6,
  "T7 L2 read overtaken": t7,
  "T8 L2 brings it back": t8,
  "T9 caller changes the value": t9,
  "T10 clock 5 s behind, tag": t10,
};
const results: Record<string, Record<string, Verdict>> = {};
for (const [title, test] of Object.entries(tests)) {
  results[title] = {};
  for (const subject of subjects) {
    const verdict = await withDeadline(test(subject), 20_000).catch((error: unknown) => ({
      passed: false,
      text: `failed: ${(error as Error).message.slice(0, 60)}`,
    }));
    results[title][subject.name] = verdict;
  }
}
const table = toTable();
console.log(`\n${table}\n\n${machine()}; redis-server; commit ${commit()}`);
mkdirSync("bench/results", { recursive: true });
const versions = Object.fromEntries(subjects.map(({ name, version }) => [name, version]));
writeFileSync("bench/results/races.json", `${JSON.stringify({ machine: machine(), versions, results }, null, 2)}\n`);
writeFileSync("bench/results/races.md", `${table}\n`);
const failed = Object.entries(results).filter(([, row]) => row["conclave"] !== undefined && row["conclave"].passed !== true);
for (const [title] of failed) console.log(`ours does not pass ${title}`);
admin.destroy();
redis.child.kill("SIGKILL");
process.exit(failed.length === 0 ? 0 : 1);

// -------------------------------------------------------------------------------------------------- the tests

async function t1(subject: Subject): Promise<Verdict> {
  const cache = await subject.single();
  const first = cache.get("k", slowly("old"));
  await sleep(20);
  await cache.delete("k");
  await first;
  const value = await cache.get("k", async () => "new");
  await cache.close();
  return served(value);
}

async function t2(subject: Subject): Promise<Verdict> {
  if (!subject.hasTags) return none;
  const cache = await subject.single({ tags: true });
  const first = cache.get("k", slowly("old"), { tags: ["t"] });
  await sleep(20);
  await cache.deleteTag?.("t");
  await first;
  const value = await cache.get("k", async () => "new", { tags: ["t"] });
  await cache.close();
  return served(value);
}

async function t3(subject: Subject): Promise<Verdict> {
  const cache = await subject.single();
  let calls = 0;
  const load = async (): Promise<never> => {
    calls++;
    await sleep(20);
    throw new Error("the origin failed");
  };
  const startedMs = performance.now();
  const reads = await Promise.allSettled(Array.from({ length: 50 }, () => cache.get("failing", load)));
  const tookMs = Math.round(performance.now() - startedMs);
  const rejected = reads.filter(({ status }) => status === "rejected").length;
  await cache.close();
  return { passed: calls === 1 && rejected === 50 && tookMs < 500, text: `${calls} calls, ${tookMs} ms, ${rejected} rejected` };
}

async function t4(subject: Subject): Promise<Verdict> {
  const cache = await subject.single();
  let calls = 0;
  const load = async (): Promise<string> => {
    calls++;
    await sleep(20);
    return "v";
  };
  await Promise.all(Array.from({ length: 1_000 }, () => cache.get("cold", load)));
  await cache.close();
  return { passed: calls === 1, text: `${calls} load${calls === 1 ? "" : "s"}` };
}

async function t5(subject: Subject): Promise<Verdict> {
  if (subject.pair === undefined) return { passed: null, text: "per node" };
  const pair = await subject.pair();
  let calls = 0;
  const load = async (): Promise<string> => {
    calls++;
    await sleep(50);
    return "v";
  };
  await Promise.all([pair.one, pair.two].flatMap((node) => Array.from({ length: 100 }, () => node.get("cold", load))));
  await pair.close();
  return { passed: calls === 1, text: `${calls} load${calls === 1 ? "" : "s"}` };
}

async function t6(subject: Subject): Promise<Verdict> {
  if (subject.pair === undefined) return none;
  const pair = await subject.pair();
  await pair.one.get("k", async () => "old");
  await pair.two.get("k", async () => "old");
  const mend = await pair.cutBus();
  await pair.one.delete("k");
  await pair.one.get("k", async () => "new");
  await mend();
  await sleep(2_500);
  const value = await pair.two.get("k", async () => "new");
  await pair.close();
  return served(value);
}

async function t7(subject: Subject): Promise<Verdict> {
  if (subject.pair === undefined) return none;
  const pair = await subject.pair();
  await pair.one.get("k", async () => "old");
  await sleep(50);
  pair.two.slowL2?.(60);
  const slow = pair.two.get("k", async () => "new");
  await sleep(25);
  await pair.one.delete("k");
  await slow;
  pair.two.slowL2?.(0);
  const value = await pair.two.get("k", async () => "new");
  await pair.close();
  return served(value);
}

async function t8(subject: Subject): Promise<Verdict> {
  if (subject.pair === undefined) return none;
  const pair = await subject.pair();
  await pair.one.get("k", async () => "old");
  await sleep(50);
  const bringBack = await pair.rememberL2();
  await pair.one.delete("k");
  await sleep(50);
  await bringBack();
  const value = await pair.one.get("k", async () => "new");
  await pair.close();
  return served(value);
}

async function t9(subject: Subject): Promise<Verdict> {
  const cache = await subject.single();
  await cache.get("k", async () => ({ list: ["a"] }));
  const mine = (await cache.get("k", async () => ({ list: ["a"] }))) as { list: string[] };
  try {
    mine.list.push("mine");
  } catch {
    // Refused: as good as unseen.
  }
  const next = (await cache.get("k", async () => ({ list: ["a"] }))) as { list: string[] };
  await cache.close();
  return { passed: next.list.length === 1, text: next.list.length === 1 ? "original" : "mutated" };
}

async function t10(subject: Subject): Promise<Verdict> {
  if (subject.pair === undefined || !subject.hasTags) return none;
  const pair = await subject.pair();
  await pair.two.get("k", async () => "old", { tags: ["t"] });
  await sleep(50);
  const realNow = Date.now;
  Date.now = () => realNow() - 5_000;
  await pair.one.deleteTag?.("t").finally(() => {
    Date.now = realNow;
  });
  await sleep(200);
  const value = await pair.two.get("k", async () => "new", { tags: ["t"] });
  await pair.close();
  return served(value);
}

// -------------------------------------------------------------------------------------------------- the subjects

function peerSubject(peer: Peer): Subject {
  const { name, version, hasTags } = peer;
  const open = peer.pair ?? ((): Promise<PeerCache[]> => Promise.reject(new Error(`${name} has no nodes`)));
  const pair = async (): Promise<Pair> => {
    await admin.sendCommand(["FLUSHALL"]);
    const [one, two] = (await open(port)) as [PeerCache, PeerCache];
    await sleep(200);
    return {
      one,
      two,
      // The subscribers' connections die, and die again as often as they come back, until the other node is done.
      cutBus: async () => {
        const kill = async (): Promise<unknown> => admin.sendCommand(["CLIENT", "KILL", "TYPE", "pubsub"]);
        await kill();
        const again = setInterval(() => void kill(), 2);
        return async () => clearInterval(again);
      },
      rememberL2,
      close: async () => {
        await one.close();
        await two.close();
      },
    };
  };
  return { name, version, hasTags, single: (options) => peer.single(options), pair: peer.pair === undefined ? undefined : pair };
}

function ourSubject(): Subject {
  const pair = async (): Promise<Pair> => {
    await admin.sendCommand(["FLUSHALL"]);
    // The default l2TimeoutMs of 100 would let a busy machine load twice rather than wait for the lease: the race is what is tested.
    const cluster = await ourNodes(2, { redisPort: port, options: { l2TimeoutMs: 1_000 } });
    const [first, second] = cluster.nodes as [(typeof cluster.nodes)[0], (typeof cluster.nodes)[0]];
    return {
      one: asPeer(first),
      two: asPeer(second),
      // What is told meanwhile is lost, as the peers' message is.
      cutBus: async () => {
        second.stores.isLost = true;
        return async () => {
          second.stores.isLost = false;
        };
      },
      rememberL2,
      close: () => cluster.close(),
    };
  };
  const single = async (): Promise<PeerCache> => {
    const cluster = await ourNodes(1, { redisPort: undefined });
    return { ...asPeer(cluster.nodes[0] as never), close: () => cluster.close() };
  };
  return { name: "conclave", version: "this commit", hasTags: true, single, pair };
}

async function rememberL2(): Promise<() => Promise<void>> {
  const keys = (await admin.sendCommand(["KEYS", "*"])) as unknown as string[];
  const kept = await Promise.all(keys.map(async (key) => [key, await admin.get(key)] as const));
  return async () => {
    for (const [key, value] of kept) if (value !== null) await admin.set(key, value);
  };
}

async function withDeadline<T>(work: Promise<T>, ms: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${ms} ms`)), ms);
  });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}

function toTable(): string {
  const names = subjects.map(({ name, version }) => `${name} ${version}`);
  const lines = [`| test | ${names.join(" | ")} |`, `|---|${names.map(() => "---|").join("")}`];
  for (const [title, row] of Object.entries(results)) {
    const cells = subjects.map(({ name }) => {
      const { passed, text } = row[name] as Verdict;
      return passed === false ? `**${text}**` : text;
    });
    lines.push(`| ${title} | ${cells.join(" | ")} |`);
  }
  return lines.join("\n");
}
