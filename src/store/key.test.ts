import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { toBinaryString, utf8Encode } from "../base/bytes.ts";
import { ConclaveError } from "../base/errors.ts";
import { embeddedLimits } from "./caps.ts";
import {
  everyKey,
  isInRange,
  isRangeOfKey,
  namespaceOf,
  namespacePrefix,
  prefixSuccessor,
  rangeOfKey,
  stripNamespace,
  wholeKey,
  wholeRange,
} from "./key.ts";

const limits = embeddedLimits;
const namespace = fc.string({ unit: "grapheme", maxLength: 6 }).filter((text) => !text.includes("\0"));
const bytes = fc.uint8Array({ maxLength: 4 }).map((key) => key.map((byte) => (byte > 200 ? 0xff : byte & 3)));
const key = bytes.filter((each) => each.length > 0);

describe("keys", () => {
  test("keep the order of their bytes", () => {
    fc.assert(
      fc.property(key, key, (left, right) => {
        const order = Math.sign(compare(left, right));
        expect(Math.sign(compareText(wholeKey("n\0", left, limits), wholeKey("n\0", right, limits)))).toBe(order);
      }),
    );
  });

  test("never meet across namespaces, and give their namespace back", () => {
    fc.assert(
      fc.property(namespace, namespace, key, key, (one, other, mine, theirs) => {
        const whole = wholeKey(namespacePrefix(one), mine, limits);
        expect(namespaceOf(whole)).toBe(toBinaryString(utf8Encode(one)));
        expect(stripNamespace(whole)).toBe(toBinaryString(mine));
        expect(isInRange(everyKey, whole)).toBe(true);
        if (one === other) return;
        expect(whole).not.toBe(wholeKey(namespacePrefix(other), theirs, limits));
        for (const range of [{ prefix: "" }, { from: "" }, { from: theirs }, { prefix: theirs }]) {
          expect(isInRange(wholeRange(namespacePrefix(other), range, limits), whole)).toBe(false);
        }
      }),
    );
  });

  test("lie in a range exactly when its words say so, 0xFF included", () => {
    fc.assert(
      fc.property(key, bytes, bytes, (each, bound, end) => {
        const whole = wholeKey("n\0", each, limits);
        const startsAlike = compare(each.subarray(0, bound.length), bound) === 0 && each.length >= bound.length;
        expect(isInRange(wholeRange("n\0", { prefix: bound }, limits), whole)).toBe(startsAlike);
        expect(isInRange(wholeRange("n\0", { from: bound }, limits), whole)).toBe(compare(each, bound) >= 0);
        const between = compare(each, bound) >= 0 && compare(each, end) < 0;
        expect(isInRange(wholeRange("n\0", { from: bound, to: end }, limits), whole)).toBe(between);
        if (bound.length > 0) {
          const range = wholeRange("n\0", { key: bound }, limits);
          expect(isRangeOfKey(range)).toBe(true);
          expect(isInRange(range, whole)).toBe(compare(each, bound) === 0);
        }
      }),
    );
  });

  test("have a prefix successor that steps over 0xFF", () => {
    expect(prefixSuccessor("a")).toBe("b");
    expect(prefixSuccessor("a\xff\xff")).toBe("b");
    expect(prefixSuccessor("n\0\xff")).toBe("n\x01");
    expect(rangeOfKey("a\xff")).toEqual({ from: "a\xff", to: "a\xff\0" });
  });

  test.each([
    ["KEY_INVALID", () => wholeKey("n\0", "", limits)],
    ["KEY_INVALID", () => wholeKey("n\0", new Uint8Array(0), limits)],
    ["KEY_INVALID", () => wholeKey("n\0", "\ud800", limits)],
    ["KEY_INVALID", () => wholeKey("n\0", 7 as never, limits)],
    ["KEY_TOO_LARGE", () => wholeKey("n\0", "é".repeat(2_048), limits)],
    ["KEY_TOO_LARGE", () => wholeRange("n\0", { from: "a", to: "b".repeat(4_095) }, limits)],
    ["INVALID_OPTION", () => wholeRange("n\0", {} as never, limits)],
    ["INVALID_OPTION", () => namespacePrefix("a\0b")],
    ["INVALID_OPTION", () => namespacePrefix("\udc00")],
    ["INVALID_OPTION", () => namespacePrefix(undefined as never)],
  ])("are refused with %s where they cannot be (%#)", (code, act) => {
    expect(act).toThrow(ConclaveError);
    expect(act).toThrow(expect.objectContaining({ code }));
  });

  test("may be exactly as large as the limit", () => {
    expect(wholeKey("n\0", "k".repeat(4_094), limits).length).toBe(4_096);
  });
});

function compare(left: Uint8Array, right: Uint8Array): number {
  return Buffer.compare(left, right);
}

function compareText(left: string, right: string): number {
  return left < right ? -1 : left > right ? 1 : 0;
}
