/**
 * A real server as an ordinary child process in a temporary folder: started, waited for, paused, killed, removed.
 * What every fixture of this folder stands on.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface Skipped {
  readonly skipped: string;
}

export interface ServerProcessOptions {
  /** A word for the folder's name. */
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly folder: string;
  readonly environment?: NodeJS.ProcessEnv;
  /** Resolves once the server answers; asked again until it does. */
  readonly isReady: () => Promise<boolean>;
  readonly timeoutMs?: number;
}

const readyMsDefault = 30_000;
const running = new Set<ChildProcess>();
process.once("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

export class ServerProcess {
  readonly #options: ServerProcessOptions;
  #child: ChildProcess | undefined;

  private constructor(options: ServerProcessOptions) {
    this.#options = options;
  }

  static async start(options: ServerProcessOptions): Promise<ServerProcess> {
    const server = new ServerProcess(options);
    await server.start();
    return server;
  }

  get pid(): number {
    return this.#child?.pid ?? -1;
  }

  /** Again, on the same folder. */
  async start(): Promise<void> {
    const { args, command, environment, folder, isReady, name, timeoutMs = readyMsDefault } = this.#options;
    const log = join(folder, `${name}.log`);
    const output = openSync(log, "a");
    const child = spawn(command, args, {
      cwd: folder,
      stdio: ["ignore", output, output],
      env: { ...process.env, ...environment },
    });
    closeSync(output);
    this.#child = child;
    running.add(child);
    let ended: string | undefined;
    child.once("error", (error) => {
      ended = error.message;
    });
    child.once("exit", (code, signal) => {
      running.delete(child);
      ended ??= `exit code ${code}, signal ${signal}`;
    });
    const untilMs = performance.now() + timeoutMs;
    while (!(await isReady().catch(() => false))) {
      if (ended !== undefined || performance.now() > untilMs) {
        child.kill("SIGKILL");
        throw new Error(`${command} did not start (${ended ?? "no answer"}): ${readFileSync(log, "utf8").slice(-2_000)}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** The process goes on, as it were asleep. */
  pause(): void {
    this.#child?.kill("SIGSTOP");
  }

  resume(): void {
    this.#child?.kill("SIGCONT");
  }

  /** At once, as a power cut would. */
  kill(): Promise<void> {
    return this.#end("SIGKILL");
  }

  async stop(): Promise<void> {
    this.resume();
    await this.#end("SIGTERM");
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()));
    child.kill(signal);
    const timer = setTimeout(() => child.kill("SIGKILL"), 5_000);
    await exited;
    clearTimeout(timer);
  }
}

/** A folder that goes with `remove`. */
export function serverFolder(name: string): { readonly path: string; readonly remove: () => void } {
  const path = mkdtempSync(join(tmpdir(), `conclave-${name}-`));
  return { path, remove: () => rmSync(path, { recursive: true, force: true, maxRetries: 5 }) };
}

/** The first of the commands that runs and says its version. */
export function installed(
  commands: readonly string[],
  versionArgs: readonly string[],
): { command: string; version: string } | undefined {
  for (const command of commands) {
    try {
      const said = execFileSync(command, versionArgs, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"], timeout: 10_000 });
      return { command, version: said.trim().split("\n")[0] ?? "" };
    } catch {
      // Not here.
    }
  }
  return undefined;
}

export function acceptsTcp(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: "127.0.0.1", port });
    const finish = (isOpen: boolean): void => {
      socket.destroy();
      resolve(isOpen);
    };
    socket.once("connect", () => finish(true));
    socket.once("error", () => finish(false));
  });
}
