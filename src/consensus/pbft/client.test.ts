/**
 * Whose seals a client verifies, and whom it believes. Replicas are 4, so one may lie and two equal answers are enough.
 */
import { expect, test } from "vitest";
import { PbftClient } from "./client.ts";
import type { Reply, Signed } from "./messages.ts";

class Bench {
  readonly asked: number[] = [];
  readonly verdicts: ((isTrue: boolean) => void)[] = [];
  results: readonly number[] | undefined;
  readonly client = new PbftClient({
    name: "c",
    replicas: 4,
    timestamp: 0,
    sign: () => new Uint8Array(64),
    verify: ({ statement }, onVerdict) => {
      this.asked.push(statement.replica);
      this.verdicts.push(onVerdict);
    },
  });

  constructor() {
    this.client.call(0, [Uint8Array.of(1)], {
      nowMs: 0,
      onResults: (results) => {
        this.results = results.map((bytes) => bytes[0] as number);
      },
    });
  }

  hear(replica: number, answer: number, view = 0): void {
    const results = [Uint8Array.of(answer)];
    const statement: Reply = { kind: "reply", replica, view, client: "c", lane: 0, timestamp: 1, results };
    this.client.onReply({ statement, bytes: Uint8Array.of(replica, answer), signature: new Uint8Array(64) } as Signed<Reply>);
  }

  judge(at: number, isTrue: boolean): void {
    (this.verdicts[at] as (isTrue: boolean) => void)(isTrue);
  }
}

test("of four equal answers two are verified, and they are believed (§4.1)", () => {
  const bench = new Bench();
  for (const replica of [2, 0, 3, 1]) bench.hear(replica, 7);
  expect(bench.asked).toEqual([2, 0]);
  bench.judge(0, true);
  expect(bench.results).toBeUndefined();
  bench.judge(1, true);
  expect(bench.results).toEqual([7]);
  expect(bench.client.isBusy(0)).toBe(false);
});

test("one that turns out false is made up for by one that was held", () => {
  const bench = new Bench();
  for (const replica of [0, 1, 2]) bench.hear(replica, 7);
  expect(bench.asked).toEqual([0, 1]);
  bench.judge(0, false);
  expect(bench.asked).toEqual([0, 1, 2]);
  bench.judge(1, true);
  expect(bench.results).toBeUndefined();
  bench.judge(2, true);
  expect(bench.results).toEqual([7]);
});

test("another answer is verified for itself, and one true answer is not enough", () => {
  const bench = new Bench();
  bench.hear(0, 6);
  bench.judge(0, true);
  expect(bench.results).toBeUndefined();
  for (const replica of [1, 2]) bench.hear(replica, 7);
  expect(bench.asked).toEqual([0, 1, 2]);
  bench.judge(1, true);
  bench.judge(2, true);
  expect(bench.results).toEqual([7]);
});

test("the last word of a replica counts, also against a verdict that comes late", () => {
  const bench = new Bench();
  bench.hear(0, 7);
  bench.hear(0, 6);
  bench.judge(0, true);
  bench.hear(1, 7);
  bench.judge(2, true);
  expect(bench.results).toBeUndefined();
  bench.hear(2, 7);
  bench.judge(3, true);
  expect(bench.results).toEqual([7]);
});

test("a false verdict on an earlier word takes nothing from the last one", () => {
  const bench = new Bench();
  bench.hear(0, 7);
  bench.hear(0, 6);
  bench.judge(0, false);
  bench.judge(1, true);
  bench.hear(1, 6);
  bench.judge(2, true);
  expect(bench.results).toEqual([6]);
});

test("a replica that does not exist is not asked about, nor is an answer to an earlier call", () => {
  const bench = new Bench();
  bench.hear(4, 7);
  bench.client.abandon(0);
  bench.hear(0, 7);
  expect(bench.asked).toEqual([]);
});
