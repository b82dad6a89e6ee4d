/**
 * The bytes of Multi-Paxos' letters.
 *
 * ```
 * [u8 kind][body by kind]                                                    one letter; a frame holds one
 * consecutive entries:  [varint first index][varint count] entry ...         an index each would say the same again
 * entry:                [varint term][u8 kind][f64 stamp][varint length][payload]
 * entries with holes:   [varint count] then [varint index][varint ballot] entry ...
 * ```
 * What follows a body that this version knows is skipped, so a later version may append fields.
 * Decoding copies payloads out of the frame, which belongs to the connection, and takes nothing on trust.
 */
import { ByteReader, type ByteWriter } from "../base/byte-codec.ts";
import { conclaveError } from "../base/errors.ts";
import type { EntryKind, Index, LogEntry, Term } from "../consensus/core.ts";
import type { PaxosMessage } from "../consensus/paxos/messages.ts";

/** Each protocol's kinds are its own: see `replica/protocol.ts`. */
const kindsFrom = 32;
const kinds = [
  "prepare",
  "promise",
  "nack",
  "accept",
  "accepted",
  "heartbeat",
  "heartbeat-reply",
  "ask",
  "learn",
  "snapshot",
  "snapshot-ask",
] as const satisfies readonly PaxosMessage["kind"][];
const entryKinds = ["noop", "batch", "configuration"] as const satisfies readonly EntryKind[];
/** The least that an entry takes, so that a count which the frame cannot hold is refused before anything is made. */
const entryBytesMin = 11;

export function encodePaxosMessage(writer: ByteWriter, message: PaxosMessage): void {
  writer.u8(kindsFrom + kinds.indexOf(message.kind));
  switch (message.kind) {
    case "prepare":
      writer.varint(message.ballot);
      writer.u8(message.dryRun ? 1 : 0);
      writer.varint(message.from);
      break;
    case "promise":
      writer.varint(message.ballot);
      writer.u8(message.dryRun ? 1 : 0);
      writer.varint(message.from);
      writer.varint(message.next);
      writer.varint(message.chosen);
      encodeWithBallots(writer, message.entries);
      break;
    case "nack":
      writer.varint(message.promised);
      writer.u8(message.behind ? 1 : 0);
      break;
    case "accept":
      writer.varint(message.ballot);
      writer.varint(message.chosen);
      writer.varint(message.entries[0]?.index ?? 0);
      writer.varint(message.entries.length);
      for (const entry of message.entries) encodeValue(writer, entry);
      break;
    case "accepted":
      writer.varint(message.ballot);
      writer.varint(message.first);
      writer.varint(message.last);
      writer.varint(message.upTo);
      break;
    case "heartbeat":
      writer.varint(message.ballot);
      writer.varint(message.round);
      writer.varint(message.chosen);
      writer.varint(message.sent);
      break;
    case "heartbeat-reply":
      writer.varint(message.ballot);
      writer.varint(message.round);
      writer.varint(message.chosen);
      writer.varint(message.missing);
      writer.varint(message.upTo);
      break;
    case "ask":
      writer.varint(message.from);
      break;
    case "learn":
      writer.varint(message.chosen);
      encodeWithBallots(writer, message.entries);
      break;
    case "snapshot":
      writer.varint(message.index);
      writer.varint(message.term);
      writer.varint(message.offset);
      writer.u8(message.done ? 1 : 0);
      writer.bytes(message.bytes);
      break;
    case "snapshot-ask":
      writer.varint(message.index);
      writer.varint(message.offset);
      break;
  }
}

/** @throws PROTOCOL when the bytes are no letter of ours. */
export function decodePaxosMessage(frame: Uint8Array): PaxosMessage {
  const reader = new ByteReader(frame);
  const kind = kinds[reader.u8() - kindsFrom];
  switch (kind) {
    case "prepare":
      return { kind, ballot: reader.varint(), dryRun: reader.u8() === 1, from: reader.varint() };
    case "promise":
      return {
        kind,
        ballot: reader.varint(),
        dryRun: reader.u8() === 1,
        from: reader.varint(),
        next: reader.varint(),
        chosen: reader.varint(),
        entries: decodeWithBallots(reader),
      };
    case "nack":
      return { kind, promised: reader.varint(), behind: reader.u8() === 1 };
    case "accept": {
      const [ballot, chosen, first, count] = [reader.varint(), reader.varint(), reader.varint(), reader.count(entryBytesMin)];
      if (!Number.isSafeInteger(first + count)) throw conclaveError("PROTOCOL", "The peer sent slots beyond 2^53.");
      const entries: LogEntry[] = [];
      for (let at = 0; at < count; at++) entries.push(decodeValue(reader, { index: first + at, ballot }));
      return { kind, ballot, chosen, entries };
    }
    case "accepted":
      return { kind, ballot: reader.varint(), first: reader.varint(), last: reader.varint(), upTo: reader.varint() };
    case "heartbeat":
      return { kind, ballot: reader.varint(), round: reader.varint(), chosen: reader.varint(), sent: reader.varint() };
    case "heartbeat-reply":
      return {
        kind,
        ballot: reader.varint(),
        round: reader.varint(),
        chosen: reader.varint(),
        missing: reader.varint(),
        upTo: reader.varint(),
      };
    case "ask":
      return { kind, from: reader.varint() };
    case "learn":
      return { kind, chosen: reader.varint(), entries: decodeWithBallots(reader) };
    case "snapshot":
      return {
        kind,
        index: reader.varint(),
        term: reader.varint(),
        offset: reader.varint(),
        done: reader.u8() === 1,
        bytes: reader.bytesCopied(),
      };
    case "snapshot-ask":
      return { kind, index: reader.varint(), offset: reader.varint() };
    default:
      throw conclaveError("PROTOCOL", "The peer sent a letter of unknown kind.");
  }
}

function encodeWithBallots(writer: ByteWriter, entries: readonly LogEntry[]): void {
  writer.varint(entries.length);
  for (const entry of entries) {
    writer.varint(entry.index);
    writer.varint(entry.ballot ?? 0);
    encodeValue(writer, entry);
  }
}

function decodeWithBallots(reader: ByteReader): LogEntry[] {
  const entries: LogEntry[] = [];
  for (let left = reader.count(entryBytesMin + 2); left > 0; left--) {
    entries.push(decodeValue(reader, { index: reader.varint(), ballot: reader.varint() }));
  }
  return entries;
}

function encodeValue(writer: ByteWriter, entry: LogEntry): void {
  writer.varint(entry.term);
  writer.u8(entryKinds.indexOf(entry.kind));
  writer.f64(entry.stampMs);
  writer.bytes(entry.payload);
}

function decodeValue(reader: ByteReader, at: { readonly index: Index; readonly ballot: Term }): LogEntry {
  const [term, kind, stampMs] = [reader.varint(), entryKinds[reader.u8()], reader.f64()];
  if (kind === undefined) throw conclaveError("PROTOCOL", "The peer sent a log entry of unknown kind.");
  if (!Number.isFinite(stampMs) || stampMs < 0) throw conclaveError("PROTOCOL", "The peer sent a stamp that is no time.");
  return { index: at.index, term, kind, stampMs, payload: reader.bytesCopied(), ballot: at.ballot };
}
