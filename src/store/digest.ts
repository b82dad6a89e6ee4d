/**
 * A hash of the state that can be kept up to date: the sum of the hashes of its parts.
 *
 * A sum does not care for order, and what was added can be taken away again, so a write costs two hashes and comparing
 * two members costs nothing. Two 32-bit lanes with different multipliers make accidents unlikely (2^-64); an adversary is
 * not meant. The mixing is MurmurHash3's (Appleby, 2011), four bytes at a time.
 */
import type { Entry } from "./entry.ts";

/** Unsigned 32-bit each. */
export interface Digest {
  high: number;
  low: number;
}

export function emptyDigest(): Digest {
  return { high: 0, low: 0 };
}

export function digestText(digest: Digest): string {
  return hex(digest.high) + hex(digest.low);
}

/** Adds the part's hash to the sum, or takes it away. */
export function includeHash(sum: Digest, hash: Digest, sign: 1 | -1): void {
  sum.high = (sum.high + sign * hash.high) >>> 0;
  sum.low = (sum.low + sign * hash.low) >>> 0;
}

export function hashEntry(entry: Entry): Digest {
  const hash = { high: 0x243f6a88, low: 0x85a308d3 };
  mixText(hash, entry.binaryKey);
  mixBytes(hash, entry.value);
  mixNumber(hash, entry.createRevision);
  mixNumber(hash, entry.modRevision);
  mixNumber(hash, entry.version);
  mixNumber(hash, entry.session === null ? 0 : Number(entry.session));
  return finished(hash);
}

/** Of numbers and bytes in their order. */
export function hashParts(...parts: readonly (number | Uint8Array)[]): Digest {
  const hash = { high: 0x13198a2e, low: 0x03707344 };
  for (const part of parts) {
    if (typeof part === "number") mixNumber(hash, part);
    else mixBytes(hash, part);
  }
  return finished(hash);
}

/** One lane of 32 bits over the bytes: notices damage. */
export function checkHash(bytes: Uint8Array): number {
  return hashParts(bytes).low;
}

function mixText(hash: Digest, text: string): void {
  for (let at = 0; at < text.length; at++) mix(hash, text.charCodeAt(at));
  mix(hash, text.length);
}

function mixBytes(hash: Digest, bytes: Uint8Array): void {
  let at = 0;
  for (; at + 4 <= bytes.length; at += 4) {
    mix(
      hash,
      (bytes[at] as number) |
        ((bytes[at + 1] as number) << 8) |
        ((bytes[at + 2] as number) << 16) |
        ((bytes[at + 3] as number) << 24),
    );
  }
  for (; at < bytes.length; at++) mix(hash, bytes[at] as number);
  mix(hash, bytes.length);
}

/** Whole numbers up to 2^53. */
function mixNumber(hash: Digest, value: number): void {
  mix(hash, value >>> 0);
  mix(hash, Math.floor(value / 0x1_0000_0000));
}

function mix(hash: Digest, word: number): void {
  hash.high = rotated(hash.high ^ scrambled(word, 0xcc9e2d51, 15), 13);
  hash.high = (Math.imul(hash.high, 5) + 0xe6546b64) | 0;
  hash.low = rotated(hash.low ^ scrambled(word, 0x1b873593, 17), 19);
  hash.low = (Math.imul(hash.low, 9) + 0x561ccd1b) | 0;
}

function scrambled(word: number, multiplier: number, turn: number): number {
  return Math.imul(rotated(Math.imul(word, multiplier), turn), multiplier ^ 0x5bd1e995);
}

function rotated(word: number, by: number): number {
  return (word << by) | (word >>> (32 - by));
}

function finished(hash: Digest): Digest {
  hash.high = avalanche(hash.high);
  hash.low = avalanche(hash.low ^ hash.high);
  return hash;
}

function avalanche(word: number): number {
  let mixed = word ^ (word >>> 16);
  mixed = Math.imul(mixed, 0x85ebca6b);
  mixed ^= mixed >>> 13;
  mixed = Math.imul(mixed, 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}

function hex(word: number): string {
  return (word >>> 0).toString(16).padStart(8, "0");
}
