/**
 * Workload (c): reads, writes and compares-and-sets registers, each write with a value of its own.
 *
 * A register lives for a few seconds and is then left for a new one: the histories stay short, so that the checker can
 * decide them all, and every register's last value is read at the end of the run.
 */
import { op, when } from "../index.ts";
import { monotonicMs } from "./clock.ts";
import { expectedError, sleep, type Worker } from "./worker.ts";

const registerCount = 4;
const registerLifeMs = 4_000;
const pauseMsMax = 25;
/** Short: in an outage it is the unknown outcomes that make a history interesting. */
const timeoutMs = 1_500;

/** Before the name of a register. */
export const registerPrefix = "register/";

/** What an operation came to when it did not fail. `value`: what the register is known to hold now. */
interface Answer {
  readonly isMismatch: boolean;
  readonly value: string | null;
}

export async function useRegisters(worker: Worker): Promise<void> {
  const { dice, finishing } = worker;
  /** The last value known of the present registers. */
  const known = new Map<string, string | null>();
  let writes = 0;
  let generation = 0;
  while (!finishing.aborted) {
    const now = Math.floor(monotonicMs() / registerLifeMs);
    if (now !== generation) known.clear();
    generation = now;
    const key = `${generation}/${dice.integer(1, registerCount)}`;
    const throwOfDice = dice.float();
    if (throwOfDice < 0.4) await read(worker, known, key);
    else if (throwOfDice < 0.7) await write(worker, known, { key, value: `${worker.name}/${++writes}` });
    else await compareAndSet(worker, known, { key, value: `${worker.name}/${++writes}` });
    await sleep(dice.between(0, pauseMsMax));
  }
}

async function read(worker: Worker, known: Map<string, string | null>, key: string): Promise<void> {
  const { conclave, journal } = worker;
  journal.write({ kind: "register.begin", f: "read", key, value: null, atMs: monotonicMs() });
  const value = await settle(worker, async () => {
    const entry = await conclave.store().get(registerPrefix + key, { timeoutMs });
    return { isMismatch: false, value: entry?.text ?? null };
  });
  if (value !== undefined) known.set(key, value);
}

async function write(
  worker: Worker,
  known: Map<string, string | null>,
  { key, value }: { readonly key: string; readonly value: string },
): Promise<void> {
  const { conclave, journal } = worker;
  journal.write({ kind: "register.begin", f: "write", key, value, atMs: monotonicMs() });
  const after = await settle(worker, async () => {
    await conclave.store().put(registerPrefix + key, value, { timeoutMs });
    return { isMismatch: false, value };
  });
  if (after !== undefined) known.set(key, after);
}

async function compareAndSet(
  worker: Worker,
  known: Map<string, string | null>,
  { key, value }: { readonly key: string; readonly value: string },
): Promise<void> {
  const { conclave, journal } = worker;
  const from = known.get(key) ?? null;
  const name = registerPrefix + key;
  journal.write({ kind: "register.begin", f: "cas", key, value: [from, value], atMs: monotonicMs() });
  const after = await settle(worker, async () => {
    const { succeeded, results } = await conclave.store().txn(
      {
        if: [from === null ? when.absent(name) : when.value(name).equals(from)],
        then: [op.put(name, value)],
        else: [op.get(name)],
      },
      { timeoutMs },
    );
    if (succeeded) return { isMismatch: false, value };
    const [found] = results;
    return { isMismatch: true, value: found?.kind === "get" ? (found.entry?.text ?? null) : null };
  });
  if (after !== undefined) known.set(key, after);
}

/** Runs the operation that was begun, and writes its end. Answers with the value that the register now has, if known. */
async function settle({ journal, tally }: Worker, operate: () => Promise<Answer>): Promise<string | null | undefined> {
  tally.operations++;
  try {
    const { isMismatch, value } = await operate();
    const atMs = monotonicMs();
    if (isMismatch) journal.write({ kind: "register.end", type: "fail", error: "mismatch", atMs });
    else journal.write({ kind: "register.end", type: "ok", value, atMs });
    return value;
  } catch (error) {
    const { code, definite } = expectedError(error);
    journal.write({ kind: "register.end", type: definite ? "fail" : "info", error: code, atMs: monotonicMs() });
    return undefined;
  }
}
