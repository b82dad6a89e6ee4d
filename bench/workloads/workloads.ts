/**
 * Access patterns for measuring hit ratios: generators with a fixed seed, and the real traces beside the project, where
 * they are there. A workload is a list of key numbers and the cache sizes it is tried with.
 */
import { existsSync, readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";

export interface Workload {
  readonly name: string;
  readonly capacities: readonly number[];
  keys(): Uint32Array;
}

const uses = 1_000_000;

export const generated: readonly Workload[] = [
  zipfWorkload(0.7, 50_000, [2_500]),
  zipfWorkload(0.9, 50_000, [2_500]),
  zipfWorkload(0.99, 100_000, [10_000]),
  zipfWorkload(1.2, 100_000, [1_000]),
  { name: "Zipf 0.9 with scans", capacities: [2_500], keys: zipfWithScans },
  { name: "shifting Zipf 0.9", capacities: [1_000], keys: shiftingZipf },
  { name: "loop of 3,000", capacities: [1_500, 2_700], keys: () => Uint32Array.from({ length: uses }, (_, at) => at % 3_000) },
  { name: "uniform over 10,000", capacities: [2_500], keys: uniform },
  { name: "70 % one-hit wonders", capacities: [1_000], keys: oneHitWonders },
];

/** In `folder`, which need not be there. */
export function traces(folder: string): readonly Workload[] {
  const lirs = ["2_pools", "cpp", "gli", "multi1", "multi3", "ps", "sprite"].map((name) => ({
    file: `lirs-${name}`,
    capacities: [500, 1_000, 2_000],
  }));
  const files = [
    ...lirs,
    { file: "lirs-loop", capacities: [500, 1_000] },
    { file: "cache2k-web07", capacities: [256, 1_024] },
    { file: "cache2k-orm-busy", capacities: [625, 2_500, 10_000] },
  ];
  return files.flatMap(({ file, capacities }) => {
    const path = `${folder}/${file}.trace.gz`;
    if (!existsSync(path)) return [];
    const read = file.startsWith("lirs") ? textKeys : binaryKeys;
    return [{ name: file, capacities, keys: () => read(gunzipSync(readFileSync(path))) }];
  });
}

/** Numerical Recipes' generator would do; this one (Mulberry32) has no visible pattern in its low bits. */
export function dice(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Draws ranks from 0, the lower the likelier, by the inverse of the distribution. */
export function zipf(exponent: number, keys: number, random: () => number): () => number {
  const sums = new Float64Array(keys);
  let sum = 0;
  for (let rank = 0; rank < keys; rank++) sums[rank] = sum += 1 / (rank + 1) ** exponent;
  return () => {
    const wanted = random() * sum;
    let low = 0;
    let high = keys - 1;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((sums[middle] as number) < wanted) low = middle + 1;
      else high = middle;
    }
    return low;
  };
}

function zipfWorkload(exponent: number, keys: number, capacities: readonly number[]): Workload {
  return {
    name: `Zipf ${exponent} over ${keys.toLocaleString("en")}`,
    capacities,
    keys: () => Uint32Array.from({ length: uses }, zipf(exponent, keys, dice(1))),
  };
}

/** Every 20,000 uses a scan over 5,000 keys that nobody asks for again. */
function zipfWithScans(): Uint32Array {
  const draw = zipf(0.9, 50_000, dice(2));
  let scanned = 1_000_000;
  return Uint32Array.from({ length: uses }, (_, at) => (at % 20_000 < 5_000 ? scanned++ : draw()));
}

/** Every 50,000 uses other keys become the popular ones. */
function shiftingZipf(): Uint32Array {
  const draw = zipf(0.9, 20_000, dice(3));
  return Uint32Array.from({ length: uses }, (_, at) => (draw() + Math.floor(at / 50_000) * 1_777) % 20_000);
}

function uniform(): Uint32Array {
  const random = dice(4);
  return Uint32Array.from({ length: uses }, () => Math.floor(random() * 10_000));
}

/** Of ten uses seven are of keys that never come again. */
function oneHitWonders(): Uint32Array {
  const random = dice(5);
  const draw = zipf(0.9, 10_000, random);
  let fresh = 1_000_000;
  return Uint32Array.from({ length: uses }, () => (random() < 0.7 ? fresh++ : draw()));
}

function textKeys(content: Buffer): Uint32Array {
  const keys = content
    .toString("latin1")
    .split("\n")
    .flatMap((line) => (/^\s*\d+\s*$/.test(line) ? [Number(line)] : []));
  return Uint32Array.from(keys);
}

function binaryKeys(content: Buffer): Uint32Array {
  return Uint32Array.from({ length: content.length >> 2 }, (_, at) => content.readUInt32BE(at * 4));
}
