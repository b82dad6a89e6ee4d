/**
 * What the three workloads of a client share: the connection, the journal, the dice, the word that it is time to finish,
 * and how an error of the library becomes a line of the journal.
 */
import type { Conclave, Hold } from "../index.ts";
import { ConclaveError } from "../index.ts";
import { monotonicMs } from "./clock.ts";
import type { Dice } from "./dice.ts";
import type { JournalWriter, LockName } from "./journal.ts";
import type { SelfStop } from "./self-stop.ts";

export interface Worker {
  /** "3.1": the second incarnation of slot 3. */
  readonly name: string;
  readonly conclave: Conclave;
  readonly dice: Dice;
  readonly journal: JournalWriter;
  readonly ttlMs: number;
  /** Add it to a `hold.deadline`. */
  readonly clockOffsetMs: number;
  readonly selfStop: SelfStop;
  /** Aborts when the run is over: what is open is finished, nothing new begins. */
  readonly finishing: AbortSignal;
  readonly tally: { grants: number; operations: number };
}

/** How long a contender waits in the queue: longer than a few stopped holders in a row. */
const waitMs = 20_000;
const pauseMsMax = 40;

/** Takes the lock again and again, and works under it. */
export async function workUnderLock(worker: Worker, name: LockName, work: (hold: Hold) => Promise<void>): Promise<void> {
  const { conclave, dice, finishing, journal, tally, ttlMs } = worker;
  const lock = conclave.lock(name, { ttlMs, meta: worker.name });
  while (!finishing.aborted) {
    let hold: Hold;
    try {
      hold = await lock.acquire({ waitMs, signal: finishing });
    } catch (error) {
      if (!finishing.aborted) journal.write({ kind: "not-granted", lock: name, code: expectedError(error).code });
      continue;
    }
    journal.write({ kind: "grant", lock: name, token: hold.token, atMs: monotonicMs() });
    tally.grants++;
    noteHeld(worker, name, hold);
    await work(hold);
    await hold.release();
    await sleep(dice.between(0, pauseMsMax));
  }
}

/** Writes down that the hold says it is held: the clock first, the question second, so the moment is never too late. */
export function noteHeld({ journal }: Worker, lock: LockName, hold: Hold): void {
  const atMs = monotonicMs();
  if (hold.held) journal.write({ kind: "held", lock, token: hold.token, atMs });
}

/**
 * The error, when it is one that a client must live with: no answer in time, a refusal, a loss.
 * @throws anything else: a defect, which ends this process and fails the run
 */
export function expectedError(error: unknown): ConclaveError {
  if (error instanceof ConclaveError && error.code !== "INVARIANT" && error.code !== "INVALID_OPTION") return error;
  throw error;
}

export function sleep(delayMs: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, delayMs));
}
