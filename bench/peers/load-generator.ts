/**
 * What the etcd bench asks of a load generator, and where it looks for one.
 *
 * Closed loop: a fixed number of requests in flight, each answered before the next is sent in its place. That is the shape the
 * Conclave side of the bench uses too, so the two figures compare.
 *
 * Source of the two generators: nghttp2's h2load (C, raw HTTP/2 frames) and etcd's own tools/benchmark (Go, the gRPC client).
 */

import { execFile } from "node:child_process";
import { accessSync, constants, statSync } from "node:fs";
import { delimiter, join } from "node:path";

/** Which call is repeated. */
export type Operation = "put" | "get";

/** How many requests are in flight, and over how many connections they are spread. */
export interface Shape {
  readonly connections: number;
  /** Requests in flight on each connection. */
  readonly streams: number;
}

/** One run of a load generator. */
export interface Load {
  /** `host:port`. */
  readonly endpoint: string;
  readonly operation: Operation;
  readonly shape: Shape;
  /** How long to measure, after a warm-up. Seconds. */
  readonly seconds: number;
  /** Abort kills the generator; what it had sent may still be carried out. */
  readonly signal: AbortSignal;
}

/** What one run saw. Latencies are from sending the request to the whole answer. */
export interface LoadResult {
  /** Answers counted. At least this many calls must show up in the server's own count. */
  readonly answered: number;
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** A program that loads one etcd member. */
export interface LoadGenerator {
  /** Name and version, for the report. */
  readonly name: string;
  run(load: Load): Promise<LoadResult>;
}

/** The first executable file called `name` in the directories, or undefined. */
export function findExecutable({
  name,
  directories,
}: {
  readonly name: string;
  readonly directories: readonly string[];
}): string | undefined {
  return directories.map((directory) => join(directory, name)).find(isExecutable);
}

/** Whether `path` is a file this process may run. */
export function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/** The directories of `PATH`. */
export function pathDirectories(): string[] {
  return (process.env.PATH ?? "").split(delimiter).filter((directory) => directory !== "");
}

/** One program to run to its end. */
export interface Execution {
  readonly command: string;
  readonly args: readonly string[];
  /** Killed after this. Milliseconds. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Runs a program and gives what it printed, standard output first.
 * Rejects with `signal.reason` on abort, and with the end of the output when the program fails or its time is up.
 */
export function execute({ command, args, timeoutMs, signal }: Execution): Promise<string> {
  const options = { timeout: timeoutMs, killSignal: "SIGKILL", maxBuffer: 8 << 20, ...(signal && { signal }) } as const;
  return new Promise((resolve, reject) => {
    execFile(command, args, options, (error, stdout, stderr) => {
      if (error === null) resolve(stdout + stderr);
      else if (signal?.aborted) reject(signal.reason);
      else {
        const why = error.killed ? `was killed after ${timeoutMs} ms` : error.message.split("\n")[0];
        reject(new Error(`${command} ${why}\n${(stdout + stderr).slice(-1_000)}`, { cause: error }));
      }
    });
  });
}

/** Reads the one number `pattern` captures. @throws when the output does not hold it: a changed format must not become a figure. */
export function numberIn({ output, pattern }: { readonly output: string; readonly pattern: RegExp }): number {
  const value = Number(pattern.exec(output)?.[1]);
  if (!Number.isFinite(value)) throw new Error(`the load generator printed nothing like ${pattern}:\n${output.slice(-1_000)}`);
  return value;
}
