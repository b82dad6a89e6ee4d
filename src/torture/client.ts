/**
 * A client process of the torture run: connects to the cluster and does the three workloads at once until it is told to
 * finish, stopped, or killed.
 *
 * It takes one argument, its configuration as JSON. It ends by itself when the channel to the runner breaks.
 */
import { join } from "node:path";
import { connect } from "../index.ts";
import { offsetOfPerformanceMs } from "./clock.ts";
import { Dice } from "./dice.ts";
import { incrementNumbers } from "./file-work.ts";
import { JournalWriter } from "./journal.ts";
import type { ClientConfiguration, FromClient, ToClient } from "./messages.ts";
import { useRegisters } from "./register-work.ts";
import { SelfStop } from "./self-stop.ts";
import { addToSet } from "./set-work.ts";
import type { Worker } from "./worker.ts";

const progressEveryMs = 500;

await main(JSON.parse(process.argv[2] ?? "null") as ClientConfiguration);

async function main({ name, seed, url, cluster, directory, ttlMs }: ClientConfiguration): Promise<void> {
  const finishing = new AbortController();
  const selfStop = new SelfStop(tell);
  process.on("disconnect", () => process.exit(0));
  process.on("message", (message: ToClient) => {
    if (message.kind === "finish") finishing.abort();
    else selfStop.order(message);
  });
  const dice = new Dice(seed);
  const journal = new JournalWriter(join(directory, `client-${name}.jsonl`));
  const conclave = await connect({ url, cluster });
  const shared = {
    name,
    conclave,
    journal,
    ttlMs,
    clockOffsetMs: offsetOfPerformanceMs(),
    selfStop,
    finishing: finishing.signal,
  };
  const tally = { grants: 0, operations: 0 };
  const worker = (): Worker => ({ ...shared, dice: dice.fork(), tally });
  const progress = setInterval(() => tell({ kind: "progress", ...tally }), progressEveryMs);
  tell({ kind: "ready" });
  await Promise.all([incrementNumbers(worker(), join(directory, "number")), addToSet(worker()), useRegisters(worker())]);
  clearInterval(progress);
  tell({ kind: "progress", ...tally });
  await conclave.close();
  journal.write({ kind: "finished" });
  process.disconnect();
}

function tell(message: FromClient): void {
  process.send?.(message);
}
