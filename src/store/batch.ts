/**
 * The payload of a log entry: many commands under one index, so that one agreement and one disk sync serve them all.
 *
 *     u8 format version | varint count | count times (varint length | command)
 */
import { ByteReader, ByteWriter } from "../base/byte-codec.ts";
import { conclaveError } from "../base/errors.ts";

export const batchFormat = 1;

const writer = new ByteWriter();

export function encodeBatch(commands: readonly Uint8Array[]): Uint8Array {
  writer.reset();
  writer.u8(batchFormat);
  writer.varint(commands.length);
  for (const command of commands) writer.bytes(command);
  return writer.finish();
}

/**
 * Goes through a batch without making anything: `while (batch.next()) use(batch.payload, batch.from, batch.to)`.
 * @throws PROTOCOL for an unknown format or a batch that is cut short: a member that cannot read its log must stop.
 */
export class BatchReader {
  readonly payload: Uint8Array;
  /** How many commands there are. */
  readonly count: number;
  /** Place of the present command in the batch, from 0. */
  position = -1;
  /** Bounds of the present command in the payload. */
  from = 0;
  to = 0;
  readonly #reader: ByteReader;

  constructor(payload: Uint8Array) {
    this.payload = payload;
    this.#reader = new ByteReader(payload);
    const format = this.#reader.u8();
    if (format !== batchFormat)
      throw conclaveError("PROTOCOL", `A batch has format ${format}; this version reads ${batchFormat}.`);
    this.count = this.#reader.count();
  }

  /** False after the last. */
  next(): boolean {
    if (this.position + 1 >= this.count) {
      this.#reader.end();
      return false;
    }
    this.position++;
    const length = this.#reader.varint();
    this.from = this.#reader.offset;
    this.#reader.skip(length);
    this.to = this.#reader.offset;
    return true;
  }

  /** A view of the present command. */
  command(): Uint8Array {
    return this.payload.subarray(this.from, this.to);
  }
}
