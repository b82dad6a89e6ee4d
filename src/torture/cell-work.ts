/**
 * The registers on a store that only compares and sets (PBFT): reads, and writes of whoever knows what is there.
 *
 * The store compares revisions, the history values: each value is written once, so both say the same. The judge is that of
 * the registers.
 */
import type { CasStore, PbftConnection } from "../index.ts";
import { monotonicMs } from "./clock.ts";
import { expectedError, sleep, type Worker } from "./worker.ts";

const registerCount = 4;
const registerLifeMs = 4_000;
const pauseMsMax = 25;
const timeoutMs = 2_500;

/** Where the registers lie; the prober has a namespace of its own. */
export const cellNamespace = "registers";
export const probeNamespace = "probes";

type Known = Map<string, { readonly revision: number | null; readonly value: string | null }>;
type CellWorker = Omit<Worker, "conclave" | "ttlMs" | "clockOffsetMs" | "selfStop">;

export async function useCells(worker: CellWorker, connection: PbftConnection): Promise<void> {
  const { dice, finishing } = worker;
  const cells = connection.cas(cellNamespace);
  const known: Known = new Map();
  let writes = 0;
  let generation = 0;
  while (!finishing.aborted) {
    const now = Math.floor(monotonicMs() / registerLifeMs);
    if (now !== generation) known.clear();
    generation = now;
    const key = `${generation}/${dice.integer(1, registerCount)}`;
    if (dice.chance(0.4)) await read(worker, { cells, known, key });
    else await compareAndSet(worker, { cells, known, key, value: `${worker.name}/${++writes}` });
    await sleep(dice.between(0, pauseMsMax));
  }
}

interface Cell {
  readonly cells: CasStore;
  readonly known: Known;
  readonly key: string;
}

async function read({ journal, tally }: CellWorker, { cells, known, key }: Cell): Promise<void> {
  tally.operations++;
  journal.write({ kind: "register.begin", f: "read", key, value: null, atMs: monotonicMs() });
  try {
    const entry = await cells.get(key, { timeoutMs });
    const value = entry === null ? null : textOf(entry.value);
    journal.write({ kind: "register.end", type: "ok", value, atMs: monotonicMs() });
    known.set(key, { revision: entry?.revision ?? null, value });
  } catch (error) {
    const { code, definite } = expectedError(error);
    journal.write({ kind: "register.end", type: definite ? "fail" : "info", error: code, atMs: monotonicMs() });
  }
}

async function compareAndSet(
  { journal, tally }: CellWorker,
  { cells, known, key, value }: Cell & { readonly value: string },
): Promise<void> {
  tally.operations++;
  const from = known.get(key) ?? { revision: null, value: null };
  journal.write({ kind: "register.begin", f: "cas", key, value: [from.value, value], atMs: monotonicMs() });
  try {
    const { applied, current } = await cells.compareAndSet({ key, expected: from.revision, value }, { timeoutMs });
    const atMs = monotonicMs();
    if (applied) journal.write({ kind: "register.end", type: "ok", value, atMs });
    else journal.write({ kind: "register.end", type: "fail", error: "mismatch", atMs });
    known.set(key, { revision: current?.revision ?? null, value: current === null ? null : textOf(current.value) });
  } catch (error) {
    const { code, definite } = expectedError(error);
    journal.write({ kind: "register.end", type: definite ? "fail" : "info", error: code, atMs: monotonicMs() });
  }
}

export function textOf(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}
