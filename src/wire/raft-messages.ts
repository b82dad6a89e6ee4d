/**
 * The bytes of Raft's letters.
 *
 * ```
 * [u8 kind][varint term][body by kind]          one letter; a frame holds one
 * entry: [varint index][varint term][u8 kind][f64 stamp][varint length][payload]
 * ```
 * What follows a body that this version knows is skipped, so a later version may append fields.
 * Decoding copies payloads out of the frame, which belongs to the connection.
 */
import { ByteReader, type ByteWriter } from "../base/byte-codec.ts";
import { conclaveError } from "../base/errors.ts";
import { decodeConfiguration, encodeConfiguration } from "../consensus/configuration.ts";
import type { EntryKind, LogEntry } from "../consensus/core.ts";
import { isLawful } from "../consensus/raft/lawful.ts";
import type { RaftMessage } from "../consensus/raft/messages.ts";

/** The position is the byte on the wire: append only. */
const kinds = [
  "vote-request",
  "vote-reply",
  "append",
  "append-reply",
  "heartbeat",
  "heartbeat-reply",
  "snapshot",
  "snapshot-reply",
  "timeout-now",
] as const satisfies readonly RaftMessage["kind"][];
const entryKinds = ["noop", "batch", "configuration"] as const satisfies readonly EntryKind[];

export function encodeRaftMessage(writer: ByteWriter, message: RaftMessage): void {
  writer.u8(kinds.indexOf(message.kind));
  writer.varint(message.term);
  switch (message.kind) {
    case "vote-request":
      writer.u8((message.preVote ? 1 : 0) | (message.transfer ? 2 : 0));
      writer.varint(message.lastIndex);
      writer.varint(message.lastTerm);
      break;
    case "vote-reply":
      writer.u8((message.preVote ? 1 : 0) | (message.granted ? 2 : 0));
      break;
    case "append":
      writer.varint(message.previousIndex);
      writer.varint(message.previousTerm);
      writer.varint(message.commitIndex);
      writer.varint(message.entries.length);
      for (const entry of message.entries) encodeEntry(writer, entry);
      break;
    case "append-reply":
      writer.u8(message.accepted ? 1 : 0);
      writer.varint(message.index);
      writer.varint(message.hintIndex);
      writer.varint(message.hintTerm);
      break;
    case "heartbeat":
      writer.varint(message.commitIndex);
      writer.varint(message.round);
      writer.u8(message.lease ? 1 : 0);
      break;
    case "heartbeat-reply":
      writer.varint(message.round);
      writer.varint(message.promisedMs);
      break;
    case "snapshot":
      writer.varint(message.index);
      writer.varint(message.snapshotTerm);
      writer.bytes(encodeConfiguration(message.configuration));
      writer.varint(message.offset);
      writer.u8(message.done ? 1 : 0);
      writer.bytes(message.bytes);
      break;
    case "snapshot-reply":
      writer.varint(message.index);
      writer.varint(message.offset);
      break;
    case "timeout-now":
      break;
  }
}

/** @throws PROTOCOL when the bytes are no letter of ours. */
export function decodeRaftMessage(frame: Uint8Array): RaftMessage {
  const message = decodeShape(frame);
  if (!isLawful(message)) throw conclaveError("PROTOCOL", `The peer sent a "${message.kind}" that no member sends.`);
  return message;
}

function decodeShape(frame: Uint8Array): RaftMessage {
  const reader = new ByteReader(frame);
  const kind = kinds[reader.u8()];
  const term = reader.varint();
  switch (kind) {
    case "vote-request": {
      const flags = reader.u8();
      const [preVote, transfer] = [(flags & 1) !== 0, (flags & 2) !== 0];
      return { kind, term, preVote, transfer, lastIndex: reader.varint(), lastTerm: reader.varint() };
    }
    case "vote-reply": {
      const flags = reader.u8();
      return { kind, term, preVote: (flags & 1) !== 0, granted: (flags & 2) !== 0 };
    }
    case "append": {
      const previousIndex = reader.varint();
      const previousTerm = reader.varint();
      const commitIndex = reader.varint();
      const entries: LogEntry[] = [];
      for (let left = reader.count(12); left > 0; left--) entries.push(decodeEntry(reader));
      return { kind, term, previousIndex, previousTerm, commitIndex, entries };
    }
    case "append-reply":
      return {
        kind,
        term,
        accepted: reader.u8() === 1,
        index: reader.varint(),
        hintIndex: reader.varint(),
        hintTerm: reader.varint(),
      };
    case "heartbeat":
      return { kind, term, commitIndex: reader.varint(), round: reader.varint(), lease: reader.u8() === 1 };
    case "heartbeat-reply":
      return { kind, term, round: reader.varint(), promisedMs: reader.varint() };
    case "snapshot":
      return {
        kind,
        term,
        index: reader.varint(),
        snapshotTerm: reader.varint(),
        configuration: decodeConfiguration(reader.bytes()),
        offset: reader.varint(),
        done: reader.u8() === 1,
        bytes: reader.bytesCopied(),
      };
    case "snapshot-reply":
      return { kind, term, index: reader.varint(), offset: reader.varint() };
    case "timeout-now":
      return { kind, term };
    default:
      throw conclaveError("PROTOCOL", "The peer sent a letter of unknown kind.");
  }
}

function encodeEntry(writer: ByteWriter, entry: LogEntry): void {
  writer.varint(entry.index);
  writer.varint(entry.term);
  writer.u8(entryKinds.indexOf(entry.kind));
  writer.f64(entry.stampMs);
  writer.bytes(entry.payload);
}

function decodeEntry(reader: ByteReader): LogEntry {
  const index = reader.varint();
  const term = reader.varint();
  const kind = entryKinds[reader.u8()];
  const stampMs = reader.f64();
  if (kind === undefined) throw conclaveError("PROTOCOL", "The peer sent a log entry of unknown kind.");
  const payload = reader.bytesCopied();
  // Whoever appends it acts on it at once.
  if (kind === "configuration") decodeConfiguration(payload);
  return { index, term, kind, stampMs, payload };
}
