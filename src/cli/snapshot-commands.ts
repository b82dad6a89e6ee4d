/**
 * `conclave snapshot save FILE` and `restore FILE`: a backup, and a new store out of it.
 */
import type { Command } from "commander";
import { conclaveError } from "../base/errors.ts";
import { restoreBackup, saveBackup } from "../engines/embedded/backup.ts";
import { connectCluster } from "../engines/embedded/cluster-engine.ts";
import { serveDefaults } from "../engines/embedded/serve.ts";
import { printJson, printLine } from "./print.ts";
import { defaultData } from "./serve-command.ts";
import { addOutputFlags, addStoreFlags, connectOptions, type StoreFlags } from "./store-flags.ts";

interface RestoreFlags {
  readonly data: string;
  readonly member: string;
  readonly cluster: string;
  readonly json: boolean;
}

export function addSnapshotCommands(program: Command): void {
  const snapshot = program
    .command("snapshot")
    .summary("back a cluster up, and restore it")
    .description("Saves everything that a cluster holds into one file, and makes a new store out of such a file.")
    .addHelpText(
      "after",
      `
Examples:
  conclave snapshot save backup.snap
  conclave snapshot restore backup.snap --data ./restored
  conclave serve --data ./restored
Further members join the restored one with --join. Its revisions, and with them
tokens, go on above those of the lost store.`,
    );
  addStoreFlags(
    snapshot
      .command("save")
      .argument("<file>", "where to write it; replaced only once the new one is whole")
      .summary("write everything into a file")
      .description("Writes everything that is committed into a file, and reads it back to check it."),
    { namespace: false },
  ).action(async (file: string, flags: StoreFlags) => {
    if (!/^conclave:/i.test(flags.store))
      throw conclaveError(
        "INVALID_OPTION",
        `"${flags.store}" is a directory: copy it while nobody uses it. This is for conclave:// stores.`,
      );
    const client = await connectCluster(connectOptions(flags));
    try {
      const saved = await saveBackup(client, file, { timeoutMs: flags.timeout });
      if (flags.json) printJson(saved);
      else printLine(`Saved ${saved.keys} keys at revision ${saved.revision} (${saved.bytes} bytes) to ${saved.file}.`);
    } finally {
      await client.close();
    }
  });
  addOutputFlags(
    snapshot
      .command("restore")
      .argument("<file>", "a file of `snapshot save`")
      .option("--data <dir>", "the data directory to make; it must be empty", defaultData)
      .option("--member <name>", "the name of the one member of the new store", serveDefaults.member)
      .option("--cluster <name>", "the name of its cluster", serveDefaults.cluster)
      .summary("make a new store out of a file")
      .description("Makes the data directory of a new store with one member out of a backup; `conclave serve` starts it."),
  ).action(async (file: string, { data, member, cluster, json }: RestoreFlags) => {
    const restored = await restoreBackup({ file, directory: data, member, cluster });
    if (json) printJson({ ...restored, data, member, cluster });
    else printLine(`Restored ${restored.keys} keys into ${data}. Start it: conclave serve --data ${data}`);
  });
}
