/**
 * Many keys, one load: waits until every key of the batch has either been found, come to wait for another process, or
 * come here to be loaded; then loads all who are here at once.
 */
import { background } from "../base/background.ts";
import { conclaveError } from "../base/errors.ts";

/** What a load of many answers with: by key, or in the order of the keys. A key that is left out is `undefined`. */
export type ManyValues<V> = ReadonlyMap<string, V> | readonly (V | undefined)[];

interface Here<V> {
  readonly key: string;
  readonly resolve: (value: V | undefined) => void;
  readonly reject: (error: unknown) => void;
}

export class BatchLoad<V> {
  readonly #load: (keys: readonly string[]) => Promise<ManyValues<V>>;
  /** Keys of which nothing is known yet. */
  readonly #open: Set<string>;
  #here: Here<V>[] = [];
  #isDue = false;

  constructor(keys: Iterable<string>, load: (keys: readonly string[]) => Promise<ManyValues<V>>) {
    this.#open = new Set(keys);
    this.#load = load;
  }

  /** The key is to be loaded. */
  arrive(key: string): Promise<V | undefined> {
    return new Promise((resolve, reject) => {
      this.#here.push({ key, resolve, reject });
      this.settle(key);
    });
  }

  /** The key needs no load, or none yet. */
  settle(key: string): void {
    this.#open.delete(key);
    if (this.#open.size > 0 || this.#here.length === 0 || this.#isDue) return;
    this.#isDue = true;
    // At the end of the turn's promises: those that arrive together are loaded together.
    background(
      Promise.resolve().then(() => this.#go()),
      "load a batch",
    );
  }

  #go(): void {
    this.#isDue = false;
    const here = this.#here;
    this.#here = [];
    const keys = here.map(({ key }) => key);
    const answers = Promise.resolve().then(() => this.#load(keys));
    answers.then(
      (values) => {
        try {
          const found = valuesOf(keys, values);
          for (const [at, { resolve }] of here.entries()) resolve(found[at]);
        } catch (error) {
          for (const { reject } of here) reject(error);
        }
      },
      (error: unknown) => {
        for (const { reject } of here) reject(error);
      },
    );
  }
}

function valuesOf<V>(keys: readonly string[], values: ManyValues<V>): readonly (V | undefined)[] {
  if (values instanceof Map) return keys.map((key) => values.get(key));
  if (Array.isArray(values) && values.length === keys.length) return values;
  throw conclaveError("INVALID_OPTION", `A load of many must answer with a Map, or an array of ${keys.length} values.`);
}
