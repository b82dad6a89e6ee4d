/**
 * Raft, Multi-Paxos and Zab on the same host, machine and load, at three and five members, beside a three-node etcd in the
 * same run: 256-byte durable puts and linearizable gets, one at a time and saturated, and how many writes each sync carried.
 *
 * PBFT is left out: it offers another profile (compare-and-set, signed frames), so another load would be measured.
 *
 *   npm run bench -- protocols [--rounds 3] [--seconds 3] [--no-etcd]
 *
 * Writes `bench/results/protocols.json` and a plot of it, `bench/results/protocols.svg`.
 */
import { execFile } from "node:child_process";
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { type BenchCluster, nodeFlags, startCluster } from "./cluster.ts";
import { commit, type Figure, machine, median, rounded, spread, writeFigures } from "./figures.ts";
import { startEtcdPeer } from "./peers/etcd.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "3" },
    seconds: { type: "string", default: "3" },
    "no-etcd": { type: "boolean", default: false },
  },
});
const rounds = Number(values.rounds);
const seconds = Number(values.seconds);

const cases = ["put one at a time", "put saturated", "get one at a time", "get saturated"] as const;
type Case = (typeof cases)[number];
/** In flight when saturated. */
const inFlightSaturated = 1_024;

interface Measured {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly writesPerSync: number | null;
}

interface Contender {
  readonly name: string;
  readonly measured: Map<Case, Measured[]>;
}

const contenders: Contender[] = [];
for (const protocol of ["raft", "paxos", "zab"]) {
  for (const members of [3, 5]) contenders.push({ name: `${protocol}, ${members} members`, measured: new Map() });
}
const etcdMeasured = new Map<Case, number[]>();
let etcdVersion: string | null = null;

for (let round = 0; round < rounds; round++) {
  // The order turns with each round, so that nobody always finds the machine as the same one left it.
  const turns = contenders.map((contender) => () => measureOurs(contender));
  turns.splice(round % (turns.length + 1), 0, measureEtcd);
  for (const turn of round % 2 === 0 ? turns : turns.reverse()) await turn();
}
report();

async function measureOurs({ name, measured }: Contender): Promise<void> {
  const [protocol, members] = name.split(", ") as [string, string];
  const cluster = await startCluster(nodeFlags, protocol, Number.parseInt(members, 10));
  try {
    // Warm: a just-in-time compiler and a cold page cache are not what is measured.
    await load(cluster, "put", inFlightSaturated, 1);
    for (const each of cases) {
      const inFlight = each.endsWith("saturated") ? inFlightSaturated : 1;
      const found = await load(cluster, each.startsWith("put") ? "put" : "get", inFlight, seconds);
      measured.set(each, [...(measured.get(each) ?? []), found]);
    }
  } finally {
    await cluster.stop();
  }
}

async function measureEtcd(): Promise<void> {
  if (values["no-etcd"]) return;
  const peer = await startEtcdPeer();
  if ("missing" in peer) {
    console.log(`etcd is left out: ${peer.missing}`);
    return;
  }
  etcdVersion = peer.version;
  try {
    for (const each of cases) {
      const { perSecond } = await peer.measure(each, { seconds });
      etcdMeasured.set(each, [...(etcdMeasured.get(each) ?? []), perSecond]);
    }
  } finally {
    await peer.close();
  }
}

async function load(cluster: BenchCluster, kind: "put" | "get", inFlight: number, forSeconds: number): Promise<Measured> {
  const before = await syncs(cluster);
  const script = fileURLToPath(new URL("./load.js", import.meta.url));
  const output = await new Promise<string>((done, fail) => {
    const args = [...nodeFlags, script, cluster.url, kind, String(inFlight), String(forSeconds)];
    execFile(process.execPath, args, (error, stdout) => (error === null ? done(stdout) : fail(error)));
  });
  const { calls, seconds: took, warmUpSeconds, p50Ms, p99Ms } = JSON.parse(output);
  // The warm-up is in the syncs too, at about the same pace.
  const writes = (calls / took) * (took + warmUpSeconds);
  const during = (await syncs(cluster)) - before;
  return { perSecond: calls / took, p50Ms, p99Ms, writesPerSync: kind === "put" ? writes / Math.max(1, during) : null };
}

/** Of the leader's log. */
async function syncs({ addresses }: BenchCluster): Promise<number> {
  for (const address of addresses) {
    const status = (await (await fetch(`http://${address}/status`)).json()) as { role: string; syncs: number };
    if (status.role === "leader") return status.syncs;
  }
  return 0;
}

function report(): void {
  const figures: Figure[] = [];
  console.log(
    `\n${machine()}, commit ${commit()}; medians of ${rounds} rounds of ${seconds} s; etcd ${etcdVersion ?? "not measured"}\n`,
  );
  for (const each of cases) {
    const theirs = etcdMeasured.get(each) ?? [];
    const peer = theirs.length === 0 ? null : median(theirs);
    console.log(`${each}${peer === null ? "" : `; etcd ${Math.round(peer).toLocaleString("en-US")}/s`}`);
    for (const { name, measured } of contenders) {
      const found = measured.get(each) ?? [];
      const perSecond = median(found.map((one) => one.perSecond));
      const ratio = peer === null ? null : perSecond / peer;
      const p50 = median(found.map((one) => one.p50Ms)).toFixed(3);
      const p99 = median(found.map((one) => one.p99Ms)).toFixed(3);
      const perSync = each.startsWith("put") ? median(found.map((one) => one.writesPerSync as number)) : null;
      const tail = perSync === null ? "" : `, ${perSync.toFixed(1)} writes a sync`;
      console.log(
        `  ${name.padEnd(18)} ${Math.round(perSecond).toLocaleString("en-US").padStart(9)}/s ${ratio === null ? "" : `${ratio.toFixed(2)}x`.padStart(7)}  p50 ${p50} ms, p99 ${p99} ms${tail}`,
      );
      figures.push({
        case: `${each}: ${name}`,
        ours: rounded(perSecond),
        peer: peer === null ? null : rounded(peer),
        peerName: peer === null ? null : "etcd, 3 members",
        peerVersion: etcdVersion,
        ratio: ratio === null ? null : rounded(ratio),
        unit: each.startsWith("put") ? "256-byte durable puts per second" : "linearizable gets per second",
        oursSpread: spread(found.map((one) => rounded(one.perSecond))),
        note: `p50 ${p50} ms, p99 ${p99} ms${tail}`,
      });
    }
  }
  writeFigures("protocols", figures);
  writeFileSync("bench/results/protocols.svg", plot(figures));
}

/** Bars by case, each on its own scale; no library for four groups of rectangles. */
function plot(figures: readonly Figure[]): string {
  const colours = ["#1f5f8b", "#6aa4c8", "#8b4a1f", "#c8926a", "#3d7a3d", "#8fbf8f"];
  const rows: string[] = [];
  let y = 30;
  for (const each of cases) {
    const group = figures.filter((figure) => figure.case.startsWith(`${each}:`));
    const peer = group[0]?.peer ?? 0;
    const most = Math.max(peer, ...group.map(({ ours }) => ours));
    rows.push(`<text x="10" y="${y}" font-weight="bold">${each}, per second</text>`);
    y += 8;
    const bar = (label: string, value: number, colour: string): void => {
      const width = (value / most) * 420;
      rows.push(`<rect x="130" y="${y}" width="${width.toFixed(1)}" height="12" fill="${colour}"/>`);
      rows.push(`<text x="124" y="${y + 10}" text-anchor="end">${label}</text>`);
      rows.push(`<text x="${(136 + width).toFixed(1)}" y="${y + 10}">${Math.round(value).toLocaleString("en-US")}</text>`);
      y += 16;
    };
    for (const [at, { case: name, ours }] of group.entries()) bar(name.slice(each.length + 2), ours, colours[at] as string);
    if (peer > 0) bar(`etcd ${etcdVersion}`, peer, "#777");
    y += 24;
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" width="660" height="${y}" font-family="sans-serif" font-size="11">\n<rect width="100%" height="100%" fill="white"/>\n${rows.join("\n")}\n</svg>\n`;
}
