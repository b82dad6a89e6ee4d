/**
 * The bytes of PBFT's letters: `[u8 kind][body by kind]`, one letter a frame. Statements travel as they were signed
 * (`consensus/pbft/statements.ts`).
 *
 * Unlike the letters of Raft nothing may follow a body: a letter with a tail is refused, because what is hashed and signed
 * must have one form. Decoding copies what it keeps out of the frame, which belongs to the connection.
 */
import { ByteReader, type ByteWriter } from "../base/byte-codec.ts";
import { conclaveError } from "../base/errors.ts";
import type {
  Checkpoint,
  Commit,
  NewView,
  PbftMessage,
  PrePrepare,
  Prepare,
  Reply,
  RequestFrame,
  ViewChange,
} from "../consensus/pbft/messages.ts";
import { readBatch, readSigned, readSignedList, writeSigned, writeSignedList } from "../consensus/pbft/statements.ts";

/** The position is the byte on the wire: append only. */
const kinds = [
  "request",
  "pre-prepare",
  "prepare",
  "commit",
  "checkpoint",
  "stable",
  "view-change",
  "new-view",
  "status",
  "fetch-batch",
  "batch",
  "fetch-parts",
  "parts",
  "fetch-part",
  "part",
  "reply",
] as const satisfies readonly PbftMessage["kind"][];

export function encodePbftMessage(writer: ByteWriter, message: PbftMessage): void {
  writer.u8(kinds.indexOf(message.kind));
  switch (message.kind) {
    case "request":
      writeSigned(writer, message.frame);
      break;
    case "pre-prepare":
      writeSigned(writer, message.proposal);
      writeSignedList(writer, message.batch);
      break;
    case "prepare":
    case "commit":
      writeSigned(writer, message.vote);
      break;
    case "checkpoint":
      writeSigned(writer, message.checkpoint);
      break;
    case "stable":
      writeSignedList(writer, message.checkpoints);
      break;
    case "view-change":
      writeSigned(writer, message.viewChange);
      break;
    case "new-view":
      writeSigned(writer, message.newView);
      break;
    case "status":
      writer.varint(message.view);
      writer.u8(message.active ? 1 : 0);
      writer.varint(message.stable);
      writer.varint(message.executed);
      break;
    case "fetch-batch":
      writer.varint(message.sequence);
      writer.binaryString(message.digest);
      break;
    case "batch":
      writer.varint(message.sequence);
      writeSignedList(writer, message.batch);
      break;
    case "fetch-parts":
      writer.varint(message.sequence);
      break;
    case "parts":
      writer.varint(message.sequence);
      writer.varint(message.digests.length);
      for (const digest of message.digests) writer.binaryString(digest);
      break;
    case "fetch-part":
      writer.varint(message.sequence);
      writer.varint(message.part);
      break;
    case "part":
      writer.varint(message.sequence);
      writer.varint(message.part);
      writer.bytes(message.bytes);
      break;
    case "reply":
      writeSigned(writer, message.reply);
      break;
  }
}

/** @throws PROTOCOL when the bytes are no letter of ours. */
export function decodePbftMessage(frame: Uint8Array): PbftMessage {
  const reader = new ByteReader(frame);
  const message = readMessage(reader);
  reader.end();
  return message;
}

function readMessage(reader: ByteReader): PbftMessage {
  const kind = kinds[reader.u8()];
  switch (kind) {
    case "request":
      return { kind, frame: readSigned<RequestFrame>(reader, "request") };
    case "pre-prepare": {
      const proposal = readSigned<PrePrepare>(reader, "pre-prepare");
      return { kind, proposal, batch: readBatch(reader) };
    }
    case "prepare":
      return { kind, vote: readSigned<Prepare>(reader, "prepare") };
    case "commit":
      return { kind, vote: readSigned<Commit>(reader, "commit") };
    case "checkpoint":
      return { kind, checkpoint: readSigned<Checkpoint>(reader, "checkpoint") };
    case "stable":
      return { kind, checkpoints: readSignedList<Checkpoint>(reader, "checkpoint") };
    case "view-change":
      return { kind, viewChange: readSigned<ViewChange>(reader, "view-change") };
    case "new-view":
      return { kind, newView: readSigned<NewView>(reader, "new-view") };
    case "status":
      return {
        kind,
        view: reader.varint(),
        active: reader.u8() === 1,
        stable: reader.varint(),
        executed: reader.varint(),
      };
    case "fetch-batch":
      return { kind, sequence: reader.varint(), digest: reader.binaryString() };
    case "batch":
      return { kind, sequence: reader.varint(), batch: readBatch(reader) };
    case "fetch-parts":
      return { kind, sequence: reader.varint() };
    case "parts": {
      const sequence = reader.varint();
      const digests: string[] = [];
      for (let left = reader.count(); left > 0; left--) digests.push(reader.binaryString());
      return { kind, sequence, digests };
    }
    case "fetch-part":
      return { kind, sequence: reader.varint(), part: reader.varint() };
    case "part":
      return { kind, sequence: reader.varint(), part: reader.varint(), bytes: reader.bytesCopied() };
    case "reply":
      return { kind, reply: readSigned<Reply>(reader, "reply") };
    default:
      throw conclaveError("PROTOCOL", "The peer sent a letter of unknown kind.");
  }
}
