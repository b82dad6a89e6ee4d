/**
 * MurmurHash3 x86_32 of a text's UTF-8 bytes, without making the bytes.
 *
 * Intuition: a blender. Four bytes at a time go in, are chopped and turned; the last two steps see to it that every bit of
 * the input has moved every bit of the result. Weak hashes (FNV-1a, Java's 31) leave a ring twice as uneven.
 * Source: Austin Appleby, smhasher, MurmurHash3.cpp (public domain), MurmurHash3_x86_32 and fmix32; vectors in the test.
 * UTF-8, so that any other language computes the same. Half a surrogate pair counts as U+FFFD, as in `TextEncoder`.
 * Not for secrets: who chooses keys can choose collisions.
 */

/** An unsigned 32-bit number. A text of a megabyte is read whole. */
export function murmur3(text: string, seed = 0): number {
  const { length } = text;
  let hash = seed | 0;
  let at = 0;
  for (; at + 4 <= length; at += 4) {
    const first = text.charCodeAt(at);
    const second = text.charCodeAt(at + 1);
    const third = text.charCodeAt(at + 2);
    const fourth = text.charCodeAt(at + 3);
    if ((first | second | third | fourth) > 0x7f) return murmur3OfWide(text, at, hash);
    hash = withBlock(hash, first | (second << 8) | (third << 16) | (fourth << 24));
  }
  let tail = 0;
  for (let shift = 0; at + (shift >> 3) < length; shift += 8) {
    const code = text.charCodeAt(at + (shift >> 3));
    if (code > 0x7f) return murmur3OfWide(text, at, hash);
    tail |= code << shift;
  }
  return finish(hash, tail, length);
}

/** The finalizer: a bijection of 32 bits in which every bit of the input moves every bit of the output. */
export function fmix32(value: number): number {
  let mixed = value;
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}

/** Goes on where the text stops being ASCII. Up to `from` every character was one byte, so the blocks are aligned. */
function murmur3OfWide(text: string, from: number, hashSoFar: number): number {
  let hash = hashSoFar;
  let bytes = from;
  let block = 0;
  const take = (byte: number): void => {
    block |= byte << ((bytes & 3) << 3);
    bytes++;
    if ((bytes & 3) !== 0) return;
    hash = withBlock(hash, block);
    block = 0;
  };
  for (let at = from; at < text.length; at++) {
    const point = text.codePointAt(at) as number;
    if (point > 0xffff) at++;
    const isHalf = point >= 0xd800 && point <= 0xdfff;
    takeUtf8(isHalf ? 0xfffd : point, take);
  }
  return finish(hash, block, bytes);
}

function takeUtf8(point: number, take: (byte: number) => void): void {
  if (point < 0x80) {
    take(point);
  } else if (point < 0x800) {
    take(0xc0 | (point >> 6));
    take(0x80 | (point & 0x3f));
  } else {
    if (point < 0x10000) {
      take(0xe0 | (point >> 12));
    } else {
      take(0xf0 | (point >> 18));
      take(0x80 | ((point >> 12) & 0x3f));
    }
    take(0x80 | ((point >> 6) & 0x3f));
    take(0x80 | (point & 0x3f));
  }
}

function withBlock(hash: number, block: number): number {
  const mixed = hash ^ scrambled(block);
  return (Math.imul((mixed << 13) | (mixed >>> 19), 5) + 0xe6546b64) | 0;
}

function scrambled(block: number): number {
  const turned = Math.imul(block, 0xcc9e2d51);
  return Math.imul((turned << 15) | (turned >>> 17), 0x1b873593);
}

function finish(hash: number, tail: number, bytes: number): number {
  return fmix32(hash ^ scrambled(tail) ^ bytes);
}
