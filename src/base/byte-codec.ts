/**
 * Bytes written and read by hand: what commands, log records, frames and snapshots are made of.
 *
 * Numbers are little-endian. `varint` is LEB128: seven bits a byte, low ones first, the high bit says that more follow;
 * one byte below 128, at most eight for 2^53 - 1. `bytes`, `binaryString` and `utf8` are a varint length and then that much.
 * The writer is reused and grows; the reader takes nothing on trust: short or impossible input is PROTOCOL, before any
 * allocation that the input's own length does not justify.
 */
import { assert } from "./assert.ts";
import { ByteSlab, onHeapBytesMax } from "./byte-slab.ts";
import { isAscii, utf8Decode } from "./bytes.ts";
import { conclaveError } from "./errors.ts";

// The platform's byte order must not show: DataView fixes it.
const scratch = new Uint8Array(8);
const scratchView = new DataView(scratch.buffer);
const encoder = new TextEncoder();
/** Where copies of middle size are: most of them live as long as their neighbours. */
const slab = new ByteSlab();

/** Appends to a buffer that grows. `finish` hands out a copy and starts anew, so one writer serves many messages. */
export class ByteWriter {
  #buffer: Uint8Array;
  #length = 0;
  readonly #retainedBytesMax: number;

  /** A buffer grown beyond `retainedBytesMax` is let go of at the next `finish` or `reset`. */
  constructor(options: { readonly initialBytes?: number; readonly retainedBytesMax?: number } = {}) {
    this.#buffer = new Uint8Array(options.initialBytes ?? 256);
    this.#retainedBytesMax = options.retainedBytesMax ?? 1_048_576;
  }

  /** Bytes written since the last `finish` or `reset`. */
  get length(): number {
    return this.#length;
  }

  u8(value: number): void {
    const at = this.#length;
    if (at === this.#buffer.length) this.#grow(1);
    this.#buffer[at] = value;
    this.#length = at + 1;
  }

  u32(value: number): void {
    if (this.#length + 4 > this.#buffer.length) this.#grow(4);
    putU32(this.#buffer, this.#length, value);
    this.#length += 4;
  }

  /** A whole number, 0 to 2^53 - 1. */
  varint(value: number): void {
    let at = this.#length;
    if (at + 8 > this.#buffer.length) this.#grow(8);
    const buffer = this.#buffer;
    // Small and whole: the common case needs no further check, the next one holds for every lawful value.
    if (value < 0x80 && value >= 0 && Number.isInteger(value)) {
      buffer[at] = value;
      this.#length = at + 1;
      return;
    }
    assert(Number.isSafeInteger(value) && value >= 0, "a varint is a whole number from 0 to 2^53 - 1");
    // Bit operations work on 32 bits: divide until the rest fits.
    while (value >= 0x8000_0000) {
      buffer[at++] = (value % 0x80) | 0x80;
      value = Math.floor(value / 0x80);
    }
    while (value >= 0x80) {
      buffer[at++] = (value & 0x7f) | 0x80;
      value >>>= 7;
    }
    buffer[at++] = value;
    this.#length = at;
  }

  f64(value: number): void {
    if (this.#length + 8 > this.#buffer.length) this.#grow(8);
    scratchView.setFloat64(0, value, true);
    this.#buffer.set(scratch, this.#length);
    this.#length += 8;
  }

  /** The bytes without a length before them. */
  raw(bytes: Uint8Array): void {
    const { length } = bytes;
    if (this.#length + length > this.#buffer.length) this.#grow(length);
    const buffer = this.#buffer;
    const start = this.#length;
    // A call of `set` costs more than so many single bytes.
    if (length > 24) buffer.set(bytes, start);
    else for (let at = 0; at < length; at++) buffer[start + at] = bytes[at] as number;
    this.#length = start + length;
  }

  bytes(bytes: Uint8Array): void {
    this.varint(bytes.length);
    this.raw(bytes);
  }

  /** One character per byte; a character above 255 is a defect of the caller. */
  binaryString(text: string): void {
    const length = text.length;
    this.varint(length);
    if (this.#length + length > this.#buffer.length) this.#grow(length);
    const buffer = this.#buffer;
    const start = this.#length;
    let seen = 0;
    for (let at = 0; at < length; at++) {
      const code = text.charCodeAt(at);
      seen |= code;
      buffer[start + at] = code;
    }
    assert(seen < 0x100, "a binary string has one character per byte");
    this.#length = start + length;
  }

  utf8(text: string): void {
    // Most names are: written without a buffer of their own.
    if (text.length <= 64 && isAscii(text)) this.binaryString(text);
    else this.bytes(encoder.encode(text));
  }

  /** Puts a u32 over four bytes that were written before, for lengths and checksums known only at the end. */
  patchU32(at: number, value: number): void {
    assert(at >= 0 && at + 4 <= this.#length, "a patch lies within what was written");
    putU32(this.#buffer, at, value);
  }

  /** What was written, as a view that the next call on the writer may overwrite. For checksums. */
  view(): Uint8Array {
    return this.#buffer.subarray(0, this.#length);
  }

  /** A copy of what was written, which nobody else writes to; the writer starts anew. */
  finish(): Uint8Array {
    const bytes = slab.copy(this.#buffer, 0, this.#length);
    this.reset();
    return bytes;
  }

  reset(): void {
    this.#length = 0;
    if (this.#buffer.length > this.#retainedBytesMax) this.#buffer = new Uint8Array(256);
  }

  #grow(bytes: number): void {
    const grown = new Uint8Array(Math.max(this.#buffer.length * 2, this.#length + bytes, 64));
    grown.set(this.#buffer.subarray(0, this.#length));
    this.#buffer = grown;
  }
}

/** Reads what a `ByteWriter` wrote. Every method throws PROTOCOL where the input is too short or impossible. */
export class ByteReader {
  #buffer: Uint8Array;
  #at: number;
  #end: number;

  constructor(buffer: Uint8Array, from = 0, to: number = buffer.length) {
    assert(from >= 0 && from <= to && to <= buffer.length, "a reader's bounds lie within its buffer");
    this.#buffer = buffer;
    this.#at = from;
    this.#end = to;
  }

  /** Starts on other input, so that one reader serves many messages. */
  reset(buffer: Uint8Array, from = 0, to: number = buffer.length): void {
    assert(from >= 0 && from <= to && to <= buffer.length, "a reader's bounds lie within its buffer");
    this.#buffer = buffer;
    this.#at = from;
    this.#end = to;
  }

  /** Position in the buffer. */
  get offset(): number {
    return this.#at;
  }

  get remaining(): number {
    return this.#end - this.#at;
  }

  u8(): number {
    if (this.#at >= this.#end) throw short();
    return this.#buffer[this.#at++] as number;
  }

  u32(): number {
    const at = this.#take(4);
    const buffer = this.#buffer;
    return (
      ((buffer[at] as number) |
        ((buffer[at + 1] as number) << 8) |
        ((buffer[at + 2] as number) << 16) |
        ((buffer[at + 3] as number) << 24)) >>>
      0
    );
  }

  varint(): number {
    const buffer = this.#buffer;
    let at = this.#at;
    if (at >= this.#end) throw short();
    let byte = buffer[at++] as number;
    if (byte < 0x80) {
      this.#at = at;
      return byte;
    }
    let value = byte & 0x7f;
    let scale = 0x80;
    do {
      if (at >= this.#end) throw short();
      byte = buffer[at++] as number;
      value += (byte & 0x7f) * scale;
      scale *= 0x80;
      // Eight bytes carry 2^53 - 1; a ninth could only lose precision.
    } while (byte >= 0x80 && scale < 2 ** 56);
    if (byte >= 0x80 || value > Number.MAX_SAFE_INTEGER) throw impossible("a number above 2^53 - 1");
    this.#at = at;
    return value;
  }

  /**
   * A varint that says how many items follow, each of at least `itemBytesMin` (1 or more): more than the rest of the
   * input can hold is refused, so that a list of that length may be allocated.
   */
  count(itemBytesMin = 1): number {
    const count = this.varint();
    if (count > this.remaining / itemBytesMin) throw impossible(`a list of ${count} items in ${this.remaining} bytes`);
    return count;
  }

  f64(): number {
    const at = this.#take(8);
    for (let index = 0; index < 8; index++) scratch[index] = this.#buffer[at + index] as number;
    return scratchView.getFloat64(0, true);
  }

  /** A view of the next bytes, without a length before them; copy what must outlive the input. */
  raw(lengthBytes: number): Uint8Array {
    const at = this.#take(lengthBytes);
    return this.#buffer.subarray(at, at + lengthBytes);
  }

  skip(lengthBytes: number): void {
    this.#take(lengthBytes);
  }

  /** A view; copy what must outlive the input. */
  bytes(): Uint8Array {
    return this.raw(this.varint());
  }

  /** A view, or a copy of so small an input that a view would first move it out of the engine's heap. For what may keep the input alive. */
  bytesWithin(): Uint8Array {
    return this.#buffer.length <= onHeapBytesMax ? this.bytesCopied() : this.bytes();
  }

  /** As `bytes`, but a copy. For what outlives the input, and much cheaper than a view that is copied then. */
  bytesCopied(): Uint8Array {
    const lengthBytes = this.varint();
    const at = this.#take(lengthBytes);
    return slab.copy(this.#buffer, at, at + lengthBytes);
  }

  binaryString(): string {
    const length = this.varint();
    const start = this.#take(length);
    return binaryStringOf(this.#buffer, start, start + length);
  }

  /** Bytes that are no UTF-8 become U+FFFD. */
  utf8(): string {
    const length = this.varint();
    const start = this.#take(length);
    // Most names are short and plain: read without a view and a call of the platform.
    if (length <= 64 && isAsciiBetween(this.#buffer, start, start + length))
      return binaryStringOf(this.#buffer, start, start + length);
    return utf8Decode(this.#buffer.subarray(start, start + length));
  }

  /** Throws when something is left over. */
  end(): void {
    if (this.#at !== this.#end) throw impossible(`${this.remaining} bytes after the end`);
  }

  #take(lengthBytes: number): number {
    const at = this.#at;
    if (lengthBytes > this.#end - at) throw short();
    this.#at = at + lengthBytes;
    return at;
  }
}

function putU32(buffer: Uint8Array, at: number, value: number): void {
  buffer[at] = value;
  buffer[at + 1] = value >>> 8;
  buffer[at + 2] = value >>> 16;
  buffer[at + 3] = value >>> 24;
}

/** Eight characters a call: several times faster than one by one or `apply` on a view. */
function binaryStringOf(buffer: Uint8Array, from: number, to: number): string {
  let text = "";
  let at = from;
  for (; at + 8 <= to; at += 8) {
    text += String.fromCharCode(
      buffer[at] as number,
      buffer[at + 1] as number,
      buffer[at + 2] as number,
      buffer[at + 3] as number,
      buffer[at + 4] as number,
      buffer[at + 5] as number,
      buffer[at + 6] as number,
      buffer[at + 7] as number,
    );
  }
  for (; at < to; at++) text += String.fromCharCode(buffer[at] as number);
  return text;
}

function isAsciiBetween(buffer: Uint8Array, from: number, to: number): boolean {
  let seen = 0;
  for (let at = from; at < to; at++) seen |= buffer[at] as number;
  return seen < 0x80;
}

function short(): Error {
  return conclaveError("PROTOCOL", "The input ends in the middle of a field.");
}

function impossible(what: string): Error {
  return conclaveError("PROTOCOL", `The input holds ${what}.`);
}
