/**
 * Bytes as strings and back. Inside the machine a key is a *binary string*: one character per byte (0-255), so that
 * `<` compares bytes, `Map` hashes them and nothing can be aliased. At the surface a key is a string (its UTF-8) or bytes.
 */
const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

export const emptyBytes: Uint8Array = new Uint8Array(0);

export function utf8Encode(text: string): Uint8Array {
  return encoder.encode(text);
}

export function utf8Decode(bytes: Uint8Array): string {
  return decoder.decode(bytes);
}

/** One character per byte. */
export function toBinaryString(bytes: Uint8Array): string {
  let text = "";
  if (bytes.length <= 32) {
    for (const byte of bytes) text += String.fromCharCode(byte);
    return text;
  }
  // `apply` has an argument limit: 4,096 at a time stays far below it.
  for (let at = 0; at < bytes.length; at += 4096) {
    text += String.fromCharCode.apply(null, bytes.subarray(at, at + 4096) as unknown as number[]);
  }
  return text;
}

export function fromBinaryString(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
  return bytes;
}

/** The UTF-8 bytes of the text, one character each. Plain ASCII is its own answer. */
export function utf8ToBinaryString(text: string): string {
  return isAscii(text) ? text : toBinaryString(encoder.encode(text));
}

export function binaryStringToUtf8(text: string): string {
  return isAscii(text) ? text : decoder.decode(fromBinaryString(text));
}

/** By hand: every key passes here, and an expression costs several times as much. */
export function isAscii(text: string): boolean {
  for (let at = 0; at < text.length; at++) if (text.charCodeAt(at) > 0x7f) return false;
  return true;
}

export function equalBytes(left: Uint8Array, right: Uint8Array): boolean {
  if (left.length !== right.length) return false;
  for (let at = 0; at < left.length; at++) if (left[at] !== right[at]) return false;
  return true;
}

/** Negative, zero or positive, in the order of unsigned bytes. */
export function compareBytes(left: Uint8Array, right: Uint8Array): number {
  const shared = Math.min(left.length, right.length);
  for (let at = 0; at < shared; at++) {
    const difference = (left[at] as number) - (right[at] as number);
    if (difference !== 0) return difference;
  }
  return left.length - right.length;
}

export function concatBytes(parts: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const part of parts) length += part.length;
  const whole = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
