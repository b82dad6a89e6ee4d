/**
 * Every configuration in the kept log. The latest is in force, committed or not (Raft §6); a truncation brings the one
 * before back, and a snapshot needs the one at its own index.
 */
import { assert } from "../../base/assert.ts";
import type { Configuration, Index } from "../core.ts";

export interface ConfigurationEntry {
  readonly index: Index;
  readonly configuration: Configuration;
}

export class Configurations {
  /** Invariant: ascending by index, never empty; the first holds for everything up to the second. */
  #entries: readonly ConfigurationEntry[] = [];

  /** Starts from what stands before the first entry, or in a snapshot; entries of the log above it stay. */
  restart(first: ConfigurationEntry, lastIndex: Index): void {
    this.#entries = [first, ...this.#entries.filter(({ index }) => index > first.index && index <= lastIndex)];
  }

  append(entry: ConfigurationEntry): void {
    assert(this.#entries.length === 0 || entry.index > this.latest.index, "configurations follow one another");
    this.#entries = [...this.#entries, entry];
  }

  /** Whether the configuration in force went with the truncated entries. */
  truncate(from: Index): boolean {
    if (this.latest.index < from) return false;
    this.#entries = this.#entries.filter(({ index }) => index < from);
    assert(this.#entries.length > 0, "a configuration is always in force");
    return true;
  }

  /** A snapshot covers everything up to the index. */
  compact(index: Index): void {
    const first = this.at(index);
    this.#entries = this.#entries.filter((entry) => entry === first || entry.index > index);
  }

  get latest(): ConfigurationEntry {
    const latest = this.#entries.at(-1);
    assert(latest !== undefined, "a configuration is always in force");
    return latest;
  }

  /** The one in force at the index; the oldest that is known where the index lies below it. */
  at(index: Index): ConfigurationEntry {
    return this.#entries.findLast((entry) => entry.index <= index) ?? (this.#entries[0] as ConfigurationEntry);
  }
}
