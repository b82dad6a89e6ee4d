import { expect, test } from "vitest";
import { type DecisionRecord, encodeDecision } from "./records.ts";

const gid = "cv1.abc123.k2j4h6g8.hoo3u7udfe.2s";

test.each<readonly [string, DecisionRecord]>([
  [
    "a commit",
    {
      outcome: "commit",
      branches: [
        { gid, branch: 1, resource: "orders" },
        { gid, branch: 2, resource: "wallet", owner: "71" },
      ],
      atMs: 1_790_000_000_123,
    },
  ],
  ["an abort", { outcome: "abort", branches: [], atMs: 0, traceparent: undefined }],
  [
    "one with a trace of any text",
    { outcome: "commit", branches: [{ gid, branch: 1, resource: "a" }], atMs: 5, traceparent: '00-"\\\n\u2028-01' },
  ],
])("%s is written as JSON writes it", (_, record) => {
  expect(encodeDecision(record)).toBe(JSON.stringify(record));
});
