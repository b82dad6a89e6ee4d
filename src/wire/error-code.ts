/**
 * Error codes travel as their names, so that tables of different versions need not agree on numbers.
 */
import type { ByteReader } from "../base/byte-codec.ts";
import { type ErrorCode, errorTable } from "../base/error-table.ts";

/** A code that this version does not know reads as PROTOCOL. */
export function readErrorCode(reader: ByteReader): ErrorCode {
  const name = reader.utf8();
  return Object.hasOwn(errorTable, name) ? (name as ErrorCode) : "PROTOCOL";
}
