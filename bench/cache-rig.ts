/**
 * What the cache's benches share: a redis-server of their own, nodes of ours on one member with an L2, and the peers.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { connect as connectTcp } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient } from "@redis/client";
import { conclaveError } from "../src/base/errors.ts";
import { type CreateCacheOptions, createCache } from "../src/cache/create-cache.ts";
import { type RedisClient, redisL2 } from "../src/cache/redis-l2.ts";
import type { Cache } from "../src/cache-core/cache.ts";
import { freePorts } from "../src/cli/free-ports.ts";
import { type Server, serve } from "../src/engines/embedded/serve.ts";
import { type Conclave, connect } from "../src/index.ts";
import type { Store } from "../src/store/store.ts";

export interface PeerCache {
  get(key: string, load: () => Promise<unknown>, options?: { readonly tags?: readonly string[] }): Promise<unknown>;
  getSync?(key: string): unknown;
  delete(key: string): Promise<unknown>;
  deleteTag?(tag: string): Promise<unknown>;
  slowL2?(ms: number): void;
  close(): Promise<unknown>;
}

export interface Peer {
  readonly name: string;
  readonly version: string;
  readonly hasTags: boolean;
  single(options?: { readonly tags?: boolean }): Promise<PeerCache>;
  pair?(redisPort: number): Promise<PeerCache[]>;
}

/** Undefined: there is no redis-server on this machine. */
export async function startRedis(given?: number): Promise<{ port: number; child: ChildProcess } | undefined> {
  const port = given ?? ((await freePorts(1))[0] as number);
  const args = ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", tmpdir()];
  const child = spawn("redis-server", args, { stdio: "ignore" });
  const isThere = await new Promise<boolean>((resolve) => {
    child.once("error", () => resolve(false));
    child.once("spawn", () => resolve(true));
  });
  if (!isThere) return undefined;
  for (let tries = 0; tries < 200; tries++) {
    if (await canConnect(port)) return { port, child };
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error("redis-server did not come up.");
}

function canConnect(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connectTcp(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

/**
 * A store whose messages can be lost, both ways: what is told meanwhile never comes, not even late, and calls get no answer.
 * (A line that is cut would not do: a client that knows the cluster comes back by another way.)
 */
export class LossyStores {
  isLost = false;
  readonly #engine: { store(namespace: string): Store };

  constructor(engine: { store(namespace: string): Store }) {
    this.#engine = engine;
  }

  store(namespace: string): Store {
    const inner = this.#engine.store(namespace);
    const stores = this;
    return {
      namespace,
      caps: inner.caps,
      platform: inner.platform,
      session: (options) => inner.session(options),
      sharedSession: (options) => inner.sharedSession(options),
      async txn(txn, options = {}) {
        if (!stores.isLost) return inner.txn(txn, options);
        const { timeoutMs = 10_000 } = options;
        await new Promise((resolve) => setTimeout(resolve, timeoutMs));
        throw conclaveError("TIMEOUT", `No answer within ${timeoutMs} ms.`);
      },
      async *watch(range, options) {
        for await (const batch of inner.watch(range, options)) if (!stores.isLost) yield batch;
      },
    };
  }
}

export interface OurNode {
  readonly cache: Cache<unknown>;
  readonly conclave: Conclave;
  /** Between the node and the member that carries the invalidations. */
  readonly stores: LossyStores;
  /** Delays this node's reads of L2. */
  slowL2(ms: number): void;
}

export interface OurCluster {
  /** Of the member. */
  readonly address: string;
  readonly nodes: readonly OurNode[];
  close(): Promise<void>;
}

/** Nodes of ours: each a client of one member over TCP, with an L2 on the Redis. */
export async function ourNodes(
  count: number,
  { redisPort, options = {} }: { readonly redisPort: number | undefined; readonly options?: CreateCacheOptions<unknown> },
): Promise<OurCluster> {
  const directory = mkdtempSync(join(tmpdir(), "conclave-bench-cache-"));
  const server: Server = await serve({ directory, listen: "127.0.0.1:0" });
  const port = Number(server.address.split(":").at(-1));
  const nodes: OurNode[] = [];
  const closers: (() => Promise<unknown>)[] = [];
  for (let number = 0; number < count; number++) {
    const conclave = await connect(`conclave://127.0.0.1:${port}`);
    const stores = new LossyStores(conclave.engine);
    let delayMs = 0;
    const more: CreateCacheOptions<unknown> = {};
    if (redisPort !== undefined) {
      const client = createClient({ socket: { host: "127.0.0.1", port: redisPort } });
      client.on("error", () => undefined);
      await client.connect();
      closers.push(async () => client.destroy());
      Object.assign(more, {
        l2: redisL2({
          client: {
            sendCommand: async (command: readonly string[]) => {
              const answer = await client.sendCommand([...command]);
              if (delayMs > 0 && command[0]?.endsWith("GET")) await new Promise((resolve) => setTimeout(resolve, delayMs));
              return answer;
            },
            get isReady() {
              return client.isReady;
            },
          } as RedisClient,
        }),
      });
    }
    const cache = createCache<unknown>(stores, "bench", { ...more, ...options });
    await cache.ready();
    nodes.push({
      cache,
      conclave,
      stores,
      slowL2: (ms) => {
        delayMs = ms;
      },
    });
    closers.push(
      () => cache.close(),
      () => conclave.close(),
    );
  }
  return {
    address: `127.0.0.1:${port}`,
    nodes,
    close: async () => {
      for (const close of closers) await close();
      await server.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** A node of ours in the peers' shape. */
export function asPeer({ cache, slowL2 }: OurNode): PeerCache {
  return {
    get: (key, load, options) => cache.get(key, load, options),
    getSync: (key) => cache.peek(key),
    delete: (key) => cache.invalidate(key),
    deleteTag: (tag) => cache.invalidate({ tag }),
    slowL2,
    close: async () => undefined,
  };
}
