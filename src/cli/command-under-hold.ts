/**
 * A command that runs while something is held, and is stopped before anybody else can hold it.
 *
 *   send of the last confirmed keep-alive        2/3 of the TTL                         the TTL: the lock may pass on
 *   |--------------------------------------------|---------- grace at most ----------| |
 *                                                lost: SIGTERM to the group          SIGKILL
 *
 * Renewal runs here, not in the command, so a busy command cannot stall it. The hold covers the command's whole process
 * group: what the command leaves behind in it is stopped before the hold is released.
 */
import { hostname, userInfo } from "node:os";
import { basename } from "node:path";
import { type Command, Option } from "commander";
import { conclaveError, hasCode } from "../base/errors.ts";
import { linkSignal } from "../base/link-signal.ts";
import type { Conclave } from "../index.ts";
import { parseDuration } from "./duration.ts";
import { exitCodes } from "./exit-codes.ts";
import { describe, Exit } from "./fail.ts";
import { endingSignals, type Interrupt, listenForInterrupt } from "./interrupt.ts";
import { remark } from "./print.ts";
import { ProcessGroup } from "./process-group.ts";
import { addStoreFlags, type StoreFlags, withConclave } from "./store-flags.ts";

type OnLost = "term" | "kill" | "ignore";

export interface HoldFlags extends StoreFlags {
  readonly try: boolean;
  readonly wait?: number;
  readonly ttl: number;
  readonly grace: number;
  readonly onLost: OnLost;
  readonly conflictExitCode: number;
}

/** What the command runs under: a hold, or the term of a leader. */
export interface Held {
  readonly token: number;
  readonly signal: AbortSignal;
  /** Of this process's monotonic clock. */
  readonly deadline: number;
  readonly loss: Error | null;
  release(): Promise<void>;
}

/** How it is acquired. */
export interface Acquire {
  /** What is sent before a wait that may last for ever: the store must be there. */
  readonly reach: (conclave: Conclave, options: { readonly timeoutMs: number; readonly signal: AbortSignal }) => Promise<unknown>;
  readonly acquire: (
    conclave: Conclave,
    options: { readonly waitMs: number; readonly signal: AbortSignal; readonly meta: unknown },
  ) => Promise<Held>;
}

/** The options that all commands under a hold share. */
export function addHoldFlags(command: Command, options: { readonly wait: boolean } = { wait: true }): Command {
  if (options.wait) {
    command
      .option("-n, --try", "do not wait: exit 75 where it is not free", false)
      .addOption(new Option("-w, --wait <duration>", "wait at most this long (default: without end)").argParser(parseDuration));
  }
  command
    .addOption(
      new Option("--ttl <duration>", "how long it outlives a holder that fell silent")
        .argParser(parseDuration)
        .default(15_000, "15s"),
    )
    .addOption(
      new Option("--grace <duration>", "after a loss, from SIGTERM to SIGKILL; less where the TTL ends before")
        .argParser(parseDuration)
        .default(5_000, "5s"),
    )
    .addOption(
      new Option("--on-lost <what>", "after a loss: SIGTERM first, SIGKILL at once, or let the command run on")
        .choices(["term", "kill", "ignore"])
        .default("term"),
    )
    .addOption(
      new Option("-E, --conflict-exit-code <number>", "exit code where it was not free")
        .argParser(parseExitCode)
        .default(exitCodes.busy),
    );
  return addStoreFlags(command, { namespace: false });
}

/** Acquires, runs, releases, and ends this process with the command's exit code. */
export async function runUnderHold(
  name: string,
  commandLine: readonly string[],
  flags: HoldFlags,
  acquire: Acquire,
): Promise<never> {
  if (flags.try && flags.wait !== undefined) throw conclaveError("INVALID_OPTION", "--try and --wait cannot both be given.");
  const interrupt = listenForInterrupt();
  // While we wait there is no command yet to tell; and Node would open a debugger at USR1.
  const onUser = (): void => undefined;
  for (const signal of userSignals) process.on(signal, onUser);
  const work = async (conclave: Conclave): Promise<number> => {
    const held = await reachAndAcquire(conclave, { flags, interrupt, commandLine, acquire });
    return runCommand({ name, commandLine, flags, held, interrupt });
  };
  throw new Exit(await withConclave(flags, work, interrupt.signal));
}

/** Runs the command under what is held already, and releases it. Answers with the exit code. */
export async function runCommand(parts: {
  readonly name: string;
  readonly commandLine: readonly string[];
  readonly flags: HoldFlags;
  readonly held: Held;
  readonly interrupt: Interrupt;
}): Promise<number> {
  try {
    return await supervise({ ...parts, group: await startGroup(parts) });
  } finally {
    await parts.held.release();
  }
}

async function reachAndAcquire(
  conclave: Conclave,
  parts: {
    readonly flags: HoldFlags;
    readonly interrupt: Interrupt;
    readonly commandLine: readonly string[];
    readonly acquire: Acquire;
  },
): Promise<Held> {
  const { flags, commandLine, acquire, interrupt } = parts;
  const { signal } = interrupt;
  try {
    // The wait for a hold may last for ever, the wait for a store that is not there may not.
    await acquire.reach(conclave, { timeoutMs: flags.timeout, signal });
    await conclave.store().store.sharedSession({ ttlMs: flags.ttl, timeoutMs: flags.timeout, signal });
    const waitMs = flags.try ? 0 : (flags.wait ?? Number.POSITIVE_INFINITY);
    return await acquire.acquire(conclave, { waitMs, signal, meta: selfDescription(commandLine) });
  } catch (error) {
    // The signal's reason comes first: what a given-up call says of itself is of no interest then.
    signal.throwIfAborted();
    if (!hasCode(error, "LOCK_TIMEOUT") && !hasCode(error, "BUSY")) throw error;
    throw Object.assign(error as Error, { exitCode: flags.conflictExitCode });
  }
}

/** What the others read in `locks show`. Arguments may hold secrets: only the command's name. */
export function selfDescription(commandLine: readonly string[]): Record<string, unknown> {
  const command = basename(commandLine[0] as string);
  return { host: hostname(), pid: process.pid, user: userName(), command, since: new Date().toISOString() };
}

async function startGroup(parts: {
  readonly name: string;
  readonly commandLine: readonly string[];
  readonly flags: HoldFlags;
  readonly held: Held;
}): Promise<ProcessGroup> {
  const { name, commandLine, flags, held } = parts;
  const [command, ...args] = commandLine as [string, ...string[]];
  const deadline = Math.floor(Date.now() + held.deadline - performance.now());
  if (held.loss !== null) throw held.loss;
  if (flags.json) remark(JSON.stringify({ kind: "granted", lock: name, token: held.token, deadlineEpochMs: deadline }));
  return ProcessGroup.start({
    command,
    args,
    env: {
      ...process.env,
      CONCLAVE_LOCK: name,
      CONCLAVE_FENCE_TOKEN: String(held.token),
      CONCLAVE_DEADLINE_EPOCH_MS: String(deadline),
    },
    // While the lock is held there is at least a third of the TTL left, in whole seconds for the sake of old shells.
    guardSeconds: flags.onLost === "ignore" ? null : Math.floor(Math.min(flags.grace, flags.ttl / 3) / 1000),
  });
}

const userSignals = ["SIGUSR1", "SIGUSR2"] as const;
const forwarded = [...endingSignals, ...userSignals] as const;

/** Until the group has ended; answers with conclave's exit code. */
async function supervise(parts: {
  readonly name: string;
  readonly group: ProcessGroup;
  readonly held: Held;
  readonly flags: HoldFlags;
  readonly interrupt: Interrupt;
}): Promise<number> {
  const { name, group, held, flags, interrupt } = parts;
  const { onLost } = flags;
  const forward = (signal: NodeJS.Signals): void => void group.signal(signal);
  for (const signal of forwarded) process.on(signal, forward);
  // Suspending conclave would stop the renewal and not the command.
  const stay = (): void => remark("conclave: a holder of a lock cannot be suspended: the lock would be lost.");
  process.on("SIGTSTP", stay);
  interrupt.stop();
  // What came between the grant and here.
  if (interrupt.signal.aborted) group.signal("SIGTERM");
  const loss = linkSignal(held.signal);
  try {
    const lost = new Promise<"lost">((resolve) => {
      if (loss.signal.aborted) resolve("lost");
      loss.signal.addEventListener("abort", () => resolve("lost"), { once: true });
    });
    const first = await Promise.race([group.ended, lost]);
    if (first === "lost") {
      tellLoss(name, held, flags);
      if (onLost !== "ignore") {
        group.hurry();
        if (onLost === "kill") await group.kill();
        else await group.end(killAtMs(held, flags));
      }
    }
    const exitCode = await group.ended;
    // Stragglers in the background: nothing of the command runs on without the lock.
    if (onLost !== "ignore") await group.end(killAtMs(held, flags));
    if (held.loss === null) return exitCode;
    if (first !== "lost") tellLoss(name, held, flags);
    return exitCodes.lost;
  } finally {
    loss.unlink();
    group.close();
    for (const signal of forwarded) process.off(signal, forward);
    process.off("SIGTSTP", stay);
  }
}

/** After the grace, and before the lock can pass on: a third of the TTL after the deadline, less what a timer may be late. */
function killAtMs(held: Held, { grace, ttl }: HoldFlags): number {
  const reserveMs = Math.max(50, ttl * 0.02);
  return Math.min(performance.now() + grace, held.deadline + ttl / 3 - reserveMs);
}

function tellLoss(name: string, held: Held, { json, onLost }: HoldFlags): void {
  const { loss } = held;
  if (json) {
    remark(JSON.stringify({ kind: "lost", lock: name, token: held.token, ...describe(loss) }));
    return;
  }
  const act = {
    term: "Stopping the command.",
    kill: "Killing the command.",
    ignore: "The command runs on, as --on-lost ignore says.",
  }[onLost];
  remark(`conclave: ${loss?.message} ${act} [LOCK_LOST]`);
}

function userName(): string | undefined {
  try {
    return userInfo().username;
  } catch {
    // An account without an entry, as in many containers.
    return undefined;
  }
}

function parseExitCode(text: string): number {
  if (!/^\d{1,3}$/.test(text) || Number(text) > 255)
    throw conclaveError("INVALID_OPTION", `--conflict-exit-code: "${text}" is no number from 0 to 255.`);
  return Number(text);
}
