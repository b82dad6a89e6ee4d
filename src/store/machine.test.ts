// biome-ignore-all lint/suspicious/noThenProperty: the `then` of a txn is a list, never called.
import { describe, expect, test } from "vitest";
import { AssertionError } from "../base/assert.ts";
import { ByteReader, ByteWriter } from "../base/byte-codec.ts";
import { toBinaryString } from "../base/bytes.ts";
import { encodeBatch } from "./batch.ts";
import { embeddedLimits, type Limits } from "./caps.ts";
import { type Command, encodeCommand } from "./command.ts";
import { everyKey } from "./key.ts";
import { Machine } from "./machine.ts";
import { type MachineEvent, type Outcome, outcomeError, readWatchEvent, toWatchEvent, writeEvent } from "./outcome.ts";
import { resolveTxn } from "./resolve.ts";
import type { Op, Txn } from "./store.ts";

const limits: Limits = { ...embeddedLimits, resultBytesMax: 1_000 };

/** A machine with a hand: what it answered last, and what it told. */
class Bench {
  readonly machine: Machine;
  readonly told: { revision: number; events: readonly MachineEvent[] }[] = [];

  constructor(revision = 100, options: Partial<Limits> = {}) {
    this.machine = new Machine({ limits: { ...limits, ...options } });
    this.apply({ kind: "initialise", revision });
    this.machine.subscribe((at, events) => this.told.push({ revision: at, events }));
  }

  apply(command: Command): Outcome {
    return this.applyBytes(encodeCommand(command));
  }

  applyBytes(command: Uint8Array): Outcome {
    const outcomes: Outcome[] = [];
    const index = this.machine.appliedIndex + 1;
    this.machine.applyBatch({ index, stampMs: 0, payload: encodeBatch([command]) }, (_, outcome) => outcomes.push(outcome));
    expect(outcomes.length).toBe(1);
    return outcomes[0] as Outcome;
  }

  txn(txn: Txn): Outcome {
    return this.apply(resolveTxn("n", txn, embeddedLimits));
  }

  run(...ops: Op[]): Outcome {
    return this.txn({ then: ops });
  }

  claimed(session: string, sequence: number, lowestOpen: number, ...ops: Op[]): Outcome {
    return this.txn({ then: ops, claim: { session, sequence, lowestOpen } });
  }

  open(): string {
    const outcome = this.apply({ kind: "open-session", ttlMs: 5_000 });
    return outcome.kind === "opened" ? outcome.session : "none";
  }

  keys(): string[] {
    return this.machine.entriesIn(everyKey).entries.map(({ binaryKey }) => binaryKey);
  }
}

const put = (key: string, value = "v", more: Partial<Extract<Op, { kind: "put" }>> = {}): Op => ({
  kind: "put",
  key,
  value,
  ...more,
});
const add = (key: string, delta = 1): Op => ({ kind: "add", key, delta });

describe("revisions", () => {
  test("start where the first initialise says, and later ones change nothing", () => {
    const bench = new Bench(100);
    expect(bench.apply({ kind: "initialise", revision: 900 })).toEqual({ kind: "done", revision: 100 });
    expect(bench.machine.isInitialised).toBe(true);
  });

  test("move by one with each txn that wrote, and not with reads, misses, sessions or refusals", () => {
    const bench = new Bench(100);
    const revisions = [
      bench.run(put("a"), put("b")),
      bench.run({ kind: "get", key: "a" }),
      bench.run({ kind: "delete", range: { prefix: "nothing" } }),
      bench.apply({ kind: "open-session", ttlMs: 5_000 }),
      bench.run(put("c"), put("d", "", { session: "5" })),
      bench.run(put("e")),
    ].map(() => bench.machine.revision);
    expect(revisions.at(-1)).toBe(102);
    expect(bench.told.map(({ revision, events }) => [revision, events.length])).toEqual([
      [101, 2],
      [102, 1],
    ]);
    expect(bench.keys()).toEqual(["n\0a", "n\0b", "n\0e"]);
  });

  test("end at 2^53 - 1: writes are refused, reads and empty deletes go on, sessions with keys stay", () => {
    const bench = new Bench(Number.MAX_SAFE_INTEGER - 2);
    const session = bench.open();
    expect(session).toBe(String(Number.MAX_SAFE_INTEGER - 1));
    expect(bench.run(put("a", "1", { session }))).toMatchObject({
      kind: "txn",
      result: { revision: Number.MAX_SAFE_INTEGER - 1 },
    });
    expect(bench.run(put("b"))).toMatchObject({ kind: "txn", result: { revision: Number.MAX_SAFE_INTEGER } });
    for (const op of [put("c"), add("a"), { kind: "delete", range: { key: "a" } } as const]) {
      expect(bench.run(op)).toMatchObject({ kind: "error", code: "REVISION_LIMIT" });
    }
    expect(bench.apply({ kind: "close-session", session: Number(session) })).toMatchObject({ code: "REVISION_LIMIT" });
    expect(bench.run({ kind: "get", key: "a" })).toMatchObject({ kind: "txn" });
    expect(bench.run({ kind: "delete", range: { key: "z" } })).toMatchObject({ kind: "txn" });
    expect(bench.apply({ kind: "open-session", ttlMs: 5_000 })).toMatchObject({ kind: "opened" });
    expect(bench.apply({ kind: "open-session", ttlMs: 5_000 })).toMatchObject({ code: "REVISION_LIMIT" });
    expect(bench.machine.hasSession(session)).toBe(true);
  });
});

describe("entries", () => {
  test("start anew when they are made again after a delete", () => {
    const bench = new Bench(100);
    bench.run(put("a"));
    bench.run(put("a"));
    bench.run({ kind: "delete", range: { key: "a" } });
    bench.run(put("a"));
    expect(bench.machine.entriesIn(everyKey).entries[0]).toMatchObject({ createRevision: 104, modRevision: 104, version: 1 });
    expect(bench.told.map(({ events }) => [events[0]?.entry?.version, events[0]?.previous?.version])).toEqual([
      [1, undefined],
      [2, 1],
      [undefined, 2],
      [1, undefined],
    ]);
  });

  test("keep no part of the batch that brought them", () => {
    for (const length of [10, 300, 5_000]) {
      const bench = new Bench();
      const payload = encodeBatch([encodeCommand(resolveTxn("n", { then: [put("a", "x".repeat(length))] }, limits))]);
      bench.machine.applyBatch({ index: 9, stampMs: 0, payload });
      payload.fill(0);
      const [entry] = bench.machine.entriesIn(everyKey).entries;
      expect(entry?.text).toBe("x".repeat(length));
      expect(entry?.value.buffer.byteLength).toBeLessThanOrEqual(Math.max(2_048, length));
    }
  });

  test("are bound by the last put: another session takes over, none undoes it, an addition keeps it", () => {
    const bench = new Bench();
    const [one, other] = [bench.open(), bench.open()];
    bench.run(put("a", "1", { session: one }), put("b", "1", { session: one }), put("c", "1", { session: one }));
    bench.run(put("a", "1", { session: other }), put("b", "1"), add("c"));
    bench.apply({ kind: "close-session", session: Number(one) });
    expect(bench.keys()).toEqual(["n\0a", "n\0b"]);
    bench.apply({ kind: "expire-sessions", sessions: [Number(one), Number(other), 12_345] });
    expect(bench.keys()).toEqual(["n\0b"]);
  });
});

describe("a txn that is refused", () => {
  test.each<[string, string, Op[]]>([
    ["SESSION_EXPIRED", "a put bound to a dead session", [put("b", "", { session: "1" })]],
    ["NOT_A_NUMBER", "a sum with text", [add("text")]],
    ["NOT_A_NUMBER", "a sum beyond 2^53", [add("large", 5)]],
    ["TXN_TOO_LARGE", "an answer that is too large", [{ kind: "range", range: { prefix: "" } }]],
    ["TXN_TOO_LARGE", "a previous value that is too large", [{ kind: "delete", range: { prefix: "" }, returnPrevious: true }]],
  ])("leaves nothing behind: %s for %s", (code, _, ops) => {
    const bench = new Bench();
    const session = bench.open();
    bench.run(put("text", "t".repeat(1_200)), put("large", String(Number.MAX_SAFE_INTEGER - 2)), put("mine", "", { session }));
    const before = bench.machine.digest();
    const told = bench.told.length;
    const dirty: Op[] = [
      put("new"),
      put("text", "2"),
      put("mine", "", {}),
      put("text", "t".repeat(1_200)),
      { kind: "delete", range: { key: "new" } },
    ];
    const outcome = bench.run(...dirty, ...(code === "NOT_A_NUMBER" ? [] : [add("large", 0)]), ...ops);
    expect(outcome).toMatchObject({ kind: "error", code, definite: true });
    expect(bench.machine.digest()).toBe(before);
    expect(bench.told.length).toBe(told);
    bench.apply({ kind: "close-session", session: Number(session) });
    expect(bench.keys()).toEqual(["n\0large", "n\0text"]);
  });

  test("is answered with PROTOCOL when it cannot be read, and the rest of the batch goes on", () => {
    const bench = new Bench();
    expect(bench.applyBytes(new Uint8Array([1, 0, 9, 9]))).toMatchObject({ kind: "error", code: "PROTOCOL" });
    expect(bench.applyBytes(new Uint8Array(0))).toMatchObject({ kind: "error", code: "PROTOCOL" });
    expect(bench.run(put("a"))).toMatchObject({ kind: "txn" });
  });

  test("stops the member when its format is of another version: a newer one would have done something", () => {
    const bench = new Bench();
    expect(() => bench.applyBytes(new Uint8Array([2, 0, 9]))).toThrow(AssertionError);
    expect(() => bench.machine.applyBatch({ index: 9, stampMs: 0, payload: new Uint8Array([7]) })).toThrow(
      expect.objectContaining({ code: "PROTOCOL" }),
    );
  });

  test("asks for an older state through the log, which not every member has kept", () => {
    const bench = new Bench(100);
    bench.run(put("a"));
    const older = { kind: "range", range: { prefix: "" }, atRevision: 101 } as const;
    expect(bench.run(older)).toMatchObject({ kind: "error", code: "INVALID_OPTION" });
    expect(bench.machine.read(resolveTxn("n", { then: [older] }, limits))).toMatchObject({ kind: "txn" });
    expect(bench.machine.read(resolveTxn("n", { then: [put("a")] }, limits))).toMatchObject({ code: "INVALID_OPTION" });
  });
});

describe("a claim", () => {
  test("makes a mutation happen once, and a failure fail once", () => {
    const bench = new Bench();
    const session = bench.open();
    const first = bench.claimed(session, 1, 1, add("a"));
    expect(bench.claimed(session, 1, 1, add("a"))).toBe(first);
    const failure = bench.claimed(session, 2, 1, add("text"), put("b", "", { session: "1" }));
    expect(failure).toMatchObject({ code: "SESSION_EXPIRED", definite: true });
    expect(bench.claimed(session, 2, 1, put("b"))).toBe(failure);
    expect(bench.keys()).toEqual(["n\0a"]);
    expect(bench.claimed(session, 1, 1, add("a"))).toBe(first);
  });

  test("below the floor is refused and never run, whatever its own floor says", () => {
    const bench = new Bench();
    const session = bench.open();
    bench.claimed(session, 7, 7, add("a"));
    expect(bench.claimed(session, 6, 1, add("a"))).toMatchObject({ code: "CLAIM_TOO_OLD", definite: false });
    // A late copy with a lower floor does not bring the forgotten back.
    bench.claimed(session, 8, 2, add("a"));
    expect(bench.claimed(session, 6, 6, add("a"))).toMatchObject({ code: "CLAIM_TOO_OLD" });
    expect(bench.machine.entriesIn(everyKey).entries[0]?.text).toBe("2");
  });

  test("of a session that has ended may have happened, so its refusal is not definite", () => {
    const bench = new Bench();
    const session = bench.open();
    bench.claimed(session, 1, 1, add("a"));
    bench.apply({ kind: "close-session", session: Number(session) });
    const outcome = bench.claimed(session, 1, 1, add("a"));
    expect(outcome).toMatchObject({ code: "SESSION_EXPIRED", definite: false });
    expect(outcome.kind === "error" && outcomeError(outcome)).toMatchObject({ code: "SESSION_EXPIRED", definite: false });
  });

  test("beyond the window is BUSY in every copy, and never runs, also when the window has moved", () => {
    const bench = new Bench(100, { claimsOpenMax: 3 });
    const session = bench.open();
    expect(bench.claimed(session, 4, 1, add("a"))).toMatchObject({ code: "BUSY", definite: true });
    for (const sequence of [1, 2, 3]) expect(bench.claimed(session, sequence, 1, add("b"))).toMatchObject({ kind: "txn" });
    expect(bench.claimed(session, 5, 4, add("b"))).toMatchObject({ kind: "txn" });
    expect(bench.claimed(session, 4, 1, add("a"))).toMatchObject({ code: "BUSY", definite: true });
    expect([...bench.machine.sessions()][0]?.keptClaims).toBe(1);
    expect(bench.keys()).toEqual(["n\0b"]);
  });

  test("is BUSY while the kept answers are too many bytes, and stays so for its copies", () => {
    const bench = new Bench(100);
    const session = bench.open();
    bench.run(put("large", "x".repeat(500)));
    const large: Op = { kind: "get", key: "large" };
    for (const sequence of [1, 2])
      expect(bench.claimed(session, sequence, 1, large, add(`a${sequence}`))).toMatchObject({ kind: "txn" });
    expect(bench.claimed(session, 3, 1, add("a3"))).toMatchObject({ code: "BUSY", definite: true });
    expect(bench.claimed(session, 4, 3, add("a4"))).toMatchObject({ kind: "txn" });
    expect(bench.claimed(session, 3, 3, add("a3"))).toMatchObject({ code: "BUSY" });
    expect(bench.keys()).toEqual(["n\0a1", "n\0a2", "n\0a4", "n\0large"]);
  });
});

describe("time and order", () => {
  test("agreed time never goes back, and entries without commands move it too", () => {
    const { machine } = new Bench();
    machine.skip({ index: 5, stampMs: 70.5 });
    machine.skip({ index: 6, stampMs: 3 });
    expect([machine.elapsedMs, machine.appliedIndex]).toEqual([70.5, 6]);
    expect(() => machine.skip({ index: 6, stampMs: 80 })).toThrow(AssertionError);
  });

  test("sessions are numbered from the first revision on and never again, also across a restore", () => {
    const bench = new Bench(1_000);
    expect([bench.open(), bench.open()]).toEqual(["1001", "1002"]);
    bench.apply({ kind: "close-session", session: 1_002 });
    const restored = Machine.restore(bench.machine.snapshot(), { appliedIndex: 9 });
    const told: Outcome[] = [];
    restored.applyBatch(
      { index: 10, stampMs: 0, payload: encodeBatch([encodeCommand({ kind: "open-session", ttlMs: 9_000 })]) },
      (_, outcome) => told.push(outcome),
    );
    expect(told).toEqual([{ kind: "opened", session: "1003", revision: 1_000 }]);
    expect([restored.sessionCount, restored.sessionTtlMs("1003"), restored.sessionTtlMs(1_002)]).toEqual([2, 9_000, undefined]);
  });

  test("a session's keys go in one revision, in the order of their bytes", () => {
    const bench = new Bench(100);
    const session = bench.open();
    for (const key of ["c", "a", "b"]) bench.run(put(key, "", { session }));
    bench.apply({ kind: "expire-sessions", sessions: [Number(session)] });
    expect(bench.told.at(-1)).toMatchObject({
      revision: 104,
      events: [{ key: "n\0a", entry: null }, { key: "n\0b" }, { key: "n\0c" }],
    });
    expect(bench.machine.hasSession(session)).toBe(false);
  });

  test("a session outside the limits is refused on every member alike", () => {
    const bench = new Bench();
    expect(bench.apply({ kind: "open-session", ttlMs: 999 })).toMatchObject({ code: "INVALID_OPTION" });
  });
});

describe("what happened", () => {
  test("is told from any kept revision, in whole revisions, and ends in a resync where it is too old", () => {
    const bench = new Bench(100, { historyRevisions: 5 });
    for (let at = 0; at < 8; at++) bench.run(put(`a${at}`), put(`b${at}`));
    const range = { from: "n\0a", to: "n\0b" };
    expect(bench.machine.oldestRevision).toBe(103);
    expect(bench.machine.changesSince(range, 103)).toEqual({ kind: "resync", revision: 108 });
    expect(bench.machine.changesSince(range, 104, 2)).toMatchObject({
      kind: "changes",
      revision: 105,
      events: [{ key: "n\0a3" }, { key: "n\0a4" }],
    });
    expect(bench.machine.changesSince(everyKey, 107, 1)).toMatchObject({
      revision: 107,
      events: [{ key: "n\0a6" }, { key: "n\0b6" }],
    });
    expect(bench.machine.changesSince(range, 109)).toEqual({ kind: "changes", revision: 108, events: [] });
  });

  test("is bounded in bytes as well", () => {
    const bench = new Bench(100, { historyBytes: 1_000 });
    for (let at = 0; at < 50; at++) bench.run(put("a", "x".repeat(100)));
    expect(bench.machine.revision - bench.machine.oldestRevision).toBe(4);
    bench.run(put("a", "x".repeat(2_000)));
    expect(bench.machine.oldestRevision).toBe(bench.machine.revision);
    expect(bench.machine.changesSince(everyKey, bench.machine.revision)).toMatchObject({ kind: "resync" });
  });

  test("can be undone to any kept revision, far from a kept tree and at one", () => {
    const bench = new Bench(100, { historyRevisions: 3_000 });
    for (let at = 0; at < 4_000; at++)
      bench.run(at % 3 === 2 ? { kind: "delete", range: { key: `${(at - 1) % 7}` } } : put(`${at % 7}`, `${at}`));
    const naive = new Map<string, string>();
    const history = bench.told.flatMap(({ events }) => events);
    let next = 0;
    for (let revision = 101; revision <= bench.machine.revision; revision++) {
      for (; history[next]?.revision === revision; next++) {
        const event = history[next] as MachineEvent;
        if (event.entry === null) naive.delete(event.key);
        else naive.set(event.key, event.entry.text);
      }
      if (revision < bench.machine.oldestRevision || (revision % 61 !== 0 && revision % 1_024 > 1)) continue;
      const outcome = bench.machine.read(
        resolveTxn("n", { then: [{ kind: "range", range: { prefix: "" }, atRevision: revision }] }, limits),
      );
      const [result] = outcome.kind === "txn" ? outcome.result.results : [];
      const found = result?.kind === "range" ? result.entries.map((entry) => [entry.binaryKey, entry.text]) : "none";
      expect(found).toEqual([...naive].sort(([left], [right]) => (left < right ? -1 : 1)));
    }
    expect(next).toBe(history.length);
  });

  test("reads on the wire as it does in the member's own process, without the namespace", () => {
    const bench = new Bench();
    const session = bench.open();
    bench.run(put("é/1", "one", { session }), put("é/1", "two"));
    bench.run({ kind: "delete", range: { key: "é/1" } });
    const writer = new ByteWriter();
    for (const event of bench.told.flatMap(({ events }) => events)) {
      writeEvent(writer, event);
      const read = readWatchEvent(new ByteReader(writer.finish()));
      expect(read).toEqual(toWatchEvent(event));
      expect(read.key).toBe("é/1");
    }
  });

  test("is no longer told to a listener that has left", () => {
    const { machine } = new Bench();
    let heard = 0;
    const leave = machine.subscribe(() => heard++);
    const apply = (index: number): void =>
      machine.applyBatch({
        index,
        stampMs: 0,
        payload: encodeBatch([encodeCommand(resolveTxn("n", { then: [put("a")] }, limits))]),
      });
    apply(10);
    leave();
    apply(11);
    expect(heard).toBe(1);
  });
});

test("a namespace's name may be any text, and a range of one never reads another", () => {
  const bench = new Bench();
  const names = ["", "a", "a/b", "ab", "é", "🔒", "\u0001", "\uffff"];
  for (const namespace of names) bench.run(put("k", namespace, { namespace }));
  for (const namespace of names) {
    const outcome = bench.machine.read(resolveTxn(namespace, { then: [{ kind: "range", range: { prefix: "" } }] }, limits));
    const [result] = outcome.kind === "txn" ? outcome.result.results : [];
    expect(result?.kind === "range" && result.entries.map((entry) => entry.text)).toEqual([namespace]);
    expect(result?.kind === "range" && toBinaryString(new TextEncoder().encode(namespace))).toBe(
      result?.kind === "range" && result.entries[0]?.binaryKey.slice(0, -2),
    );
  }
});
