/**
 * Who wants to hear of a key: finds the watchers of a change without asking each of them.
 *
 * Most watches are of one key (a waiter's predecessor) or of a prefix (a directory): both are looked up, the prefixes once
 * for each *length* in use, of which there are few. Other intervals are asked one by one.
 */
import { type BinaryRange, isInRange, isRangeOfKey, prefixSuccessor } from "./key.ts";

export class WatchIndex<W> {
  readonly #keys = new Map<string, Set<W>>();
  readonly #prefixes = new Map<string, Set<W>>();
  /** How many different prefixes of each length there are. */
  readonly #prefixLengths = new Map<number, number>();
  /** Watchers by the bounds of their interval. */
  readonly #intervals = new Map<string, { readonly range: BinaryRange; readonly watchers: Set<W> }>();

  /** The same watcher may watch several ranges, and a range any number of watchers. Adding it twice is adding it once. */
  add(range: BinaryRange, watcher: W): void {
    if (isRangeOfKey(range)) {
      addTo(this.#keys, range.from, watcher);
    } else if (isRangeOfPrefix(range)) {
      const length = range.from.length;
      if (addTo(this.#prefixes, range.from, watcher)) this.#prefixLengths.set(length, (this.#prefixLengths.get(length) ?? 0) + 1);
    } else {
      const name = intervalName(range);
      const interval = this.#intervals.get(name);
      if (interval === undefined) this.#intervals.set(name, { range, watchers: new Set([watcher]) });
      else interval.watchers.add(watcher);
    }
  }

  /** Idempotent. */
  remove(range: BinaryRange, watcher: W): void {
    if (isRangeOfKey(range)) {
      removeFrom(this.#keys, range.from, watcher);
    } else if (isRangeOfPrefix(range)) {
      if (removeFrom(this.#prefixes, range.from, watcher)) this.#dropPrefixLength(range.from.length);
    } else {
      const name = intervalName(range);
      const interval = this.#intervals.get(name);
      interval?.watchers.delete(watcher);
      if (interval?.watchers.size === 0) this.#intervals.delete(name);
    }
  }

  /**
   * Calls for each watcher of the whole key, once for each of its ranges that holds it. The visitor may not add watchers.
   */
  match(key: string, visitor: (watcher: W) => void): void {
    const ofKey = this.#keys.get(key);
    if (ofKey !== undefined) for (const watcher of ofKey) visitor(watcher);
    for (const length of this.#prefixLengths.keys()) {
      if (length > key.length) continue;
      const ofPrefix = this.#prefixes.get(key.slice(0, length));
      if (ofPrefix !== undefined) for (const watcher of ofPrefix) visitor(watcher);
    }
    for (const { range, watchers } of this.#intervals.values()) {
      if (isInRange(range, key)) for (const watcher of watchers) visitor(watcher);
    }
  }

  /**
   * The events of one revision, gathered for each of their watchers; an event appears once, also where several ranges of a
   * watcher hold its key.
   */
  route<E extends { readonly key: string }>(events: readonly E[]): Map<W, E[]> {
    const routed = new Map<W, E[]>();
    for (const event of events) {
      this.match(event.key, (watcher) => {
        const heard = routed.get(watcher);
        if (heard === undefined) routed.set(watcher, [event]);
        else if (heard[heard.length - 1] !== event) heard.push(event);
      });
    }
    return routed;
  }

  #dropPrefixLength(length: number): void {
    const left = (this.#prefixLengths.get(length) as number) - 1;
    if (left === 0) this.#prefixLengths.delete(length);
    else this.#prefixLengths.set(length, left);
  }
}

function isRangeOfPrefix(range: BinaryRange): boolean {
  // The empty prefix and one of nothing but 0xFF have no successor.
  return /[^\xff]/.test(range.from) && range.to === prefixSuccessor(range.from);
}

/** Binary strings have no character above 0xFF, so this one parts them. */
function intervalName(range: BinaryRange): string {
  return `${range.from}\u0100${range.to}`;
}

/** True when it is the first under its name. */
function addTo<W>(index: Map<string, Set<W>>, name: string, watcher: W): boolean {
  const watchers = index.get(name);
  if (watchers !== undefined) {
    watchers.add(watcher);
    return false;
  }
  index.set(name, new Set([watcher]));
  return true;
}

/** True when it was the last under its name. */
function removeFrom<W>(index: Map<string, Set<W>>, name: string, watcher: W): boolean {
  const watchers = index.get(name);
  if (watchers === undefined || !watchers.delete(watcher) || watchers.size > 0) return false;
  index.delete(name);
  return true;
}
