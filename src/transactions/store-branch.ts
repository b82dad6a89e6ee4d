/**
 * The store as a participant: it costs nothing, because its writes ride in the transaction that writes the decision.
 *
 * Reads are noted with their revisions, writes are kept back; at the decision the store compares the ones and does the others,
 * or refuses all of it: then the whole transaction aborts with `conflict`, and may be run again.
 * One store per manager: the one that holds the decisions. Needs `caps.crossNamespace`.
 */
import { conclaveError } from "../base/errors.ts";
import type { Entry } from "../store/entry.ts";
import type { Compare, Key, KeyRange, Op, Store, Value } from "../store/store.ts";

export interface StoreResourceOptions {
  /** Where the keys live. Default "default": that of `conclave.store()`. */
  readonly namespace?: string;
}

/** Part of the manager's store, for `transactions({ resources })`. @since 0.2.0 */
export function storeResource({ namespace = "default" }: StoreResourceOptions = {}): StoreResource {
  return { kind: "store", namespace } as StoreResource;
}

export interface StoreResource {
  readonly kind: "store";
  readonly namespace: string;
  /** Never set: carries the type of the handle. */
  readonly handle: StoreHandle;
}

/** What user code works with. */
export interface StoreHandle {
  /** Reads; the transaction commits only if the key has not changed until then. */
  get(key: Key): Promise<Entry | null>;
  /** Not visible to `get` before the commit. */
  put(key: Key, value: Value): void;
  delete(range: KeyRange): void;
  add(key: Key, delta: number): void;
  /** A condition of your own, without its namespace. */
  require(compare: Compare): void;
}

export class StoreBranch implements StoreHandle {
  readonly compares: Compare[] = [];
  readonly writes: Op[] = [];
  readonly #store: Store;
  readonly #namespace: string;
  #isOver = false;

  constructor(store: Store, namespace: string) {
    this.#store = store;
    this.#namespace = namespace;
  }

  async get(key: Key): Promise<Entry | null> {
    this.#checkOpen();
    const { results } = await this.#store.txn({ then: [{ kind: "get", key, namespace: this.#namespace }] });
    const [found] = results;
    const entry = found?.kind === "get" ? found.entry : null;
    this.require({ key, target: "modRevision", is: "equal", to: entry?.modRevision ?? 0 });
    return entry;
  }

  put(key: Key, value: Value): void {
    this.#checkOpen();
    this.writes.push({ kind: "put", key, value, namespace: this.#namespace });
  }

  delete(range: KeyRange): void {
    this.#checkOpen();
    this.writes.push({ kind: "delete", range, namespace: this.#namespace });
  }

  add(key: Key, delta: number): void {
    this.#checkOpen();
    this.writes.push({ kind: "add", key, delta, namespace: this.#namespace });
  }

  require(compare: Compare): void {
    this.#checkOpen();
    this.compares.push({ ...compare, namespace: this.#namespace });
  }

  /** The decision is being written. */
  close(): void {
    this.#isOver = true;
  }

  #checkOpen(): void {
    if (this.#isOver) throw conclaveError("CLOSED", "This transaction takes no more operations.");
  }
}
