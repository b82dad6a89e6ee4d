import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { AssertionError } from "./assert.ts";
import { ByteReader, ByteWriter } from "./byte-codec.ts";
import { hasCode } from "./errors.ts";

const safeInteger = fc.oneof(fc.maxSafeNat(), fc.nat(300), fc.constantFrom(127, 128, 2 ** 31 - 1, 2 ** 31, 2 ** 32, 2 ** 53 - 1));
const field = fc.oneof(
  fc.record({ kind: fc.constant("u8" as const), value: fc.nat(255) }),
  fc.record({ kind: fc.constant("u32" as const), value: fc.nat(2 ** 32 - 1) }),
  fc.record({ kind: fc.constant("varint" as const), value: safeInteger }),
  fc.record({ kind: fc.constant("f64" as const), value: fc.double() }),
  fc.record({ kind: fc.constant("bytes" as const), value: fc.uint8Array({ maxLength: 400 }) }),
  fc.record({
    kind: fc.constant("binaryString" as const),
    value: fc.string({ maxLength: 40 }).map((text) => text.replace(/[^\0-\xff]/g, "\xff")),
  }),
  fc.record({ kind: fc.constant("utf8" as const), value: fc.string({ unit: "grapheme" }) }),
);

function write(writer: ByteWriter, { kind, value }: { kind: string; value: unknown }): void {
  (writer as unknown as Record<string, (value: unknown) => void>)[kind]?.(value);
}

function read(reader: ByteReader, kind: string): unknown {
  return (reader as unknown as Record<string, () => unknown>)[kind]?.();
}

describe("the byte codec", () => {
  test("reads back every field it wrote, from one writer that is used again", () => {
    const writer = new ByteWriter({ initialBytes: 1 });
    fc.assert(
      fc.property(fc.array(field), (fields) => {
        for (const each of fields) write(writer, each);
        const reader = new ByteReader(writer.finish());
        for (const each of fields) expect(read(reader, each.kind)).toEqual(each.value);
        reader.end();
      }),
    );
  });

  test("refuses every input that is cut short with PROTOCOL", () => {
    const writer = new ByteWriter();
    fc.assert(
      fc.property(field, fc.nat(), (each, cut) => {
        write(writer, each);
        const bytes = writer.finish();
        const reader = new ByteReader(bytes.subarray(0, cut % bytes.length));
        expect(codeOf(() => read(reader, each.kind))).toBe("PROTOCOL");
      }),
    );
  });

  test("refuses numbers above 2^53 - 1 and lists that the input cannot hold", () => {
    const reader = new ByteReader(new Uint8Array([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]));
    expect(codeOf(() => reader.varint())).toBe("PROTOCOL");
    expect(codeOf(() => new ByteReader(new Uint8Array([0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10])).varint())).toBe(
      "PROTOCOL",
    );
    expect(codeOf(() => new ByteReader(new Uint8Array([200, 1, 0, 0])).count())).toBe("PROTOCOL");
    expect(codeOf(() => new ByteReader(new Uint8Array([2, 0, 0])).count(2))).toBe("PROTOCOL");
    expect(new ByteReader(new Uint8Array([2, 0, 0])).count()).toBe(2);
    expect(codeOf(() => new ByteReader(new Uint8Array(1)).end())).toBe("PROTOCOL");
  });

  test("stops a caller who writes what a field cannot hold", () => {
    const writer = new ByteWriter();
    for (const value of [-1, 0.5, 2 ** 53, Number.NaN]) expect(() => writer.varint(value)).toThrow(AssertionError);
    expect(() => writer.binaryString("\u0100")).toThrow(AssertionError);
  });

  test("hands out copies that the next message does not touch, and lets go of a buffer that has grown too large", () => {
    const writer = new ByteWriter({ initialBytes: 4, retainedBytesMax: 100 });
    writer.u32(0);
    writer.raw(new Uint8Array(1_000).fill(1));
    writer.patchU32(0, 0xdeadbeef);
    const first = writer.finish();
    writer.u8(9);
    expect(writer.view()).toEqual(new Uint8Array([9]));
    expect(new ByteReader(first).u32()).toBe(0xdeadbeef);
    expect(first.length).toBe(1_004);
  });
});

function codeOf(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    return hasCode(error, "PROTOCOL") ? "PROTOCOL" : String(error);
  }
  return "none";
}

const texts = ["", "a", "m-1", "x".repeat(64), "x".repeat(65), "lock 🔒", "é", "\u007f", "\u0080"];
const lengths = [0, 1, 23, 24, 25, 64, 65, 300];

test("texts and bytes of every length come back, across the places where the writer changes its way", () => {
  const writer = new ByteWriter({ initialBytes: 1 });
  const arrays = lengths.map((length) => Uint8Array.from({ length }, (_, at) => (at * 31 + length) & 255));
  for (const text of texts) writer.utf8(text);
  for (const bytes of arrays) {
    writer.bytes(bytes);
    writer.bytes(bytes);
  }
  const reader = new ByteReader(writer.finish());
  for (const text of texts) expect(reader.utf8()).toBe(text);
  for (const bytes of arrays) {
    expect(reader.bytes()).toEqual(bytes);
    expect(reader.bytesCopied()).toEqual(bytes);
  }
  reader.end();
});

test("a text is written as its UTF-8, whatever its length", () => {
  for (const text of texts) {
    const writer = new ByteWriter();
    writer.utf8(text);
    const bytes = new TextEncoder().encode(text);
    expect(writer.finish()).toEqual(Uint8Array.of(bytes.length, ...bytes));
  }
});

test("copied bytes outlive their input, and a length beyond the input is refused", () => {
  const input = Uint8Array.of(2, 7, 8, 5, 1);
  const reader = new ByteReader(input);
  const copy = reader.bytesCopied();
  input.fill(0);
  expect(copy).toEqual(Uint8Array.of(7, 8));
  input[3] = 5;
  expect(() => reader.bytesCopied()).toThrow(expect.objectContaining({ code: "PROTOCOL" }));
});

test("what is copied out of a Buffer is a plain array of its own, whatever its length", () => {
  for (const length of [3, 64, 65, 512, 513, 5_000]) {
    const writer = new ByteWriter();
    writer.bytes(new Uint8Array(length).fill(7));
    const letter = Buffer.from(writer.finish());
    const copy = new ByteReader(letter).bytesCopied();
    letter.fill(0);
    expect(copy).toEqual(new Uint8Array(length).fill(7));
    expect(copy.constructor).toBe(Uint8Array);
  }
});
