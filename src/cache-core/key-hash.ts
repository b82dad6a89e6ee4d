/**
 * A key's place among the invalidation counters: 53 bits of two mixed 32-bit lanes, as one safe integer.
 *
 * Two keys of one hash share their invalidations, which costs a load and nothing else; so it need be even, not secret.
 * Works on UTF-16 units: half a surrogate pair is a key of its own. Mixing steps: Appleby, MurmurHash3 (public domain), fmix32.
 */
const laneBits = 2 ** 32;

/** A whole number from 0 to 2^53 - 1. The same on every machine and version: it is written into the Store. */
export function keyHash(text: string): number {
  let high = 0x9e3779b9 ^ text.length;
  let low = 0x7f4a7c15;
  for (let at = 0; at < text.length; at++) {
    const unit = text.charCodeAt(at);
    high = Math.imul(high ^ unit, 0x85ebca6b);
    high ^= high >>> 15;
    low = Math.imul(low ^ unit, 0xc2b2ae35);
    low ^= low >>> 13;
  }
  return (finish(high ^ (low << 7)) & 0x1fffff) * laneBits + finish(low ^ (high >>> 3));
}

function finish(lane: number): number {
  let mixed = lane;
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}
