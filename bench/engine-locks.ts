/**
 * Locks on etcd and ZooKeeper: ours beside what Node has for them, in one run, on one server each.
 *
 *   etcd        `etcd3` (its own Lock: a lease and a txn, then a revoke)
 *   ZooKeeper   Curator's recipe written on `node-zookeeper-client`, which has no lock: create a sequential ephemeral node, list,
 *               delete. It shares one session, so it does per lock what ours does. And Curator itself, in a JVM.
 *
 * Sketch: etcd and ZooKeeper write to disk before they answer, so an acquisition and a release are two syncs, and etcd3's three (grant,
 * put, revoke) plus a stream for the keep-alives of each lock. One at a time measures the disk; 64 at once shares its syncs.
 * Requests and syncs are counted by the server (etcd: its metrics; ZooKeeper: packets and the syncs of its log). Who waits for one
 * sync less cannot be faster by more than that, one at a time: two to three is 1.5x, however cheap the client.
 *
 *   npm run bench -- engine-locks [--rounds 3] [--only etcd,zookeeper] [--count 300]
 */
import { createRequire } from "node:module";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { connect } from "../src/index.ts";
import { startEtcd } from "../test/servers/etcd.ts";
import { startZooKeeper } from "../test/servers/zookeeper.ts";
import { type Figure, median, rounded, spread, writeFigures } from "./figures.ts";
import { installPeers } from "./peers/install-peers.ts";
import { curator, type SelfMeasuring } from "./peers/locks.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "3" },
    only: { type: "string", default: "etcd,zookeeper" },
    count: { type: "string", default: "300" },
  },
});
const rounds = Number(values.rounds);
const count = Number(values.count);
const ttlMs = 15_000;
const figures: Figure[] = [];
const require = createRequire(join(installPeers("engine-locks"), "package.json"));
// biome-ignore lint/suspicious/noExplicitAny: libraries that are not in our lock file have no types here.
type Foreign = any;

/** By the server, since it started. */
interface Seen {
  readonly requests: number;
  readonly syncs: number;
}

interface Contestant {
  readonly name: string;
  readonly version: string;
  acquire(name: string): Promise<() => Promise<unknown>>;
  readonly itself?: SelfMeasuring;
  close(): Promise<unknown>;
}

if (values.only.includes("etcd")) await onEtcd();
if (values.only.includes("zookeeper")) await onZooKeeper();
if (figures.length > 0) writeFigures("engine-locks", figures);
process.exit(0);

async function onEtcd(): Promise<void> {
  const etcd = await startEtcd();
  if ("skipped" in etcd) return console.log(`etcd: nothing is measured: ${etcd.skipped}.`);
  const { Etcd3 } = require("etcd3");
  const client = new Etcd3({ hosts: `127.0.0.1:${etcd.port}` });
  const peer: Contestant = {
    name: "etcd3",
    version: versionOf("etcd3"),
    async acquire(name) {
      const lock = client.lock(name).ttl(ttlMs / 1_000);
      await lock.acquire();
      return () => lock.release();
    },
    close: async () => client.close(),
  };
  const seen = async (): Promise<Seen> => {
    const text = await (await fetch(`http://127.0.0.1:${etcd.port}/metrics`)).text();
    const lines = text.matchAll(/^grpc_server_started_total\{[^}]*grpc_type="unary"\} (\d+)/gm);
    const syncs = Number(/^etcd_disk_wal_fsync_duration_seconds_count (\S+)/m.exec(text)?.[1] ?? Number.NaN);
    return { requests: [...lines].reduce((sum, [, started]) => sum + Number(started), 0), syncs };
  };
  await compare("etcd", [await ourselves(etcd.url), peer], seen);
  await etcd.stop();
}

async function onZooKeeper(): Promise<void> {
  const zookeeper = await startZooKeeper();
  if ("skipped" in zookeeper) return console.log(`ZooKeeper: nothing is measured: ${zookeeper.skipped}.`);
  const seen = async (): Promise<Seen> => {
    const text = await zookeeper.word(zookeeper.port, "mntr");
    const [requests, syncs] = [/zk_packets_received\t(\d+)/, /zk_cnt_fsynctime\t(\d+)/].map((line) =>
      Number(line.exec(text)?.[1] ?? Number.NaN),
    ) as [number, number];
    return { requests, syncs };
  };
  const onJvm = await curator(zookeeper.port).catch((error: Error) => console.log(`left out: Curator: ${error.message}`));
  const contestants: Contestant[] = [await ourselves(zookeeper.url), await curators(zookeeper.port)];
  if (onJvm !== undefined) contestants.push({ ...onJvm, acquire: () => Promise.reject(new Error("it measures itself")) });
  await compare("ZooKeeper", contestants, seen);
  await zookeeper.stop();
}

async function ourselves(url: string): Promise<Contestant> {
  const conclave = await connect(url);
  return {
    name: "conclave",
    version: "this commit",
    async acquire(name) {
      const hold = await conclave.lock(name, { ttlMs }).acquire();
      return () => hold.release();
    },
    close: () => conclave.close(),
  };
}

/** InterProcessMutex in few lines: without its waiting, which is not measured here. */
async function curators(port: number): Promise<Contestant> {
  const zookeeper = require("node-zookeeper-client");
  const client: Foreign = zookeeper.createClient(`127.0.0.1:${port}`, { sessionTimeout: ttlMs });
  await new Promise<void>((resolve) => {
    client.once("connected", resolve);
    client.connect();
  });
  const ask = <T>(act: (callback: (error: unknown, value: T) => void) => void): Promise<T> =>
    new Promise((resolve, reject) => act((error, value) => (error ? reject(error) : resolve(value))));
  const made = new Set<string>();
  return {
    name: "Curator's recipe on node-zookeeper-client",
    version: versionOf("node-zookeeper-client"),
    async acquire(name) {
      const parent = `/locks-${name}`;
      if (!made.has(parent)) await ask((callback) => client.mkdirp(parent, callback));
      made.add(parent);
      const path = await ask<string>((callback) =>
        client.create(`${parent}/lock-`, Buffer.alloc(0), zookeeper.CreateMode.EPHEMERAL_SEQUENTIAL, callback),
      );
      const children = await ask<string[]>((callback) => client.getChildren(parent, callback));
      if (children.sort()[0] !== path.slice(parent.length + 1)) throw new Error("busy");
      return () => ask((callback) => client.remove(path, -1, callback));
    },
    close: async () => client.close(),
  };
}

async function compare(engine: string, contestants: readonly Contestant[], seen: () => Promise<Seen>): Promise<void> {
  for (const [label, cycles, together] of [
    ["one at a time", count, 1],
    ["64 at once", count * 8, 64],
  ] as const) {
    const measured = new Map<string, number[]>();
    const asked = new Map<string, string>();
    // The first two rounds warm: the server compiles what it runs often, and each contestant asks it for other things.
    for (let round = -2; round < rounds; round++) {
      for (const contestant of round % 2 === 0 ? contestants : [...contestants].reverse()) {
        const before = await seen();
        const us = await timed(contestant, { cycles, together });
        const after = await seen();
        const [requests, syncs] = [after.requests - before.requests, after.syncs - before.syncs];
        asked.set(contestant.name, `${(requests / cycles).toFixed(2)} requests, ${(syncs / cycles).toFixed(2)} syncs`);
        if (round >= 0) measured.set(contestant.name, [...(measured.get(contestant.name) ?? []), us]);
      }
    }
    console.log(`\n${engine}, uncontended acquire and release, ${label}`);
    for (const { name } of contestants) {
      const found = measured.get(name) ?? [];
      const [low, high] = spread(found);
      console.log(`  ${name.padEnd(44)} ${rounded(median(found))} us (${rounded(low)} to ${rounded(high)}), ${asked.get(name)}`);
    }
    const [ours, ...others] = contestants as [Contestant, ...Contestant[]];
    const own = measured.get(ours.name) ?? [];
    for (const theirs of others) {
      const other = measured.get(theirs.name) ?? [];
      figures.push({
        case: `${engine}: uncontended acquire and release, ${label}`,
        ours: rounded(median(own)),
        peer: rounded(median(other)),
        peerName: theirs.name,
        peerVersion: theirs.version,
        ratio: rounded(median(other) / median(own)),
        unit: "us",
        oursSpread: spread(own),
        peerSpread: spread(other),
        note: `for each cycle: ${asked.get(ours.name)}; peer ${asked.get(theirs.name)}`,
      });
    }
  }
  for (const contestant of contestants) await contestant.close();
}

async function timed(
  contestant: Contestant,
  { cycles, together }: { readonly cycles: number; readonly together: number },
): Promise<number> {
  if (contestant.itself !== undefined) return contestant.itself.cycles(cycles, together);
  let left = cycles;
  const work = async (index: number): Promise<void> => {
    while (left-- > 0) await (await contestant.acquire(`free-${index}`))();
  };
  const startedAt = performance.now();
  await Promise.all(Array.from({ length: together }, (_, index) => work(index)));
  return ((performance.now() - startedAt) * 1_000) / cycles;
}

function versionOf(name: string): string {
  return require(`${name}/package.json`).version;
}
