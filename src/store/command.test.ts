// biome-ignore-all lint/suspicious/noThenProperty: the `then` of a txn is a list, never called.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ConclaveError, hasCode } from "../base/errors.ts";
import { embeddedLimits } from "./caps.ts";
import {
  type Command,
  commandKindOf,
  decodeCommand,
  encodeCommand,
  isReadOnly,
  isReadOnlyCommand,
  keyRangesOf,
  type ResolvedTxn,
} from "./command.ts";
import { rangeOfKey } from "./key.ts";
import { resolveTxn } from "./resolve.ts";
import type { Txn } from "./store.ts";

const limits = embeddedLimits;

const session = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER });
const key = fc.string({ minLength: 1, maxLength: 30 }).map((text) => `n\0${text.replace(/[^\0-\xff]/g, "\xff")}`);
const range = fc.oneof(
  fc.tuple(key, key).map(([one, other]) => (one < other ? { from: one, to: other } : { from: other, to: one })),
  key.map(rangeOfKey),
);
const bytes = fc.uint8Array({ maxLength: 300 });
const operator = fc.constantFrom("equal" as const, "not-equal" as const, "less" as const, "greater" as const);
const compare = fc
  .tuple(
    fc.oneof(fc.record({ key }), fc.record({ range })),
    fc.oneof(
      fc.record({ target: fc.constant("exists" as const), is: fc.constant("equal" as const), to: fc.boolean() }),
      fc.record({
        target: fc.constantFrom("createRevision" as const, "modRevision" as const, "version" as const),
        is: operator,
        to: fc.maxSafeNat(),
      }),
      fc.record({ target: fc.constant("value" as const), is: operator, to: bytes }),
      fc.record({
        target: fc.constant("session" as const),
        is: fc.constantFrom("equal" as const, "not-equal" as const),
        to: fc.option(session),
      }),
    ),
  )
  .map(([where, what]) => ({ ...where, ...what }));
const op = fc.oneof(
  fc.record({ kind: fc.constant("get" as const), key }),
  fc.record({
    kind: fc.constant("range" as const),
    range,
    order: fc.constantFrom("key" as const, "create" as const),
    descending: fc.boolean(),
    keysOnly: fc.boolean(),
    limit: fc.option(fc.maxSafeNat()),
    createdBefore: fc.option(fc.maxSafeNat()),
    atRevision: fc.option(fc.maxSafeNat()),
  }),
  fc.record({ kind: fc.constant("put" as const), key, value: bytes, session: fc.option(session), returnPrevious: fc.boolean() }),
  fc.record({ kind: fc.constant("delete" as const), range, returnPrevious: fc.boolean() }),
  fc.record({ kind: fc.constant("add" as const), key, delta: fc.maxSafeInteger() }),
);
const txn = fc.record({
  kind: fc.constant("txn" as const),
  claim: fc.option(
    fc.tuple(session, fc.maxSafeNat(), fc.nat(50)).map(([number, sequence, behind]) => ({
      session: number,
      sequence,
      lowestOpen: Math.max(0, sequence - behind),
    })),
  ),
  compares: fc.array(compare, { maxLength: 4 }),
  then: fc.array(op, { maxLength: 4 }),
  else: fc.array(op, { maxLength: 4 }),
});
const command: fc.Arbitrary<Command> = fc.oneof(
  txn,
  fc.record({ kind: fc.constant("open-session" as const), ttlMs: fc.maxSafeNat() }),
  fc.record({ kind: fc.constant("close-session" as const), session }),
  fc.record({ kind: fc.constant("expire-sessions" as const), sessions: fc.array(session) }),
  fc.record({ kind: fc.constant("initialise" as const), revision: fc.maxSafeNat() }),
);

describe("a command", () => {
  test("comes back from its bytes", () => {
    fc.assert(
      fc.property(command, (each) => {
        const encoded = encodeCommand(each);
        expect(decodeCommand(encoded)).toEqual(each);
        expect(commandKindOf(encoded)).toBe(each.kind);
      }),
    );
  });

  test("that is cut, damaged or made up is refused with PROTOCOL or read as another, and never crashes", () => {
    fc.assert(
      fc.property(command, fc.nat(), fc.nat(255), fc.boolean(), (each, place, byte, isCut) => {
        const encoded = encodeCommand(each);
        const at = place % encoded.length;
        const damaged = isCut ? encoded.subarray(0, at) : encoded.with(at, byte);
        const answer = attempt(() => decodeCommand(damaged));
        expect(answer === "read" ? !isCut : answer === "PROTOCOL").toBe(true);
      }),
      { numRuns: 2_000 },
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (noise) => {
        expect(["read", "PROTOCOL"]).toContain(attempt(() => decodeCommand(new Uint8Array([1, noise.length % 5, ...noise]))));
      }),
      { numRuns: 2_000 },
    );
  });

  test("of another format, or with more after its end, is refused", () => {
    const encoded = encodeCommand({ kind: "close-session", session: 3 });
    expect(attempt(() => decodeCommand(encoded.with(0, 2)))).toBe("PROTOCOL");
    expect(attempt(() => decodeCommand(new Uint8Array([...encoded, 0])))).toBe("PROTOCOL");
    expect(attempt(() => decodeCommand(new Uint8Array(0)))).toBe("PROTOCOL");
  });

  test("names every range that it may read or write, in either branch", () => {
    const resolved = resolveTxn(
      "n",
      {
        if: [
          { key: "a", target: "exists", is: "equal", to: true },
          { range: { prefix: "p" }, namespace: "m", target: "version", is: "less", to: 3 },
        ],
        then: [
          { kind: "put", key: "b", value: "" },
          { kind: "put", key: "c", value: "", returnPrevious: true },
          { kind: "get", key: "d" },
        ],
        else: [
          { kind: "delete", range: { prefix: "" }, namespace: "m" },
          { kind: "add", key: "e", delta: 1 },
          { kind: "range", range: { from: "x" } },
        ],
      },
      limits,
    );
    expect(keyRangesOf(resolved)).toEqual([
      { range: { from: "n\0a", to: "n\0a\0" }, access: "read" },
      { range: { from: "m\0p", to: "m\0q" }, access: "read" },
      { range: { from: "n\0b", to: "n\0b\0" }, access: "write" },
      { range: { from: "n\0c", to: "n\0c\0" }, access: "read-write" },
      { range: { from: "n\0d", to: "n\0d\0" }, access: "read" },
      { range: { from: "m\0", to: "m\x01" }, access: "write" },
      { range: { from: "n\0e", to: "n\0e\0" }, access: "read-write" },
      { range: { from: "n\0x", to: "n\x01" }, access: "read" },
    ]);
  });

  test("is read-only when neither branch writes", () => {
    const reading = resolveTxn(
      "n",
      { then: [{ kind: "get", key: "a" }], else: [{ kind: "range", range: { prefix: "" } }] },
      limits,
    );
    const writing = resolveTxn("n", { then: [], else: [{ kind: "add", key: "a", delta: 1 }] }, limits);
    expect([isReadOnly(reading), isReadOnly(writing)]).toEqual([true, false]);
    expect([isReadOnlyCommand(encodeCommand(reading)), isReadOnlyCommand(encodeCommand(writing))]).toEqual([true, false]);
    expect(isReadOnlyCommand(encodeCommand({ kind: "open-session", ttlMs: 1_000 }))).toBe(false);
  });
});

describe("the doors", () => {
  const big = new Uint8Array(limits.valueBytesMax + 1);
  const many = Array.from({ length: limits.txnOpsMax + 1 }, () => ({ kind: "get" as const, key: "a" }));
  const large = new Uint8Array(limits.valueBytesMax - 5);
  const cases: [code: string, txn: unknown][] = [
    ["KEY_INVALID", { then: [{ kind: "get", key: "" }] }],
    ["KEY_INVALID", { then: [{ kind: "get" }] }],
    ["KEY_TOO_LARGE", { then: [{ kind: "get", key: "k".repeat(4_095) }] }],
    ["VALUE_TOO_LARGE", { then: [{ kind: "put", key: "a", value: big }] }],
    ["VALUE_TOO_LARGE", { if: [{ key: "a", target: "value", is: "equal", to: big }], then: [] }],
    ["TXN_TOO_LARGE", { then: many }],
    ["TXN_TOO_LARGE", { then: [], else: many }],
    ["TXN_TOO_LARGE", { then: [1, 2, 3].map((at) => ({ kind: "put", key: `${at}`, value: large })) }],
    ["INVALID_OPTION", { then: [{ kind: "steal", key: "a" }] }],
    ["INVALID_OPTION", { then: [{ kind: "put", key: "a", value: 5 }] }],
    ["INVALID_OPTION", { then: [{ kind: "add", key: "a", delta: 0.5 }] }],
    ["INVALID_OPTION", { then: [{ kind: "range", range: { prefix: "" }, limit: -1 }] }],
    ["INVALID_OPTION", { then: [{ kind: "put", key: "a", value: "", session: "x1" }] }],
    ["INVALID_OPTION", { then: [{ kind: "put", key: "a", value: "", session: "0" }] }],
    ["INVALID_OPTION", { then: [{ kind: "get", key: "a", namespace: "x\0" }] }],
    ["INVALID_OPTION", { if: [{ key: "a", target: "exists", is: "less", to: true }], then: [] }],
    ["INVALID_OPTION", { if: [{ key: "a", target: "session", is: "greater", to: null }], then: [] }],
    ["INVALID_OPTION", { if: [{ key: "a", target: "weight", is: "equal", to: 1 }], then: [] }],
    ["INVALID_OPTION", { if: [{ key: "a", target: "version", is: "about", to: 1 }], then: [] }],
    [
      "INVALID_OPTION",
      {
        then: [
          { kind: "range", range: { prefix: "" }, atRevision: 5 },
          { kind: "put", key: "a", value: "" },
        ],
      },
    ],
    ["INVALID_OPTION", { then: [], claim: { session: "5", sequence: 1, lowestOpen: 2 } }],
    ["BUSY", { then: [], claim: { session: "5", sequence: limits.claimsOpenMax + 7, lowestOpen: 7 } }],
  ];
  test.each(cases)("refuse with %s what cannot be sent (%#)", (code, each) => {
    expect(() => resolveTxn("n", each as Txn, limits)).toThrow(expect.objectContaining({ code }));
  });

  test("a member refuses the same of a client that does not", () => {
    const generous = { ...limits, keyBytesMax: 1e9, valueBytesMax: 1e9, txnOpsMax: 1e9, txnBytesMax: 1e9, claimsOpenMax: 1e9 };
    const codes = cases.flatMap(([code, each]) => {
      let resolved: ResolvedTxn;
      try {
        resolved = resolveTxn("n", each as Txn, generous);
      } catch (error) {
        expect(error).toBeInstanceOf(ConclaveError);
        return [];
      }
      expect(() => decodeCommand(encodeCommand(resolved), limits)).toThrow(expect.objectContaining({ code }));
      return [code];
    });
    expect(codes).toEqual([
      "KEY_TOO_LARGE",
      "VALUE_TOO_LARGE",
      "VALUE_TOO_LARGE",
      "TXN_TOO_LARGE",
      "TXN_TOO_LARGE",
      "TXN_TOO_LARGE",
      "BUSY",
    ]);
    expect(() => decodeCommand(encodeCommand({ kind: "open-session", ttlMs: 5 }), limits)).toThrow(
      expect.objectContaining({ code: "INVALID_OPTION" }),
    );
  });

  test("let through whatever they let through once: what resolves also passes the member's door", () => {
    const short = { ...limits, txnBytesMax: 900 };
    fc.assert(
      fc.property(fc.array(fc.nat(400), { maxLength: 6 }), fc.nat(60), (sizes, keyBytes) => {
        const ops = sizes.map((size) => ({ kind: "put" as const, key: "k".repeat(keyBytes + 1), value: new Uint8Array(size) }));
        let resolved: ResolvedTxn;
        try {
          resolved = resolveTxn("n", { then: ops }, short);
        } catch (error) {
          expect(hasCode(error, "TXN_TOO_LARGE")).toBe(true);
          return;
        }
        decodeCommand(encodeCommand(resolved), short);
      }),
    );
  });
});

function attempt(act: () => unknown): string {
  try {
    act();
    return "read";
  } catch (error) {
    return hasCode(error, "PROTOCOL") ? "PROTOCOL" : String(error);
  }
}
