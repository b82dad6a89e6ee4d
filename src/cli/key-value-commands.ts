/**
 * `conclave get`, `put`, `del` and `range`: keys and values, one round trip each.
 */
import { buffer } from "node:stream/consumers";
import type { Command } from "commander";
import { conclaveError, hasCode } from "../base/errors.ts";
import type { KeyValue } from "../index.ts";
import type { Entry } from "../store/entry.ts";
import type { KeyRange, Revision } from "../store/store.ts";
import { exitCodes } from "./exit-codes.ts";
import { Exit } from "./fail.ts";
import { entryJson, oneLine, printJson, printLine, remark, style } from "./print.ts";
import { addStoreFlags, type StoreFlags, withConclave } from "./store-flags.ts";

export function addKeyValueCommands(program: Command): void {
  addGet(program);
  addPut(program);
  addDelete(program);
  addRange(program);
}

function addGet(program: Command): void {
  const command = program
    .command("get")
    .summary("print the value of a key")
    .description("Prints the value of a key. Linearizable: it sees every write that was answered before.")
    .argument("<key>")
    .option("--raw", "the bytes of the value and nothing else: no newline after it", false);
  addStoreFlags(command, { namespace: true })
    .addHelpText(
      "after",
      `
Examples:
  conclave get greeting
  conclave get greeting --json | jq .modRevision
  conclave get photo --raw > photo.jpg

Exit code 1 and no output where there is no such key.`,
    )
    .action(async (key: string, flags: StoreFlags & { readonly raw: boolean }) => {
      const entry = await withStore(flags, (store) => store.get(key, { timeoutMs: flags.timeout }));
      if (entry === null) {
        if (flags.json) printJson(null);
        else remark(`There is no key ${JSON.stringify(key)}.`);
        throw new Exit(exitCodes.no);
      }
      if (flags.json) {
        printJson(entryJson(entry));
        return;
      }
      process.stdout.write(entry.value);
      if (!flags.raw) process.stdout.write("\n");
    });
}

function addPut(program: Command): void {
  const command = program
    .command("put")
    .summary("write the value of a key")
    .description("Writes the value of a key; once it is answered, a majority has it on disk.")
    .argument("<key>")
    .argument("<value>", "the value, or - to read it from standard input");
  addStoreFlags(command, { namespace: true })
    .addHelpText(
      "after",
      `
Examples:
  conclave put greeting hello
  conclave put photo - < photo.jpg
  conclave put -- --odd-key -odd-value`,
    )
    .action(async (key: string, text: string, flags: StoreFlags) => {
      const value = text === "-" ? await buffer(process.stdin) : text;
      const revision = await withStore(flags, (store) => store.put(key, value, { timeoutMs: flags.timeout }));
      if (flags.json) printJson({ key, revision });
      else printLine(`ok, revision ${revision}`);
    });
}

function addDelete(program: Command): void {
  const command = program
    .command("del")
    .summary("delete a key, or all keys that begin alike")
    .description("Deletes a key and prints how many there were: 1 or 0.")
    .argument("<key>")
    .option("--prefix", "all keys that begin with KEY, in one transaction", false);
  addStoreFlags(command, { namespace: true })
    .addHelpText(
      "after",
      `
Examples:
  conclave del greeting
  conclave del jobs/ --prefix`,
    )
    .action(async (key: string, flags: StoreFlags & { readonly prefix: boolean }) => {
      if (key === "" && flags.prefix) {
        throw conclaveError("KEY_INVALID", "An empty prefix would delete the whole namespace; name what the keys begin with.");
      }
      const range: KeyRange = flags.prefix ? { prefix: key } : { key };
      const count = await withStore(flags, (store) => store.deleteRange(range, { timeoutMs: flags.timeout }));
      if (flags.json) printJson({ deleted: count });
      else printLine(`${count} deleted`);
    });
}

function addRange(program: Command): void {
  const command = program
    .command("range")
    .summary("list keys and values in order")
    .description("Lists the keys that begin with PREFIX (all of them without it), in the order of their bytes, at one revision.")
    .argument("[prefix]", "what the keys begin with", "")
    .option("--limit <count>", "at most this many", parseCount)
    .option("--keys-only", "without the values", false);
  addStoreFlags(command, { namespace: true })
    .addHelpText(
      "after",
      `
Examples:
  conclave range
  conclave range jobs/ --limit 10
  conclave range --keys-only --json | jq -r .key

A line is the key, a tab and the value; control characters come as \\u0000.
With --json, one object per line. All of it is the state at one revision.`,
    )
    .action((prefix: string, flags: StoreFlags & RangeFlags) => withStore(flags, (store) => printRange(store, prefix, flags)));
}

interface RangeFlags {
  readonly limit?: number;
  readonly keysOnly: boolean;
}

/** Entries asked for at a time; fewer where they are large. */
const pageCount = 512;

async function printRange(store: KeyValue, prefix: string, flags: StoreFlags & RangeFlags): Promise<void> {
  const { keysOnly } = flags;
  let left = flags.limit ?? Number.POSITIVE_INFINITY;
  let limit = pageCount;
  let atRevision: Revision | undefined;
  let from: Uint8Array | undefined;
  while (left > 0) {
    const page = await readPage({ limit: Math.min(limit, left) }).catch((error: unknown) => {
      if (!hasCode(error, "TXN_TOO_LARGE") || limit === 1) throw error;
      limit = Math.ceil(limit / 4);
      return undefined;
    });
    if (page === undefined) continue;
    const entries = page.entries.filter((entry) => startsWith(entry, prefix));
    for (const entry of entries) {
      if (flags.json) printJson(entryJson(entry, { keysOnly }));
      else printLine(keysOnly ? oneLine(entry.key) : `${style("bold", oneLine(entry.key))}\t${oneLine(entry.text)}`);
    }
    const last = entries.at(-1);
    if (!page.more || last === undefined || entries.length < page.entries.length) return;
    left -= entries.length;
    // The pages are of one state: the one that the first page was read from.
    atRevision ??= page.revision;
    from = Uint8Array.from([...last.keyBytes, 0]);
  }

  function readPage(options: { readonly limit: number }): ReturnType<KeyValue["range"]> {
    const range: KeyRange = from === undefined ? { prefix } : { from };
    const at = atRevision === undefined ? {} : { atRevision };
    return store.range(range, { ...options, ...at, keysOnly, timeoutMs: flags.timeout });
  }
}

/** A later page begins behind a key and has no end: it runs over the prefix's. */
function startsWith(entry: Entry, prefix: string): boolean {
  return Buffer.from(entry.keyBytes).subarray(0, Buffer.byteLength(prefix)).equals(Buffer.from(prefix));
}

function withStore<T>(flags: StoreFlags, work: (store: KeyValue) => Promise<T>): Promise<T> {
  return withConclave(flags, (conclave) => work(conclave.store(flags.namespace)));
}

function parseCount(text: string): number {
  if (!/^\d{1,15}$/.test(text) || Number(text) === 0)
    throw conclaveError("INVALID_OPTION", `--limit: "${text}" is no whole number above 0.`);
  return Number(text);
}
