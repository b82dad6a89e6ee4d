/**
 * The tree of commands, and what is alike in all of them.
 */
import { readFileSync } from "node:fs";
import { Command } from "commander";
import { addDoctorCommand } from "./doctor-command.ts";
import { addElectCommand } from "./elect-command.ts";
import { exitCodeTable } from "./exit-codes.ts";
import { addKeyValueCommands } from "./key-value-commands.ts";
import { addLockCommand } from "./lock-command.ts";
import { addLocksCommand } from "./locks-command.ts";
import { addMemberCommands, addTransferCommand } from "./member-commands.ts";
import { addPbftCommands } from "./pbft-commands.ts";
import { table } from "./print.ts";
import { addServeCommand } from "./serve-command.ts";
import { addSharedHoldCommands } from "./shared-hold-commands.ts";
import { addSnapshotCommands } from "./snapshot-commands.ts";
import { addStatusCommand } from "./status-command.ts";
import { addTxCommand } from "./tx-command.ts";
import { addUpCommand } from "./up-command.ts";
import { addValueCommands } from "./value-commands.ts";
import { addWatchCommand } from "./watch-command.ts";

export function makeProgram(): Command {
  const program = new Command("conclave");
  program
    .description("Locks, elections, agreement and storage that stay true when machines fail.")
    .version(version())
    // Errors are thrown, not printed: `failWith` prints all of them alike.
    .exitOverride()
    .configureOutput({ outputError: () => undefined })
    .addHelpText(
      "after",
      `
First steps:
  conclave up                      three members on this machine
  conclave put greeting hello      in another terminal
  conclave lock demo -- sh -c 'echo "token $CONCLAVE_FENCE_TOKEN"; sleep 10'

Commands find the store by --store or CONCLAVE_STORE; default:
conclave://127.0.0.1:7400. Each explains itself: conclave help lock.
Exit codes: conclave help exit-codes.`,
    );
  addUpCommand(program);
  addServeCommand(program);
  addStatusCommand(program);
  addMemberCommands(program);
  addTransferCommand(program);
  addSnapshotCommands(program);
  addLockCommand(program);
  addSharedHoldCommands(program);
  addElectCommand(program);
  addLocksCommand(program);
  addValueCommands(program);
  addKeyValueCommands(program);
  addWatchCommand(program);
  addDoctorCommand(program);
  addPbftCommands(program);
  addTxCommand(program);
  addExitCodes(program);
  return program;
}

function addExitCodes(program: Command): void {
  const text = table(exitCodeTable.map(([code, meaning]) => [`  ${code}`, meaning]));
  program
    .command("exit-codes")
    .summary("explain the exit codes")
    .description("Explains the exit codes of all commands.")
    .addHelpText("after", `\nExit codes:\n${text}`)
    .action(() => {
      process.stdout.write(`${text}\n`);
    });
}

function version(): string {
  const found: unknown = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
  return (found as { readonly version: string }).version;
}
