/**
 * Virtual time: a heap of callbacks ordered by time, and by the order of scheduling where times are equal.
 * `step` delivers one; nothing else moves the clock.
 *
 * An event knows its place in the heap, so that a timer which is set anew at every step moves instead of leaving dead ones behind.
 */
export interface ScheduledEvent {
  atMs: number;
  order: number;
  run: (() => void) | undefined;
  /** Its place in the heap; -1 once it left. */
  at: number;
}

export class EventQueue {
  #heap: ScheduledEvent[] = [];
  #order = 0;
  #nowMs = 0;
  /** Delivered events. */
  steps = 0;

  get nowMs(): number {
    return this.#nowMs;
  }

  schedule(delayMs: number, run: () => void): ScheduledEvent {
    const event: ScheduledEvent = { atMs: this.#nowMs + Math.max(0, delayMs), order: this.#order++, run, at: this.#heap.length };
    this.#heap.push(event);
    this.#rise(event);
    return event;
  }

  /** What `cancel` and `schedule` together do, with one event. */
  reschedule(event: ScheduledEvent | undefined, delayMs: number, run: () => void): ScheduledEvent {
    if (event === undefined || event.at < 0) return this.schedule(delayMs, run);
    event.atMs = this.#nowMs + Math.max(0, delayMs);
    event.order = this.#order++;
    event.run = run;
    this.#rise(event);
    this.#sink(event);
    return event;
  }

  cancel(event: ScheduledEvent): void {
    event.run = undefined;
  }

  /** Delivers the next event. False when there is none, or none before the limit. */
  step(untilMs = Number.POSITIVE_INFINITY): boolean {
    for (;;) {
      const next = this.#heap[0];
      if (next === undefined || next.atMs > untilMs) return false;
      this.#pop();
      if (next.run === undefined) continue;
      this.#nowMs = next.atMs;
      this.steps++;
      next.run();
      return true;
    }
  }

  #rise(event: ScheduledEvent): void {
    const heap = this.#heap;
    let { at } = event;
    while (at > 0) {
      const above = heap[(at - 1) >> 1] as ScheduledEvent;
      if (!before(event, above)) break;
      heap[at] = above;
      above.at = at;
      at = (at - 1) >> 1;
    }
    heap[at] = event;
    event.at = at;
  }

  #sink(event: ScheduledEvent): void {
    const heap = this.#heap;
    const { length } = heap;
    let { at } = event;
    for (let child = 2 * at + 1; child < length; child = 2 * at + 1) {
      let below = heap[child] as ScheduledEvent;
      if (child + 1 < length && before(heap[child + 1] as ScheduledEvent, below)) below = heap[++child] as ScheduledEvent;
      if (!before(below, event)) break;
      heap[at] = below;
      below.at = at;
      at = child;
    }
    heap[at] = event;
    event.at = at;
  }

  #pop(): void {
    const heap = this.#heap;
    (heap[0] as ScheduledEvent).at = -1;
    const last = heap.pop() as ScheduledEvent;
    if (heap.length === 0) return;
    last.at = 0;
    this.#sink(last);
  }
}

function before(left: ScheduledEvent, right: ScheduledEvent): boolean {
  return left.atMs < right.atMs || (left.atMs === right.atMs && left.order < right.order);
}
