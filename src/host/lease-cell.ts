/**
 * One lease in memory that two threads share: two times of the monotonic clock that all threads of a process have in
 * common (`process.hrtime`), told to each by its own `performance.now()`, whose zero is the start of its thread.
 */
import type { SharedLease } from "../client/stall-keeper.ts";

/** Places of the times, in nanoseconds. */
const confirmed = 0;
const beaten = 1;

/** From this thread's clock to the common one; both are one clock of the system's, so it never changes. */
const offsetNs = measureOffset();

export class LeaseCell implements SharedLease {
  readonly maxStallMs: number;
  /** What the other thread is given. */
  readonly memory: SharedArrayBuffer;
  readonly #times: BigInt64Array;

  constructor(maxStallMs: number, memory = new SharedArrayBuffer(2 * BigInt64Array.BYTES_PER_ELEMENT)) {
    this.maxStallMs = maxStallMs;
    this.memory = memory;
    this.#times = new BigInt64Array(memory);
  }

  get confirmedMs(): number {
    return this.#read(confirmed);
  }

  confirm(sentMs: number): void {
    const sentNs = toNs(sentMs) + offsetNs;
    for (let seenNs = Atomics.load(this.#times, confirmed); seenNs < sentNs; ) {
      const foundNs = Atomics.compareExchange(this.#times, confirmed, seenNs, sentNs);
      if (foundNs === seenNs) return;
      seenNs = foundNs;
    }
  }

  get beatMs(): number {
    return this.#read(beaten);
  }

  beat(nowMs: number): void {
    Atomics.store(this.#times, beaten, toNs(nowMs) + offsetNs);
  }

  #read(place: number): number {
    return Number(Atomics.load(this.#times, place) - offsetNs) / 1e6;
  }
}

/** The best of some looks: a thread may lose its processor between two lines. */
function measureOffset(): bigint {
  let best = { spreadMs: Number.POSITIVE_INFINITY, offsetNs: 0n };
  for (let looks = 0; looks < 10; looks++) {
    const beforeMs = performance.now();
    const commonNs = process.hrtime.bigint();
    const spreadMs = performance.now() - beforeMs;
    if (spreadMs < best.spreadMs) best = { spreadMs, offsetNs: commonNs - toNs(beforeMs + spreadMs / 2) };
  }
  return best.offsetNs;
}

function toNs(ms: number): bigint {
  return BigInt(Math.round(ms * 1e6));
}
