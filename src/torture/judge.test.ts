import { describe, expect, test } from "vitest";
import type { ClientRecord, Evidence, FinalState, ViolationKind } from "./evidence.ts";
import { type FileState, fileOrigin, type JournalEvent } from "./journal.ts";
import { judge, judgeProbe } from "./judge.ts";

const ttlMs = 3_000;

// ------------------------------------------------------------------------------------------------ hand-made evidence

function client(slot: number, events: readonly JournalEvent[], more: Partial<ClientRecord> = {}): ClientRecord {
  const incarnation = more.incarnation ?? 1;
  return { name: `${slot}.${incarnation}`, slot, incarnation, events, stops: [], killedAtMs: undefined, ...more };
}

const quiet: FinalState = { file: fileOrigin, set: [], registers: new Map(), probe: null, readFromMs: 90_000, readToMs: 90_010 };

function evidence(clients: readonly ClientRecord[], final: Partial<FinalState> = {}, more: Partial<Evidence> = {}): Evidence {
  return { ttlMs, startedAtMs: 0, clientCount: 8, clients, probes: [], final: { ...quiet, ...final }, incidents: [], ...more };
}

function kindsOf(given: Evidence): ViolationKind[] {
  return judge(given).violations.map(({ kind }) => kind);
}

const grant = (lock: "file" | "set", token: number, atMs: number): JournalEvent => ({ kind: "grant", lock, token, atMs });
const held = (lock: "file" | "set", token: number, atMs: number): JournalEvent => ({ kind: "held", lock, token, atMs });

interface WriteTimes {
  readonly token: number;
  readonly saw: FileState;
  readonly readAtMs: number;
  readonly assertedAtMs?: number;
  readonly writtenAtMs?: number;
}

/** A write that was done a millisecond after the file was read, unless it says otherwise. */
function write(
  id: string,
  { token, saw, readAtMs, assertedAtMs = readAtMs + 1, writtenAtMs = assertedAtMs + 0.1 }: WriteTimes,
): JournalEvent[] {
  const times = { assertedAtMs, assertedAtWallMs: 0, deadlineMs: assertedAtMs + 1_000, writtenAtMs, writtenAtWallMs: 0 };
  return [
    { kind: "file.begin", write: id, token, saw, readAtMs },
    { kind: "file.end", write: id, outcome: "written", ...times },
  ];
}

const state = (id: string, token: number, value: number): FileState => ({ write: id, token, value });

// ------------------------------------------------------------------------------------------------ what is right

test("a run in which everybody kept to the rules has no violation", () => {
  const one = client(0, [
    grant("file", 10, 100),
    held("file", 10, 101),
    ...write("a", { token: 10, saw: fileOrigin, readAtMs: 102 }),
  ]);
  const two = client(1, [
    grant("file", 20, 200),
    held("file", 20, 201),
    ...write("b", { token: 20, saw: state("a", 10, 1), readAtMs: 202 }),
  ]);
  const verdict = judge(evidence([one, two], { file: state("b", 20, 2) }));
  expect(verdict.violations).toEqual([]);
  expect(verdict.lateWrites).toEqual([]);
  expect(verdict.counts).toMatchObject({ fileGrants: 2, increments: 2, overwritten: 0 });
});

// ------------------------------------------------------------------------------------------------ locks

describe("locks", () => {
  test("one token for two grants is a violation, and so is a token that is no revision", () => {
    expect(kindsOf(evidence([client(0, [grant("set", 10, 1)]), client(1, [grant("set", 10, 2)])]))).toEqual(["token-repeated"]);
    expect(kindsOf(evidence([client(0, [grant("set", 0, 1)])]))).toEqual(["token-repeated"]);
  });

  test("a hold that says held after a later grant is a violation, however long its process was stopped", () => {
    const sleeper = client(0, [grant("set", 10, 100), held("set", 10, 5_000)], { stops: [{ fromMs: 101, toMs: 4_999 }] });
    const next = client(1, [grant("set", 20, 4_000)]);
    expect(kindsOf(evidence([sleeper, next]))).toEqual(["two-holders"]);
  });

  test("a hold that was held until just before the next grant is none", () => {
    const first = client(0, [grant("set", 10, 100), held("set", 10, 3_999)]);
    expect(kindsOf(evidence([first, client(1, [grant("set", 20, 4_000)])]))).toEqual([]);
  });

  test("a token below one that was granted before is a violation: tokens rise in the order of grants", () => {
    const later = client(1, [grant("file", 9, 200), held("file", 9, 201)]);
    expect(kindsOf(evidence([client(0, [grant("file", 10, 100)]), later]))).toEqual(["two-holders"]);
  });

  test("the two locks do not concern each other", () => {
    const one = client(0, [grant("set", 10, 100), held("set", 10, 5_000)]);
    expect(kindsOf(evidence([one, client(1, [grant("file", 20, 4_000)])]))).toEqual([]);
  });

  test("an assertHeld() that passed after a later grant is a violation even where the write did no harm", () => {
    const late = client(0, [grant("file", 10, 100), ...write("a", { token: 10, saw: fileOrigin, readAtMs: 4_500 })]);
    const kinds = kindsOf(evidence([late, client(1, [grant("file", 20, 4_000)])], { file: state("a", 10, 1) }));
    expect(kinds).toEqual(["two-holders", "file-write-late"]);
  });

  test("a guard that refuses a hold which is still held is a violation", () => {
    const events: JournalEvent[] = [
      grant("set", 10, 100),
      { kind: "set.begin", element: "x", token: 10 },
      { kind: "set.end", element: "x", outcome: "refused", stillHeld: true },
    ];
    expect(kindsOf(evidence([client(0, events)]))).toEqual(["guard-refused-holder"]);
  });
});

// ------------------------------------------------------------------------------------------------ the file

describe("the file", () => {
  /** A wrote late over B: both read the origin. */
  function lateOver(more: Partial<ClientRecord>, times: Partial<WriteTimes> = {}): Evidence {
    const a = client(
      0,
      [
        grant("file", 10, 100),
        ...write("a", { token: 10, saw: fileOrigin, readAtMs: 110, assertedAtMs: 111, writtenAtMs: 6_000, ...times }),
      ],
      more,
    );
    const b = client(1, [grant("file", 20, 4_000), ...write("b", { token: 20, saw: fileOrigin, readAtMs: 4_001 })]);
    return evidence([a, b], { file: state("a", 10, 1) });
  }

  test("a late write of a holder that was stopped after assertHeld() is an exception, listed with its stop", () => {
    const verdict = judge(lateOver({ stops: [{ fromMs: 111.05, toMs: 5_999 }] }));
    expect(verdict.violations).toEqual([]);
    expect(verdict.lateWrites).toEqual([
      {
        write: "a",
        token: 10,
        passedToToken: 20,
        passedOnAtMs: 4_000,
        deadlineMs: 1_111,
        assertedAtMs: 111,
        writtenAtMs: 6_000,
        stops: [{ fromMs: 111.05, toMs: 5_999 }],
        overwrote: true,
      },
    ]);
    expect(verdict.counts).toMatchObject({ increments: 2, overwritten: 1 });
  });

  test("one that stopped itself is excused alike, and a stop that both sides know of counts once", () => {
    const begun = { kind: "file.begin", write: "a", token: 10, saw: fileOrigin, readAtMs: 110 } as const;
    const end = {
      kind: "file.end",
      write: "a",
      outcome: "written",
      assertedAtMs: 111,
      assertedAtWallMs: 0,
      deadlineMs: 1_111,
      writtenAtMs: 6_000,
      writtenAtWallMs: 0,
    } as const;
    const a = client(0, [grant("file", 10, 100), begun, { ...end, stop: { fromMs: 112, toMs: 5_998 } }], {
      stops: [{ fromMs: 113, toMs: 5_000 }],
    });
    const b = client(1, [grant("file", 20, 4_000), ...write("b", { token: 20, saw: fileOrigin, readAtMs: 4_001 })]);
    const verdict = judge(evidence([a, b], { file: state("a", 10, 1) }));
    expect(verdict.violations).toEqual([]);
    expect(verdict.lateWrites).toHaveLength(1);
    expect(verdict.lateWrites[0]?.stops).toEqual([{ fromMs: 112, toMs: 5_998 }]);
  });

  test("without a stop it is a violation", () => {
    expect(kindsOf(lateOver({}))).toEqual(["file-write-late", "file-update-lost"]);
  });

  test("a stop at another time, or one too short to explain it, excuses nothing", () => {
    expect(kindsOf(lateOver({ stops: [{ fromMs: 50, toMs: 99 }] }))).toEqual(["file-write-late", "file-update-lost"]);
    expect(kindsOf(lateOver({ stops: [{ fromMs: 200, toMs: 700 }] }))).toEqual(["file-write-late", "file-update-lost"]);
  });

  test("a late write that met nobody's is listed too, and did no harm", () => {
    const a = client(
      0,
      [
        grant("file", 10, 100),
        ...write("a", { token: 10, saw: fileOrigin, readAtMs: 110, assertedAtMs: 111, writtenAtMs: 6_000 }),
      ],
      {
        stops: [{ fromMs: 112, toMs: 5_999 }],
      },
    );
    const verdict = judge(evidence([a, client(1, [grant("file", 20, 4_000)])], { file: state("a", 10, 1) }));
    expect(verdict.violations).toEqual([]);
    expect(verdict.lateWrites).toMatchObject([{ write: "a", overwrote: false }]);
  });

  test("two that read one state and wrote in time are a violation", () => {
    const a = client(0, [grant("file", 10, 100), ...write("a", { token: 10, saw: fileOrigin, readAtMs: 110 })]);
    const b = client(1, [grant("file", 20, 200), ...write("b", { token: 20, saw: fileOrigin, readAtMs: 210 })]);
    expect(kindsOf(evidence([a, b], { file: state("b", 20, 1) }))).toEqual(["file-update-lost"]);
  });

  test("a write that is missing at the end is a violation", () => {
    const a = client(0, [grant("file", 10, 100), ...write("a", { token: 10, saw: fileOrigin, readAtMs: 110 })]);
    expect(kindsOf(evidence([a]))).toEqual(["file-update-lost"]);
  });

  test("a state that nobody wrote, or wrote otherwise, or whose writer says it did not, is a violation", () => {
    const a = client(0, [grant("file", 10, 100), ...write("a", { token: 10, saw: fileOrigin, readAtMs: 110 })]);
    expect(kindsOf(evidence([a], { file: state("ghost", 11, 7) }))).toContain("file-corrupt");
    expect(kindsOf(evidence([a], { file: state("a", 10, 2) }))).toContain("file-corrupt");
    const refused: JournalEvent[] = [
      { kind: "file.begin", write: "r", token: 10, saw: fileOrigin, readAtMs: 110 },
      { kind: "file.end", write: "r", outcome: "not-held" },
    ];
    expect(kindsOf(evidence([client(0, [grant("file", 10, 100), ...refused])], { file: state("r", 10, 1) }))).toContain(
      "file-corrupt",
    );
  });

  test("a client killed between beginning and end may have written or not", () => {
    const begin: JournalEvent = { kind: "file.begin", write: "k", token: 10, saw: fileOrigin, readAtMs: 110 };
    const killed = client(0, [grant("file", 10, 100), begin], { killedAtMs: 112 });
    const sees = client(1, [grant("file", 20, 4_000), ...write("b", { token: 20, saw: state("k", 10, 1), readAtMs: 4_001 })]);
    const seesNot = client(1, [grant("file", 20, 4_000), ...write("b", { token: 20, saw: fileOrigin, readAtMs: 4_001 })]);
    expect(kindsOf(evidence([killed, sees], { file: state("b", 20, 2) }))).toEqual([]);
    expect(kindsOf(evidence([killed, seesNot], { file: state("b", 20, 1) }))).toEqual([]);
  });
});

// ------------------------------------------------------------------------------------------------ the set

describe("the set", () => {
  const add = (element: string, token: number, outcome?: "added" | "refused" | "failed" | "unknown"): JournalEvent[] => [
    { kind: "set.begin", element, token },
    ...(outcome === undefined ? [] : [{ kind: "set.end", element, outcome } as const]),
  ];
  const element = (name: string, token: number, createRevision: number) => ({ element: name, token, createRevision });
  const kinds = (events: readonly JournalEvent[], set: FinalState["set"]): ViolationKind[] =>
    kindsOf(evidence([client(0, events)], { set }));

  test("an acknowledged element that is missing is a violation", () => {
    expect(kinds(add("x", 10, "added"), [])).toEqual(["set-element-lost"]);
  });

  test("an unknown one, and one of a killed client, may be there or not", () => {
    const events = [...add("x", 10, "unknown"), ...add("y", 10)];
    expect(kinds(events, [])).toEqual([]);
    expect(kinds(events, [element("x", 10, 100), element("y", 10, 101)])).toEqual([]);
  });

  test("one that was refused, failed for certain, was never added, or has another token, must not be there", () => {
    expect(kinds(add("x", 10, "refused"), [element("x", 10, 100)])).toEqual(["set-element-unexpected"]);
    expect(kinds(add("x", 10, "failed"), [element("x", 10, 100)])).toEqual(["set-element-unexpected"]);
    expect(kinds([], [element("x", 10, 100)])).toEqual(["set-element-unexpected"]);
    expect(kinds(add("x", 10, "added"), [element("x", 11, 100)])).toEqual(["set-element-unexpected"]);
  });

  test("an element behind one with a higher token is a violation, whatever stopped its client", () => {
    const events = [...add("x", 10, "added"), ...add("y", 20, "added"), ...add("z", 10, "added")];
    const set = [element("x", 10, 100), element("z", 10, 102), element("y", 20, 101)];
    const stopped = client(0, events, { stops: [{ fromMs: 0, toMs: 60_000 }] });
    expect(kindsOf(evidence([stopped], { set }))).toEqual(["set-order"]);
  });

  test("elements of one hold have one token", () => {
    const events = [...add("x", 10, "added"), ...add("y", 10, "added"), ...add("z", 20, "added")];
    expect(kinds(events, [element("x", 10, 100), element("y", 10, 101), element("z", 20, 102)])).toEqual([]);
  });
});

// ------------------------------------------------------------------------------------------------ registers, probe, incidents

describe("registers", () => {
  const begin = (
    f: "read" | "write" | "cas",
    value: string | null | readonly [string | null, string],
    atMs: number,
  ): JournalEvent => ({ kind: "register.begin", f, key: "r", value, atMs });
  const end = (
    type: "ok" | "fail" | "info",
    atMs: number,
    more: { value?: string | null; error?: string } = {},
  ): JournalEvent => ({ kind: "register.end", type, atMs, ...more });

  test("a lost acknowledged write is found by the read at the end", () => {
    const events = [begin("write", "a", 10), end("ok", 20, { value: "a" })];
    expect(kindsOf(evidence([client(0, events)]))).toEqual(["registers-not-linearizable"]);
    expect(kindsOf(evidence([client(0, events)], { registers: new Map([["r", "a"]]) }))).toEqual([]);
  });

  test("a stale read is found", () => {
    const writer = client(0, [
      begin("write", "a", 10),
      end("ok", 20, { value: "a" }),
      begin("write", "b", 30),
      end("ok", 40, { value: "b" }),
    ]);
    const reader = client(1, [begin("read", null, 50), end("ok", 60, { value: "a" })]);
    expect(kindsOf(evidence([writer, reader], { registers: new Map([["r", "b"]]) }))).toEqual(["registers-not-linearizable"]);
  });

  test("a compare-and-set that was said to be a mismatch and took effect is found", () => {
    const events = [begin("cas", [null, "a"], 10), end("fail", 20, { error: "mismatch" })];
    expect(kindsOf(evidence([client(0, events)], { registers: new Map([["r", "a"]]) }))).toEqual(["registers-not-linearizable"]);
  });

  test("an unknown write may have happened or not, and its process goes on under another number", () => {
    const events = [
      begin("write", "a", 10),
      end("info", 20, { error: "TIMEOUT" }),
      begin("read", null, 30),
      end("ok", 40, { value: null }),
    ];
    for (const registers of [new Map<string, string>(), new Map([["r", "a"]])]) {
      const { registers: verdict, violations } = judge(evidence([client(3, events)], { registers }));
      expect(violations).toEqual([]);
      const processes = verdict.history
        .trim()
        .split("\n")
        .map((line) => (JSON.parse(line) as { process: number }).process);
      expect(processes.slice(0, 4)).toEqual([3, 3, 12, 12]);
      expect(verdict.unknownCount).toBe(1);
    }
  });

  test("the successor of a killed client has another number, too", () => {
    const killed = client(2, [begin("write", "a", 10)], { killedAtMs: 15 });
    const successor = client(2, [begin("read", null, 30), end("ok", 40, { value: null })], { incarnation: 2 });
    const { registers, violations } = judge(evidence([successor, killed]));
    expect(violations).toEqual([]);
    expect(
      registers.history
        .trim()
        .split("\n")
        .map((line) => (JSON.parse(line) as { process: number }).process)
        .slice(0, 3),
    ).toEqual([2, 11, 11]);
  });
});

describe("the probe", () => {
  const probe = (startedAtMs: number, ackedAtMs: number | undefined, hasFailed = false) => ({
    startedAtMs,
    ackedAtMs,
    hasFailed,
  });

  test("its last value may be that of the last acknowledged write, of a concurrent one, or of an unanswered one", () => {
    const probes = [probe(0, 5), probe(10, 30), probe(20, 25), probe(22, undefined)];
    expect(judgeProbe(probes, "1")).toEqual([]);
    expect(judgeProbe(probes, "2")).toEqual([]);
    expect(judgeProbe(probes, "3")).toEqual([]);
  });

  test("a value before an acknowledged one, one that failed, one that was never written, and none at all are violations", () => {
    const probes = [probe(0, 5), probe(10, 30), probe(40, undefined, true)];
    for (const value of ["0", "2", "9", "x", null])
      expect(judgeProbe(probes, value), String(value)).toMatchObject([{ kind: "probe-lost" }]);
    expect(judgeProbe([], null)).toEqual([]);
  });
});

test("what the runner itself saw is a violation, also when nothing could be read at the end", () => {
  const given = evidence([], {}, { final: undefined, incidents: [{ kind: "no-recovery", text: "nobody answers" }] });
  expect(kindsOf(given)).toEqual(["no-recovery"]);
});
