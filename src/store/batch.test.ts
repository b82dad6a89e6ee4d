import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BatchReader, encodeBatch } from "./batch.ts";
import { BatchWriter } from "./batch-writer.ts";

describe("a batch", () => {
  test("gives its commands back in order", () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 300 })), (commands) => {
        const payload = encodeBatch(commands);
        const writer = new BatchWriter();
        for (const command of commands) writer.add(command);
        expect(writer.finish()).toEqual(payload);
        const reader = new BatchReader(payload);
        expect(reader.count).toBe(commands.length);
        const read: Uint8Array[] = [];
        while (reader.next()) {
          expect(reader.position).toBe(read.length);
          read.push(reader.command());
        }
        expect(read).toEqual(commands);
        expect(reader.next()).toBe(false);
      }),
    );
  });

  test("that is cut short, has more than it says or another format throws", () => {
    const payload = encodeBatch([new Uint8Array([1, 2, 3]), new Uint8Array([4])]);
    const drain = (bytes: Uint8Array) => () => {
      const reader = new BatchReader(bytes);
      while (reader.next());
    };
    for (let length = 0; length < payload.length; length++) {
      expect(drain(payload.subarray(0, length))).toThrow(expect.objectContaining({ code: "PROTOCOL" }));
    }
    expect(drain(new Uint8Array([...payload, 0]))).toThrow(expect.objectContaining({ code: "PROTOCOL" }));
    expect(drain(payload.with(0, 2))).toThrow(expect.objectContaining({ code: "PROTOCOL" }));
  });
});
