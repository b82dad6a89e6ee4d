import { expect, test } from "vitest";
import { epochPrefix, formatGid, gidOf, parseGid } from "./gid.ts";

const parts = { domain: "abc123", coordinator: "k2j4h6g8", epoch: 1_790_000_000_123_456 };

test.each([
  [1, undefined],
  [36 ** 5 + 7, undefined],
  [12, "orders"],
])("a name behind its epoch's prefix is the whole name: %s %s", (sequence, agent) => {
  const gid = gidOf(epochPrefix(parts), sequence, agent);
  expect(gid).toBe(formatGid({ ...parts, sequence, agent }));
  expect(parseGid(gid)).toEqual({ ...parts, sequence, agent });
});

test("a number beyond eight letters is refused", () => {
  expect(() => gidOf(epochPrefix(parts), 36 ** 8, undefined)).toThrow(/eight letters/);
});
