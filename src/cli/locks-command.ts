/**
 * `conclave locks show NAME`: who holds a lock and who waits, as they describe themselves.
 */
import type { Command } from "commander";
import { oneLine, printJson, printLine, table } from "./print.ts";
import { addStoreFlags, type StoreFlags, withConclave } from "./store-flags.ts";

export function addLocksCommand(program: Command): void {
  const locks = program.command("locks").summary("look at locks").description("Looks at locks.");
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
      withConclave(flags, async (conclave) => {
        const queue = await conclave.lock(name).queue({ timeoutMs: flags.timeout });
        if (flags.json) return printJson({ lock: name, holder: queue[0] ?? null, waiters: queue.slice(1) });
        if (queue.length === 0) return printLine(`Nobody holds lock ${JSON.stringify(name)}.`);
        const rows = queue.map(({ session, meta, createRevision }, at) => [
          at === 0 ? "holder" : `${at}`,
          session ?? "",
          String(createRevision),
          meta === undefined ? "" : oneLine(JSON.stringify(meta)),
        ]);
        printLine(table([["PLACE", "SESSION", "SINCE REVISION", "SAYS"], ...rows]));
      }),
    );
}
