import { expect, test } from "vitest";
import { LocalEngine } from "../testing/local-engine.ts";
import { VirtualPlatform } from "../testing/virtual-platform.ts";
import { createRunOnce } from "./run-once.ts";

function fleet() {
  const engine = new LocalEngine({ platform: new VirtualPlatform() });
  let runs = 0;
  const work = (): number => ++runs;
  return { one: createRunOnce(engine, "backup"), other: createRunOnce(engine.twin(), "backup"), work, runs: () => runs };
}

test("croner's jobs of one tick run once, however late one starts, and the next tick runs again", async () => {
  const { one, other, work, runs } = fleet();
  const at = (ms: number | null) => ({ nextRun: () => (ms === null ? null : new Date(ms)) });
  const outcomes = await Promise.all([one.scheduled(work)(at(60_000)), other.scheduled(work)(at(60_000))]);
  expect(outcomes.filter(({ ran }) => ran)).toHaveLength(1);
  expect(await other.scheduled(work)(at(120_000))).toEqual({ ran: true, answer: 2 });
  expect(await one.scheduled(work)(at(null))).toEqual({ ran: true, answer: 3 });
  expect(await other.scheduled(work)(at(null))).toEqual({ ran: false });
  expect(runs()).toBe(3);
});

test("cron's jobs are named by `this`, with its luxon date; bull's by the scheduled time in the job", async () => {
  const { one, other, work, runs } = fleet();
  const cronJob = { nextDate: () => ({ valueOf: () => 5_000 }) };
  await one.scheduled(work).call(cronJob);
  await other.scheduled(work).call(cronJob, () => undefined);
  expect(runs()).toBe(1);
  const job = { id: "repeat:1", opts: { prevMillis: 7_000 }, timestamp: 1 };
  await one.scheduled(work)(job);
  await other.scheduled(work)({ ...job, timestamp: 2 });
  expect(runs()).toBe(2);
  await one.scheduled(work)({ timestamp: 8_000, delay: 500 });
  await other.scheduled(work)({ timestamp: 8_500, delay: 0 });
  expect(runs()).toBe(3);
});

test("node-cron's coordinator says yes once for each task and fire time", async () => {
  const { one, other } = fleet();
  const key = "nightly:2026-01-01T03:00:00.000Z";
  const said = await Promise.all([one.coordinator().shouldRun(key), other.coordinator().shouldRun(key)]);
  expect(said.filter(Boolean)).toHaveLength(1);
  one.coordinator().onComplete();
  expect(await other.coordinator().shouldRun(key)).toBe(false);
  expect(await other.coordinator().shouldRun("nightly:2026-01-02T03:00:00.000Z")).toBe(true);
});

test("a scheduler that tells no tick is refused in words", async () => {
  const { one, work } = fleet();
  await expect(one.scheduled(work)()).rejects.toMatchObject({ code: "INVALID_OPTION" });
  await expect(one.scheduled(work)({ nextRun: () => "soon" })).rejects.toMatchObject({ code: "INVALID_OPTION" });
});
