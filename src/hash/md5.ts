/**
 * MD5, only because libketama places its points by it; good for nothing that needs a secret.
 *
 * Source: RFC 1321 §3 (steps and constants; the table is floor(2^32 * |sin(i + 1)|) as defined there, §3.4).
 * Pure and slow: some tenths of a million keys per second. `murmur3` is what our own rings use.
 */
import { utf8Encode } from "../base/bytes.ts";

/** The digest of the text's UTF-8 bytes as four words, in the order in which their bytes stand, each little-endian. */
export function md5(text: string): readonly [number, number, number, number] {
  const blocks = padded(utf8Encode(text));
  let [a, b, c, d] = [0x67452301, 0xefcdab89 | 0, 0x98badcfe | 0, 0x10325476];
  for (let from = 0; from < blocks.length; from += 16) {
    let [w, x, y, z] = [a, b, c, d];
    for (let step = 0; step < 64; step++) {
      const round = step >> 4;
      const [mixed, word] = roundOf(round, step, x, y, z);
      const sum = (w + mixed + (sines[step] as number) + (blocks[from + word] as number)) | 0;
      const turn = turns[round * 4 + (step & 3)] as number;
      [w, z, y, x] = [z, y, x, (x + ((sum << turn) | (sum >>> (32 - turn)))) | 0];
    }
    a = (a + w) | 0;
    b = (b + x) | 0;
    c = (c + y) | 0;
    d = (d + z) | 0;
  }
  return [a >>> 0, b >>> 0, c >>> 0, d >>> 0];
}

const sines = Int32Array.from({ length: 64 }, (_, step) => Math.floor(2 ** 32 * Math.abs(Math.sin(step + 1))) | 0);
const turns = [7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21];

/** The round's function of three words, and which word of the block it takes (RFC 1321 §3.4). */
function roundOf(round: number, step: number, x: number, y: number, z: number): readonly [number, number] {
  if (round === 0) return [(x & y) | (~x & z), step & 15];
  if (round === 1) return [(x & z) | (y & ~z), (5 * step + 1) & 15];
  if (round === 2) return [x ^ y ^ z, (3 * step + 5) & 15];
  return [y ^ (x | ~z), (7 * step) & 15];
}

/** The message, a one bit, zeros, and its length in bits, as little-endian words. */
function padded(bytes: Uint8Array): Int32Array {
  const whole = new Uint8Array((Math.floor((bytes.length + 8) / 64) + 1) * 64);
  whole.set(bytes);
  whole[bytes.length] = 0x80;
  const view = new DataView(whole.buffer);
  view.setUint32(whole.length - 8, (bytes.length * 8) >>> 0, true);
  view.setUint32(whole.length - 4, Math.floor(bytes.length / 2 ** 29), true);
  return Int32Array.from({ length: whole.length / 4 }, (_, word) => view.getInt32(word * 4, true));
}
