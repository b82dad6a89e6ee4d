/**
 * `conclave barrier`, `counter` and `queue`: small acts on recipes, one command each.
 */
import { type Command, Option } from "commander";
import { conclaveError } from "../base/errors.ts";
import { parseDuration } from "./duration.ts";
import { Exit } from "./fail.ts";
import { listenForInterrupt } from "./interrupt.ts";
import { oneLine, printJson, printLine } from "./print.ts";
import { parseCount } from "./shared-hold-commands.ts";
import { addStoreFlags, type StoreFlags, withConclave } from "./store-flags.ts";

interface WaitFlags extends StoreFlags {
  readonly wait?: number;
}

export function addValueCommands(program: Command): void {
  addBarrierCommand(program);
  addCounterCommand(program);
  addQueueCommand(program);
}

function waitOption(command: Command): Command {
  return command.addOption(
    new Option("-w, --wait <duration>", "wait at most this long (default: without end)").argParser(parseDuration),
  );
}

function addBarrierCommand(program: Command): void {
  const command = program
    .command("barrier")
    .summary("wait until so many have come")
    .description("Waits until as many processes wait at the barrier as it has parties; then all of them exit 0.")
    .argument("<name>")
    .argument("<parties>", "how many must come", parseCount);
  addStoreFlags(waitOption(command), { namespace: false })
    .addHelpText("after", "\nExample: each of three hosts runs\n  conclave barrier migration-v7 3 --wait 5m && ./migrate.sh")
    .action(async (name: string, parties: number, flags: WaitFlags) => {
      const { signal } = listenForInterrupt();
      await withConclave(
        flags,
        async (conclave) => {
          await conclave.counter(name).get({ timeoutMs: flags.timeout, signal });
          const barrier = conclave.doubleBarrier(name, { parties });
          const member = await barrier.enter({ waitMs: flags.wait ?? Number.POSITIVE_INFINITY, signal });
          // The others must have seen that all had come before this one goes.
          await member.leave({ waitMs: 5_000, signal }).catch(() => undefined);
        },
        signal,
      );
    });
}

function addCounterCommand(program: Command): void {
  const counter = program.command("counter").summary("read and raise counters").description("Reads and raises counters.");
  const get = counter.command("get").description("Prints the counter; 0 where nobody has raised it.").argument("<name>");
  addStoreFlags(get, { namespace: false }).action((name: string, flags: StoreFlags) =>
    withConclave(flags, async (conclave) => {
      const value = await conclave.counter(name).get({ timeoutMs: flags.timeout });
      if (flags.json) printJson({ counter: name, value });
      else printLine(String(value));
    }),
  );
  const add = counter
    .command("add")
    .description("Adds a whole number, and prints the sum. Exit code 69: it may have happened.")
    .argument("<name>")
    .argument("[delta]", "how much; for a negative one write -- before the name", parseDelta, 1);
  addStoreFlags(add, { namespace: false }).action((name: string, delta: number, flags: StoreFlags) =>
    withConclave(flags, async (conclave) => {
      const value = await conclave.counter(name).addAndGet(delta, { timeoutMs: flags.timeout });
      if (flags.json) printJson({ counter: name, value });
      else printLine(String(value));
    }),
  );
}

function parseDelta(text: string): number {
  const delta = Number(text);
  if (!/^[+-]?\d+$/.test(text) || !Number.isSafeInteger(delta)) {
    throw conclaveError("INVALID_OPTION", `"${text}" is no whole number within 2^53.`);
  }
  return delta;
}

function addQueueCommand(program: Command): void {
  const queue = program.command("queue").summary("put into and take from queues").description("Puts into and takes from queues.");
  const push = queue
    .command("push")
    .description("Puts an item at the end, and prints its id.")
    .argument("<name>")
    .argument("<text>");
  addStoreFlags(push, { namespace: false }).action((name: string, text: string, flags: StoreFlags) =>
    withConclave(flags, async (conclave) => {
      const id = await conclave.queue(name).push(text, { timeoutMs: flags.timeout });
      if (flags.json) printJson({ queue: name, id });
      else printLine(id);
    }),
  );
  const take = queue
    .command("take")
    .description("Takes the first item, prints it, and finishes it. Exit code 1: there was none.")
    .argument("<name>")
    .option("-n, --try", "do not wait", false);
  addStoreFlags(waitOption(take), { namespace: false }).action(
    async (name: string, flags: WaitFlags & { readonly try: boolean }) => {
      const { signal } = listenForInterrupt();
      await withConclave(
        flags,
        async (conclave) => {
          const line = conclave.queue(name);
          const first = await line.tryTake({ timeoutMs: flags.timeout, signal });
          const delivery =
            first ?? (flags.try ? null : await line.take({ waitMs: flags.wait ?? Number.POSITIVE_INFINITY, signal }));
          if (delivery === null) throw new Exit(1);
          const { id, payload, tries } = delivery;
          if (flags.json) printJson({ queue: name, id, payload, tries });
          else printLine(typeof payload === "string" ? payload : oneLine(JSON.stringify(payload)));
          await delivery.finish({ timeoutMs: flags.timeout });
        },
        signal,
      );
    },
  );
  const size = queue.command("size").description("Prints how many items it has, taken ones included.").argument("<name>");
  addStoreFlags(size, { namespace: false }).action((name: string, flags: StoreFlags) =>
    withConclave(flags, async (conclave) => {
      const count = await conclave.queue(name).size({ timeoutMs: flags.timeout });
      if (flags.json) printJson({ queue: name, size: count });
      else printLine(String(count));
    }),
  );
  const dead = queue
    .command("dead")
    .description("Prints the items that were put aside after too many deliveries.")
    .argument("<name>");
  addStoreFlags(dead, { namespace: false }).action((name: string, flags: StoreFlags) =>
    withConclave(flags, async (conclave) => {
      for (const item of await conclave.queue(name).dead({ timeoutMs: flags.timeout })) {
        if (flags.json) printJson(item);
        else printLine(`${item.id}\t${oneLine(JSON.stringify(item.payload))}`);
      }
    }),
  );
}
