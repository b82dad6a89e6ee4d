/**
 * Keys at the door: from what callers write to the whole binary keys that the machine orders.
 *
 *     namespace "jobs", key "a/1"   ->   j o b s 00 a / 1
 *
 * A namespace holds no U+0000 and UTF-8 writes no other character with a zero byte, so the first zero byte of a whole key
 * ends its namespace: no two namespaces share a key, none is a prefix of another, and a key can be stripped without
 * knowing whose it is. Every range is half-open, `[from, to)`, and ends at the latest where its namespace ends.
 */
import { isAscii, toBinaryString, utf8ToBinaryString } from "../base/bytes.ts";
import { conclaveError } from "../base/errors.ts";
import type { Limits } from "./caps.ts";
import type { Key, KeyRange } from "./store.ts";

/** Whole keys k with `from <= k < to`, as binary strings. `to` equal to `from`: no key. */
export interface BinaryRange {
  readonly from: string;
  readonly to: string;
}

/** Every key of every namespace: no UTF-8 begins with 0xFF. */
export const everyKey: BinaryRange = { from: "", to: "\xff" };

/** What stands before each key of the namespace. @throws INVALID_OPTION */
export function namespacePrefix(namespace: string): string {
  if (typeof namespace !== "string") throw conclaveError("INVALID_OPTION", "A namespace must be a string.");
  if (/^[ -~]*$/.test(namespace)) return `${namespace}\0`;
  if (namespace.includes("\0")) {
    throw conclaveError("INVALID_OPTION", `Namespace ${JSON.stringify(namespace)} holds U+0000.`);
  }
  if (isIllFormed(namespace)) {
    throw conclaveError("INVALID_OPTION", `Namespace ${JSON.stringify(namespace)} holds half a surrogate pair.`);
  }
  return `${utf8ToBinaryString(namespace)}\0`;
}

/** The whole key. @throws KEY_INVALID, KEY_TOO_LARGE */
export function wholeKey(prefix: string, key: Key, limits: Pick<Limits, "keyBytesMax">): string {
  const whole = bound(prefix, key, limits);
  if (whole.length === prefix.length) throw conclaveError("KEY_INVALID", "The key is empty.");
  return whole;
}

/** @throws KEY_INVALID, KEY_TOO_LARGE, INVALID_OPTION */
export function wholeRange(prefix: string, range: KeyRange, limits: Pick<Limits, "keyBytesMax">): BinaryRange {
  if ("key" in range) return rangeOfKey(wholeKey(prefix, range.key, limits));
  if ("prefix" in range) return rangeOfPrefix(bound(prefix, range.prefix, limits));
  if (!("from" in range)) throw conclaveError("INVALID_OPTION", "A range must have `key`, `prefix` or `from`.");
  const from = bound(prefix, range.from, limits);
  const to = range.to === undefined ? prefixSuccessor(prefix) : bound(prefix, range.to, limits);
  return { from, to: to < from ? from : to };
}

/** The keys that are this one. */
export function rangeOfKey(key: string): BinaryRange {
  return { from: key, to: `${key}\0` };
}

/** The keys that start like this. The prefix holds a byte below 0xFF, as every namespace's does. */
export function rangeOfPrefix(prefix: string): BinaryRange {
  return { from: prefix, to: prefixSuccessor(prefix) };
}

export function isRangeOfKey(range: BinaryRange): boolean {
  const length = range.from.length;
  return range.to.length === length + 1 && range.to.charCodeAt(length) === 0 && range.to.startsWith(range.from);
}

export function isInRange(range: BinaryRange, key: string): boolean {
  return range.from <= key && key < range.to;
}

/** Everything before the first zero byte, as a binary string. */
export function namespaceOf(whole: string): string {
  return whole.slice(0, Math.max(0, whole.indexOf("\0")));
}

/** The key without its namespace. */
export function stripNamespace(whole: string): string {
  return whole.slice(whole.indexOf("\0") + 1);
}

/** The lowest string above all that start with the prefix: trailing 0xFF drop out, the last other byte goes up by one. */
export function prefixSuccessor(prefix: string): string {
  let at = prefix.length - 1;
  while (at >= 0 && prefix.charCodeAt(at) === 0xff) at--;
  if (at < 0) throw conclaveError("KEY_INVALID", "A prefix of nothing but 0xFF has no end.");
  return prefix.slice(0, at) + String.fromCharCode(prefix.charCodeAt(at) + 1);
}

/** A key or a bound of a range, which may be empty. */
function bound(prefix: string, key: Key, limits: Pick<Limits, "keyBytesMax">): string {
  let binary: string;
  if (typeof key === "string") {
    // Two different strings would become one key: halves of pairs all encode as U+FFFD.
    if (!isAscii(key) && isIllFormed(key))
      throw conclaveError("KEY_INVALID", `Key ${JSON.stringify(key)} holds half a surrogate pair.`);
    binary = utf8ToBinaryString(key);
  } else if (key instanceof Uint8Array) {
    binary = toBinaryString(key);
  } else {
    throw conclaveError("KEY_INVALID", "A key must be a string or a Uint8Array.");
  }
  const bytes = prefix.length + binary.length;
  if (bytes > limits.keyBytesMax) {
    throw conclaveError("KEY_TOO_LARGE", `The key has ${bytes} bytes with its namespace; ${limits.keyBytesMax} are allowed.`);
  }
  return prefix + binary;
}

function isIllFormed(text: string): boolean {
  return /\p{Surrogate}/u.test(text);
}
