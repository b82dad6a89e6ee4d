/**
 * Two txns that every lock makes, recognised by their shape and run by purpose-made scripts: joining a queue, and deleting
 * one key. They leave exactly what the general script would leave; where anything is not plain they do nothing and say so.
 */
import { emptyBytes, toBinaryString } from "../../base/bytes.ts";
import type { ResolvedOp, ResolvedTxn } from "../../store/command.ts";
import { Entry } from "../../store/entry.ts";
import { isRangeOfKey, namespaceOf, stripNamespace } from "../../store/key.ts";
import type { TxnResult } from "../../store/store.ts";
import type { Argument, Reply } from "./resp.ts";
import { type Script, scripts } from "./scripts.ts";
import { bytesArgument, decodeEntry, listOf, numberOf, textOf } from "./txn-codec.ts";

export interface FastPath {
  readonly script: Script;
  readonly args: readonly Argument[];
  /** Undefined: it was not plain, and nothing was done. */
  readonly decode: (reply: Reply) => TxnResult | undefined;
}

type PutOp = Extract<ResolvedOp, { readonly kind: "put" }>;

/** Undefined: none of the two. */
export function fastPathOf(txn: ResolvedTxn): FastPath | undefined {
  const [first, second] = txn.then;
  if (first === undefined || txn.then.length > 2) return undefined;
  if (first.kind === "delete") return second === undefined ? dropOf(txn, first) : undefined;
  return first.kind === "put" && second?.kind === "range" && isJoin(txn, first, second) ? joinOf(first) : undefined;
}

function dropOf(txn: ResolvedTxn, op: Extract<ResolvedOp, { readonly kind: "delete" }>): FastPath | undefined {
  if (txn.compares.length > 0 || op.returnPrevious || !isRangeOfKey(op.range)) return undefined;
  const key = op.range.from;
  return {
    script: scripts.drop,
    args: [bytesArgument(key), bytesArgument(namespaceOf(key))],
    decode: (reply) => {
      const [code, revision, count] = listOf(reply);
      if (textOf(code) !== "OK") return undefined;
      return {
        succeeded: true,
        revision: numberOf(revision),
        results: [{ kind: "delete", count: numberOf(count), previous: [] }],
      };
    },
  };
}

/** If the key is absent, put it with its session, and tell the newest three of its namespace without their values. */
function isJoin(txn: ResolvedTxn, put: PutOp, range: Extract<ResolvedOp, { readonly kind: "range" }>): boolean {
  const [compare] = txn.compares;
  const prefix = `${namespaceOf(put.key)}\0`;
  return (
    txn.compares.length === 1 &&
    compare?.target === "exists" &&
    "key" in compare &&
    compare.key === put.key &&
    !compare.to &&
    put.session !== null &&
    !put.returnPrevious &&
    put.value.length < joinValueBytesMax &&
    range.order === "create" &&
    range.descending &&
    range.keysOnly &&
    range.limit === 3 &&
    range.createdBefore === null &&
    range.range.from === prefix &&
    range.range.to === `${prefix.slice(0, -1)}\x01`
  );
}

/** What others say about themselves in a queue is short; a long one is told by a resync, which the general script knows. */
const joinValueBytesMax = 32_768;

function joinOf(put: PutOp): FastPath {
  const namespace = namespaceOf(put.key);
  const session = String(put.session);
  return {
    script: scripts.join,
    args: [bytesArgument(put.key), put.value, session, bytesArgument(namespace)],
    decode: (reply) => {
      const [code, revisionText, count, ...before] = listOf(reply);
      if (textOf(code) !== "OK") return undefined;
      const revision = numberOf(revisionText);
      const mine = new Entry({
        binaryKey: stripNamespace(put.key),
        value: emptyBytes,
        createRevision: revision,
        modRevision: revision,
        version: 1,
        session,
      });
      const entries = [mine];
      for (let at = 0; at + 1 < before.length; at += 2)
        entries.push(decodeEntry(toBinaryString(before[at] as Buffer), before[at + 1]));
      const all = numberOf(count);
      return {
        succeeded: true,
        revision,
        results: [
          { kind: "put", previous: null },
          { kind: "range", entries, count: all, more: all > entries.length },
        ],
      };
    },
  };
}
