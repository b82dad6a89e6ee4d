/**
 * Once per tick: of all processes whose schedule fires, one does the work.
 *
 * Intuition: a slot in a clock that takes one coin. Every process puts its name into the slot of the tick; the first one is
 * in, the others find it taken. No TTL to guess, no clock to trust: the tick's name decides, and it must be the same
 * everywhere, so it is the scheduled time and never the present one.
 *
 * At most once: a runner that dies after it took the slot leaves the tick undone, which the next tick shows. The last
 * `keep` slots are kept, so a process whose schedule fires late by no more than that many ticks still finds its slot taken.
 */
import { assert } from "../base/assert.ts";
import { conclaveError } from "../base/errors.ts";
import { linkSignal } from "../base/link-signal.ts";
import type { CallOptions, Store } from "../store/store.ts";
import { insist } from "./insist.ts";
import { encodeMetadata } from "./metadata.ts";
import { checkCount, checkName, type StoreSource } from "./options.ts";
import { tickOf } from "./scheduler-tick.ts";

export interface RunOnceOptions {
  /** How many taken slots are kept. Default 100. */
  readonly keep?: number;
  /** What others read of the runner: anything that JSON can carry. Default: nothing. */
  readonly meta?: unknown;
}

/** @since 0.2.0 */
export const runOnceDefaults = { keep: 100 } as const;

export type RunOnceOutcome<T> = { readonly ran: true; readonly answer: T } | { readonly ran: false };

/** Makes the handle of a job; nothing is sent. @throws INVALID_OPTION @since 0.2.0 */
export function createRunOnce(engine: StoreSource, name: string, options: RunOnceOptions = {}): RunOnce {
  checkName(name, "job");
  checkCount(options.keep ?? runOnceDefaults.keep, "keep");
  encodeMetadata(options.meta, "meta");
  return new RunOnce(engine.store(`run-once/${name}`), name, options);
}

const slots = { prefix: "tick/" } as const;

/** @since 0.2.0 */
export class RunOnce {
  readonly name: string;
  readonly #store: Store;
  readonly #options: RunOnceOptions;

  /** Use `createRunOnce`, which checks the options. */
  constructor(store: Store, name: string, options: RunOnceOptions) {
    this.#store = store;
    this.name = name;
    this.#options = options;
  }

  /**
   * Takes the tick's slot; true for one caller only. One round trip, and one more to forget old slots.
   * @param tick The scheduled time, or any text that all processes agree on. A Date counts to the millisecond.
   */
  async take(tick: Date | number | string, options: CallOptions = {}): Promise<boolean> {
    const key = slots.prefix + tickName(tick);
    const { platform } = this.#store;
    // Tells my own slot from another's where an answer was lost.
    const runner = `${platform.randomUint32()}-${platform.randomUint32()}`;
    const value = JSON.stringify({ runner, meta: this.#options.meta });
    const link = linkSignal(options.signal);
    try {
      const { succeeded, results } = await insist(
        () =>
          this.#store.txn(
            {
              if: [{ key, target: "exists", is: "equal", to: false }],
              then: [
                { kind: "put", key, value },
                { kind: "range", range: slots, order: "create", keysOnly: true },
              ],
              else: [{ kind: "get", key }],
            },
            { ...options, signal: link.signal },
          ),
        { platform, signal: link.signal },
      );
      if (!succeeded) {
        const [taken] = results;
        assert(taken?.kind === "get", "a get is answered with an entry or null");
        return taken.entry?.text === value;
      }
      await this.#forget(results[1], link.signal);
      return true;
    } finally {
      link.unlink();
    }
  }

  /** Calls in one process only. The work's own failure is the caller's: the tick stays taken. */
  async run<T>(tick: Date | number | string, work: () => T | Promise<T>, options?: CallOptions): Promise<RunOnceOutcome<T>> {
    return (await this.take(tick, options)) ? { ran: true, answer: await work() } : { ran: false };
  }

  /**
   * Wraps a job for a scheduler (croner, node-cron, @nestjs/schedule, setInterval): call it whenever the schedule fires.
   * @param periodMs The schedule's shortest distance between two ticks. Ticks are named by the wall clock, rounded to it:
   * processes whose wall clocks differ by more than half of it may run a tick twice.
   */
  every<T>(periodMs: number, work: () => T | Promise<T>): () => Promise<RunOnceOutcome<T>> {
    checkCount(periodMs, "periodMs");
    return () => {
      const tick = Math.round(this.#store.platform.wallMs() / periodMs) * periodMs;
      return this.run(tick, work);
    };
  }

  /**
   * Wraps a job for a scheduler that tells which tick it fires: croner (which hands the job in), cron (as `this`), bull and
   * BullMQ (the job of a repeated one). Call it as the scheduler calls jobs.
   *
   *     new Cron("0 3 * * *", conclave.runOnce("backup").scheduled(() => backUp()));
   * @throws INVALID_OPTION, when fired by something else
   */
  scheduled<T>(work: () => T | Promise<T>): (this: unknown, source?: unknown) => Promise<RunOnceOutcome<T>> {
    const run = (source: unknown): Promise<RunOnceOutcome<T>> => this.run(tickOf(source), work);
    return async function fired(this: unknown, source?: unknown) {
      return run(typeof source === "object" && source !== null ? source : this);
    };
  }

  /**
   * The coordinator that node-cron (4.4 and later) asks "should this instance run this fire?", for all of its tasks with
   * `distributed: true`: `setRunCoordinator(conclave.runOnce("cron").coordinator())`. Its keys name task and fire time.
   * `keep` must be at least the number of fires, of all tasks, that one process may be late by.
   */
  coordinator(): { shouldRun(key: string): Promise<boolean>; onComplete(): void } {
    return {
      shouldRun: (key) => this.take(key),
      // A slot that was used stays taken: at most once.
      onComplete: () => undefined,
    };
  }

  async #forget(result: unknown, signal: AbortSignal): Promise<void> {
    const listed = result as { readonly kind: string; readonly entries: readonly { readonly key: string }[] };
    assert(listed.kind === "range", "a range is answered with entries");
    const keep = this.#options.keep ?? runOnceDefaults.keep;
    const old = listed.entries.slice(0, Math.min(Math.max(0, listed.entries.length - keep), 64));
    if (old.length === 0) return;
    try {
      await this.#store.txn({ then: old.map(({ key }) => ({ kind: "delete", range: { key } })) }, { signal });
    } catch (error) {
      if (signal.aborted) throw error;
      // The next tick forgets them.
    }
  }
}

function tickName(tick: Date | number | string): string {
  if (typeof tick === "string" && tick !== "") return `t${tick}`;
  const ms = tick instanceof Date ? tick.getTime() : tick;
  if (typeof ms === "number" && Number.isSafeInteger(ms)) return `m${ms}`;
  throw conclaveError("INVALID_OPTION", "`tick` must be a Date, whole milliseconds, or a text that is not empty.");
}
