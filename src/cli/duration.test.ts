import { expect, test } from "vitest";
import { hasCode } from "../base/errors.ts";
import { parseDuration } from "./duration.ts";

test("durations are read with their unit", () => {
  expect(["0s", "500ms", "10s", "1.5s", "2m", "1h"].map(parseDuration)).toEqual([0, 500, 10_000, 1_500, 120_000, 3_600_000]);
});

test("what is no duration is refused, a bare number too", () => {
  for (const text of ["", "10", "s", "-1s", "1 s", "1S", "1s2", "1e3s", "∞"]) {
    expect(
      codeOf(() => parseDuration(text)),
      text,
    ).toBe(true);
  }
});

function codeOf(act: () => unknown): boolean {
  try {
    act();
    return false;
  } catch (error) {
    return hasCode(error, "INVALID_OPTION");
  }
}
