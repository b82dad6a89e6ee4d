/**
 * Workload (a): increments a number in an ordinary file under a lock, by read, think and write.
 *
 *     read the file ... a few milliseconds in which anybody could come in ... assertHeld() | write
 *                                                                                          ^ nothing can protect this gap
 * The file refuses nobody, so all that keeps it right is the lock, and the holder's look at its own clock.
 */
import { type Hold, LostError } from "../index.ts";
import { type Interval, monotonicMs } from "./clock.ts";
import { NumberFile } from "./number-file.ts";
import { sleep, type Worker, workUnderLock } from "./worker.ts";

const incrementsMax = 3;
const thoughtMsMax = 6;

export async function incrementNumbers(worker: Worker, path: string): Promise<void> {
  const file = new NumberFile(path);
  let writes = 0;
  await workUnderLock(worker, "file", async (hold) => {
    for (let left = worker.dice.integer(1, incrementsMax); left > 0; left--) {
      if (!(await increment(worker, { file, hold, write: `${worker.name}/${++writes}` }))) return;
    }
  });
  file.close();
}

/** Whether the lock was held to the end. */
async function increment(
  worker: Worker,
  { file, hold, write }: { readonly file: NumberFile; readonly hold: Hold; readonly write: string },
): Promise<boolean> {
  const { clockOffsetMs, dice, journal, selfStop, tally } = worker;
  const readAtMs = monotonicMs();
  const saw = file.read();
  await sleep(dice.between(0, thoughtMsMax));
  const next = { write, token: hold.token, value: saw.value + 1 };
  journal.write({ kind: "file.begin", write, token: hold.token, saw, readAtMs });
  selfStop.stopAt("before-look");
  const stopNow = selfStop.prepare("after-look");
  let stop: Interval | undefined;
  const assertedAtWallMs = Date.now();
  const assertedAtMs = monotonicMs();
  try {
    hold.assertHeld();
    stop = stopNow?.();
    file.write(next);
  } catch (error) {
    if (!(error instanceof LostError)) throw error;
    journal.write({ kind: "file.end", write, outcome: "not-held" });
    return false;
  } finally {
    if (stopNow !== undefined) selfStop.done();
  }
  const writtenAtMs = monotonicMs();
  const times = {
    assertedAtMs,
    assertedAtWallMs,
    deadlineMs: hold.deadline + clockOffsetMs,
    writtenAtMs,
    writtenAtWallMs: Date.now(),
  };
  journal.write({ kind: "file.end", write, outcome: "written", ...times, ...(stop === undefined ? {} : { stop }) });
  tally.operations++;
  return true;
}
