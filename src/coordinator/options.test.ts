import { expect, test } from "vitest";
import { type Caps, embeddedLimits } from "../store/caps.ts";
import { formatGid, isResourceName, parseGid } from "./gid.ts";
import { checkCaps, volatileWords } from "./options.ts";

const caps: Caps = {
  engine: "test",
  linearizable: "always",
  durability: "quorum",
  watch: "log",
  handOff: "server",
  clock: "",
  fair: true,
  crossNamespace: true,
  claims: true,
  olderReads: true,
  tokenSurvives: [],
  limits: embeddedLimits,
};

test("a store that may forget a decision is refused, and memory is taken only when asked for in words", () => {
  expect(() => checkCaps(caps, undefined)).not.toThrow();
  expect(() => checkCaps({ ...caps, durability: "local-fsync" }, undefined)).not.toThrow();
  expect(() => checkCaps({ ...caps, linearizable: "until-failover" }, undefined)).toThrow(/UNSUPPORTED|may have forgotten/);
  // No words help where others would believe what is lost.
  expect(() => checkCaps({ ...caps, linearizable: "until-failover" }, volatileWords)).toThrow(/may have forgotten/);
  expect(() => checkCaps({ ...caps, durability: "async-replica" }, volatileWords)).toThrow(/may lose an answered write/);
  expect(() => checkCaps({ ...caps, durability: "memory" }, undefined)).toThrow(/in memory only/);
  expect(() => checkCaps({ ...caps, durability: "memory" }, "yes")).toThrow(/in memory only/);
  expect(() => checkCaps({ ...caps, durability: "memory" }, volatileWords)).not.toThrow();
});

test("a transaction's name is read back as it was written, fits every database, and nothing else is taken for one", () => {
  const parts = {
    domain: "abc123",
    coordinator: "k2j4h5g6",
    epoch: 1_763_000_000_000_000,
    sequence: 2_821_109_907_455,
    agent: "warehouse123",
  };
  const gid = formatGid(parts);
  expect(gid.length).toBeLessThanOrEqual(60);
  expect(parseGid(gid)).toEqual(parts);
  expect(parseGid(formatGid({ ...parts, agent: undefined }))).toEqual({ ...parts, agent: undefined });
  for (const foreign of [
    "",
    "cv1",
    `${gid}/1`,
    gid.toUpperCase(),
    `x${gid}`,
    `${gid}.y`,
    "cv1.abc123.k2j4h5g6.a'b.1",
    "another-tm-0001",
  ]) {
    expect(parseGid(foreign), foreign).toBeNull();
  }
  expect(["orders", "o1"].every(isResourceName)).toBe(true);
  expect(["", "1a", "Orders", "a.b", "a'b", "abcdefghijklm"].some(isResourceName)).toBe(false);
});
