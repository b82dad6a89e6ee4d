import { describe, expect, test } from "vitest";
import { utf8Encode } from "../base/bytes.ts";
import { murmur3 } from "./murmur3.ts";

describe("murmur3", () => {
  // Published vectors of MurmurHash3_x86_32, as collected at https://stackoverflow.com/a/31929528 and in Wikipedia.
  test.each([
    ["", 0, 0x00000000],
    ["", 1, 0x514e28b7],
    ["", 0xffffffff, 0x81f16f39],
    ["test", 0, 0xba6bd213],
    ["test", 0x9747b28c, 0x704b81dc],
    ["Hello, world!", 0, 0xc0363e43],
    ["Hello, world!", 0x9747b28c, 0x24884cba],
    ["The quick brown fox jumps over the lazy dog", 0, 0x2e4ff723],
    ["The quick brown fox jumps over the lazy dog", 0x9747b28c, 0x2fa826cd],
    ["a", 0x9747b28c, 0x7fa09ea6],
    ["aa", 0x9747b28c, 0x5d211726],
    ["aaa", 0x9747b28c, 0x283e0130],
    ["aaaa", 0x9747b28c, 0x5a97808a],
    ["abc", 0, 0xb3dd93fa],
    ["abc", 0x9747b28c, 0xc84a62dd],
    ["ππππππππ", 0x9747b28c, 0xd58063c1],
  ])("of %j with seed %i is the published %i", (text, seed, expected) => {
    expect(murmur3(text, seed)).toBe(expected);
  });

  test("of any text is that of its UTF-8 bytes: wide characters at every place of a block", () => {
    const letters = ["a", "é", "漢", "😀", "\u007f", "\u0080", "\u07ff", "\u0800", "\uffff", "\u{10000}"];
    let random = 7;
    for (let round = 0; round < 5_000; round++) {
      let text = "";
      random = (Math.imul(random, 1_664_525) + 1_013_904_223) >>> 0;
      for (let left = random % 14, draw = random; left > 0; left--) {
        draw = (Math.imul(draw, 22_695_477) + 1) >>> 0;
        text += draw % 3 === 0 ? (letters[(draw >>> 8) % letters.length] as string) : "x";
      }
      expect(murmur3(text, round), JSON.stringify(text)).toBe(murmur3OfBytes(utf8Encode(text), round));
    }
  });

  test("counts half a surrogate pair as U+FFFD, as TextEncoder does", () => {
    for (const text of ["\ud800", "a\udc00b", "abcd\ud83d", "\ude00\ud83d", "x\ud800\ud800y"]) {
      expect(murmur3(text)).toBe(murmur3OfBytes(utf8Encode(text), 0));
      expect(murmur3(text)).toBe(murmur3(text.replace(/\p{Surrogate}/gu, "\ufffd")));
    }
  });
});

/** The definition, on bytes, with 64-bit arithmetic: nothing shared with the implementation. */
function murmur3OfBytes(bytes: Uint8Array, seed: number): number {
  const mask = 0xffff_ffffn;
  const turn = (value: bigint, by: bigint): bigint => ((value << by) | (value >> (32n - by))) & mask;
  let hash = BigInt(seed) & mask;
  for (let at = 0; at < bytes.length; at += 4) {
    let word = 0n;
    for (let each = Math.min(3, bytes.length - at - 1); each >= 0; each--)
      word = (word << 8n) | BigInt(bytes[at + each] as number);
    word = (turn((word * 0xcc9e2d51n) & mask, 15n) * 0x1b873593n) & mask;
    hash ^= word;
    if (at + 4 <= bytes.length) hash = (turn(hash, 13n) * 5n + 0xe6546b64n) & mask;
  }
  hash ^= BigInt(bytes.length);
  hash = ((hash ^ (hash >> 16n)) * 0x85ebca6bn) & mask;
  hash = ((hash ^ (hash >> 13n)) * 0xc2b2ae35n) & mask;
  return Number(hash ^ (hash >> 16n));
}
