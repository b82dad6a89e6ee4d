/**
 * Every schedule of `test/schedules/` breaks nothing today, and still breaks the planted bug that it was made from, which
 * shows that it has not lost its point. A failing seed of the simulator joins them: `npm run sim -- --seed N --shrink FILE`.
 */
import { execFile } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { parseSchedule } from "../src/simulator/schedule.ts";

const run = promisify(execFile);
const folder = join(import.meta.dirname, "schedules");
const files = (await readdir(folder)).filter((file) => file.endsWith(".json"));

async function node(
  ...args: readonly string[]
): Promise<{ readonly stdout: string; readonly stderr: string; readonly code: number }> {
  try {
    return { ...(await run(process.execPath, args)), code: 0 };
  } catch (error) {
    return error as { readonly stdout: string; readonly stderr: string; readonly code: number };
  }
}

test.each(files)("%s breaks nothing in the code as it is", async (file) => {
  const { stdout, code } = await node("dist/simulator/main.js", "--replay", join(folder, file));
  expect(stdout).toContain("no violation");
  expect(code).toBe(0);
});

test.each(files)("%s breaks the bug that it was made from, within 30 events", { timeout: 60_000 }, async (file) => {
  const { found, events, protocol } = parseSchedule(await readFile(join(folder, file), "utf8"));
  expect(events.length).toBeLessThanOrEqual(30);
  const { stdout, code } = await node(
    "scripts/mutants.mjs",
    "--only",
    found?.mutant as string,
    "--protocol",
    protocol,
    "--replay",
    join(folder, file),
  );
  expect(stdout).toContain(`VIOLATION ${found?.invariant}`);
  expect(code).toBe(0);
});

test("a file that is no schedule, or of another version, is refused by name", async () => {
  const place = await mkdtemp(join(tmpdir(), "conclave-schedule-"));
  try {
    const path = join(place, "schedule.json");
    for (const [text, words] of [
      ["{}", 'not "conclave-schedule"'],
      ['{"format":"conclave-schedule","version":3}', "of version 3"],
      ['{"format":"conclave-schedule","version":1}', 'lacks "protocol"'],
      [
        '{"format":"conclave-schedule","version":1,"protocol":"raft","world":"stack","dice":1,"setup":{},"events":[],"healAtMs":1}',
        "do not go together",
      ],
      ["not even JSON", "JSON"],
    ] as const) {
      await writeFile(path, text);
      const { stderr, code } = await node("dist/simulator/main.js", "--replay", path);
      expect(stderr).toContain(words);
      expect(code).toBe(2);
    }
  } finally {
    await rm(place, { recursive: true, force: true });
  }
});
