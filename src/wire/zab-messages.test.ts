/**
 * Zab's letters: what is written is read back, and whatever bytes come are a letter or PROTOCOL, never a crash.
 */
import fc from "fast-check";
import { expect, test } from "vitest";
import { ByteWriter } from "../base/byte-codec.ts";
import { hasCode } from "../base/errors.ts";
import type { ZabMessage } from "../consensus/zab/messages.ts";
import { Zab } from "../consensus/zab/zab.ts";
import { decodeRaftMessage } from "./raft-messages.ts";
import { decodeZabMessage, encodeZabMessage } from "./zab-messages.ts";

const number = fc.oneof(fc.nat(6), fc.nat(40), fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }));
const u32 = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const member = fc.constantFrom("a", "b", "c", "x");
const value = fc.record({
  term: number,
  kind: fc.constantFrom("noop" as const, "batch" as const, "configuration" as const),
  stampMs: fc.double({ min: 0, max: 1e12, noNaN: true }),
  payload: fc.uint8Array({ maxLength: 20 }),
});

const proposal = fc
  .record({
    epoch: number,
    attempt: u32,
    previousIndex: fc.nat(40),
    previousTerm: number,
    committed: number,
    values: fc.array(value, { maxLength: 4 }),
  })
  .map(({ values, ...head }) => ({
    kind: "proposal" as const,
    ...head,
    entries: values.map((each, at) => ({ ...each, index: head.previousIndex + 1 + at })),
  }));

const message: fc.Arbitrary<ZabMessage> = fc.oneof(
  fc.record({
    kind: fc.constant("looking" as const),
    round: number,
    vote: fc.record({ leader: member, epoch: number, lastTerm: number, lastIndex: number }),
  }),
  fc.record({ kind: fc.constant("settled" as const), leader: member, epoch: number }),
  fc.record({ kind: fc.constant("follower-info" as const), acceptedEpoch: number }),
  fc.record({ kind: fc.constant("leader-info" as const), epoch: number, established: fc.boolean() }),
  fc.record({
    kind: fc.constant("ack-epoch" as const),
    epoch: number,
    attempt: u32,
    currentEpoch: number,
    lastTerm: number,
    lastIndex: number,
    committed: number,
    starts: fc.array(fc.record({ term: number, first: number }), { maxLength: 4 }),
  }),
  proposal,
  fc.record({ kind: fc.constant("ack" as const), epoch: number, index: number, missing: fc.boolean() }),
  fc.record({ kind: fc.constantFrom("new-leader" as const, "ack-leader" as const), epoch: number, index: number }),
  fc.record({ kind: fc.constant("ping" as const), epoch: number, round: number, committed: number, sent: number, acked: number }),
  fc.record({ kind: fc.constant("pong" as const), epoch: number, round: number, missing: fc.boolean() }),
  fc.record({
    kind: fc.constant("snapshot" as const),
    epoch: number,
    index: number,
    term: number,
    offset: number,
    bytes: fc.uint8Array({ maxLength: 20 }),
    done: fc.boolean(),
  }),
  fc.record({ kind: fc.constant("snapshot-ack" as const), epoch: number, index: number, offset: number }),
);

function encode(letter: ZabMessage): Uint8Array {
  const writer = new ByteWriter();
  encodeZabMessage(writer, letter);
  return writer.finish();
}

function decodeAny(frame: Uint8Array): void {
  try {
    decodeZabMessage(frame);
  } catch (error) {
    if (!hasCode(error, "PROTOCOL")) throw error;
  }
}

test("every letter is read back as it was written, and fields of a later version behind it are skipped", () => {
  fc.assert(
    fc.property(message, fc.uint8Array({ maxLength: 5 }), (letter, later) => {
      const frame = encode(letter);
      expect(decodeZabMessage(frame)).toEqual(letter);
      expect(decodeZabMessage(Uint8Array.of(...frame, ...later))).toEqual(letter);
      expect(() => decodeRaftMessage(frame)).toThrow(/unknown kind/);
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
      fc.array(fc.tuple(member, message), { maxLength: 30 }),
      fc.constantFrom("looks", "leads", "follows"),
      (letters, role) => {
        const core = new Zab();
        let nowMs = 0;
        let sequence = 0;
        const drive = (outputs: ReturnType<Zab["step"]>): void => {
          for (const output of outputs) {
            if (output.kind === "send") encode(output.message);
            if (output.kind === "persist") sequence = output.sequence;
          }
        };
        const hear = (from: string, letter: ZabMessage): void =>
          drive(core.step({ kind: "message", nowMs, from, message: letter }));
        const environment = {
          self: "b",
          configuration: { voters: ["a", "b", "c"], learners: [] },
          nowMs: 0,
          randomUint32: () => 7,
        };
        drive(core.start(environment, { meta: new Map(), entries: [] }));
        if (role === "leads") {
          const vote = { leader: "b", epoch: 0, lastTerm: 0, lastIndex: 0 };
          for (const from of ["a", "c"]) hear(from, { kind: "looking", round: 1, vote });
          hear("a", { kind: "follower-info", acceptedEpoch: 0 });
          drive(core.step({ kind: "persisted", nowMs, sequence }));
          const history = { currentEpoch: 0, lastTerm: 0, lastIndex: 0, committed: 0, starts: [] };
          hear("a", { kind: "ack-epoch", epoch: 1, attempt: 7, ...history });
          drive(core.step({ kind: "persisted", nowMs, sequence }));
          hear("a", { kind: "ack-leader", epoch: 1, index: 0 });
          expect(core.probe().role).toBe("leader");
        }
        if (role === "follows") {
          const vote = { leader: "c", epoch: 0, lastTerm: 0, lastIndex: 0 };
          for (const from of ["a", "c"]) hear(from, { kind: "looking", round: 1, vote });
          hear("c", { kind: "leader-info", epoch: 1, established: false });
          expect(core.probe().leader).toBe("c");
        }
        for (const [from, letter] of letters) {
          nowMs += 50;
          hear(from, letter);
          drive(core.step({ kind: "tick", nowMs }));
          drive(core.step({ kind: "persisted", nowMs, sequence }));
        }
      },
    ),
    { numRuns: 2_000 },
  );
});

test("letters that no member that follows the protocol writes are dropped: falling epochs, numbers without a next one", () => {
  const core = new Zab();
  const environment = {
    self: "b",
    configuration: { voters: ["a", "b", "c"], learners: [] },
    nowMs: 0,
    randomUint32: () => 7,
  };
  core.start(environment, { meta: new Map(), entries: [] });
  const hear = (message: ZabMessage): ReturnType<Zab["step"]> => core.step({ kind: "message", nowMs: 0, from: "c", message });
  hear({ kind: "looking", round: Number.MAX_SAFE_INTEGER, vote: { leader: "c", epoch: 0, lastTerm: 0, lastIndex: 0 } });
  const vote = { leader: "c", epoch: 0, lastTerm: 0, lastIndex: 0 };
  hear({ kind: "looking", round: 1, vote });
  core.step({ kind: "message", nowMs: 0, from: "a", message: { kind: "looking", round: 1, vote } });
  expect(core.probe().leader).toBe("c");
  hear({ kind: "leader-info", epoch: Number.MAX_SAFE_INTEGER, established: false });
  hear({ kind: "leader-info", epoch: 1, established: false });
  expect(core.probe().term).toBe(1);
  const entry = (index: number, term: number) =>
    ({ index, term, kind: "batch", stampMs: 0, payload: new Uint8Array(0) }) as const;
  const head = { kind: "proposal", epoch: 1, attempt: 7, previousIndex: 0, previousTerm: 0, committed: 0 } as const;
  hear({ ...head, entries: [entry(1, 1), entry(2, 0)] });
  hear({ ...head, entries: [entry(1, 2)] });
  expect(core.probe().lastIndex).toBe(0);
  hear({ ...head, entries: [entry(1, 1), entry(2, 1)] });
  expect(core.probe().lastIndex).toBe(2);
});
