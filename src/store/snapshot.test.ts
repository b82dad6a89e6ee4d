// biome-ignore-all lint/suspicious/noThenProperty: the `then` of a txn is a list, never called.
import { describe, expect, test } from "vitest";
import { hasCode } from "../base/errors.ts";
import { encodeBatch } from "./batch.ts";
import { embeddedLimits } from "./caps.ts";
import { type Command, encodeCommand } from "./command.ts";
import { checkHash } from "./digest.ts";
import { everyKey } from "./key.ts";
import { Machine } from "./machine.ts";
import { resolveTxn } from "./resolve.ts";
import type { Op } from "./store.ts";

const startRevision = 1_700_000_000_000_000;

function filled(): Machine {
  const machine = new Machine();
  apply(machine, { kind: "initialise", revision: startRevision }, { kind: "open-session", ttlMs: 7_000 });
  const session = String(startRevision + 1);
  for (let at = 0; at < 3_000; at++) {
    const value = new Uint8Array(at % 200).fill(at);
    const op: Op = { kind: "put", key: `key ${at}`, value, returnPrevious: true, ...(at % 50 === 0 ? { session } : {}) };
    const claim = { session, sequence: at, lowestOpen: Math.max(0, at - 500) };
    apply(machine, resolveTxn("n", { then: [op], ...(at % 2 === 0 ? { claim } : {}) }, embeddedLimits));
  }
  return machine;
}

function apply(machine: Machine, ...commands: Command[]): void {
  const index = machine.appliedIndex + 1;
  machine.applyBatch({ index, stampMs: index * 3.5, payload: encodeBatch(commands.map(encodeCommand)) });
}

describe("a snapshot", () => {
  test("restores to the same state, however its bytes are cut", () => {
    const machine = filled();
    const chunks = [...machine.snapshot()];
    expect(chunks.length).toBeGreaterThan(5);
    expect(Math.max(...chunks.map((chunk) => chunk.length))).toBeLessThan(70_000);
    const bytes = Buffer.concat(chunks);
    for (const chunkBytes of [1, 7, 65_536, bytes.length]) {
      const pieces = Array.from({ length: Math.ceil(bytes.length / chunkBytes) }, (_, at) =>
        bytes.subarray(at * chunkBytes, (at + 1) * chunkBytes),
      );
      const restored = Machine.restore(pieces, { appliedIndex: 42 });
      expect(restored.digest()).toBe(machine.digest());
      expect([...restored.sessions()]).toEqual([...machine.sessions()]);
      expect([restored.revision, restored.appliedIndex, restored.elapsedMs, restored.isInitialised]).toEqual([
        machine.revision,
        42,
        machine.elapsedMs,
        true,
      ]);
      expect(Buffer.concat([...restored.snapshot()]).equals(bytes)).toBe(true);
    }
  });

  test("shows the moment of its making while the machine goes on, claims included", () => {
    const machine = filled();
    const before = machine.digest();
    const snapshot = machine.snapshot();
    const drain = snapshot.chunks();
    const chunks = [drain.next().value as Uint8Array];
    const session = String(startRevision + 1);
    for (let round = 0; round < 5; round++) {
      const claim = { session, sequence: 3_000 + round, lowestOpen: 2_990 };
      apply(machine, resolveTxn("n", { then: [{ kind: "delete", range: { prefix: `key ${round}` } }], claim }, embeddedLimits));
      const next = drain.next();
      if (next.done !== true) chunks.push(next.value);
    }
    apply(machine, { kind: "close-session", session: Number(session) });
    chunks.push(...drain);
    expect(Machine.restore(chunks, { appliedIndex: 1 }).digest()).toBe(before);
    expect(machine.digest()).not.toBe(before);
    expect(Machine.restore(snapshot, { appliedIndex: 1 }).digest()).toBe(before);
  });

  test("with any byte changed, cut off, doubled or out of order is SNAPSHOT_CORRUPT and never a wrong state", () => {
    const machine = filled();
    const chunks = [...machine.snapshot()];
    const bytes = Buffer.concat(chunks);
    const restored = (pieces: Iterable<Uint8Array>): string => {
      try {
        return Machine.restore(pieces, { appliedIndex: 1 }).digest();
      } catch (error) {
        return hasCode(error, "SNAPSHOT_CORRUPT") ? "corrupt" : String(error);
      }
    };
    expect(restored([bytes])).toBe(machine.digest());
    for (let at = 0; at < bytes.length; at += at < 60 ? 1 : 4_001) {
      const damaged = Buffer.from(bytes);
      damaged[at] = (damaged[at] as number) ^ (1 << (at % 8));
      expect(restored([damaged]), `byte ${at}`).toBe("corrupt");
      expect(restored([bytes.subarray(0, at)]), `cut at ${at}`).toBe("corrupt");
    }
    expect(restored([])).toBe("corrupt");
    for (let at = 0; at < chunks.length; at++) {
      expect(restored(chunks.toSpliced(at, 1)), `without chunk ${at}`).toBe("corrupt");
      expect(restored(chunks.toSpliced(at, 0, chunks[at] as Uint8Array)), `chunk ${at} twice`).toBe("corrupt");
    }
    expect(restored(chunks.toReversed())).toBe("corrupt");
  });

  test("of a newer format says so instead of calling itself damaged", () => {
    const [head] = [...new Machine().snapshot()] as [Uint8Array];
    expect(head[13]).toBe(1);
    expect(() => Machine.restore([resealed(head.with(13, 2))], { appliedIndex: 1 })).toThrow(
      expect.objectContaining({ code: "DIRECTORY_NEWER" }),
    );
  });

  test("restored as new lets the next initialise raise the revision, once, and never lowers it", () => {
    const machine = filled();
    const restored = Machine.restore(machine.snapshot(), { appliedIndex: 1, asNew: true });
    apply(restored, { kind: "initialise", revision: 5 });
    expect(restored.revision).toBe(machine.revision);
    const again = Machine.restore(machine.snapshot(), { appliedIndex: 1, asNew: true });
    apply(again, { kind: "initialise", revision: startRevision * 2 }, { kind: "initialise", revision: startRevision * 3 });
    expect(again.revision).toBe(startRevision * 2);
    expect(again.entriesIn(everyKey).entries.length).toBe(3_000);
    expect(again.oldestRevision).toBe(startRevision * 2);
  });
});

/** The section with the right hash for what it now holds. */
function resealed(section: Uint8Array): Uint8Array {
  const sealed = Uint8Array.from(section);
  new DataView(sealed.buffer).setUint32(4, checkHash(sealed.subarray(8)), true);
  return sealed;
}
