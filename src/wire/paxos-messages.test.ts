/**
 * Multi-Paxos' letters: what is written is read back, and whatever bytes come are a letter or PROTOCOL, never a crash.
 */
import fc from "fast-check";
import { expect, test } from "vitest";
import { ByteWriter } from "../base/byte-codec.ts";
import { hasCode } from "../base/errors.ts";
import type { LogEntry } from "../consensus/core.ts";
import type { PaxosMessage } from "../consensus/paxos/messages.ts";
import { Paxos } from "../consensus/paxos/paxos.ts";
import { decodePaxosMessage, encodePaxosMessage } from "./paxos-messages.ts";
import { decodeRaftMessage } from "./raft-messages.ts";

const number = fc.oneof(fc.nat(40), fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }));
const kind = fc.constantFrom("noop" as const, "batch" as const, "configuration" as const);
const value = {
  term: number,
  kind,
  stampMs: fc.double({ min: 0, max: 1e12, noNaN: true }),
  payload: fc.uint8Array({ maxLength: 20 }),
};
const entry: fc.Arbitrary<LogEntry> = fc.record({ ...value, index: number, ballot: number });
const entries = fc.array(entry, { maxLength: 4 });

const accept = fc
  .record({
    ballot: number,
    chosen: number,
    first: fc.nat(1_000),
    values: fc.array(fc.record(value), { minLength: 1, maxLength: 4 }),
  })
  .map(({ ballot, chosen, first, values }) => ({
    kind: "accept" as const,
    ballot,
    chosen,
    entries: values.map((each, at) => ({ ...each, index: first + at, ballot })),
  }));

const message: fc.Arbitrary<PaxosMessage> = fc.oneof(
  fc.record({ kind: fc.constant("prepare" as const), ballot: number, dryRun: fc.boolean(), from: number }),
  fc.record({
    kind: fc.constant("promise" as const),
    ballot: number,
    dryRun: fc.boolean(),
    from: number,
    next: number,
    chosen: number,
    entries,
  }),
  fc.record({ kind: fc.constant("nack" as const), promised: number, behind: fc.boolean() }),
  accept,
  fc.record({ kind: fc.constant("accepted" as const), ballot: number, first: number, last: number, upTo: number }),
  fc.record({ kind: fc.constant("heartbeat" as const), ballot: number, round: number, chosen: number, sent: number }),
  fc.record({
    kind: fc.constant("heartbeat-reply" as const),
    ballot: number,
    round: number,
    chosen: number,
    missing: number,
    upTo: number,
  }),
  fc.record({ kind: fc.constant("ask" as const), from: number }),
  fc.record({ kind: fc.constant("learn" as const), chosen: number, entries }),
  fc.record({
    kind: fc.constant("snapshot" as const),
    index: number,
    term: number,
    offset: number,
    bytes: fc.uint8Array({ maxLength: 20 }),
    done: fc.boolean(),
  }),
  fc.record({ kind: fc.constant("snapshot-ask" as const), index: number, offset: number }),
);

function encode(letter: PaxosMessage): Uint8Array {
  const writer = new ByteWriter();
  encodePaxosMessage(writer, letter);
  return writer.finish();
}

/** The letter, or undefined where it was refused as it should be. */
function decodeAny(frame: Uint8Array): PaxosMessage | undefined {
  try {
    return decodePaxosMessage(frame);
  } catch (error) {
    if (hasCode(error, "PROTOCOL")) return undefined;
    throw error;
  }
}

test("every letter is read back as it was written, and fields of a later version behind it are skipped", () => {
  fc.assert(
    fc.property(message, fc.uint8Array({ maxLength: 5 }), (letter, later) => {
      const frame = encode(letter);
      expect(decodePaxosMessage(frame)).toEqual(letter);
      expect(decodePaxosMessage(Uint8Array.of(...frame, ...later))).toEqual(letter);
    }),
  );
});

test("a letter that strayed into another protocol is refused by its kind", () => {
  fc.assert(
    fc.property(message, (letter) => {
      expect(() => decodeRaftMessage(encode(letter))).toThrow(/unknown kind/);
    }),
  );
});

test("truncated, altered and invented bytes are a letter or PROTOCOL, never anything else", () => {
  const changes = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 });
  fc.assert(
    fc.property(message, changes, fc.nat(), fc.uint8Array({ maxLength: 60 }), (letter, altered, cut, noise) => {
      const frame = encode(letter);
      for (const [at, byte] of altered) frame[at % frame.length] = byte;
      decodeAny(frame);
      decodeAny(frame.subarray(0, cut % frame.length));
      decodeAny(noise);
    }),
    { numRuns: 2_000 },
  );
});

test("whatever letters come, in whatever order, a core takes them without a throw, and what it sends can be written", () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.constantFrom("b", "c", "x"), message), { maxLength: 30 }),
      fc.boolean(),
      (letters, leads) => {
        const core = new Paxos();
        const environment = {
          self: "a",
          configuration: { voters: ["a", "b", "c"], learners: [] },
          nowMs: 0,
          randomUint32: () => 7,
        };
        core.start(environment, { meta: new Map(), entries: [] });
        let nowMs = 0;
        if (leads) {
          nowMs = 1_000;
          core.step({ kind: "tick", nowMs });
          const promise = { kind: "promise", ballot: 3, from: 1, next: 0, chosen: 0, entries: [] } as const;
          core.step({ kind: "message", nowMs, from: "b", message: { ...promise, dryRun: true } });
          core.step({ kind: "persisted", nowMs, sequence: 2 });
          core.step({ kind: "message", nowMs, from: "b", message: { ...promise, dryRun: false } });
          expect(core.probe().role).toBe("leader");
        }
        for (const [from, letter] of letters) {
          nowMs += 150;
          const outputs = [
            ...core.step({ kind: "message", nowMs, from, message: letter }),
            ...core.step({ kind: "tick", nowMs }),
          ];
          for (const output of outputs) if (output.kind === "send") encode(output.message);
        }
      },
    ),
    { numRuns: 1_000 },
  );
});
