/**
 * What can be invalidated, and how it is written into the Store: a bounded set of counters, whatever the number of keys.
 *
 *   i/k/<slot>  the last keys (by hash) invalidated in this slot        head   written by each invalidation: its modRevision
 *   i/t/<slot>  the last tags (by hash)                                        is the newest revision that a follower must reach
 *   i/p/<slot>  the last prefix, as text                                epoch  random, written once: a new store is another one
 *
 * A counter's `version` says whether a reader has missed one: a step of 1 names exactly what was invalidated, a larger step
 * (the store has coalesced) invalidates the whole slot. So a lost step costs loads, never coherence.
 */
import type { Entry } from "../store/entry.ts";
import type { Op } from "../store/store.ts";
import { keyHash } from "./key-hash.ts";

/** One key, every entry with a tag, every key that starts alike (`""`: all). A text is a key. */
export type Target = string | { readonly key: string } | { readonly tag: string } | { readonly prefix: string };

/** A target as the counters see it. */
export type Mark =
  | { readonly kind: "key"; readonly hash: number; readonly key: string | undefined }
  | { readonly kind: "tag"; readonly hash: number }
  | { readonly kind: "prefix"; readonly prefix: string };

/** What a counter says. */
export interface CounterState {
  readonly kind: "key" | "tag" | "prefix";
  readonly slot: number;
  readonly version: number;
  /** Of the write that made the counter: another one means that `version` began anew. */
  readonly created: number;
  readonly revision: number;
  /** Of the last step. Empty: what it says cannot be read, and stands for everything in the slot. */
  readonly hashes: readonly number[];
  readonly prefixes: readonly string[];
}

export const counterRange = { prefix: "i/" } as const;
export const headKey = "head";
export const epochKey = "epoch";
/** Of keys, and of tags. Written into the Store by every process, so it is no option. */
export const nameSlots = 1_024;
export const prefixSlots = 16;
/** Longer prefixes are cut, which invalidates more. */
const prefixLengthMax = 512;
const letters = { key: "k", tag: "t", prefix: "p" } as const;
const kinds = { k: "key", t: "tag", p: "prefix" } as const;

export function markOf(target: Target): Mark {
  if (typeof target === "string") return keyMark(target);
  if ("key" in target) return keyMark(target.key);
  if ("tag" in target) return { kind: "tag", hash: keyHash(target.tag) };
  return { kind: "prefix", prefix: cutPrefix(target.prefix) };
}

/** The operations that invalidate all of the marks, and ring the head. One write of each counter, however many share it. */
export function counterWrites(marks: readonly Mark[]): Op[] {
  const parts = new Map<string, string[]>();
  for (const mark of marks) {
    const name = counterKey(mark);
    const said = mark.kind === "prefix" ? JSON.stringify(mark.prefix) : String(mark.hash);
    const list = parts.get(name);
    if (list === undefined) parts.set(name, [said]);
    else list.push(said);
  }
  const writes: Op[] = [...parts].map(([key, said]) => ({ kind: "put", key, value: `[${said.join(",")}]` }));
  writes.push({ kind: "put", key: headKey, value: "" });
  return writes;
}

/** Of a name's 53 bits the low ones, which are whole numbers of 32 bits: the rest of a division by more takes longer than a look-up. */
export function slotOf(hash: number): number {
  return (hash >>> 0) % nameSlots;
}

export function counterKey(mark: Mark): string {
  const slot = mark.kind === "prefix" ? keyHash(mark.prefix) % prefixSlots : slotOf(mark.hash);
  return `i/${letters[mark.kind]}/${slot}`;
}

/** Undefined: not a counter of ours, written by a newer version perhaps. */
export function readCounter(entry: Entry): CounterState | undefined {
  const [, letter, slot] = entry.key.split("/");
  const kind = kinds[letter as keyof typeof kinds];
  const number = Number(slot);
  if (kind === undefined || !Number.isSafeInteger(number)) return undefined;
  if (number < 0 || number >= (kind === "prefix" ? prefixSlots : nameSlots)) return undefined;
  const said = readList(entry.text);
  return {
    kind,
    slot: number,
    version: entry.version,
    created: entry.createRevision,
    revision: entry.modRevision,
    hashes: said.filter((each) => typeof each === "number"),
    prefixes: said.filter((each) => typeof each === "string"),
  };
}

function readList(text: string): readonly unknown[] {
  try {
    const value: unknown = JSON.parse(text);
    return Array.isArray(value) ? value : [];
  } catch {
    // Unreadable is "something in this slot": the caller invalidates all of it.
    return [];
  }
}

function keyMark(key: string): Mark {
  return { kind: "key", hash: keyHash(key), key };
}

function cutPrefix(prefix: string): string {
  const cut = prefix.slice(0, prefixLengthMax);
  // Half a surrogate pair at the end would not survive the way through UTF-8: without it the prefix covers more.
  return /\p{Surrogate}/u.test(cut) ? cut.slice(0, cut.search(/\p{Surrogate}/u)) : cut;
}
