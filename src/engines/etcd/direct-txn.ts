/**
 * A txn of the waist as one txn of etcd's, where etcd can say the same: every recipe's but for `add`.
 *
 * What etcd cannot say, and so goes the longer way (`optimistic-txn.ts`):
 *   - `add`;
 *   - a key written twice, or written and deleted, in one branch;
 *   - a condition that holds for an absent value, or for an empty range where etcd asks an absent key and it would not hold.
 *
 * One range of ours may be two of etcd's: its count knows nothing of `createdBefore`.
 * Source: etcd server/etcdserver/apply.go (compares of empty ranges), api/v3rpc/key.go (overlapping writes).
 */
import type { ResolvedCompare, ResolvedOp, ResolvedRange, ResolvedTxn } from "../../store/command.ts";
import type { Entry } from "../../store/entry.ts";
import { isInRange, rangeOfKey } from "../../store/key.ts";
import type { OpResult, TxnResult } from "../../store/store.ts";
import type { EtcdKeys } from "./keys.ts";
import type { EtcdAnswer, EtcdCompare, EtcdOp, EtcdTxn, EtcdTxnAnswer } from "./messages.ts";

export interface DirectTxn {
  readonly request: EtcdTxn;
  /** Undefined: two entries at the edge of a limit were created together, and etcd does not say which comes first. */
  readonly decode: (answer: EtcdTxnAnswer) => TxnResult | undefined;
}

/** How one operation is asked, and how its answers are read. */
interface Step {
  readonly ops: readonly EtcdOp[];
  readonly read: (answers: readonly EtcdAnswer[]) => OpResult | undefined;
}

export function directTxnOf(txn: ResolvedTxn, keys: EtcdKeys): DirectTxn | undefined {
  const compares: EtcdCompare[] = [];
  for (const compare of txn.compares) {
    const told = compareOf(compare, keys);
    if (told === undefined) return undefined;
    if (told !== "always") compares.push(told);
  }
  if (!isPlain(txn.then) || !isPlain(txn.else)) return undefined;
  const branches = { then: txn.then.map((op) => stepOf(op, keys)), else: txn.else.map((op) => stepOf(op, keys)) };
  return {
    request: { compares, then: branches.then.flatMap(({ ops }) => ops), else: branches.else.flatMap(({ ops }) => ops) },
    decode: ({ answers, revision, succeeded }) => {
      const results: OpResult[] = [];
      let at = 0;
      for (const { ops, read } of succeeded ? branches.then : branches.else) {
        const result = read(answers.slice(at, at + ops.length));
        if (result === undefined) return undefined;
        results.push(result);
        at += ops.length;
      }
      return { succeeded, revision, results };
    },
  };
}

/** Undefined: etcd would judge otherwise. */
function compareOf(compare: ResolvedCompare, keys: EtcdKeys): EtcdCompare | "always" | undefined {
  const isRange = "range" in compare;
  const span = keys.span(isRange ? compare.range : rangeOfKey(compare.key));
  if (isRange && compare.range.from >= compare.range.to) return "always";
  switch (compare.target) {
    case "exists":
      if (!compare.to) return { span, target: "createRevision", is: "equal", to: 0 };
      return isRange ? "always" : { span, target: "createRevision", is: "greater", to: 0 };
    case "createRevision":
    case "modRevision":
    case "version": {
      // An empty range is judged as if one key with zeros were there.
      const { is, target, to } = compare;
      const holdsForZero = is === "equal" ? to === 0 : is === "not-equal" ? to !== 0 : is === "less" ? to > 0 : false;
      return isRange && !holdsForZero ? undefined : { span, target, is, to };
    }
    case "value":
      return isRange || compare.is === "not-equal" ? undefined : { span, target: "value", is: compare.is, to: compare.to };
    case "session": {
      const lease = compare.to ?? 0;
      if (isRange && (lease === 0) !== (compare.is === "equal")) return undefined;
      return { span, target: "lease", is: compare.is, to: lease };
    }
  }
}

function isPlain(ops: readonly ResolvedOp[]): boolean {
  const puts = new Set<string>();
  for (const op of ops) {
    if (op.kind === "add" || (op.kind === "put" && puts.has(op.key))) return false;
    if (op.kind === "put") puts.add(op.key);
  }
  const deletes = ops.filter((op) => op.kind === "delete");
  return deletes.every(({ range }) => [...puts].every((key) => !isInRange(range, key)));
}

function stepOf(op: ResolvedOp, keys: EtcdKeys): Step {
  switch (op.kind) {
    case "get":
      return {
        ops: [{ kind: "range", span: keys.span(rangeOfKey(op.key)) }],
        read: ([answer]) => ({ kind: "get", entry: entriesOf(answer, keys)[0] ?? null }),
      };
    case "range":
      return rangeStep(op, keys);
    case "put":
      return {
        ops: [
          {
            kind: "put",
            key: keys.stored(op.key),
            value: op.value,
            lease: op.session ?? 0,
            returnsPrevious: op.returnPrevious,
          },
        ],
        read: ([answer]) => ({
          kind: "put",
          previous: answer?.kind === "put" && answer.previous !== null ? keys.entry(answer.previous) : null,
        }),
      };
    case "delete":
      if (op.range.from >= op.range.to) return nothing({ kind: "delete", count: 0, previous: [] });
      return {
        ops: [{ kind: "delete", span: keys.span(op.range), returnsPrevious: op.returnPrevious }],
        read: ([answer]) =>
          answer?.kind === "delete"
            ? { kind: "delete", count: answer.count, previous: answer.previous.map((each) => keys.entry(each)) }
            : undefined,
      };
    case "add":
      throw new Error("`add` has no direct form.");
  }
}

function nothing(result: OpResult): Step {
  return { ops: [], read: () => result };
}

function rangeStep(op: ResolvedRange, keys: EtcdKeys): Step {
  const { createdBefore, descending, keysOnly, limit, order, range } = op;
  // No key is created before revision 2: the first write of an etcd has that number.
  if (range.from >= range.to || (createdBefore !== null && createdBefore < 2))
    return nothing({ kind: "range", entries: [], count: 0, more: false });
  const span = keys.span(range);
  const base: EtcdOp = { kind: "range", span, revision: op.atRevision ?? 0, keysOnly, sort: order, descending };
  if (createdBefore === null) {
    if (limit === 0) return { ops: [{ ...base, countOnly: true }], read: ([all]) => rangeResult([], countOf(all)) };
    return {
      ops: [{ ...base, limit: asked(limit, order) }],
      read: ([found]) => settle(entriesOf(found, keys), countOf(found), op),
    };
  }
  // etcd filters before it limits, but counts before it filters.
  const filtered: EtcdOp = { ...base, createRevisionMax: createdBefore - 1 };
  const everyKey: EtcdOp = { ...filtered, keysOnly: true };
  if (keysOnly || limit === 0)
    return { ops: [everyKey], read: ([found]) => settle(entriesOf(found, keys), entriesOf(found, keys).length, op) };
  if (limit === null)
    return { ops: [filtered], read: ([found]) => settle(entriesOf(found, keys), entriesOf(found, keys).length, op) };
  return {
    ops: [{ ...filtered, limit: asked(limit, order) }, everyKey],
    read: ([found, all]) => settle(entriesOf(found, keys), entriesOf(all, keys).length, op),
  };
}

/** One more than wanted, where that is how a tie is seen. */
function asked(limit: number | null, order: ResolvedRange["order"]): number {
  if (limit === null) return 0;
  return order === "create" ? limit + 1 : limit;
}

/** In our order, and no more than the limit. Undefined: a tie at its edge. */
function settle(entries: Entry[], count: number, { descending, limit, order }: ResolvedRange): OpResult | undefined {
  if (order === "create") {
    const sign = descending ? -1 : 1;
    entries.sort(
      (left, right) => sign * (left.createRevision - right.createRevision) || sign * (left.binaryKey < right.binaryKey ? -1 : 1),
    );
    const [last, next] = limit === null || limit === 0 ? [] : [entries[limit - 1], entries[limit]];
    const isWhole = entries.length >= count;
    if (!isWhole && last !== undefined && last.createRevision === next?.createRevision) return undefined;
  }
  return rangeResult(limit === null ? entries : entries.slice(0, limit), count);
}

function rangeResult(entries: readonly Entry[], count: number): OpResult {
  return { kind: "range", entries, count, more: count > entries.length };
}

function entriesOf(answer: EtcdAnswer | undefined, keys: EtcdKeys): Entry[] {
  return answer?.kind === "range" ? answer.entries.map((found) => keys.entry(found)) : [];
}

function countOf(answer: EtcdAnswer | undefined): number {
  return answer?.kind === "range" ? answer.count : 0;
}
