/**
 * A configuration value that several processes share: read, changed where nobody else has changed it, and followed.
 *
 * The value is JSON. Every version has its revision; a change names the one that it was made from.
 */
import { assert } from "../base/assert.ts";
import { conclaveError } from "../base/errors.ts";
import { linkSignal } from "../base/link-signal.ts";
import type { Entry } from "../store/entry.ts";
import type { CallOptions, Revision, Store } from "../store/store.ts";
import { decodeMetadata, encodeMetadata } from "./metadata.ts";
import { observeRange } from "./observe.ts";
import { checkName, type StoreSource } from "./options.ts";

/** What is there: undefined at revision null where nobody has set it. */
export interface ConfigState<T> {
  readonly value: T | undefined;
  readonly revision: Revision | null;
}

export interface ConfigOptions<T> {
  /**
   * Checks what was read, and what is to be written: answers with the value or throws. Default: trusts both.
   * A schema's `parse` fits. Somebody else's bad value is then an error here, not a surprise later.
   */
  readonly parse?: (value: unknown) => T;
}

const key = "value";
/** How often `update` tries again when others were faster. */
const triesMax = 100;

/** Makes the handle of a shared value; nothing is sent. @throws INVALID_OPTION @since 0.2.0 */
export function createConfig<T>(engine: StoreSource, name: string, options: ConfigOptions<T> = {}): Config<T> {
  checkName(name, "config value");
  return new Config(engine.store(`config/${name}`), name, options);
}

/** @since 0.2.0 */
export class Config<T> {
  readonly name: string;
  readonly #store: Store;
  readonly #options: ConfigOptions<T>;

  /** Use `createConfig`, which checks the name. */
  constructor(store: Store, name: string, options: ConfigOptions<T>) {
    this.#store = store;
    this.name = name;
    this.#options = options;
  }

  /** One round trip. @throws what `parse` throws */
  async get(options?: CallOptions): Promise<ConfigState<T>> {
    const { results } = await this.#store.txn({ then: [{ kind: "get", key }] }, options);
    const [found] = results;
    assert(found?.kind === "get", "a get is answered with an entry or null");
    return this.#stateOf(found.entry);
  }

  /**
   * Sets it. `expected`: only where it still has that revision (null: where nobody has set it). One round trip.
   * Answers with the state, or with null where somebody else was faster.
   */
  async set(
    value: T,
    { expected, ...options }: CallOptions & { readonly expected?: Revision | null } = {},
  ): Promise<ConfigState<T> | null> {
    const checked = this.#parsed(value);
    const encoded = encodeMetadata(checked, "value");
    if (encoded === "") throw conclaveError("INVALID_OPTION", "`value` is undefined; use `clear`.");
    const condition = { key, target: "modRevision", is: "equal", to: expected ?? 0 } as const;
    const { succeeded, revision } = await this.#store.txn(
      { ...(expected === undefined ? {} : { if: [condition] }), then: [{ kind: "put", key, value: encoded }] },
      options,
    );
    return succeeded ? { value: checked, revision } : null;
  }

  /** Nobody has set it any more. */
  async clear(options?: CallOptions): Promise<void> {
    await this.#store.txn({ then: [{ kind: "delete", range: { key } }] }, options);
  }

  /**
   * Reads, calls, and writes what the function answers, again and again until nobody was faster.
   * The function must bear being called more than once. @throws BUSY after 100 tries
   */
  async update(change: (value: T | undefined) => T | Promise<T>, options: CallOptions = {}): Promise<ConfigState<T>> {
    for (let tries = 0; tries < triesMax; tries++) {
      const { value, revision } = await this.get(options);
      const done = await this.set(await change(value), { ...options, expected: revision });
      if (done !== null) return done;
    }
    throw conclaveError("BUSY", `Config value ${JSON.stringify(this.name)}: others were faster ${triesMax} times.`);
  }

  /** The value at once and after every change, until the signal aborts or the loop is left. States may be skipped. */
  async *observe({ signal }: { readonly signal?: AbortSignal } = {}): AsyncGenerator<ConfigState<T>, void, void> {
    const link = linkSignal(signal);
    let told: Revision | null | undefined;
    try {
      for await (const { entries } of observeRange(this.#store, { range: { key }, signal: link.signal })) {
        const state = this.#stateOf(entries[0] ?? null);
        if (told !== undefined && told === state.revision) continue;
        told = state.revision;
        yield state;
      }
    } catch (error) {
      if (!link.signal.aborted) throw error;
    } finally {
      link.abort();
      link.unlink();
    }
  }

  #stateOf(entry: Entry | null): ConfigState<T> {
    if (entry === null) return { value: undefined, revision: null };
    const value = decodeMetadata(entry.value);
    return { value: this.#parsed(value), revision: entry.modRevision };
  }

  #parsed(value: unknown): T {
    const { parse } = this.#options;
    return parse === undefined ? (value as T) : parse(value);
  }
}
