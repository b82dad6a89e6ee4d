/**
 * The hit ratio of each policy of the L1, beside LRU, W-TinyLFU with a fixed window of 1 %, and the optimum (Belady), on
 * generated patterns and on the real traces in CONCLAVE_TRACES (default: ../shared/traces; without them it says so).
 *
 *   npm run bench -- hit-ratio [--only TEXT]
 *
 * The bar: on average at least half a point above the fixed window, and nowhere more than two points below LRU.
 */
import { writeFileSync } from "node:fs";
import { Lru } from "../src/cache-core/l1/lru.ts";
import { S3Fifo } from "../src/cache-core/l1/s3-fifo.ts";
import { Shadows } from "../src/cache-core/l1/shadows.ts";
import { Sieve } from "../src/cache-core/l1/sieve.ts";
import { SlotTable } from "../src/cache-core/l1/slot-table.ts";
import { WTinyLfu } from "../src/cache-core/l1/w-tiny-lfu.ts";
import { commit, machine, rounded } from "./figures.ts";
import { generated, traces, type Workload } from "./workloads/workloads.ts";

const policies = {
  lru: () => new Lru(),
  sieve: () => new Sieve(),
  "s3-fifo": (weightMax: number) => new S3Fifo(weightMax),
  "w-tinylfu 1 %": (weightMax: number) => new WTinyLfu({ weightMax }),
  "w-tinylfu": (weightMax: number) => new WTinyLfu({ weightMax, tuner: new Shadows(weightMax) }),
} as const;
type Name = keyof typeof policies;

interface Row {
  readonly workload: string;
  readonly capacity: number;
  readonly ratios: Readonly<Record<Name | "optimum", number>>;
}

const only = process.argv[process.argv.indexOf("--only") + 1];
const folder = process.env["CONCLAVE_TRACES"] ?? "../shared/traces";
const real = traces(folder);
if (real.length === 0) console.log(`No traces in ${folder}: the generated patterns only.`);
const workloads = [...generated, ...real].filter(({ name }) => !process.argv.includes("--only") || name.includes(only as string));
const rows = workloads.flatMap(measured);
report(rows);

function measured({ name, capacities, keys }: Workload): Row[] {
  const numbers = keys();
  const texts = Array.from(numbers, (number) => `key:${number}`);
  return capacities.map((capacity) => {
    const ratioOf = (policy: Name): number => hitRatio(texts, capacity, policy);
    const ratios = Object.fromEntries((Object.keys(policies) as Name[]).map((policy) => [policy, ratioOf(policy)]));
    const row = { workload: name, capacity, ratios: { ...ratios, optimum: optimum(numbers, capacity) } as Row["ratios"] };
    console.log(lineOf(row));
    return row;
  });
}

function hitRatio(keys: readonly string[], capacity: number, policy: Name): number {
  const table = new SlotTable<number>({
    policy: policies[policy](capacity),
    weightMax: capacity,
    isCounting: true,
    now: () => 0,
    onRemove: undefined,
  });
  let hits = 0;
  for (const key of keys) {
    if (table.get(key) !== undefined) hits++;
    else table.set(key, 1);
  }
  return (100 * hits) / keys.length;
}

/** Belady's: displaces what is used again last, and does not let in what would be that itself. */
function optimum(keys: Uint32Array, capacity: number): number {
  const nextUse = new Float64Array(keys.length);
  const seen = new Map<number, number>();
  for (let at = keys.length - 1; at >= 0; at--) {
    nextUse[at] = seen.get(keys[at] as number) ?? Number.POSITIVE_INFINITY;
    seen.set(keys[at] as number, at);
  }
  /** By key: when it is used next. Farthest first in the heap, old entries are skipped. */
  const resident = new Map<number, number>();
  const heap: { readonly key: number; readonly next: number }[] = [];
  let hits = 0;
  for (let at = 0; at < keys.length; at++) {
    const key = keys[at] as number;
    const next = nextUse[at] as number;
    if (resident.has(key)) hits++;
    if (next === Number.POSITIVE_INFINITY) {
      resident.delete(key);
      continue;
    }
    resident.set(key, next);
    push(heap, { key, next });
    while (resident.size > capacity) {
      const far = pop(heap);
      if (resident.get(far.key) === far.next) resident.delete(far.key);
    }
  }
  return (100 * hits) / keys.length;
}

type Heap = { readonly key: number; readonly next: number }[];

function push(heap: Heap, item: Heap[number]): void {
  let at = heap.push(item) - 1;
  while (at > 0) {
    const parent = (at - 1) >> 1;
    if ((heap[parent] as Heap[number]).next >= item.next) break;
    heap[at] = heap[parent] as Heap[number];
    at = parent;
  }
  heap[at] = item;
}

function pop(heap: Heap): Heap[number] {
  const top = heap[0] as Heap[number];
  const last = heap.pop() as Heap[number];
  if (heap.length === 0) return top;
  let at = 0;
  for (;;) {
    let child = 2 * at + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && (heap[child + 1] as Heap[number]).next > (heap[child] as Heap[number]).next) child++;
    if ((heap[child] as Heap[number]).next <= last.next) break;
    heap[at] = heap[child] as Heap[number];
    at = child;
  }
  heap[at] = last;
  return top;
}

function lineOf({ workload, capacity, ratios }: Row): string {
  const numbers = Object.values(ratios).map((ratio) => ratio.toFixed(1).padStart(6));
  return `${workload.padEnd(26)} ${String(capacity).padStart(6)}${numbers.join("")}`;
}

function report(all: readonly Row[]): void {
  const names = [...(Object.keys(policies) as Name[]), "optimum"] as const;
  const mean = (name: Name | "optimum"): number => all.reduce((sum, { ratios }) => sum + ratios[name], 0) / all.length;
  const means = Object.fromEntries(names.map((name) => [name, mean(name)])) as Row["ratios"];
  const behind = all.map(({ workload, capacity, ratios }) => ({ workload, capacity, points: ratios.lru - ratios["w-tinylfu"] }));
  const worst = behind.reduce((most, each) => (each.points > most.points ? each : most));
  const gain = means["w-tinylfu"] - means["w-tinylfu 1 %"];
  console.log(`columns: ${names.join(", ")}`);
  console.log(lineOf({ workload: `mean of ${all.length}`, capacity: 0, ratios: means }));
  console.log(`above the fixed window by ${gain.toFixed(2)} points (bar: 0.5)`);
  console.log(`worst against LRU: ${worst.points.toFixed(2)} points below, on ${worst.workload} at ${worst.capacity} (bar: 2)`);
  if (process.argv.includes("--only")) return;
  const table = [...all, { workload: `**mean of ${all.length}**`, capacity: Number.NaN, ratios: means }].map(
    ({ workload, capacity, ratios }) =>
      `| ${workload} | ${Number.isNaN(capacity) ? "" : capacity} | ${names.map((name) => ratios[name].toFixed(1)).join(" | ")} |`,
  );
  const head = [`| workload | entries | ${names.join(" | ")} |`, `|---|---|${names.map(() => "---|").join("")}`];
  const text = [
    "# Hit ratios, in percent",
    "",
    `\`npm run bench -- hit-ratio\`; ${machine()}; commit ${commit()}.`,
    `Above the fixed window by ${gain.toFixed(2)} points; at worst ${worst.points.toFixed(2)} below LRU (${worst.workload}, ${worst.capacity}).`,
    "",
    ...head,
    ...table,
    "",
  ];
  writeFileSync("bench/results/hit-ratio.md", text.join("\n"));
  const figures = all.map(({ workload, capacity, ratios }) => ({
    workload,
    capacity,
    ...Object.fromEntries(names.map((name) => [name, rounded(ratios[name])])),
  }));
  writeFileSync("bench/results/hit-ratio.json", `${JSON.stringify(figures, null, 2)}\n`);
  console.log("bench/results/hit-ratio.md and .json written");
}
