/**
 * The canonical bytes of signed statements: what is signed, hashed and carried inside other statements.
 *
 * ```
 * statement: [u8 kind][varint replica][fields by kind]        a request has no replica
 * signed:    [varint length][statement][varint length][signature]
 * ```
 * Strict: an unknown kind or a byte too many is PROTOCOL. Lists are bounded by what the input can hold.
 * A signed statement that was read owns its bytes, because it is kept, relayed and put into proofs, and its letter is not; the
 * operations and results inside may be views into them.
 */
import { ByteReader, ByteWriter } from "../../base/byte-codec.ts";
import { conclaveError } from "../../base/errors.ts";
import type {
  Batch,
  Checkpoint,
  PrePrepare,
  Prepare,
  PreparedCertificate,
  RequestFrame,
  Signed,
  Statement,
  ViewChange,
} from "./messages.ts";

/** The position is the byte that is signed: append only. */
const kinds = [
  "request",
  "pre-prepare",
  "prepare",
  "commit",
  "checkpoint",
  "view-change",
  "new-view",
  "reply",
] as const satisfies readonly Statement["kind"][];

/** Operations of one frame (the bound for one signature). */
export const frameOperationsMax = 64;

/** Everything here is encoded in one go, so one writer serves. */
const writer = new ByteWriter();

export function encodeStatement(statement: Statement): Uint8Array {
  writer.reset();
  writer.u8(kinds.indexOf(statement.kind));
  if (statement.kind !== "request") writer.varint(statement.replica);
  switch (statement.kind) {
    case "request":
      writer.utf8(statement.client);
      writer.varint(statement.lane);
      writer.varint(statement.timestamp);
      writeByteArrays(writer, statement.operations);
      break;
    case "pre-prepare":
    case "prepare":
    case "commit":
      writer.varint(statement.view);
      writer.varint(statement.sequence);
      writer.binaryString(statement.digest);
      break;
    case "checkpoint":
      writer.varint(statement.sequence);
      writer.binaryString(statement.digest);
      break;
    case "view-change":
      writer.varint(statement.view);
      writer.varint(statement.stable);
      writeSignedList(writer, statement.checkpoints);
      writer.varint(statement.prepared.length);
      for (const certificate of statement.prepared) writeCertificate(writer, certificate);
      break;
    case "new-view":
      writer.varint(statement.view);
      writeSignedList(writer, statement.viewChanges);
      writeSignedList(writer, statement.proposals);
      break;
    case "reply":
      writer.varint(statement.view);
      writer.utf8(statement.client);
      writer.varint(statement.lane);
      writer.varint(statement.timestamp);
      writeByteArrays(writer, statement.results);
      break;
  }
  return writer.finish();
}

/** @throws PROTOCOL when the bytes are no statement of ours. */
export function decodeStatement(bytes: Uint8Array): Statement {
  const reader = new ByteReader(bytes);
  const statement = readStatement(reader);
  reader.end();
  return statement;
}

function readStatement(reader: ByteReader): Statement {
  const kind = kinds[reader.u8()];
  if (kind === undefined) throw conclaveError("PROTOCOL", "A signed statement is of unknown kind.");
  if (kind === "request") {
    const [client, lane, timestamp] = [reader.utf8(), reader.varint(), reader.varint()];
    return { kind, client, lane, timestamp, operations: readByteArrays(reader, frameOperationsMax) };
  }
  const replica = reader.varint();
  switch (kind) {
    case "pre-prepare":
    case "prepare":
    case "commit":
      return { kind, replica, view: reader.varint(), sequence: reader.varint(), digest: reader.binaryString() };
    case "checkpoint":
      return { kind, replica, sequence: reader.varint(), digest: reader.binaryString() };
    case "view-change": {
      const [view, stable] = [reader.varint(), reader.varint()];
      const checkpoints = readSignedList<Checkpoint>(reader, "checkpoint");
      const prepared: PreparedCertificate[] = [];
      for (let left = reader.count(8); left > 0; left--) prepared.push(readCertificate(reader));
      return { kind, replica, view, stable, checkpoints, prepared };
    }
    case "new-view": {
      const view = reader.varint();
      const viewChanges = readSignedList<ViewChange>(reader, "view-change");
      return { kind, replica, view, viewChanges, proposals: readSignedList<PrePrepare>(reader, "pre-prepare") };
    }
    case "reply": {
      const [view, client, lane, timestamp] = [reader.varint(), reader.utf8(), reader.varint(), reader.varint()];
      return { kind, replica, view, client, lane, timestamp, results: readByteArrays(reader, frameOperationsMax) };
    }
  }
}

export function writeSigned(writer: ByteWriter, signed: Signed<Statement>): void {
  writer.bytes(signed.bytes);
  writer.bytes(signed.signature);
}

/** @throws PROTOCOL when it is no statement of that kind. */
export function readSigned<S extends Statement>(reader: ByteReader, kind: S["kind"]): Signed<S> {
  const bytes = reader.bytesCopied();
  const statement = decodeStatement(bytes);
  if (statement.kind !== kind) throw conclaveError("PROTOCOL", `A "${statement.kind}" stands where a "${kind}" belongs.`);
  return { statement: statement as S, bytes, signature: reader.bytesCopied() };
}

export function writeSignedList(writer: ByteWriter, list: readonly Signed<Statement>[]): void {
  writer.varint(list.length);
  for (const signed of list) writeSigned(writer, signed);
}

export function readSignedList<S extends Statement>(reader: ByteReader, kind: S["kind"]): Signed<S>[] {
  const list: Signed<S>[] = [];
  for (let left = reader.count(4); left > 0; left--) list.push(readSigned<S>(reader, kind));
  return list;
}

export function writeCertificate(writer: ByteWriter, certificate: PreparedCertificate): void {
  writeSigned(writer, certificate.proposal);
  writeSignedList(writer, certificate.prepares);
}

export function readCertificate(reader: ByteReader): PreparedCertificate {
  const proposal = readSigned<PrePrepare>(reader, "pre-prepare");
  return { proposal, prepares: readSignedList<Prepare>(reader, "prepare") };
}

/** The bytes of which a batch's digest is taken: frames and their signatures. */
export function encodeBatch(batch: Batch): Uint8Array {
  writer.reset();
  writeSignedList(writer, batch);
  return writer.finish();
}

export function readBatch(reader: ByteReader): Batch {
  return readSignedList<RequestFrame>(reader, "request");
}

function writeByteArrays(writer: ByteWriter, list: readonly Uint8Array[]): void {
  writer.varint(list.length);
  for (const bytes of list) writer.bytes(bytes);
}

function readByteArrays(reader: ByteReader, countMax: number): Uint8Array[] {
  const count = reader.count();
  if (count > countMax) throw conclaveError("PROTOCOL", `A frame holds ${count} operations; at most ${countMax} are taken.`);
  const list: Uint8Array[] = [];
  for (let left = count; left > 0; left--) list.push(reader.bytesWithin());
  return list;
}
