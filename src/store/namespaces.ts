/**
 * The names of namespaces that hold a key, found by stepping over their keys: read some keys in order, keep the first of
 * each namespace, go on right behind the last one. A namespace with a thousand waiters costs one step like any other.
 */
import { binaryStringToUtf8, utf8ToBinaryString } from "../base/bytes.ts";
import { conclaveError } from "../base/errors.ts";
import type { ResolvedTxn } from "./command.ts";
import { type BinaryRange, namespaceOf, namespacePrefix, prefixSuccessor } from "./key.ts";
import type { NamespacesOptions } from "./store.ts";

/** Names in one answer. */
export const namesDefault = 100;
export const namesMax = 1_000;
/** Keys in one step. */
const stepKeys = 100;

/** What to look for: binary bounds, and how many. @throws INVALID_OPTION */
export function namespaceSearch({ prefix = "", after, limit = namesDefault }: NamespacesOptions): {
  readonly range: BinaryRange;
  readonly limit: number;
} {
  if (!Number.isSafeInteger(limit) || limit < 1 || limit > namesMax)
    throw conclaveError("INVALID_OPTION", `\`limit\` must be a whole number from 1 to ${namesMax}; it is ${limit}.`);
  // Checks both as names of namespaces.
  const start = namespacePrefix(prefix).slice(0, -1);
  const behind = after === undefined ? start : behindNamespace(namespacePrefix(after).slice(0, -1));
  const to = start === "" ? "\xff" : prefixSuccessor(start);
  return { range: { from: behind > start ? behind : start, to }, limit };
}

/** By a way to read whole keys of a range, in their order. */
export async function findNamespaces(
  options: NamespacesOptions,
  readKeys: (range: BinaryRange, limit: number) => Promise<readonly string[]>,
): Promise<readonly string[]> {
  const { limit, range } = namespaceSearch(options);
  const found: string[] = [];
  let { from } = range;
  while (found.length < limit && from < range.to) {
    const keys = await readKeys({ from, to: range.to }, stepKeys);
    for (const key of keys) {
      const name = namespaceOf(key);
      if (name !== found.at(-1) && found.length < limit) found.push(name);
    }
    const last = keys.at(-1);
    if (last === undefined || keys.length < stepKeys) break;
    from = behindNamespace(namespaceOf(last));
  }
  return found.map(binaryStringToUtf8);
}

/** Reads keys of a range that spans namespaces. */
export function keysTxn(range: BinaryRange, limit: number): ResolvedTxn {
  const op = { kind: "range", range, order: "key", descending: false, keysOnly: true, limit } as const;
  return { kind: "txn", claim: null, compares: [], then: [{ ...op, createdBefore: null, atRevision: null }], else: [] };
}

/** The lowest key that can follow those of the namespace. */
function behindNamespace(binary: string): string {
  return `${binary}\x01`;
}

/** As `prefix` and `after` compare, for engines that know the names themselves. */
export function pickNames(names: readonly string[], options: NamespacesOptions): readonly string[] {
  const { limit, range } = namespaceSearch(options);
  const wanted = names.map(utf8ToBinaryString).filter((name) => name >= range.from && name < range.to);
  return wanted.sort().slice(0, limit).map(binaryStringToUtf8);
}
