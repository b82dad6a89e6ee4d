/**
 * Outcomes: what the machine answers to a command, and the bytes of it (on the wire, and in a snapshot's claims).
 *
 * The machine answers with whole keys; `decodeOutcome` strips each at its first zero byte, where its namespace ends,
 * so it need not know what was asked.
 */
import { unreachable } from "../base/assert.ts";
import { ByteReader, ByteWriter } from "../base/byte-codec.ts";
import { type ErrorCode, errorTable } from "../base/error-table.ts";
import { type ConclaveError, conclaveError } from "../base/errors.ts";
import { Entry } from "./entry.ts";
import { stripNamespace } from "./key.ts";
import type { OpResult, Revision, SessionId, TxnResult, WatchEvent } from "./store.ts";

export type Outcome =
  | { readonly kind: "txn"; readonly result: TxnResult }
  | { readonly kind: "opened"; readonly session: SessionId; readonly revision: Revision }
  /** A session's end, an expiry, an initialisation. Also where there was nothing left to do. */
  | { readonly kind: "done"; readonly revision: Revision }
  | ErrorOutcome;

export interface ErrorOutcome {
  readonly kind: "error";
  readonly code: ErrorCode;
  readonly message: string;
  /**
   * False where *this* command did nothing, but an earlier copy of it may have: its claim is too old or its session is
   * gone. A client that sent it once knows better.
   */
  readonly definite: boolean;
}

export function errorOutcome(code: ErrorCode, message: string, definite = errorTable[code].definite): ErrorOutcome {
  return { kind: "error", code, message, definite };
}

/** What a caller gets to see. */
export function outcomeError(outcome: ErrorOutcome): ConclaveError {
  return conclaveError(outcome.code, outcome.message, { definite: outcome.definite });
}

const outcomeKinds = { txn: 0, opened: 1, done: 2, error: 3 } as const;
const resultKinds = { get: 0, range: 1, put: 2, delete: 3, add: 4 } as const;

// --- writing -----------------------------------------------------------------------------------------------------------

const shared = new ByteWriter();

export function encodeOutcome(outcome: Outcome): Uint8Array {
  shared.reset();
  writeOutcome(shared, outcome);
  return shared.finish();
}

export function writeOutcome(writer: ByteWriter, outcome: Outcome): void {
  writer.u8(outcomeKinds[outcome.kind]);
  switch (outcome.kind) {
    case "txn": {
      const { succeeded, revision, results } = outcome.result;
      writer.u8(succeeded ? 1 : 0);
      writer.varint(revision);
      writer.varint(results.length);
      for (const result of results) writeResult(writer, result);
      return;
    }
    case "opened":
      writer.varint(Number(outcome.session));
      writer.varint(outcome.revision);
      break;
    case "done":
      writer.varint(outcome.revision);
      break;
    case "error":
      writer.u8(outcome.definite ? 1 : 0);
      writer.utf8(outcome.code);
      writer.utf8(outcome.message);
      break;
    default:
      unreachable(outcome);
  }
}

function writeResult(writer: ByteWriter, result: OpResult): void {
  writer.u8(resultKinds[result.kind]);
  switch (result.kind) {
    case "get":
      writeEntryOrNull(writer, result.entry);
      break;
    case "range":
      writer.u8(result.more ? 1 : 0);
      writer.varint(result.count);
      writeEntries(writer, result.entries);
      break;
    case "put":
      writeEntryOrNull(writer, result.previous);
      break;
    case "delete":
      writer.varint(result.count);
      writeEntries(writer, result.previous);
      break;
    case "add":
      writer.f64(result.value);
      break;
    default:
      unreachable(result);
  }
}

function writeEntries(writer: ByteWriter, entries: readonly Entry[]): void {
  writer.varint(entries.length);
  for (const entry of entries) writeEntry(writer, entry);
}

export function writeEntryOrNull(writer: ByteWriter, entry: Entry | null): void {
  writer.u8(entry === null ? 0 : 1);
  if (entry !== null) writeEntry(writer, entry);
}

/** varint length, key | varint length, value | varints: createRevision, modRevision, version, session (0: none) */
export function writeEntry(writer: ByteWriter, entry: Entry): void {
  writer.binaryString(entry.binaryKey);
  writer.bytes(entry.value);
  writer.varint(entry.createRevision);
  writer.varint(entry.modRevision);
  writer.varint(entry.version);
  writer.varint(entry.session === null ? 0 : Number(entry.session));
}

// --- reading -----------------------------------------------------------------------------------------------------------

/** How a key is kept: as it came, or without its namespace. */
export type KeyReading = "whole" | "stripped";

/** The fewest bytes of an encoded entry. */
const entryBytesMin = 7;

/** Keys come without their namespaces. Values are views of the bytes. @throws PROTOCOL */
export function decodeOutcome(bytes: Uint8Array): Outcome {
  const reader = new ByteReader(bytes);
  const outcome = readOutcome(reader, "stripped");
  reader.end();
  return outcome;
}

export function readOutcome(reader: ByteReader, keys: KeyReading): Outcome {
  const kind = reader.u8();
  switch (kind) {
    case outcomeKinds.txn: {
      const succeeded = readFlag(reader);
      const revision = reader.varint();
      const results: OpResult[] = [];
      for (let left = reader.count(2); left > 0; left--) results.push(readResult(reader, keys));
      return { kind: "txn", result: { succeeded, revision, results } };
    }
    case outcomeKinds.opened:
      return { kind: "opened", session: String(reader.varint()), revision: reader.varint() };
    case outcomeKinds.done:
      return { kind: "done", revision: reader.varint() };
    case outcomeKinds.error: {
      const definite = readFlag(reader);
      const code = reader.utf8();
      if (!Object.hasOwn(errorTable, code)) throw garbage(`error code ${JSON.stringify(code)}`);
      return { kind: "error", code: code as ErrorCode, message: reader.utf8(), definite };
    }
    default:
      throw garbage(`kind ${kind}`);
  }
}

function readResult(reader: ByteReader, keys: KeyReading): OpResult {
  const kind = reader.u8();
  switch (kind) {
    case resultKinds.get:
      return { kind: "get", entry: readEntryOrNull(reader, keys) };
    case resultKinds.range: {
      const more = readFlag(reader);
      const count = reader.varint();
      return { kind: "range", entries: readEntries(reader, keys), count, more };
    }
    case resultKinds.put:
      return { kind: "put", previous: readEntryOrNull(reader, keys) };
    case resultKinds.delete:
      return { kind: "delete", count: reader.varint(), previous: readEntries(reader, keys) };
    case resultKinds.add: {
      const value = reader.f64();
      if (!Number.isSafeInteger(value)) throw garbage("a sum that is no whole number");
      return { kind: "add", value };
    }
    default:
      throw garbage(`result ${kind}`);
  }
}

function readEntries(reader: ByteReader, keys: KeyReading): Entry[] {
  const entries: Entry[] = [];
  for (let left = reader.count(entryBytesMin - 1); left > 0; left--) entries.push(readEntry(reader, keys));
  return entries;
}

export function readEntryOrNull(reader: ByteReader, keys: KeyReading): Entry | null {
  return readFlag(reader) ? readEntry(reader, keys) : null;
}

/** The value is a view of the input. */
export function readEntry(reader: ByteReader, keys: KeyReading): Entry {
  const key = reader.binaryString();
  const value = reader.bytes();
  const createRevision = reader.varint();
  const modRevision = reader.varint();
  const version = reader.varint();
  const session = reader.varint();
  return new Entry({
    binaryKey: keys === "whole" ? key : stripNamespace(key),
    value,
    createRevision,
    modRevision,
    version,
    session: session === 0 ? null : String(session),
  });
}

function readFlag(reader: ByteReader): boolean {
  const flag = reader.u8();
  if (flag > 1) throw garbage(`flag ${flag}`);
  return flag === 1;
}

function garbage(what: string): Error {
  return conclaveError("PROTOCOL", `An outcome holds ${what}.`);
}

// --- events ------------------------------------------------------------------------------------------------------------

/** A change of one key, as the machine tells it. `entry` is null where the key was deleted. */
export interface MachineEvent {
  readonly revision: Revision;
  /** Whole binary key. */
  readonly key: string;
  readonly entry: Entry | null;
  readonly previous: Entry | null;
}

/** varint revision | entry or null | previous or null */
export function writeEvent(writer: ByteWriter, event: MachineEvent): void {
  writer.varint(event.revision);
  writeEntryOrNull(writer, event.entry);
  writeEntryOrNull(writer, event.previous);
}

/** As the surface tells it: keys without namespaces, values views of the input. @throws PROTOCOL */
export function readWatchEvent(reader: ByteReader): WatchEvent {
  const revision = reader.varint();
  const entry = readEntryOrNull(reader, "stripped");
  const previous = readEntryOrNull(reader, "stripped");
  if (entry !== null) return { kind: "put", revision, key: entry.key, entry, previous };
  if (previous === null) throw garbage("an event without a key");
  return { kind: "delete", revision, key: previous.key, previous };
}

/** The same without bytes, for a client in the member's own process. */
export function toWatchEvent(event: MachineEvent): WatchEvent {
  const previous = event.previous === null ? null : strippedEntry(event.previous);
  if (event.entry !== null) {
    const entry = strippedEntry(event.entry);
    return { kind: "put", revision: event.revision, key: entry.key, entry, previous };
  }
  if (previous === null) throw garbage("an event without a key");
  return { kind: "delete", revision: event.revision, key: previous.key, previous };
}

/** The entry as the surface shows it; the value is shared. */
export function strippedEntry(entry: Entry): Entry {
  return new Entry({
    binaryKey: stripNamespace(entry.binaryKey),
    value: entry.value,
    createRevision: entry.createRevision,
    modRevision: entry.modRevision,
    version: entry.version,
    session: entry.session,
  });
}
