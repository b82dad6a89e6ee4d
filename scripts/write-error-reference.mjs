// Writes docs/reference/errors.md from the one table. Part of `npm run fix`; a test compares.
import { writeFileSync } from "node:fs";
import { errorTable } from "../dist/base/error-table.js";

writeFileSync("docs/reference/errors.md", errorReference(errorTable));

/** The page as text. */
export function errorReference(table) {
  const rows = Object.entries(table).map(
    ([code, row]) =>
      `| \`${code}\` | ${row.class} | ${row.definite ? "no" : "it may have"} | ${row.retryable ? "yes" : "no"} | ${row.remedy} |`,
  );
  return [
    "# Errors",
    "",
    "Every error is a `ConclaveError` with a `code`. Match on the code. `definite` says that it did not happen, for certain; `retryable`",
    "that the same call may simply be made again. A single error may be more certain than its row.",
    "",
    "| code | class | did it happen? | try again? | what to do |",
    "|---|---|---|---|---|",
    ...rows,
    "",
  ].join("\n");
}
