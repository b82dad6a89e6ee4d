/**
 * Our cluster beside a real three-node etcd, on the same machine in the same run: 256-byte durable puts and linearizable
 * gets, one at a time and saturated.
 *
 * Sketch: a durable put is one loopback trip to the leader (20-30 us with two event loops), then the slower of the
 * leader's sync and the faster follower's trip and sync (50-150 us), then the answer. Saturated, the machine's cores are
 * the limit: client, leader and two followers share them, so what counts is microseconds of processor per put, all told.
 *
 *   npm run bench -- replication [--rounds 3] [--seconds 3] [--no-etcd] [--protocol raft]
 */
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { nodeFlags, startCluster } from "./cluster.ts";
import { commit, type Figure, machine, median, rounded, spread, writeFigures } from "./figures.ts";
import { type EtcdPeer, startEtcdPeer } from "./peers/etcd.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "3" },
    seconds: { type: "string", default: "3" },
    "no-etcd": { type: "boolean", default: false },
    protocol: { type: "string", default: "raft" },
  },
});
const rounds = Number(values.rounds);
const seconds = Number(values.seconds);

const cases = ["put one at a time", "put saturated", "get one at a time", "get saturated"] as const;
type Case = (typeof cases)[number];
/** In flight when saturated: the best of these counts, as for etcd. */
const shapes = [512, 1_024, 2_048];

interface Measured {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly writesPerSync: number | null;
}

const cluster = await startCluster(nodeFlags, values.protocol);
const etcd = values["no-etcd"] ? { missing: "--no-etcd was given" } : await startEtcdPeer();
if ("missing" in etcd) console.log(`etcd is left out: ${etcd.missing}`);
try {
  const ours = new Map<Case, Measured[]>(cases.map((each) => [each, []]));
  const theirs = new Map<Case, Measured[]>(cases.map((each) => [each, []]));
  // Warm: a just-in-time compiler and a cold page cache are not what is measured.
  await load("put", 512);
  await load("get", 512);
  for (let round = 0; round < rounds; round++) {
    for (const each of cases) {
      // The order turns with each round, so that neither always finds the machine as the other left it.
      const turns = [
        () => measureOurs(each).then((it) => ours.get(each)?.push(it)),
        () => measureEtcd(etcd, each).then((it) => it && theirs.get(each)?.push(it)),
      ];
      for (const turn of round % 2 === 0 ? turns : turns.reverse()) await turn();
    }
  }
  report(ours, theirs, etcd);
} finally {
  await cluster.stop();
  if (!("missing" in etcd)) await etcd.close();
}

async function measureOurs(each: Case): Promise<Measured> {
  const kind = each.startsWith("put") ? "put" : "get";
  if (each.endsWith("one at a time")) return load(kind, 1);
  const found: Measured[] = [];
  for (const inFlight of shapes) found.push(await load(kind, inFlight));
  return found.reduce((best, one) => (one.perSecond > best.perSecond ? one : best));
}

interface Loaded {
  readonly calls: number;
  readonly seconds: number;
  readonly warmUpSeconds: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

async function load(kind: "put" | "get", inFlight: number): Promise<Measured> {
  const before = await syncs();
  const script = fileURLToPath(new URL("./load.js", import.meta.url));
  const output = await new Promise<string>((done, fail) => {
    execFile(process.execPath, [...nodeFlags, script, cluster.url, kind, String(inFlight), String(seconds)], (error, stdout) =>
      error === null ? done(stdout) : fail(error),
    );
  });
  const { calls, seconds: took, warmUpSeconds, p50Ms, p99Ms } = JSON.parse(output) as Loaded;
  // The warm-up is in the syncs too, at about the same pace.
  const writes = (calls / took) * (took + warmUpSeconds);
  const during = (await syncs()) - before;
  return { perSecond: calls / took, p50Ms, p99Ms, writesPerSync: kind === "put" ? writes / Math.max(1, during) : null };
}

/** Of the leader's log. */
async function syncs(): Promise<number> {
  for (const address of cluster.addresses) {
    const status = (await (await fetch(`http://${address}/status`)).json()) as { role: string; syncs: number };
    if (status.role === "leader") return status.syncs;
  }
  return 0;
}

async function measureEtcd(peer: EtcdPeer | { readonly missing: string }, each: Case): Promise<Measured | undefined> {
  if ("missing" in peer) return undefined;
  return { ...(await peer.measure(each, { seconds })), writesPerSync: null };
}

function report(
  ours: ReadonlyMap<Case, Measured[]>,
  theirs: ReadonlyMap<Case, Measured[]>,
  peer: EtcdPeer | { readonly missing: string },
): void {
  const peerVersion = "missing" in peer ? null : peer.version;
  const figures: Figure[] = [];
  console.log(
    `\n${machine()}, commit ${commit()}; medians of ${rounds} rounds of ${seconds} s; etcd ${peerVersion ?? "not measured"}${"missing" in peer ? "" : ` by ${peer.loadGenerator}`}\n`,
  );
  console.log("case                     ours/s     etcd/s   ratio   ours p50/p99 ms    etcd p50/p99 ms   writes/sync");
  for (const each of cases) {
    const [own, other] = [ours.get(each) ?? [], theirs.get(each) ?? []];
    const perSecond = median(own.map((one) => one.perSecond));
    const peerPerSecond = other.length === 0 ? null : median(other.map((one) => one.perSecond));
    const ratio = peerPerSecond === null ? null : perSecond / peerPerSecond;
    const perSync = own[0]?.writesPerSync === null ? null : median(own.map((one) => one.writesPerSync as number));
    const times = (of: readonly Measured[]): string =>
      of.length === 0
        ? "-"
        : `${median(of.map((one) => one.p50Ms)).toFixed(3)} / ${median(of.map((one) => one.p99Ms)).toFixed(3)}`;
    console.log(
      [
        each.padEnd(20),
        Math.round(perSecond).toLocaleString("en-US").padStart(10),
        (peerPerSecond === null ? "-" : Math.round(peerPerSecond).toLocaleString("en-US")).padStart(10),
        (ratio === null ? "-" : `${ratio.toFixed(2)}x`).padStart(7),
        times(own).padStart(17),
        times(other).padStart(18),
        (perSync === null ? "-" : perSync.toFixed(1)).padStart(13),
      ].join(" "),
    );
    figures.push({
      case: each,
      ours: rounded(perSecond),
      peer: peerPerSecond === null ? null : rounded(peerPerSecond),
      peerName: peerVersion === null ? null : "etcd",
      peerVersion,
      ratio: ratio === null ? null : rounded(ratio),
      unit: kindOf(each),
      oursSpread: spread(own.map((one) => rounded(one.perSecond))),
      ...(other.length === 0 ? {} : { peerSpread: spread(other.map((one) => rounded(one.perSecond))) }),
      ...(perSync === null ? {} : { note: `${rounded(perSync)} writes per sync` }),
    });
  }
  writeFigures(values.protocol === "raft" ? "replication" : `replication-${values.protocol}`, figures);
}

function kindOf(each: Case): string {
  return each.startsWith("put") ? "256-byte durable puts per second" : "linearizable gets per second";
}
