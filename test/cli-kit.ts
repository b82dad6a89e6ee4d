/**
 * For the tests of the command line: real processes of the built output, real members on free ports, real signals.
 * `CONCLAVE_TEST_CLI` names another build of `cli/main.js`.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { freePorts } from "../src/cli/free-ports.ts";

const root = resolve(import.meta.dirname, "..");
const main = process.env.CONCLAVE_TEST_CLI ?? join(root, "dist/cli/main.js");

/** Builds `dist` where it is missing or old. */
export function build(): void {
  if (process.env.CONCLAVE_TEST_CLI === undefined)
    execFileSync(process.execPath, [join(root, "scripts/ensure.mjs")], { stdio: "ignore" });
}

const running = new Set<Cli>();

/** Ends what a test left behind. What runs under `lock` and `up` ends with it. */
export function killAll(): void {
  for (const cli of running) cli.signal("SIGKILL");
}

/** One run of `conclave`. */
export class Cli {
  readonly child: ChildProcess;
  /** 128+n where signal n ended it. */
  readonly exitCode: Promise<number>;
  stdout = "";
  stderr = "";
  #stdoutBytes: Buffer[] = [];

  constructor(
    args: readonly string[],
    options: { readonly input?: string | Buffer; readonly env?: NodeJS.ProcessEnv; readonly cwd?: string } = {},
  ) {
    const env: NodeJS.ProcessEnv = { ...process.env, ...options.env };
    // Colours would come between the words.
    delete env.FORCE_COLOR;
    this.child = spawn(process.execPath, [main, ...args], {
      stdio: "pipe",
      env,
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    this.child.stdin?.on("error", () => undefined);
    this.child.stdin?.end(options.input ?? "");
    this.child.stdout?.on("data", (chunk: Buffer) => {
      this.#stdoutBytes.push(chunk);
      this.stdout += chunk.toString();
    });
    this.child.stderr?.on("data", (chunk: Buffer) => {
      this.stderr += chunk.toString();
    });
    running.add(this);
    this.exitCode = new Promise((done) => {
      this.child.once("close", (code) => {
        running.delete(this);
        done(code ?? 128 + signalNumber(this.child.signalCode));
      });
    });
  }

  get pid(): number {
    return this.child.pid as number;
  }

  get stdoutBytes(): Buffer {
    return Buffer.concat(this.#stdoutBytes);
  }

  signal(name: NodeJS.Signals): void {
    this.child.kill(name);
  }

  /** Waits until standard output, or error, holds the text. */
  says(text: string | RegExp): Promise<void> {
    return until(() => {
      const both = this.stdout + this.stderr;
      return typeof text === "string" ? both.includes(text) : text.test(both);
    }, `conclave to say ${text}`).catch((error: unknown) => {
      throw new Error(`${error}; it said: ${this.stdout}${this.stderr}`);
    });
  }

  /** The lines of standard output as JSON. */
  get records(): Record<string, unknown>[] {
    return this.stdout
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  }
}

export interface Finished {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly stdoutBytes: Buffer;
  readonly elapsedMs: number;
}

/** Runs it to its end. */
export async function conclave(args: readonly string[], options?: ConstructorParameters<typeof Cli>[1]): Promise<Finished> {
  const startedMs = performance.now();
  const cli = new Cli(args, options);
  const exitCode = await cli.exitCode;
  const { stdout, stderr, stdoutBytes } = cli;
  return { exitCode, stdout, stderr, stdoutBytes, elapsedMs: performance.now() - startedMs };
}

/** Members as processes of `conclave serve`. */
export class ServedCluster {
  readonly members: readonly { readonly name: string; readonly address: string; readonly cli: Cli }[];
  readonly url: string;

  private constructor(members: ServedCluster["members"]) {
    this.members = members;
    this.url = `conclave://${members.map(({ address }) => address).join(",")}`;
  }

  /** Resolves when all follow a leader. */
  static async start(directory: string, { count = 3, cluster = "test" } = {}): Promise<ServedCluster> {
    const ports = await freePorts(count);
    const list = ports.map((port, at) => `m${at + 1}=127.0.0.1:${port}`).join(",");
    const members = ports.map((port, at) => {
      const name = `m${at + 1}`;
      const cli = new Cli(["serve", "--data", join(directory, name), "--member", name, "--cluster", cluster, "--members", list]);
      return { name, address: `127.0.0.1:${port}`, cli };
    });
    await Promise.all(members.map(({ address }) => until(() => isReady(address), `${address} to be ready`)));
    return new ServedCluster(members);
  }

  signal(name: NodeJS.Signals): void {
    for (const { cli } of this.members) cli.signal(name);
  }

  async stop(): Promise<readonly number[]> {
    this.signal("SIGCONT");
    this.signal("SIGTERM");
    return Promise.all(this.members.map(({ cli }) => cli.exitCode));
  }
}

export async function isReady(address: string): Promise<boolean> {
  try {
    return (await fetch(`http://${address}/readyz`)).status === 200;
  } catch {
    return false;
  }
}

/** Real processes take the time that they take: looks again and again, gives up loudly. */
export async function until(isTrue: () => boolean | Promise<boolean>, what: string, withinMs = 20_000): Promise<void> {
  const deadlineMs = performance.now() + withinMs;
  while (!(await isTrue())) {
    if (performance.now() > deadlineMs) throw new Error(`Waited ${withinMs} ms for ${what}`);
    await sleep(10);
  }
}

export function sleep(ms: number): Promise<void> {
  return new Promise((done) => setTimeout(done, ms));
}

/** Whether the process runs; one that has ended and was not reaped does not. */
export function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return !["Z", "X"].includes(stat.slice(stat.lastIndexOf(")") + 2, stat.lastIndexOf(")") + 3));
  } catch (error) {
    // No such process; elsewhere than on Linux the signal alone tells.
    return (error as NodeJS.ErrnoException).code === "ENOENT" && process.platform !== "linux";
  }
}

function signalNumber(name: NodeJS.Signals | null): number {
  return { SIGHUP: 1, SIGINT: 2, SIGQUIT: 3, SIGKILL: 9, SIGTERM: 15 }[name as "SIGINT"] ?? 0;
}
