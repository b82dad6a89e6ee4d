/**
 * Values as texts for L2: JSON where JSON is faithful, V8's own format where it is not.
 *
 * JSON silently turns a Date into a text, a Map into `{}` and an `undefined` into nothing. So a value is looked through
 * first, when it is written, and only what JSON gives back as it was goes that way; all else that can be cloned goes as
 * base64 of `v8.serialize`. What neither can say is refused by name.
 */
import { deserialize, serialize } from "node:v8";
import * as zlib from "node:zlib";
import { utf8Encode } from "../base/bytes.ts";
import { crc32 } from "../base/crc32.ts";
import { conclaveError } from "../base/errors.ts";
import type { Codec } from "../cache-core/l2.ts";

const jsonMark = "j";
const v8Mark = "v";
const depthMax = 200;

/** Node has a native one since 20.15; ours is equal, and slower. */
const nativeCrc32 = (zlib as { crc32?: (text: string, seed: number) => number }).crc32;

/** @since 0.1.0 */
export const textCodec: Codec = {
  encode(value) {
    if (isJsonFaithful(value, 0)) return jsonMark + JSON.stringify(value);
    try {
      return v8Mark + serialize(value).toString("base64");
    } catch (error) {
      throw conclaveError("NOT_SERIALIZABLE", `The value cannot be written: ${(error as Error).message}.`, { cause: error });
    }
  },
  decode(text) {
    if (text.startsWith(jsonMark)) return JSON.parse(text.slice(1));
    if (text.startsWith(v8Mark)) return deserialize(Buffer.from(text.slice(1), "base64"));
    throw new SyntaxError("Written by another codec.");
  },
  checksum: nativeCrc32 ?? ((text, seed) => crc32(utf8Encode(text), seed)),
};

function isJsonFaithful(value: unknown, depth: number): boolean {
  switch (typeof value) {
    case "string":
    case "boolean":
      return true;
    case "number":
      return Number.isFinite(value) && !Object.is(value, -0);
    case "object":
      break;
    default:
      return false;
  }
  if (value === null) return true;
  if (depth >= depthMax) return false;
  if (Array.isArray(value)) return isDense(value) && value.every((part) => isJsonFaithful(part, depth + 1));
  const prototype = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype || Object.getOwnPropertySymbols(value).length > 0) return false;
  // `__proto__` as a key of its own survives JSON; `toJSON` would change what is written.
  return (
    typeof (value as { toJSON?: unknown }).toJSON !== "function" &&
    Object.values(value).every((part) => isJsonFaithful(part, depth + 1))
  );
}

/** No holes, and nothing beside the items. */
function isDense(list: readonly unknown[]): boolean {
  return Object.keys(list).length === list.length;
}
