import { expect, test } from "vitest";
import { coverageOf, coverageSeeds } from "./coverage.ts";

test("a run owes each rare branch its share of seeds, and one hit at the least", () => {
  const of = (seeds: number, hits: Record<string, number>) =>
    coverageOf({ protocol: "raft", world: "core", seeds }, hits).find(({ branch }) => branch === "a snapshot is installed");
  expect(of(coverageSeeds, { "a snapshot is installed": 7 })).toMatchObject({ hits: 7, owed: 800 });
  expect(of(coverageSeeds / 4, {})).toMatchObject({ hits: 0, owed: 200 });
  expect(of(0, {})).toMatchObject({ owed: 1 });
});

test("what a protocol cannot reach is not asked of it", () => {
  const namesOf = (protocol: string) => coverageOf({ protocol, world: "core", seeds: 1 }, {}).map(({ branch }) => branch);
  expect(namesOf("raft")).toContain("a voter is removed");
  expect(namesOf("zab")).not.toContain("a voter is removed");
  expect(namesOf("paxos")).not.toContain("a truncation drops several entries");
});
