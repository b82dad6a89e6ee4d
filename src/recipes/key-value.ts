/**
 * Plain reads and writes on a store: one word, one round trip each.
 *
 * A friendly face and nothing more; what it cannot say, `txn` can, with the words of `when.ts`.
 * A failure with `definite: false` may have happened. Each act here may be repeated where the engine has claims, and
 * each but `add` where it has not.
 */
import { assert } from "../base/assert.ts";
import type { Entry } from "../store/entry.ts";
import type {
  CallOptions,
  Key,
  KeyRange,
  Op,
  OpResult,
  RangeOp,
  Revision,
  SessionId,
  Store,
  Txn,
  TxnResult,
  Value,
  WatchBatch,
  WatchOptions,
} from "../store/store.ts";
import { op, when } from "./when.ts";

export interface PutOptions extends CallOptions {
  /** The key is deleted when this session ends. Default: it stays, and an earlier binding is undone. */
  readonly session?: SessionId;
}

export type RangeOptions = CallOptions & Omit<RangeOp, "kind" | "range" | "namespace">;

export interface RangeAnswer {
  readonly entries: readonly Entry[];
  /** All keys in the range, also beyond the limit. */
  readonly count: number;
  readonly more: boolean;
  /** The state that was read: watch from the one after it, and nothing is missed. */
  readonly revision: Revision;
}

export interface CompareAndSet {
  readonly key: Key;
  /** The modRevision that it must have; null: it must be absent. */
  readonly expected: Revision | null;
  /** null: delete it. */
  readonly value: Value | null;
  /** As for `put`. */
  readonly session?: SessionId;
}

export interface CompareAndSetAnswer {
  readonly applied: boolean;
  /** Of the write when it was applied, else of the state that was read. */
  readonly revision: Revision;
  /** What stood in the way; null when it was absent, and when the change was applied. */
  readonly current: Entry | null;
}

/** @since 0.1.0 */
export class KeyValue {
  readonly store: Store;

  constructor(store: Store) {
    this.store = store;
  }

  async get(key: Key, options?: CallOptions): Promise<Entry | null> {
    return only("get", await this.#one(op.get(key), options)).entry;
  }

  /** The value read as UTF-8; null when the key is absent. */
  async getText(key: Key, options?: CallOptions): Promise<string | null> {
    return (await this.get(key, options))?.text ?? null;
  }

  async range(range: KeyRange, { signal, timeoutMs, consistency, ...options }: RangeOptions = {}): Promise<RangeAnswer> {
    const result = await this.#one(op.range(range, options), present({ signal, timeoutMs, consistency }));
    const { entries, count, more } = only("range", result);
    return { entries, count, more, revision: result.revision };
  }

  /** Answers with the revision of the write: the key's modRevision from now on. */
  async put(key: Key, value: Value, { session, ...options }: PutOptions = {}): Promise<Revision> {
    return (await this.#one(op.put(key, value, present({ session })), options)).revision;
  }

  /** Whether it was there. */
  async delete(key: Key, options?: CallOptions): Promise<boolean> {
    return (await this.deleteRange({ key }, options)) > 0;
  }

  /** How many there were. */
  async deleteRange(range: KeyRange, options?: CallOptions): Promise<number> {
    return only("delete", await this.#one(op.delete(range), options)).count;
  }

  /** Writes only where nobody else has written since. */
  async compareAndSet(change: CompareAndSet, options?: CallOptions): Promise<CompareAndSetAnswer> {
    const { expected, key, session, value } = change;
    const result = await this.store.txn(
      {
        if: [expected === null ? when.absent(key) : when.modRevision(key).equals(expected)],
        then: [value === null ? op.delete({ key }) : op.put(key, value, present({ session }))],
        else: [op.get(key)],
      },
      options,
    );
    const current = result.succeeded ? null : only("get", result).entry;
    return { applied: result.succeeded, revision: result.revision, current };
  }

  /** Adds to a whole number kept in decimal digits, and answers with the sum. @throws NOT_A_NUMBER */
  async add(key: Key, delta: number, options?: CallOptions): Promise<number> {
    return only("add", await this.#one(op.add(key, delta), options)).value;
  }

  /** See `Store.watch`. */
  watch(range: KeyRange, options?: WatchOptions): AsyncIterable<WatchBatch> {
    return this.store.watch(range, options);
  }

  /** See `Store.txn`. */
  txn(txn: Txn, options?: CallOptions): Promise<TxnResult> {
    return this.store.txn(txn, options);
  }

  #one(operation: Op, options: CallOptions | undefined): Promise<TxnResult> {
    return this.store.txn({ then: [operation] }, options);
  }
}

function only<K extends OpResult["kind"]>(kind: K, { results }: TxnResult): Extract<OpResult, { readonly kind: K }> {
  const [result] = results;
  assert(results.length === 1 && result?.kind === kind, "a store answers each operation in kind");
  return result as Extract<OpResult, { readonly kind: K }>;
}

type Present<T> = { [K in keyof T]?: Exclude<T[K], undefined> };

/** Without the fields that are undefined: "left out" and "undefined" are not the same to a store. */
function present<T extends object>(fields: T): Present<T> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Present<T>;
}
