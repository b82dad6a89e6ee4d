/**
 * `conclave watch`: what changes, as it changes, until Ctrl-C.
 */
import type { Command } from "commander";
import { conclaveError } from "../base/errors.ts";
import type { Conclave, KeyValue } from "../index.ts";
import type { KeyRange, Revision, WatchBatch, WatchEvent } from "../store/store.ts";
import { type Interrupt, listenForInterrupt } from "./interrupt.ts";
import { entryJson, oneLine, printJson, printLine, remark, style } from "./print.ts";
import { addStoreFlags, type StoreFlags, withConclave } from "./store-flags.ts";

interface WatchFlags extends StoreFlags {
  readonly key?: string;
  readonly from?: Revision;
}

export function addWatchCommand(program: Command): void {
  const command = program
    .command("watch")
    .summary("print changes as they happen")
    .description("Prints every change of the keys that begin with PREFIX (all of them without it), until Ctrl-C.")
    .argument("[prefix]", "what the keys begin with")
    .option("--key <key>", "only this key")
    .option("--from <revision>", "begin at this revision, where it is still kept; else with the present state", parseRevision);
  addStoreFlags(command, { namespace: true })
    .addHelpText(
      "after",
      `
Examples:
  conclave watch jobs/
  conclave watch --key greeting --json | jq -r .value

A line is the revision, put or delete, the key and the value. Where changes are
no longer kept, a line "resync" comes with the present state instead, one line
for each key. Leader changes and reconnects lose nothing. Ctrl-C: exit code 130.`,
    )
    .action(async (prefix: string | undefined, flags: WatchFlags) => {
      if (prefix !== undefined && flags.key !== undefined)
        throw conclaveError("INVALID_OPTION", "Watch a prefix or one --key, not both.");
      const range: KeyRange = flags.key === undefined ? { prefix: prefix ?? "" } : { key: flags.key };
      const interrupt = listenForInterrupt();
      const work = (conclave: Conclave): Promise<void> => watch(conclave.store(flags.namespace), range, flags, interrupt);
      await withConclave(flags, work, interrupt.signal);
    });
}

async function watch(store: KeyValue, range: KeyRange, flags: WatchFlags, { signal }: Interrupt): Promise<void> {
  // A read first: it says whether anybody is there, and from which revision on nothing is to be missed.
  const { revision } = await store.range(range, { limit: 1, keysOnly: true, timeoutMs: flags.timeout, signal });
  if (process.stderr.isTTY && !flags.json) remark("Watching; Ctrl-C ends it.");
  for await (const batch of store.watch(range, { from: flags.from ?? revision + 1, signal })) {
    if (flags.json) printBatchJson(batch);
    else printBatch(batch);
  }
  signal.throwIfAborted();
}

function printBatchJson(batch: WatchBatch): void {
  if (batch.kind === "resync") {
    printJson({ kind: "resync", revision: batch.revision, entries: batch.entries.map((entry) => entryJson(entry)) });
    return;
  }
  for (const event of batch.events) {
    const { kind, revision, key } = event;
    printJson(kind === "put" ? { kind, revision, ...entryJson(event.entry) } : { kind, revision, key });
  }
}

function printBatch(batch: WatchBatch): void {
  if (batch.kind === "changes") {
    for (const event of batch.events) printEvent(event);
    return;
  }
  printLine(`${batch.revision} ${style("yellow", "resync")} ${batch.entries.length} keys`);
  for (const entry of batch.entries)
    printLine(`${entry.modRevision} ${style("green", "put")} ${oneLine(entry.key)}\t${oneLine(entry.text)}`);
}

function printEvent(event: WatchEvent): void {
  if (event.kind === "put")
    printLine(`${event.revision} ${style("green", "put")} ${oneLine(event.key)}\t${oneLine(event.entry.text)}`);
  else printLine(`${event.revision} ${style("red", "delete")} ${oneLine(event.key)}`);
}

function parseRevision(text: string): Revision {
  const revision = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(revision) || revision === 0) {
    throw conclaveError("INVALID_OPTION", `--from: "${text}" is no revision, a whole number from 1 to 2^53 - 1.`);
  }
  return revision;
}
