/**
 * The name of a tick, as a scheduler tells it to the job that it fires.
 *
 * The time at which a job really starts differs from process to process; the scheduled time does not. Croner and cron do not
 * tell the scheduled time, but when the next one is: that names this tick as well, and goes on naming it however late a job
 * starts, up to a whole period. Bull and BullMQ write the scheduled time into the job.
 * Schedulers are recognised by shape; none of them is a dependency.
 */
import { conclaveError } from "../base/errors.ts";

/** @throws INVALID_OPTION where nothing in it tells a tick from another */
export function tickOf(source: unknown): string | number {
  if (typeof source === "object" && source !== null) {
    const { nextRun, nextDate, opts, timestamp, delay } = source as Record<string, unknown>;
    if (typeof nextRun === "function") return nameOfNext(nextRun.call(source));
    if (typeof nextDate === "function") return nameOfNext(nextDate.call(source));
    const previous = (opts as { readonly prevMillis?: unknown } | undefined)?.prevMillis;
    if (isMs(previous)) return previous;
    if (isMs(timestamp)) return timestamp + (isMs(delay) ? delay : 0);
  }
  throw conclaveError(
    "INVALID_OPTION",
    "The scheduler told the job nothing by which ticks differ: it needs `nextRun()` (croner), `nextDate()` (cron), `opts.prevMillis` or `timestamp` (bull). Use `take(tick)` with the scheduled time.",
  );
}

/** Null: this run is the last. */
function nameOfNext(next: unknown): string {
  if (next === null || next === undefined) return "last";
  const ms = Number((next as Date).valueOf());
  if (!isMs(ms)) throw conclaveError("INVALID_OPTION", "The scheduler's next run is no point in time.");
  return `before-${ms}`;
}

function isMs(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}
