/**
 * What a load is given, and by which it says how its value is to be kept.
 */
import { conclaveError } from "../base/errors.ts";
import { type LinkedSignal, linkSignal } from "../base/link-signal.ts";
import { checkDuration, checkTags } from "./options.ts";

/** What `notModified` answers with, and the cache understands. */
export const notModified: unique symbol = Symbol("conclave.cache.not-modified");

export interface LoadDefaults {
  readonly ttlMs: number | undefined;
  readonly tags: readonly string[];
  readonly etag: string | undefined;
}

/**
 * ```ts
 * await cache.get(id, async (load) => {
 *   const answer = await fetch(url, { signal: load.signal, headers: { "if-none-match": load.etag ?? "" } });
 *   if (answer.status === 304) return load.notModified();
 *   load.ttlMs = 10_000;
 *   load.tags = ["org:7"];
 *   load.etag = answer.headers.get("etag") ?? undefined;
 *   return answer.json();
 * });
 * ```
 * @since 0.1.0
 */
export class LoadContext<V> {
  readonly key: string;
  /** What is still at hand: expired, or about to. */
  readonly previous: V | undefined;
  /** Of the previous value; set it for the new one. */
  etag: string | undefined;
  readonly #life: AbortSignal;
  /** Made when it is asked for: most loads never do, and a signal costs more than all the rest of a load. */
  #linked: LinkedSignal | undefined;
  #end: { readonly reason: unknown } | undefined;
  readonly #hasPrevious: boolean;
  #ttlMs: number | undefined;
  #tags: readonly string[];

  constructor(key: string, life: AbortSignal, previous: { readonly value: V } | undefined, defaults: LoadDefaults) {
    this.key = key;
    this.#life = life;
    this.previous = previous?.value;
    this.#hasPrevious = previous !== undefined;
    this.#ttlMs = defaults.ttlMs;
    this.#tags = defaults.tags;
    this.etag = defaults.etag;
  }

  /** Aborts at the hard timeout, and when the cache is closed. */
  get signal(): AbortSignal {
    if (this.#linked === undefined) {
      this.#linked = linkSignal(this.#life);
      if (this.#end !== undefined) this.#linked.abort(this.#end.reason);
    }
    return this.#linked.signal;
  }

  /** For the cache: the load took too long. */
  abort(reason: unknown): void {
    this.#end = { reason };
    this.#linked?.abort(reason);
  }

  /** For the cache: the load is over. */
  settle(): void {
    this.#linked?.unlink();
  }

  get ttlMs(): number | undefined {
    return this.#ttlMs;
  }

  /** 0: do not keep it. @throws INVALID_OPTION */
  set ttlMs(value: number) {
    checkDuration("ttlMs", value);
    this.#ttlMs = value;
  }

  get tags(): readonly string[] {
    return this.#tags;
  }

  /** @throws INVALID_OPTION */
  set tags(value: readonly string[]) {
    checkTags(value);
    this.#tags = [...value];
  }

  /** Answer with this to keep the previous value for another TTL. @throws INVALID_OPTION when there is none */
  notModified(): V {
    if (!this.#hasPrevious)
      throw conclaveError("INVALID_OPTION", `Key ${JSON.stringify(this.key.slice(0, 100))} has no previous value to keep.`);
    return notModified as V;
  }
}
