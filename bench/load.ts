/**
 * The load generator for our own cluster, in a process of its own: so many calls in flight, for so long.
 *
 *   node load.js URL put|get|lease|stale IN_FLIGHT SECONDS
 * prints one JSON line: calls, seconds, latencies in milliseconds, and this process's processor time. `get` is linearizable,
 * `lease` too but served by the leader alone, `stale` is not.
 */
import { connect } from "../src/index.ts";
import { percentile } from "./figures.ts";

const [url, kind, inFlightText, secondsText] = process.argv.slice(2) as [
  string,
  "put" | "get" | "lease" | "stale",
  string,
  string,
];
const inFlight = Number(inFlightText);
const keysCount = 10_000;
const warmUpSeconds = inFlight === 1 ? 2 : 0.5;
const value = new Uint8Array(256).fill(118);

const conclave = await connect(url);
const store = conclave.engine.store("bench");
const readOptions = kind === "lease" || kind === "stale" ? { consistency: kind } : {};
const call = async (key: string): Promise<unknown> =>
  kind === "put" ? store.txn({ then: [{ kind: "put", key, value }] }) : store.txn({ then: [{ kind: "get", key }] }, readOptions);

const keys = Array.from({ length: keysCount }, (_, at) => `key-${String(at).padStart(8, "0")}`);
if (kind !== "put") {
  for (let at = 0; at < keysCount; at += 100) {
    await store.txn({ then: keys.slice(at, at + 100).map((key) => ({ kind: "put", key, value })) });
  }
}
// One at a time the compiler needs longer to settle: there are fewer calls to learn from.
await run(warmUpSeconds);
const before = process.cpuUsage();
const { calls, seconds, latencies } = await run(Number(secondsText));
const { user, system } = process.cpuUsage(before);
latencies.sort((left, right) => left - right);
console.log(
  JSON.stringify({
    calls,
    seconds,
    warmUpSeconds,
    p50Ms: percentile(latencies, 0.5),
    p99Ms: percentile(latencies, 0.99),
    cpuMs: (user + system) / 1_000,
  }),
);
await conclave.close();

async function run(
  forSeconds: number,
): Promise<{ readonly calls: number; readonly seconds: number; readonly latencies: number[] }> {
  const latencies: number[] = [];
  const startedMs = performance.now();
  const untilMs = startedMs + forSeconds * 1_000;
  let calls = 0;
  const worker = async (from: number): Promise<void> => {
    for (let at = from; performance.now() < untilMs; at += 7) {
      const sentMs = performance.now();
      await call(keys[at % keysCount] as string);
      calls++;
      // One in eight is enough for percentiles, and cheap.
      if (inFlight === 1 || (calls & 7) === 0) latencies.push(performance.now() - sentMs);
    }
  };
  await Promise.all(Array.from({ length: inFlight }, (_, at) => worker(at * 13)));
  return { calls, seconds: (performance.now() - startedMs) / 1_000, latencies };
}
