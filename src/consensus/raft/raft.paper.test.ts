/**
 * Raft against sentences of its paper: Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm
 * (Extended Version)", 2014, and of Ongaro's thesis where named. One core at a time, fed by hand.
 */
import { expect, test } from "vitest";
import { accepted, Bench, entriesOf, voteRequest } from "./raft-bench.ts";

const empty = new Uint8Array(0);

test('"Each server will vote for at most one candidate in a given term, on a first-come-first-served basis" (§5.2)', () => {
  const bench = new Bench([], { term: "0" });
  bench.hear("b", voteRequest(5, 0, 0));
  bench.hear("c", voteRequest(5, 0, 0));
  bench.hear("b", voteRequest(5, 0, 0));
  expect(bench.sent().map(({ to, message }) => [to, message.kind === "vote-reply" && message.granted])).toEqual([
    ["b", true],
    ["c", false],
    ["b", true],
  ]);
});

test("a vote leaves only after the persist that holds it (Figure 2: updated on stable storage before responding)", () => {
  const bench = new Bench([], { term: "0" });
  bench.hear("b", voteRequest(5, 0, 0));
  expect(bench.sequence).toBe(1);
  expect(bench.sent()[0]?.after).toBe(1);
});

test("a vote survives a restart (Figure 2, votedFor is persistent)", () => {
  const bench = new Bench([], { term: "5", vote: "b" });
  bench.hear("c", voteRequest(5, 9, 5));
  expect(bench.sent()[0]?.message).toMatchObject({ kind: "vote-reply", granted: false });
});

test("a snapshot that was on the disk before its term was is of a term that the member knows (§7; seed 3014 of the core world)", () => {
  const configuration = { voters: ["a", "b", "c"], learners: [] };
  const snapshot = { index: 9, term: 5, configuration, stampMs: 0, lengthBytes: 1 };
  const bench = new Bench([], { term: "3", vote: "b" }, ["a", "b", "c"], { snapshot });
  expect(bench.core.probe().term).toBe(5);
  // In term 5 it has voted for nobody, and says so only once its disk knows the term.
  bench.hear("c", voteRequest(5, 9, 5));
  expect(bench.sent()[0]).toMatchObject({ to: "c", after: bench.sequence, message: { kind: "vote-reply", granted: true } });
  const asking = new Bench([], { term: "3" }, ["a", "b", "c"], { snapshot });
  asking.wait(250);
  for (const { message } of asking.sent()) expect(message).toMatchObject({ kind: "vote-request", term: 6, lastTerm: 5 });
});

test('"the voter denies its vote if its own log is more up-to-date than that of the candidate" (§5.4.1)', () => {
  const grants = (log: readonly number[], lastIndex: number, lastTerm: number): boolean => {
    const bench = new Bench(log);
    bench.hear("b", voteRequest(9, lastIndex, lastTerm));
    const [reply] = bench.sent();
    return reply?.message.kind === "vote-reply" && reply.message.granted;
  };
  expect(grants([1, 2, 3], 2, 3)).toBe(false); // shorter, same last term
  expect(grants([1, 2, 3], 9, 2)).toBe(false); // longer, older last term
  expect(grants([1, 2, 3], 3, 3)).toBe(true);
  expect(grants([1, 2, 3], 1, 4)).toBe(true); // shorter, newer last term
});

test('"only log entries from the leader\'s current term are committed by counting replicas" (§5.4.2, Figure 8)', () => {
  const bench = new Bench([1, 2]);
  bench.elect();
  bench.sync();
  bench.hear("b", accepted(3, 2));
  // Index 2 of term 2 is on a majority now, and still not committed.
  expect(bench.core.probe().committedIndex).toBe(0);
  bench.hear("b", accepted(3, 3));
  expect(bench.core.probe().committedIndex).toBe(3);
});

test("a leader counts itself only for what its own disk has confirmed, and may be outrun by the followers (thesis §10.2.1)", () => {
  const alone = new Bench([], { term: "0" }, ["a"]);
  alone.wait(1);
  alone.sync();
  expect(alone.core.probe().role).toBe("leader");
  expect(alone.core.probe().committedIndex).toBe(0);
  alone.sync();
  expect(alone.core.probe().committedIndex).toBe(1);

  const bench = new Bench([1]);
  bench.elect();
  bench.hear("b", accepted(2, 2));
  expect(bench.core.probe().committedIndex).toBe(0);
  bench.hear("c", accepted(2, 2));
  expect(bench.core.probe().committedIndex).toBe(2);
});

test("a write that held truncated entries does not vouch for their successors (seed 308: counted as own, on no disk)", () => {
  const bench = new Bench([1]);
  const stale = entriesOf([1, 2, 2, 2]).slice(1);
  bench.hear("b", { kind: "append", term: 2, previousIndex: 1, previousTerm: 1, commitIndex: 0, entries: stale });
  const fresh = entriesOf([1, 3]).slice(1);
  bench.hear("c", { kind: "append", term: 3, previousIndex: 1, previousTerm: 1, commitIndex: 0, entries: fresh });
  // The disk confirms both writes only now: it holds the log up to 2, whatever the first of them held.
  bench.sync();
  bench.elect();
  bench.hear("b", accepted(4, 3));
  expect(bench.core.probe().committedIndex).toBe(0);
  bench.sync();
  expect(bench.core.probe().committedIndex).toBe(3);
});

test("a follower refuses entries that do not follow its log, and says where the logs may agree (§5.3)", () => {
  const bench = new Bench([1, 1, 2, 2]);
  bench.hear("b", { kind: "append", term: 7, previousIndex: 9, previousTerm: 6, commitIndex: 0, entries: [] });
  expect(bench.sent()[0]?.message).toMatchObject({ accepted: false, index: 9, hintIndex: 4, hintTerm: 2 });
  bench.hear("b", { kind: "append", term: 7, previousIndex: 4, previousTerm: 1, commitIndex: 0, entries: [] });
  // Term 2 cannot be in the leader's log below a term 1: a whole term is skipped at once.
  expect(bench.sent()[0]?.message).toMatchObject({ accepted: false, index: 4, hintIndex: 2, hintTerm: 1 });
});

test("conflicting entries are removed, and entries that are there already are left alone (Figure 2, AppendEntries 3 and 4; Figure 7)", () => {
  const leader = entriesOf([1, 1, 4, 4]);
  const bench = new Bench([1, 1, 2, 2, 3]);
  bench.hear("b", { kind: "append", term: 4, previousIndex: 2, previousTerm: 1, commitIndex: 0, entries: leader.slice(2) });
  expect([1, 2, 3, 4, 5].map((index) => bench.core.probe().termAt(index))).toEqual([1, 1, 4, 4, undefined]);
  const written = bench.sequence;
  // The same again, late and doubled, and an older, shorter one: nothing is written, nothing is lost.
  bench.hear("b", { kind: "append", term: 4, previousIndex: 2, previousTerm: 1, commitIndex: 0, entries: leader.slice(2) });
  bench.hear("b", { kind: "append", term: 4, previousIndex: 2, previousTerm: 1, commitIndex: 0, entries: leader.slice(2, 3) });
  expect(bench.sequence).toBe(written);
  expect(bench.core.probe().lastIndex).toBe(4);
});

test('"set commitIndex = min(leaderCommit, index of last new entry)" (Figure 2, AppendEntries 5)', () => {
  const bench = new Bench([1, 1, 1]);
  // Only index 1 is proven to match; index 2 and 3 may be stale although the leader has committed 3.
  bench.hear("b", { kind: "append", term: 2, previousIndex: 0, previousTerm: 0, commitIndex: 3, entries: entriesOf([1]) });
  expect(bench.core.probe().committedIndex).toBe(1);
});

test("a member that cannot win raises no term: the dry run comes first (thesis §9.6)", () => {
  const bench = new Bench([1]);
  for (let round = 0; round < 5; round++) bench.wait(250);
  expect(bench.core.probe().term).toBe(1);
  expect(bench.core.probe().role).toBe("candidate");
});

test("a vote request does not depose a leader that is heard (thesis §6.2)", () => {
  const bench = new Bench([1]);
  bench.hear("b", { kind: "heartbeat", term: 1, commitIndex: 0, round: 1, lease: false });
  bench.sent();
  bench.hear("c", voteRequest(8, 1, 1));
  expect(bench.core.probe().term).toBe(1);
  expect(bench.sent()).toEqual([]);
});

test("a leader that does not reach a quorum steps down (thesis §6.2)", () => {
  const bench = new Bench([1]);
  bench.elect();
  for (let beat = 0; beat < 30; beat++) bench.wait(20);
  expect(bench.core.probe().role).not.toBe("leader");
});

test('a leader tells no read before "it has committed an entry in its term" and a round of heartbeats came back (§8, thesis §6.4)', () => {
  const bench = new Bench([1]);
  bench.elect();
  const readAt = (): number[] => bench.outputs.flatMap((output) => (output.kind === "read-at" ? [output.index] : []));
  bench.step({ kind: "read", nowMs: bench.nowMs, ticket: 1 });
  for (let round = 1; round <= 3; round++) bench.hear("b", { kind: "heartbeat-reply", term: 2, round: 1, promisedMs: 0 });
  expect(readAt()).toEqual([]);
  bench.sync();
  bench.hear("b", accepted(2, 2));
  // The commit began a round; an echo of the round before it proves nothing about the time since.
  bench.hear("b", { kind: "heartbeat-reply", term: 2, round: 1, promisedMs: 0 });
  expect(readAt()).toEqual([]);
  bench.hear("b", { kind: "heartbeat-reply", term: 2, round: 2, promisedMs: 0 });
  expect(readAt()).toEqual([2]);
});

test("a submit with a fence of another term is refused, and one without leadership too", () => {
  const bench = new Bench([1]);
  bench.step({ kind: "submit", nowMs: 0, ticket: 1, payload: empty });
  bench.elect();
  bench.step({ kind: "submit", nowMs: bench.nowMs, ticket: 2, payload: empty, fence: 1 });
  bench.step({ kind: "submit", nowMs: bench.nowMs, ticket: 3, payload: empty, fence: 2 });
  const answers = bench.outputs.flatMap((output) =>
    output.kind === "rejected" || output.kind === "accepted" ? [[output.ticket, output.kind]] : [],
  );
  expect(answers).toEqual([
    [1, "rejected"],
    [2, "rejected"],
    [3, "accepted"],
  ]);
});

test("stamps never fall, also where the new leader's clock shows less", () => {
  const bench = new Bench([1, 1]);
  bench.elect();
  const stamps = bench.outputs
    .flatMap((output) => (output.kind === "persist" ? output.operations : []))
    .flatMap((operation) => (operation.kind === "put" ? [operation.entry.stampMs] : []));
  expect(stamps).toEqual([1]);
});

test("a broken connection to the leader starts an election at once, and its last letters do not put it off", () => {
  const bench = new Bench([1]);
  bench.hear("b", { kind: "heartbeat", term: 1, commitIndex: 0, round: 1, lease: false });
  bench.step({ kind: "link", nowMs: bench.nowMs, peer: "b", up: false });
  bench.hear("b", { kind: "heartbeat", term: 1, commitIndex: 0, round: 2, lease: false });
  bench.sent();
  bench.wait(1);
  expect(bench.sent().map(({ message }) => message.kind)).toEqual(["vote-request", "vote-request"]);
  // Refused, or overtaken by one more last letter, it asks again soon, not after a whole election timeout.
  bench.hear("b", { kind: "heartbeat", term: 1, commitIndex: 0, round: 3, lease: false });
  bench.sent();
  bench.wait(65);
  expect(bench.sent().map(({ message }) => message.kind)).toEqual(["vote-request", "vote-request"]);
});

test("a leader that goes on speaking after its connection broke is followed again", () => {
  const bench = new Bench([1]);
  bench.hear("b", { kind: "heartbeat", term: 1, commitIndex: 0, round: 1, lease: false });
  bench.step({ kind: "link", nowMs: bench.nowMs, peer: "b", up: false });
  bench.wait(130);
  bench.hear("b", { kind: "heartbeat", term: 1, commitIndex: 0, round: 2, lease: false });
  bench.sent();
  bench.wait(90);
  expect(bench.core.probe().role).toBe("follower");
  expect(bench.core.probe().leader).toBe("b");
});
