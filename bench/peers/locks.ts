/**
 * The lock libraries that `npm run bench -- locks` is measured against, behind one shape, with their own defaults but for the
 * TTL and patience that the case asks for. Those of Node are installed on demand into `bench/peers/locks`, versions exact;
 * Redisson measures itself in a JVM of its own, because a call across processes would count against it.
 */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { EtcdCluster } from "./etcd-cluster.ts";
import { startJvm } from "./jvm-process.ts";

export interface PeerHold {
  release(): Promise<unknown>;
  /** What the library offers for "do I still hold it?"; undefined where it offers nothing. */
  readonly isHeld?: () => boolean;
}

export interface LockPeer {
  readonly name: string;
  readonly version: string;
  /** It checks the owner in a script when it releases. */
  readonly checksOwner: boolean;
  /** Of the server that it alone uses. */
  readonly port?: number;
  acquire(name: string, options: { readonly ttlMs: number; readonly waitMs: number }): Promise<PeerHold>;
  /** In another runtime: it runs whole cases by itself, and `acquire` is not for them. */
  readonly itself?: SelfMeasuring;
  /** With whatever keeps it alive in that library; `onLost` where it tells. */
  hold?(name: string, options: { readonly ttlMs: number; readonly onLost: () => void }): Promise<PeerHold>;
  close(): Promise<void>;
}

export interface SelfMeasuring {
  /** Microseconds of an acquisition and a release. */
  cycles(count: number, together: number): Promise<number>;
  /** Milliseconds from a release to the next turn. */
  handOffs(contenders: number, each: number): Promise<{ readonly p50: number; readonly p99: number }>;
  /** Resolves once everybody waits; then `serve` lets them go. */
  queue(count: number): Promise<{ serve(): Promise<{ readonly drainMs: number; readonly inversions: number }> }>;
}

const folder = join(process.cwd(), "bench/peers/locks");
const require = createRequire(join(folder, "package.json"));

/** Installs once. Answers false when the registry does not answer. */
export function installLockPeers(): boolean {
  if (existsSync(join(folder, "node_modules/etcd3"))) return true;
  const args = ["install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"];
  return spawnSync("npm", args, { cwd: folder, stdio: "inherit" }).status === 0;
}

type Making = (port: number) => Promise<LockPeer> | LockPeer;

/** `serverFor` gives each of them a server of its own: what one leaves behind counts for nobody else. */
export async function lockPeers(serverFor: (name: string) => Promise<number>): Promise<LockPeer[]> {
  const peers: LockPeer[] = [];
  const makings: readonly Making[] = [
    bare,
    redlock4,
    redlock5,
    redlockUniversal,
    redisSemaphore,
    verrou,
    nodeRedisson,
    redisson,
    redissonFair,
  ];
  for (const make of makings) {
    try {
      const port = await serverFor(make.name);
      peers.push(Object.assign(await make(port), { port }));
    } catch (error) {
      console.log(`left out: ${make.name}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  return peers;
}

// biome-ignore lint/suspicious/noExplicitAny: libraries that are not in our lock file have no types here.
type Foreign = any;

const deleteIfMine = 'if redis.call("get",KEYS[1]) == ARGV[1] then return redis.call("del",KEYS[1]) else return 0 end';

/** Not a library: the two commands below which no Redis lock can go. */
function bare(port: number): LockPeer {
  const client = redisClient(port);
  let next = 0;
  return {
    name: "SET NX + EVAL del (ioredis)",
    version: versionOf("ioredis"),
    checksOwner: true,
    async acquire(name, { ttlMs, waitMs }) {
      const value = `bare-${process.pid}-${++next}`;
      const untilMs = performance.now() + waitMs;
      while ((await client.set(name, value, "PX", ttlMs, "NX")) !== "OK") {
        if (performance.now() > untilMs) throw new Error("busy");
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      return { release: () => client.eval(deleteIfMine, 1, name, value) };
    },
    close: async () => client.disconnect(),
  };
}

function redlock4(port: number): LockPeer {
  const client = redisClient(port);
  const Redlock = require("redlock");
  const locker = new Redlock([client], { retryCount: 100_000 });
  return {
    name: "redlock 4",
    version: versionOf("redlock"),
    checksOwner: true,
    async acquire(name, { ttlMs }) {
      const lock = await locker.lock(name, ttlMs);
      return { release: () => lock.unlock() };
    },
    close: async () => client.disconnect(),
  };
}

async function redlock5(port: number): Promise<LockPeer> {
  const client = redisClient(port);
  const beta = await importPeer("redlock-beta");
  const Redlock = beta.default.default ?? beta.default;
  const locker = new Redlock([client], { retryCount: -1 });
  const careful = new Redlock([client]);
  locker.on("error", () => undefined);
  careful.on("error", () => undefined);
  return {
    name: "redlock 5 beta",
    version: versionOf("redlock-beta"),
    checksOwner: true,
    async acquire(name, { ttlMs }) {
      const lock = await locker.acquire([name], ttlMs);
      return { release: () => lock.release() };
    },
    hold: (name, { ttlMs, onLost }) =>
      new Promise((resolve, reject) => {
        let finish = (): void => undefined;
        careful
          .using([name], ttlMs, async (signal: AbortSignal) => {
            signal.addEventListener("abort", onLost);
            resolve({ release: async () => finish(), isHeld: () => !signal.aborted });
            await new Promise<void>((end) => {
              finish = end;
            });
          })
          .catch(reject);
      }),
    close: async () => client.disconnect(),
  };
}

async function redlockUniversal(port: number): Promise<LockPeer> {
  const client = redisClient(port);
  const { createLock, IoredisAdapter } = await importPeer("redlock-universal");
  const adapter = new IoredisAdapter(client);
  const make = (key: string, ttl: number): Foreign => createLock({ adapter, key, ttl, retryAttempts: 100_000 });
  return {
    name: "redlock-universal",
    version: versionOf("redlock-universal"),
    checksOwner: true,
    async acquire(name, { ttlMs }) {
      const lock = make(name, ttlMs);
      const handle = await lock.acquire();
      return { release: () => lock.release(handle) };
    },
    hold: (name, { ttlMs, onLost }) =>
      new Promise((resolve, reject) => {
        let finish = (): void => undefined;
        createLock({ adapter, key: name, ttl: ttlMs })
          .using(async (signal: AbortSignal) => {
            signal.addEventListener("abort", onLost);
            resolve({ release: async () => finish(), isHeld: () => !signal.aborted });
            await new Promise<void>((end) => {
              finish = end;
            });
          })
          .catch(reject);
      }),
    close: async () => client.disconnect(),
  };
}

async function redisSemaphore(port: number): Promise<LockPeer> {
  const client = redisClient(port);
  const { Mutex } = await importPeer("redis-semaphore");
  return {
    name: "redis-semaphore",
    version: versionOf("redis-semaphore"),
    checksOwner: true,
    async acquire(name, { ttlMs, waitMs }) {
      const mutex = new Mutex(client, name, { lockTimeout: ttlMs, acquireTimeout: waitMs, refreshInterval: 0 });
      await mutex.acquire();
      return { release: () => mutex.release() };
    },
    async hold(name, { ttlMs, onLost }) {
      const mutex = new Mutex(client, name, { lockTimeout: ttlMs, onLockLost: onLost });
      await mutex.acquire();
      return { release: () => mutex.release(), isHeld: () => mutex.isAcquired };
    },
    close: async () => client.disconnect(),
  };
}

async function verrou(port: number): Promise<LockPeer> {
  const client = redisClient(port);
  const { LockFactory } = await importPeer("@verrou/core");
  const { RedisStore } = await importPeer("@verrou/core/drivers/redis");
  const factory = new LockFactory(new RedisStore({ connection: client }));
  return {
    name: "verrou",
    version: versionOf("@verrou/core"),
    checksOwner: true,
    async acquire(name, { ttlMs, waitMs }) {
      const lock = factory.createLock(name, ttlMs);
      if (!(await lock.acquire({ retry: { timeout: waitMs } }))) throw new Error("busy");
      return { release: () => lock.release() };
    },
    close: async () => client.disconnect(),
  };
}

/** Redisson on the JVM: RLock, which wakes one waiter of each process. */
function redisson(port: number): Promise<LockPeer> {
  return jvmPeer({ kind: "redisson", name: "Redisson (JVM)", version: "3.45.1", address: `redis://127.0.0.1:${port}` });
}

/** The same with its queue. */
function redissonFair(port: number): Promise<LockPeer> {
  return jvmPeer({ kind: "redisson-fair", name: "Redisson fair (JVM)", version: "3.45.1", address: `redis://127.0.0.1:${port}` });
}

/** Curator's InterProcessMutex on a ZooKeeper. */
export function curator(port: number): Promise<LockPeer> {
  return jvmPeer({ kind: "curator", name: "Curator (JVM)", version: "5.9.0", address: `127.0.0.1:${port}` });
}

async function jvmPeer(options: {
  readonly kind: string;
  readonly name: string;
  readonly version: string;
  readonly address: string;
}): Promise<LockPeer> {
  const { address, kind, name, version } = options;
  const jvm = await startJvm("locks-jvm", "LockPeer", [kind, address]);
  if ("skipped" in jvm) throw new Error(jvm.skipped);
  const numbers = async (count: number): Promise<readonly number[]> =>
    (await jvm.hear(new RegExp(`^[\\d.E-]+( [\\d.E-]+){${count - 1}}$`))).split(" ").map(Number);
  return {
    name,
    version,
    checksOwner: true,
    acquire: () => Promise.reject(new Error(`${name} measures itself`)),
    itself: {
      async cycles(count, together) {
        jvm.say(`cycles ${count} ${together}`);
        return (await numbers(1))[0] ?? Number.NaN;
      },
      async handOffs(contenders, each) {
        jvm.say(`handoffs ${contenders} ${each}`);
        const [p50 = Number.NaN, p99 = Number.NaN] = await numbers(2);
        return { p50, p99 };
      },
      async queue(count) {
        jvm.say(`queue ${count}`);
        await jvm.hear(/^waiting$/);
        return {
          async serve() {
            jvm.say("go");
            const [drainMs = Number.NaN, inversions = Number.NaN] = await numbers(2);
            return { drainMs, inversions };
          },
        };
      },
    },
    close: async () => jvm.stop(),
  };
}

function nodeRedisson(port: number): LockPeer {
  const { Redisson } = require("node-redisson");
  const factory = new Redisson({ redis: { options: { host: "127.0.0.1", port } } });
  let next = 0;
  return {
    name: "node-redisson",
    version: versionOf("node-redisson"),
    checksOwner: true,
    async acquire(name, { waitMs }) {
      const lock = factory.getLock(name, `bench-${++next}`);
      if (!(await lock.tryLock(waitMs, true))) throw new Error("busy");
      return { release: () => lock.unlock() };
    },
    close: () => factory.quit(),
  };
}

/** etcd3 on three nodes; undefined where etcd or the package is missing. It has no waiting: who is refused tries again. */
export async function etcdPeer(): Promise<LockPeer | undefined> {
  const etcdPath = spawnSync("which", ["etcd"], { encoding: "utf8" }).stdout.trim();
  if (etcdPath === "" || !installLockPeers()) {
    console.log("left out: etcd3: etcd is not installed (Debian: apt-get install etcd-server)");
    return undefined;
  }
  const cluster = await EtcdCluster.start({ etcdPath });
  const { endpoint, version } = await cluster.leader();
  const { Etcd3 } = require("etcd3");
  const client = new Etcd3({ hosts: endpoint });
  return {
    name: "etcd3",
    version: `${versionOf("etcd3")} on etcd ${version}`,
    checksOwner: true,
    async acquire(name, { ttlMs, waitMs }) {
      const untilMs = performance.now() + waitMs;
      for (;;) {
        const lock = client.lock(name).ttl(Math.ceil(ttlMs / 1_000));
        try {
          await lock.acquire();
          return { release: () => lock.release() };
        } catch (error) {
          if (performance.now() > untilMs) throw error;
          await new Promise((resolve) => setTimeout(resolve, 10));
        }
      }
    },
    async close() {
      client.close();
      await cluster.stop();
    },
  };
}

/** As ours wants it: what was sent and not answered is not sent again. */
export function ioredis(port: number): { disconnect(): void } {
  return redisClient(port, { autoResendUnfulfilledCommands: false });
}

function redisClient(port: number, options: object = {}): Foreign {
  const { Redis } = require("ioredis");
  const client = new Redis({ host: "127.0.0.1", port, ...options });
  client.on("error", () => undefined);
  return client;
}

/** Modules of the peers' own folder, by the door for `import`. */
async function importPeer(name: string): Promise<Foreign> {
  return import(pathToFileURL(resolveImport(name)).href);
}

function resolveImport(name: string): string {
  try {
    return require.resolve(name);
  } catch {
    // Exports with `import` alone.
    const [scope, rest] = name.startsWith("@") ? [name.split("/").slice(0, 2).join("/"), name.split("/").slice(2)] : [name, []];
    const home = join(folder, "node_modules", scope);
    const { exports } = JSON.parse(readFileSync(join(home, "package.json"), "utf8"));
    if (rest.length > 0) return join(home, "build/src/drivers", `${rest.at(-1)}.js`);
    const door = exports["."];
    return join(home, typeof door === "string" ? door : (door.import?.default ?? door.import ?? door.default));
  }
}

function versionOf(name: string): string {
  return JSON.parse(readFileSync(join(folder, "node_modules", name, "package.json"), "utf8")).version;
}
