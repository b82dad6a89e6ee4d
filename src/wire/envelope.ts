/**
 * A frame's payload is a sequence of messages, as many as one turn brought together:
 *
 *   | u8 type | varint length | body: `length` bytes | u8 type | ...
 *
 * A type that the reader does not know is skipped by its length, and so is what follows the known fields of a body: older
 * and newer versions understand each other by that alone. The length is written as a varint padded to four bytes, so that
 * a body is written in place and its length put in afterwards, without a second buffer.
 */
import { assert } from "../base/assert.ts";
import { ByteReader, type ByteWriter } from "../base/byte-codec.ts";
import { conclaveError } from "../base/errors.ts";

/** Every message has one number, whoever sends it. 64 and above belong to the consensus protocols. */
export const messageTypes = {
  txn: 1,
  read: 2,
  openSession: 3,
  closeSession: 4,
  keepAlive: 5,
  watchOpen: 6,
  watchClose: 7,
  watchCredit: 8,
  status: 9,
  ping: 10,
  admin: 11,

  welcome: 32,
  refuse: 33,
  outcome: 34,
  refused: 35,
  ready: 36,
  watchBatch: 37,
  watchEnd: 38,
  leader: 39,
  pong: 40,
  statusReply: 41,
} as const;

/** Four groups of seven bits. */
const bodyBytesMax = 2 ** 28 - 1;

/** Starts a message and answers where its body began, for `endMessage`. */
export function beginMessage(writer: ByteWriter, type: number): number {
  writer.u8(type);
  return beginLength(writer);
}

export function endMessage(writer: ByteWriter, at: number): void {
  endLength(writer, at);
}

/** Leaves room for a length; `endLength` puts it in once what follows is written. Reads as a varint. */
export function beginLength(writer: ByteWriter): number {
  writer.u32(0);
  return writer.length;
}

export function endLength(writer: ByteWriter, at: number): void {
  const bytes = writer.length - at;
  assert(bytes <= bodyBytesMax, "a message's body is below 256 MiB");
  // Seven bits a byte; the high bits of the first three say that more follow.
  const groups = (bytes & 0x7f) | ((bytes & 0x3f80) << 1) | ((bytes & 0x1f_c000) << 2) | ((bytes & 0xfe0_0000) << 3);
  writer.patchU32(at - 4, groups | 0x80_8080);
}

/**
 * Calls back for each message, with a reader bounded to its body. The reader is used again for the next message.
 * @throws PROTOCOL (the frame is not made of messages)
 */
export function readMessages(frame: Uint8Array, onMessage: (type: number, body: ByteReader) => void): void {
  const outer = new ByteReader(frame);
  const body = new ByteReader(frame, 0, 0);
  while (outer.remaining > 0) {
    const type = outer.u8();
    const bytes = outer.varint();
    const from = outer.offset;
    if (bytes > outer.remaining) {
      throw conclaveError("PROTOCOL", `A message of type ${type} claims ${bytes} bytes where ${outer.remaining} are left.`);
    }
    outer.reset(frame, from + bytes);
    body.reset(frame, from, from + bytes);
    onMessage(type, body);
  }
}
