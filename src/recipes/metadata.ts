/**
 * What a contender says about itself, as it lies in the store: JSON, or nothing.
 */

import { utf8Decode } from "../base/bytes.ts";
import { conclaveError } from "../base/errors.ts";

/** Anything that JSON can carry; undefined becomes an empty value. @throws INVALID_OPTION, naming the field. */
export function encodeMetadata(metadata: unknown, field: string): string {
  if (metadata === undefined) return "";
  try {
    const text: string | undefined = JSON.stringify(metadata);
    if (text !== undefined) return text;
  } catch (cause) {
    throw conclaveError("INVALID_OPTION", `\`${field}\` cannot be written as JSON.`, { cause });
  }
  throw conclaveError("INVALID_OPTION", `\`${field}\` is a ${typeof metadata}, which JSON cannot carry.`);
}

/** The opposite. What somebody else wrote, and is no JSON, comes back as text. */
export function decodeMetadata(value: Uint8Array): unknown {
  if (value.length === 0) return undefined;
  const text = utf8Decode(value);
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
