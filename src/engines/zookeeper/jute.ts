/**
 * Jute, ZooKeeper's record format: big-endian numbers, length-prefixed texts and buffers, vectors by count.
 * Source: zookeeper-jute, BinaryOutputArchive.java and BinaryInputArchive.java. -1 as a length is null.
 */
import { conclaveError } from "../../base/errors.ts";

const two32 = 2 ** 32;

export class JuteWriter {
  #bytes = Buffer.allocUnsafe(128);
  #length = 0;

  int(value: number): this {
    this.#reserve(4);
    this.#length = this.#bytes.writeInt32BE(value, this.#length);
    return this;
  }

  /** A whole number from 0 to 2^53 - 1. */
  long(value: number): this {
    this.#reserve(8);
    this.#length = this.#bytes.writeUInt32BE(Math.floor(value / two32), this.#length);
    this.#length = this.#bytes.writeUInt32BE(value % two32, this.#length);
    return this;
  }

  flag(value: boolean): this {
    this.#reserve(1);
    this.#bytes[this.#length++] = value ? 1 : 0;
    return this;
  }

  text(value: string): this {
    const length = Buffer.byteLength(value);
    this.#reserve(4 + length);
    this.#length = this.#bytes.writeInt32BE(length, this.#length);
    this.#length += this.#bytes.write(value, this.#length);
    return this;
  }

  buffer(value: Uint8Array): this {
    this.int(value.length);
    return this.raw(value);
  }

  /** Bytes as they are. */
  raw(value: Uint8Array): this {
    this.#reserve(value.length);
    this.#bytes.set(value, this.#length);
    this.#length += value.length;
    return this;
  }

  finish(): Buffer {
    return this.#bytes.subarray(0, this.#length);
  }

  #reserve(more: number): void {
    if (this.#length + more <= this.#bytes.length) return;
    const grown = Buffer.allocUnsafe(Math.max(this.#bytes.length * 2, this.#length + more));
    this.#bytes.copy(grown, 0, 0, this.#length);
    this.#bytes = grown;
  }
}

export class JuteReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get remaining(): number {
    return this.#bytes.length - this.#at;
  }

  int(): number {
    return this.#bytes.readInt32BE(this.#take(4));
  }

  /** A zxid. @throws REVISION_LIMIT (2^53 or beyond: after two million elections) */
  long(): number {
    const at = this.#take(8);
    const high = this.#bytes.readInt32BE(at);
    if (high >= 2 ** 21) throw conclaveError("REVISION_LIMIT", "ZooKeeper answered with a zxid beyond 2^53.");
    return high * two32 + this.#bytes.readUInt32BE(at + 4);
  }

  /** 64 bits that are no number of ours, as hexadecimal digits. */
  bits(): string {
    const at = this.#take(8);
    return this.#bytes.toString("hex", at, at + 8);
  }

  flag(): boolean {
    return this.#bytes[this.#take(1)] !== 0;
  }

  text(): string {
    return this.buffer().toString("utf8");
  }

  buffer(): Buffer {
    const length = Math.max(0, this.int());
    const at = this.#take(length);
    return this.#bytes.subarray(at, at + length);
  }

  #take(count: number): number {
    if (count > this.remaining) throw conclaveError("PROTOCOL", "ZooKeeper's answer is cut short.", { definite: false });
    const at = this.#at;
    this.#at += count;
    return at;
  }
}
