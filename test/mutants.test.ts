/**
 * The planted bugs as a product: every patch still applies to today's source, and the hunt tells a bug from sound code.
 * The whole table is `npm run mutants`, by hand: it takes minutes.
 */
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";

const run = promisify(execFile);

async function mutants(...args: readonly string[]): Promise<{ readonly stdout: string; readonly code: number }> {
  try {
    return { stdout: (await run(process.execPath, ["scripts/mutants.mjs", ...args])).stdout, code: 0 };
  } catch (error) {
    return error as { readonly stdout: string; readonly code: number };
  }
}

test("every planted bug's patch stands exactly once in the source", async () => {
  const { stdout, code } = await mutants("--check");
  expect(stdout).toContain("patches apply");
  expect(code).toBe(0);
});

test("a planted bug dies with the invariant, seed and steps named, and one that does not die fails the command", {
  timeout: 120_000,
}, async () => {
  const folder = await mkdtemp(join(tmpdir(), "conclave-mutants-"));
  try {
    const json = join(folder, "table.json");
    const { stdout, code } = await mutants("--only", "half of the voters are a quorum", "--json", json);
    expect(stdout).toContain("1 of 1 died");
    expect(code).toBe(0);
    const [row] = (JSON.parse(await readFile(json, "utf8")) as { rows: Record<string, unknown>[] }).rows;
    expect(row).toMatchObject({ invariant: expect.any(String), seed: expect.any(Number), steps: expect.any(Number) });
    // No time at all: nothing can be found, and the command has to say so.
    const hopeless = await mutants("--only", "half of the voters are a quorum", "--cpu-seconds", "0");
    expect(hopeless.stdout).toContain("SURVIVED");
    expect(hopeless.code).toBe(1);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
