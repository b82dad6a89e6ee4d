/**
 * CRC-32 as fast as this Node has it.
 */
import { crc32 as zlibCrc32 } from "node:zlib";
import { crc32 } from "../../base/crc32.ts";
import type { Checksum } from "../../base/ports.ts";

/** Node's own since 20.15 and 22.2; several times faster, the same numbers. */
export const checksum: Checksum = zlibCrc32 ?? crc32;
