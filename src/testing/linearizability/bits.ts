/**
 * Sets of small numbers as bits of an `Int32Array`: bit 5 of word 1 stands for 37.
 */

const wordBits = 32;

/** An empty set that can hold `0..count-1`. */
export function newBits(count: number): Int32Array {
  return new Int32Array(Math.ceil(count / wordBits));
}

export function setBit(words: Int32Array, bit: number): void {
  (words[bit >>> 5] as number) |= 1 << (bit & 31);
}

export function clearBit(words: Int32Array, bit: number): void {
  (words[bit >>> 5] as number) &= ~(1 << (bit & 31));
}

export function hasBit(words: Int32Array, bit: number): boolean {
  return ((words[bit >>> 5] as number) & (1 << (bit & 31))) !== 0;
}
