// biome-ignore-all lint/suspicious/noThenProperty: the `then` of a txn is a list, never called.
/**
 * Prints what the machine costs; asserts only what would be absurd. Sketch, for one put of 256 bytes over a 20-byte key:
 * decode 0.3 us (a string, a view), tree 0.5 us (four levels of five compares), copy 0.2 us, entry, event and history
 * about 400 bytes that live for 10,000 revisions, so the collector takes as much again.
 */
import { expect, test } from "vitest";
import { ByteReader } from "../base/byte-codec.ts";
import { BatchReader, encodeBatch } from "./batch.ts";
import { embeddedLimits } from "./caps.ts";
import { encodeCommand, readCommand } from "./command.ts";
import { Machine } from "./machine.ts";
import { resolveTxn } from "./resolve.ts";

const keyCount = 10_000;
const rounds = 5;

test("a million overwrites of ten thousand keys: time per txn, and memory that stays flat", () => {
  const value = new Uint8Array(256).fill(65);
  const keys = Array.from({ length: keyCount }, (_, at) => `key ${String((at * 7_919) % keyCount).padStart(14, "0")}`);
  const txns = keys.map((key) => resolveTxn("n", { then: [{ kind: "put", key, value }] }, embeddedLimits));
  const commands = txns.map((txn) => encodeCommand(txn));
  const batches = Array.from({ length: keyCount / 100 }, (_, at) => encodeBatch(commands.slice(at * 100, at * 100 + 100)));
  const machine = new Machine();
  let index = 0;

  const figures: string[] = [];
  const memory: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const encode = perTxn(() => {
      for (const txn of txns) encodeCommand(txn);
    }, keyCount);
    const decode = perTxn(() => {
      for (const payload of batches) {
        const batch = new BatchReader(payload);
        const reader = new ByteReader(payload);
        while (batch.next()) {
          reader.reset(payload, batch.from, batch.to);
          readCommand(reader);
        }
      }
    }, keyCount);
    const both = perTxn(() => {
      for (let again = 0; again < 20; again++) {
        for (const payload of batches) machine.applyBatch({ index: ++index, stampMs: index, payload });
      }
    }, keyCount * 20);
    // Buffers outside the heap are what a forgotten copy would keep.
    const { arrayBuffers, rss } = process.memoryUsage();
    memory.push(arrayBuffers);
    figures.push(
      `encode ${encode} us, decode ${decode} us, decode and apply ${both} us, buffers ${mb(arrayBuffers)}, rss ${mb(rss)}`,
    );
  }
  console.log(figures.join("\n"));
  expect(machine.revision).toBe(keyCount * 20 * rounds);
  expect(machine.entryCount).toBe(keyCount);
  // What is kept is 10,000 values and as many of the history: 5 MB. Everything else is garbage not yet collected.
  expect(Math.min(...memory.slice(1))).toBeLessThan(200_000_000);
});

function perTxn(act: () => void, count: number): string {
  const before = performance.now();
  act();
  return (((performance.now() - before) * 1_000) / count).toFixed(2);
}

function mb(bytes: number): string {
  return `${Math.round(bytes / 1e6)} MB`;
}
