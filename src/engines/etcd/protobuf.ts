/**
 * Protocol Buffers, as little of it as etcd's API needs: varints and length-delimited fields, written and read by hand.
 *
 *     field   | varint (field number << 3 | wire type) | varint value            |   wire type 0
 *             | varint (field number << 3 | wire type) | varint length | bytes   |   wire type 2
 *
 * Source: Protocol Buffers encoding guide. A default value (0, empty) is left out, as proto3 does; unknown fields are skipped.
 * 64-bit numbers are numbers where they are safe; an id that is not comes as its decimal text.
 */
import { conclaveError } from "../../base/errors.ts";

const two32 = 2 ** 32;

export class ProtoWriter {
  #bytes = Buffer.allocUnsafe(256);
  #length = 0;

  /** A number from 0 to 2^53 - 1. */
  number(field: number, value: number): this {
    if (value === 0) return this;
    this.#reserve(20);
    this.#varint(field * 8);
    this.#varint(value);
    return this;
  }

  flag(field: number, value: boolean): this {
    return this.number(field, value ? 1 : 0);
  }

  /** One byte for each character. `always`: also where it is empty, in a oneof. */
  binary(field: number, text: string, always = false): this {
    if (text.length === 0 && !always) return this;
    this.#reserve(20 + text.length);
    this.#varint(field * 8 + 2);
    this.#varint(text.length);
    this.#length += this.#bytes.write(text, this.#length, "latin1");
    return this;
  }

  bytes(field: number, bytes: Uint8Array, always = false): this {
    if (bytes.length === 0 && !always) return this;
    this.#reserve(20 + bytes.length);
    this.#varint(field * 8 + 2);
    this.#varint(bytes.length);
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
    return this;
  }

  /** A message, also where it is empty. */
  message(field: number, write: (writer: ProtoWriter) => void): this {
    const inner = new ProtoWriter();
    write(inner);
    return this.bytes(field, inner.#bytes.subarray(0, inner.#length), true);
  }

  finish(): Buffer {
    return this.#bytes.subarray(0, this.#length);
  }

  #varint(value: number): void {
    let rest = value;
    while (rest >= 0x80) {
      this.#bytes[this.#length++] = (rest % 0x80) | 0x80;
      rest = Math.floor(rest / 0x80);
    }
    this.#bytes[this.#length++] = rest;
  }

  #reserve(more: number): void {
    if (this.#length + more <= this.#bytes.length) return;
    const grown = Buffer.allocUnsafe(Math.max(this.#bytes.length * 2, this.#length + more));
    this.#bytes.copy(grown, 0, 0, this.#length);
    this.#bytes = grown;
  }
}

export class ProtoReader {
  readonly #bytes: Buffer;
  #at: number;
  readonly #end: number;
  #low = 0;
  #high = 0;
  #wireType = 0;

  constructor(bytes: Buffer, at = 0, end = bytes.length) {
    this.#bytes = bytes;
    this.#at = at;
    this.#end = end;
  }

  /** The next field's number, whose value must be read or skipped; 0 at the end. */
  field(): number {
    if (this.#at >= this.#end) return 0;
    this.#varint();
    this.#wireType = this.#low & 7;
    return this.#low >>> 3;
  }

  /** @throws REVISION_LIMIT (2^53 or beyond, or negative: nothing here is either) */
  number(): number {
    this.#varint();
    if (this.#high >= 2 ** 21) throw conclaveError("REVISION_LIMIT", "etcd answered with a number beyond 2^53.");
    return this.#high * two32 + this.#low;
  }

  /** A signed number, as TTLs are: -1 says that there is none. */
  signed(): number {
    this.#varint();
    return this.#high >= 2 ** 31 ? (this.#high - two32) * two32 + this.#low : this.#high * two32 + this.#low;
  }

  /** An id of 64 bits, in decimal digits. */
  id(): string {
    this.#varint();
    if (this.#high < 2 ** 21) return String(this.#high * two32 + this.#low);
    return String((BigInt(this.#high) << 32n) | BigInt(this.#low));
  }

  flag(): boolean {
    this.#varint();
    return this.#low !== 0;
  }

  bytes(): Buffer {
    const start = this.#span();
    return this.#bytes.subarray(start, this.#at);
  }

  binary(): string {
    const start = this.#span();
    return this.#bytes.toString("latin1", start, this.#at);
  }

  text(): string {
    const start = this.#span();
    return this.#bytes.toString("utf8", start, this.#at);
  }

  message(): ProtoReader {
    const start = this.#span();
    return new ProtoReader(this.#bytes, start, this.#at);
  }

  skip(): void {
    switch (this.#wireType) {
      case 0:
        this.#varint();
        return;
      case 1:
        this.#forward(8);
        return;
      case 2:
        this.#span();
        return;
      case 5:
        this.#forward(4);
        return;
      default:
        throw garbage();
    }
  }

  #span(): number {
    this.#varint();
    const start = this.#at;
    this.#forward(this.#high > 0 ? Number.POSITIVE_INFINITY : this.#low);
    return start;
  }

  #forward(count: number): void {
    if (count > this.#end - this.#at) throw garbage();
    this.#at += count;
  }

  /** Into `#low` and `#high`, 32 bits each. */
  #varint(): void {
    let low = 0;
    let high = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      if (this.#at >= this.#end) throw garbage();
      const byte = this.#bytes[this.#at++] as number;
      const bits = byte & 0x7f;
      if (shift < 28) low |= bits << shift;
      else if (shift === 28) {
        low |= bits << 28;
        high |= bits >>> 4;
      } else high |= bits << (shift - 32);
      if (byte < 0x80) {
        this.#low = low >>> 0;
        this.#high = high >>> 0;
        return;
      }
    }
    throw garbage();
  }
}

function garbage(): Error {
  return conclaveError("PROTOCOL", "etcd answered with a message that cannot be read.", { definite: false });
}
