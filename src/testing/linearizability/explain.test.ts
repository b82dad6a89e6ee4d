import { expect, test } from "vitest";
import { checkLinearizable, type Witness } from "./check-linearizable.ts";
import { explain } from "./explain.ts";
import { readJepsenHistory } from "./jepsen-history.ts";
import { registerModel } from "./register-model.ts";

const history = readJepsenHistory(`
{"process":0,"type":"invoke","f":"write","key":"x","value":1,"time":0}
{"process":0,"type":"ok","f":"write","key":"x","value":1,"time":5000000}
{"process":1,"type":"invoke","f":"write","key":"x","value":2,"time":6000000}
{"process":1,"type":"ok","f":"write","key":"x","value":2,"time":9000000}
{"process":3,"type":"invoke","f":"cas","key":"x","value":[1,7],"time":9500000}
{"process":2,"type":"invoke","f":"read","key":"x","value":null,"time":20000000}
{"process":2,"type":"ok","f":"read","key":"x","value":1,"time":30000000}
`);

test("a rejection reads as the operation at fault, the possible states, the order so far and what was open", () => {
  expect(explain(checkLinearizable(registerModel, history))).toBe(
    `Not linearizable (key "x", 4 operations): no order explains
  process 2: read → 1  [20, 30]
While it was due, the state can only have been: 2.
The longest order that works (2 operations):
  1. process 0: write 1 → ok  [0, 5]  leaves 1
  2. process 1: write 2 → ok  [6, 9]  leaves 2
Open by then too, and no help in any order:
  process 3: cas 1 7 → ?  [9.5, ?)`,
  );
});

test("long lists are cut to maxOperations and say so", () => {
  const text = explain(checkLinearizable(registerModel, history), { maxOperations: 1 });
  expect(text).toContain("  … 1 before these\n  2. process 1");
  expect(text).not.toContain("  1. process 0");
});

test("a verdict without keys, without an order and without a proof of the first fault says just that", () => {
  const operation = { process: 1, input: "pop", output: 3n, invokedAt: 1, returnedAt: 2 };
  const witness: Witness<unknown, unknown, unknown> = {
    prefix: [],
    stuck: operation,
    unplaced: [operation, operation],
    states: [],
    hasMoreStates: true,
    isShortest: false,
  };
  expect(explain({ linearizable: false, operations: 1, steps: 1, witness }, { maxOperations: 1 })).toBe(
    `Not linearizable (1 operations): no order explains
  process 1: "pop" → 3  [1, 2]
The search turned back there; the budget did not suffice to find the first operation at fault.
No operation can come before it.
Open by then too, and no help in any order:
  process 1: "pop" → 3  [1, 2]
  … and 1 more`,
  );
});

test("acceptance and indecision are one line each", () => {
  expect(explain({ linearizable: true, operations: 4, steps: 9 })).toBe("Linearizable: 4 operations, 9 steps.");
  expect(explain({ linearizable: "unknown", key: "x", operations: 4, steps: 9, why: "Too long." })).toMatch(
    /^Undecided \(key "x", 4 operations\): Too long\. /,
  );
});

test("a long value is shortened in the middle", () => {
  const output = `begin${"-".repeat(500)}end`;
  const operation = { process: 0, input: { f: "get" }, output, invokedAt: 0, returnedAt: 1 };
  const witness = { prefix: [], stuck: operation, unplaced: [], states: [null], hasMoreStates: false, isShortest: true };
  const text = explain({ linearizable: false, operations: 1, steps: 1, witness });
  expect(text).toMatch(/get → "begin-+ … -+end"/);
  expect(text).toContain("the state can only have been: nil.");
  expect(text.length).toBeLessThan(400);
});
