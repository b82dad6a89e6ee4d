/**
 * CRC-32 (IEEE 802.3) in plain TypeScript, for every place that has no native one.
 *
 * Intuition: long division of the bytes, read as one huge binary number, by a fixed 33-bit polynomial; the remainder is
 * the checksum. A table knows the remainder of each byte, and "slicing by 8" keeps eight tables, so that eight bytes are
 * divided at once instead of one after the other.
 * Source: Kounavis and Berry, "A Systematic Approach to Building High Performance Software-Based CRC Generators", 2005.
 * Same values as `zlib.crc32` of Node, which a host hands in instead because it is faster on long input; only for no
 * bytes at all with a seed does zlib forget the seed (it answers 0), so callers skip empty parts.
 */
import type { Checksum } from "./ports.ts";

/** Table k holds the remainder of a byte that is followed by k zero bytes: entry `k * 256 + byte`. */
const table = buildTable();

/** The checksum of the bytes, continuing from `seed`: `crc32(b, crc32(a))` is the checksum of a and b joined. */
export const crc32: Checksum = (bytes, seed = 0) => {
  const length = bytes.length;
  const bulkEnd = length - (length % 8);
  let crc = ~seed;
  let at = 0;
  for (; at < bulkEnd; at += 8) {
    const low = crc ^ word(bytes, at);
    crc =
      (table[1792 + (low & 0xff)] as number) ^
      (table[1536 + ((low >>> 8) & 0xff)] as number) ^
      (table[1280 + ((low >>> 16) & 0xff)] as number) ^
      (table[1024 + (low >>> 24)] as number) ^
      (table[768 + (bytes[at + 4] as number)] as number) ^
      (table[512 + (bytes[at + 5] as number)] as number) ^
      (table[256 + (bytes[at + 6] as number)] as number) ^
      (table[bytes[at + 7] as number] as number);
  }
  for (; at < length; at++) crc = (crc >>> 8) ^ (table[(crc ^ (bytes[at] as number)) & 0xff] as number);
  return ~crc >>> 0;
};

function word(bytes: Uint8Array, at: number): number {
  return (
    (bytes[at] as number) |
    ((bytes[at + 1] as number) << 8) |
    ((bytes[at + 2] as number) << 16) |
    ((bytes[at + 3] as number) << 24)
  );
}

function buildTable(): Int32Array {
  const entries = new Int32Array(8 * 256);
  for (let byte = 0; byte < 256; byte++) {
    let remainder = byte;
    for (let bit = 0; bit < 8; bit++) remainder = remainder & 1 ? (remainder >>> 1) ^ 0xedb88320 : remainder >>> 1;
    entries[byte] = remainder;
  }
  for (let at = 256; at < entries.length; at++) {
    const previous = entries[at - 256] as number;
    entries[at] = (previous >>> 8) ^ (entries[previous & 0xff] as number);
  }
  return entries;
}
