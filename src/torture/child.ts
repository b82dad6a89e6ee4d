/**
 * The child processes of a run: started, stopped, continued and killed by the runner, and never left behind.
 *
 * Three nets hold: a child ends when its channel or its input from the runner breaks, the runner kills all its children however it
 * exits, and the reaper kills them when the runner could not.
 * Each child has a session of its own, so that a Ctrl-C in the terminal reaches the runner alone.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, fstatSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type Interval, monotonicMs } from "./clock.ts";

export interface ChildOptions {
  /** For reports, and of its log file. */
  readonly name: string;
  readonly script: string;
  readonly arguments: readonly string[];
  /** A command that becomes the one given to it: where the child shall run. */
  readonly within?: readonly string[];
  /** Modules that Node loads before the script. */
  readonly preload?: readonly string[];
  /** Beside the runner's own. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Called when it ends and nobody had asked for it. */
  readonly onUnexpectedEnd: (child: Child, how: string) => void;
  /** Left out: a child without a channel, whose standard input stays open as long as the runner lives. */
  readonly onMessage?: (message: unknown) => void;
}

const logTailBytes = 2_000;
const dailyNews = '{"log.level":"info"';

export class Child {
  readonly name: string;
  readonly exited: Promise<void>;
  /** Closed stops, in order. */
  readonly stops: Interval[] = [];
  /** When it was killed by `kill`. */
  killedAtMs: number | undefined;
  readonly #process: ChildProcess;
  /** Its log, and where this process began in it. */
  readonly #log: { readonly path: string; readonly from: number };
  #stoppedAtMs: number | undefined;
  #isEnd = false;
  #mayEnd = false;

  constructor(
    child: ChildProcess,
    log: { readonly path: string; readonly from: number },
    { name, onMessage, onUnexpectedEnd }: ChildOptions,
  ) {
    this.name = name;
    this.#process = child;
    this.#log = log;
    if (onMessage !== undefined) child.on("message", onMessage);
    this.exited = new Promise((resolve) => {
      const onEnd = (how: string): void => {
        if (this.#isEnd) return;
        this.#isEnd = true;
        this.#closeStop(monotonicMs());
        if (!this.#mayEnd) onUnexpectedEnd(this, how);
        resolve();
      };
      child.on("exit", (code, signal) => onEnd(signal === null ? `exited with ${code}` : `died of ${signal}`));
      child.on("error", (error) => onEnd(`could not be started: ${error.message}`));
    });
  }

  get pid(): number | undefined {
    return this.#process.pid;
  }

  get isRunning(): boolean {
    return !this.#isEnd && this.killedAtMs === undefined;
  }

  get isStopped(): boolean {
    return this.#stoppedAtMs !== undefined;
  }

  stop(): void {
    if (!this.isRunning || this.isStopped) return;
    this.#stoppedAtMs = monotonicMs();
    this.#process.kill("SIGSTOP");
  }

  /** Also wakes one that stopped itself. */
  resume(): void {
    if (!this.isRunning) return;
    this.#process.kill("SIGCONT");
    this.#closeStop(monotonicMs());
  }

  kill(): void {
    if (!this.isRunning) return;
    this.#mayEnd = true;
    this.killedAtMs = monotonicMs();
    this.#process.kill("SIGKILL");
  }

  /** From now on it may end by itself. */
  allowEnd(): void {
    this.#mayEnd = true;
  }

  send(message: object): void {
    // A channel that broke is told by `exit`.
    if (this.isRunning && this.#process.connected) this.#process.send(message, () => undefined);
  }

  /** What it said on its standard output and error, without the news of every day. */
  complaints(): string {
    const lines = readFileSync(this.#log.path).subarray(this.#log.from).toString().split("\n");
    return lines
      .filter((line) => !line.startsWith(dailyNews))
      .join("\n")
      .slice(-logTailBytes)
      .trim();
  }

  /** The same, or the end of everything where it did not complain. */
  logTail(): string {
    return this.complaints() || readFileSync(this.#log.path, "utf8").slice(-logTailBytes).trim();
  }

  #closeStop(toMs: number): void {
    if (this.#stoppedAtMs !== undefined) this.stops.push({ fromMs: this.#stoppedAtMs, toMs });
    this.#stoppedAtMs = undefined;
  }
}

/** Starts children and answers for them. */
export class Nursery {
  readonly #directory: string;
  readonly #reaper: ChildProcess;
  readonly #alive = new Set<Child>();
  readonly #onExit = (): void => this.killAll();

  /** @param options `keep`: the directory stays even if the runner dies without a goodbye; else the reaper removes it */
  constructor(directory: string, { keep }: { readonly keep: boolean }) {
    this.#directory = directory;
    const script = join(import.meta.dirname, "reaper.js");
    this.#reaper = spawn(process.execPath, [script, ...(keep ? [] : [directory])], {
      stdio: ["pipe", "ignore", "ignore"],
      detached: true,
    });
    this.#reaper.unref();
    // A reaper that is gone hears nothing, and that is all.
    this.#reaper.stdin?.on("error", () => undefined);
    process.on("exit", this.#onExit);
  }

  start(options: ChildOptions): Child {
    const logPath = join(this.#directory, `${options.name}.log`);
    const log = openSync(logPath, "a");
    const stdio = options.onMessage === undefined ? (["pipe", log, log] as const) : (["ignore", log, log, "ipc"] as const);
    const preload = (options.preload ?? []).flatMap((module) => ["--import", module]);
    const words = [...(options.within ?? []), process.execPath, ...preload, options.script, ...options.arguments];
    const started = spawn(words[0] as string, words.slice(1), {
      stdio: [...stdio],
      detached: true,
      env: { ...process.env, ...options.environment },
    });
    const { size } = fstatSync(log);
    closeSync(log);
    const child = new Child(started, { path: logPath, from: size }, options);
    const { pid } = child;
    if (pid !== undefined) {
      this.#alive.add(child);
      this.#tell(`+${pid}`);
      void child.exited.then(() => {
        this.#alive.delete(child);
        this.#tell(`-${pid}`);
      });
    }
    return child;
  }

  /** Returns before they are gone; the system has their ends in hand. */
  killAll(): void {
    for (const child of this.#alive) child.kill();
  }

  /** Kills all and waits for their ends. */
  async close(): Promise<void> {
    this.killAll();
    await Promise.all([...this.#alive].map((child) => child.exited));
    process.off("exit", this.#onExit);
    this.#reaper.stdin?.end("goodbye\n");
  }

  #tell(line: string): void {
    this.#reaper.stdin?.write(`${line}\n`);
  }
}
