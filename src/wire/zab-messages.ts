/**
 * The bytes of Zab's letters.
 *
 * ```
 * [u8 kind][body by kind]                                            one letter; a frame holds one
 * entries:   [varint first index][varint count] entry ...            consecutive
 * entry:     [varint term][u8 kind][f64 stamp][varint length][payload]
 * starts:    [varint count] then [varint term][varint first] ...
 * ```
 * What follows a body that this version knows is skipped, so a later version may append fields.
 * Decoding copies payloads out of the frame, which belongs to the connection, and takes nothing on trust.
 */
import { ByteReader, type ByteWriter } from "../base/byte-codec.ts";
import { conclaveError } from "../base/errors.ts";
import type { EntryKind, Index, LogEntry } from "../consensus/core.ts";
import type { EpochStart, ZabMessage } from "../consensus/zab/messages.ts";

/** Each protocol's kinds are its own: see `replica/protocol.ts`. */
const kindsFrom = 64;
const kinds = [
  "looking",
  "settled",
  "follower-info",
  "leader-info",
  "ack-epoch",
  "proposal",
  "ack",
  "new-leader",
  "ack-leader",
  "ping",
  "pong",
  "snapshot",
  "snapshot-ack",
] as const satisfies readonly ZabMessage["kind"][];
const entryKinds = ["noop", "batch", "configuration"] as const satisfies readonly EntryKind[];
/** The least that an entry takes, so that a count which the frame cannot hold is refused before anything is made. */
const entryBytesMin = 11;

export function encodeZabMessage(writer: ByteWriter, message: ZabMessage): void {
  writer.u8(kindsFrom + kinds.indexOf(message.kind));
  switch (message.kind) {
    case "looking":
      writer.varint(message.round);
      writer.utf8(message.vote.leader);
      writer.varint(message.vote.epoch);
      writer.varint(message.vote.lastTerm);
      writer.varint(message.vote.lastIndex);
      break;
    case "settled":
      writer.utf8(message.leader);
      writer.varint(message.epoch);
      break;
    case "follower-info":
      writer.varint(message.acceptedEpoch);
      break;
    case "leader-info":
      writer.varint(message.epoch);
      writer.u8(message.established ? 1 : 0);
      break;
    case "ack-epoch":
      writer.varint(message.epoch);
      writer.u32(message.attempt);
      writer.varint(message.currentEpoch);
      writer.varint(message.lastTerm);
      writer.varint(message.lastIndex);
      writer.varint(message.committed);
      writer.varint(message.starts.length);
      for (const { term, first } of message.starts) {
        writer.varint(term);
        writer.varint(first);
      }
      break;
    case "proposal":
      writer.varint(message.epoch);
      writer.u32(message.attempt);
      writer.varint(message.previousIndex);
      writer.varint(message.previousTerm);
      writer.varint(message.committed);
      writer.varint(message.entries.length);
      for (const entry of message.entries) encodeEntry(writer, entry);
      break;
    case "ack":
      writer.varint(message.epoch);
      writer.varint(message.index);
      writer.u8(message.missing ? 1 : 0);
      break;
    case "new-leader":
    case "ack-leader":
      writer.varint(message.epoch);
      writer.varint(message.index);
      break;
    case "ping":
      writer.varint(message.epoch);
      writer.varint(message.round);
      writer.varint(message.committed);
      writer.varint(message.sent);
      writer.varint(message.acked);
      break;
    case "pong":
      writer.varint(message.epoch);
      writer.varint(message.round);
      writer.u8(message.missing ? 1 : 0);
      break;
    case "snapshot":
      writer.varint(message.epoch);
      writer.varint(message.index);
      writer.varint(message.term);
      writer.varint(message.offset);
      writer.u8(message.done ? 1 : 0);
      writer.bytes(message.bytes);
      break;
    case "snapshot-ack":
      writer.varint(message.epoch);
      writer.varint(message.index);
      writer.varint(message.offset);
      break;
  }
}

/** @throws PROTOCOL when the bytes are no letter of ours. */
export function decodeZabMessage(frame: Uint8Array): ZabMessage {
  const reader = new ByteReader(frame);
  const kind = kinds[reader.u8() - kindsFrom];
  switch (kind) {
    case "looking": {
      const round = reader.varint();
      const vote = { leader: reader.utf8(), epoch: reader.varint(), lastTerm: reader.varint(), lastIndex: reader.varint() };
      return { kind, round, vote };
    }
    case "settled":
      return { kind, leader: reader.utf8(), epoch: reader.varint() };
    case "follower-info":
      return { kind, acceptedEpoch: reader.varint() };
    case "leader-info":
      return { kind, epoch: reader.varint(), established: reader.u8() === 1 };
    case "ack-epoch":
      return {
        kind,
        epoch: reader.varint(),
        attempt: reader.u32(),
        currentEpoch: reader.varint(),
        lastTerm: reader.varint(),
        lastIndex: reader.varint(),
        committed: reader.varint(),
        starts: decodeStarts(reader),
      };
    case "proposal": {
      const [epoch, attempt, previousIndex, previousTerm, committed] = [
        reader.varint(),
        reader.u32(),
        reader.varint(),
        reader.varint(),
        reader.varint(),
      ];
      return { kind, epoch, attempt, previousIndex, previousTerm, committed, entries: decodeEntries(reader, previousIndex + 1) };
    }
    case "ack":
      return { kind, epoch: reader.varint(), index: reader.varint(), missing: reader.u8() === 1 };
    case "new-leader":
    case "ack-leader":
      return { kind, epoch: reader.varint(), index: reader.varint() };
    case "ping":
      return {
        kind,
        epoch: reader.varint(),
        round: reader.varint(),
        committed: reader.varint(),
        sent: reader.varint(),
        acked: reader.varint(),
      };
    case "pong":
      return { kind, epoch: reader.varint(), round: reader.varint(), missing: reader.u8() === 1 };
    case "snapshot":
      return {
        kind,
        epoch: reader.varint(),
        index: reader.varint(),
        term: reader.varint(),
        offset: reader.varint(),
        done: reader.u8() === 1,
        bytes: reader.bytesCopied(),
      };
    case "snapshot-ack":
      return { kind, epoch: reader.varint(), index: reader.varint(), offset: reader.varint() };
    default:
      throw conclaveError("PROTOCOL", "The peer sent a letter of unknown kind.");
  }
}

function decodeStarts(reader: ByteReader): EpochStart[] {
  const starts: EpochStart[] = [];
  for (let left = reader.count(2); left > 0; left--) starts.push({ term: reader.varint(), first: reader.varint() });
  return starts;
}

function encodeEntry(writer: ByteWriter, entry: LogEntry): void {
  writer.varint(entry.term);
  writer.u8(entryKinds.indexOf(entry.kind));
  writer.f64(entry.stampMs);
  writer.bytes(entry.payload);
}

function decodeEntries(reader: ByteReader, first: Index): LogEntry[] {
  const count = reader.count(entryBytesMin);
  if (!Number.isSafeInteger(first + count)) throw conclaveError("PROTOCOL", "The peer sent entries beyond 2^53.");
  const entries: LogEntry[] = [];
  for (let at = 0; at < count; at++) {
    const [term, kind, stampMs] = [reader.varint(), entryKinds[reader.u8()], reader.f64()];
    if (kind === undefined) throw conclaveError("PROTOCOL", "The peer sent a log entry of unknown kind.");
    if (!Number.isFinite(stampMs) || stampMs < 0) throw conclaveError("PROTOCOL", "The peer sent a stamp that is no time.");
    entries.push({ index: first + at, term, kind, stampMs, payload: reader.bytesCopied() });
  }
  return entries;
}
