/**
 * Fields by number, for the few messages that must be understood across versions whatever happens: hello, welcome, refuse.
 *
 *   | varint tag | varint length | value | varint tag | ...
 *
 * An unknown tag is skipped by its length. Of a tag that comes twice the last counts.
 */
import { type ByteReader, ByteWriter } from "../base/byte-codec.ts";

/** Writes one field after another. */
export class TaggedFields {
  readonly #value = new ByteWriter({ initialBytes: 64 });
  readonly #writer: ByteWriter;

  constructor(writer: ByteWriter) {
    this.#writer = writer;
  }

  /** The value is what `write` appends. */
  put(tag: number, write: (value: ByteWriter) => void): void {
    write(this.#value);
    this.#writer.varint(tag);
    this.#writer.bytes(this.#value.view());
    this.#value.reset();
  }

  text(tag: number, text: string | undefined): void {
    if (text !== undefined) this.put(tag, (value) => value.utf8(text));
  }

  number(tag: number, number: number): void {
    this.put(tag, (value) => value.varint(number));
  }
}

/** Calls back for each field until the reader's end, with a reader bounded to the value. */
export function readTaggedFields(reader: ByteReader, body: ByteReader, onField: (tag: number, value: ByteReader) => void): void {
  while (reader.remaining > 0) {
    const tag = reader.varint();
    const value = reader.bytes();
    body.reset(value);
    onField(tag, body);
  }
}
