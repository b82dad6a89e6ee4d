/**
 * What was asked, in 43 letters: the same key with other input is refused.
 */
import { createHash } from "node:crypto";

/** Of what was asked, in any order of its fields. */
export function fingerprintOf(input: unknown): string {
  if (input === undefined) return "";
  return createHash("sha256").update(canonical(input)).digest("base64url");
}

function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (typeof value === "object" && value !== null && !("toJSON" in value)) {
    const fields = Object.entries(value).sort(([left], [right]) => (left < right ? -1 : 1));
    return `{${fields.map(([name, each]) => `${JSON.stringify(name)}:${canonical(each)}`).join(",")}}`;
  }
  return JSON.stringify(value) ?? "null";
}
