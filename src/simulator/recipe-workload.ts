/**
 * Clients that use the recipes beside locks: read/write lock, semaphore, election, counter, sequence, queue, latch and
 * double barrier, each judged by a model of its own (`recipe-oracles.ts`).
 *
 * All of them are at one recipe at a time, for some seconds, because a recipe is interesting where its users meet.
 */
import { conclaveError } from "../base/errors.ts";
import type { Client } from "../client/client.ts";
import { createDoubleBarrier } from "../recipes/barrier.ts";
import { createCounter, createSequence, type Sequence } from "../recipes/counter.ts";
import { createElection } from "../recipes/election.ts";
import { createLatch } from "../recipes/latch.ts";
import { createQueue } from "../recipes/queue.ts";
import { createReadWriteLock } from "../recipes/rw-lock.ts";
import { createSemaphore } from "../recipes/semaphore.ts";
import type { Coverage } from "./coverage.ts";
import { InvariantViolation } from "./invariant-violation.ts";
import type { Random } from "./random.ts";
import {
  CounterOracle,
  electionRule,
  GatheringOracle,
  GrantOracle,
  QueueOracle,
  readWriteRule,
  SequenceOracle,
  semaphoreRule,
} from "./recipe-oracles.ts";
import type { SimulatedProcess } from "./simulated-process.ts";
import { isDefinite, sleep } from "./workload.ts";

const kinds = ["rw-lock", "semaphore", "election", "counter", "sequence", "queue", "latch", "double-barrier"] as const;
type Kind = (typeof kinds)[number];

/** Clients that share this work. */
export const recipeClientCount = 3;
const permits = 2;
const ttlMs = 2_000;
const epochMs = 4_000;
/** More than the queue of a run ever sees: what is given up again and again is not put aside here. */
const triesMax = 1_000_000;

/** What all clients of a world report to. */
export class RecipeOracles {
  readonly coverage: Coverage;
  /** With which recipe the first epoch begins. */
  readonly first: number;
  readonly readWrite = new GrantOracle(readWriteRule);
  readonly semaphore = new GrantOracle(semaphoreRule(permits));
  readonly election = new GrantOracle(electionRule);
  readonly counter = new CounterOracle();
  readonly sequence = new SequenceOracle();
  readonly queue = new QueueOracle();
  readonly #gatherings = new Map<string, GatheringOracle>();

  constructor(coverage: Coverage, first: number) {
    this.coverage = coverage;
    this.first = first;
  }

  gathering(kind: "latch" | "double-barrier", name: string): GatheringOracle {
    let oracle = this.#gatherings.get(name);
    if (oracle === undefined) {
      oracle = new GatheringOracle(kind === "latch" ? "LatchHolds" : "BarrierHolds", recipeClientCount);
      this.#gatherings.set(name, oracle);
    }
    return oracle;
  }
}

export interface RecipeParts {
  readonly client: Client;
  readonly process: SimulatedProcess;
  readonly random: Random;
  readonly oracles: RecipeOracles;
  readonly nowMs: () => number;
  readonly isStopped: () => boolean;
}

/** Runs until the world says stop. */
export async function runRecipes(parts: RecipeParts): Promise<void> {
  const { client, process, random, oracles } = parts;
  const sequence = createSequence(client, "numbers", { blockSize: 3 });
  let gathered = -1;
  for (let count = 0; !parts.isStopped(); count++) {
    const epoch = Math.floor(parts.nowMs() / epochMs);
    const kind = kinds[(epoch + oracles.first) % kinds.length] as Kind;
    const isGathering = kind === "latch" || kind === "double-barrier";
    try {
      if (!isGathering) await act(parts, kind, { sequence, id: `${process.name}.${count}` });
      else if (gathered !== epoch) {
        gathered = epoch;
        await gather(parts, kind, `epoch-${epoch}`);
      }
    } catch (error) {
      if (error instanceof InvariantViolation) throw error;
      // Lost, busy, unreachable: the next round tries again.
    }
    await sleep(process, random.between(0, isGathering ? 500 : 60));
  }
}

async function act(
  parts: RecipeParts,
  kind: Exclude<Kind, "latch" | "double-barrier">,
  own: { readonly sequence: Sequence; readonly id: string },
): Promise<void> {
  const { client, process, random, oracles } = parts;
  switch (kind) {
    case "rw-lock": {
      const lock = createReadWriteLock(client, "pool", { ttlMs });
      const weight = random.chance(0.4) ? 1 : 0;
      const hold = await (weight === 1 ? lock.write : lock.read).acquire({ waitMs: random.between(200, 4_000) });
      oracles.readWrite.onGrant({ client: process.name, hold, weight });
      await workFor(parts);
      await hold.release();
      break;
    }
    case "semaphore": {
      const weight = random.integer(1, permits);
      const semaphore = createSemaphore(client, "lift", { permits, ttlMs });
      const hold = await semaphore.acquire({ permits: weight, waitMs: random.between(200, 4_000) });
      oracles.semaphore.onGrant({ client: process.name, hold, weight });
      await workFor(parts);
      await hold.release();
      break;
    }
    case "election": {
      const election = createElection(client, "captain", { ttlMs });
      await within(parts, random.between(200, 4_000), (signal) =>
        election.lead(
          async (term) => {
            oracles.election.onGrant({ client: process.name, hold: term, weight: 1 });
            await workFor(parts);
          },
          { signal, rerun: false },
        ),
      );
      break;
    }
    case "counter":
      await count(oracles.counter, () => createCounter(client, "visits").addAndGet(1, { timeoutMs: 3_000 }));
      break;
    case "sequence":
      oracles.sequence.onNumber(await own.sequence.next({ timeoutMs: 3_000 }), process.name);
      break;
    case "queue":
      await work(parts, own.id);
      break;
  }
}

/** One more; answers with the sum. */
export async function count(oracle: CounterOracle, add: () => Promise<number>): Promise<void> {
  const floor = oracle.onSend();
  let sum: number;
  try {
    sum = await add();
  } catch (error) {
    if (isDefinite(error)) oracle.onRefused();
    throw error;
  }
  oracle.onAnswer(sum, floor);
}

async function work(parts: RecipeParts, id: string): Promise<void> {
  const { client, process, random, oracles } = parts;
  const queue = createQueue(client, "jobs", { ttlMs, triesMax, visibilityMs: 3_000 });
  if (random.chance(0.45)) {
    oracles.queue.onPush(id);
    await within(parts, 3_000, (signal) => queue.push({ id }, { id, signal }));
    oracles.queue.onPushed(id);
    return;
  }
  const delivery = await queue.take({ waitMs: random.between(100, 2_000) });
  oracles.queue.onTaken(delivery.id, { client: process.name, hold: delivery, weight: 1 });
  await workFor(parts);
  if (random.chance(0.2)) {
    await delivery.giveBack();
    oracles.coverage.hit("an item of a queue is given back");
    return;
  }
  // Without an answer it may be gone all the same.
  if (delivery.held) oracles.queue.onFinish(delivery.id);
  await delivery.finish({ timeoutMs: 3_000 });
  oracles.queue.onFinished(delivery.id, delivery.token);
}

/** Once for each epoch, under a name of its own. */
async function gather(parts: RecipeParts, kind: "latch" | "double-barrier", name: string): Promise<void> {
  const { client, process, random, oracles } = parts;
  const oracle = oracles.gathering(kind, name);
  await sleep(process, random.between(0, 1_000));
  if (kind === "latch") {
    const latch = createLatch(client, name, { count: recipeClientCount });
    oracle.onCome(process.name);
    if ((await latch.countDown(process.name, { timeoutMs: 3_000 })) > 0) await latch.wait({ waitMs: 4_000 });
    oracle.onThrough(process.name, () => true);
    oracles.coverage.hit("a latch opens");
    return;
  }
  const barrier = createDoubleBarrier(client, name, { parties: recipeClientCount, ttlMs });
  oracle.onCome(process.name);
  const member = await barrier.enter({ waitMs: 4_000 });
  oracle.onThrough(process.name, () => member.alive);
  oracles.coverage.hit("a double barrier lets its members in");
  await workFor(parts);
  oracle.onLeave(process.name);
  await member.leave({ waitMs: 4_000 });
  oracle.onLeft(process.name);
}

/** After the faults: the counter counts exactly, and the queue holds what was put and not finished. */
export async function judgeRecipes(client: Client, oracles: RecipeOracles): Promise<void> {
  oracles.counter.onEnd(await createCounter(client, "visits").get());
  const { results } = await client
    .store("queue/jobs")
    .txn({ then: [{ kind: "range", range: { prefix: "item/" }, keysOnly: true }] });
  const entries = results[0]?.kind === "range" ? results[0].entries : [];
  oracles.queue.onEnd(entries.map(({ key }) => key.slice("item/".length)));
}

/** Mostly short; now and then long enough for a leader to be replaced, or a lease to run out, meanwhile. */
export async function workFor({ process, random }: Pick<RecipeParts, "process" | "random">): Promise<void> {
  await sleep(process, random.chance(0.1) ? random.between(500, 4_000) : random.between(0, 60));
}

export async function within<T>(
  { process }: Pick<RecipeParts, "process">,
  timeoutMs: number,
  call: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  const timer = process.platform.setTimer(timeoutMs, () =>
    controller.abort(conclaveError("TIMEOUT", `The simulated client gives up after ${timeoutMs} ms.`)),
  );
  try {
    return await call(controller.signal);
  } finally {
    timer.cancel();
  }
}
