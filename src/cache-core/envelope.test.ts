/**
 * A value on its way through L2: what was sealed is what is opened, and anything else is nothing.
 */
import fc from "fast-check";
import { expect, test } from "vitest";
import { textCodec } from "../cache/text-codec.ts";
import { type Envelope, openEnvelope, sealEnvelope } from "./envelope.ts";

const time = fc.oneof(fc.nat({ max: 2 ** 45 }), fc.constant(Number.POSITIVE_INFINITY));
const envelopes: fc.Arbitrary<Envelope> = fc.record({
  epoch: fc.string({ unit: "grapheme" }),
  since: fc.nat({ max: Number.MAX_SAFE_INTEGER }),
  freshUntil: time,
  keepUntil: time,
  deltaMs: fc.nat(),
  etag: fc.option(fc.string({ unit: "grapheme" })),
  tags: fc.array(fc.string({ unit: "grapheme" })),
  value: fc.jsonValue(),
});
const keyHash = 7_000_000_000_001;

test("what was sealed is what is opened, whatever stands in epoch, etag, tags and value", () => {
  fc.assert(
    fc.property(envelopes, (envelope) => {
      // JSON has one zero.
      const value: unknown = JSON.parse(JSON.stringify(envelope.value));
      const text = sealEnvelope(textCodec, { keyHash, envelope: { ...envelope, value } });
      expect(openEnvelope(textCodec, { keyHash, text })).toEqual({ ...envelope, value });
      expect(openEnvelope(textCodec, { keyHash: keyHash + 1, text })).toBeUndefined();
    }),
  );
});

test("a text with one unit changed, cut off or added is none of ours", () => {
  fc.assert(
    fc.property(envelopes, fc.nat(), fc.integer({ min: 1, max: 127 }), (envelope, where, change) => {
      const text = sealEnvelope(textCodec, { keyHash, envelope });
      const at = where % text.length;
      const unit = String.fromCharCode(text.charCodeAt(at) ^ change);
      for (const other of [text.slice(0, at) + unit + text.slice(at + 1), text.slice(0, at), `${text}${unit}`]) {
        expect(openEnvelope(textCodec, { keyHash, text: other })).toBeUndefined();
      }
    }),
  );
});

test("a header that holds no numbers is refused although its checksum is right: NaN is above no floor", () => {
  const seal = (body: string): string => `c2 ${textCodec.checksum(body, keyHash % 2 ** 32)}\n${body}`;
  expect(openEnvelope(textCodec, { keyHash, text: seal('1 2 3 4 e\nj"v"') })?.value).toBe("v");
  for (const header of ["x 2 3 4 e", "1 2x 3 4 e", "1 2 -2 4 e", "1 2 3  e", "1 2 3 4", "", "1 2 3\n4 e"]) {
    expect(openEnvelope(textCodec, { keyHash, text: seal(`${header}\nj"v"`) }), header).toBeUndefined();
  }
});
