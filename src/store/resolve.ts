/**
 * The client's door: a `Txn` as callers write it becomes the command that the machine runs.
 *
 * Everything that can be refused without asking anybody is refused here, before a byte is sent: sizes, empty keys,
 * numbers that are none. What stays for the machine depends on its state.
 */
import { utf8Encode } from "../base/bytes.ts";
import { conclaveError } from "../base/errors.ts";
import type { Limits } from "./caps.ts";
import {
  checkClaimWindow,
  checkCounts,
  checkValue,
  compareOf,
  isReadOnly,
  olderStateInWrite,
  type ResolvedClaim,
  type ResolvedCompare,
  type ResolvedOp,
  type ResolvedTxn,
  readsOlderState,
  type SessionNumber,
  txnTooLarge,
} from "./command.ts";
import { namespacePrefix, rangeOfKey, wholeKey, wholeRange } from "./key.ts";
import type { Claim, Compare, Op, Operator, SessionId, Txn, Value } from "./store.ts";

/** At least what any item's tags, lengths and numbers take when encoded, so that no txn passes here and fails there. */
const itemBytes = 32;

/**
 * @throws KEY_INVALID, KEY_TOO_LARGE, VALUE_TOO_LARGE, TXN_TOO_LARGE, INVALID_OPTION, BUSY (nothing was sent)
 */
export function resolveTxn(namespace: string, txn: Txn, limits: Limits): ResolvedTxn {
  const prefix = namespacePrefix(namespace);
  checkCounts({ compares: txn.if ?? [], then: txn.then, else: txn.else ?? [] }, limits);
  const resolved: ResolvedTxn = {
    kind: "txn",
    claim: txn.claim === undefined ? null : resolveClaim(txn.claim),
    compares: (txn.if ?? []).map((compare) => resolveCompare(placed(compare, prefix), compare, limits)),
    then: txn.then.map((op) => resolveOp(placed(op, prefix), op, limits)),
    else: (txn.else ?? []).map((op) => resolveOp(placed(op, prefix), op, limits)),
  };
  if (resolved.claim !== null) checkClaimWindow(resolved.claim, limits);
  if (readsOlderState(resolved) && !isReadOnly(resolved)) throw olderStateInWrite();
  const bytes = bytesOf(resolved);
  if (bytes > limits.txnBytesMax) throw txnTooLarge(`about ${bytes} bytes; ${limits.txnBytesMax} are allowed`);
  return resolved;
}

/** The machine's number of a session. @throws INVALID_OPTION for what no embedded store ever answered */
export function sessionNumber(id: SessionId): SessionNumber {
  const number = Number(id);
  if (!Number.isSafeInteger(number) || number < 1 || String(number) !== id) {
    throw conclaveError("INVALID_OPTION", `Session ${JSON.stringify(id)} is not one of this store.`);
  }
  return number;
}

function placed(item: { readonly namespace?: string }, prefix: string): string {
  return item.namespace === undefined ? prefix : namespacePrefix(item.namespace);
}

function resolveClaim(claim: Claim): ResolvedClaim {
  const sequence = whole("claim.sequence", claim.sequence);
  const lowestOpen = whole("claim.lowestOpen", claim.lowestOpen);
  if (lowestOpen > sequence) {
    throw conclaveError("INVALID_OPTION", `claim.lowestOpen is ${lowestOpen}, above the claim's own sequence ${sequence}.`);
  }
  return { session: sessionNumber(claim.session), sequence, lowestOpen };
}

function resolveCompare(prefix: string, compare: Compare, limits: Limits): ResolvedCompare {
  const where = "range" in compare ? wholeRange(prefix, compare.range, limits) : wholeKey(prefix, compare.key, limits);
  const operator = compare.is as Operator;
  const isOrder = operator === "less" || operator === "greater";
  if (!isOrder && operator !== "equal" && operator !== "not-equal") throw wrongOperator(compare);
  switch (compare.target) {
    case "exists":
      if (operator !== "equal") throw wrongOperator(compare);
      return compareOf(where, "exists", "equal", compare.to);
    case "createRevision":
    case "modRevision":
    case "version":
      return compareOf(where, compare.target, operator, whole(`to of a compare of ${compare.target}`, compare.to));
    case "value":
      return compareOf(where, "value", operator, valueBytes(compare.to, limits));
    case "session":
      if (operator !== "equal" && operator !== "not-equal") throw wrongOperator(compare);
      return compareOf(where, "session", operator, compare.to === null ? null : sessionNumber(compare.to));
    default:
      throw conclaveError("INVALID_OPTION", `A compare has target ${JSON.stringify((compare as Compare).target)}.`);
  }
}

function resolveOp(prefix: string, op: Op, limits: Limits): ResolvedOp {
  switch (op.kind) {
    case "get":
      return { kind: "get", key: wholeKey(prefix, op.key, limits) };
    case "range":
      return {
        kind: "range",
        range: wholeRange(prefix, op.range, limits),
        order: op.order ?? "key",
        descending: op.descending ?? false,
        keysOnly: op.keysOnly ?? false,
        limit: op.limit === undefined ? null : whole("limit", op.limit),
        createdBefore: op.createdBefore === undefined ? null : whole("createdBefore", op.createdBefore),
        atRevision: op.atRevision === undefined ? null : whole("atRevision", op.atRevision),
      };
    case "put":
      return {
        kind: "put",
        key: wholeKey(prefix, op.key, limits),
        value: valueBytes(op.value, limits),
        session: op.session === undefined ? null : sessionNumber(op.session),
        returnPrevious: op.returnPrevious ?? false,
      };
    case "delete":
      return { kind: "delete", range: wholeRange(prefix, op.range, limits), returnPrevious: op.returnPrevious ?? false };
    case "add":
      if (!Number.isSafeInteger(op.delta))
        throw conclaveError("INVALID_OPTION", `delta is ${op.delta}, no whole number within 2^53.`);
      return { kind: "add", key: wholeKey(prefix, op.key, limits), delta: op.delta };
    default:
      throw conclaveError("INVALID_OPTION", `An operation has kind ${JSON.stringify((op as Op).kind)}.`);
  }
}

function valueBytes(value: Value, limits: Limits): Uint8Array {
  const bytes = typeof value === "string" ? utf8Encode(value) : value;
  if (!(bytes instanceof Uint8Array)) throw conclaveError("INVALID_OPTION", "A value must be a string or a Uint8Array.");
  checkValue(bytes, limits);
  return bytes;
}

/** Revisions, versions, limits and sequences. */
function whole(name: string, value: number): number {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw conclaveError("INVALID_OPTION", `${name} is ${value}; a whole number from 0 to 2^53 - 1 is needed.`);
  }
  return value;
}

function wrongOperator(compare: Compare): Error {
  return conclaveError("INVALID_OPTION", `A compare of ${compare.target} has operator ${JSON.stringify(compare.is)}.`);
}

function bytesOf(txn: ResolvedTxn): number {
  let bytes = 2 * itemBytes;
  for (const compare of txn.compares) {
    const { from, to } = "range" in compare ? compare.range : { from: compare.key, to: "" };
    bytes += itemBytes + from.length + to.length + (compare.target === "value" ? compare.to.length : 0);
  }
  for (const op of txn.then) bytes += bytesOfOp(op);
  for (const op of txn.else) bytes += bytesOfOp(op);
  return bytes;
}

function bytesOfOp(op: ResolvedOp): number {
  const { from, to } = "range" in op ? op.range : rangeOfKey(op.key);
  return itemBytes + from.length + to.length + (op.kind === "put" ? op.value.length : 0);
}
