/**
 * Workload (b): adds elements to a set in the store, guarded by a hold.
 *
 * It never asks its clock: a holder that slept sends its addition all the same, and the store refuses it, because the
 * guard no longer holds. So the order in which elements were added is the order of the tokens, whatever the processes do.
 */
import { type Hold, op } from "../index.ts";
import type { SetEnd } from "./journal.ts";
import { expectedError, sleep, type Worker, workUnderLock } from "./worker.ts";

const additionsMax = 3;
const thoughtMsMax = 6;
const timeoutMs = 3_000;

/** Before the name of an element. */
export const setPrefix = "set/";

export async function addToSet(worker: Worker): Promise<void> {
  let elements = 0;
  await workUnderLock(worker, "set", async (hold) => {
    for (let left = worker.dice.integer(1, additionsMax); left > 0; left--) {
      if (!(await add(worker, hold, `${worker.name}/${++elements}`))) return;
    }
  });
}

/** Whether to go on under this hold. */
async function add(worker: Worker, hold: Hold, element: string): Promise<boolean> {
  const { dice, journal, selfStop, tally } = worker;
  journal.write({ kind: "set.begin", element, token: hold.token });
  await sleep(dice.between(0, thoughtMsMax));
  selfStop.stopAt("before-addition");
  const end = await tryToAdd(worker, hold, element);
  journal.write({ kind: "set.end", element, ...end });
  tally.operations++;
  return end.outcome === "added";
}

async function tryToAdd({ conclave }: Worker, hold: Hold, element: string): Promise<Omit<SetEnd, "kind" | "element">> {
  try {
    const { succeeded } = await conclave
      .store()
      .txn({ if: [hold.guard()], then: [op.put(`${setPrefix}${element}`, String(hold.token))] }, { timeoutMs });
    return succeeded ? { outcome: "added" } : { outcome: "refused", stillHeld: hold.held };
  } catch (error) {
    const { code, definite } = expectedError(error);
    return { outcome: definite ? "failed" : "unknown", code };
  }
}
