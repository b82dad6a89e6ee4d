/**
 * A client process of the torture run: connects to the cluster and does the three workloads at once until it is told to
 * finish, stopped, or killed.
 *
 * It takes one argument, its configuration as JSON. It ends by itself when the channel to the runner breaks.
 */
import { join } from "node:path";
import { connect, connectPbft } from "../index.ts";
import { useCells } from "./cell-work.ts";
import { offsetOfPerformanceMs } from "./clock.ts";
import { Dice } from "./dice.ts";
import { incrementNumbers } from "./file-work.ts";
import { JournalWriter } from "./journal.ts";
import type { ClientConfiguration, FromClient, ToClient } from "./messages.ts";
import type { PbftAccess } from "./pbft-files.ts";
import { useRegisters } from "./register-work.ts";
import { SelfStop } from "./self-stop.ts";
import { addToSet } from "./set-work.ts";
import type { Worker } from "./worker.ts";

const progressEveryMs = 500;

await main(JSON.parse(process.argv[2] ?? "null") as ClientConfiguration);

async function main({ name, seed, url, cluster, directory, pbft, ttlMs }: ClientConfiguration): Promise<void> {
  const finishing = new AbortController();
  const selfStop = new SelfStop(tell);
  process.on("disconnect", () => process.exit(0));
  process.on("message", (message: ToClient) => {
    if (message.kind === "finish") finishing.abort();
    else selfStop.order(message);
  });
  const dice = new Dice(seed);
  const journal = new JournalWriter(join(directory, `client-${name}.jsonl`));
  const tally = { grants: 0, operations: 0 };
  const progress = setInterval(() => tell({ kind: "progress", ...tally }), progressEveryMs);
  const close = pbft === undefined ? await useConclave() : await useByzantine(pbft);
  clearInterval(progress);
  tell({ kind: "progress", ...tally });
  await close();
  journal.write({ kind: "finished" });
  process.disconnect();

  async function useByzantine(access: PbftAccess): Promise<() => Promise<void>> {
    const connection = connectPbft(access);
    tell({ kind: "ready" });
    await useCells({ name, journal, finishing: finishing.signal, dice: dice.fork(), tally }, connection);
    return () => connection.close();
  }

  async function useConclave(): Promise<() => Promise<void>> {
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
    const worker = (): Worker => ({ ...shared, dice: dice.fork(), tally });
    tell({ kind: "ready" });
    await Promise.all([incrementNumbers(worker(), join(directory, "number")), addToSet(worker()), useRegisters(worker())]);
    return () => conclave.close();
  }
}

function tell(message: FromClient): void {
  process.send?.(message);
}
