/**
 * The keeper on real engines: a holder whose event loop is really blocked, in a process of its own, and a contender here.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { nodePlatform } from "../src/host/node-platform.ts";
import type { Conclave, LockOptions } from "../src/index.ts";
import { connect } from "../src/index.ts";
import { build, killAll, ServedCluster, until } from "./cli-kit.ts";
import { startEtcd } from "./servers/etcd.ts";
import { startPostgres } from "./servers/postgres.ts";
import { startRedis } from "./servers/redis.ts";
import { startZooKeeper } from "./servers/zookeeper.ts";

const folder = mkdtempSync(join(tmpdir(), "conclave-keeper-"));

beforeAll(() => build(), 120_000);

afterAll(() => {
  killAll();
  rmSync(folder, { recursive: true, force: true });
});

interface Woken {
  readonly held: boolean;
  readonly heldLater: boolean;
  readonly aborted: boolean;
  readonly blockedMs: number;
  readonly why: string | null;
}

interface Seen extends Woken {
  readonly token: number;
  /** Of the contender that waited meanwhile. */
  readonly nextToken: number;
  /** From the word that it holds to the contender's grant, and to the word that it woke. */
  readonly grantedAfterMs: number;
  readonly wokeAfterMs: number;
}

interface Blocking {
  readonly name: string;
  readonly lock: LockOptions;
  readonly blockMs: number;
  readonly spins?: boolean;
}

/** Blocks a holder, and waits for its lock meanwhile. */
async function block(conclave: Conclave, url: string, blocking: Blocking): Promise<Seen> {
  const holder = spawn(process.execPath, ["test/servers/blocked-holder.mjs", JSON.stringify({ url, ...blocking })], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let errors = "";
  holder.stderr.on("data", (chunk: Buffer) => {
    errors += chunk.toString();
  });
  const lines: { readonly atMs: number; readonly line: Record<string, unknown> }[] = [];
  let rest = "";
  let onLine = (): void => undefined;
  holder.stdout.on("data", (chunk: Buffer) => {
    rest += chunk.toString();
    for (let end = rest.indexOf("\n"); end >= 0; end = rest.indexOf("\n")) {
      lines.push({ atMs: performance.now(), line: JSON.parse(rest.slice(0, end)) as Record<string, unknown> });
      rest = rest.slice(end + 1);
    }
    onLine();
  });
  const line = (at: number): Promise<(typeof lines)[number]> =>
    new Promise((resolve, reject) => {
      onLine = () => lines[at] !== undefined && resolve(lines[at]);
      holder.once("exit", () => lines[at] === undefined && reject(new Error(`The holder ended without a word: ${errors}`)));
      onLine();
    });
  try {
    const holds = await line(0);
    const next = await conclave.lock(blocking.name, { ttlMs: 10_000 }).acquire({ waitMs: 40_000 });
    const grantedAfterMs = performance.now() - holds.atMs;
    const woke = await line(1);
    await next.release();
    return {
      ...(woke.line as unknown as Woken),
      token: holds.line.token as number,
      nextToken: next.token,
      grantedAfterMs,
      wokeAfterMs: woke.atMs - holds.atMs,
    };
  } finally {
    holder.kill("SIGKILL");
  }
}

interface Server {
  readonly url: string;
  stop(): Promise<unknown>;
}

interface Tried {
  readonly name: string;
  readonly ttlMs: number;
  /** Whether it takes `tls` and, by its URL, does without. */
  readonly ignoresTls: boolean;
  start(): Promise<Server | { readonly skipped: string }>;
}

const engines: readonly Tried[] = [
  { name: "an embedded cluster", ttlMs: 1_000, ignoresTls: false, start: () => ServedCluster.start(join(folder, "members")) },
  { name: "Redis", ttlMs: 1_000, ignoresTls: true, start: () => startRedis() },
  { name: "etcd", ttlMs: 2_000, ignoresTls: true, start: () => startEtcd() },
  { name: "PostgreSQL", ttlMs: 1_000, ignoresTls: false, start: () => startPostgres() },
];

for (const { ignoresTls, name, start, ttlMs } of engines) {
  describe(`a blocked event loop on ${name}`, () => {
    let server: Server | undefined;
    let conclave: Conclave;
    let skipped: string | undefined;

    beforeAll(async () => {
      const started = await start();
      if ("skipped" in started) {
        skipped = started.skipped;
        return;
      }
      server = started;
      // No lock begins before the quarantine of an engine that has one: that is another test's.
      conclave = await connect(server.url);
      await conclave.lock("warm", { ttlMs }).run(() => undefined, { waitMs: 60_000 });
    }, 90_000);

    afterAll(async () => {
      await conclave?.close();
      await server?.stop();
    });

    test("with a keeper a block longer than the TTL loses nothing, one longer than `maxStallMs` loses the lock; without one both do", async ({
      skip,
    }) => {
      if (server === undefined) return skip(skipped);
      const { url } = server;
      const blockMs = 2 * ttlMs + 1_000;
      const [kept, spinning, tooLong, bare] = await Promise.all([
        block(conclave, url, { name: "kept", lock: { ttlMs, maxStallMs: 2 * blockMs }, blockMs }),
        block(conclave, url, { name: "spinning", lock: { ttlMs, maxStallMs: 2 * blockMs }, blockMs, spins: true }),
        block(conclave, url, { name: "too long", lock: { ttlMs, maxStallMs: blockMs }, blockMs: 2 * blockMs + 2_000 }),
        block(conclave, url, { name: "bare", lock: { ttlMs }, blockMs }),
      ]);
      for (const seen of [kept, spinning]) {
        expect(seen.blockedMs).toBeGreaterThanOrEqual(blockMs);
        expect(seen).toMatchObject({ held: true, heldLater: true, aborted: false, why: null });
        // Only the release passed it on.
        expect(seen.grantedAfterMs).toBeGreaterThan(blockMs);
      }
      expect(tooLong).toMatchObject({ held: false, heldLater: false, aborted: true });
      expect(tooLong.why).toContain("maxStallMs");
      // It was kept for as long as was asked for, and not to the end of the block.
      expect(tooLong.grantedAfterMs).toBeGreaterThan(blockMs);
      expect(tooLong.grantedAfterMs).toBeLessThan(tooLong.wokeAfterMs);
      // The same block without a keeper.
      expect(bare).toMatchObject({ held: false, heldLater: false, aborted: true });
      expect(bare.grantedAfterMs).toBeLessThan(bare.wokeAfterMs);
      for (const seen of [kept, spinning, tooLong, bare]) expect(seen.nextToken).toBeGreaterThan(seen.token);
    }, 60_000);

    if (!ignoresTls) return;

    test("a keeper that cannot be started is said by name, and leaves no lock behind", async ({ skip }) => {
      if (server === undefined) return skip(skipped);
      // A function cannot go to another thread.
      const handed = await connect({ url: server.url, tls: { checkServerIdentity: () => undefined } });
      try {
        const lock = handed.lock("unkept", { ttlMs, maxStallMs: 5_000 });
        await expect(lock.acquire()).rejects.toMatchObject({ code: "KEEPER_FAILED" });
        expect(await conclave.lock("unkept").holder()).toBe(null);
      } finally {
        await handed.close();
      }
    });
  });
}

test("a thread that dies is started anew; meanwhile the holder's own loop says the keep-alives", async () => {
  // The built modules: the thread reads no TypeScript.
  const load = (file: string): Promise<unknown> => import(pathToFileURL(resolve("dist", file)).href);
  const { ThreadKeeper } = (await load("host/thread-keeper.js")) as typeof import("../src/host/thread-keeper.ts");
  const { ClientSession } = (await load("client/session.js")) as typeof import("../src/client/session.ts");
  const { ProcessHold } = (await load("client/process-hold.js")) as typeof import("../src/client/process-hold.ts");
  const dying = `export async function openLeases() {
    return {
      adopt({ lease }) {
        lease.confirm(performance.now());
        setTimeout(() => process.exit(3), 300);
        return { lost: new AbortController().signal, abandon() {} };
      },
    };
  }`;
  const downs: string[] = [];
  const keeper = new ThreadKeeper({
    module: `data:text/javascript,${encodeURIComponent(dying)}`,
    settings: {},
    platform: nodePlatform,
    telemetry: { emit: (event) => event.kind === "keeper.down" && downs.push(event.why) },
  });
  let said = 0;
  const session = new ClientSession({
    id: "1",
    ttlMs: 1_000,
    sentMs: performance.now(),
    host: {
      platform: nodePlatform,
      processHold: new ProcessHold(nodePlatform),
      keepAlive(kept) {
        said++;
        kept.confirm(performance.now());
      },
      end: async () => undefined,
      forget: () => undefined,
    },
  });
  await keeper.keep(session, { maxStallMs: 5_000 });
  await until(() => downs.length >= 2, "the second thread to have died");
  expect(session.alive).toBe(true);
  expect(said).toBeGreaterThan(0);
  expect(downs[0]).toContain("code 3");
  await session.close();
  await keeper.close();
});

describe("where no keeper can be", () => {
  test("memory: refuses `maxStallMs` by name, and says why", async () => {
    await using conclave = await connect("memory:");
    expect(conclave.caps.stallKeeper).not.toBe(true);
    expect(() => conclave.lock("x", { maxStallMs: 5_000 })).toThrow(expect.objectContaining({ code: "UNSUPPORTED" }));
    expect(() => conclave.election("x", { maxStallMs: 5_000 })).toThrow(expect.objectContaining({ code: "UNSUPPORTED" }));
    expect(() => conclave.semaphore("x", { permits: 1, maxStallMs: 5_000 })).toThrow(
      expect.objectContaining({ code: "UNSUPPORTED" }),
    );
    expect(() => conclave.readWriteLock("x", { maxStallMs: 5_000 })).toThrow(expect.objectContaining({ code: "UNSUPPORTED" }));
    await expect(conclave.store().store.session({ maxStallMs: 5_000 })).rejects.toMatchObject({ code: "UNSUPPORTED" });
    await expect(conclave.store().store.sharedSession({ maxStallMs: 5_000 })).rejects.toMatchObject({ code: "UNSUPPORTED" });
  });

  test("ZooKeeper, whose sessions are bound to a connection, refuses it too", async ({ skip }) => {
    const server = await startZooKeeper();
    if ("skipped" in server) return skip(server.skipped);
    try {
      await using conclave = await connect(server.url);
      expect(() => conclave.lock("x", { maxStallMs: 5_000 })).toThrow(expect.objectContaining({ code: "UNSUPPORTED" }));
      await expect(conclave.store().store.session({ maxStallMs: 5_000 })).rejects.toMatchObject({ code: "UNSUPPORTED" });
    } finally {
      await server.stop();
    }
  }, 60_000);
});
