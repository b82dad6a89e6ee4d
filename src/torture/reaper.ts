/**
 * The last one out: a process that outlives the runner just long enough to kill what the runner started.
 *
 * A stopped process cannot watch for its parent's death, so somebody else must. The runner tells over a pipe whom it has
 * started (`+pid`) and who has ended (`-pid`); when the pipe breaks without a goodbye, the rest is killed and the run's
 * directory removed. It runs in a session of its own, so that neither Ctrl-C nor the end of a terminal reaches it.
 */
import { rmSync } from "node:fs";
import { createInterface } from "node:readline";

const [directory] = process.argv.slice(2);
const pids = new Set<number>();
let isGoodbye = false;

const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => {
  if (line.startsWith("+")) pids.add(Number(line.slice(1)));
  else if (line.startsWith("-")) pids.delete(Number(line.slice(1)));
  else isGoodbye = line === "goodbye";
});
lines.on("close", () => {
  for (const pid of pids) kill(pid);
  if (!isGoodbye && directory !== undefined) rmSync(directory, { recursive: true, force: true, maxRetries: 5 });
});

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It was gone already.
  }
}
