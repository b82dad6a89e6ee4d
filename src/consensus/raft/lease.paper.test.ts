/**
 * Reads by lease against Ongaro's thesis §6.4.1, and against what would break them: a transfer, a broken connection, a slow
 * clock, a restart.
 */
import { expect, test } from "vitest";
import { Bench, voteRequest } from "./raft-bench.ts";

const read = (bench: Bench, ticket: number): void => {
  bench.step({ kind: "read", nowMs: bench.nowMs, ticket, level: "lease" });
};
const heartbeat = { kind: "heartbeat", term: 1, commitIndex: 1, round: 1, lease: true } as const;

/** A leader whose follower b promised 100 ms in answer to the round that was sent at the present moment. */
function leased(): Bench {
  const bench = new Bench([1]);
  bench.lead();
  read(bench, 1);
  expect(bench.answers()).toEqual([]);
  bench.hear("b", { kind: "heartbeat-reply", term: 2, round: bench.round(), promisedMs: 100 });
  expect(bench.answers()).toEqual([[1, "read-at"]]);
  bench.sent();
  return bench;
}

test("while a quorum has promised to elect nobody, a read by lease asks nobody", () => {
  const bench = leased();
  read(bench, 2);
  expect(bench.answers()).toEqual([[2, "read-at"]]);
});

test("what may be read by lease is what is committed, at once, and for no longer than the promises reach", () => {
  const bench = new Bench([1]);
  expect(bench.core.leaseReadIndex(bench.nowMs)).toBeUndefined();
  const leader = leased();
  expect(leader.core.leaseReadIndex(leader.nowMs + 90)).toBe(leader.core.probe().committedIndex);
  expect(leader.core.leaseReadIndex(leader.nowMs + 91)).toBeUndefined();
  expect(leader.outputs).toEqual([]);
});

test("the lease counts from the sending of the round, and ends earlier by what the clocks may differ", () => {
  const bench = leased();
  // 100 ms promised, clocks within 5%: 100 * 0.95 / 1.05 = 90.5 ms.
  bench.wait(90);
  read(bench, 2);
  expect(bench.answers()).toEqual([[2, "read-at"]]);
  bench.sent();
  bench.wait(1);
  read(bench, 3);
  expect(bench.answers()).toEqual([]);
});

test("an echo without a promise gives a read, and no lease", () => {
  const bench = new Bench([1]);
  bench.lead();
  read(bench, 1);
  bench.hear("b", { kind: "heartbeat-reply", term: 2, round: bench.round(), promisedMs: 0 });
  expect(bench.answers()).toEqual([[1, "read-at"]]);
  bench.sent();
  read(bench, 2);
  expect(bench.answers()).toEqual([]);
});

test("promises are asked for only while somebody reads by lease", () => {
  const bench = new Bench([1]);
  bench.lead();
  const asked = (): boolean[] =>
    bench.outputs.flatMap((output) =>
      output.kind === "send" && output.message.kind === "heartbeat" ? [output.message.lease] : [],
    );
  bench.wait(20);
  expect(asked()).toEqual([false, false]);
  bench.sent();
  read(bench, 1);
  expect(asked()).toEqual([true, true]);
});

test("a promise holds although the connection to the leader broke (decision 4)", () => {
  const bench = new Bench([1]);
  bench.hear("b", heartbeat);
  bench.step({ kind: "link", nowMs: bench.nowMs, peer: "b", up: false });
  bench.sent();
  bench.wait(50);
  bench.hear("c", { ...voteRequest(2, 1, 1), preVote: true } as never);
  bench.hear("c", voteRequest(2, 1, 1));
  // It neither campaigns, nor encourages, nor votes, nor even enters the term.
  expect(bench.sent().map(({ message }) => message)).toEqual([{ kind: "vote-reply", term: 1, preVote: true, granted: false }]);
  expect(bench.core.probe().term).toBe(1);
  bench.wait(49);
  expect(bench.sent()).toEqual([]);
  bench.wait(62);
  expect(bench.sent().map(({ message }) => message.kind)).toEqual(["vote-request", "vote-request"]);
});

test("the last words of a leader whose connection broke are promised nothing", () => {
  const bench = new Bench([1]);
  bench.hear("b", heartbeat);
  bench.step({ kind: "link", nowMs: bench.nowMs, peer: "b", up: false });
  bench.sent();
  bench.hear("b", { ...heartbeat, round: 2 });
  expect(bench.sent().at(-1)?.message).toMatchObject({ kind: "heartbeat-reply", promisedMs: 0 });
});

test("a member that comes back takes it for given that it had promised", () => {
  const bench = new Bench([1], {}, ["a", "b", "c"], { startedMs: -1 });
  bench.hear("c", voteRequest(2, 1, 1));
  expect(bench.sent()).toEqual([]);
  expect(bench.core.probe().term).toBe(1);
  bench.wait(100);
  bench.sent();
  bench.hear("c", voteRequest(2, 1, 1));
  expect(bench.sent().at(-1)?.message).toMatchObject({ kind: "vote-reply", granted: true });
});

test("a transfer ends the lease for the whole term, also when it is abandoned: its word may still be on the way", () => {
  const bench = leased();
  bench.step({ kind: "transfer", nowMs: bench.nowMs, ticket: 2, to: "c" });
  read(bench, 3);
  bench.hear("c", { kind: "append-reply", term: 2, accepted: true, index: 2, hintIndex: 0, hintTerm: 0 });
  expect(bench.sent().map(({ message }) => message.kind)).toContain("timeout-now");
  read(bench, 4);
  bench.wait(101);
  expect(bench.answers()).toEqual([[2, "transfer-abandoned"]]);
  bench.outputs = [];
  bench.hear("b", { kind: "heartbeat-reply", term: 2, round: bench.round(), promisedMs: 100 });
  bench.outputs = [];
  read(bench, 5);
  expect(bench.answers()).toEqual([]);
});

test("a leader that lost its leadership has no lease", () => {
  const bench = leased();
  bench.hear("c", { kind: "heartbeat-reply", term: 3, round: 0, promisedMs: 0 });
  read(bench, 2);
  expect(bench.answers()).toEqual([[2, "not-leader"]]);
});
