/**
 * Commands: what goes through the log and into the machine, and their bytes.
 *
 *     u8 format version | u8 kind | fields
 *     txn: u8 flags (1: claim) | [session, sequence, lowestOpen] | compares | then | else      (lists: varint count first)
 *
 * Keys are whole (namespace and all) binary strings; sessions are the machine's numbers. The codec is a plain switch in
 * both directions: it runs for each command on each member. The reader believes nothing: garbage is PROTOCOL.
 * An *unknown format version* is PROTOCOL too, but whoever applies a log must stop at it instead of answering it: a newer
 * member would do something where this one would do nothing. See `isReadableFormat`.
 */
import { unreachable } from "../base/assert.ts";
import { ByteReader, ByteWriter } from "../base/byte-codec.ts";
import { conclaveError } from "../base/errors.ts";
import type { Limits } from "./caps.ts";
import { type BinaryRange, isRangeOfKey, rangeOfKey } from "./key.ts";
import type { Operator } from "./store.ts";

export const commandFormat = 1;

/** The machine's number of a session; `SessionId` is its decimal string. Never 0. */
export type SessionNumber = number;

export type ResolvedCompare = ({ readonly key: string } | { readonly range: BinaryRange }) &
  (
    | { readonly target: "exists"; readonly is: "equal"; readonly to: boolean }
    | { readonly target: "createRevision" | "modRevision" | "version"; readonly is: Operator; readonly to: number }
    | { readonly target: "value"; readonly is: Operator; readonly to: Uint8Array }
    | { readonly target: "session"; readonly is: "equal" | "not-equal"; readonly to: SessionNumber | null }
  );

export interface ResolvedRange {
  readonly kind: "range";
  readonly range: BinaryRange;
  readonly order: "key" | "create";
  readonly descending: boolean;
  readonly keysOnly: boolean;
  readonly limit: number | null;
  readonly createdBefore: number | null;
  readonly atRevision: number | null;
}

export type ResolvedOp =
  | { readonly kind: "get"; readonly key: string }
  | ResolvedRange
  | {
      readonly kind: "put";
      readonly key: string;
      /** From `decodeCommand` a view of the input. */
      readonly value: Uint8Array;
      readonly session: SessionNumber | null;
      readonly returnPrevious: boolean;
    }
  | { readonly kind: "delete"; readonly range: BinaryRange; readonly returnPrevious: boolean }
  | { readonly kind: "add"; readonly key: string; readonly delta: number };

export interface ResolvedClaim {
  readonly session: SessionNumber;
  readonly sequence: number;
  readonly lowestOpen: number;
}

export interface ResolvedTxn {
  readonly kind: "txn";
  readonly claim: ResolvedClaim | null;
  readonly compares: readonly ResolvedCompare[];
  readonly then: readonly ResolvedOp[];
  readonly else: readonly ResolvedOp[];
}

export type Command =
  | ResolvedTxn
  | { readonly kind: "open-session"; readonly ttlMs: number }
  | { readonly kind: "close-session"; readonly session: SessionNumber }
  /** Proposed by the leader alone. */
  | { readonly kind: "expire-sessions"; readonly sessions: readonly SessionNumber[] }
  /** Proposed by the first leader of a new store alone; only the first one applied has effect. */
  | { readonly kind: "initialise"; readonly revision: number };

export type CommandKind = Command["kind"];

const kinds = ["txn", "open-session", "close-session", "expire-sessions", "initialise"] as const;
const targets = ["exists", "createRevision", "modRevision", "version", "value", "session"] as const;
const operators = ["equal", "not-equal", "less", "greater"] as const;

/** Bits of a compare's tag: three for the target, two for the operator, one for a range. */
const compareIsRange = 0x20;
const opKinds = { get: 0, range: 1, put: 2, delete: 3, add: 4 } as const;
const rangeIsKey = 0x01;
const rangeByCreate = 0x02;
const rangeDescending = 0x04;
const rangeKeysOnly = 0x08;
const rangeHasLimit = 0x10;
const rangeHasCreatedBefore = 0x20;
const rangeHasAtRevision = 0x40;
const putHasSession = 0x01;
const putReturnsPrevious = 0x02;
const deleteIsKey = 0x01;
const deleteReturnsPrevious = 0x02;

// --- writing -----------------------------------------------------------------------------------------------------------

const shared = new ByteWriter();

export function encodeCommand(command: Command): Uint8Array {
  shared.reset();
  writeCommand(shared, command);
  return shared.finish();
}

export function writeCommand(writer: ByteWriter, command: Command): void {
  writer.u8(commandFormat);
  writer.u8(kinds.indexOf(command.kind));
  switch (command.kind) {
    case "txn":
      writeTxn(writer, command);
      break;
    case "open-session":
      writer.varint(command.ttlMs);
      break;
    case "close-session":
      writer.varint(command.session);
      break;
    case "expire-sessions":
      writer.varint(command.sessions.length);
      for (const session of command.sessions) writer.varint(session);
      break;
    case "initialise":
      writer.varint(command.revision);
      break;
    default:
      unreachable(command);
  }
}

function writeTxn(writer: ByteWriter, txn: ResolvedTxn): void {
  const claim = txn.claim;
  writer.u8(claim === null ? 0 : 1);
  if (claim !== null) {
    writer.varint(claim.session);
    writer.varint(claim.sequence);
    writer.varint(claim.lowestOpen);
  }
  writer.varint(txn.compares.length);
  for (const compare of txn.compares) writeCompare(writer, compare);
  writer.varint(txn.then.length);
  for (const op of txn.then) writeOp(writer, op);
  writer.varint(txn.else.length);
  for (const op of txn.else) writeOp(writer, op);
}

function writeCompare(writer: ByteWriter, compare: ResolvedCompare): void {
  const isRange = "range" in compare;
  writer.u8(targets.indexOf(compare.target) | (operators.indexOf(compare.is) << 3) | (isRange ? compareIsRange : 0));
  if (isRange) {
    writer.binaryString(compare.range.from);
    writer.binaryString(compare.range.to);
  } else {
    writer.binaryString(compare.key);
  }
  switch (compare.target) {
    case "exists":
      writer.u8(compare.to ? 1 : 0);
      break;
    case "createRevision":
    case "modRevision":
    case "version":
      writer.varint(compare.to);
      break;
    case "value":
      writer.bytes(compare.to);
      break;
    case "session":
      writer.varint(compare.to ?? 0);
      break;
    default:
      unreachable(compare);
  }
}

function writeOp(writer: ByteWriter, op: ResolvedOp): void {
  writer.u8(opKinds[op.kind]);
  switch (op.kind) {
    case "get":
      writer.binaryString(op.key);
      break;
    case "range":
      writeRange(writer, op);
      break;
    case "put":
      writer.u8((op.session === null ? 0 : putHasSession) | (op.returnPrevious ? putReturnsPrevious : 0));
      writer.binaryString(op.key);
      writer.bytes(op.value);
      if (op.session !== null) writer.varint(op.session);
      return;
    case "delete": {
      const isKey = isRangeOfKey(op.range);
      writer.u8((isKey ? deleteIsKey : 0) | (op.returnPrevious ? deleteReturnsPrevious : 0));
      writer.binaryString(op.range.from);
      if (!isKey) writer.binaryString(op.range.to);
      return;
    }
    case "add":
      writer.binaryString(op.key);
      writer.f64(op.delta);
      break;
    default:
      unreachable(op);
  }
}

function writeRange(writer: ByteWriter, op: ResolvedRange): void {
  const isKey = isRangeOfKey(op.range);
  writer.u8(
    (isKey ? rangeIsKey : 0) |
      (op.order === "create" ? rangeByCreate : 0) |
      (op.descending ? rangeDescending : 0) |
      (op.keysOnly ? rangeKeysOnly : 0) |
      (op.limit === null ? 0 : rangeHasLimit) |
      (op.createdBefore === null ? 0 : rangeHasCreatedBefore) |
      (op.atRevision === null ? 0 : rangeHasAtRevision),
  );
  writer.binaryString(op.range.from);
  if (!isKey) writer.binaryString(op.range.to);
  if (op.limit !== null) writer.varint(op.limit);
  if (op.createdBefore !== null) writer.varint(op.createdBefore);
  if (op.atRevision !== null) writer.varint(op.atRevision);
}

// --- reading -----------------------------------------------------------------------------------------------------------

/**
 * Values in the answer are views of the bytes. With `limits` it also checks them, as a member does at its door.
 * @throws PROTOCOL, and with limits KEY_TOO_LARGE, VALUE_TOO_LARGE, TXN_TOO_LARGE, INVALID_OPTION, BUSY
 */
export function decodeCommand(bytes: Uint8Array, limits?: Limits): Command {
  const reader = new ByteReader(bytes);
  const command = readCommand(reader);
  if (limits !== undefined) checkCommand(command, bytes.length, limits);
  return command;
}

/** Reads to the end of the reader. */
export function readCommand(reader: ByteReader): Command {
  const format = reader.u8();
  if (format !== commandFormat) throw garbage(`format ${format}; this version reads ${commandFormat}`);
  const command = readFields(reader);
  reader.end();
  return command;
}

/** Whether the first byte names a format that this version reads. An empty command is garbage of any format. */
export function isReadableFormat(payload: Uint8Array, from: number, to: number): boolean {
  return from === to || payload[from] === commandFormat;
}

/** The kind by the second byte, without reading on; undefined when there is none. */
export function commandKindOf(bytes: Uint8Array): CommandKind | undefined {
  return bytes[0] === commandFormat ? kinds[bytes[1] ?? kinds.length] : undefined;
}

function readFields(reader: ByteReader): Command {
  const kind = reader.u8();
  switch (kinds[kind]) {
    case "txn":
      return readTxn(reader);
    case "open-session":
      return { kind: "open-session", ttlMs: reader.varint() };
    case "close-session":
      return { kind: "close-session", session: reader.varint() };
    case "expire-sessions": {
      const sessions: SessionNumber[] = [];
      for (let left = reader.count(); left > 0; left--) sessions.push(reader.varint());
      return { kind: "expire-sessions", sessions };
    }
    case "initialise":
      return { kind: "initialise", revision: reader.varint() };
    default:
      throw garbage(`kind ${kind}`);
  }
}

function readTxn(reader: ByteReader): ResolvedTxn {
  const flags = reader.u8();
  if (flags > 1) throw garbage(`flags ${flags} of a txn`);
  const claim = flags === 0 ? null : readClaim(reader);
  const compares: ResolvedCompare[] = [];
  for (let left = reader.count(3); left > 0; left--) compares.push(readCompare(reader));
  return { kind: "txn", claim, compares, then: readOps(reader), else: readOps(reader) };
}

function readClaim(reader: ByteReader): ResolvedClaim {
  const claim = { session: reader.varint(), sequence: reader.varint(), lowestOpen: reader.varint() };
  // The claim itself waits for its answer.
  if (claim.lowestOpen > claim.sequence) throw garbage(`a claim ${claim.sequence} below its lowest open ${claim.lowestOpen}`);
  return claim;
}

function readOps(reader: ByteReader): ResolvedOp[] {
  const ops: ResolvedOp[] = [];
  for (let left = reader.count(3); left > 0; left--) ops.push(readOp(reader));
  return ops;
}

function readCompare(reader: ByteReader): ResolvedCompare {
  const tag = reader.u8();
  const target = targets[tag & 7];
  const is = operators[(tag >> 3) & 3] as Operator;
  if (tag > 0x3f || target === undefined) throw garbage(`tag ${tag} of a compare`);
  const isRange = (tag & compareIsRange) !== 0;
  const where = isRange ? readBounds(reader, false) : readKey(reader);
  switch (target) {
    case "exists": {
      const to = reader.u8();
      if (is !== "equal" || to > 1) throw garbage("a compare of `exists` with more than true or false");
      return compareOf(where, target, is, to === 1);
    }
    case "createRevision":
    case "modRevision":
    case "version":
      return compareOf(where, target, is, reader.varint());
    case "value":
      return compareOf(where, target, is, reader.bytes());
    case "session": {
      const to = reader.varint();
      if (is === "less" || is === "greater") throw garbage("a compare of sessions by order");
      return compareOf(where, target, is, to === 0 ? null : to);
    }
    default:
      return unreachable(target);
  }
}

/** In one piece: most of what is written has compares, and a spread of two parts costs several times as much. */
export function compareOf<Target extends ResolvedCompare["target"]>(
  where: string | BinaryRange,
  target: Target,
  is: Extract<ResolvedCompare, { readonly target: Target }>["is"],
  to: Extract<ResolvedCompare, { readonly target: Target }>["to"],
): ResolvedCompare {
  return (typeof where === "string" ? { key: where, target, is, to } : { range: where, target, is, to }) as ResolvedCompare;
}

function readOp(reader: ByteReader): ResolvedOp {
  const kind = reader.u8();
  switch (kind) {
    case opKinds.get:
      return { kind: "get", key: readKey(reader) };
    case opKinds.range:
      return readRange(reader);
    case opKinds.put: {
      const flags = reader.u8();
      if (flags > 3) throw garbage(`flags ${flags} of a put`);
      const key = readKey(reader);
      const value = reader.bytes();
      const session = (flags & putHasSession) === 0 ? null : reader.varint();
      return { kind: "put", key, value, session, returnPrevious: (flags & putReturnsPrevious) !== 0 };
    }
    case opKinds.delete: {
      const flags = reader.u8();
      if (flags > 3) throw garbage(`flags ${flags} of a delete`);
      const range = readBounds(reader, (flags & deleteIsKey) !== 0);
      return { kind: "delete", range, returnPrevious: (flags & deleteReturnsPrevious) !== 0 };
    }
    case opKinds.add: {
      const key = readKey(reader);
      const delta = reader.f64();
      if (!Number.isSafeInteger(delta)) throw garbage("an addition of no whole number");
      return { kind: "add", key, delta };
    }
    default:
      throw garbage(`operation ${kind}`);
  }
}

function readRange(reader: ByteReader): ResolvedRange {
  const flags = reader.u8();
  if (flags > 0x7f) throw garbage(`flags ${flags} of a range`);
  return {
    kind: "range",
    range: readBounds(reader, (flags & rangeIsKey) !== 0),
    order: (flags & rangeByCreate) !== 0 ? "create" : "key",
    descending: (flags & rangeDescending) !== 0,
    keysOnly: (flags & rangeKeysOnly) !== 0,
    limit: (flags & rangeHasLimit) !== 0 ? reader.varint() : null,
    createdBefore: (flags & rangeHasCreatedBefore) !== 0 ? reader.varint() : null,
    atRevision: (flags & rangeHasAtRevision) !== 0 ? reader.varint() : null,
  };
}

/** A whole key has a namespace's end and something after it. */
function readKey(reader: ByteReader): string {
  const key = reader.binaryString();
  const end = key.indexOf("\0");
  if (end < 0 || end === key.length - 1) throw garbage("a key without its namespace, or an empty one");
  return key;
}

function readBounds(reader: ByteReader, isKey: boolean): BinaryRange {
  if (isKey) return rangeOfKey(readKey(reader));
  const from = reader.binaryString();
  const to = reader.binaryString();
  if (to < from) throw garbage("a range that ends before it begins");
  return { from, to };
}

function garbage(what: string): Error {
  return conclaveError("PROTOCOL", `A command holds ${what}.`);
}

// --- judging -----------------------------------------------------------------------------------------------------------

/** Whether it can be answered by `Machine.read`, without the log. */
export function isReadOnly(txn: ResolvedTxn): boolean {
  return txn.then.every(isReadingOp) && txn.else.every(isReadingOp);
}

/** The same of an encoded command. @throws PROTOCOL */
export function isReadOnlyCommand(bytes: Uint8Array): boolean {
  const command = decodeCommand(bytes);
  return command.kind === "txn" && isReadOnly(command);
}

function isReadingOp(op: ResolvedOp): boolean {
  return op.kind === "get" || op.kind === "range";
}

/** Whether some range asks for an older state. That depends on what a member has kept, so the log may not carry it. */
export function readsOlderState(txn: ResolvedTxn): boolean {
  return txn.then.some(isOlderRead) || txn.else.some(isOlderRead);
}

function isOlderRead(op: ResolvedOp): boolean {
  return op.kind === "range" && op.atRevision !== null;
}

export interface KeyAccess {
  readonly range: BinaryRange;
  readonly access: "read" | "write" | "read-write";
}

/** Every key that the transaction may touch, in either branch: what the one authorisation hook judges. */
export function keyRangesOf(txn: ResolvedTxn): KeyAccess[] {
  const ranges: KeyAccess[] = txn.compares.map((compare) => ({
    range: "range" in compare ? compare.range : rangeOfKey(compare.key),
    access: "read",
  }));
  for (const op of txn.then) ranges.push(accessOf(op));
  for (const op of txn.else) ranges.push(accessOf(op));
  return ranges;
}

function accessOf(op: ResolvedOp): KeyAccess {
  switch (op.kind) {
    case "get":
      return { range: rangeOfKey(op.key), access: "read" };
    case "range":
      return { range: op.range, access: "read" };
    case "put":
      return { range: rangeOfKey(op.key), access: op.returnPrevious ? "read-write" : "write" };
    case "delete":
      return { range: op.range, access: op.returnPrevious ? "read-write" : "write" };
    case "add":
      return { range: rangeOfKey(op.key), access: "read-write" };
    default:
      return unreachable(op);
  }
}

/** What a member checks of a command that came from outside. `resolveTxn` has checked the same for the honest. */
export function checkCommand(command: Command, bytes: number, limits: Limits): void {
  if (command.kind === "open-session") checkTtl(command.ttlMs, limits);
  if (command.kind !== "txn") return;
  if (bytes > limits.txnBytesMax) throw txnTooLarge(`${bytes} bytes; ${limits.txnBytesMax} are allowed`);
  checkCounts(command, limits);
  for (const { range } of keyRangesOf(command)) {
    // The end of a key's own range is one byte longer than the key.
    const longest = Math.max(range.from.length, isRangeOfKey(range) ? 0 : range.to.length);
    if (longest > limits.keyBytesMax) {
      throw conclaveError("KEY_TOO_LARGE", `A key has ${longest} bytes; ${limits.keyBytesMax} are allowed.`);
    }
  }
  for (const compare of command.compares) if (compare.target === "value") checkValue(compare.to, limits);
  for (const op of command.then) if (op.kind === "put") checkValue(op.value, limits);
  for (const op of command.else) if (op.kind === "put") checkValue(op.value, limits);
  if (readsOlderState(command) && !isReadOnly(command)) throw olderStateInWrite();
  if (command.claim !== null) checkClaimWindow(command.claim, limits);
}

export function checkCounts(
  lists: { readonly compares: readonly unknown[]; readonly then: readonly unknown[]; readonly else: readonly unknown[] },
  limits: Limits,
): void {
  const longest = Math.max(lists.compares.length, lists.then.length, lists.else.length);
  if (longest > limits.txnOpsMax) throw txnTooLarge(`a list of ${longest}; ${limits.txnOpsMax} are allowed`);
}

export function checkValue(value: Uint8Array, limits: Limits): void {
  if (value.length > limits.valueBytesMax) {
    throw conclaveError("VALUE_TOO_LARGE", `The value has ${value.length} bytes; ${limits.valueBytesMax} are allowed.`);
  }
}

export function checkTtl(ttlMs: number, limits: Limits): void {
  if (!Number.isSafeInteger(ttlMs) || ttlMs < limits.ttlMsMin || ttlMs > limits.ttlMsMax) {
    throw conclaveError("INVALID_OPTION", `ttlMs is ${ttlMs}; whole ${limits.ttlMsMin} to ${limits.ttlMsMax} are allowed.`);
  }
}

/**
 * Judged by the claim's own fields, so that every copy of a command gets the same answer: one that was refused will not
 * run later, when the window has moved. It bounds the table: each kept sequence is below some `lowestOpen` plus the limit,
 * and the floor is the highest `lowestOpen`.
 */
export function isClaimBeyondWindow(claim: ResolvedClaim, limits: Pick<Limits, "claimsOpenMax">): boolean {
  return claim.sequence - claim.lowestOpen >= limits.claimsOpenMax;
}

export function checkClaimWindow(claim: ResolvedClaim, limits: Limits): void {
  if (isClaimBeyondWindow(claim, limits)) {
    throw conclaveError("BUSY", `${limits.claimsOpenMax} mutations of session ${claim.session} wait for their answers.`);
  }
}

export function olderStateInWrite(): Error {
  return conclaveError("INVALID_OPTION", "A txn with `atRevision` may only read.");
}

export function txnTooLarge(what: string): Error {
  return conclaveError("TXN_TOO_LARGE", `The txn has ${what}.`);
}
