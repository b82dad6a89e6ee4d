/**
 * etcd's own load tool, go.etcd.io/etcd/v3/tools/benchmark: what the etcd project publishes its figures with.
 *
 * It runs a fixed number of requests, not a time, so a short run first finds the rate and the real run is sized from it.
 * Puts go to random keys of a small key space. It shares the machine with etcd and its Go client costs more than h2load, so on a
 * machine with few cores its figures are lower; the bench takes whichever is better for etcd.
 */

import { execute, type Load, type LoadGenerator, type LoadResult, numberIn } from "./load-generator.ts";

const keySpaceSize = 1_000;
const calibrationRequestsPerSlot = 5;
const calibrationRequestsMin = 1_000;
const graceMs = 15_000;

/** Wraps the tool at `path`, or gives undefined when that is some other program called `benchmark`. */
export async function etcdBenchmark({
  path,
  key,
  valueBytes,
}: {
  readonly path: string;
  readonly key: Buffer;
  readonly valueBytes: number;
}): Promise<LoadGenerator | undefined> {
  const help = await execute({ command: path, args: ["--help"], timeoutMs: graceMs }).catch(() => "");
  if (!help.includes("benchmark tool for etcd3")) return undefined;

  async function run(load: Load): Promise<LoadResult> {
    const slots = load.shape.connections * load.shape.streams;
    const calibration = await runTotal(load, Math.max(calibrationRequestsMin, calibrationRequestsPerSlot * slots));
    return await runTotal(load, Math.max(slots, Math.round(calibration.perSecond * load.seconds)));
  }

  async function runTotal({ endpoint, operation, shape, seconds, signal }: Load, total: number): Promise<LoadResult> {
    const what =
      operation === "put"
        ? ["put", "--key-size=8", `--val-size=${valueBytes}`, `--key-space-size=${keySpaceSize}`]
        : ["range", key.toString("utf8"), "--consistency=l"];
    const inFlight = [`--conns=${shape.connections}`, `--clients=${shape.connections * shape.streams}`];
    const output = await execute({
      command: path,
      args: [...what, ...inFlight, `--endpoints=${endpoint}`, `--total=${total}`, "--precise"],
      // Twice the time it should take: the calibration may have met a quieter moment.
      timeoutMs: 2 * seconds * 1_000 + graceMs,
      signal,
    });
    if (output.includes("Error distribution"))
      throw new Error(`etcd's benchmark tool saw requests fail:\n${output.slice(-1_000)}`);
    return {
      answered: total,
      perSecond: numberIn({ output, pattern: /Requests\/sec:\s+([\d.e+-]+)/ }),
      p50Ms: numberIn({ output, pattern: /\b50% in ([\d.e+-]+) secs/ }) * 1_000,
      p99Ms: numberIn({ output, pattern: /\b99% in ([\d.e+-]+) secs/ }) * 1_000,
    };
  }

  return { name: "etcd tools/benchmark", run };
}
