/**
 * `conclave lock NAME -- command`: runs a command while it holds a lock, and stops it before the lock can pass on.
 *
 *   send of the last confirmed keep-alive        2/3 of the TTL                         the TTL: the lock may pass on
 *   |--------------------------------------------|---------- grace at most ----------| |
 *                                                lost: SIGTERM to the group          SIGKILL
 *
 * Renewal runs here, not in the command, so a busy command cannot stall it. The lock covers the command's whole process
 * group: what the command leaves behind in it is stopped before the lock is released.
 */
import { hostname, userInfo } from "node:os";
import { basename } from "node:path";
import { type Command, Option } from "commander";
import { conclaveError, hasCode } from "../base/errors.ts";
import { linkSignal } from "../base/link-signal.ts";
import type { Conclave, Hold } from "../index.ts";
import { parseDuration } from "./duration.ts";
import { exitCodes } from "./exit-codes.ts";
import { describe, Exit } from "./fail.ts";
import { endingSignals, type Interrupt, listenForInterrupt } from "./interrupt.ts";
import { remark } from "./print.ts";
import { ProcessGroup } from "./process-group.ts";
import { addStoreFlags, type StoreFlags, withConclave } from "./store-flags.ts";

type OnLost = "term" | "kill" | "ignore";

interface LockFlags extends StoreFlags {
  readonly try: boolean;
  readonly wait?: number;
  readonly ttl: number;
  readonly grace: number;
  readonly onLost: OnLost;
  readonly conflictExitCode: number;
}

export function addLockCommand(program: Command): void {
  const command = program
    .command("lock")
    .summary("run a command while holding a lock")
    .description(
      "Waits for the lock, runs the command (directly, without a shell), passes its exit code on and releases the lock.\n" +
        "When the lock is lost on the way, the command is stopped before anybody else can hold it.",
    )
    .argument("<name>", "the lock; everybody who names it shares it")
    .argument("<command...>", "the command and its arguments, after --")
    .option("-n, --try", "do not wait: exit 75 where the lock is not free", false)
    .addOption(new Option("-w, --wait <duration>", "wait at most this long (default: without end)").argParser(parseDuration))
    .addOption(
      new Option("--ttl <duration>", "how long the lock outlives a holder that fell silent")
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
      new Option("-E, --conflict-exit-code <number>", "exit code where the lock was not free")
        .argParser(parseExitCode)
        .default(exitCodes.busy),
    );
  addStoreFlags(command, { namespace: false })
    .addHelpText(
      "after",
      `
Examples:
  conclave lock nightly-backup -- ./backup.sh
  conclave lock --try cache-warmup -- node warm.js     (75: somebody is at it)
  conclave lock --wait 30s deploy -- sh -c 'kubectl apply -f . && ./smoke-test'
  conclave lock ledger -- sh -c 'psql -v token="$CONCLAVE_FENCE_TOKEN" -f move.sql'

The command finds in its environment:
  CONCLAVE_LOCK                the name
  CONCLAVE_FENCE_TOKEN         rises with every holder: let what you write to
                               refuse lower ones
  CONCLAVE_DEADLINE_EPOCH_MS   until when the lock is sure without another
                               renewal, as of the start

Signals INT, TERM, HUP, QUIT, USR1 and USR2 are passed to the command's process
group. The lock covers that group: what the command leaves running in it is
stopped at the end. If conclave itself is killed with SIGKILL, a small guard
process stops the group. A conclave that is frozen (SIGSTOP) can stop nothing:
only the token protects from that. The command has no controlling terminal.
Standard output belongs to the command; with --json, conclave tells "granted"
and "lost" on standard error.

Exit codes: the command's own, 128+n where signal n ended it, 75 not free,
79 lost, 69 no answer from the store, 126 and 127 as a shell's.`,
    )
    .action(runLock);
}

async function runLock(name: string, commandLine: readonly string[], flags: LockFlags): Promise<void> {
  if (flags.try && flags.wait !== undefined) throw conclaveError("INVALID_OPTION", "--try and --wait cannot both be given.");
  const interrupt = listenForInterrupt();
  // While we wait there is no command yet to tell; and Node would open a debugger at USR1.
  const onUser = (): void => undefined;
  for (const signal of userSignals) process.on(signal, onUser);
  const work = (conclave: Conclave): Promise<number> => lockAndRun(conclave, { name, commandLine, flags, interrupt });
  throw new Exit(await withConclave(flags, work, interrupt.signal));
}

interface Task {
  readonly name: string;
  readonly commandLine: readonly string[];
  readonly flags: LockFlags;
  readonly interrupt: Interrupt;
}

async function lockAndRun(conclave: Conclave, { name, commandLine, flags, interrupt }: Task): Promise<number> {
  const lock = conclave.lock(name, { ttlMs: flags.ttl, meta: selfDescription(commandLine) });
  const hold = await acquire(conclave, { lock, flags, interrupt });
  try {
    const group = await startGroup({ name, commandLine, flags, hold });
    return await supervise({ group, hold, flags, interrupt });
  } finally {
    await hold.release();
  }
}

/** What the others read in `locks show`. Arguments may hold secrets: only the command's name. */
function selfDescription(commandLine: readonly string[]): Record<string, unknown> {
  const command = basename(commandLine[0] as string);
  return { host: hostname(), pid: process.pid, user: userName(), command, since: new Date().toISOString() };
}

interface Acquisition {
  readonly lock: ReturnType<Conclave["lock"]>;
  readonly flags: LockFlags;
  readonly interrupt: Interrupt;
}

async function acquire(conclave: Conclave, acquisition: Acquisition): Promise<Hold> {
  const { lock, flags, interrupt } = acquisition;
  const { signal } = interrupt;
  try {
    await reach(conclave, acquisition);
    return await lock.acquire({ waitMs: flags.try ? 0 : (flags.wait ?? Number.POSITIVE_INFINITY), signal });
  } catch (error) {
    // The signal's reason comes first: what a given-up call says of itself is of no interest then.
    signal.throwIfAborted();
    if (!hasCode(error, "LOCK_TIMEOUT")) throw error;
    throw Object.assign(error, { exitCode: flags.conflictExitCode });
  }
}

/**
 * Waits for the session that the lock will use: the wait for a lock may last for ever, the wait for a store that is not
 * there may not.
 */
async function reach(conclave: Conclave, { lock, flags, interrupt: { signal } }: Acquisition): Promise<void> {
  const { timeout: timeoutMs } = flags;
  await lock.holder({ timeoutMs, signal });
  await conclave.store().store.sharedSession({ ttlMs: lock.ttlMs, timeoutMs, signal });
}

async function startGroup(parts: {
  readonly name: string;
  readonly commandLine: readonly string[];
  readonly flags: LockFlags;
  readonly hold: Hold;
}): Promise<ProcessGroup> {
  const { name, commandLine, flags, hold } = parts;
  const [command, ...args] = commandLine as [string, ...string[]];
  const deadline = Math.floor(Date.now() + hold.deadline - performance.now());
  hold.assertHeld();
  if (flags.json) remark(JSON.stringify({ kind: "granted", lock: name, token: hold.token, deadlineEpochMs: deadline }));
  return ProcessGroup.start({
    command,
    args,
    env: {
      ...process.env,
      CONCLAVE_LOCK: name,
      CONCLAVE_FENCE_TOKEN: String(hold.token),
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
  readonly group: ProcessGroup;
  readonly hold: Hold;
  readonly flags: LockFlags;
  readonly interrupt: Interrupt;
}): Promise<number> {
  const { group, hold, flags, interrupt } = parts;
  const { onLost } = flags;
  const forward = (name: NodeJS.Signals): void => void group.signal(name);
  for (const name of forwarded) process.on(name, forward);
  // Suspending conclave would stop the renewal and not the command.
  const stay = (): void => remark("conclave: a holder of a lock cannot be suspended: the lock would be lost.");
  process.on("SIGTSTP", stay);
  interrupt.stop();
  // What came between the grant and here.
  if (interrupt.signal.aborted) group.signal("SIGTERM");
  const loss = linkSignal(hold.signal);
  try {
    const lost = new Promise<"lost">((resolve) => {
      if (loss.signal.aborted) resolve("lost");
      loss.signal.addEventListener("abort", () => resolve("lost"), { once: true });
    });
    const first = await Promise.race([group.ended, lost]);
    if (first === "lost") {
      tellLoss(hold, flags);
      if (onLost !== "ignore") {
        group.hurry();
        if (onLost === "kill") await group.kill();
        else await group.end(killAtMs(hold, flags));
      }
    }
    const exitCode = await group.ended;
    // Stragglers in the background: nothing of the command runs on without the lock.
    if (onLost !== "ignore") await group.end(killAtMs(hold, flags));
    if (hold.loss === null) return exitCode;
    if (first !== "lost") tellLoss(hold, flags);
    return exitCodes.lost;
  } finally {
    loss.unlink();
    group.close();
    for (const name of forwarded) process.off(name, forward);
    process.off("SIGTSTP", stay);
  }
}

/** After the grace, and before the lock can pass on: a third of the TTL after the deadline, less what a timer may be late. */
function killAtMs(hold: Hold, { grace, ttl }: LockFlags): number {
  const reserveMs = Math.max(50, ttl * 0.02);
  return Math.min(performance.now() + grace, hold.deadline + ttl / 3 - reserveMs);
}

function tellLoss(hold: Hold, { json, onLost }: LockFlags): void {
  const { loss } = hold;
  if (json) {
    remark(JSON.stringify({ kind: "lost", lock: hold.name, token: hold.token, ...describe(loss) }));
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
