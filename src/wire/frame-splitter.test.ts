import fc from "fast-check";
import { expect, test } from "vitest";
import { concatBytes } from "../base/bytes.ts";
import { FrameSplitter, frameHeaderBytes, writeFrameHeader } from "./frame-splitter.ts";

function framed(...payloads: readonly Uint8Array[]): Uint8Array {
  return concatBytes(
    payloads.map((payload) => {
      const header = new Uint8Array(frameHeaderBytes);
      writeFrameHeader(header, 0, payload.length);
      return concatBytes([header, payload]);
    }),
  );
}

function split(chunks: readonly Uint8Array[], options = {}): Uint8Array[] {
  const splitter = new FrameSplitter(options);
  const frames: Uint8Array[] = [];
  for (const chunk of chunks) splitter.push(chunk, (frame) => frames.push(frame.slice()));
  return frames;
}

const payloads = [Uint8Array.of(1, 2, 3), new Uint8Array(0), Uint8Array.of(4), new Uint8Array(300).fill(7)];

test("frames come out whole wherever the stream is cut in two", () => {
  const stream = framed(...payloads);
  for (let at = 0; at <= stream.length; at++) {
    expect(split([stream.subarray(0, at), stream.subarray(at)])).toEqual(payloads);
  }
});

test("frames come out whole when every byte arrives alone", () => {
  const stream = framed(...payloads);
  expect(split(Array.from(stream, (byte) => Uint8Array.of(byte)))).toEqual(payloads);
});

test("frames come out whole however the stream is cut", () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ maxLength: 50 })),
      fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1 }),
      (list, sizes) => {
        const stream = framed(...list);
        const chunks: Uint8Array[] = [];
        for (let at = 0, turn = 0; at < stream.length; turn++) {
          const size = sizes[turn % sizes.length] as number;
          chunks.push(stream.subarray(at, at + size));
          at += size;
        }
        expect(split(chunks)).toEqual(list);
      },
    ),
  );
});

test("a frame within one chunk is a view of it", () => {
  const stream = framed(Uint8Array.of(9, 9));
  new FrameSplitter().push(stream, (frame) => expect(frame.buffer).toBe(stream.buffer));
});

test("a frame above the maximum is PROTOCOL before it is read, and nothing follows it", () => {
  const splitter = new FrameSplitter({ frameBytesMax: 10 });
  const frames: Uint8Array[] = [];
  expect(() => splitter.push(framed(new Uint8Array(11)), (frame) => frames.push(frame))).toThrow(/claims 11 bytes/);
  splitter.push(framed(Uint8Array.of(1)), (frame) => frames.push(frame));
  expect(frames).toEqual([]);
});

test("an HTTP request is refused by its first four bytes", () => {
  const request = new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n");
  expect(() => split([request])).toThrow(/claims/);
});

test("a receiver that stops the splitter gets nothing more of the chunk", () => {
  const splitter = new FrameSplitter();
  const seen: number[] = [];
  splitter.push(framed(Uint8Array.of(1), Uint8Array.of(2)), (frame) => {
    seen.push(frame[0] as number);
    splitter.stop();
  });
  expect(seen).toEqual([1]);
});

test("a frame that was promised large and has not arrived takes little memory", () => {
  const splitter = new FrameSplitter();
  const header = new Uint8Array(frameHeaderBytes);
  writeFrameHeader(header, 0, 16_000_000);
  const before = process.memoryUsage().arrayBuffers;
  splitter.push(header, () => undefined);
  splitter.push(new Uint8Array(100), () => undefined);
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(1_000_000);
});
