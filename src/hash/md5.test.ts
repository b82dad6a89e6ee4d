import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { utf8Encode } from "../base/bytes.ts";
import { md5 } from "./md5.ts";

test("MD5 is that of RFC 1321 §A.5 and of Node, at every length around a block", () => {
  expect(hex(md5("message digest"))).toBe("f96b697d7cb7938d525a2f31aaf161d0");
  for (let length = 0; length < 200; length++) {
    const text = "é".repeat(length % 3) + "x".repeat(length);
    expect(hex(md5(text))).toBe(createHash("md5").update(utf8Encode(text)).digest("hex"));
  }
});

function hex(words: readonly number[]): string {
  const view = new DataView(new ArrayBuffer(16));
  for (const [index, word] of words.entries()) view.setUint32(index * 4, word, true);
  return [...new Uint8Array(view.buffer)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
