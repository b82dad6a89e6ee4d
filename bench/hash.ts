/**
 * Placements beside the rings of npm: look-ups per second, balance, and what moves when a node joins or leaves.
 *
 *   npm run bench -- hash
 *
 * Each candidate is measured in a process of its own, in look-ups per second of processor time, the best of three rounds.
 * Balance and moves of all are counted over the same sampled keys; ours are also known exactly (`shares`, `diff`). The
 * peers are installed into bench/peers/hash on first use, exact versions, without install scripts.
 * Sketch: a look-up is one murmur3 of some 25 bytes (35 ns) and two or three reads of tables that fit the cache: 50 ns.
 */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { assigned, partitionOf } from "../src/hash/assignment.ts";
import { jump, ketama, maglev, type Placement, rendezvous, ring, shares } from "../src/hash/index.ts";
import { commit, type Figure, machine, rounded, writeFigures } from "./figures.ts";

interface Candidate {
  /** Of the package.json beside the peers; null: ours. */
  readonly peer: string | null;
  readonly make: (names: readonly string[]) => {
    readonly owner: (key: string) => string | undefined;
    readonly exact?: Placement;
  };
}

const folder = resolve("bench/peers/hash");
const load = createRequire(`${folder}/package.json`);
type Method = "get" | "getNode" | "findNode";
type Constructor = new (names?: readonly string[]) => Record<Method | "add", (value: string) => string | undefined>;

const candidates: Readonly<Record<string, Candidate>> = {
  "ring V=256": ours((names) => ring(names)),
  "ring V=160": ours((names) => ring(names, { virtualNodes: 160 })),
  ketama: ours((names) => ketama(names)),
  rendezvous: ours((names) => rendezvous(names)),
  jump: ours((names) => jump(names)),
  "maglev 65537": ours((names) => maglev(names)),
  "partitions Q=4096": { peer: null, make: partitions },
  hashring: theirs("hashring", "get"),
  "npm ketama": theirs("ketama", "getNode"),
  "consistent-hash": theirs("consistent-hash", "get"),
  "node-hashring": theirs("node-hashring", "findNode"),
  "hash-ring": theirs("hash-ring", "getNode"),
  "consistent-hashing": theirs("consistent-hashing", "getNode"),
};

interface Result {
  readonly perSecond: Readonly<Record<number, number>>;
  readonly buildMs: number;
  /** Largest part over the mean at 100 nodes: the mean of 20 sets of names. */
  readonly balance: number;
  readonly joined: Moved;
  readonly left: Moved;
}

interface Moved {
  readonly share: number;
  readonly collateral: number;
}

const sizes = [10, 100, 1_000] as const;
const slowBuildMs = 2_000;
const [flag, name] = process.argv.slice(2);
if (flag === "--one") console.log(JSON.stringify(measure(candidates[name as string] as Candidate)));
else report();

function ours(make: (names: readonly string[]) => Placement): Candidate {
  return {
    peer: null,
    make: (names) => {
      const exact = make(names);
      return { owner: (key) => exact.owner(key), exact };
    },
  };
}

/** As `conclave.partitions` looks a key up: its partition, then the owner in the table. */
function partitions(names: readonly string[]): { owner: (key: string) => string | undefined } {
  const table = tableOf(names);
  const { length } = table;
  return { owner: (key) => table[partitionOf(key, length)] as string };
}

/** Joins and leaves go on from the table of a hundred nodes, as the planner does; `10.SET...` says which hundred. */
function tableOf(names: readonly string[]): readonly (string | null)[] {
  const weighed = (ids: readonly string[]) => ids.map((id) => ({ id, weight: 1 }));
  const nobody = Array.from({ length: 4_096 }, () => null);
  const before = assigned(nobody, weighed(namesOf(100, Number(names[0]?.split(".")[1]))));
  return assigned(before, weighed(names));
}

function theirs(peer: string, method: Method): Candidate {
  return {
    peer,
    make: (names) => {
      const exported = load(peer) as Constructor & { readonly HashRing?: Constructor };
      const Class = peer === "ketama" ? (exported.HashRing as Constructor) : exported;
      const made = peer === "consistent-hash" ? new Class() : new Class(names);
      if (peer === "consistent-hash") for (const each of names) made.add(each);
      return { owner: (key) => made[method](key) };
    },
  };
}

function measure({ make, peer }: Candidate): Result {
  const perSecond: Record<number, number> = {};
  let buildMs = 0;
  for (const size of sizes) {
    // Some sort everything anew for each node: a thousand would take them minutes. Left out, and shown as such.
    if (size === 1_000 && buildMs > slowBuildMs) break;
    const start = performance.now();
    const { owner } = make(namesOf(size, 0));
    buildMs = performance.now() - start;
    perSecond[size] = Math.max(...[1, 2, 3].map(() => lookUpsPerSecond(owner)));
  }
  // The slowest answer some hundred look-ups per second: their samples are what fits into a second or so.
  const keys = keysOf(Math.min(50_000, Math.max(500, Math.floor((perSecond[100] as number) / 3))));
  const sets = (perSecond[100] as number) < 20_000 ? 1 : 20;
  const balances = Array.from({ length: sets }, (_, set) => {
    const { owner, exact } = make(namesOf(100, set + 1));
    if (exact !== undefined) return Math.max(...shares(exact).values()) * 100;
    if (peer === null) return largestOfTable(namesOf(100, set + 1));
    return largestOf(keys.map(owner));
  });
  const names = namesOf(101, 0);
  const hundred = names.slice(0, 100);
  const gone = hundred[47] as string;
  return {
    perSecond,
    buildMs,
    balance: balances.reduce((sum, each) => sum + each, 0) / sets,
    joined: moved(make(hundred).owner, make(names).owner, keys, (_, to) => to === names[100]),
    left: moved(make(hundred).owner, make(hundred.filter((each) => each !== gone)).owner, keys, (from) => from === gone),
  };
}

/** By the processor time of this process: what else runs on the machine does not count. */
function lookUpsPerSecond(owner: (key: string) => string | undefined): number {
  const keys = keysOf(100_000);
  let found = 0;
  let done = 0;
  const start = processorMs();
  for (let batch = 16, spentMs = 0; spentMs < 300; ) {
    for (let at = 0; at < batch; at++) if (owner(keys[(done + at) % keys.length] as string) !== undefined) found++;
    done += batch;
    const now = processorMs() - start;
    if (now - spentMs < 5) batch *= 2;
    spentMs = now;
  }
  if (found === 0) throw new Error("No key has an owner.");
  return (done * 1_000) / (processorMs() - start);
}

function processorMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1_000;
}

function largestOf(owners: readonly (string | undefined)[]): number {
  const counts = new Map<string | undefined, number>();
  for (const owner of owners) counts.set(owner, (counts.get(owner) ?? 0) + 1);
  return Math.max(...counts.values()) / (owners.length / 100);
}

function largestOfTable(names: readonly string[]): number {
  return largestOf(tableOf(names).map((owner) => owner ?? undefined));
}

function moved(
  before: (key: string) => string | undefined,
  after: (key: string) => string | undefined,
  keys: readonly string[],
  isDue: (from: string | undefined, to: string | undefined) => boolean,
): Moved {
  let share = 0;
  let collateral = 0;
  for (const key of keys) {
    const [from, to] = [before(key), after(key)];
    if (from === to) continue;
    share += 1 / keys.length;
    if (!isDue(from, to)) collateral += 1 / keys.length;
  }
  return { share, collateral };
}

function namesOf(count: number, set: number): string[] {
  return Array.from({ length: count }, (_, index) => `10.${set}.${index >> 8}.${index & 255}:11211`);
}

function keysOf(count: number): string[] {
  return Array.from({ length: count }, (_, index) => `user:${String(index).padStart(9, "0")}:profile:xy`);
}

function report(): void {
  if (!existsSync(`${folder}/node_modules`)) {
    console.log("Installing the peers into bench/peers/hash ...");
    const installed = spawnSync("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"], { cwd: folder, stdio: "inherit" });
    if (installed.status !== 0) console.log("The peers could not be installed: ours only.");
  }
  const isThere = existsSync(`${folder}/node_modules`);
  const rows: { readonly name: string; readonly version: string | null; readonly result: Result }[] = [];
  for (const [each, candidate] of Object.entries(candidates)) {
    if (candidate.peer !== null && !isThere) continue;
    const child = spawnSync(process.execPath, [fileURLToPath(import.meta.url), "--one", each], {
      encoding: "utf8",
      timeout: 180_000,
    });
    if (child.status !== 0) {
      console.log(`${each}: no result (${child.error?.message ?? child.stderr.trim().split("\n")[0]})`);
      continue;
    }
    const result = JSON.parse(child.stdout) as Result;
    const version = candidate.peer === null ? null : versionOf(candidate.peer);
    rows.push({ name: each, version, result });
    console.log(lineOf(each, result));
  }
  const rival = rows.find((row) => row.name === "hashring")?.result.perSecond[100];
  const mine = rows.find((row) => row.name === "ring V=256")?.result;
  if (rival !== undefined && mine !== undefined) {
    console.log(`ring V=256 at 100 nodes: ${((mine.perSecond[100] as number) / rival).toFixed(1)}x hashring (bar: 20)`);
  }
  const figures: Figure[] = rows.flatMap(({ name: each, version, result }) => [
    ...sizes
      .filter((size) => result.perSecond[size] !== undefined)
      .map((size) => ({
        case: `${each}: look-ups/s at ${size} nodes`,
        ours: rounded(result.perSecond[size] as number),
        peer: rival !== undefined && size === 100 ? rounded(rival) : null,
        peerName: size === 100 ? "hashring" : null,
        peerVersion: version,
        ratio: rival !== undefined && size === 100 ? rounded((result.perSecond[size] as number) / rival) : null,
        unit: "1/s",
      })),
    ...(["balance", "joined", "left"] as const).map((what) => ({
      case: `${each}: ${what}`,
      ours: rounded(what === "balance" ? result.balance : result[what].share),
      peer: null,
      peerName: null,
      peerVersion: version,
      ratio: null,
      unit: what === "balance" ? "max/avg at 100 nodes, mean of 20 sets of names" : "share of keys moved, 100 nodes",
      ...(what === "balance" ? {} : { note: `collateral ${rounded(result[what].collateral)}` }),
    })),
  ]);
  writeFigures("hash", figures);
  writeFileSync("bench/results/hash.md", markdown(rows));
}

function versionOf(peer: string): string {
  return (JSON.parse(readFileSync(`${folder}/node_modules/${peer}/package.json`, "utf8")) as { readonly version: string })
    .version;
}

function percent(share: number): string {
  return `${(share * 100).toFixed(2)} %`;
}

function millions(perSecond: number | undefined): string {
  return perSecond === undefined ? "-" : (perSecond / 1e6).toPrecision(3);
}

function cells({ perSecond, buildMs, balance, joined, left }: Result): readonly string[] {
  return [
    ...sizes.map((size) => millions(perSecond[size])),
    buildMs.toFixed(0),
    balance.toFixed(3),
    percent(joined.share),
    percent(joined.collateral),
    percent(left.share),
    percent(left.collateral),
  ];
}

function lineOf(each: string, result: Result): string {
  return [each.padEnd(20), ...cells(result).map((cell) => cell.padStart(9))].join("");
}

function markdown(rows: readonly { readonly name: string; readonly version: string | null; readonly result: Result }[]): string {
  const head = [
    "",
    "M/s at 10",
    "at 100",
    "at 1,000",
    "build at 1,000, ms",
    "max/avg",
    "join",
    "of it collateral",
    "leave",
    "of it collateral",
  ];
  return [
    "# Placements",
    "",
    `\`npm run bench -- hash\`; ${machine()}; commit ${commit()}. 100 nodes where nothing else is said; the optimum of a join is`,
    "0.99 %, of a leave 1.00 %. max/avg is the mean of 20 sets of names: exact for ours, counted over sampled keys for peers.",
    "",
    `| ${head.join(" | ")} |`,
    `|${head.map(() => "---").join("|")}|`,
    ...rows.map(
      ({ name: each, version, result }) => `| ${each}${version === null ? "" : ` ${version}`} | ${cells(result).join(" | ")} |`,
    ),
    "",
  ].join("\n");
}
