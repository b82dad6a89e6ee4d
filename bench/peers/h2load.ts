/**
 * h2load as a gRPC client: the cheapest way to keep an etcd member busy, so that etcd and not its client is what is measured.
 *
 * A unary gRPC call is one HTTP/2 POST with a fixed body, which is what h2load repeats. It takes one body per run, so every request
 * of a run has the same key. For etcd that is if anything cheaper than many keys: its key index stays at one entry.
 *
 * h2load does not look at trailers, where gRPC says whether a call failed: the caller checks etcd's own count of OK answers.
 * Percentiles come from h2load's request log, because its summary has only min, max and mean.
 */

import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { grpcFrame, paths, putRequest, rangeRequest } from "./etcd-wire.ts";
import { execute, type Load, type LoadGenerator, type LoadResult, numberIn, type Operation } from "./load-generator.ts";

const warmUpMs = 500;
const graceMs = 10_000;

/** Wraps the h2load at `path`. The pair put is `key` → `value`; the get reads `key`. */
export async function h2load({
  path,
  key,
  value,
}: {
  readonly path: string;
  readonly key: Buffer;
  readonly value: Buffer;
}): Promise<LoadGenerator> {
  const version = (await execute({ command: path, args: ["--version"], timeoutMs: graceMs })).trim();
  const bodies: Record<Operation, Buffer> = { put: grpcFrame(putRequest({ key, value })), get: grpcFrame(rangeRequest(key)) };
  return { name: version, run: (load) => runH2load({ path, load, body: bodies[load.operation] }) };
}

async function runH2load({
  path,
  load,
  body,
}: {
  readonly path: string;
  readonly load: Load;
  readonly body: Buffer;
}): Promise<LoadResult> {
  const { endpoint, operation, shape, seconds, signal } = load;
  const directory = await mkdtemp(join(tmpdir(), "conclave-bench-h2load-"));
  const bodyFile = join(directory, "body");
  const logFile = join(directory, "log");
  try {
    await writeFile(bodyFile, body);
    const output = await execute({
      command: path,
      args: [
        ...["--clients", String(shape.connections), "--max-concurrent-streams", String(shape.streams)],
        // One thread is plenty beside three etcds on a small machine; on a large one it could become the limit.
        ...["--threads", String(Math.min(shape.connections, Math.max(1, Math.floor(availableParallelism() / 4))))],
        ...["--duration", `${Math.ceil(seconds * 1_000)}ms`, "--warm-up-time", `${warmUpMs}ms`],
        ...["--header", "content-type: application/grpc", "--header", "te: trailers"],
        ...["--data", bodyFile, "--log-file", logFile],
        `http://${endpoint}${operation === "put" ? paths.put : paths.range}`,
      ],
      timeoutMs: seconds * 1_000 + warmUpMs + graceMs,
      signal,
    });
    const failed = numberIn({ output, pattern: /(\d+) failed/ });
    if (failed > 0) throw new Error(`h2load saw ${failed} requests fail:\n${output.slice(-1_000)}`);
    return {
      answered: numberIn({ output, pattern: /(\d+) succeeded/ }),
      perSecond: numberIn({ output, pattern: /finished in [\d.]+\w*, ([\d.]+) req\/s/ }),
      ...latencies(await readFile(logFile, "utf8")),
    };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** One line a request: start in µs since 1970, HTTP status, duration in µs. */
function latencies(log: string): { p50Ms: number; p99Ms: number } {
  const durations = Float64Array.from(log.trimEnd().split("\n"), (line) => Number(line.slice(line.lastIndexOf("\t") + 1))).sort();
  const atMs = (share: number): number => {
    const micros = durations[Math.min(durations.length - 1, Math.floor(durations.length * share))];
    if (micros === undefined || Number.isNaN(micros))
      throw new Error("h2load's request log is empty or not in the format this bench reads");
    return micros / 1_000;
  };
  return { p50Ms: atMs(0.5), p99Ms: atMs(0.99) };
}
