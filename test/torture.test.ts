/**
 * A short torture run on the built output: real processes, killed and stopped, and nothing broken, lost or left behind.
 * `npm run torture` is the same for as long as one likes.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Report } from "../src/torture/report.ts";

const script = resolve(import.meta.dirname, "..", "dist", "torture", "main.js");

/** Unique, and in the arguments of every process of a run: that is how leftovers are found. */
let directory: string;

beforeEach(() => {
  expect(existsSync(script), "dist is built: npm test builds it").toBe(true);
  directory = mkdtempSync(join(tmpdir(), "conclave-torture-test-"));
});

afterEach(() => rmSync(directory, { recursive: true, force: true, maxRetries: 5 }));

test("locks, guards and registers hold while leaders are killed and clients stopped, and nothing is left behind", async () => {
  const json = join(directory, "report.json");
  const history = join(directory, "history.jsonl");
  const flags = ["--minutes", "0.27", "--kill-every", "2s", "--json", json, "--history", history, "--directory", directory];
  const { child, output } = startTorture(flags);
  const code = await exitCode(child);
  expect(code, output()).toBe(0);
  const report = JSON.parse(readFileSync(json, "utf8")) as Report;
  expect(report.violations).toEqual([]);
  expect(report.registers.undecided).toBeUndefined();
  expect(report.registers.operations).toBeGreaterThan(200);
  expect(report.faults.leaderKills).toBeGreaterThanOrEqual(2);
  expect(report.counts.fileGrants).toBeGreaterThan(10);
  expect(report.counts.setGrants).toBeGreaterThan(10);
  expect(report.outages.endless).toBe(0);
  expect(readFileSync(history, "utf8").split("\n").length).toBeGreaterThan(400);
  expect(readdirSync(directory).toSorted()).toEqual(["history.jsonl", "report.json"]);
  await expectNobodyLeft();
}, 120_000);

test("networks that are cut, disks that fail, logs that decay and clocks that jump break no promise", async () => {
  const json = join(directory, "report.json");
  const { child, output } = startTorture(["--faults", "all", "--minutes", "0.3", "--json", json, "--directory", directory]);
  expect(await exitCode(child), output()).toBe(0);
  const report = JSON.parse(readFileSync(json, "utf8")) as Report;
  expect(report.violations).toEqual([]);
  expect(report.registers.undecided).toBeUndefined();
  expect(report.registers.operations).toBeGreaterThan(50);
  const struck = Object.values(report.faults.others).reduce((sum, count) => sum + count, 0);
  expect(struck).toBeGreaterThanOrEqual(3);
  await expectNobodyLeft();
}, 240_000);

test("a runner that is killed leaves no process behind, not even a stopped one", async () => {
  const { child, output } = startTorture(["--minutes", "5", "--seed", "3", "--directory", directory]);
  const ended = exitCode(child);
  // The first line of progress comes after five seconds of faults.
  await expect.poll(() => output(), { timeout: 60_000, interval: 100 }).toMatch(/^\d+ s: /m);
  expect(processesOfRun().length).toBeGreaterThan(8);
  child.kill("SIGKILL");
  await ended;
  await expectNobodyLeft();
  await expect.poll(() => readdirSync(directory), { timeout: 10_000, interval: 100 }).toEqual([]);
}, 120_000);

test("Ctrl-C ends the run, all its processes and its directory", async () => {
  const { child, output } = startTorture(["--minutes", "5", "--seed", "4", "--directory", directory]);
  const ended = exitCode(child);
  await expect.poll(() => output(), { timeout: 60_000, interval: 100 }).toMatch(/^\d+ s: /m);
  child.kill("SIGINT");
  expect(await ended).toBe(130);
  await expectNobodyLeft();
  await expect.poll(() => readdirSync(directory), { timeout: 10_000, interval: 100 }).toEqual([]);
}, 120_000);

test("what it does not understand it refuses, as its own failure", async () => {
  for (const flags of [
    ["--minutes", "soon"],
    ["--kill-every", "3"],
    ["--bogus"],
    ["--ttl", "10ms"],
    ["--faults", "rain"],
    ["--members", "4"],
    ["--faults", "liar"],
  ]) {
    const { child, output } = startTorture(flags);
    expect(await exitCode(child), flags.join(" ")).toBe(2);
    expect(output()).toContain(flags[0]);
  }
});

function startTorture(flags: readonly string[]): { readonly child: ChildProcess; readonly output: () => string } {
  const child = spawn(process.execPath, [script, ...flags], { stdio: ["ignore", "pipe", "pipe"] });
  let text = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (chunk: string) => {
      text += chunk;
    });
  }
  return { child, output: () => text };
}

function exitCode(child: ChildProcess): Promise<number | null> {
  return new Promise((done) => child.once("close", (code) => done(code)));
}

async function expectNobodyLeft(): Promise<void> {
  await expect.poll(processesOfRun, { timeout: 10_000, interval: 100 }).toEqual([]);
}

/** The arguments of every process that was started in the directory of this test. */
function processesOfRun(): string[] {
  const lines = execFileSync("ps", ["-A", "-ww", "-o", "pid=,state=,args="], { encoding: "utf8" }).split("\n");
  return lines.filter((line) => line.includes(join(directory, "conclave-torture-")));
}
