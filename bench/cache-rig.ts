/**
 * What the cache's benches share: a redis-server of their own, nodes of ours on one member with an L2, and the peers.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { connect as connectTcp, createServer, type Socket, type Server as TcpServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient } from "@redis/client";
import { type CreateCacheOptions, createCache } from "../src/cache/create-cache.ts";
import { type RedisClient, redisL2 } from "../src/cache/redis-l2.ts";
import type { Cache } from "../src/cache-core/cache.ts";
import { freePorts } from "../src/cli/free-ports.ts";
import { type Server, serve } from "../src/engines/embedded/serve.ts";
import { type Conclave, connect } from "../src/index.ts";

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

/** Connections through it are cut, and stay cut while `isCut`. */
export class CuttableLine {
  readonly port: number;
  readonly #server: TcpServer;
  readonly #sockets: Set<Socket>;
  #isCut = false;

  static async to(targetPort: number): Promise<CuttableLine> {
    const sockets = new Set<Socket>();
    let line: CuttableLine | undefined;
    const server = createServer((near) => {
      if (line?.isCut === true) {
        near.destroy();
        return;
      }
      const far = connectTcp(targetPort, "127.0.0.1");
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        sockets.add(from);
        from.setNoDelay(true);
        from.pipe(to);
        from.on("error", () => to.destroy());
        from.on("close", () => {
          sockets.delete(from);
          to.destroy();
        });
      }
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    line = new CuttableLine(server, sockets);
    return line;
  }

  private constructor(server: TcpServer, sockets: Set<Socket>) {
    this.#server = server;
    this.#sockets = sockets;
    this.port = (server.address() as { port: number }).port;
  }

  get isCut(): boolean {
    return this.#isCut;
  }

  cut(): void {
    this.#isCut = true;
    for (const socket of this.#sockets) socket.destroy();
  }

  mend(): void {
    this.#isCut = false;
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}

export interface OurNode {
  readonly cache: Cache<unknown>;
  readonly conclave: Conclave;
  /** Between the node and the member that carries the invalidations. */
  readonly line: CuttableLine;
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
    const line = await CuttableLine.to(port);
    const conclave = await connect(`conclave://127.0.0.1:${line.port}`);
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
            get: async (key: string) => {
              const value = await client.get(key);
              if (delayMs > 0) await new Promise((resolve) => setTimeout(resolve, delayMs));
              return value;
            },
            sendCommand: (command: readonly string[]) => client.sendCommand([...command]),
            get isReady() {
              return client.isReady;
            },
          } as RedisClient,
        }),
      });
    }
    const cache = createCache<unknown>(conclave, "bench", { ...more, ...options });
    await cache.ready();
    nodes.push({
      cache,
      conclave,
      line,
      slowL2: (ms) => {
        delayMs = ms;
      },
    });
    closers.push(
      () => cache.close(),
      () => conclave.close(),
      () => line.close(),
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
