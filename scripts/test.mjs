// `npm test`: every test, on the built output where processes are spawned. Arguments go to vitest.
// Then which engines ran and which were skipped. The last line is plain ("N passed, N failed, N skipped"), so that any CI can read it.
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const folder = mkdtempSync(join(tmpdir(), "conclave-test-"));
const report = join(folder, "report.json");
const args = [
  "node_modules/vitest/vitest.mjs",
  "run",
  "--reporter=default",
  "--reporter=json",
  `--outputFile.json=${report}`,
  ...process.argv.slice(2),
];
const engineReport = join(folder, "engines.jsonl");
const env = { ...process.env, CONCLAVE_ENGINE_REPORT: engineReport };
const result = spawnSync(process.execPath, args, { stdio: ["ignore", "inherit", "inherit"], env });
const engines = existsSync(engineReport)
  ? readFileSync(engineReport, "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line))
  : [];
let counted;
try {
  counted = JSON.parse(readFileSync(report, "utf8"));
} catch {
  console.error("The test run left no report.");
  process.exit(result.status || 1);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
if (engines.length > 0) console.log(`\nReal servers in this run:\n${engineTable(engines)}\n`);
const skipped = counted.numPendingTests + counted.numTodoTests;
console.log(`${counted.numPassedTests} passed, ${counted.numFailedTests} failed, ${skipped} skipped`);
// A file that cannot be loaded fails without a failed test.
process.exit(result.status || (counted.success && counted.numPassedTests > 0 ? 0 : 1));

/** One line for each engine: what ran, or why not and how to get it. Each fixture notes itself (test/servers/engine-report.ts). */
function engineTable(notes) {
  const unique = [...new Map(notes.map((note) => [note.engine, note])).values()];
  unique.sort((left, right) => left.engine.localeCompare(right.engine));
  const width = Math.max(...unique.map(({ engine }) => engine.length));
  return unique
    .map(({ engine, version, skipped, getIt }) => {
      const outcome = skipped === undefined ? `ran      ${version ?? ""}` : `skipped  ${skipped}${getIt ? ` (${getIt})` : ""}`;
      return `  ${engine.padEnd(width)}  ${outcome}`;
    })
    .join("\n");
}
