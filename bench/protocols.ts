/**
 * The four protocols on the same host, machine and load, beside a three-node etcd in the same run: 256-byte durable puts and
 * linearizable gets, one at a time and saturated; letters, syncs and processor time per command; for Raft also reads by lease
 * and stale ones. Raft, Multi-Paxos and Zab with three and five members, PBFT with four and seven.
 *
 * PBFT's profile is a smaller one: a put is a compare-and-set, every read goes through the log, and a client signs frames of up
 * to 64 operations. What signatures cost of all processor time stands beside its figures.
 *
 *   npm run bench -- protocols [--rounds 3] [--seconds 3] [--only "raft, 3;zab"] [--cases "put saturated;lease"] [--no-etcd]
 *
 * Whole it takes a quarter of an hour a round. `--only` (whom) and `--cases` (what) name a piece of it, by how the names begin; what a piece
 * has measured takes the place of what stood in `bench/results/protocols.json` and its plot, `protocols.svg`, and the rest
 * stays, each figure with its commit. A ratio is always to the etcd of the same piece.
 */
import { execFile } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { nodeFlags, startCluster } from "./cluster.ts";
import { commit, type Figure, machine, median, rounded, spread, writeFiguresInto } from "./figures.ts";
import { startPbftCluster } from "./pbft-cluster.ts";
import { type PeerCase, startEtcdPeer } from "./peers/etcd.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "3" },
    seconds: { type: "string", default: "3" },
    only: { type: "string", default: "" },
    cases: { type: "string", default: "" },
    "no-etcd": { type: "boolean", default: false },
  },
});
const rounds = Number(values.rounds);
const seconds = Number(values.seconds);

const etcdCases = ["put one at a time", "put saturated", "get one at a time", "get saturated"] as const;
/** Against etcd's linearizable gets, because the lease's promise is the same; stale ones against nothing. */
const raftCases = ["lease get one at a time", "lease get saturated", "stale get one at a time"] as const;
const allCases = [...etcdCases, ...raftCases] as const;
type Case = (typeof allCases)[number];
/** In flight when saturated. */
const inFlightSaturated = 1_024;

interface Measured {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly writesPerSync: number | null;
  /** Between members, all told. */
  readonly lettersPerCommand: number;
  /** Of all processes. Microseconds. */
  readonly cpuUs: number | null;
  /** Of all processor time; PBFT alone. */
  readonly signatureShare: number | null;
}

interface Contender {
  readonly name: string;
  readonly measured: Map<Case, Measured[]>;
}

/** A cluster that runs, and how its load generator is called. */
interface Subject {
  readonly addresses: readonly string[];
  readonly pids: readonly number[];
  readonly script: string;
  readonly target: readonly string[];
  stop(): Promise<void>;
}

interface Loaded {
  readonly calls: number;
  readonly seconds: number;
  readonly warmUpSeconds: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly cpuMs: number;
  readonly signaturesMs?: number;
}

/** What all members have done since they started. */
interface Spent {
  readonly leaderSyncs: number;
  readonly letters: number;
  readonly signaturesMs: number;
  /** Null where /proc is missing. */
  readonly cpuMs: number | null;
}

const names = ["raft", "paxos", "zab", "pbft"].flatMap((protocol) =>
  (protocol === "pbft" ? [4, 7] : [3, 5]).map((members) => `${protocol}, ${members} members`),
);
const contenders: readonly Contender[] = names
  .filter((name) => isAskedFor(name, values.only))
  .map((name) => ({ name, measured: new Map() }));
const askedCases = allCases.filter((each) => isAskedFor(each, values.cases));
if (contenders.length === 0 || askedCases.length === 0) {
  console.error(`--only names some of "${names.join('", "')}"; --cases some of "${allCases.join('", "')}".`);
  process.exit(2);
}
const etcdMeasured = new Map<PeerCase, number[]>();
let etcdVersion: string | null = null;

for (let round = 0; round < rounds; round++) {
  // The order turns with each round, so that nobody always finds the machine as the same one left it.
  const turns = contenders.map((contender) => () => measureOurs(contender));
  turns.splice(round % (turns.length + 1), 0, measureEtcd);
  for (const turn of round % 2 === 0 ? turns : turns.reverse()) await turn();
}
report();

function isAskedFor(name: string, asked: string): boolean {
  return asked.split(";").some((start) => name.startsWith(start.trim()));
}

function casesOf(name: string): readonly Case[] {
  return name.startsWith("raft") ? askedCases : etcdCases.filter((each) => askedCases.includes(each));
}

async function start(name: string): Promise<Subject> {
  const [protocol, text] = name.split(", ") as [string, string];
  const members = Number.parseInt(text, 10);
  if (protocol !== "pbft") {
    const cluster = await startCluster(nodeFlags, protocol, members);
    return { ...cluster, script: "./load.js", target: [cluster.url] };
  }
  const cluster = await startPbftCluster(members);
  return { ...cluster, script: "./pbft-load.js", target: [cluster.clusterFile, cluster.clientKey] };
}

async function measureOurs({ name, measured }: Contender): Promise<void> {
  const subject = await start(name);
  try {
    // Warm: a just-in-time compiler and a cold page cache are not what is measured.
    await load(subject, "put", inFlightSaturated, 1);
    for (const each of casesOf(name)) {
      const inFlight = each.endsWith("saturated") ? inFlightSaturated : 1;
      const found = await load(subject, each.split(" ")[0] as string, inFlight, seconds);
      measured.set(each, [...(measured.get(each) ?? []), found]);
    }
  } finally {
    await subject.stop();
  }
}

async function measureEtcd(): Promise<void> {
  // What reads by lease are held against, too.
  const wanted = etcdCases.filter((each) => askedCases.some((asked) => asked.replace("lease ", "") === each));
  if (values["no-etcd"] || wanted.length === 0) return;
  const peer = await startEtcdPeer();
  if ("missing" in peer) {
    console.log(`etcd is left out: ${peer.missing}`);
    return;
  }
  etcdVersion = peer.version;
  try {
    for (const each of wanted) {
      const { perSecond } = await peer.measure(each, { seconds });
      etcdMeasured.set(each, [...(etcdMeasured.get(each) ?? []), perSecond]);
    }
  } finally {
    await peer.close();
  }
}

async function load(subject: Subject, kind: string, inFlight: number, forSeconds: number): Promise<Measured> {
  const before = await spentBy(subject);
  const script = fileURLToPath(new URL(subject.script, import.meta.url));
  const output = await new Promise<string>((done, fail) => {
    const args = [...nodeFlags, script, ...subject.target, kind, String(inFlight), String(forSeconds)];
    execFile(process.execPath, args, (error, stdout) => (error === null ? done(stdout) : fail(error)));
  });
  const after = await spentBy(subject);
  const { calls, seconds: took, warmUpSeconds, p50Ms, p99Ms, cpuMs, signaturesMs = 0 } = JSON.parse(output) as Loaded;
  // The warm-up is in what the members did too, at about the same pace.
  const commands = (calls / took) * (took + warmUpSeconds);
  const membersMs = before.cpuMs === null || after.cpuMs === null ? null : after.cpuMs - before.cpuMs;
  const cpuUs = membersMs === null ? null : 1_000 * (membersMs / commands + cpuMs / calls);
  const signaturesUs = 1_000 * ((after.signaturesMs - before.signaturesMs) / commands + signaturesMs / calls);
  return {
    perSecond: calls / took,
    p50Ms,
    p99Ms,
    writesPerSync: kind === "put" ? commands / Math.max(1, after.leaderSyncs - before.leaderSyncs) : null,
    lettersPerCommand: (after.letters - before.letters) / commands,
    cpuUs,
    signatureShare: signaturesUs === 0 || cpuUs === null ? null : signaturesUs / cpuUs,
  };
}

async function spentBy({ addresses, pids }: Subject): Promise<Spent> {
  const spent = { leaderSyncs: 0, letters: 0, signaturesMs: 0 };
  for (const address of addresses) {
    const status = (await (await fetch(`http://${address}/status`)).json()) as {
      readonly role: string;
      readonly syncs: number;
      readonly letters: number;
      readonly signatures?: { readonly verifyMs: number; readonly signMs: number };
    };
    if (status.role === "leader") spent.leaderSyncs = status.syncs;
    spent.letters += status.letters;
    spent.signaturesMs += (status.signatures?.verifyMs ?? 0) + (status.signatures?.signMs ?? 0);
  }
  return { ...spent, cpuMs: cpuMsOf(pids) };
}

/** User and system time of the processes, their threads included (proc(5), fields 14 and 15, in hundredths of a second). */
function cpuMsOf(pids: readonly number[]): number | null {
  try {
    return pids.reduce((sum, pid) => {
      const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") as string[];
      return sum + 10 * (Number(fields[11]) + Number(fields[12]));
    }, 0);
  } catch {
    return null;
  }
}

function report(): void {
  const figures: Figure[] = [];
  console.log(
    `\n${machine()}, commit ${commit()}; medians of ${rounds} rounds of ${seconds} s; etcd ${etcdVersion ?? "not measured"}\n`,
  );
  for (const each of askedCases) {
    const theirs = etcdMeasured.get(each.replace("lease ", "") as PeerCase) ?? [];
    const peer = theirs.length === 0 ? null : median(theirs);
    console.log(`${each}${peer === null ? "" : `; etcd ${Math.round(peer).toLocaleString("en-US")}/s`}`);
    for (const { name, measured } of contenders) {
      const found = measured.get(each);
      if (found === undefined) continue;
      const figure = figureOf(`${each}: ${name}`, found, peer);
      const ratio = figure.ratio === null ? "" : `${figure.ratio.toFixed(2)}x`.padStart(7);
      console.log(
        `  ${name.padEnd(18)} ${Math.round(figure.ours).toLocaleString("en-US").padStart(9)}/s ${ratio}  ${figure.note}`,
      );
      figures.push(figure);
    }
  }
  for (const { name, measured } of contenders) {
    const [lease, stale] = [measured.get("lease get one at a time"), measured.get("stale get one at a time")];
    if (lease === undefined || stale === undefined) continue;
    const factor = median(stale.map(({ perSecond }) => perSecond)) / median(lease.map(({ perSecond }) => perSecond));
    console.log(`${name}: one at a time a read by lease takes ${factor.toFixed(2)} times as long as a stale one`);
  }
  const order = allCases.flatMap((each) => names.map((name) => `${each}: ${name}`));
  const all = writeFiguresInto("protocols", figures, { order });
  writeFileSync("bench/results/protocols.svg", plot(all));
}

function figureOf(name: string, found: readonly Measured[], peer: number | null): Figure {
  const of = (field: keyof Measured): number | null =>
    found.some((one) => one[field] === null) ? null : median(found.map((one) => one[field] as number));
  const [perSecond, p50, p99] = [of("perSecond") as number, of("p50Ms") as number, of("p99Ms") as number];
  const [perSync, letters, cpuUs, share] = [of("writesPerSync"), of("lettersPerCommand"), of("cpuUs"), of("signatureShare")];
  const notes = [`p50 ${p50.toFixed(3)} ms, p99 ${p99.toFixed(3)} ms`, `${letters?.toPrecision(3)} letters a command`];
  if (perSync !== null) notes.push(`${perSync.toFixed(1)} writes a sync`);
  if (cpuUs !== null) notes.push(`${cpuUs.toPrecision(3)} us of processor a command`);
  if (share !== null) notes.push(`${Math.round(share * 100)} % of it for signatures`);
  return {
    case: name,
    ours: rounded(perSecond),
    peer: peer === null ? null : rounded(peer),
    peerName: peer === null ? null : "etcd, 3 members",
    peerVersion: peer === null ? null : etcdVersion,
    ratio: peer === null ? null : rounded(perSecond / peer),
    unit: `256-byte ${name.includes("put") ? "durable puts" : "gets"} per second`,
    oursSpread: spread(found.map((one) => rounded(one.perSecond))),
    commit: commit(),
    note: notes.join(", "),
  };
}

/** Bars by case, each on its own scale; no library for four groups of rectangles. */
function plot(figures: readonly Figure[]): string {
  const colours = ["#1f5f8b", "#6aa4c8", "#8b4a1f", "#c8926a", "#3d7a3d", "#8fbf8f", "#6b3d8b", "#ae8fc8"];
  const rows: string[] = [];
  let y = 30;
  for (const each of allCases) {
    const group = figures.filter((figure) => figure.case.startsWith(`${each}:`));
    if (group.length === 0) continue;
    // Pieces have met it at different hours.
    const peers = group.flatMap(({ peer }) => peer ?? []);
    const peer = peers.length === 0 ? 0 : median(peers);
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
    if (peer > 0) bar(`etcd ${group.find(({ peerVersion }) => peerVersion)?.peerVersion}`, peer, "#777");
    y += 24;
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" width="660" height="${y}" font-family="sans-serif" font-size="11">\n<rect width="100%" height="100%" fill="white"/>\n${rows.join("\n")}\n</svg>\n`;
}
