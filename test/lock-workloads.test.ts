/**
 * Jepsen's lock workloads, a few seconds on each real server; `npm run lock-workloads` runs them for as long as asked.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";

interface Line {
  readonly engine: string;
  readonly skipped?: string;
  readonly faults: Readonly<Record<string, number>>;
  readonly counts: Readonly<Record<string, number>>;
  readonly violations: readonly unknown[];
}

function workloads(...args: readonly string[]): { readonly status: number | null; readonly said: string } {
  const { status, stderr, stdout } = spawnSync(process.execPath, ["scripts/lock-workloads.mjs", ...args], { encoding: "utf8" });
  return { status, said: stdout + stderr };
}

test("locks hold on every engine here while servers and clients are stopped and killed; a planted bug is found", () => {
  const folder = mkdtempSync(join(tmpdir(), "conclave-lock-workloads-test-"));
  try {
    const json = join(folder, "lines.json");
    const { said, status } = workloads("--seconds", "5", "--seed", "7", "--json", json);
    console.log(said);
    expect(said).not.toContain("no-recovery");
    const lines = JSON.parse(readFileSync(json, "utf8")) as readonly Line[];
    const ran = lines.filter(({ skipped }) => skipped === undefined);
    for (const { counts, engine, faults, violations } of ran) {
      expect(violations, engine).toEqual([]);
      // A run in which nothing happened would prove nothing.
      for (const count of ["fileGrants", "setGrants", "increments", "additions"])
        expect(counts[count], `${engine}: ${count}`).toBeGreaterThan(0);
      expect(
        Object.values(faults).reduce((sum, count) => sum + count, 0),
        `${engine}: faults`,
      ).toBeGreaterThan(2);
    }
    // 2: none of the servers is installed here.
    expect(status).toBe(ran.length > 0 ? 0 : 2);
    const [engine] = ran;
    if (engine === undefined) return;
    const planted = workloads("--planted", "everybody-is-first", "--engines", engine.engine, "--seconds", "4");
    expect(planted.said).toContain("1 of 1 planted bugs were caught");
    expect(planted.status).toBe(0);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}, 600_000);
