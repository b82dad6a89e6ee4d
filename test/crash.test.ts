/**
 * A few kills at a few crash points, so that every run of the tests proves the harness alive; `npm run crash` does them all, twenty
 * times each (`docs/verification.md`). Real processes on durable databases, judged by the independent checkers.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { isClean, readRows } from "./crash/results.ts";

test("coordinators and a database are killed: nothing is lost, halved or left", { timeout: 180_000 }, async (context) => {
  const points = ["C10", "C12", "L3", "D3"];
  const rows = await kill(["--points", points.join(","), "--times", "2", "--together", "2", "--members", "1"], context.skip);
  expect(rows.map(({ id }) => id).sort()).toEqual(points.sort());
  expect(rows.filter((row) => !isClean(row))).toEqual([]);
});

test("services, sagas and a relay are killed: nothing runs twice, hangs or is lost", { timeout: 180_000 }, async (context) => {
  const points = ["H9", "G2b", "G5b", "B2"];
  const rows = await kill(["--only", "all", "--points", points.join(","), "--times", "1"], context.skip);
  expect(rows.map(({ id }) => id).sort()).toEqual(points.sort());
  expect(rows.filter((row) => !isClean(row))).toEqual([]);
});

/** One run of the harness; its rows. */
async function kill(options: readonly string[], skip: (why: string) => void) {
  const folder = mkdtempSync(join(tmpdir(), "conclave-crash-test-"));
  const results = join(folder, "rows.jsonl");
  try {
    const child = spawn(process.execPath, ["scripts/crash.mjs", ...options, "--results", results]);
    let said = "";
    child.stdout.on("data", (part) => (said += part));
    child.stderr.on("data", (part) => (said += part));
    const status = await new Promise((resolve) => child.once("exit", resolve));
    if (/^Skipped: /m.test(said)) skip(said.trim());
    const rows = readRows(results);
    expect(status, said).toBe(0);
    return rows;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
