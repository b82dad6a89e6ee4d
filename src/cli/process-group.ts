/**
 * A command in a process group of its own, so that a signal reaches all that it started, and nothing of it stays behind.
 *
 * Intuition: a school trip. The children are counted as one group: when the bell rings, all of them come, also those
 * whom another child brought along.
 *
 *   conclave (our group) --- pipe ---> guard: sh, waits for the pipe to end
 *      '--> command (its own session and group) --> its children
 *
 * The guard is for the one death that conclave cannot act in: SIGKILL. The pipe ends with conclave, however it ends; then
 * the guard sends SIGTERM to the group and SIGKILL after the grace. It costs one sleeping `sh` of about a megabyte. It is
 * there before the command is, and told of it in the next breath (a millisecond or two): a SIGKILL in that breath is the
 * only one that it misses.
 * Assumes POSIX process groups and /bin/sh. On Windows only the command itself is signalled, and there is no guard.
 * Leaves out what leaves the group on purpose (setsid, daemons), and a conclave that is frozen with SIGSTOP while its
 * command runs on: only the token protects from that.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { constants } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";

export interface GroupOptions {
  readonly command: string;
  readonly args: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  /** Seconds between SIGTERM and SIGKILL where conclave dies without a word. Null: no guard. */
  readonly guardSeconds: number | null;
}

/** The command cannot be run at all; `exitCode` is the shell's: 127 not found, 126 found and not executable. */
export class CommandError extends Error {
  override readonly name = "CommandError";
  readonly code: string;
  readonly exitCode: number;

  constructor(command: string, cause: NodeJS.ErrnoException) {
    const isAbsent = cause.code === "ENOENT";
    super(`The command ${JSON.stringify(command)} ${isAbsent ? "was not found" : `cannot be executed: ${cause.message}`}.`, {
      cause,
    });
    this.code = isAbsent ? "COMMAND_NOT_FOUND" : "COMMAND_NOT_EXECUTABLE";
    this.exitCode = isAbsent ? 127 : 126;
  }
}

const hasGroups = process.platform !== "win32";
const pollMs = 20;
/** After SIGKILL nothing runs; what is still listed are zombies that nobody has reaped. */
const reapMsMax = 200;

export class ProcessGroup {
  readonly pid: number;
  /** The command's exit code, or 128+n where signal n ended it. Its children may outlive it: see `end`. */
  readonly ended: Promise<number>;
  readonly #child: ChildProcess;
  readonly #guard: ChildProcess | undefined;
  readonly #onExit = (): void => void this.signal("SIGKILL");

  private constructor(child: ChildProcess, pid: number, guard: ChildProcess | undefined) {
    this.pid = pid;
    this.#child = child;
    this.#guard = guard;
    this.ended = new Promise((resolve) => {
      child.once("exit", (code, signal) => resolve(code ?? 128 + constants.signals[signal as NodeJS.Signals]));
    });
    // Whatever ends this process, also a defect of it, ends the group.
    if (guard !== undefined) process.on("exit", this.#onExit);
  }

  /** Executes the command, without a shell. @throws CommandError */
  static async start({ command, args, env, guardSeconds }: GroupOptions): Promise<ProcessGroup> {
    const guard = guardSeconds === null || !hasGroups ? undefined : startGuard(guardSeconds);
    const child = spawn(command, args, { stdio: "inherit", env, detached: hasGroups });
    // Before anything else: from here on the command runs.
    if (child.pid !== undefined) guard?.stdin?.write(`${child.pid}\n`);
    try {
      await new Promise<void>((resolve, reject) => {
        child.once("spawn", resolve);
        child.once("error", (error) => reject(new CommandError(command, error)));
      });
    } catch (error) {
      guard?.kill("SIGKILL");
      throw error;
    }
    return new ProcessGroup(child, child.pid as number, guard);
  }

  /** To every process of the group. False: there is none any more. */
  signal(name: NodeJS.Signals | 0): boolean {
    try {
      return hasGroups ? process.kill(-this.pid, name) : this.#child.kill(name);
    } catch {
      // ESRCH: all have ended. EPERM: the rest runs as somebody else and is out of reach.
      return false;
    }
  }

  /**
   * SIGTERM now, SIGKILL once `killAtMs` (of `performance.now`) has come. Resolves when the whole group is gone.
   * A group that has ended already costs one system call.
   */
  async end(killAtMs: number): Promise<void> {
    if (!this.signal("SIGTERM")) return;
    // A stopped process takes a SIGTERM only once it goes on.
    this.signal("SIGCONT");
    while (performance.now() < killAtMs) {
      await sleep(Math.max(1, Math.min(pollMs, killAtMs - performance.now())));
      if (!this.signal(0)) return;
    }
    await this.kill();
  }

  /** SIGKILL, which nothing can refuse. */
  async kill(): Promise<void> {
    const untilMs = performance.now() + reapMsMax;
    this.signal("SIGKILL");
    while (this.signal(0) && performance.now() < untilMs) await sleep(5);
  }

  /** The guard must hurry from now on: the lock is lost. */
  hurry(): void {
    this.#guard?.stdin?.write("0\n");
  }

  /** Dismisses the guard. */
  close(): void {
    process.off("exit", this.#onExit);
    this.#guard?.kill("SIGKILL");
  }
}

/** The lines on its input are the grace, the group, and then at most another grace; the end is the signal. */
const guardScript = `
read -r grace
read -r group || exit 0
while read -r line; do grace=$line; done
kill -s TERM -- "-$group" 2>/dev/null || exit 0
[ "$grace" = 0 ] || sleep "$grace"
kill -s KILL -- "-$group" 2>/dev/null
`;

function startGuard(graceSeconds: number): ChildProcess {
  // A group of its own: what is sent to ours (a terminal's Ctrl-C, kill -9 of a whole job) must not reach it.
  const guard = spawn("/bin/sh", ["-c", guardScript, "conclave-guard"], {
    stdio: ["pipe", "ignore", "ignore"],
    detached: true,
  });
  const onTrouble = (): void => undefined;
  // No shell, or a guard that was killed: the command runs as well without.
  guard.on("error", onTrouble);
  guard.stdin?.on("error", onTrouble);
  guard.stdin?.write(`${graceSeconds}\n`);
  guard.unref();
  return guard;
}
