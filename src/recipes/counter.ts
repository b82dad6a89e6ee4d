/**
 * Counters: a plain one, one spread over cells for many writers, and blocks of numbers for identifiers.
 *
 * - plain: one key; every add is in the one order of its store, and answers with the sum.
 * - spread: an add goes to a cell of the caller's choice, so that writers on engines with a lock per key do not meet; the
 *   sum is a read of all cells in one transaction, so it is exact at its revision.
 * - blocks: a process takes `blockSize` numbers at once and hands them out by itself. Numbers never repeat; those of a
 *   process that dies are skipped. Source: the hi/lo algorithm.
 *
 * An add whose answer was lost may have happened (`definite: false`). Where the engine has claims (`caps.claims`) the
 * client sends it again without counting twice; elsewhere the caller decides.
 */
import { assert } from "../base/assert.ts";
import { conclaveError } from "../base/errors.ts";
import type { CallOptions, OpResult, Store } from "../store/store.ts";
import { checkCount, checkName, type StoreSource } from "./options.ts";

export interface CounterOptions {
  /** Over how many cells the counter is spread, 1-1_024. Default 1: plain. All handles of a name should say the same. */
  readonly cells?: number;
}

const cellsMax = 1_024;

/** Makes the handle of a counter; nothing is sent. @throws INVALID_OPTION @since 0.2.0 */
export function createCounter(engine: StoreSource, name: string, { cells = 1 }: CounterOptions = {}): Counter {
  checkName(name, "counter");
  checkCount(cells, "cells");
  if (cells > cellsMax) throw conclaveError("INVALID_OPTION", `\`cells\` is ${cells}; at most ${cellsMax}.`);
  return new Counter(engine.store(`counter/${name}`), name, cells);
}

/** @since 0.2.0 */
export class Counter {
  readonly name: string;
  readonly cells: number;
  readonly #store: Store;

  /** Use `createCounter`, which checks the options. */
  constructor(store: Store, name: string, cells: number) {
    this.#store = store;
    this.name = name;
    this.cells = cells;
  }

  /**
   * Adds a whole number. One round trip.
   * @throws NOT_A_NUMBER (beyond 2^53), TIMEOUT, NO_QUORUM (may have happened)
   */
  async add(delta: number, options?: CallOptions): Promise<void> {
    await this.#add(delta, options);
  }

  /** Adds, and answers with the sum at that very revision: with one cell unique among all answers. One round trip. */
  async addAndGet(delta: number, options?: CallOptions): Promise<number> {
    const results = await this.#add(delta, options);
    return sumOf(results[1]);
  }

  /** The sum, 0 where nobody has added. One round trip. */
  async get(options?: CallOptions): Promise<number> {
    const { results } = await this.#store.txn({ then: [{ kind: "range", range: { prefix: "" } }] }, options);
    return sumOf(results[0]);
  }

  async #add(delta: number, options: CallOptions | undefined): Promise<readonly OpResult[]> {
    if (!Number.isSafeInteger(delta)) throw conclaveError("NOT_A_NUMBER", `\`delta\` is ${delta}; it must be whole.`);
    const cell = this.cells === 1 ? 0 : this.#store.platform.randomUint32() % this.cells;
    const { results } = await this.#store.txn(
      {
        then: [
          { kind: "add", key: `cell/${cell}`, delta },
          { kind: "range", range: { prefix: "" } },
        ],
      },
      options,
    );
    return results;
  }
}

function sumOf(result: OpResult | undefined): number {
  assert(result?.kind === "range", "a range is answered with entries");
  const sum = result.entries.reduce((total, entry) => total + Number(entry.text), 0);
  if (!Number.isSafeInteger(sum)) throw conclaveError("NOT_A_NUMBER", "The sum of the cells is beyond 2^53.");
  return sum;
}

export interface SequenceOptions {
  /** How many numbers a process takes at once. Default 1_000. Larger: fewer round trips, larger gaps after a crash. */
  readonly blockSize?: number;
}

/** @since 0.2.0 */
export const sequenceDefaults = { blockSize: 1_000 } as const;

/** Makes the handle of a sequence of identifiers; nothing is sent. @throws INVALID_OPTION @since 0.2.0 */
export function createSequence(engine: StoreSource, name: string, options: SequenceOptions = {}): Sequence {
  checkName(name, "sequence");
  const blockSize = options.blockSize ?? sequenceDefaults.blockSize;
  checkCount(blockSize, "blockSize");
  return new Sequence(createCounter(engine, `sequence/${name}`), name, blockSize);
}

/** Numbers that are given out once: 1, 2, 3 ... within one process, in blocks among several. @since 0.2.0 */
export class Sequence {
  readonly name: string;
  readonly blockSize: number;
  readonly #counter: Counter;
  #next = 1;
  #last = 0;
  /** All who wait for the next block wait for one reservation. */
  #reserving: Promise<void> | undefined;

  /** Use `createSequence`, which checks the options. */
  constructor(counter: Counter, name: string, blockSize: number) {
    this.#counter = counter;
    this.name = name;
    this.blockSize = blockSize;
  }

  /** The next number. One round trip for each block; none in between. A reservation without an answer wastes a block. */
  async next(options?: CallOptions): Promise<number> {
    while (this.#next > this.#last) {
      this.#reserving ??= this.#reserve(options).finally(() => {
        this.#reserving = undefined;
      });
      await this.#reserving;
    }
    return this.#next++;
  }

  async #reserve(options: CallOptions | undefined): Promise<void> {
    const last = await this.#counter.addAndGet(this.blockSize, options);
    this.#last = last;
    this.#next = last - this.blockSize + 1;
  }
}
