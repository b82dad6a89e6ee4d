import fc from "fast-check";
import { expect, test } from "vitest";
import { concatBytes } from "../base/bytes.ts";
import { crc32 } from "../base/crc32.ts";
import { decodeOperations, decodeRecord, RecordBatch, recordBytesMax, type StoredOperation } from "./record.ts";
import { TermRuns } from "./term-runs.ts";

const owner = { group: 3, incarnation: 0xfedcba98 };
const expected = { ...owner, segment: 2, checksum: crc32 };
const makeBatch = (): RecordBatch => new RecordBatch(owner, { checksum: crc32, retainedBytesMax: 1000 });

const number = fc.oneof(fc.nat(200), fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }));
const payload = fc.oneof(
  fc.uint8Array({ maxLength: 40 }),
  fc.integer({ min: 8190, max: 8200 }).map((size) => new Uint8Array(size).fill(size)),
);
const operation: fc.Arbitrary<StoredOperation> = fc.oneof(
  fc.record({
    kind: fc.constant("put" as const),
    entry: fc.record({
      index: number,
      term: number,
      kind: fc.constantFrom("noop" as const, "batch" as const, "configuration" as const),
      stampMs: fc.double({ min: 0, noNaN: true }),
      payload,
    }),
  }),
  fc.record({
    kind: fc.constant("put" as const),
    entry: fc.record({
      index: number,
      term: number,
      ballot: number,
      kind: fc.constantFrom("noop" as const, "batch" as const, "configuration" as const),
      stampMs: fc.double({ min: 0, noNaN: true }),
      payload,
    }),
  }),
  fc.record({ kind: fc.constant("truncate" as const), from: number }),
  fc.record({ kind: fc.constant("snapshot" as const), index: number, term: number }),
  fc.record({ kind: fc.constant("meta" as const), values: fc.dictionary(fc.string(), fc.string({ unit: "binary" })) }),
);

test("every record of a batch is read back as it was written, within the announced size", () => {
  const batch = makeBatch();
  fc.assert(
    fc.property(fc.array(fc.array(operation, { maxLength: 5 }), { minLength: 1, maxLength: 5 }), (records) => {
      batch.clear();
      for (const [at, operations] of records.entries()) {
        const before = batch.lengthBytes;
        batch.append({ segment: 2, number: at + 7, syncedUpTo: 6 }, operations);
        expect(batch.lengthBytes - before).toBeLessThanOrEqual(recordBytesMax(operations));
      }
      const bytes = concatBytes(batch.buffers());
      expect(bytes.length).toBe(batch.lengthBytes);
      let offset = 0;
      for (const [at, operations] of records.entries()) {
        const record = decodeRecord(bytes, offset, expected);
        expect(record).toMatchObject({ number: at + 7, syncedUpTo: 6, version: 1 });
        if (record === undefined) return;
        expect(plain(decodeOperations(bytes, record))).toEqual(plain(operations));
        offset = record.nextOffset;
      }
      expect(offset).toBe(bytes.length);
    }),
  );
});

/** A dictionary without a prototype is still the same dictionary. */
function plain(operations: readonly StoredOperation[]): unknown {
  return operations.map((item) => (item.kind === "meta" ? { kind: item.kind, values: Object.entries(item.values) } : item));
}

test("a flipped bit anywhere in a record makes it none", () => {
  const batch = makeBatch();
  batch.append({ segment: 2, number: 9, syncedUpTo: 8 }, [{ kind: "meta", values: { vote: "b" } }]);
  const bytes = concatBytes(batch.buffers());
  const length = 40 + (decodeRecord(bytes, 0, expected)?.bodyBytes ?? 0);
  for (let bit = 0; bit < length * 8; bit++) {
    const damaged = bytes.slice();
    damaged[bit >> 3] = (damaged[bit >> 3] as number) ^ (1 << (bit & 7));
    expect(decodeRecord(damaged, 0, expected)).toBeUndefined();
  }
  for (let end = 0; end < length; end++) expect(decodeRecord(bytes.subarray(0, end), 0, expected)).toBeUndefined();
});

test("a record of another group, incarnation or segment is none", () => {
  const batch = makeBatch();
  batch.append({ segment: 2, number: 1, syncedUpTo: 0 }, []);
  const bytes = concatBytes(batch.buffers());
  expect(decodeRecord(bytes, 0, expected)).toBeDefined();
  for (const other of [{ group: 4 }, { incarnation: 1 }, { segment: 3 }]) {
    expect(decodeRecord(bytes, 0, { ...expected, ...other })).toBeUndefined();
  }
});

test("term runs answer as a list of entries would", () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant("put" as const), back: fc.nat(4), term: fc.nat(3) }),
    fc.record({ kind: fc.constant("truncate" as const), back: fc.nat(4) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const runs = new TermRuns();
      let terms: number[] = [];
      for (const action of steps) {
        const index = Math.max(1, terms.length + 1 - action.back);
        if (action.kind === "truncate") {
          terms = terms.slice(0, index - 1);
          runs.truncate(index);
        } else {
          if (terms[index - 1] !== action.term) terms = [...terms.slice(0, index - 1), action.term];
          runs.put(index, action.term);
        }
        for (let at = 1; at <= terms.length + 2; at++) expect(runs.termAt(at)).toBe(terms[at - 1]);
      }
    }),
  );
});
