/**
 * `conclave locks`: who holds a lock and who waits, as they describe themselves; and an operator's word to the holder.
 */
import type { Command } from "commander";
import { conclaveError } from "../base/errors.ts";
import type { Contender } from "../recipes/campaign.ts";
import { Exit } from "./fail.ts";
import { listenForInterrupt } from "./interrupt.ts";
import { oneLine, printJson, printLine, table } from "./print.ts";
import { addStoreFlags, type StoreFlags, withConclave } from "./store-flags.ts";

interface OperatorFlags extends StoreFlags {
  readonly reason: string;
}

export function addLocksCommand(program: Command): void {
  const locks = program
    .command("locks")
    .summary("look at locks, ask holders to yield, break locks")
    .description("Looks at locks, asks their holders to yield, takes locks from them.");
  addShow(locks);
  addWatch(locks);
  addRevoke(locks);
  addBreak(locks);
}

function addShow(locks: Command): void {
  const command = locks
    .command("show")
    .summary("show who holds a lock and who waits")
    .description("Shows the holder of a lock and its queue, in order, at most 100.")
    .argument("<name>");
  addStoreFlags(command, { namespace: false })
    .addHelpText(
      "after",
      `
Examples:
  conclave locks show nightly-backup
  conclave locks show nightly-backup --json | jq .holder.meta.pid`,
    )
    .action((name: string, flags: StoreFlags) =>
      withConclave(flags, async (conclave) => tell(name, await conclave.lock(name).queue({ timeoutMs: flags.timeout }), flags)),
    );
}

function addWatch(locks: Command): void {
  const command = locks
    .command("watch")
    .summary("show it again after every change")
    .description("Shows the holder of a lock and its queue, at once and after every change, until Ctrl-C.")
    .argument("<name>");
  addStoreFlags(command, { namespace: false }).action(async (name: string, flags: StoreFlags) => {
    const { signal } = listenForInterrupt();
    await withConclave(
      flags,
      async (conclave) => {
        await conclave.lock(name).holder({ timeoutMs: flags.timeout, signal });
        for await (const queue of conclave.lock(name).observe({ signal })) {
          if (!flags.json) printLine(new Date().toISOString());
          tell(name, queue, flags);
        }
      },
      signal,
    );
  });
}

function addRevoke(locks: Command): void {
  const command = locks
    .command("revoke")
    .summary("ask the holder to yield")
    .description("Asks the holder to yield. It may go on: nothing is taken from it. Exit code 1: nobody holds the lock.")
    .argument("<name>")
    .requiredOption("--reason <text>", "what the holder is told");
  addStoreFlags(command, { namespace: false }).action((name: string, flags: OperatorFlags) =>
    withConclave(flags, async (conclave) => {
      const asked = await conclave.lock(name).revoke(reasonOf(flags), { timeoutMs: flags.timeout });
      tellWhom("Asked", name, asked, flags);
    }),
  );
}

function addBreak(locks: Command): void {
  const command = locks
    .command("break")
    .summary("take a lock from its holder")
    .description(
      "Takes a lock from its holder and passes it on. The holder may still be at work: only its token, checked where it\n" +
        "writes, keeps what it writes late from harm. Exit code 1: nobody held the lock.",
    )
    .argument("<name>")
    .requiredOption("--reason <text>", "what the holder is told");
  addStoreFlags(command, { namespace: false }).action((name: string, flags: OperatorFlags) =>
    withConclave(flags, async (conclave) => {
      const broken = await conclave.lock(name).break(reasonOf(flags), { timeoutMs: flags.timeout });
      tellWhom("Taken from", name, broken, flags);
    }),
  );
}

function reasonOf({ reason }: OperatorFlags): string {
  if (reason.trim() === "") throw conclaveError("INVALID_OPTION", "--reason must not be empty.");
  return reason;
}

function tell(name: string, queue: readonly Contender[], { json }: StoreFlags): void {
  if (json) {
    printJson({ lock: name, holder: queue[0] ?? null, waiters: queue.slice(1) });
    return;
  }
  if (queue.length === 0) {
    printLine(`Nobody holds lock ${JSON.stringify(name)}.`);
    return;
  }
  const rows = queue.map((contender, at) => [at === 0 ? "holder" : `${at}`, ...columnsOf(contender)]);
  printLine(table([["PLACE", "SESSION", "SINCE REVISION", "SAYS"], ...rows]));
}

function tellWhom(act: string, name: string, contender: Contender | null, { json }: StoreFlags): void {
  if (json) printJson({ lock: name, holder: contender });
  else if (contender === null) printLine(`Nobody holds lock ${JSON.stringify(name)}.`);
  else printLine(`${act} ${columnsOf(contender).join("\t")}`);
  if (contender === null) throw new Exit(1);
}

function columnsOf({ session, meta, createRevision }: Contender): [string, string, string] {
  return [session ?? "", String(createRevision), meta === undefined ? "" : oneLine(JSON.stringify(meta))];
}
