/**
 * One subject of the cache's bench in a process of its own: what ran before in the same process (shapes that a call site has
 * seen, a heap full of others' entries) changes a hit of 60 ns by a factor, and not alike for everybody.
 *
 *   node --expose-gc cache-subject.js SUBJECT SECONDS ROUNDS [PORT]     tells its rates to who forked it, else prints them
 *
 * Subjects: sync conclave|lru-cache, and l2 conclave|bare|checked with 200|8000 bytes and 1|50 reads at a time:
 * `sync/conclave`, `l2/bare/8000/50`. L2 ones need a redis-server at PORT.
 */
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { createClient } from "@redis/client";
import { createCache } from "../src/cache/create-cache.ts";
import { redisL2 } from "../src/cache/redis-l2.ts";
import { textCodec } from "../src/cache/text-codec.ts";
import type { Cache } from "../src/cache-core/cache.ts";
import { deepFreeze } from "../src/cache-core/keep-whole.ts";
import { connect } from "../src/index.ts";

/** Of one round. */
export interface Rate {
  readonly perSecond: number;
  /** Per second of this process' processor time, which other work on the machine changes least. */
  readonly perProcessorSecond: number;
}

export interface Subject {
  /** Brings it back to where every read is a hit, outside the time that is measured. */
  ready?(): Promise<void>;
  /** Runs the operation so many times. */
  run(times: number): Promise<void> | void;
}

export const keysCount = 10_000;
export const keys = Array.from({ length: keysCount }, (_, at) => `user:profile:0000000:${at}`);
export const small = Object.fromEntries(Array.from({ length: 8 }, (_, at) => [`field${at}`, `value ${at} of a profile`]));

const warmUpMs = 1_500;

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();

async function main(): Promise<void> {
  const [name = "", seconds = "0.4", rounds = "3", port = "0"] = process.argv.slice(2);
  const subject = name.startsWith("sync/") ? await syncSubject(name) : await l2Subject(name, Number(port));
  const rates = await measure(subject, { seconds: Number(seconds), rounds: Number(rounds) });
  if (process.send === undefined) {
    console.log(
      name,
      rates.map(({ perSecond, perProcessorSecond }) => `${perSecond.toFixed(0)} (${perProcessorSecond.toFixed(0)})`).join(", "),
    );
    process.exit(0);
  }
  process.send(rates, undefined, undefined, () => process.exit(0));
}

async function measure(
  subject: Subject,
  { seconds, rounds }: { readonly seconds: number; readonly rounds: number },
): Promise<Rate[]> {
  let times = 1_000;
  // Sized and warmed up by processor time: on a busy machine a second of the clock may leave the compiler half of its work,
  // and ours is more code than a bare client's.
  for (let warmMs = 0; warmMs < warmUpMs; ) {
    await subject.ready?.();
    const started = process.cpuUsage();
    await subject.run(times);
    const { user, system } = process.cpuUsage(started);
    const tookMs = (user + system) / 1_000;
    warmMs += tookMs;
    times = Math.ceil(times * Math.min(4, (seconds * 1_000) / Math.max(tookMs, 1)));
  }
  const rates: Rate[] = [];
  for (let round = 0; round < rounds; round++) {
    await subject.ready?.();
    const [startedMs, started] = [performance.now(), process.cpuUsage()];
    await subject.run(times);
    const { user, system } = process.cpuUsage(started);
    rates.push({
      perSecond: (times / (performance.now() - startedMs)) * 1_000,
      perProcessorSecond: (times / (user + system)) * 1e6,
    });
  }
  return rates;
}

async function syncSubject(name: string): Promise<Subject> {
  if (name === "sync/lru-cache") {
    const require = createRequire(`${resolve("bench/peers/l1")}/package.json`);
    const { LRUCache } = require("lru-cache") as {
      LRUCache: new (options: object) => { get(key: string): unknown; set(key: string, value: unknown): void };
    };
    const lru = new LRUCache({ max: 200_000, ttl: 600_000 });
    for (const key of keys) lru.set(key, small);
    return { run: (times) => runSync((key) => lru.get(key), times) };
  }
  const conclave = await connect("memory:");
  const cache = createCache<unknown>(conclave, "sync", { ttlMs: 600_000, maxStaleMs: 2_000, entriesMax: 200_000 });
  await cache.ready();
  await Promise.all(keys.map((key) => cache.get(key, async () => small)));
  return { ready: () => untilTrusted(cache), run: (times) => runSync((key) => cache.peek(key), times) };
}

function runSync(read: (key: string) => unknown, times: number): void {
  let found = 0;
  for (let at = 0; at < times; at++) if (read(keys[(at * 7) % keysCount] as string) !== undefined) found++;
  if (found !== times) throw new Error(`${times - found} of ${times} were no hits`);
}

/**
 * Whoever keeps the event loop to himself for longer than `maxStaleMs` (ten thousand loads at once, loops of awaits that never
 * leave the turn) leaves the cache without a proof: it serves nothing until its next one, and loads.
 */
export async function untilTrusted(cache: Cache<unknown>): Promise<void> {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    const { followed } = await cache.explain(keys[0] as string);
    // Young enough to outlast a run.
    if (followed.isTrusted && followed.proofAgeMs < 1_000) return;
  }
}

async function l2Subject(name: string, port: number): Promise<Subject> {
  const [, who, bytes, width] = name.split("/");
  const value = bytes === "200" ? small : Array.from({ length: 40 }, () => small);
  const some = keys.slice(0, 1_000);
  // At its best: without its own timeout, which costs an AbortSignal for each command. Ours is not better for it.
  const client = createClient({ socket: { host: "127.0.0.1", port }, commandOptions: { timeout: 0 } });
  await client.connect();
  const run = (read: (key: string) => Promise<unknown>) => (times: number) =>
    runWide((at) => read(some[at % some.length] as string), times, Number(width));
  if (who !== "conclave") {
    for (const key of some) await client.set(`bare:${bytes}:${key}`, JSON.stringify(value));
    if (who === "bare") {
      return { run: run(async (key) => JSON.parse((await client.get(`bare:${bytes}:${key}`)) as string)) };
    }
    // What the cache does to a value before anybody may have it, without the cache: the bytes checked, the value frozen.
    return {
      run: run(async (key) => {
        const text = (await client.get(`bare:${bytes}:${key}`)) as string;
        if (textCodec.checksum(text, 0) === -1) throw new Error("never");
        return deepFreeze(JSON.parse(text));
      }),
    };
  }
  const conclave = await connect("memory:");
  // One entry in L1: with keys in turn, every read goes to L2.
  const cache: Cache<unknown> = createCache<unknown>(conclave, `l2-${bytes}-${process.pid}`, {
    ttlMs: 600_000,
    entriesMax: 1,
    policy: "lru",
    // A read that L2 is too slow for becomes a load, and would be measured as if it were a hit.
    l2TimeoutMs: 2_000,
    l2: redisL2({ client: client as never }),
  });
  await cache.ready();
  // In turns: with a thousand writes open at once V8 learns that such objects live long, the client's among them, and whoever
  // measures that against a client that had its writes one by one measures the beginning, not the reads.
  for (const key of some) {
    await cache.get(key, async () => value, { fresh: true });
    await new Promise((resolve) => setImmediate(resolve));
  }
  await new Promise((resolve) => setTimeout(resolve, 200));
  const load = async (): Promise<unknown> => {
    throw new Error("A read was a load: the machine was too busy for L2's timeout.");
  };
  return { run: run((key) => cache.get(key, load)) };
}

async function runWide(read: (at: number) => Promise<unknown>, times: number, width: number): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < times) await read(next++);
  };
  await Promise.all(Array.from({ length: width }, worker));
}
