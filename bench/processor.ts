/**
 * Processor time of a server and its children, from Linux' process table: what a transfer costs where it is not ours.
 * In clock ticks of ten milliseconds, so only sums over thousands of transfers mean something.
 */
import { readdirSync, readFileSync } from "node:fs";

/** `USER_HZ`, which Linux fixes at 100 for what it tells processes. */
const tickMs = 10;

/** Milliseconds since it started, with those of its children, also of those that ended; undefined where there is no such table. */
export function familyProcessorMs(pid: number): number | undefined {
  const own = readStat(pid);
  if (own === undefined) return undefined;
  let ticks = own.ticks + own.endedTicks;
  for (const name of readdirSync("/proc")) {
    const child = /^\d+$/.test(name) ? readStat(Number(name)) : undefined;
    if (child?.parent === pid) ticks += child.ticks;
  }
  return ticks * tickMs;
}

interface Stat {
  readonly parent: number;
  readonly ticks: number;
  /** Of children that ended and were waited for. */
  readonly endedTicks: number;
}

function readStat(pid: number): Stat | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The name, in brackets, may hold anything; what follows it are numbers: state, parent, ... user and system time.
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    const at = (index: number): number => Number(fields[index]);
    return { parent: at(1), ticks: at(11) + at(12), endedTicks: at(13) + at(14) };
  } catch {
    return undefined;
  }
}
