/**
 * The load generator for a PBFT cluster, in a process of its own: so many calls in flight, for so long, in signed frames of
 * up to 64 operations. A put is a compare-and-set on the revision that the key is known to have; each key has one writer, and
 * a process its own keys.
 *
 *   node pbft-load.js CLUSTER_FILE KEY_FILE put|get IN_FLIGHT SECONDS
 * prints one JSON line: calls, seconds, latencies in milliseconds, and what this process spent in all and on signatures.
 */
import { connectPbft, readClusterFile, readKeyFile } from "../src/index.ts";
import { percentile } from "./figures.ts";

const [clusterFile, keyFile, kind, inFlightText, secondsText] = process.argv.slice(2) as [
  string,
  string,
  "put" | "get",
  string,
  string,
];
const inFlight = Number(inFlightText);
const keysEach = Math.max(1, Math.floor(8_192 / inFlight));
const warmUpSeconds = inFlight === 1 ? 2 : 0.5;
const value = new Uint8Array(256).fill(118);

// Sixteen lanes of 64 operations are what one client may have under way.
const connection = connectPbft({ clusterFile: await readClusterFile(clusterFile), key: await readKeyFile(keyFile), lanes: 16 });
const store = connection.cas("bench");
const revisions = new Map<string, number | null>();

const workers = Array.from({ length: inFlight }, (_, worker) =>
  Array.from({ length: keysEach }, (_, at) => `key-${process.pid}-${String(worker * keysEach + at).padStart(8, "0")}`),
);
if (kind === "get") {
  await Promise.all(
    workers.map(async (keys) => {
      for (const key of keys) await put(key);
    }),
  );
}
await run(warmUpSeconds);
const before = { cpu: process.cpuUsage(), signatures: connection.signatures() };
const { calls, seconds, latencies } = await run(Number(secondsText));
latencies.sort((left, right) => left - right);
const { user, system } = process.cpuUsage(before.cpu);
const after = connection.signatures();
console.log(
  JSON.stringify({
    calls,
    seconds,
    warmUpSeconds,
    p50Ms: percentile(latencies, 0.5),
    p99Ms: percentile(latencies, 0.99),
    cpuMs: (user + system) / 1_000,
    signaturesMs: after.verifyMs + after.signMs - before.signatures.verifyMs - before.signatures.signMs,
  }),
);
await connection.close();

async function put(key: string): Promise<void> {
  const { applied, current } = await store.compareAndSet({ key, expected: revisions.get(key) ?? null, value });
  // Its only writer knows its revision.
  if (!applied) throw new Error(`The key "${key}" has another revision than its only writer left.`);
  revisions.set(key, current?.revision ?? null);
}

async function run(
  forSeconds: number,
): Promise<{ readonly calls: number; readonly seconds: number; readonly latencies: number[] }> {
  const latencies: number[] = [];
  const startedMs = performance.now();
  const untilMs = startedMs + forSeconds * 1_000;
  let calls = 0;
  const work = async (keys: readonly string[]): Promise<void> => {
    for (let at = 0; performance.now() < untilMs; at++) {
      const key = keys[at % keys.length] as string;
      const sentMs = performance.now();
      if (kind === "put") await put(key);
      else await store.get(key);
      calls++;
      if (inFlight === 1 || (calls & 7) === 0) latencies.push(performance.now() - sentMs);
    }
  };
  await Promise.all(workers.map(work));
  return { calls, seconds: (performance.now() - startedMs) / 1_000, latencies };
}
