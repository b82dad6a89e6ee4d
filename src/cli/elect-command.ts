/**
 * `conclave elect NAME -- command`: runs a command while this process leads, again and again if asked.
 */
import { type Command, Option } from "commander";
import { conclaveError } from "../base/errors.ts";
import { addHoldFlags, type HoldFlags, runCommand, selfDescription } from "./command-under-hold.ts";
import { Exit } from "./fail.ts";
import { listenForInterrupt } from "./interrupt.ts";
import { oneLine, printJson, printLine } from "./print.ts";
import { addStoreFlags, type StoreFlags, withConclave } from "./store-flags.ts";

interface ElectFlags extends HoldFlags {
  readonly priority?: number;
}

export function addElectCommand(program: Command): void {
  const command = program
    .command("elect")
    .summary("run a command while leading")
    .description("Campaigns, runs the command while this process leads, resigns, and passes its exit code on.")
    .argument("<name>", "the election; everybody who names it takes part")
    .argument("<command...>", "the command and its arguments, after --")
    .addOption(new Option("--priority <number>", "higher leads first among those that wait").argParser(parsePriority));
  addHoldFlags(command, { wait: false })
    .addHelpText(
      "after",
      `
Examples:
  conclave elect scheduler -- ./scheduler
  conclave elect --priority 10 scheduler -- ./scheduler
  conclave leader scheduler

Signals, environment and exit codes: conclave help lock.`,
    )
    .action(runElect);
  const leader = program
    .command("leader")
    .summary("show who leads an election")
    .description("Shows who leads: its token and what it says of itself. Exit code 1: nobody does.")
    .argument("<name>");
  addStoreFlags(leader, { namespace: false }).action((name: string, flags: StoreFlags) =>
    withConclave(flags, async (conclave) => {
      const found = await conclave.election(name).leader({ timeoutMs: flags.timeout });
      if (flags.json) printJson(found);
      else if (found === null) printLine(`Nobody leads ${JSON.stringify(name)}.`);
      else printLine(`token ${found.token}\t${oneLine(JSON.stringify(found.value) ?? "")}`);
      if (found === null) throw new Exit(1);
    }),
  );
}

async function runElect(name: string, commandLine: readonly string[], flags: ElectFlags): Promise<void> {
  const interrupt = listenForInterrupt();
  const { signal } = interrupt;
  const exitCode = await withConclave(
    flags,
    async (conclave) => {
      const election = conclave.election(name, { ttlMs: flags.ttl });
      await election.leader({ timeoutMs: flags.timeout, signal });
      return election.lead(
        (term) => {
          const held = {
            token: term.token,
            signal: term.signal,
            get deadline() {
              return term.deadline;
            },
            get loss() {
              return term.loss;
            },
            release: () => Promise.resolve(),
          };
          return runCommand({ name, commandLine, flags, held, interrupt });
        },
        {
          signal,
          rerun: false,
          value: selfDescription(commandLine),
          ...(flags.priority === undefined ? {} : { priority: flags.priority }),
        },
      );
    },
    signal,
  );
  throw new Exit(exitCode);
}

function parsePriority(text: string): number {
  const priority = Number(text);
  if (text.trim() === "" || !Number.isFinite(priority))
    throw conclaveError("INVALID_OPTION", `--priority: "${text}" is no number.`);
  return priority;
}
