/**
 * A count-down latch: opens once a number of different things were reported done, and stays open.
 *
 * Each report is a key by its name, so a report sent twice counts once, on every engine. Reports outlive the process that
 * made them. Source: Java's CountDownLatch, with named reports instead of a count that a retry would spoil.
 */
import { assert } from "../base/assert.ts";
import { conclaveError } from "../base/errors.ts";
import type { CallOptions, Store } from "../store/store.ts";
import { insist } from "./insist.ts";
import { untilRange } from "./observe.ts";
import { checkCount, checkName, type StoreSource } from "./options.ts";
import { type WaitOptions, withinWait } from "./wait.ts";

export interface LatchOptions {
  /** How many different reports open it. At least 1. */
  readonly count: number;
}

const reports = { prefix: "done/" } as const;

/** Makes the handle of a latch; nothing is sent. @throws INVALID_OPTION @since 0.2.0 */
export function createLatch(engine: StoreSource, name: string, { count }: LatchOptions): Latch {
  checkName(name, "latch");
  checkCount(count, "count");
  return new Latch(engine.store(`latch/${name}`), { name, count });
}

/** @since 0.2.0 */
export class Latch {
  readonly name: string;
  /** How many different reports open it. */
  readonly count: number;
  readonly #store: Store;

  /** Use `createLatch`, which checks the options. */
  constructor(store: Store, { name, count }: { readonly name: string; readonly count: number }) {
    this.#store = store;
    this.name = name;
    this.count = count;
  }

  /** Reports that something is done; answers with how many reports are missing. Idempotent by its name. One round trip. */
  async countDown(what: string, options: CallOptions = {}): Promise<number> {
    if (what === "") throw conclaveError("INVALID_OPTION", "A report needs a name of what is done.");
    const { platform } = this.#store;
    const { signal = new AbortController().signal } = options;
    const { results } = await insist(
      () =>
        this.#store.txn(
          {
            then: [
              { kind: "put", key: reports.prefix + what, value: "" },
              { kind: "range", range: reports, limit: 1, keysOnly: true },
            ],
          },
          options,
        ),
      { platform, signal },
    );
    return this.#missing(results[1]);
  }

  /** How many reports are missing. One round trip. */
  async missing(options?: CallOptions): Promise<number> {
    const { results } = await this.#store.txn({ then: [{ kind: "range", range: reports, limit: 1, keysOnly: true }] }, options);
    return this.#missing(results[0]);
  }

  /** Resolves once it is open. @throws WAIT_TIMEOUT, or the signal's reason */
  async wait(options: WaitOptions = {}): Promise<void> {
    await withinWait(this.#store.platform, options, `Latch ${JSON.stringify(this.name)}`, (signal) =>
      untilRange(this.#store, { range: reports, limit: 1, keysOnly: true, signal }, ({ count }) => count >= this.count),
    );
  }

  /** Forgets all reports: the latch is closed again. Whoever was let through stays through. */
  async reset(options?: CallOptions): Promise<void> {
    await this.#store.txn({ then: [{ kind: "delete", range: reports }] }, options);
  }

  #missing(result: unknown): number {
    const listed = result as { readonly kind: string; readonly count: number };
    assert(listed.kind === "range", "a range is answered with entries");
    return Math.max(0, this.count - listed.count);
  }
}
