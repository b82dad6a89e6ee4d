/**
 * The first tier as the core sees it, and the plainest one there is: a Map that forgets what was touched longest ago.
 */
export interface L1Store<V> {
  /** Counts as a use. */
  get(key: string): V | undefined;
  peek(key: string): V | undefined;
  set(key: string, value: V, weight?: number): void;
  delete(key: string): boolean;
  clear(): void;
  readonly size: number;
}

export class MapL1<V> implements L1Store<V> {
  readonly #map = new Map<string, V>();
  readonly #entriesMax: number;

  constructor(entriesMax: number) {
    this.#entriesMax = entriesMax;
  }

  get size(): number {
    return this.#map.size;
  }

  get(key: string): V | undefined {
    const value = this.#map.get(key);
    if (value === undefined) return undefined;
    this.#map.delete(key);
    this.#map.set(key, value);
    return value;
  }

  peek(key: string): V | undefined {
    return this.#map.get(key);
  }

  set(key: string, value: V): void {
    this.#map.delete(key);
    this.#map.set(key, value);
    if (this.#map.size <= this.#entriesMax) return;
    for (const oldest of this.#map.keys()) {
      this.#map.delete(oldest);
      return;
    }
  }

  delete(key: string): boolean {
    return this.#map.delete(key);
  }

  clear(): void {
    this.#map.clear();
  }
}
