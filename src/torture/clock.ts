/**
 * One clock for every process of a run: the machine's monotonic one, so that times of different processes compare.
 *
 * `performance.now()` counts from the start of its own process; `process.hrtime` counts from the start of the machine, in
 * every process alike. A hold's `deadline` is of the first kind and is moved to the second before it is written down.
 */

/** Milliseconds since the machine started, with fractions. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

/** What to add to a `performance.now()` of this process. The closest of several looks: a pause between two reads only adds. */
export function offsetOfPerformanceMs(): number {
  let offsetMs = Number.POSITIVE_INFINITY;
  for (let look = 0; look < 20; look++) {
    const beforeMs = performance.now();
    offsetMs = Math.min(offsetMs, monotonicMs() - beforeMs);
  }
  return offsetMs;
}

/** From one moment to another, of the machine's monotonic clock. */
export interface Interval {
  readonly fromMs: number;
  readonly toMs: number;
}

/** How much of `span` the intervals cover; they must not overlap one another. */
export function coveredMs(span: Interval, intervals: readonly Interval[]): number {
  let sumMs = 0;
  for (const { fromMs, toMs } of intervals) sumMs += Math.max(0, Math.min(toMs, span.toMs) - Math.max(fromMs, span.fromMs));
  return sumMs;
}
