/**
 * The bare L1 beside lru-cache: hits per second, and a mix of hits and misses over a Zipf pattern, without and with expiry.
 *
 *   npm run bench -- l1
 *
 * Each case runs in a process of its own, ours and the peer in turns, five rounds; the median of the ratios counts, by the
 * processor time of the process. With expiry both read a clock that stands still for up to a millisecond, as lru-cache's
 * own does. The bar: 0.8 of lru-cache, with and without expiry.
 */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { createL1, type L1Policy } from "../src/cache-core/l1/l1.ts";
import { type Figure, machine, median, rounded, spread, writeFigures } from "./figures.ts";
import { dice, zipf } from "./workloads/workloads.ts";

interface Face {
  get(key: string): number | undefined;
  set(key: string, value: number): unknown;
}

const folder = resolve("bench/peers/l1");
const capacity = 10_000;
const policies = ["w-tinylfu", "s3-fifo", "sieve", "lru"] as const;
const works = ["hits", "zipf"] as const;
const rounds = 5;

const [flag, policy, work, ttl] = process.argv.slice(2);
if (flag === "--one") console.log(JSON.stringify(measure(policy as L1Policy, work as (typeof works)[number], ttl === "ttl")));
else report();

function ourFace(chosen: L1Policy, hasTtl: boolean): Face {
  const now = coarseNow();
  const l1 = createL1<number>({ policy: chosen, entriesMax: capacity, now });
  return hasTtl ? { get: (key) => l1.get(key), set: (key, value) => l1.set(key, value, 1, now() + 600_000) } : l1;
}

function peerFace(hasTtl: boolean): Face {
  const { LRUCache } = createRequire(`${folder}/package.json`)("lru-cache") as { LRUCache: new (options: object) => Face };
  return new LRUCache({ max: capacity, ...(hasTtl ? { ttl: 600_000 } : {}) });
}

/** Reads the clock once a millisecond at most, while it is asked. */
function coarseNow(): () => number {
  let ms = 0;
  return () => {
    if (ms === 0) {
      ms = performance.now();
      setTimeout(() => {
        ms = 0;
      }, 1).unref();
    }
    return ms;
  };
}

function measure(chosen: L1Policy, pattern: (typeof works)[number], hasTtl: boolean): readonly (readonly [number, number])[] {
  const draw = zipf(0.9, 100_000, dice(1));
  const keys =
    pattern === "hits"
      ? Array.from({ length: 200_000 }, (_, at) => `user:profile:key:${String((at * 7) % 8_000).padStart(8, "0")}`)
      : Array.from({ length: 200_000 }, () => `user:profile:key:${String(draw()).padStart(8, "0")}`);
  const [mine, peer] = [ourFace(chosen, hasTtl), peerFace(hasTtl)];
  for (const face of [mine, peer]) for (let warm = 0; warm < 3; warm++) run(face, keys);
  return Array.from({ length: rounds }, (_, round) => {
    if (round % 2 === 0) return [perSecond(mine, keys), perSecond(peer, keys)] as const;
    const second = perSecond(peer, keys);
    return [perSecond(mine, keys), second] as const;
  });
}

function run(face: Face, keys: readonly string[]): number {
  let hits = 0;
  for (const key of keys) {
    if (face.get(key) !== undefined) hits++;
    else face.set(key, 1);
  }
  return hits;
}

function perSecond(face: Face, keys: readonly string[]): number {
  const start = processorMs();
  let done = 0;
  for (; processorMs() - start < 400; done += keys.length) run(face, keys);
  return (done * 1_000) / (processorMs() - start);
}

function processorMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1_000;
}

function report(): void {
  if (!existsSync(`${folder}/node_modules`)) {
    console.log("Installing the peer into bench/peers/l1 ...");
    spawnSync("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"], { cwd: folder, stdio: "inherit" });
  }
  console.log(machine());
  const figures: Figure[] = [];
  for (const hasTtl of [false, true]) {
    for (const pattern of works) {
      for (const chosen of policies) {
        const args = ["--one", chosen, pattern, hasTtl ? "ttl" : "bare"];
        const child = spawnSync(process.execPath, [fileURLToPath(import.meta.url), ...args], { encoding: "utf8" });
        if (child.status !== 0) throw new Error(child.stderr);
        figures.push(figureOf(`${pattern}, ${hasTtl ? "with expiry" : "bare"}: ${chosen}`, JSON.parse(child.stdout)));
      }
    }
  }
  writeFigures("l1", figures);
}

function figureOf(name: string, pairs: readonly (readonly [number, number])[]): Figure {
  const [mine, peer] = [pairs.map(([each]) => each), pairs.map(([, each]) => each)];
  const ratio = median(pairs.map(([left, right]) => left / right));
  console.log(
    `${name.padEnd(36)} ${(median(mine) / 1e6).toFixed(1)} M/s, lru-cache ${(median(peer) / 1e6).toFixed(1)}: ${ratio.toFixed(2)}x`,
  );
  return {
    case: name,
    ours: rounded(median(mine)),
    peer: rounded(median(peer)),
    peerName: "lru-cache",
    peerVersion: "11.5.3",
    ratio: rounded(ratio),
    unit: "1/s of processor time",
    oursSpread: spread(mine.map(rounded)),
    peerSpread: spread(peer.map(rounded)),
  };
}
