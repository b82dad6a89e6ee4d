// `npm test`: every test, on the built output where processes are spawned. Arguments go to vitest.
// The last line is plain ("N passed, N failed, N skipped"), so that any CI can read it.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
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
const result = spawnSync(process.execPath, args, { stdio: ["ignore", "inherit", "inherit"] });
let counted;
try {
  counted = JSON.parse(readFileSync(report, "utf8"));
} catch {
  console.error("The test run left no report.");
  process.exit(result.status || 1);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
const skipped = counted.numPendingTests + counted.numTodoTests;
console.log(`${counted.numPassedTests} passed, ${counted.numFailedTests} failed, ${skipped} skipped`);
// A file that cannot be loaded fails without a failed test.
process.exit(result.status || (counted.success && counted.numPassedTests > 0 ? 0 : 1));
