/**
 * `conclave locks`: which locks are in use, who holds and who waits, as they describe themselves; and an operator's word to the holder.
 */
import type { Command } from "commander";
import { conclaveError } from "../base/errors.ts";
import type { Conclave } from "../index.ts";
import type { Contender } from "../recipes/campaign.ts";
import { holdersIn, type ReadWriteContender } from "../recipes/rw-lock.ts";
import { Exit } from "./fail.ts";
import { listenForInterrupt } from "./interrupt.ts";
import { oneLine, printJson, printLine, remark, table } from "./print.ts";
import { parseCount } from "./shared-hold-commands.ts";
import { addStoreFlags, type StoreFlags, withConclave } from "./store-flags.ts";

interface ListFlags extends StoreFlags {
  readonly limit: number;
}

/** Contenders of one lock that are counted. */
const queueMax = 100;

interface OperatorFlags extends StoreFlags {
  readonly reason: string;
}

export function addLocksCommand(program: Command): void {
  const locks = program
    .command("locks")
    .summary("look at locks, ask holders to yield, break locks")
    .description("Looks at locks, asks their holders to yield, takes locks from them.");
  addList(locks);
  addShow(locks);
  addWatch(locks);
  addRevoke(locks);
  addBreak(locks);
}

function addList(locks: Command): void {
  const command = locks
    .command("ls")
    .summary("list the locks that somebody holds or waits for")
    .description(
      "Lists locks and read/write locks that somebody holds or waits for, by name: who holds, how many wait.\n" +
        "Read one after another while they change: it is no picture of one moment.",
    )
    .argument("[prefix]", "only names that begin so", "")
    .option("--limit <count>", "how many at most", parseCount, 100);
  addStoreFlags(command, { namespace: false })
    .addHelpText("after", "\nExample: conclave locks ls invoice/ --json | jq -r 'select(.waiters > 0).lock'")
    .action((prefix: string, flags: ListFlags) => withConclave(flags, (conclave) => list(conclave, prefix, flags)));
}

async function list(conclave: Conclave, prefix: string, { json, limit, timeout: timeoutMs }: ListFlags): Promise<void> {
  const rows: string[][] = [];
  let isCut = false;
  for await (const { kind, name, holders, waiters } of inUse(conclave, prefix, timeoutMs)) {
    if (rows.length === limit) {
      isCut = true;
      break;
    }
    const [first] = holders;
    const [session, since, says] = columnsOf(first);
    rows.push([name, kind, `${session}${holders.length > 1 ? ` +${holders.length - 1}` : ""}`, since, waiters, says]);
    if (json) printJson({ lock: name, kind, holders, waiters: Number.parseInt(waiters, 10) });
  }
  if (!json && rows.length === 0) printLine("No lock is in use.");
  else if (!json) printLine(table([["LOCK", "KIND", "HOLDER", "SINCE REVISION", "WAITERS", "SAYS"], ...rows.map(shown)]));
  if (isCut) remark(`There are more than ${limit}; --limit shows more.`);
}

interface InUse {
  readonly kind: "lock" | "rwlock";
  readonly name: string;
  readonly holders: readonly [Contender, ...Contender[]];
  readonly waiters: string;
}

async function* inUse(conclave: Conclave, prefix: string, timeoutMs: number): AsyncGenerator<InUse, void, void> {
  const options = { limit: queueMax + 1, timeoutMs };
  for (const kind of ["lock", "rwlock"] as const) {
    for await (const name of conclave.lockNames({ kind, prefix, timeoutMs })) {
      const lock = kind === "lock" ? conclave.lock(name) : conclave.readWriteLock(name);
      const queue = await lock.queue(options);
      const holdersCount = kind === "lock" ? 1 : holdersIn(queue as readonly ReadWriteContender[]);
      const [first, ...others] = queue.slice(0, holdersCount);
      // It was let go of since its name was read.
      if (first === undefined) continue;
      const waiting = queue.length - holdersCount;
      const waiters = queue.length > queueMax ? `${waiting - 1}+` : `${waiting}`;
      yield { kind, name, holders: [first, ...others], waiters };
    }
  }
}

/** A name may hold anything. */
function shown([name = "", ...rest]: readonly string[]): readonly string[] {
  return [oneLine(name), ...rest];
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
