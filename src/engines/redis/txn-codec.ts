/**
 * A txn as the arguments of the script, and the script's answer as a result.
 *
 * Flat lists of arguments, because Lua reads `ARGV[at]` faster than anything that would have to be unpacked first:
 *
 *     compares   count, then for each   k|r from to  target operator value
 *     branch     number of arguments, count, then for each operation its kind, key and fields      (twice: then, else)
 */
import { unreachable } from "../../base/assert.ts";
import { binaryStringToUtf8, fromBinaryString, toBinaryString } from "../../base/bytes.ts";
import { type ConclaveError, conclaveError } from "../../base/errors.ts";
import type { ResolvedCompare, ResolvedOp, ResolvedTxn } from "../../store/command.ts";
import { Entry } from "../../store/entry.ts";
import { isRangeOfKey, stripNamespace } from "../../store/key.ts";
import type { Operator, OpResult, TxnResult } from "../../store/store.ts";
import type { Argument, Reply } from "./resp.ts";
import { layoutVersion } from "./scripts.ts";

const targetLetters = { exists: "e", createRevision: "c", modRevision: "m", version: "n", value: "v", session: "s" } as const;
const operatorLetters: Readonly<Record<Operator, string>> = { equal: "=", "not-equal": "!", less: "<", greater: ">" };
const lineFeed = 0x0a;

export function encodeTxn(txn: ResolvedTxn): Argument[] {
  const args: Argument[] = [txn.compares.length];
  for (const compare of txn.compares) pushCompare(args, compare);
  pushBranch(args, txn.then);
  pushBranch(args, txn.else);
  return args;
}

/** Whether memory may grow by it. */
export function puts(txn: ResolvedTxn): boolean {
  const isPut = (op: ResolvedOp): boolean => op.kind === "put" || op.kind === "add";
  return txn.then.some(isPut) || txn.else.some(isPut);
}

function pushCompare(args: Argument[], compare: ResolvedCompare): void {
  if ("range" in compare) args.push("r", bytesArgument(compare.range.from), bytesArgument(compare.range.to));
  else args.push("k", bytesArgument(compare.key), "");
  args.push(targetLetters[compare.target], operatorLetters[compare.is]);
  switch (compare.target) {
    case "exists":
      args.push(compare.to ? "1" : "0");
      break;
    case "session":
      args.push(compare.to ?? "");
      break;
    default:
      args.push(compare.to);
  }
}

function pushBranch(args: Argument[], ops: readonly ResolvedOp[]): void {
  const at = args.push(0) - 1;
  args.push(ops.length);
  for (const op of ops) pushOp(args, op);
  args[at] = args.length - at - 1;
}

function pushOp(args: Argument[], op: ResolvedOp): void {
  switch (op.kind) {
    case "get":
      args.push("g", bytesArgument(op.key));
      break;
    case "range":
      args.push("r", bytesArgument(op.range.from), bytesArgument(op.range.to), op.order === "create" ? "c" : "k");
      args.push(op.descending ? "1" : "0", op.keysOnly ? "1" : "0", op.limit ?? -1, op.createdBefore ?? -1);
      break;
    case "put":
      args.push("p", bytesArgument(op.key), op.value, op.session ?? "", op.returnPrevious ? "1" : "0");
      break;
    case "delete":
      if (isRangeOfKey(op.range)) args.push("x", bytesArgument(op.range.from));
      else args.push("d", bytesArgument(op.range.from), bytesArgument(op.range.to));
      args.push(op.returnPrevious ? "1" : "0");
      break;
    case "add":
      args.push("a", bytesArgument(op.key), op.delta);
      break;
    default:
      unreachable(op);
  }
}

/** Plain ASCII goes as the text that it is. */
export function bytesArgument(binary: string): Argument {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the ASCII range is meant.
  return /^[\x00-\x7f]*$/.test(binary) ? binary : fromBinaryString(binary);
}

/** @throws what the script refused, PROTOCOL */
export function decodeTxnReply(txn: ResolvedTxn, reply: Reply): TxnResult {
  const [, revision, succeeded, results] = checkedReply(reply);
  const ops = succeeded === 1 ? txn.then : txn.else;
  const lists = listOf(results);
  if (lists.length !== ops.length) throw malformed();
  return {
    succeeded: succeeded === 1,
    revision: numberOf(revision),
    results: ops.map((op, index) => decodeResult(op, listOf(lists[index]))),
  };
}

/** The answer of any script, if it is none of its refusals. */
export function checkedReply(reply: Reply): readonly Reply[] {
  const list = listOf(reply);
  const code = textOf(list[0]);
  if (code === "OK") return list;
  const key = list[1] instanceof Uint8Array ? binaryStringToUtf8(stripNamespace(toBinaryString(list[1]))) : "";
  const shown = JSON.stringify(key);
  switch (code) {
    case "SESSION_EXPIRED":
      throw conclaveError(code, `Key ${shown} was not written: its session ${textOf(list[2])} is not alive.`);
    case "NOT_A_NUMBER":
      throw conclaveError(
        code,
        textOf(list[2]) === "sum" ? `The sum for key ${shown} leaves 2^53.` : `The value of key ${shown} is no whole number.`,
      );
    case "TXN_TOO_LARGE":
      throw conclaveError(code, `The answer at ${shown} exceeds what one txn may answer; nothing was done.`);
    case "REVISION_LIMIT":
      throw conclaveError(code, `Key ${shown} was not written: no revision is left.`);
    case "QUARANTINED":
      throw quarantined(numberOf(list[1]));
    case "WRONG_PROTOCOL":
      throw conclaveError(
        code,
        `The store on the server has layout ${textOf(list[1])}, ours is ${layoutVersion}: it is in use by another version of Conclave. End the older clients, or name another \`group\`.`,
      );
    default:
      throw malformed();
  }
}

/** A new or changed primary: nobody may hold anything until every holder of the old one has stopped. */
export function quarantined(leftMs: number): ConclaveError & { readonly leftMs: number } {
  const error = conclaveError(
    "QUARANTINED",
    `The store is in quarantine, because its Redis is new to it (restarted, replaced or empty): no session begins for another ${leftMs} ms. \`?quarantineMs=-1\` in the URL does without, where no earlier holder can be alive.`,
  );
  return Object.assign(error, { leftMs });
}

function decodeResult(op: ResolvedOp, fields: readonly Reply[]): OpResult {
  switch (op.kind) {
    case "get":
      return { kind: "get", entry: optionalEntry(op.key, fields[0]) };
    case "range": {
      const entries = entriesOf(fields);
      const count = numberOf(fields[0]);
      return { kind: "range", entries, count, more: count > entries.length };
    }
    case "put":
      return { kind: "put", previous: optionalEntry(op.key, fields[0]) };
    case "delete":
      return { kind: "delete", count: numberOf(fields[0]), previous: entriesOf(fields) };
    case "add":
      return { kind: "add", value: numberOf(fields[0]) };
    default:
      return unreachable(op);
  }
}

/** After the first field, keys and blobs in turn. */
function entriesOf(fields: readonly Reply[]): Entry[] {
  const entries: Entry[] = [];
  for (let at = 1; at + 1 < fields.length; at += 2) entries.push(decodeEntry(binaryOf(fields[at]), fields[at + 1]));
  return entries;
}

function optionalEntry(key: string, blob: Reply | undefined): Entry | null {
  return blob === undefined || blob === null ? null : decodeEntry(key, blob);
}

/** `create mod version session\n` and the value, of a whole key. @throws PROTOCOL */
export function decodeEntry(whole: string, blob: Reply | undefined): Entry {
  if (!(blob instanceof Uint8Array)) throw malformed();
  const end = blob.indexOf(lineFeed);
  const [create, mod, version, session] = blob.toString("latin1", 0, Math.max(0, end)).split(" ");
  if (end < 0 || session === undefined) throw malformed();
  return new Entry({
    binaryKey: stripNamespace(whole),
    // Copied: a view would keep the whole chunk of the socket alive.
    value: new Uint8Array(blob.subarray(end + 1)),
    createRevision: numberOf(create),
    modRevision: numberOf(mod),
    version: numberOf(version),
    session: session === "" ? null : session,
  });
}

/** The whole keys of a txn that reads one range. */
export function decodeRangeKeys(reply: Reply): readonly string[] {
  const [, , , results] = checkedReply(reply);
  const [fields] = listOf(results);
  return listOf(fields)
    .slice(1)
    .filter((_, at) => at % 2 === 0)
    .map(binaryOf);
}

export function listOf(reply: Reply | undefined): readonly Reply[] {
  if (!Array.isArray(reply)) throw malformed();
  return reply;
}

export function textOf(reply: Reply | undefined): string {
  if (reply instanceof Uint8Array) return reply.toString("utf8");
  if (typeof reply === "string" || typeof reply === "number") return String(reply);
  throw malformed();
}

export function numberOf(reply: Reply | undefined): number {
  const number = Number(textOf(reply));
  if (!Number.isSafeInteger(number)) throw malformed();
  return number;
}

function binaryOf(reply: Reply | undefined): string {
  if (!(reply instanceof Uint8Array)) throw malformed();
  return toBinaryString(reply);
}

export function malformed(): Error {
  return conclaveError("PROTOCOL", "The server answered a script of Conclave with what it never answers.");
}
