import fc from "fast-check";
import { expect, test } from "vitest";
import { ByteWriter } from "../base/byte-codec.ts";
import { hasCode } from "../base/errors.ts";
import type { PbftMessage, Signed, Statement } from "../consensus/pbft/messages.ts";
import { encodeStatement } from "../consensus/pbft/statements.ts";
import { decodePbftMessage, encodePbftMessage } from "./pbft-messages.ts";

const digest = "\u00ff".repeat(32);

function sealed<S extends Statement>(statement: S): Signed<S> {
  return { statement, bytes: encodeStatement(statement), signature: new Uint8Array(64).fill(7) };
}

const frame = sealed({
  kind: "request",
  client: "tëller",
  lane: 2,
  timestamp: 2 ** 50,
  operations: [Uint8Array.of(1, 2), new Uint8Array()],
});
const proposal = sealed({ kind: "pre-prepare", replica: 0, view: 4, sequence: 9, digest });
const prepare = sealed({ kind: "prepare", replica: 2, view: 4, sequence: 9, digest });
const checkpoint = sealed({ kind: "checkpoint", replica: 1, sequence: 8, digest });
const viewChange = sealed({
  kind: "view-change",
  replica: 3,
  view: 5,
  stable: 8,
  checkpoints: [checkpoint],
  prepared: [{ proposal, prepares: [prepare, prepare] }],
});
const newView = sealed({ kind: "new-view", replica: 1, view: 5, viewChanges: [viewChange], proposals: [proposal] });
const reply = sealed({
  kind: "reply",
  replica: 1,
  view: 5,
  client: "tëller",
  lane: 2,
  timestamp: 7,
  results: [Uint8Array.of(9)],
});

const messages: readonly PbftMessage[] = [
  { kind: "request", frame },
  { kind: "pre-prepare", proposal, batch: [frame, frame] },
  { kind: "prepare", vote: prepare },
  { kind: "commit", vote: sealed({ kind: "commit", replica: 2, view: 4, sequence: 9, digest }) },
  { kind: "checkpoint", checkpoint },
  { kind: "stable", checkpoints: [checkpoint, checkpoint] },
  { kind: "view-change", viewChange },
  { kind: "new-view", newView },
  { kind: "status", view: 4, active: true, stable: 8, executed: 9 },
  { kind: "fetch-batch", sequence: 9, digest },
  { kind: "batch", sequence: 9, batch: [frame] },
  { kind: "fetch-parts", sequence: 8 },
  { kind: "parts", sequence: 8, digests: [digest, digest] },
  { kind: "fetch-part", sequence: 8, part: 3 },
  { kind: "part", sequence: 8, part: 3, bytes: Uint8Array.of(0) },
  { kind: "reply", reply },
];

function encode(message: PbftMessage): Uint8Array {
  const writer = new ByteWriter();
  encodePbftMessage(writer, message);
  return writer.finish();
}

function decodeOrRefuse(bytes: Uint8Array): PbftMessage | undefined {
  try {
    return decodePbftMessage(bytes);
  } catch (error) {
    // Anything else would stop the replica.
    if (!hasCode(error, "PROTOCOL")) throw error;
    return undefined;
  }
}

test("every letter comes back as it was, with the very bytes that were signed", () => {
  for (const message of messages) expect(decodePbftMessage(encode(message))).toEqual(message);
});

test("a letter that is cut, or has a tail, is refused", () => {
  for (const message of messages) {
    const bytes = encode(message);
    for (let cut = 0; cut < bytes.length; cut++)
      expect(decodeOrRefuse(bytes.subarray(0, cut)), `${message.kind} at ${cut}`).toBeUndefined();
    expect(decodeOrRefuse(Uint8Array.from([...bytes, 0]))).toBeUndefined();
  }
});

test("a letter with one byte changed is refused or says something; it never breaks the reader", () => {
  for (const message of messages) {
    const bytes = encode(message);
    for (let at = 0; at < bytes.length; at++) {
      for (const mask of [1, 0x80, 0xff]) {
        const changed = bytes.slice();
        changed[at] = (changed[at] as number) ^ mask;
        decodeOrRefuse(changed);
      }
    }
  }
});

test("any bytes are refused or read, within the memory that they justify", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => void decodeOrRefuse(bytes)),
    { numRuns: 3_000 },
  );
  // A list that claims 2^40 members in a dozen bytes.
  for (let kind = 0; kind < 16; kind++) {
    expect(decodeOrRefuse(Uint8Array.of(kind, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 1, 2, 3, 4, 5))).toBeUndefined();
  }
});
