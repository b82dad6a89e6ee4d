// biome-ignore-all lint/suspicious/noThenProperty: the `then` of a txn is a list, never called.
/**
 * The machine against a naive one: a plain Map, every rule in its dullest words, sharing no code with it.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { toBinaryString } from "../base/bytes.ts";
import { encodeBatch } from "./batch.ts";
import { embeddedLimits, type Limits } from "./caps.ts";
import { type Command, encodeCommand } from "./command.ts";
import type { Entry } from "./entry.ts";
import { everyKey } from "./key.ts";
import { Machine } from "./machine.ts";
import { decodeOutcome, encodeOutcome, type MachineEvent } from "./outcome.ts";
import { resolveTxn } from "./resolve.ts";
import type { Compare, KeyRange, Op, Operator, Txn } from "./store.ts";

const limits: Limits = { ...embeddedLimits, claimsOpenMax: 3, resultBytesMax: 400, historyRevisions: 40 };
const startRevision = 1_000;

// --- the naive machine -------------------------------------------------------------------------------------------------

interface Row {
  key: string;
  value: string;
  create: number;
  mod: number;
  version: number;
  session: string | null;
}

interface Change {
  revision: number;
  key: string;
  row: Row | null;
  previous: Row | null;
}

/** As plain data, comparable with a told outcome. */
type Told = Record<string, unknown> & { kind: string };

class Naive {
  rows = new Map<string, Row>();
  sessions = new Map<string, { floor: number; claims: Map<number, Told>; bytes: Map<number, number> }>();
  revision = startRevision;
  nextSession = startRevision + 1;
  changes: Change[] = [];
  states = new Map<number, Map<string, Row>>([[startRevision, new Map()]]);

  open(): Told {
    const session = String(this.nextSession++);
    this.sessions.set(session, { floor: 0, claims: new Map(), bytes: new Map() });
    return { kind: "opened", session, revision: this.revision };
  }

  end(sessions: readonly string[]): Told {
    for (const session of sessions) {
      if (!this.sessions.delete(session)) continue;
      const bound = sortedRows(this.rows).filter((row) => row.session === session);
      if (bound.length === 0) continue;
      this.revision++;
      for (const row of bound) this.#change(row.key, null);
      this.#remember();
    }
    return { kind: "done", revision: this.revision };
  }

  txn(namespace: string, txn: Txn): Told {
    const { claim } = txn;
    if (claim === undefined) return this.#run(namespace, txn);
    const session = this.sessions.get(claim.session);
    if (session === undefined) return { kind: "error", code: "SESSION_EXPIRED", definite: false };
    if (claim.sequence >= claim.lowestOpen + limits.claimsOpenMax) return { kind: "error", code: "BUSY", definite: true };
    if (claim.sequence < session.floor) return { kind: "error", code: "CLAIM_TOO_OLD", definite: false };
    session.floor = Math.max(session.floor, claim.lowestOpen);
    for (const sequence of [...session.claims.keys()]) if (sequence < session.floor) session.claims.delete(sequence);
    const first = session.claims.get(claim.sequence);
    if (first !== undefined) return first;
    let bytes = 0;
    for (const sequence of session.claims.keys()) bytes += session.bytes.get(sequence) ?? 0;
    const told: Told =
      bytes >= limits.resultBytesMax ? { kind: "error", code: "BUSY", definite: true } : this.#run(namespace, txn);
    session.claims.set(claim.sequence, told);
    session.bytes.set(claim.sequence, keptBytes(told));
    return told;
  }

  #run(namespace: string, txn: Txn): Told {
    const before = { rows: new Map(this.rows), changes: this.changes.length };
    const holds = (txn.if ?? []).every((compare) => this.#holds(compare.namespace ?? namespace, compare));
    const results: Record<string, unknown>[] = [];
    let room = limits.resultBytesMax;
    this.revision++;
    let refused: string | undefined;
    for (const op of holds ? txn.then : (txn.else ?? [])) {
      const result = this.#op(op.namespace ?? namespace, op);
      if (typeof result === "string") {
        refused = result;
        break;
      }
      room -= result.bytes;
      if (room < 0) {
        refused = "TXN_TOO_LARGE";
        break;
      }
      results.push(result.told);
    }
    if (refused !== undefined) {
      this.rows = before.rows;
      this.changes.length = before.changes;
      this.revision--;
      return { kind: "error", code: refused, definite: true };
    }
    if (this.changes.length === before.changes) this.revision--;
    else this.#remember();
    return { kind: "txn", succeeded: holds, revision: this.revision, results };
  }

  #op(namespace: string, op: Op): { told: Record<string, unknown>; bytes: number } | string {
    switch (op.kind) {
      case "get": {
        const row = this.rows.get(full(namespace, op.key as string)) ?? null;
        return { told: { kind: "get", entry: row }, bytes: rowBytes(row) };
      }
      case "range": {
        const all = sortedRows(this.rows).filter(
          (row) => isWithin(namespace, op.range, row.key) && row.create < (op.createdBefore ?? Number.POSITIVE_INFINITY),
        );
        if (op.order === "create") all.sort((left, right) => left.create - right.create || (left.key < right.key ? -1 : 1));
        if (op.descending) all.reverse();
        const entries = all.slice(0, op.limit ?? all.length).map((row) => (op.keysOnly ? { ...row, value: "" } : row));
        const bytes = entries.reduce((sum, row) => sum + rowBytes(row), 0);
        return { told: { kind: "range", entries, count: all.length, more: entries.length < all.length }, bytes };
      }
      case "put": {
        if (op.session !== undefined && !this.sessions.has(op.session)) return "SESSION_EXPIRED";
        const previous = this.#write(full(namespace, op.key as string), op.value as string, op.session ?? null);
        return op.returnPrevious
          ? { told: { kind: "put", previous }, bytes: rowBytes(previous) }
          : { told: { kind: "put", previous: null }, bytes: 0 };
      }
      case "delete": {
        const gone = sortedRows(this.rows).filter((row) => isWithin(namespace, op.range, row.key));
        for (const row of gone) this.#change(row.key, null);
        const previous = op.returnPrevious ? gone : [];
        return {
          told: { kind: "delete", count: gone.length, previous },
          bytes: previous.reduce((sum, row) => sum + rowBytes(row), 0),
        };
      }
      case "add": {
        const key = full(namespace, op.key as string);
        const row = this.rows.get(key);
        if (row !== undefined && !/^-?\d+$/.test(row.value)) return "NOT_A_NUMBER";
        const value = BigInt(row?.value ?? "0") + BigInt(op.delta);
        if (value > 2n ** 53n - 1n || value < -(2n ** 53n) + 1n) return "NOT_A_NUMBER";
        this.#write(key, String(value), row?.session ?? null);
        return { told: { kind: "add", value: Number(value) }, bytes: 0 };
      }
    }
  }

  #holds(namespace: string, compare: Compare): boolean {
    const rows =
      "range" in compare
        ? sortedRows(this.rows).filter((row) => isWithin(namespace, compare.range, row.key))
        : [this.rows.get(full(namespace, compare.key as string))];
    return rows.every((row) => holdsFor(compare, row));
  }

  #write(key: string, value: string, session: string | null): Row | null {
    const old = this.rows.get(key) ?? null;
    this.#change(key, {
      key,
      value,
      create: old?.create ?? this.revision,
      mod: this.revision,
      version: (old?.version ?? 0) + 1,
      session,
    });
    return old;
  }

  #change(key: string, row: Row | null): void {
    this.changes.push({ revision: this.revision, key, row, previous: this.rows.get(key) ?? null });
    if (row === null) this.rows.delete(key);
    else this.rows.set(key, row);
  }

  #remember(): void {
    this.states.set(this.revision, new Map(this.rows));
  }
}

function holdsFor(compare: Compare, row: Row | undefined): boolean {
  switch (compare.target) {
    case "exists":
      return (row !== undefined) === compare.to;
    case "value":
      if (row === undefined) return compare.is === "not-equal";
      return judge(compare.is, row.value, compare.to as string);
    case "session":
      return judge(compare.is, row?.session ?? null, compare.to);
    case "createRevision":
      return judge(compare.is, row?.create ?? 0, compare.to);
    case "modRevision":
      return judge(compare.is, row?.mod ?? 0, compare.to);
    case "version":
      return judge(compare.is, row?.version ?? 0, compare.to);
  }
}

function judge<T>(is: Operator, left: T, right: T): boolean {
  if (is === "equal") return left === right;
  if (is === "not-equal") return left !== right;
  return is === "less" ? (left as never) < (right as never) : (left as never) > (right as never);
}

function full(namespace: string, key: string): string {
  return `${namespace}\0${key}`;
}

function isWithin(namespace: string, range: KeyRange, whole: string): boolean {
  if (!whole.startsWith(`${namespace}\0`)) return false;
  const key = whole.slice(namespace.length + 1);
  if ("key" in range) return key === range.key;
  if ("prefix" in range) return key.startsWith(range.prefix as string);
  return key >= (range.from as string) && (range.to === undefined || key < (range.to as string));
}

function sortedRows(rows: ReadonlyMap<string, Row>): Row[] {
  return [...rows.values()].sort((left, right) => (left.key < right.key ? -1 : 1));
}

function rowBytes(row: Row | null): number {
  return row === null ? 0 : row.key.length + row.value.length + 40;
}

function keptBytes(told: Told): number {
  if (told.kind !== "txn") return 100;
  let bytes = 100;
  for (const result of told.results as Record<string, unknown>[]) {
    bytes += 10;
    for (const row of [result.entry, result.kind === "put" ? result.previous : null]) bytes += rowBytes((row as Row) ?? null);
    if (result.kind === "range") for (const row of result.entries as Row[]) bytes += rowBytes(row);
    if (result.kind === "delete") for (const row of result.previous as Row[]) bytes += rowBytes(row);
    // A found entry counts instead of the ten bytes of an absent one.
    if ((result.kind === "get" && result.entry !== null) || (result.kind === "put" && result.previous !== null)) bytes -= 10;
  }
  return bytes;
}

// --- what is sent ------------------------------------------------------------------------------------------------------

const namespace = fc.constantFrom("n", "m");
const placed = fc.option(namespace, { nil: undefined });
const key = fc.constantFrom("a", "a/1", "a/2", "b", "c");
const range: fc.Arbitrary<KeyRange> = fc.oneof(
  fc.record({ key }),
  fc.record({ prefix: fc.constantFrom("", "a", "a/", "x") }),
  fc.record({ from: fc.constantFrom("", "a/1", "b"), to: fc.constantFrom("", "a/2", "c", "z") }),
  fc.record({ from: fc.constantFrom("", "a/1", "b") }),
);
const value = fc.constantFrom("", "1", "-7", "9007199254740990", "x", "long ".repeat(12), "word ".repeat(20));
/** Sessions by place among those opened so far; the last numbers name none. */
const sessionPlace = fc.nat(6);
const revision = fc.nat(60).map((offset) => startRevision + offset);
const operator = fc.constantFrom<Operator>("equal", "not-equal", "less", "greater");

type Sessions = (place: number) => string;

const compare: fc.Arbitrary<(sessions: Sessions) => Compare> = fc
  .tuple(
    fc.oneof(fc.record({ key }), fc.record({ range })),
    placed,
    fc.oneof(
      fc.record({ target: fc.constant("exists" as const), is: fc.constant("equal" as const), to: fc.boolean() }),
      fc.record({
        target: fc.constantFrom("createRevision" as const, "modRevision" as const),
        is: operator,
        to: fc.oneof(revision, fc.constant(0)),
      }),
      fc.record({ target: fc.constant("version" as const), is: operator, to: fc.nat(3) }),
      fc.record({ target: fc.constant("value" as const), is: operator, to: value }),
      fc.record({
        target: fc.constant("session" as const),
        is: fc.constantFrom("equal" as const, "not-equal" as const),
        to: fc.option(sessionPlace),
      }),
    ),
  )
  .map(([where, at, what]) => (sessions) => {
    const to = what.target === "session" && what.to !== null ? sessions(what.to) : what.to;
    return { ...where, ...(at === undefined ? {} : { namespace: at }), ...what, to } as Compare;
  });

const op: fc.Arbitrary<(sessions: Sessions) => Op> = fc.oneof(
  fc.record({ kind: fc.constant("get" as const), key }).map((each) => () => each),
  fc
    .record(
      {
        kind: fc.constant("range" as const),
        range,
        order: fc.constantFrom("key" as const, "create" as const),
        descending: fc.boolean(),
        limit: fc.nat(3),
        keysOnly: fc.boolean(),
        createdBefore: revision,
        namespace,
      },
      { requiredKeys: ["kind", "range"] },
    )
    .map((each) => () => each),
  {
    weight: 3,
    arbitrary: fc
      .tuple(
        fc.record({ kind: fc.constant("put" as const), key, value, returnPrevious: fc.boolean() }),
        fc.option(sessionPlace, { nil: undefined, freq: 1 }),
        placed,
      )
      .map(([each, place, at]) => (sessions: Sessions) => ({
        ...each,
        ...(place === undefined ? {} : { session: sessions(place) }),
        ...(at === undefined ? {} : { namespace: at }),
      })),
  },
  fc.record({ kind: fc.constant("delete" as const), range, returnPrevious: fc.boolean() }).map((each) => () => each),
  fc.record({ kind: fc.constant("add" as const), key, delta: fc.integer({ min: -3, max: 3 }) }).map((each) => () => each),
);

const claim = fc.record({ session: sessionPlace, sequence: fc.nat(8), behind: fc.nat(4) });

const step = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      kind: fc.constant("txn" as const),
      namespace,
      if: fc.array(compare, { maxLength: 2 }),
      then: fc.array(op, { maxLength: 4 }),
      else: fc.array(op, { maxLength: 3 }),
      claim: fc.option(claim, { nil: undefined, freq: 2 }),
    }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("open" as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("close" as const), session: sessionPlace }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant("expire" as const), sessions: fc.array(sessionPlace, { maxLength: 3 }) }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("cut" as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("restore" as const), chunkBytes: fc.integer({ min: 1, max: 90 }) }) },
);

// --- the comparison ----------------------------------------------------------------------------------------------------

describe("the machine", () => {
  test("answers, tells and keeps what a naive one does, through claims, sessions and restores", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60, size: "max" }), revision, (steps, since) => {
        const naive = new Naive();
        const machine = new Machine({ limits, keepsDigest: true });
        const twin = new Machine({ limits });
        let restored = start(new Machine({ limits, keepsDigest: true }), 1);
        start(machine, 1);
        start(twin, 1);
        const events: MachineEvent[] = [];
        machine.subscribe((at, told) => {
          expect(told.every((event) => event.revision === at)).toBe(true);
          events.push(...told);
        });
        const opened: string[] = [];
        const sessions: Sessions = (place) => opened[opened.length - 1 - place] ?? "77";
        let index = 1;
        let batch: Uint8Array[] = [];
        let expected: Told[] = [];

        const flush = (): void => {
          const entry = { index: ++index, stampMs: index * 10, payload: encodeBatch(batch) };
          const told: Told[] = [];
          machine.applyBatch(entry, (position, outcome) => {
            expect(position).toBe(told.length);
            const bytes = encodeOutcome(outcome);
            told.push(plain(outcome));
            expect(plain(decodeOutcome(bytes))).toEqual(plain(outcome, true));
          });
          twin.applyBatch(entry);
          restored.applyBatch(entry);
          expect(told).toEqual(expected);
          batch = [];
          expected = [];
        };

        for (const each of steps) {
          if (each.kind === "txn") {
            const txn: Txn = {
              if: each.if.map((make) => make(sessions)),
              then: each.then.map((make) => make(sessions)),
              else: each.else.map((make) => make(sessions)),
              ...(each.claim === undefined
                ? {}
                : {
                    claim: {
                      session: sessions(each.claim.session),
                      sequence: each.claim.sequence,
                      lowestOpen: Math.max(0, each.claim.sequence - each.claim.behind),
                    },
                  }),
            };
            // The door refuses what is beyond the window; here it is to reach the machine.
            batch.push(encodeCommand(resolveTxn(each.namespace, txn, { ...limits, claimsOpenMax: 1_000 })));
            expected.push(naive.txn(each.namespace, txn));
          } else if (each.kind === "open") {
            batch.push(encodeCommand({ kind: "open-session", ttlMs: 5_000 }));
            const told = naive.open();
            opened.push(told.session as string);
            expected.push(told);
          } else if (each.kind === "close") {
            batch.push(encodeCommand({ kind: "close-session", session: Number(sessions(each.session)) }));
            expected.push(naive.end([sessions(each.session)]));
          } else if (each.kind === "expire") {
            const ended = each.sessions.map(sessions);
            batch.push(encodeCommand({ kind: "expire-sessions", sessions: ended.map(Number) }));
            expected.push(naive.end(ended));
          } else {
            flush();
            if (each.kind === "restore") {
              const bytes = Buffer.concat([...restored.snapshot()]);
              restored = Machine.restore(cut(bytes, each.chunkBytes), { limits, keepsDigest: true, appliedIndex: index });
              expect(restored.digest()).toBe(machine.digest());
            }
          }
        }
        flush();

        const { entries, revision: present } = machine.entriesIn(everyKey);
        expect(present).toBe(naive.revision);
        expect(entries.map((entry) => row(entry))).toEqual(sortedRows(naive.rows));
        expect(events.map(change)).toEqual(naive.changes);
        expect([...machine.sessions()].map(({ id }) => id)).toEqual([...naive.sessions.keys()]);
        for (const { id, boundKeys, keptClaims } of machine.sessions()) {
          expect(boundKeys).toBe([...naive.rows.values()].filter(({ session }) => session === id).length);
          expect(keptClaims).toBe(naive.sessions.get(id)?.claims.size);
        }
        expect(twin.digest()).toBe(machine.digest());
        expect(restored.digest()).toBe(machine.digest());
        expectHistory(machine, naive, since);
      }),
      { numRuns: Number(process.env.RUNS ?? 400) },
    );
  });
});

function start(machine: Machine, index: number): Machine {
  const command: Command = { kind: "initialise", revision: startRevision };
  machine.applyBatch({
    index,
    stampMs: 0,
    payload: encodeBatch([encodeCommand(command), encodeCommand({ kind: "initialise", revision: 9_999 })]),
  });
  return machine;
}

function expectHistory(machine: Machine, naive: Naive, since: number): void {
  const kept = Math.min(limits.historyRevisions, naive.revision - startRevision);
  expect(machine.oldestRevision).toBe(naive.revision - kept);
  const changes = machine.changesSince(everyKey, since);
  if (since <= machine.oldestRevision) expect(changes).toEqual({ kind: "resync", revision: naive.revision });
  else {
    expect(changes.kind === "changes" && changes.events.map(change)).toEqual(
      naive.changes.filter((each) => each.revision >= since),
    );
  }
  const txn = resolveTxn("n", { then: [{ kind: "range", range: { prefix: "" }, atRevision: since }] }, limits);
  const outcome = machine.read(txn);
  const state = naive.states.get(since);
  if (since > naive.revision) expect(outcome).toMatchObject({ kind: "error", code: "INVALID_OPTION" });
  else if (since < machine.oldestRevision) expect(outcome).toMatchObject({ kind: "error", code: "COMPACTED" });
  else {
    const rows = sortedRows(state ?? new Map()).filter(({ key: each }) => each.startsWith("n\0"));
    const bytes = rows.reduce((sum, each) => sum + rowBytes(each), 0);
    if (bytes > limits.resultBytesMax) expect(outcome).toMatchObject({ kind: "error", code: "TXN_TOO_LARGE" });
    else expect(plain(outcome).results).toEqual([{ kind: "range", entries: rows, count: rows.length, more: false }]);
  }
}

function row(entry: Entry, isStripped = false): Row {
  return {
    key: isStripped ? entry.binaryKey.slice(entry.binaryKey.indexOf("\0") + 1) : entry.binaryKey,
    value: toBinaryString(entry.value),
    create: entry.createRevision,
    mod: entry.modRevision,
    version: entry.version,
    session: entry.session,
  };
}

function change(event: MachineEvent): Change {
  return {
    revision: event.revision,
    key: event.key,
    row: event.entry === null ? null : row(event.entry),
    previous: event.previous === null ? null : row(event.previous),
  };
}

/** Any outcome as plain data; messages are for people. */
function plain(outcome: ReturnType<typeof decodeOutcome>, isStripped = false): Told {
  if (outcome.kind === "error") return { kind: "error", code: outcome.code, definite: outcome.definite };
  if (outcome.kind !== "txn") return outcome;
  const { succeeded, revision: at, results } = outcome.result;
  const rowOrNull = (entry: Entry | null): Row | null => (entry === null ? null : row(entry, isStripped));
  return {
    kind: "txn",
    succeeded,
    revision: at,
    results: results.map((result) => {
      if (result.kind === "get") return { kind: "get", entry: rowOrNull(result.entry) };
      if (result.kind === "put") return { kind: "put", previous: rowOrNull(result.previous) };
      if (result.kind === "delete") return { ...result, previous: result.previous.map(rowOrNull) };
      return result.kind === "range" ? { ...result, entries: result.entries.map(rowOrNull) } : result;
    }),
  };
}

function* cut(bytes: Uint8Array, chunkBytes: number): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += chunkBytes) yield bytes.subarray(at, at + chunkBytes);
}
