/**
 * Locks on Redis: ours beside the lock libraries of Node, in one run, each with a client and a server of its own. Those of Node
 * all go through ioredis, so ours is measured twice: by the client that it brings, and handed the one that they use.
 *
 *   uncontended   acquire and release, one at a time and 64 at once on 64 names
 *   contended     8 contenders with 1 ms of work: from a release to the next holder
 *   waiting       20 waiters behind a hold of 2 s: commands that the server saw meanwhile, time to serve them all, order
 *   cluster       the embedded engine, three members as processes with synced logs, beside etcd3 on three nodes of etcd
 *   loss          how long after a loss the holder's own check or signal says so
 *
 * Sketch: a loopback trip with two event loops is 40-60 us; SET NX and a deleting EVAL are two of them. Our scripts add
 * some 15 us of Lua to each. A hand-off is a release, a push and one look: two trips.
 *
 *   npm run bench -- locks [--rounds 3] [--only uncontended,contended,waiting,loss,cluster] [--no-peers]
 */
import { parseArgs } from "node:util";
import { type Conclave, connect } from "../src/index.ts";
import { type RedisServer, startRedis } from "../test/servers/redis.ts";
import { startCluster } from "./cluster.ts";
import { type Figure, median, percentile, rounded, spread, writeFiguresInto } from "./figures.ts";
import { etcdPeer, installLockPeers, ioredis, type LockPeer, lockPeers } from "./peers/locks.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "3" },
    only: { type: "string", default: "uncontended,contended,waiting,loss,cluster" },
    "no-peers": { type: "boolean", default: false },
  },
});
const rounds = Number(values.rounds);
const cases = values.only.split(",");
const patienceMs = 15_000;
/** The slowest that came to an end at all needed a tenth of it. */
const stuckMs = 20_000;
const pass = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** What a library that was given up still throws from its own callbacks ends nobody else's measuring. */
function onStray(error: unknown): void {
  if (stuck.size === 0) throw error;
  const said = error instanceof Error ? error.message : String(error);
  if (!strays.has(said)) console.log(`  after ${[...stuck].join(", ")} was given up: ${said}`);
  strays.add(said);
}
const strays = new Set<string>();
process.on("uncaughtException", onStray);
process.on("unhandledRejection", onStray);

const servers = new Map<number, RedisServer>();
const figures: Figure[] = [];
/** Those that did not come to an end: what they still do would count against the others. */
const stuck = new Set<string>();
const first = await server();
let contestants = [await ourselves({ url: `${first.url}?quarantineMs=-1`, port: first.port })];
if (!values["no-peers"] && installLockPeers()) {
  const { port } = await server();
  contestants.push(await ourselves({ url: "redis://given?quarantineMs=-1", port, client: ioredis(port) }));
  contestants.push(...(await lockPeers(async () => (await server()).port)));
}
try {
  if (cases.includes("uncontended")) await uncontended();
  if (cases.includes("contended")) await contended();
  if (cases.includes("waiting")) await waiting();
  if (cases.includes("loss")) await loss();
  if (cases.includes("cluster")) await cluster();
  if (figures.length > 0) writeFiguresInto("locks", figures);
} finally {
  for (const contestant of contestants) await contestant.close().catch(() => undefined);
  for (const each of servers.values()) await each.stop();
}
process.exit(0);

async function server(): Promise<RedisServer> {
  const started = await startRedis();
  if ("skipped" in started) {
    console.log(`Nothing is measured: ${started.skipped}.`);
    process.exit(0);
  }
  servers.set(started.port, started);
  return started;
}

function serverOf(peer: LockPeer): RedisServer {
  return servers.get(peer.port ?? 0) as RedisServer;
}

/** Out of the run: its server stops, and with it whatever it still tries. */
async function giveUp(peer: LockPeer): Promise<void> {
  stuck.add(peer.name);
  contestants = contestants.filter((each) => each !== peer);
  await Promise.race([peer.close().catch(() => undefined), pass(2_000)]);
}

async function ourselves({
  url,
  port = 0,
  client,
}: {
  readonly url: string;
  readonly port?: number;
  readonly client?: ReturnType<typeof ioredis>;
}): Promise<LockPeer> {
  const conclave: Conclave = await connect(client === undefined ? url : { url, client });
  const take = async (name: string, ttlMs: number, waitMs: number) => conclave.lock(name, { ttlMs }).acquire({ waitMs });
  return {
    name: client === undefined ? "conclave" : "conclave over ioredis",
    version: "this commit",
    checksOwner: true,
    port,
    acquire: (name, { ttlMs, waitMs }) => take(name, ttlMs, waitMs),
    async hold(name, { ttlMs, onLost }) {
      const hold = await take(name, ttlMs, 60_000);
      hold.signal.addEventListener("abort", onLost);
      return { release: () => hold.release(), isHeld: () => hold.held };
    },
    async close() {
      await conclave.close();
      client?.disconnect();
    },
  };
}

/** Microseconds of acquire and release, in turns so that nobody always finds the machine as another left it. */
async function uncontended(): Promise<void> {
  for (const [label, count, together] of [
    ["uncontended, one at a time", 1_000, 1],
    ["uncontended, 64 at once", 5_000, 64],
  ] as const) {
    const measured = new Map<string, number[]>();
    // Short rounds and many of them: whatever else the machine does for a moment is a round or two, and the median leaves it out.
    for (let round = -1; round < 3 * rounds; round++) {
      for (const peer of round % 2 === 0 ? contestants : [...contestants].reverse()) {
        // The first round warms, and a little before each: nine others have had the caches since.
        await cycles(peer, { count: round < 0 ? 2 * count : count / 5, together });
        const us = await cycles(peer, { count, together });
        if (round >= 0) measured.set(peer.name, [...(measured.get(peer.name) ?? []), us]);
      }
    }
    report(label, measured, "us");
  }
}

async function cycles(
  peer: LockPeer,
  { count, together }: { readonly count: number; readonly together: number },
): Promise<number> {
  if (peer.itself !== undefined) return peer.itself.cycles(count, together);
  let left = count;
  const work = async (index: number): Promise<void> => {
    const name = `free-${peer.name.replaceAll(" ", "-")}-${index}`;
    while (left-- > 0) await (await peer.acquire(name, { ttlMs: 15_000, waitMs: 10_000 })).release();
  };
  const startedAt = performance.now();
  await Promise.all(Array.from({ length: together }, (_, index) => work(index)));
  return ((performance.now() - startedAt) * 1_000) / count;
}

/** From the call of a release to the next holder's turn, over all hand-offs. */
async function contended(): Promise<void> {
  const [middle, high] = [new Map<string, number[]>(), new Map<string, number[]>()];
  for (let round = 0; round < 3 * rounds; round++) {
    // One round of those that poll takes as long as many of those that are told.
    for (const peer of round === 0 ? contestants : contestants.slice(0, 1)) {
      if (stuck.has(peer.name)) continue;
      // The first waits of a process open its second connection, and its code is cold.
      if (round === 0) await handOffs(peer, { contenders: 8, each: 5 });
      const gaps = await handOffs(peer, { contenders: 8, each: 50 });
      if (gaps === undefined) {
        await giveUp(peer);
        continue;
      }
      middle.set(peer.name, [...(middle.get(peer.name) ?? []), gaps.p50]);
      high.set(peer.name, [...(high.get(peer.name) ?? []), gaps.p99]);
    }
  }
  report("8 contenders, 1 ms of work: hand-off p50", middle, "ms");
  report("8 contenders, 1 ms of work: hand-off p99", high, "ms");
}

async function handOffs(
  peer: LockPeer,
  { contenders, each }: { readonly contenders: number; readonly each: number },
): Promise<{ readonly p50: number; readonly p99: number } | undefined> {
  if (peer.itself !== undefined) return peer.itself.handOffs(contenders, each);
  const gaps: number[] = [];
  let freedAt = 0;
  const name = `busy-${Math.random()}`;
  const work = async (): Promise<void> => {
    for (let turn = 0; turn < each; turn++) {
      const hold = await peer.acquire(name, { ttlMs: 15_000, waitMs: 60_000 });
      if (freedAt > 0) gaps.push(performance.now() - freedAt);
      const untilMs = performance.now() + 1;
      while (performance.now() < untilMs) await new Promise((resolve) => setImmediate(resolve));
      freedAt = performance.now();
      await hold.release();
    }
  };
  const all = Promise.all(Array.from({ length: contenders }, work)).then(() => true);
  const isDone = await Promise.race([all.catch(() => false), pass(stuckMs).then(() => false)]);
  if (!isDone) console.log(`  ${peer.name}: the contenders were not through after ${stuckMs} ms`);
  gaps.sort((left, right) => left - right);
  return isDone ? { p50: percentile(gaps, 0.5), p99: percentile(gaps, 0.99) } : undefined;
}

async function waiting(): Promise<void> {
  const [commands, drain, inversions] = [new Map<string, number[]>(), new Map<string, number[]>(), new Map<string, number[]>()];
  for (let round = 0; round < rounds; round++) {
    for (const peer of contestants) {
      if (stuck.has(peer.name)) continue;
      const seen = await queueBehind(peer, 20);
      if (seen === undefined) {
        await giveUp(peer);
        continue;
      }
      commands.set(peer.name, [...(commands.get(peer.name) ?? []), seen.commands]);
      drain.set(peer.name, [...(drain.get(peer.name) ?? []), seen.drainMs]);
      inversions.set(peer.name, [...(inversions.get(peer.name) ?? []), seen.inversions]);
    }
  }
  report("20 waiters for 2 s: commands of clients after everybody waits", commands, "commands");
  report("20 waiters: time to serve them all", drain, "ms");
  report("20 waiters: order inversions", inversions, "pairs");
}

async function queueBehind(
  peer: LockPeer,
  count: number,
): Promise<{ readonly commands: number; readonly drainMs: number; readonly inversions: number } | undefined> {
  if (peer.itself !== undefined) {
    const queue = await peer.itself.queue(count);
    const before = await callsSeen(peer);
    await pass(2_000);
    return { commands: (await callsSeen(peer)) - before, ...(await queue.serve()) };
  }
  const name = `queue-${Math.random()}`;
  const first = await peer.acquire(name, { ttlMs: 15_000, waitMs: 1_000 });
  const served: number[] = [];
  const waiters = Array.from({ length: count }, async (_, index) => {
    await pass(index * 5);
    const hold = await peer.acquire(name, { ttlMs: 15_000, waitMs: 30_000 });
    served.push(index);
    await hold.release();
  });
  // Everybody has asked once: what comes now is waiting.
  await pass(500);
  const before = await callsSeen(peer);
  await pass(2_000);
  const commands = (await callsSeen(peer)) - before;
  const startedAt = performance.now();
  await first.release();
  const isDone = await Promise.race([
    Promise.all(waiters).then(
      () => true,
      () => false,
    ),
    pass(stuckMs).then(() => false),
  ]);
  if (!isDone) {
    console.log(`  ${peer.name}: ${served.length} of ${count} waiters were served within ${stuckMs} ms`);
    return undefined;
  }
  const inversions = served.filter((each, at) => at > 0 && each < (served[at - 1] as number)).length;
  return { commands, drainMs: performance.now() - startedAt, inversions };
}

/** Commands of its clients, without this question itself. What a script calls inside counts too where it is a plain one. */
async function callsSeen(peer: LockPeer): Promise<number> {
  const stats = String(await serverOf(peer).command("INFO", "commandstats"));
  let calls = 0;
  for (const [, name, count] of stats.matchAll(/cmdstat_([^:]+):calls=(\d+)/g)) {
    if (/^(?:eval|evalsha|set|get|exists|ssubscribe|subscribe|unlink|del|fcall)$/.test(name as string)) calls += Number(count);
  }
  return calls;
}

/** Milliseconds from the moment of the loss to the library's own word for it. */
async function loss(): Promise<void> {
  const [stolen, frozen, blocked] = [new Map<string, number[]>(), new Map<string, number[]>(), new Map<string, number[]>()];
  for (const peer of contestants.filter((each) => each.hold !== undefined)) {
    stolen.set(peer.name, [await stolenAfter(peer)]);
    frozen.set(peer.name, [await frozenAfter(peer)]);
    blocked.set(peer.name, [await wrongAfterStall(peer)]);
  }
  report("TTL 2 s, stolen: until the holder knows", stolen, "ms");
  report("TTL 2 s, server frozen: until the holder knows", frozen, "ms");
  report("TTL 1 s, event loop blocked 3 s: first line after it still believes (1: yes)", blocked, "0 or 1");
}

async function stolenAfter(peer: LockPeer): Promise<number> {
  const name = `stolen-${Math.random()}`;
  let lostAt: number | undefined;
  const hold = await peer.hold?.(name, { ttlMs: 2_000, onLost: () => (lostAt ??= performance.now()) });
  await pass(500);
  await serverOf(peer).command("DEL", name, `mutex:${name}`);
  // Ours: the key of the lock, as an operator would delete it.
  if (peer.name.startsWith("conclave")) await breakOurs(serverOf(peer), name);
  return learned(hold, performance.now(), () => lostAt);
}

async function breakOurs(redis: RedisServer, name: string): Promise<void> {
  const other = await connect(`redis://127.0.0.1:${redis.port}?quarantineMs=-1`);
  await other.engine.store(`lock/${name}`).txn({ then: [{ kind: "delete", range: { prefix: "" } }] });
  await other.close();
}

async function frozenAfter(peer: LockPeer): Promise<number> {
  let lostAt: number | undefined;
  const hold = await peer.hold?.(`frozen-${Math.random()}`, { ttlMs: 2_000, onLost: () => (lostAt ??= performance.now()) });
  await pass(300);
  const frozenAt = performance.now();
  const { process: frozen } = serverOf(peer);
  frozen.pause();
  const thawing = setTimeout(() => frozen.resume(), 7_000);
  const ms = await learned(hold, frozenAt, () => lostAt);
  clearTimeout(thawing);
  frozen.resume();
  await pass(500);
  return ms;
}

async function wrongAfterStall(peer: LockPeer): Promise<number> {
  const hold = await peer.hold?.(`stalled-${Math.random()}`, { ttlMs: 1_000, onLost: () => undefined });
  const untilMs = performance.now() + 3_000;
  while (performance.now() < untilMs);
  const believes = hold?.isHeld?.() === true;
  await hold?.release().catch(() => undefined);
  return believes ? 1 : 0;
}

async function learned(
  hold: { release(): Promise<unknown>; isHeld?: () => boolean } | undefined,
  sinceMs: number,
  lostAt: () => number | undefined,
): Promise<number> {
  while (lostAt() === undefined && performance.now() - sinceMs < patienceMs) await pass(10);
  const at = lostAt();
  await Promise.race([hold?.release().catch(() => undefined), pass(100)]);
  return at === undefined ? Number.POSITIVE_INFINITY : at - sinceMs;
}

/** Both keep a majority's disks in step with every lock; nobody else in this run does. */
async function cluster(): Promise<void> {
  const ours = await startCluster();
  const etcd = await etcdPeer();
  try {
    const conclave = await ourselves({ url: ours.url });
    const pair = etcd === undefined ? [conclave] : [conclave, etcd];
    for (const [label, count, together] of [
      ["three members on disk: uncontended, one at a time", 300, 1],
      ["three members on disk: uncontended, 64 at once", 4_000, 64],
    ] as const) {
      const measured = new Map<string, number[]>();
      for (let round = -1; round < rounds; round++) {
        for (const peer of pair) {
          const us = await cycles(peer, { count: round < 0 ? count / 4 : count, together });
          if (round >= 0) measured.set(peer.name, [...(measured.get(peer.name) ?? []), us]);
        }
      }
      report(label, measured, "us", pair);
    }
    await conclave.close();
  } finally {
    await etcd?.close();
    await ours.stop();
  }
}

function report(
  label: string,
  measured: ReadonlyMap<string, readonly number[]>,
  unit: string,
  among: readonly LockPeer[] = contestants,
): void {
  console.log(`\n${label}`);
  const ours = measured.get("conclave");
  for (const peer of among) {
    const found = measured.get(peer.name);
    if (found === undefined) continue;
    const [low, high] = spread(found);
    console.log(`  ${peer.name.padEnd(28)} ${rounded(median(found))} ${unit}   (${rounded(low)} to ${rounded(high)})`);
    if (peer.name === "conclave" || ours === undefined) continue;
    figures.push({
      case: label,
      ours: rounded(median(ours)),
      peer: Number.isFinite(median(found)) ? rounded(median(found)) : null,
      peerName: peer.name,
      peerVersion: peer.version,
      ratio: median(ours) > 0 && Number.isFinite(median(found)) ? rounded(median(found) / median(ours)) : null,
      unit,
      oursSpread: spread(ours),
      peerSpread: spread(found),
    });
  }
}
