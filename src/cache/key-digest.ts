/**
 * What stands for a key that a cache server would not take as it is.
 */
import { createHash } from "node:crypto";

/** Of its UTF-16 units: half a surrogate pair is a key of its own. */
export function digestOf(key: string): string {
  return `#${createHash("sha256").update(Buffer.from(key, "utf16le")).digest("base64url")}`;
}
