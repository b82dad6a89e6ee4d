/**
 * Conditions and operations of a txn, in words.
 *
 * ```ts
 * await store.txn({
 *   if: [when.version("jobs/1").equals(3), hold.guard()],
 *   then: [op.put("jobs/1", "done"), op.add("jobs/done", 1)],
 *   else: [op.get("jobs/1")],
 * });
 * ```
 * A condition on a range, `when.version(every({ prefix: "a/" })).isAbove(0)`, must hold for each key that is there.
 */
import type {
  AddOp,
  Compare,
  DeleteOp,
  GetOp,
  Key,
  KeyRange,
  PutOp,
  RangeOp,
  Revision,
  SessionId,
  Value,
} from "../store/store.ts";

/** What a condition is about: a key, or every key of a range. */
export type Subject = Key | { readonly range: KeyRange };

export interface NumberConditions {
  equals(to: number): Compare;
  differsFrom(to: number): Compare;
  isBelow(to: number): Compare;
  isAbove(to: number): Compare;
}

export interface ValueConditions {
  equals(to: Value): Compare;
  differsFrom(to: Value): Compare;
  /** In the order of bytes. */
  isBelow(to: Value): Compare;
  isAbove(to: Value): Compare;
}

export interface SessionConditions {
  /** `null`: bound to no session. */
  equals(to: SessionId | null): Compare;
  differsFrom(to: SessionId | null): Compare;
}

/** Makes a condition about every key of the range. An empty range satisfies it. @since 0.1.0 */
export function every(range: KeyRange): Subject {
  return { range };
}

/** Conditions; see `Compare` for what they mean of an absent key. @since 0.1.0 */
export const when = {
  exists: (subject: Subject): Compare => ({ ...about(subject), target: "exists", is: "equal", to: true }),
  absent: (subject: Subject): Compare => ({ ...about(subject), target: "exists", is: "equal", to: false }),
  /** The transaction that made the key. 0: absent. */
  createRevision: (subject: Subject): NumberConditions => numbers(subject, "createRevision"),
  /** The transaction that last wrote it. 0: absent. */
  modRevision: (subject: Subject): NumberConditions => numbers(subject, "modRevision"),
  /** How often it was written. 0: absent. */
  version: (subject: Subject): NumberConditions => numbers(subject, "version"),
  value: (subject: Subject): ValueConditions => ({
    equals: (to) => ({ ...about(subject), target: "value", is: "equal", to }),
    differsFrom: (to) => ({ ...about(subject), target: "value", is: "not-equal", to }),
    isBelow: (to) => ({ ...about(subject), target: "value", is: "less", to }),
    isAbove: (to) => ({ ...about(subject), target: "value", is: "greater", to }),
  }),
  session: (subject: Subject): SessionConditions => ({
    equals: (to) => ({ ...about(subject), target: "session", is: "equal", to }),
    differsFrom: (to) => ({ ...about(subject), target: "session", is: "not-equal", to }),
  }),
} as const;

/** Operations. @since 0.1.0 */
export const op = {
  get: (key: Key): GetOp => ({ kind: "get", key }),
  range: (range: KeyRange, options: Omit<RangeOp, "kind" | "range" | "namespace"> = {}): RangeOp => ({
    ...options,
    kind: "range",
    range,
  }),
  put: (key: Key, value: Value, options: Pick<PutOp, "session" | "returnPrevious"> = {}): PutOp => ({
    ...options,
    kind: "put",
    key,
    value,
  }),
  delete: (range: KeyRange, options: Pick<DeleteOp, "returnPrevious"> = {}): DeleteOp => ({ ...options, kind: "delete", range }),
  add: (key: Key, delta: number): AddOp => ({ kind: "add", key, delta }),
} as const;

/** The same condition or operation on a key of another namespace. Needs `caps.crossNamespace`. @since 0.1.0 */
export function within<T extends { readonly namespace?: string }>(namespace: string, item: T): T {
  return { ...item, namespace };
}

function numbers(subject: Subject, target: "createRevision" | "modRevision" | "version"): NumberConditions {
  const condition =
    (is: "equal" | "not-equal" | "less" | "greater") =>
    (to: Revision | number): Compare => ({ ...about(subject), target, is, to });
  return {
    equals: condition("equal"),
    differsFrom: condition("not-equal"),
    isBelow: condition("less"),
    isAbove: condition("greater"),
  };
}

function about(subject: Subject): { readonly key: Key } | { readonly range: KeyRange } {
  return typeof subject === "string" || subject instanceof Uint8Array ? { key: subject } : { range: subject.range };
}
