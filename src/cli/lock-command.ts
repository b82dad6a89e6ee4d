/**
 * `conclave lock NAME -- command`: runs a command while it holds a lock; see `command-under-hold.ts`.
 */
import type { Command } from "commander";
import { addHoldFlags, type HoldFlags, runUnderHold } from "./command-under-hold.ts";

export function addLockCommand(program: Command): void {
  const command = program
    .command("lock")
    .summary("run a command while holding a lock")
    .description(
      "Waits for the lock, runs the command (directly, without a shell), passes its exit code on and releases the lock.\n" +
        "When the lock is lost on the way, the command is stopped before anybody else can hold it.",
    )
    .argument("<name>", "the lock; everybody who names it shares it")
    .argument("<command...>", "the command and its arguments, after --");
  addHoldFlags(command)
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
    .action((name: string, commandLine: readonly string[], flags: HoldFlags) =>
      runUnderHold(name, commandLine, flags, {
        reach: (conclave, options) => conclave.lock(name).holder(options),
        acquire: (conclave, { meta, ...options }) => conclave.lock(name, { ttlMs: flags.ttl, meta }).acquire(options),
      }),
    );
}
