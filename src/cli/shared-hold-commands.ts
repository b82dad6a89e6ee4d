/**
 * `conclave rwlock` and `conclave sem`: a command under a hold that others may share; see `command-under-hold.ts`.
 */
import { type Command, Option } from "commander";
import { conclaveError } from "../base/errors.ts";
import { addHoldFlags, type HoldFlags, runUnderHold } from "./command-under-hold.ts";

export function addSharedHoldCommands(program: Command): void {
  addReadWriteLockCommand(program);
  addSemaphoreCommand(program);
}

function addReadWriteLockCommand(program: Command): void {
  const command = program
    .command("rwlock")
    .summary("run a command while reading or writing under a lock")
    .description("Like `lock`, for many readers or one writer, in the order of asking.")
    .argument("<name>", "the lock; everybody who names it shares it")
    .argument("<command...>", "the command and its arguments, after --")
    .option("--read", "beside other readers", false)
    .option("--write", "alone", false);
  addHoldFlags(command)
    .addHelpText(
      "after",
      `
Examples:
  conclave rwlock --read catalogue -- ./report.sh
  conclave rwlock --write catalogue -- ./import.sh

Signals, environment and exit codes: conclave help lock.`,
    )
    .action((name: string, commandLine: readonly string[], flags: HoldFlags & { read: boolean; write: boolean }) => {
      if (flags.read === flags.write) throw conclaveError("INVALID_OPTION", "Say either --read or --write.");
      const mode = flags.read ? "read" : "write";
      return runUnderHold(name, commandLine, flags, {
        reach: (conclave, options) => conclave.readWriteLock(name).queue({ ...options, limit: 1 }),
        acquire: (conclave, { meta, ...options }) =>
          conclave.readWriteLock(name, { ttlMs: flags.ttl, meta })[mode].acquire(options),
      });
    });
}

function addSemaphoreCommand(program: Command): void {
  const command = program
    .command("sem")
    .summary("run a command while holding permits of a semaphore")
    .description("Like `lock`, for at most so many at once.")
    .argument("<name>", "the semaphore; everybody who names it shares it")
    .argument("<command...>", "the command and its arguments, after --")
    .addOption(new Option("--permits <count>", "how many there are in all").argParser(parseCount).makeOptionMandatory())
    .addOption(new Option("--take <count>", "how many this command takes").argParser(parseCount).default(1));
  addHoldFlags(command)
    .addHelpText(
      "after",
      `
Examples:
  conclave sem --permits 3 video-encoders -- ffmpeg -i in.mov out.mp4
  conclave sem --permits 8 --take 4 memory -- ./large-job.sh

Signals, environment and exit codes: conclave help lock.`,
    )
    .action((name: string, commandLine: readonly string[], flags: HoldFlags & { permits: number; take: number }) => {
      const { permits, take } = flags;
      return runUnderHold(name, commandLine, flags, {
        reach: (conclave, options) => conclave.semaphore(name, { permits }).queue({ ...options, limit: 1 }),
        acquire: (conclave, { meta, ...options }) =>
          conclave.semaphore(name, { permits, ttlMs: flags.ttl, meta }).acquire({ ...options, permits: take }),
      });
    });
}

/** @throws INVALID_OPTION */
export function parseCount(text: string): number {
  const count = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(count) || count < 1) {
    throw conclaveError("INVALID_OPTION", `"${text}" is no whole number of at least 1.`);
  }
  return count;
}
