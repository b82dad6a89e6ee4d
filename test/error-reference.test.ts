/**
 * The page of errors says what the table says.
 */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { errorTable } from "../src/base/error-table.ts";

test("docs/reference/errors.md has each row of the error table, and no other (npm run fix rewrites it)", () => {
  const page = readFileSync(new URL("../docs/reference/errors.md", import.meta.url), "utf8");
  const rows = [...page.matchAll(/^\| `([A-Z_]+)` \| (\w+) \| (no|it may have) \| (yes|no) \| (.+) \|$/gm)].map((match) =>
    match.slice(1),
  );
  const expected = Object.entries(errorTable).map(([code, row]) => [
    code,
    row.class,
    row.definite ? "no" : "it may have",
    row.retryable ? "yes" : "no",
    row.remedy,
  ]);
  expect(rows).toEqual(expected);
});
