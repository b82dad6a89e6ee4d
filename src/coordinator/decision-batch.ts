/**
 * Decisions that are made at one time leave as one write of the store: group commit.
 *
 * Intuition: a lift. Whoever comes while it is away rides with the next; nobody waits while it stands at the door.
 * All or none: where one of them may not be written, each tries alone and hears its own reason. Where no answer comes, each
 * counts as unanswered: a late copy of the write finds the cell of at least one taken, and then changes nothing.
 * Source: Gray & Reuter, "Transaction processing", 1993, §9.4 (group commit); Mohan et al., TODS 1986.
 */
import type { Compare, Op, Store, Txn, TxnResult } from "../store/store.ts";
import type { Epoch } from "./epoch.ts";

/** `alone`: it stands with others of which one was refused. */
export type BatchAnswer = TxnResult | "alone";

interface Waiting {
  readonly epoch: Epoch;
  readonly txn: Txn;
  resolve(answer: BatchAnswer): void;
  reject(error: unknown): void;
}

/** With four forgotten cells each it stays below what a transaction of the store may hold. */
const togetherMax = 20;

export class DecisionBatch {
  readonly #store: Store;
  readonly #answerMs: number;
  readonly #signal: AbortSignal;
  readonly #waiting: Waiting[] = [];
  #isAway = false;

  constructor(store: Store, { answerMs, signal }: { readonly answerMs: number; readonly signal: AbortSignal }) {
    this.#store = store;
    this.#answerMs = answerMs;
    this.#signal = signal;
  }

  /** Rejects as the store does. */
  write(epoch: Epoch, txn: Txn): Promise<BatchAnswer> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ epoch, txn, resolve, reject });
      if (!this.#isAway) void this.#run();
    });
  }

  async #run(): Promise<void> {
    this.#isAway = true;
    for (let first = this.#waiting[0]; first !== undefined; first = this.#waiting[0]) {
      const { epoch } = first;
      // A new epoch begins a new write: the condition is one for all.
      const end = this.#waiting.findIndex((each) => each.epoch !== epoch);
      const riding = this.#waiting.splice(0, Math.min(end === -1 ? togetherMax : end, togetherMax));
      await this.#send(riding);
    }
    this.#isAway = false;
  }

  async #send(riding: readonly Waiting[]): Promise<void> {
    try {
      const result = await this.#store.txn(together(riding), { timeoutMs: this.#answerMs, signal: this.#signal });
      for (const each of riding) each.resolve(result.succeeded || riding.length === 1 ? result : "alone");
    } catch (error) {
      for (const each of riding) each.reject(error);
    }
  }
}

function together(riding: readonly Waiting[]): Txn {
  const [first] = riding;
  if (riding.length === 1 && first !== undefined) return first.txn;
  // The guard of the epoch is one object for all of them: it is asked once.
  const compares = new Set<Compare>();
  const then: Op[] = [];
  for (const { txn } of riding) {
    for (const compare of txn.if ?? []) compares.add(compare);
    for (const op of txn.then) then.push(op);
  }
  return { if: [...compares], then };
}
