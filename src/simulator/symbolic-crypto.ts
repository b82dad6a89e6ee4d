/**
 * Seals and hashes of the simulated world: a seal is a number that only the holder of a secret can compute, and the
 * secrets are drawn from the seed. Unforgeable by construction of the world, since nobody in it guesses 64 bits, and a
 * thousand times faster than Ed25519.
 *
 * Source of the idea: Dolev & Yao, "On the security of public key protocols", 1983: the adversary may compose and take
 * apart what it knows, and cannot break a seal.
 */
import type { Seal } from "../consensus/pbft/gate.ts";
import type { Random } from "./random.ts";

export class SymbolicCrypto {
  readonly #secrets = new Map<number | string, number>();

  constructor(owners: readonly (number | string)[], random: Random) {
    for (const owner of owners) this.#secrets.set(owner, random.uint32());
  }

  sign(owner: number | string, bytes: Uint8Array): Uint8Array {
    const secret = this.#secrets.get(owner);
    if (secret === undefined) throw new Error(`Nobody is called ${owner}.`);
    const [low, high] = hash64(bytes, secret);
    const seal = new Uint8Array(8);
    write32(seal, 0, low);
    write32(seal, 4, high);
    return seal;
  }

  verify({ by, bytes, signature }: Seal): boolean {
    const secret = this.#secrets.get(by);
    if (secret === undefined || signature.length !== 8) return false;
    const [low, high] = hash64(bytes, secret);
    return read32(signature, 0) === low && read32(signature, 4) === high;
  }

  digest(bytes: Uint8Array): string {
    const [low, high] = hash64(bytes, 0x5bd1e995);
    return String.fromCharCode(
      low & 255,
      (low >>> 8) & 255,
      (low >>> 16) & 255,
      low >>> 24,
      high & 255,
      (high >>> 8) & 255,
      (high >>> 16) & 255,
      high >>> 24,
    );
  }
}

function write32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value;
  bytes[at + 1] = value >> 8;
  bytes[at + 2] = value >> 16;
  bytes[at + 3] = value >> 24;
}

function read32(bytes: Uint8Array, at: number): number {
  return (
    (bytes[at] as number) |
    ((bytes[at + 1] as number) << 8) |
    ((bytes[at + 2] as number) << 16) |
    ((bytes[at + 3] as number) << 24)
  );
}

/** Two independent 32-bit mixes; no collision is to be expected among the few million strings of a run. */
function hash64(bytes: Uint8Array, seed: number): readonly [number, number] {
  let low = seed ^ bytes.length;
  let high = Math.imul(seed, 0x9e3779b1) ^ 0x85ebca6b;
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at] as number;
    low = Math.imul(low ^ byte, 0x01000193);
    high = Math.imul(high ^ byte, 0xcc9e2d51);
    high = (high << 13) | (high >>> 19);
  }
  low ^= low >>> 16;
  high ^= high >>> 15;
  return [Math.imul(low, 0x85ebca6b) ^ (high >>> 3), Math.imul(high, 0xc2b2ae35) ^ (low >>> 5)];
}
