import fc from "fast-check";
import { expect, test } from "vitest";
import { ByteWriter } from "../../base/byte-codec.ts";
import { hasCode } from "../../base/errors.ts";
import { decodeRaftMessage, encodeRaftMessage } from "../../wire/raft-messages.ts";
import { isLawful } from "./lawful.ts";
import type { RaftMessage } from "./messages.ts";
import { Bench, entriesOf } from "./raft-bench.ts";

const append = (entries = entriesOf([1, 1, 2])): RaftMessage => ({
  kind: "append",
  term: 2,
  previousIndex: 0,
  previousTerm: 0,
  commitIndex: 0,
  entries,
});

function bytesOf(message: RaftMessage): Uint8Array {
  const writer = new ByteWriter();
  encodeRaftMessage(writer, message);
  return writer.finish();
}

test("entries with a gap, with falling terms or of a term to come are no letter", () => {
  const [first, second, third] = entriesOf([1, 1, 2]) as [never, never, never];
  expect(isLawful(append())).toBe(true);
  expect(isLawful(append([first, third]))).toBe(false);
  expect(isLawful(append(entriesOf([2, 1])))).toBe(false);
  expect(isLawful(append(entriesOf([1, 3])))).toBe(false);
  expect(isLawful({ ...(append([second]) as object), previousIndex: 0 } as RaftMessage)).toBe(false);
  expect(() => decodeRaftMessage(bytesOf(append([first, third])))).toThrow(/no member sends/);
});

test("a configuration entry that cannot be read is refused on arrival", () => {
  const [entry] = entriesOf([1]) as [never];
  const broken = { ...(entry as object), kind: "configuration", payload: Uint8Array.of(99) } as never;
  expect(() => decodeRaftMessage(bytesOf(append([broken])))).toThrow(/format 99/);
});

test("any bytes are a letter or PROTOCOL, and no letter stops a leader, a follower or a candidate", () => {
  const lawful = bytesOf(append());
  const frames = fc.oneof(
    fc.uint8Array({ maxLength: 60 }),
    // A letter with some bytes changed, cut short.
    fc
      .tuple(fc.array(fc.tuple(fc.nat(lawful.length - 1), fc.nat(255)), { maxLength: 4 }), fc.nat(lawful.length))
      .map(([changes, length]) => {
        const bytes = lawful.slice();
        for (const [at, value] of changes) bytes[at] = value;
        return bytes.subarray(0, length);
      }),
    // Of the leader's own term most of the time, so that it is looked at.
    fc
      .record({
        kind: fc.nat(8),
        term: fc.constantFrom(2, 2, 2, 3),
        numbers: fc.array(fc.nat(6), { minLength: 4, maxLength: 8 }),
      })
      .map(({ kind, term, numbers }) => Uint8Array.of(kind, term, ...numbers)),
  );
  fc.assert(
    fc.property(
      fc.array(frames, { maxLength: 30 }),
      fc.constantFrom("leader", "leader", "follower", "candidate"),
      (letters, role) => {
        const bench = new Bench([1, 1]);
        if (role === "leader") bench.lead();
        if (role === "candidate") bench.wait(250);
        for (const [at, frame] of letters.entries()) {
          let message: RaftMessage;
          try {
            message = decodeRaftMessage(frame);
          } catch (error) {
            expect(hasCode(error, "PROTOCOL")).toBe(true);
            continue;
          }
          // A stranger's, half of the time; a peer's word about what is committed is trusted, and so is its leading our term.
          const trusted = message.kind === "append" || message.kind === "heartbeat" || message.kind === "snapshot";
          bench.hear(
            trusted ? "z" : (["b", "z"][at % 2] as string),
            trusted ? ({ ...message, commitIndex: 0 } as RaftMessage) : message,
          );
        }
      },
    ),
    { numRuns: 4_000 },
  );
});
