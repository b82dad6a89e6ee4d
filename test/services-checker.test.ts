/**
 * The judge of services, sagas and outboxes under kill -9, judged: each planted defect must turn it red, and nothing else may.
 */
import { expect, test } from "vitest";
import { type Deed, type Facts, judgeServices } from "./crash/services-checker.ts";

const deed = (gid: string, branch: number, did: Deed["did"], action: string): Deed => ({ gid, branch, did, action });

/** A transaction that committed, one that aborted, sagas that completed or were compensated, with a pivot and without, and two events. */
function sound(): { -readonly [Field in keyof Facts]: Facts[Field] } {
  return {
    deeds: [
      ...[1, 2].flatMap((branch) => [deed("t1", branch, "do", "take"), deed("t1", branch, "confirm", "take")]),
      ...[1, 2].flatMap((branch) => [deed("t2", branch, "do", "take"), deed("t2", branch, "cancel", "take")]),
      ...["reserve", "hold", "charge", "ship"].map((action, at) => deed("s1", at + 1, "do", action)),
      deed("s2", 1, "do", "reserve"),
      deed("s2", 1, "cancel", "reserve"),
      ...["do", "cancel"].flatMap((did) =>
        ["reserve", "hold", "charge", "ship"].map((action, at) => deed("s3", at + 1, did as Deed["did"], action)),
      ),
    ],
    ordered: [
      { gid: "t1", key: "a", number: 1 },
      { gid: "o1", key: "a", number: 2 },
    ],
    consumed: [
      { key: "a", number: 1 },
      { key: "a", number: 2 },
    ],
    waiting: 0,
    prepared: 0,
    keys: ["domain", "coord/x", "i/sagas/s1"],
    lines: [
      { kind: "tcc", said: "began", gid: "t1" },
      { kind: "tcc", said: "committed", gid: "t1" },
      { kind: "tcc", said: "began", gid: "t2" },
      { kind: "tcc", said: "aborted", gid: "t2" },
      { kind: "saga", said: "completed", gid: "s1" },
      { kind: "saga", said: "compensated", gid: "s2" },
      { kind: "saga", said: "began", gid: "s3", plain: true },
      { kind: "saga", said: "compensated", gid: "s3" },
      { kind: "outbox", said: "committed", gid: "o1" },
    ],
  };
}

test("what is sound is sound", () => {
  expect(judgeServices(sound())).toEqual([]);
});

const without = (facts: Facts, gid: string, did: string, at = 0): readonly Deed[] => {
  const found = facts.deeds.filter((each) => each.gid === gid && each.did === did)[at];
  return facts.deeds.filter((each) => each !== found);
};

const defects: readonly (readonly [string, string, (facts: ReturnType<typeof sound>) => void])[] = [
  ["a barrier that lets a duplicate run", "K1", (facts) => (facts.deeds = [...facts.deeds, deed("t1", 1, "do", "take")])],
  ["a Confirm that ran twice", "K1", (facts) => (facts.deeds = [...facts.deeds, deed("t1", 1, "confirm", "take")])],
  ["a Cancel of what was never tried", "K1", (facts) => (facts.deeds = without(facts, "t2", "do"))],
  ["a Cancel after the Confirm", "K1", (facts) => (facts.deeds = [...facts.deeds, deed("t1", 1, "cancel", "take")])],
  ["one service confirmed, the other not", "K2", (facts) => (facts.deeds = without(facts, "t1", "confirm"))],
  [
    "confirmed by all and not in the database",
    "K2",
    (facts) => (facts.ordered = facts.ordered.filter(({ gid }) => gid !== "t1")),
  ],
  ["a Try that hangs", "K2", (facts) => (facts.deeds = without(facts, "t2", "cancel"))],
  ["a late Try that was let in", "K2", (facts) => (facts.deeds = [...facts.deeds, deed("t2", 3, "do", "take")])],
  [
    "an answer that is not true",
    "K2",
    (facts) => (facts.lines = [...facts.lines, { kind: "tcc", said: "committed", gid: "t2" }]),
  ],
  [
    "work for nobody",
    "K2",
    (facts) => (facts.deeds = [...facts.deeds, deed("x9", 1, "do", "take"), deed("x9", 1, "cancel", "take")]),
  ],
  ["a saga half done", "K3", (facts) => (facts.deeds = without(facts, "s1", "do", 3))],
  ["a saga undone behind its pivot", "K3", (facts) => (facts.deeds = [...facts.deeds, deed("s1", 1, "cancel", "reserve")])],
  [
    "a saga with a pivot undone in every step",
    "K3",
    (facts) => (facts.lines = facts.lines.map((line) => (line.gid === "s3" ? { ...line, plain: false } : line))),
  ],
  [
    "a saga without a pivot undone after it was answered",
    "K3",
    (facts) => (facts.lines = [...facts.lines, { kind: "saga", said: "completed", gid: "s3" }]),
  ],
  ["a compensation that is missing", "K3", (facts) => (facts.deeds = without(facts, "s2", "cancel"))],
  [
    "a saga that is told the wrong end",
    "K3",
    (facts) => (facts.lines = [...facts.lines, { kind: "saga", said: "completed", gid: "s2" }]),
  ],
  ["a member that stays", "K4", (facts) => (facts.keys = [...facts.keys, "m/t1/1"])],
  ["a saga that stays", "K4", (facts) => (facts.keys = [...facts.keys, "s/s1"])],
  ["a branch that stays prepared", "K4", (facts) => (facts.prepared = 1)],
  ["an event that was skipped", "K5", (facts) => (facts.consumed = facts.consumed.slice(0, 1))],
  ["an event that waits for ever", "K5", (facts) => (facts.waiting = 1)],
  ["an event of what was rolled back", "K5", (facts) => (facts.consumed = [...facts.consumed, { key: "b", number: 7 }])],
  ["an inbox that forgot", "K5", (facts) => (facts.consumed = [{ key: "a", number: 1 }, ...facts.consumed])],
  ["a relay that overtook another", "K6", (facts) => (facts.consumed = [...facts.consumed].reverse())],
];

test.each(defects)("%s is seen (%s)", (_what, code, plant) => {
  const facts = sound();
  plant(facts);
  expect(
    judgeServices(facts).some((violation) => violation.startsWith(code)),
    judgeServices(facts).join("; "),
  ).toBe(true);
});
