/**
 * The slot of a key in a Redis Cluster: CRC-16 (XMODEM) of what stands between the first braces, modulo 16,384.
 * Source: redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec, "Key distribution model".
 */
import { utf8Encode } from "../../base/bytes.ts";

export const slotCount = 16_384;

export function slotOf(key: string): number {
  const tag = /\{([^}]+)\}/.exec(key)?.[1] ?? key;
  let crc = 0;
  for (const byte of utf8Encode(tag)) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) crc = (crc & 0x8000) !== 0 ? ((crc << 1) ^ 0x1021) & 0xffff : (crc << 1) & 0xffff;
  }
  return crc % slotCount;
}
