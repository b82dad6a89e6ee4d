/**
 * Blocking only on a disk that is fast now.
 */
import { expect, test } from "vitest";
import { BlockingPolicy } from "./blocking-policy.ts";

test("nothing blocks before the disk was fast many times in a row", () => {
  const policy = new BlockingPolicy();
  for (let write = 0; write < 15; write++) policy.took(0.1, write);
  expect(policy.mayBlock(15)).toBe(false);
  policy.took(1.5, 15);
  for (let write = 0; write < 15; write++) policy.took(0.1, 16 + write);
  expect(policy.mayBlock(40)).toBe(false);
  policy.took(0.1, 40);
  expect(policy.mayBlock(41)).toBe(true);
});

test("one slow write ends blocking for a second, and trust is earned again", () => {
  const policy = new BlockingPolicy();
  for (let write = 0; write < 16; write++) policy.took(0.1, write);
  policy.took(50, 100);
  expect(policy.mayBlock(101)).toBe(false);
  for (let write = 0; write < 16; write++) policy.took(0.1, 200 + write);
  expect(policy.mayBlock(900)).toBe(false);
  expect(policy.mayBlock(1_101)).toBe(true);
});

test("a write that is neither fast nor slow changes nothing while blocking", () => {
  const policy = new BlockingPolicy();
  for (let write = 0; write < 16; write++) policy.took(0.1, write);
  policy.took(2, 50);
  expect(policy.mayBlock(51)).toBe(true);
});
