/**
 * A txn rehearsed on a copy: what it would answer and change, given the entries that it can see.
 *
 * For engines whose server cannot run every txn of the waist by itself: read what the txn may look at, rehearse it on the
 * machine's own code, then write the difference under the condition that nothing read has changed. So every engine answers
 * as the embedded one does, because the same lines answer.
 */
import type { Limits } from "./caps.ts";
import { ClaimTable } from "./claims.ts";
import type { ResolvedOp, ResolvedTxn, SessionNumber } from "./command.ts";
import { Entry } from "./entry.ts";
import { executeTxn } from "./execute.ts";
import { type BinaryRange, isInRange, isRangeOfKey, rangeOfKey, stripNamespace } from "./key.ts";
import { type MachineEvent, outcomeError } from "./outcome.ts";
import { State } from "./state.ts";
import type { OpResult, Revision, TxnResult } from "./store.ts";

export interface Scene {
  /** Of the state that was read. */
  readonly revision: Revision;
  /** Everything in the txn's `sightOf`, by whole keys. */
  readonly entries: Iterable<Entry>;
  readonly isAlive: (session: SessionNumber) => boolean;
}

/** What one key was and shall be. */
export interface Difference {
  readonly key: string;
  readonly before: Entry | null;
  readonly after: Entry | null;
}

export interface Rehearsal {
  readonly succeeded: boolean;
  /** Net: what was written and taken back is not there. Each key once. */
  readonly differences: readonly Difference[];
  /** The answer, once the revision is known at which the differences were written (or, without any, the state was read). */
  readonly answer: (revision: Revision) => TxnResult;
}

/** Every key and range that the txn may look at or write, in either branch; the keys of its ranges are not listed again. */
export function sightOf(txn: ResolvedTxn): BinaryRange[] {
  const ranges = [...txn.compares, ...txn.then, ...txn.else].map((item) => ("range" in item ? item.range : rangeOfKey(item.key)));
  const wide = ranges.filter((range) => !isRangeOfKey(range) && range.from < range.to);
  const seen = new Set<string>();
  return ranges.filter((range) => {
    const name = `${range.from}\xff${range.to}`;
    if (range.from >= range.to || seen.has(name)) return false;
    seen.add(name);
    return !isRangeOfKey(range) || !wide.some((each) => isInRange(each, range.from));
  });
}

/** @throws NOT_A_NUMBER, SESSION_EXPIRED, TXN_TOO_LARGE */
export function rehearse(txn: ResolvedTxn, scene: Scene, limits: Limits): Rehearsal {
  const state = new State({ keepsDigest: false });
  for (const entry of scene.entries) state.restoreEntry(entry);
  state.leapTo(scene.revision);
  for (const session of sessionsOf(txn))
    if (scene.isAlive(session)) state.addSession({ number: session, ttlMs: 0, claims: new ClaimTable() });
  let events: readonly MachineEvent[] = [];
  const outcome = executeTxn(txn, state, limits, (told) => {
    events = told;
  });
  if (outcome.kind !== "txn") throw outcomeError(outcome as Extract<typeof outcome, { readonly kind: "error" }>);
  const { results, succeeded } = outcome.result;
  const own = scene.revision + 1;
  return {
    succeeded,
    differences: differencesOf(events),
    answer: (revision) => ({
      succeeded,
      revision,
      results: results.map((result) => told(result, (at) => (at === own ? revision : at))),
    }),
  };
}

function sessionsOf(txn: ResolvedTxn): Set<SessionNumber> {
  const sessionOf = (op: ResolvedOp): readonly SessionNumber[] => (op.kind === "put" && op.session !== null ? [op.session] : []);
  return new Set([...txn.then, ...txn.else].flatMap(sessionOf));
}

function differencesOf(events: readonly MachineEvent[]): Difference[] {
  const byKey = new Map<string, Difference>();
  for (const { entry: after, key, previous } of events) {
    const { before } = byKey.get(key) ?? { before: previous };
    byKey.set(key, { key, before, after });
  }
  return [...byKey.values()].filter(({ after, before }) => after !== before);
}

/** As callers see it: keys without their namespaces, and the revision that the txn came to have. */
function told(result: OpResult, at: (revision: Revision) => Revision): OpResult {
  const shown = (entry: Entry): Entry =>
    new Entry({
      ...entry,
      binaryKey: stripNamespace(entry.binaryKey),
      createRevision: at(entry.createRevision),
      modRevision: at(entry.modRevision),
    });
  switch (result.kind) {
    case "get":
      return { ...result, entry: result.entry === null ? null : shown(result.entry) };
    case "range":
      return { ...result, entries: result.entries.map(shown) };
    case "put":
      return { ...result, previous: result.previous === null ? null : shown(result.previous) };
    case "delete":
      return { ...result, previous: result.previous.map(shown) };
    case "add":
      return result;
  }
}
