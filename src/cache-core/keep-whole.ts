/**
 * Keeps what one reader does to a value from being seen by the next.
 */
export function deepFreeze<T>(value: T): T {
  if (typeof value !== "object" || value === null || Object.isFrozen(value)) return value;
  const prototype = Object.getPrototypeOf(value);
  // Only what JSON can say: freezing a Buffer throws, and a Map or a class with a state of its own is frozen in name only.
  if (!Array.isArray(value) && prototype !== Object.prototype && prototype !== null) return value;
  Object.freeze(value);
  // Most parts are no objects: they are told apart here, without a call and without a list of them.
  if (Array.isArray(value)) {
    for (const part of value) if (typeof part === "object") deepFreeze(part);
    return value;
  }
  for (const name in value) {
    const part: unknown = value[name];
    if (typeof part === "object") deepFreeze(part);
  }
  return value;
}

/** Bytes that a value takes in memory, roughly: what a bound in bytes counts. Depth and width are walked up to a limit. */
export function roughBytes(value: unknown): number {
  let left = 10_000;
  const walk = (part: unknown): number => {
    if (left-- <= 0) return 8;
    switch (typeof part) {
      case "string":
        return 24 + part.length;
      case "number":
      case "boolean":
      case "undefined":
        return 8;
      case "object":
        break;
      default:
        return 16;
    }
    if (part === null) return 8;
    if (ArrayBuffer.isView(part)) return 64 + part.byteLength;
    let bytes = 32;
    if (part instanceof Map) for (const [key, item] of part) bytes += walk(key) + walk(item);
    else if (part instanceof Set) for (const item of part) bytes += walk(item);
    else for (const key of Object.keys(part)) bytes += 8 + walk((part as Record<string, unknown>)[key]);
    return bytes;
  };
  return walk(value);
}
