/**
 * Membership and transfer against sentences of Raft §6 and of Ongaro's thesis, §3.10, §4.2 and §4.3.
 */
import { expect, test } from "vitest";
import { decodeConfiguration, encodeConfiguration } from "../configuration.ts";
import type { Configuration, MembershipChange } from "../core.ts";
import { accepted, Bench, entriesOf, voteRequest } from "./raft-bench.ts";

const everybody: Configuration = { voters: ["a", "b", "c"], learners: [] };

function change(bench: Bench, ticket: number, wish: MembershipChange): void {
  bench.step({ kind: "change", nowMs: bench.nowMs, ticket, change: wish });
}

function inForce(bench: Bench): Configuration {
  return bench.core.probe().configuration;
}

/** A leader of [a, b, c] with "d" as a learner that has everything. */
function withLearner(): Bench {
  const bench = new Bench([1]);
  bench.lead();
  change(bench, 1, { kind: "add", member: "d", address: "d:1" });
  bench.confirm("b", "d");
  expect(bench.answers()).toContainEqual([1, "done"]);
  bench.outputs = [];
  return bench;
}

test("a learner is sent the log and counts for nothing (thesis §4.2.1)", () => {
  const bench = withLearner();
  expect(inForce(bench)).toEqual({ ...everybody, learners: ["d"], addresses: { d: "d:1" } });
  bench.step({ kind: "submit", nowMs: bench.nowMs, ticket: 2, payload: Uint8Array.of(1) });
  expect(bench.sent().flatMap(({ to, message }) => (message.kind === "append" ? [to] : []))).toContain("d");
  const before = bench.core.probe().committedIndex;
  bench.confirm("d");
  expect(bench.core.probe().committedIndex).toBe(before);
  bench.confirm("c");
  expect(bench.core.probe().committedIndex).toBe(before + 1);
});

test('"the joint consensus combines both the old and new configurations": both majorities commit it, then C_new follows by itself (§6)', () => {
  const bench = withLearner();
  bench.confirm("c");
  change(bench, 2, { kind: "promote", member: "d" });
  expect(inForce(bench)).toEqual({
    voters: ["a", "b", "c", "d"],
    outgoing: ["a", "b", "c"],
    learners: [],
    addresses: { d: "d:1" },
  });
  const joint = bench.core.probe().lastIndex;
  // Three of four new voters would do, were it not for the old ones, of which two are needed.
  bench.sync();
  bench.hear("d", accepted(2, joint));
  expect(bench.core.probe().committedIndex).toBe(joint - 1);
  bench.hear("b", accepted(2, joint));
  expect(bench.core.probe().committedIndex).toBe(joint);
  expect(bench.answers()).toEqual([]);
  expect(inForce(bench)).toEqual({ voters: ["a", "b", "c", "d"], learners: [], addresses: { d: "d:1" } });
  bench.confirm("b", "d");
  expect(bench.answers()).toEqual([[2, "done"]]);
});

test("in a joint configuration a majority of the new voters alone elects nobody", () => {
  const joint: Configuration = { voters: ["a", "d", "e"], outgoing: ["a", "b", "c"], learners: [] };
  const bench = new Bench([1]);
  const entry = { index: 2, term: 1, kind: "configuration", stampMs: 1, payload: encodeConfiguration(joint) } as const;
  bench.hear("b", { kind: "append", term: 1, previousIndex: 1, previousTerm: 1, commitIndex: 1, entries: [entry] });
  bench.sync();
  bench.wait(250);
  const vote = (from: string, preVote: boolean): void => {
    bench.hear(from, { kind: "vote-reply", term: 2, preVote, granted: true });
  };
  vote("d", true);
  vote("e", true);
  expect(bench.core.probe().term).toBe(1);
  vote("b", true);
  expect(bench.core.probe().term).toBe(2);
  bench.sync();
  vote("d", false);
  vote("e", false);
  expect(bench.core.probe().role).toBe("candidate");
  vote("c", false);
  expect(bench.core.probe().role).toBe("leader");
});

test("a new leader finishes the change that the one before it began (thesis §4.3)", () => {
  const joint: Configuration = { voters: ["a", "b"], outgoing: ["a", "b", "c"], learners: [] };
  const bench = new Bench([1]);
  const entry = { index: 2, term: 1, kind: "configuration", stampMs: 1, payload: encodeConfiguration(joint) } as const;
  bench.hear("c", { kind: "append", term: 1, previousIndex: 1, previousTerm: 1, commitIndex: 1, entries: [entry] });
  bench.sync();
  bench.elect();
  bench.confirm("b");
  expect(inForce(bench)).toEqual({ voters: ["a", "b"], learners: [] });
});

test('"a server always uses the latest configuration in its log, regardless of whether the entry is committed" (§6), and a truncation brings the one before back', () => {
  const bench = new Bench([1]);
  const added: Configuration = { voters: ["a", "b", "c"], learners: ["d"] };
  const entry = { index: 2, term: 2, kind: "configuration", stampMs: 1, payload: encodeConfiguration(added) } as const;
  bench.hear("b", { kind: "append", term: 2, previousIndex: 1, previousTerm: 1, commitIndex: 0, entries: [entry] });
  expect(inForce(bench)).toEqual(added);
  bench.hear("c", {
    kind: "append",
    term: 3,
    previousIndex: 1,
    previousTerm: 1,
    commitIndex: 0,
    entries: entriesOf([1, 3]).slice(1),
  });
  expect(inForce(bench)).toEqual(everybody);
});

test('"the cluster leader may not be part of the new configuration. In this case, the leader steps down once it has committed the C_new log entry" (§6), without counting itself', () => {
  const bench = new Bench([1]);
  bench.lead();
  change(bench, 1, { kind: "remove", member: "a" });
  // Both of the new two are needed, and two of the old three.
  bench.confirm("b", "c");
  expect(inForce(bench)).toEqual({ voters: ["b", "c"], learners: [] });
  bench.sent();
  // Its own disk and b's are one of two.
  bench.confirm("b");
  expect(bench.core.probe().role).toBe("leader");
  bench.confirm("c");
  expect(bench.answers()).toEqual([[1, "done"]]);
  expect(bench.core.probe().role).toBe("follower");
  expect(bench.sent().map(({ message }) => message.kind)).toContain("timeout-now");
  // Nobody's voter: it campaigns no more.
  for (let round = 0; round < 5; round++) bench.wait(250);
  expect(bench.sent()).toEqual([]);
});

test('"a server that is not part of its own latest configuration should still start new elections, as it might still be needed until the C_new entry is committed" (thesis §4.2.2; seed 1314)', () => {
  const bench = new Bench([1], {}, ["a", "b"]);
  bench.lead();
  change(bench, 1, { kind: "remove", member: "a" });
  // The joint configuration is committed, C_new = [b] is on a's disk alone, and then b is not heard any more.
  bench.confirm("b");
  expect(inForce(bench)).toEqual({ voters: ["b"], learners: [] });
  bench.wait(150);
  bench.wait(100);
  expect(bench.core.probe().role).toBe("follower");
  bench.sent();
  // b cannot lead without a's vote, and a's log is longer, so nobody but a can.
  bench.wait(250);
  const term = bench.core.probe().term + 1;
  const requests = bench.sent().filter(({ message }) => message.kind === "vote-request");
  expect(requests.map(({ to }) => to)).toEqual(["b"]);
  bench.hear("b", { kind: "vote-reply", term, preVote: true, granted: true });
  bench.sync();
  // Its own vote counts for nothing.
  expect(bench.core.probe().role).toBe("candidate");
  bench.hear("b", { kind: "vote-reply", term, preVote: false, granted: true });
  expect(bench.core.probe().role).toBe("leader");
  bench.confirm("b");
  expect(bench.core.probe().role).toBe("follower");
  expect(bench.core.probe().committedIndex).toBe(bench.core.probe().lastIndex);
});

test("a removed follower is told that it is removed before the leader falls silent", () => {
  const bench = new Bench([1]);
  bench.lead();
  change(bench, 1, { kind: "remove", member: "c" });
  bench.confirm("b");
  bench.confirm("b");
  expect(bench.answers()).toEqual([[1, "done"]]);
  bench.outputs = [];
  bench.hear("c", accepted(2, bench.core.probe().lastIndex));
  const committed = bench.outputs.flatMap((output) =>
    output.kind === "send" && output.message.kind === "heartbeat" && output.to === "c" ? [output.message.commitIndex] : [],
  );
  expect(committed).toEqual([bench.core.probe().lastIndex]);
  bench.outputs = [];
  bench.wait(21);
  expect(bench.outputs.flatMap((output) => (output.kind === "send" ? [output.to] : []))).toEqual(["b"]);
});

test("what makes no sense is refused: twice, unknown, the last voter, a second change at once, one before an own commit", () => {
  const bench = new Bench([1]);
  const refusal = (wish: MembershipChange): string | undefined => {
    bench.outputs = [];
    change(bench, 9, wish);
    return bench.answers()[0]?.[1];
  };
  expect(refusal({ kind: "add", member: "d" })).toBe("not-leader");
  bench.elect();
  expect(refusal({ kind: "add", member: "d" })).toBe("busy");
  bench.confirm("b");
  expect(refusal({ kind: "add", member: "b" })).toBe("member-exists");
  expect(refusal({ kind: "promote", member: "d" })).toBe("member-unknown");
  expect(refusal({ kind: "promote", member: "b" })).toBe("already-voter");
  expect(refusal({ kind: "remove", member: "d" })).toBe("member-unknown");
  change(bench, 1, { kind: "add", member: "d" });
  expect(refusal({ kind: "add", member: "e" })).toBe("change-in-flight");
  bench.confirm("b");
  // Nothing was heard of it yet.
  expect(refusal({ kind: "promote", member: "d" })).toBe("learner-lags");
  expect(refusal({ kind: "add", member: "d" })).toBe("member-exists");

  const alone = new Bench([], { term: "0" }, ["a"]);
  alone.wait(1);
  alone.sync();
  alone.sync();
  change(alone, 1, { kind: "remove", member: "a" });
  expect(alone.answers()).toEqual([[1, "last-voter"]]);
});

test("a server that was removed does not disturb the others: they hear a leader (thesis §4.2.3)", () => {
  const bench = new Bench([1]);
  bench.hear("b", { kind: "heartbeat", term: 1, commitIndex: 1, round: 1, lease: false });
  bench.sent();
  bench.hear("z", { ...voteRequest(2, 9, 9), preVote: true } as never);
  expect(bench.sent().map(({ message }) => message)).toEqual([{ kind: "vote-reply", term: 1, preVote: true, granted: false }]);
  bench.hear("z", voteRequest(5, 9, 9));
  expect(bench.core.probe().term).toBe(1);
});

test("a configuration survives its encoding, and that of before addresses is still read", () => {
  const whole: Configuration = { voters: ["a"], outgoing: ["a", "b"], learners: ["c"], addresses: { a: "h:1", c: "h:2" } };
  expect(decodeConfiguration(encodeConfiguration(whole))).toEqual(whole);
  expect(decodeConfiguration(Uint8Array.of(1, 1, 1, 97, 0, 0))).toEqual({ voters: ["a"], learners: [] });
});

test("the target of a transfer is brought up to date first, submits wait meanwhile, and then it is told to campaign (thesis §3.10)", () => {
  const bench = new Bench([1]);
  bench.lead();
  bench.step({ kind: "submit", nowMs: bench.nowMs, ticket: 1, payload: Uint8Array.of(1) });
  bench.step({ kind: "transfer", nowMs: bench.nowMs, ticket: 2, to: "b" });
  expect(bench.sent().map(({ message }) => message.kind)).not.toContain("timeout-now");
  bench.step({ kind: "submit", nowMs: bench.nowMs, ticket: 3, payload: Uint8Array.of(1) });
  expect(bench.answers()).toEqual([[3, "transferring"]]);
  bench.sent();
  bench.confirm("b");
  expect(
    bench
      .sent()
      .filter(({ message }) => message.kind === "timeout-now")
      .map(({ to }) => to),
  ).toEqual(["b"]);
  // Its leader's voice notwithstanding, the leader votes for it.
  bench.hear("b", { ...voteRequest(3, 3, 2), transfer: true } as never);
  expect(bench.answers()).toEqual([[2, "done"]]);
  expect(bench.sent().at(-1)?.message).toMatchObject({ kind: "vote-reply", granted: true });
});

test('"if leadership transfer does not complete after about an election timeout, the prior leader aborts the transfer and resumes accepting client requests" (thesis §3.10)', () => {
  const bench = new Bench([1]);
  bench.lead();
  bench.step({ kind: "transfer", nowMs: bench.nowMs, ticket: 1, to: undefined });
  bench.step({ kind: "transfer", nowMs: bench.nowMs, ticket: 2, to: "c" });
  bench.wait(101);
  expect(bench.answers()).toEqual([
    [2, "transfer-in-flight"],
    [1, "transfer-abandoned"],
  ]);
  bench.outputs = [];
  bench.step({ kind: "submit", nowMs: bench.nowMs, ticket: 3, payload: Uint8Array.of(1) });
  expect(bench.answers()).toEqual([]);
});

test("leadership goes neither to the leader itself, nor to a learner, nor to a stranger", () => {
  const bench = withLearner();
  for (const to of ["a", "d", "z"]) bench.step({ kind: "transfer", nowMs: bench.nowMs, ticket: 1, to });
  expect(bench.answers().map(([, why]) => why)).toEqual(["transfer-target", "transfer-target", "transfer-target"]);
});

test("a follower that is told to campaign does so at once, without the dry run (TimeoutNow, thesis §3.10)", () => {
  const bench = new Bench([1]);
  bench.hear("b", { kind: "heartbeat", term: 1, commitIndex: 1, round: 1, lease: true });
  bench.sent();
  bench.hear("b", { kind: "timeout-now", term: 1 });
  expect(bench.sent().map(({ message }) => message)).toEqual(
    [1, 2].map(() => ({ kind: "vote-request", term: 2, preVote: false, transfer: true, lastIndex: 1, lastTerm: 1 })),
  );
});

test("a member that is removed and added again starts from nothing: its disk may be another one", () => {
  const bench = withLearner();
  expect(bench.core.probe().matchOf("d")).toBe(bench.core.probe().lastIndex);
  change(bench, 2, { kind: "remove", member: "d" });
  bench.sync();
  bench.hear("b", accepted(2, bench.core.probe().lastIndex));
  // It was not heard of its removal yet, so it is still written to.
  expect(bench.core.probe().matchOf("d")).toBeDefined();
  change(bench, 3, { kind: "add", member: "d" });
  expect(bench.core.probe().matchOf("d")).toBe(0);
});
