/**
 * The etcd side of `npm run bench -- replication`: three durable etcd nodes on this machine, driven as hard as they can take.
 *
 * The aim is etcd at its best, so that a comparison is worth something: requests go straight to the leader, over cleartext HTTP/2,
 * from the cheapest load generators there are, and a saturated case tries several shapes and keeps the best.
 * A figure counts only when etcd's own metrics say it answered that many calls with OK and the leader stayed the same.
 *
 * Sketch: a put is one fsync on the leader beside one round trip and one fsync on a follower, so one at a time it cannot be faster
 * than about two fsyncs and a loopback round trip; saturated, hundreds of puts share an fsync and the CPU is the limit. A
 * linearizable get needs no disk but one round of heartbeats (ReadIndex), which all waiting gets share.
 *
 * Run alone: see README.md beside this file, also for how to get a current etcd.
 */

import { dirname, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { etcdBenchmark } from "./etcd-benchmark.ts";
import { EtcdCluster } from "./etcd-cluster.ts";
import { callUnary, firstValue, leaseGrantRequest, paths, putRequest, rangeRequest } from "./etcd-wire.ts";
import { h2load } from "./h2load.ts";
import {
  findExecutable,
  isExecutable,
  type LoadGenerator,
  type LoadResult,
  type Operation,
  pathDirectories,
  type Shape,
} from "./load-generator.ts";

/** What is measured. Values are 256 bytes; gets are linearizable. */
export type PeerCase = "put one at a time" | "put saturated" | "get one at a time" | "get saturated";

/** The four cases, in the order of the report. */
export const peerCases: readonly PeerCase[] = ["put one at a time", "put saturated", "get one at a time", "get saturated"];

/** One measured figure. */
export interface PeerFigure {
  readonly case: PeerCase;
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** How it was driven, for the report: `8 connections × 64 streams, h2load nghttp2/1.52.0`. */
  readonly drivenBy: string;
}

/** A running etcd, ready to be measured. Cases are measured one after another, never at once. */
export interface EtcdPeer {
  /** The version the leader reports, such as `3.6.16`. */
  readonly version: string;
  /** The load generators found; the better one is used for each case. */
  readonly loadGenerator: string;
  /**
   * Measures one case for `seconds` (more than 0; 3 is a good value). The first measure of a case also tries
   * every shape and generator for 1 s each (up to half a minute in all); the winner is kept for the next measures.
   * Rejects when calls failed, when etcd's own count disagrees, or when the peer is closed meanwhile.
   */
  measure(kase: PeerCase, options: { readonly seconds: number }): Promise<PeerFigure>;
  /** Kills everything that was started and removes its files. Idempotent. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** How to start the peer. */
export interface EtcdPeerOptions {
  /** The etcd server binary. Default: `etcd` in the directory CONCLAVE_BENCH_ETCD names, else on PATH. */
  readonly etcdPath?: string;
  /** Where the data directory is made; use the disk Conclave is measured on. Default the system's temporary directory. */
  readonly directory?: string;
  /** Abort closes the peer: a measure under way rejects with the reason. */
  readonly signal?: AbortSignal;
}

/** One way of driving a case. */
interface Drive {
  readonly generator: LoadGenerator;
  readonly shape: Shape;
}

const key = Buffer.from("conclave-bench");
const value = Buffer.alloc(256, "v");
const callTimeoutMs = 5_000;
const probeSeconds = 1;
const frontRunnerCount = 2;
const settlingCommits = 4;
// Long enough that no expiry falls into a measure.
const settlingLeaseSeconds = 3_600;
// Comfortably above etcd's default batch interval of 100 ms.
const commitIntervalMs = 250;
const attemptsMax = 3;
const oneAtATime: readonly Shape[] = [{ connections: 1, streams: 1 }];
// 512 to 2048 requests in flight: below that etcd still has room, above it only the latency grows.
const saturated: readonly Shape[] = [
  { connections: 8, streams: 64 },
  { connections: 4, streams: 256 },
  { connections: 16, streams: 128 },
];
const caseTable: Readonly<Record<PeerCase, { readonly operation: Operation; readonly shapes: readonly Shape[] }>> = {
  "put one at a time": { operation: "put", shapes: oneAtATime },
  "put saturated": { operation: "put", shapes: saturated },
  "get one at a time": { operation: "get", shapes: oneAtATime },
  "get saturated": { operation: "get", shapes: saturated },
};

/**
 * Starts a durable three-node etcd on free loopback ports in a temporary directory, default heartbeat and election timeout.
 * Gives `{ missing }` with the reason when no etcd or no load generator is found. Rejects when etcd is there but does not start.
 *
 * Binaries are looked for in CONCLAVE_BENCH_ETCD (a directory), beside `etcdPath`, then on PATH.
 */
export async function startEtcdPeer(options: EtcdPeerOptions = {}): Promise<EtcdPeer | { missing: string }> {
  options.signal?.throwIfAborted();
  const chosen = process.env.CONCLAVE_BENCH_ETCD;
  const directories = [
    ...(chosen ? [chosen] : []),
    ...(options.etcdPath ? [dirname(options.etcdPath)] : []),
    ...pathDirectories(),
  ];

  const etcdPath = options.etcdPath === undefined ? findExecutable({ name: "etcd", directories }) : resolve(options.etcdPath);
  if (etcdPath === undefined) return { missing: "no etcd binary: put it on PATH or name its directory in CONCLAVE_BENCH_ETCD" };
  if (!isExecutable(etcdPath)) return { missing: `no etcd binary at ${etcdPath}` };
  const generators = await findGenerators(directories);
  if (generators.length === 0)
    return { missing: "no load generator for etcd: install h2load (Debian: nghttp2-client) or build etcd's benchmark tool" };

  const cluster = await EtcdCluster.start({ etcdPath, directory: options.directory, signal: options.signal });
  try {
    return await RunningEtcd.open({ cluster, generators, signal: options.signal });
  } catch (error) {
    await cluster.stop();
    throw error;
  }
}

async function findGenerators(directories: readonly string[]): Promise<LoadGenerator[]> {
  const h2loadPath = findExecutable({ name: "h2load", directories });
  const benchmarkPath = findExecutable({ name: "benchmark", directories });
  const found = await Promise.all([
    h2loadPath ? h2load({ path: h2loadPath, key, value }) : undefined,
    benchmarkPath ? etcdBenchmark({ path: benchmarkPath, key, valueBytes: value.length }) : undefined,
  ]);
  return found.filter((generator) => generator !== undefined);
}

class RunningEtcd implements EtcdPeer {
  readonly version: string;
  readonly loadGenerator: string;
  readonly #cluster: EtcdCluster;
  readonly #generators: readonly LoadGenerator[];
  /** Aborts when the peer closes, and kills a load generator under way. */
  readonly #closing = new AbortController();
  readonly #parent: AbortSignal | undefined;
  readonly #onAbort = (): void => {
    this.#shutDown(this.#parent?.reason).catch((error: unknown) => console.error("etcd's files could not be removed:", error));
  };
  /** The best way found to drive a case. Invariant: at most one entry for each of the four cases. */
  readonly #drives = new Map<PeerCase, Drive>();
  /** Whether puts ran since the last `#settle`. */
  #unsettled = false;
  #stopped: Promise<void> | undefined;

  private constructor({
    cluster,
    generators,
    signal,
    version,
  }: { cluster: EtcdCluster; generators: readonly LoadGenerator[]; signal: AbortSignal | undefined; version: string }) {
    this.#cluster = cluster;
    this.#generators = generators;
    this.#parent = signal;
    this.version = version;
    this.loadGenerator = generators.map(({ name }) => name).join(", ");
    signal?.addEventListener("abort", this.#onAbort, { once: true });
  }

  /** Writes the pair the gets will read, and reads it back: a get of nothing would be a cheaper get. */
  static async open({
    cluster,
    generators,
    signal,
  }: {
    cluster: EtcdCluster;
    generators: readonly LoadGenerator[];
    signal: AbortSignal | undefined;
  }): Promise<RunningEtcd> {
    const { endpoint, version } = await cluster.leader(signal);
    await callUnary({ endpoint, path: paths.put, message: putRequest({ key, value }), timeoutMs: callTimeoutMs });
    const answer = await callUnary({ endpoint, path: paths.range, message: rangeRequest(key), timeoutMs: callTimeoutMs });
    if (!firstValue(answer)?.equals(value)) throw new Error("etcd did not give back the value just put");
    signal?.throwIfAborted();
    return new RunningEtcd({ cluster, generators, signal, version });
  }

  async measure(kase: PeerCase, { seconds }: { readonly seconds: number }): Promise<PeerFigure> {
    this.#closing.signal.throwIfAborted();
    const drive = this.#drives.get(kase) ?? (await this.#bestDrive(kase));
    this.#drives.set(kase, drive);
    const { perSecond, p50Ms, p99Ms } = await this.#run(kase, drive, seconds);
    const { connections, streams } = drive.shape;
    const drivenBy = `${connections} connection${connections === 1 ? "" : "s"} × ${streams} stream${streams === 1 ? "" : "s"}, ${drive.generator.name}`;
    return { case: kase, perSecond, p50Ms, p99Ms, drivenBy };
  }

  close(): Promise<void> {
    return this.#shutDown(new Error("the etcd peer was closed"));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #shutDown(reason: unknown): Promise<void> {
    this.#parent?.removeEventListener("abort", this.#onAbort);
    this.#closing.abort(reason);
    this.#stopped ??= this.#cluster.stop();
    return this.#stopped;
  }

  /**
   * Tries every generator with every shape of the case, briefly, then the front runners once more: on a machine that also does
   * other things a single short run can name the wrong winner.
   */
  async #bestDrive(kase: PeerCase): Promise<Drive> {
    let runners = this.#generators.flatMap((generator) =>
      caseTable[kase].shapes.map((shape) => ({ generator, shape, perSecond: 0 })),
    );
    for (const keptCount of [frontRunnerCount, 1]) {
      if (runners.length <= keptCount) continue;
      for (const runner of runners) {
        const { perSecond } = await this.#run(kase, runner, probeSeconds);
        runner.perSecond = Math.max(runner.perSecond, perSecond);
      }
      runners = runners.sort((a, b) => b.perSecond - a.perSecond).slice(0, keptCount);
    }
    const [best] = runners;
    if (best === undefined) throw new Error(`nothing to drive "${kase}" with`);
    return best;
  }

  /** One run against the leader, checked with etcd's own count. A run in which the leader moved is done again. */
  async #run(kase: PeerCase, { generator, shape }: Drive, seconds: number): Promise<LoadResult> {
    const { signal } = this.#closing;
    const { operation } = caseTable[kase];
    const method = operation === "put" ? "Put" : "Range";
    for (let attempt = 1; attempt <= attemptsMax; attempt++) {
      const { endpoint } = await this.#cluster.leader(signal);
      if (operation === "get" && this.#unsettled) await this.#settle(endpoint);
      this.#unsettled = operation === "put";
      const before = await this.#cluster.answeredCount({ endpoint, method });
      const result = await generator.run({ endpoint, operation, shape, seconds, signal });
      const counted = (await this.#cluster.answeredCount({ endpoint, method })) - before;
      if (counted < result.answered) {
        throw new Error(
          `${generator.name} counted ${result.answered} answers to "${kase}" but etcd only ${counted} with status OK`,
        );
      }
      if ((await this.#cluster.leader(signal)).endpoint === endpoint) return result;
    }
    throw new Error(`etcd's leader moved during each of ${attemptsMax} runs of "${kase}": the machine is too busy to measure on`);
  }

  /**
   * A few lease grants, far enough apart to fall into separate backend commits (every 100 ms).
   * etcd 3.4 copies its whole read buffer on every get. A flood of puts grows that buffer, and it is let go only by a commit that
   * touches no key: without one, gets come out at a third of the rate of a quiet store. Later versions do not need it.
   */
  async #settle(endpoint: string): Promise<void> {
    for (let commit = 0; commit < settlingCommits; commit++) {
      await callUnary({
        endpoint,
        path: paths.leaseGrant,
        message: leaseGrantRequest(settlingLeaseSeconds),
        timeoutMs: callTimeoutMs,
      });
      await sleep(commitIntervalMs, undefined, { signal: this.#closing.signal }).catch(() =>
        this.#closing.signal.throwIfAborted(),
      );
    }
  }
}

/** Three rounds of all cases, the median figure of each: `main` when this file is run alone. */
async function report(): Promise<void> {
  const seconds = 3;
  const rounds = 3;
  const controller = new AbortController();
  process.once("SIGINT", () => controller.abort(new Error("interrupted")));
  process.once("SIGTERM", () => controller.abort(new Error("terminated")));
  const peer = await startEtcdPeer({ signal: controller.signal });
  if ("missing" in peer) {
    console.log(`etcd is not measured: ${peer.missing}`);
    return;
  }
  try {
    console.log(`etcd ${peer.version}, load from ${peer.loadGenerator}; median of ${rounds} rounds of ${seconds} s`);
    for (const kase of peerCases) {
      const figures: PeerFigure[] = [];
      for (let round = 0; round < rounds; round++) figures.push(await peer.measure(kase, { seconds }));
      figures.sort((a, b) => a.perSecond - b.perSecond);
      const median = figures[Math.floor(rounds / 2)] as PeerFigure;
      const spread = `${figures[0]?.perSecond.toFixed(0)}–${figures.at(-1)?.perSecond.toFixed(0)}`;
      const latency = `p50 ${median.p50Ms.toFixed(2)} ms  p99 ${median.p99Ms.toFixed(2)} ms`;
      console.log(
        `${kase.padEnd(18)} ${median.perSecond.toFixed(0).padStart(7)}/s (${spread})  ${latency}  [${median.drivenBy}]`,
      );
    }
  } finally {
    await peer.close();
  }
}

const script = process.argv[1];
if (script !== undefined && pathToFileURL(script).href === import.meta.url) await report();
