/**
 * A txn as the JSON that the functions read, and their answer as a result.
 *
 *     n  namespaces, in the order of their bytes: the order in which their rows are locked; items count from 1 into it
 *     s  sessions of puts, in order
 *     c  compares    [k|r, n, from, to, target, operator, value]
 *     t, e           [g, n, key] [r, n, from, to, byCreate, descending, keysOnly, limit, createdBefore]
 *                    [p, n, key, value, session, returnPrevious] [d, n, from, to, returnPrevious] [a, n, key, delta]
 * Entries come as [key, created, modified, version, session, value].
 */
import { unreachable } from "../../base/assert.ts";
import { toBinaryString } from "../../base/bytes.ts";
import { conclaveError } from "../../base/errors.ts";
import type { ChangeMessage } from "../../client/feed.ts";
import type { ResolvedCompare, ResolvedOp, ResolvedTxn } from "../../store/command.ts";
import { Entry } from "../../store/entry.ts";
import { type BinaryRange, namespaceOf, rangeOfKey, stripNamespace } from "../../store/key.ts";
import type { Operator, OpResult, TxnResult } from "../../store/store.ts";

type Json = string | number | boolean | null | readonly Json[];

const targetLetters = { exists: "e", createRevision: "c", modRevision: "m", version: "n", value: "v", session: "s" } as const;
const operatorLetters: Readonly<Record<Operator, string>> = { equal: "=", "not-equal": "!", less: "<", greater: ">" };

/** A request, and the namespaces that it touches, as binary strings. */
export interface EncodedTxn {
  readonly request: string;
  readonly namespaces: readonly string[];
}

export function encodeTxn(txn: ResolvedTxn): EncodedTxn {
  const ops = [...txn.then, ...txn.else];
  const names = [...txn.compares.map(fromOf), ...ops.map(fromOf)].map(namespaceOf);
  const namespaces = [...new Set(names)].sort();
  const sessions = ops.flatMap((op) => (op.kind === "put" && op.session !== null ? [op.session] : []));
  const at = (from: string): number => namespaces.indexOf(namespaceOf(from)) + 1;
  const request = JSON.stringify({
    n: namespaces.map(base64),
    s: [...new Set(sessions)].sort((left, right) => left - right),
    c: txn.compares.map((compare) => encodeCompare(compare, at)),
    t: txn.then.map((op) => encodeOp(op, at)),
    e: txn.else.map((op) => encodeOp(op, at)),
  });
  return { request, namespaces };
}

function fromOf(item: ResolvedCompare | ResolvedOp): string {
  return "range" in item ? item.range.from : item.key;
}

function encodeCompare(compare: ResolvedCompare, at: (from: string) => number): Json {
  const isRange = "range" in compare;
  const [from, to] = boundsOf(isRange ? compare.range : rangeOfKey(compare.key));
  const { target } = compare;
  const value = target === "value" ? Buffer.from(compare.to).toString("base64") : compare.to;
  return [isRange ? "r" : "k", at(fromOf(compare)), from, to, targetLetters[target], operatorLetters[compare.is], value];
}

function encodeOp(op: ResolvedOp, at: (from: string) => number): Json {
  const place = at(fromOf(op));
  switch (op.kind) {
    case "get":
      return ["g", place, keyOf(op.key)];
    case "range":
      return ["r", place, ...boundsOf(op.range), op.order === "create", op.descending, op.keysOnly, op.limit, op.createdBefore];
    case "put":
      return ["p", place, keyOf(op.key), Buffer.from(op.value).toString("base64"), op.session, op.returnPrevious];
    case "delete":
      return ["d", place, ...boundsOf(op.range), op.returnPrevious];
    case "add":
      return ["a", place, keyOf(op.key), op.delta];
    default:
      return unreachable(op);
  }
}

/** Without their namespace; null: to its end. */
function boundsOf({ from, to }: BinaryRange): [string, string | null] {
  const prefix = `${namespaceOf(from)}\0`;
  return [keyOf(from), to.startsWith(prefix) ? base64(to.slice(prefix.length)) : null];
}

function keyOf(whole: string): string {
  return base64(stripNamespace(whole));
}

export function base64(binary: string): string {
  return Buffer.from(binary, "latin1").toString("base64");
}

/** For the arguments of a function. */
export function bytea(binary: string): Buffer {
  return Buffer.from(binary, "latin1");
}

interface Answer {
  readonly revision: number;
  readonly succeeded: boolean;
  readonly results: readonly Json[] | null;
}

/** What must be called first; undefined: it is the answer itself. */
export function againOf(answer: unknown): "expire" | "adopt" | undefined {
  const { again } = (answer ?? {}) as { readonly again?: "expire" | "adopt" };
  return again;
}

/** @throws PROTOCOL */
export function decodeAnswer(txn: ResolvedTxn, answer: unknown): TxnResult {
  const { revision, succeeded, results } = answer as Answer;
  const ops = succeeded ? txn.then : txn.else;
  const list = results ?? [];
  if (list.length !== ops.length) throw malformed();
  return { revision: numberOf(revision), succeeded, results: ops.map((op, index) => decodeResult(op, list[index] ?? null)) };
}

function decodeResult(op: ResolvedOp, result: Json): OpResult {
  switch (op.kind) {
    case "get":
      return { kind: "get", entry: optionalEntry(result) };
    case "range": {
      const [counted, entries] = listOf(result);
      const [count, listed] = [numberOf(counted), listOf(entries).map(decodeEntry)];
      return { kind: "range", entries: listed, count, more: count > listed.length };
    }
    case "put":
      return { kind: "put", previous: optionalEntry(result) };
    case "delete": {
      const [count, previous] = listOf(result);
      return { kind: "delete", count: numberOf(count), previous: listOf(previous).map(decodeEntry) };
    }
    case "add":
      return { kind: "add", value: numberOf(result) };
    default:
      return unreachable(op);
  }
}

/** What NOTIFY carried. @throws PROTOCOL */
export function decodeNotice(payload: string): { readonly namespace: string; readonly message: ChangeMessage } {
  const { n, r, e } = JSON.parse(payload) as { readonly n: string; readonly r: number; readonly e?: readonly Json[] };
  const namespace = toBinaryString(Buffer.from(n, "base64"));
  const changes = e?.map((pair) => {
    const [previous, entry] = listOf(pair).map((each) => optionalEntry(each));
    const known = entry ?? previous;
    if (known === undefined || known === null) throw malformed();
    return { whole: `${namespace}\0${toBinaryString(known.keyBytes)}`, previous: previous ?? null, entry: entry ?? null };
  });
  return { namespace, message: { revision: numberOf(r), changes: changes ?? null } };
}

function optionalEntry(json: Json | undefined): Entry | null {
  return json === null || json === undefined ? null : decodeEntry(json);
}

function decodeEntry(json: Json): Entry {
  const [key, created, modified, version, session, value] = listOf(json);
  if (typeof key !== "string" || typeof value !== "string") throw malformed();
  return new Entry({
    binaryKey: toBinaryString(Buffer.from(key, "base64")),
    value: new Uint8Array(Buffer.from(value, "base64")),
    createRevision: numberOf(created),
    modRevision: numberOf(modified),
    version: numberOf(version),
    session: session === null ? null : String(session),
  });
}

function listOf(json: Json | undefined): readonly Json[] {
  if (!Array.isArray(json)) throw malformed();
  return json as readonly Json[];
}

function numberOf(json: Json | undefined): number {
  if (typeof json !== "number" || !Number.isSafeInteger(json)) throw malformed();
  return json;
}

function malformed(): Error {
  return conclaveError("PROTOCOL", "The database answered a function of Conclave with what it never answers.");
}
