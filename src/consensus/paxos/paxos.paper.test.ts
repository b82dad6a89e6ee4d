/**
 * Multi-Paxos against sentences of its papers: Lamport, "Paxos Made Simple", 2001 (PMS); van Renesse and Altinbuken, "Paxos
 * Made Moderately Complex", 2015 (PMMC); Chandra, Griesemer, Redstone, "Paxos Made Live", 2007 (PML). One core at a time,
 * fed by hand.
 */
import { expect, test } from "vitest";
import type { Input, LogEntry, Output, Recovered } from "../core.ts";
import { ballotOwner, nextBallot } from "./ballot.ts";
import type { PaxosMessage } from "./messages.ts";
import { Paxos } from "./paxos.ts";

const members = ["a", "b", "c"];
/** Round 1 of each member. */
const [ballotA, ballotB, ballotC] = [3, 4, 5] as const;

/** A value of three bytes, born in a ballot and accepted in one. */
function value(index: number, born: number, ballot: number = born, stampMs = 0): LogEntry {
  return { index, term: born, kind: "batch", stampMs, payload: Uint8Array.of(index, born), ballot };
}

function kept(entries: readonly LogEntry[], meta: Readonly<Record<string, string>> = {}): Recovered {
  return { meta: new Map(Object.entries(meta)), entries };
}

/** Member "a" of a, b, c; its disk confirms when told to. */
class Bench {
  readonly core = new Paxos({ electionTimeoutMs: 100, heartbeatMs: 20 });
  nowMs = 0;
  sequence = 0;
  outputs: Output<PaxosMessage>[] = [];

  constructor(recovered: Recovered = kept([]), voters: readonly string[] = members) {
    const environment = { self: "a", configuration: { voters, learners: [] }, nowMs: 0, randomUint32: () => 0 };
    this.#take(this.core.start(environment, recovered));
    this.sync();
    this.outputs = [];
  }

  step(input: Input<PaxosMessage>): void {
    this.#take(this.core.step(input));
  }

  hear(from: string, message: PaxosMessage): void {
    this.step({ kind: "message", nowMs: this.nowMs, from, message });
  }

  wait(durationMs: number): void {
    this.nowMs += durationMs;
    this.step({ kind: "tick", nowMs: this.nowMs });
  }

  sync(): void {
    if (this.sequence > 0) this.step({ kind: "persisted", nowMs: this.nowMs, sequence: this.sequence });
  }

  /** What was sent since the last call, of one kind. */
  sent<K extends PaxosMessage["kind"]>(kind: K) {
    const found = this.outputs.flatMap((output) =>
      output.kind === "send" && output.message.kind === kind
        ? [{ to: output.to, after: output.after, message: output.message as Extract<PaxosMessage, { kind: K }> }]
        : [],
    );
    this.outputs = this.outputs.filter((output) => output.kind !== "send" || output.message.kind !== kind);
    return found;
  }

  delivered(): LogEntry[] {
    return this.outputs.flatMap((output) => (output.kind === "deliver" ? [...output.entries] : []));
  }

  /** Campaigns, and b promises with what it accepted. Returns the ballot. */
  takeOver(report: { readonly chosen?: number; readonly entries?: readonly LogEntry[] } = {}): number {
    this.wait(250);
    const ballot = this.sent("prepare")[0]?.message.ballot as number;
    const nothing = { from: this.core.probe().committedIndex + 1, next: 0, chosen: 0, entries: [] };
    this.hear("b", { kind: "promise", ballot, dryRun: true, ...nothing });
    this.sync();
    this.hear("b", { kind: "promise", ballot, dryRun: false, ...nothing, ...report });
    return ballot;
  }

  prepare(from: string, ballot: number, first = 1): void {
    this.hear(from, { kind: "prepare", ballot, dryRun: false, from: first });
  }

  accept(from: string, ballot: number, entries: readonly LogEntry[], chosen = 0): void {
    this.hear(from, { kind: "accept", ballot, chosen, entries: entries.map((entry) => ({ ...entry, ballot })) });
  }

  #take(outputs: readonly Output<PaxosMessage>[]): void {
    for (const output of outputs) if (output.kind === "persist") this.sequence = output.sequence;
    this.outputs.push(...outputs);
  }
}

test('"Different proposals have different numbers" (PMS §2.2); "s mod n = i_r" (PML §4.1)', () => {
  const seen = new Set<number>();
  for (let position = 0; position < 3; position++) {
    let ballot = 0;
    for (let round = 0; round < 5; round++) {
      const next = nextBallot(ballot, position, 3);
      expect(next).toBeGreaterThan(ballot);
      expect(ballotOwner(next, members)).toBe(members[position]);
      expect(seen.has(next)).toBe(false);
      seen.add(next);
      ballot = next;
    }
  }
  // Above whatever was heard of, whoever's it is.
  for (let above = 0; above < 30; above++) expect(nextBallot(above, 1, 3)).toBeGreaterThan(above);
});

test("an acceptor's promise and what it tells are on disk before the reply leaves (PMS §2.5: stable storage)", () => {
  const bench = new Bench();
  const before = bench.sequence;
  bench.prepare("b", ballotB);
  expect(bench.sequence).toBe(before + 1);
  const [promise] = bench.sent("promise");
  expect(promise?.after).toBe(bench.sequence);
  expect(promise?.message).toMatchObject({ ballot: ballotB, entries: [], next: 0 });
});

test('"an acceptor can accept a proposal numbered n iff it has not responded to a prepare request having a number greater than n" (PMS §2.2, P1a)', () => {
  const bench = new Bench();
  bench.prepare("c", ballotC);
  bench.accept("b", ballotB, [value(1, ballotB)]);
  expect(bench.sent("accepted")).toEqual([]);
  expect(bench.sent("nack")[0]).toMatchObject({ to: "b", message: { promised: ballotC, behind: false } });
  expect(bench.core.probe().acceptedAt(1)).toBeUndefined();
  bench.accept("c", ballotC, [value(1, ballotC)]);
  expect(bench.core.probe().acceptedAt(1)?.term).toBe(ballotC);
});

test("a promise survives a restart, and so does what was accepted (PMS §2.5)", () => {
  const bench = new Bench(kept([value(1, ballotA)], { promised: String(ballotC) }));
  bench.accept("b", ballotB, [value(1, ballotB)]);
  expect(bench.sent("accepted")).toEqual([]);
  bench.prepare("b", ballotB + 3);
  expect(bench.sent("promise")[0]?.message.entries).toMatchObject([{ index: 1, term: ballotA, ballot: ballotA }]);
});

test("a ballot is never used twice, whatever was forgotten in a crash (PMMC, C1)", () => {
  const bench = new Bench();
  const first = bench.takeOver();
  expect(first).toBe(ballotA);
  // Its letter could leave only once the ballot was on disk; so the disk of the next life has it.
  const next = new Bench(kept([], { promised: String(first) }));
  next.wait(250);
  expect(next.sent("prepare")[0]?.message.ballot).toBeGreaterThan(first);
});

test("a value is on disk before it is confirmed (PMMC §2.1, p2b)", () => {
  const bench = new Bench();
  bench.accept("b", ballotB, [value(1, ballotB), value(2, ballotB)]);
  const [reply] = bench.sent("accepted");
  expect(reply).toMatchObject({ after: bench.sequence, message: { ballot: ballotB, first: 1, last: 2, upTo: 0 } });
  // What is held without holes is confirmed once more as soon as it is durable.
  bench.sync();
  bench.accept("b", ballotB, [value(3, ballotB)]);
  expect(bench.sent("accepted")[0]?.message).toMatchObject({ first: 3, last: 3, upTo: 2 });
});

test('"v is the value of the highest-numbered proposal among all proposals ... accepted by the acceptors in S" (PMS §2.2, P2c)', () => {
  const bench = new Bench(kept([value(1, ballotA), value(2, ballotC)], { promised: String(ballotC) }));
  const ballot = bench.takeOver({ entries: [value(1, ballotB), value(2, ballotA)] });
  const proposed = bench.sent("accept").filter(({ to }) => to === "b");
  const entries = proposed.flatMap(({ message }) => [...message.entries]);
  expect(entries.slice(0, 2)).toMatchObject([
    { index: 1, term: ballotB, ballot }, // b's was accepted in the later ballot
    { index: 2, term: ballotC, ballot }, // ours was
  ]);
});

test("a value that is proposed again is the same value, stamp and all; only its ballot is new (PMMC, A5)", () => {
  const bench = new Bench(kept([], { promised: String(ballotC) }));
  const old = value(1, ballotB, ballotB, 77);
  const ballot = bench.takeOver({ entries: [old] });
  const [letter] = bench.sent("accept");
  expect(letter?.message.entries[0]).toEqual({ ...old, ballot });
});

test("\"gaps ... proposing a special 'no-op' command\" (PMS §3), and its own values only behind them", () => {
  const bench = new Bench(kept([], { promised: String(ballotC) }));
  const ballot = bench.takeOver({ entries: [value(3, ballotB)] });
  const entries = bench
    .sent("accept")
    .filter(({ to }) => to === "c")
    .flatMap(({ message }) => [...message.entries]);
  expect(entries.map(({ index, kind, term }) => [index, kind, term])).toEqual([
    [1, "noop", 0],
    [2, "noop", 0],
    [3, "batch", ballotB],
    [4, "noop", ballot], // its own: after it everything chosen before is known
  ]);
});

test("half a report is no promise: the page that is missing may hold what was chosen", () => {
  const bench = new Bench();
  bench.wait(250);
  const ballot = bench.sent("prepare")[0]?.message.ballot as number;
  bench.hear("b", { kind: "promise", ballot, dryRun: true, from: 1, next: 0, chosen: 0, entries: [] });
  bench.sync();
  bench.sent("prepare");
  bench.hear("b", { kind: "promise", ballot, dryRun: false, from: 1, next: 2, chosen: 0, entries: [value(1, ballotB)] });
  expect(bench.core.probe().role).toBe("candidate");
  expect(bench.sent("prepare")[0]).toMatchObject({ to: "b", message: { ballot, from: 2, dryRun: false } });
  bench.hear("b", { kind: "promise", ballot, dryRun: false, from: 2, next: 0, chosen: 0, entries: [value(2, ballotB)] });
  expect(bench.core.probe().role).toBe("leader");
  expect(bench.core.probe().acceptedAt(2)?.term).toBe(ballotB);
});

test("a take-over that gets its pages is not begun anew when one is lost: the same ballot asks for the same page again", () => {
  const bench = new Bench();
  bench.wait(250);
  const ballot = bench.sent("prepare")[0]?.message.ballot as number;
  bench.hear("b", { kind: "promise", ballot, dryRun: true, from: 1, next: 0, chosen: 0, entries: [] });
  bench.sync();
  bench.hear("b", { kind: "promise", ballot, dryRun: false, from: 1, next: 2, chosen: 0, entries: [value(1, ballotA)] });
  bench.sent("prepare");
  bench.wait(250);
  expect(bench.sent("prepare").map(({ to, message }) => [to, message.ballot, message.from, message.dryRun])).toEqual([
    ["b", ballot, 2, false],
    ["c", ballot, 1, false],
  ]);
  // Nothing more came: from the beginning.
  bench.wait(250);
  expect(bench.sent("prepare")[0]?.message).toMatchObject({ dryRun: true, from: 1 });
});

test("the candidate's own promise counts once it is on its disk", () => {
  const bench = new Bench();
  bench.wait(250);
  const ballot = bench.sent("prepare")[0]?.message.ballot as number;
  bench.hear("b", { kind: "promise", ballot, dryRun: true, from: 1, next: 0, chosen: 0, entries: [] });
  bench.hear("b", { kind: "promise", ballot, dryRun: false, from: 1, next: 0, chosen: 0, entries: [] });
  expect(bench.core.probe().role).toBe("candidate");
  bench.sync();
  expect(bench.core.probe().role).toBe("leader");
});

test("a slot is chosen by itself, and executed in order (PMMC, R2): 2 is chosen first and waits for 1", () => {
  const bench = new Bench();
  const ballot = bench.takeOver();
  bench.step({ kind: "submit", nowMs: bench.nowMs, ticket: 1, payload: Uint8Array.of(1) });
  bench.sync();
  bench.hear("b", { kind: "accepted", ballot, first: 2, last: 2, upTo: 0 });
  expect(bench.core.probe().committedIndex).toBe(0);
  bench.hear("c", { kind: "accepted", ballot, first: 1, last: 1, upTo: 0 });
  expect(bench.core.probe().committedIndex).toBe(2);
  expect(bench.delivered().map(({ index }) => index)).toEqual([1, 2]);
});

test("an answer that comes twice counts once, and the leader's disk counts when it has written (PMMC §2.2, the commander)", () => {
  const five = ["a", "b", "c", "d", "e"];
  const bench = new Bench(kept([]), five);
  bench.wait(250);
  const ballot = bench.sent("prepare")[0]?.message.ballot as number;
  for (const dryRun of [true, false]) {
    for (const from of ["b", "c"])
      bench.hear(from, { kind: "promise", ballot, dryRun, from: 1, next: 0, chosen: 0, entries: [] });
    bench.sync();
  }
  expect(bench.core.probe().role).toBe("leader");
  const answer = { kind: "accepted", ballot, first: 1, last: 1, upTo: 1 } as const;
  for (let times = 0; times < 3; times++) bench.hear("b", answer);
  bench.sync();
  expect(bench.core.probe().committedIndex).toBe(0);
  bench.hear("c", answer);
  expect(bench.core.probe().committedIndex).toBe(1);
});

test("what the leader says is chosen is believed for its own ballot's values only; the rest is asked for", () => {
  const bench = new Bench(kept([value(1, ballotA)], { promised: String(ballotB) }));
  bench.hear("b", { kind: "heartbeat", ballot: ballotB, round: 1, chosen: 1, sent: 1 });
  expect(bench.core.probe().committedIndex).toBe(0);
  expect(bench.sent("ask")[0]).toMatchObject({ to: "b", message: { from: 1 } });
  bench.hear("b", { kind: "learn", chosen: 1, entries: [value(1, ballotB)] });
  expect(bench.delivered()).toMatchObject([{ index: 1, term: ballotB }]);
});

test("preempted: a higher promise elsewhere ends the leadership (PMMC §2.3)", () => {
  const bench = new Bench();
  const ballot = bench.takeOver();
  bench.hear("c", { kind: "nack", promised: ballot, behind: false });
  expect(bench.core.probe().role).toBe("leader");
  bench.hear("c", { kind: "nack", promised: ballot + 2, behind: false });
  expect(bench.core.probe().role).toBe("follower");
  bench.wait(250);
  expect(bench.sent("prepare").at(-1)?.message.ballot).toBeGreaterThan(ballot + 2);
});

test("a member that hears its leader helps nobody else to lead, and a dry run raises no ballot", () => {
  const bench = new Bench();
  bench.hear("b", { kind: "heartbeat", ballot: ballotB, round: 1, chosen: 0, sent: 0 });
  bench.sync();
  bench.prepare("c", ballotC);
  expect(bench.sent("promise")).toEqual([]);
  bench.wait(150);
  const { promised } = bench.core.probe();
  bench.hear("c", { kind: "prepare", ballot: ballotC, dryRun: true, from: 1 });
  expect(bench.sent("promise")[0]?.message).toMatchObject({ dryRun: true, ballot: ballotC });
  expect(bench.core.probe().promised).toBe(promised);
});

test("a candidate that lacks slots which are no longer kept one by one is sent to learn them first (PMMC §4.2)", () => {
  const snapshot = { index: 5, term: ballotA, configuration: { voters: members, learners: [] }, lengthBytes: 9, stampMs: 1 };
  const bench = new Bench({ ...kept([value(6, ballotA)]), snapshot });
  bench.prepare("b", ballotB, 3);
  expect(bench.sent("promise")).toEqual([]);
  expect(bench.sent("nack")[0]?.message).toMatchObject({ behind: true });
  bench.prepare("b", ballotB, 6);
  expect(bench.sent("promise")[0]?.message.entries).toMatchObject([{ index: 6 }]);
  // It learns them from the snapshot; a chunk beyond its end is not looked for.
  bench.hear("b", { kind: "ask", from: 3 });
  bench.hear("b", { kind: "snapshot-ask", index: 5, offset: 2 ** 52 });
  expect(bench.outputs.filter(({ kind }) => kind === "read-snapshot")).toMatchObject([{ to: "b", offset: 0 }]);
});

test("a read is served after a majority echoed its round, at an index with a value of the leader's own; no disk is written", () => {
  const bench = new Bench(kept([], { promised: String(ballotC) }));
  const ballot = bench.takeOver({ entries: [value(1, ballotB)] });
  bench.step({ kind: "read", nowMs: bench.nowMs, ticket: 9 });
  const echo = (): void => {
    const round = bench.sent("heartbeat").at(-1)?.message.round ?? 0;
    bench.hear("b", { kind: "heartbeat-reply", ballot, round, chosen: 0, missing: 0, upTo: 0 });
  };
  echo();
  const served = (): unknown[] => bench.outputs.filter(({ kind }) => kind === "read-at");
  expect(served()).toEqual([]);
  bench.sync();
  bench.hear("b", { kind: "accepted", ballot, first: 1, last: 2, upTo: 2 });
  const { sequence } = bench;
  expect(served()).toEqual([]);
  echo();
  expect(served()).toMatchObject([{ ticket: 9, index: 2 }]);
  expect(bench.sequence).toBe(sequence);
});

test("delivered stamps never fall: an older leader's value behind a newer one's is delivered with the later stamp", () => {
  const bench = new Bench(kept([], { promised: String(ballotC) }));
  bench.takeOver({ chosen: 2, entries: [value(1, ballotC, ballotC, 50), value(2, ballotB, ballotB, 20)] });
  expect(bench.delivered().map(({ index, stampMs }) => [index, stampMs])).toEqual([
    [1, 50],
    [2, 50],
  ]);
  // The value itself stays as it was born.
  expect(bench.core.probe().acceptedAt(2)?.stampMs).toBe(20);
});

test("one member alone agrees with itself once its disk has the value (etcd 14370: a cluster of one must wait too)", () => {
  const bench = new Bench(kept([]), ["a"]);
  bench.wait(0);
  bench.sync();
  expect(bench.core.probe().role).toBe("leader");
  expect(bench.core.probe().committedIndex).toBe(0);
  bench.sync();
  expect(bench.core.probe().committedIndex).toBe(1);
});

test("what was known to be chosen is known again after a restart, without asking anybody", () => {
  const bench = new Bench();
  bench.accept("b", ballotB, [value(1, ballotB), value(2, ballotB)]);
  bench.accept("b", ballotB, [value(3, ballotB)], 2);
  const written = bench.outputs.flatMap((output) => (output.kind === "persist" ? [...output.operations] : []));
  expect(written).toContainEqual({ kind: "meta", values: { chosen: "2" } });
  const again = new Paxos();
  const environment = { self: "a", configuration: { voters: members, learners: [] }, nowMs: 0, randomUint32: () => 0 };
  const entries = [value(1, ballotB), value(2, ballotB), value(3, ballotB)];
  const outputs = again.start(environment, kept(entries, { promised: String(ballotB), chosen: "2" }));
  expect(outputs.flatMap((output) => (output.kind === "deliver" ? output.entries.map(({ index }) => index) : []))).toEqual([
    1, 2,
  ]);
});

test("letters of strangers, of other members' ballots and of slots far away are dropped", () => {
  const bench = new Bench();
  bench.hear("x", { kind: "prepare", ballot: ballotB, dryRun: false, from: 1 });
  bench.hear("c", { kind: "prepare", ballot: ballotB, dryRun: false, from: 1 });
  bench.accept("c", ballotB, [value(1, ballotB)]);
  bench.accept("b", ballotB, [value(2 ** 40, ballotB)]);
  bench.hear("b", { kind: "accepted", ballot: ballotA, first: 1, last: 2 ** 50, upTo: 2 ** 50 });
  bench.hear("b", { kind: "promise", ballot: ballotA, dryRun: false, from: 1, next: 0, chosen: 9, entries: [] });
  bench.hear("b", { kind: "snapshot-ask", index: 4, offset: 9 });
  bench.hear("b", { kind: "ask", from: 0 });
  expect(bench.sent("promise")).toEqual([]);
  expect(bench.sent("accepted")).toEqual([]);
  expect(bench.core.probe().committedIndex).toBe(0);
  expect(bench.core.probe().lastIndex).toBe(0);
});
