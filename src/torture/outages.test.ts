import { expect, test } from "vitest";
import { outagesOf, percentile } from "./outages.ts";

const probe = (startedAtMs: number, ackedAtMs: number | undefined) => ({ startedAtMs, ackedAtMs, hasFailed: false });
const kill = (atMs: number, wereOthersUp = true) => ({ member: "a", atMs, wereOthersUp });

test("an outage ends with the first answer to a write that began after the kill, not to one that was on its way", () => {
  const probes = [probe(0, 5), probe(90, 110), probe(101, 400), probe(111, 350), probe(500, 501)];
  expect(outagesOf([kill(100)], probes).all).toEqual({ count: 1, p50Ms: 250, p99Ms: 250, longestMs: 250 });
});

test("a kill after which nothing was answered is endless and counts as no length", () => {
  const outages = outagesOf([kill(100), kill(1_000)], [probe(101, 150), probe(1_001, undefined)]);
  expect(outages).toMatchObject({ endless: 1, all: { count: 1, longestMs: 50 } });
});

test("kills while another member was away are counted apart", () => {
  const probes = [probe(101, 150), probe(1_001, 3_000)];
  const outages = outagesOf([kill(100), kill(1_000, false)], probes);
  expect(outages.all).toMatchObject({ count: 2, longestMs: 2_000 });
  expect(outages.othersUp).toMatchObject({ count: 1, longestMs: 50 });
});

test("percentiles are of the nearest rank", () => {
  const hundred = Array.from({ length: 100 }, (_, index) => index + 1);
  expect([
    percentile(hundred, 50),
    percentile(hundred, 99),
    percentile(hundred, 100),
    percentile([7], 50),
    percentile([], 99),
  ]).toEqual([50, 99, 100, 7, 0]);
});
