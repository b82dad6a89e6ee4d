/**
 * One `conclave serve` as a child process: its log records, its end, and its end together with ours.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { constants } from "node:os";
import { createInterface } from "node:readline";

export interface MemberProcessOptions {
  readonly member: string;
  readonly cluster: string;
  readonly directory: string;
  readonly address: string;
  readonly members: ReadonlyMap<string, string>;
  /** Undefined: that of the directory. */
  readonly protocol: string | undefined;
  /** A line of its log; undefined where it is no record. */
  readonly onLine: (line: string, record: LogRecord | undefined) => void;
  /** Its exit code, 128+n for a signal. */
  readonly onEnd: (exitCode: number, how: string) => void;
}

/** What is read of a record: see `member-log.ts`. */
export interface LogRecord {
  readonly "log.level": string;
  readonly message: string;
  readonly event?: { readonly action?: string };
  readonly conclave?: { readonly role?: string; readonly term?: number };
}

export class MemberProcess {
  readonly pid: number | undefined;
  readonly ended: Promise<void>;
  readonly #child: ChildProcess;

  constructor(options: MemberProcessOptions) {
    const { member, cluster, directory, address, members, protocol, onLine, onEnd } = options;
    const list = [...members].map(([name, at]) => `${name}=${at}`).join(",");
    const names = ["--member", member, "--cluster", cluster, "--members", list];
    if (protocol !== undefined) names.push("--protocol", protocol);
    // A group of its own: a terminal's Ctrl-C goes to us alone, and we say how it ends. Its input is a leash: it ends with
    // us, however we end, and the member with it.
    this.#child = spawn(
      process.execPath,
      [process.argv[1] as string, "serve", "--data", directory, "--listen", address, ...names, "--until-input-ends"],
      { stdio: ["pipe", "pipe", "pipe"], detached: true },
    );
    this.pid = this.#child.pid;
    this.#child.stdin?.on("error", () => undefined);
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      if (stream !== null) createInterface({ input: stream }).on("line", (line) => onLine(line, parseRecord(line)));
    }
    this.ended = new Promise((resolve) => {
      this.#child.once("error", (error) => {
        onEnd(127, error.message);
        resolve();
      });
      this.#child.once("exit", (code, signal) => {
        onEnd(code ?? 128 + constants.signals[signal as NodeJS.Signals], signal === null ? `exit code ${code}` : signal);
        resolve();
      });
    });
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }
}

function parseRecord(line: string): LogRecord | undefined {
  try {
    const found: unknown = JSON.parse(line);
    return typeof found === "object" && found !== null && "log.level" in found && "message" in found
      ? (found as LogRecord)
      : undefined;
  } catch {
    // Not of the logger: a warning of Node, say.
    return undefined;
  }
}
