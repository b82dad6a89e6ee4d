/**
 * The contract of `Store`, as tests for any engine and any test runner.
 *
 * Intuition: a driving test. The examiner brings the same course to every car, leaves out the trailer for cars without a
 * hook, and says so on the form.
 *
 * ```ts
 * contractSuite({ describe, test, skip: test.skip, caps, open: async () => ({ engine: await connect(url), dispose }) });
 * ```
 * Each case opens its own world, uses names that nobody else uses, and throws a plain Error that says what was expected.
 * What an engine's `Caps` do not claim is skipped with the reason; what they claim is tested.
 * Assumes that nobody else writes to the store in the meantime: revisions are counted.
 */
import type { Caps } from "../store/caps.ts";
import type { ContractCase, ContractWorld } from "./contract/contract-case.ts";
import { electionCases } from "./contract/election-cases.ts";
import { limitCases } from "./contract/limit-cases.ts";
import { lockCases } from "./contract/lock-cases.ts";
import { sessionCases } from "./contract/session-cases.ts";
import { TestBed } from "./contract/test-bed.ts";
import { txnCases } from "./contract/txn-cases.ts";
import { watchCases } from "./contract/watch-cases.ts";

export type { ContractWorld, IsolatedClient } from "./contract/contract-case.ts";

export interface ContractSuiteOptions {
  /** Of the test runner: groups tests under a name. */
  readonly describe: (name: string, body: () => void) => unknown;
  /** Of the test runner: a test that passes unless it rejects. */
  readonly test: (name: string, body: () => Promise<void>) => unknown;
  /** Of the test runner: lists a test without running it; the name ends in the reason. Default: an empty test. */
  readonly skip?: (name: string, body: () => Promise<void>) => unknown;
  /** What the engine promises. Each world's own must be the same. */
  readonly caps: Caps;
  /** Whether each world has `isolate`. Default false: the cases that cut a client off are skipped. */
  readonly isolates?: boolean;
  /** Opens what a case runs on. Called once for each case. */
  readonly open: () => Promise<ContractWorld>;
}

const groups: readonly { readonly name: string; readonly cases: readonly ContractCase[] }[] = [
  { name: "transactions", cases: txnCases },
  { name: "limits and claims", cases: limitCases },
  { name: "sessions", cases: sessionCases },
  { name: "watches", cases: watchCases },
  { name: "locks", cases: lockCases },
  { name: "elections", cases: electionCases },
];

/** Registers the whole contract with the test runner. @since 0.1.0 */
export function contractSuite({ caps, describe, isolates = false, open, test, skip }: ContractSuiteOptions): void {
  const leaveOut = skip ?? ((name: string) => test(name, () => Promise.resolve()));
  describe(`the contract of a store, on ${caps.engine}`, () => {
    for (const { name, cases } of groups) {
      describe(name, () => {
        for (const contractCase of cases) {
          const reason = contractCase.isolates && !isolates ? "no client can be cut off here" : contractCase.skip?.(caps);
          if (reason === undefined) test(contractCase.name, () => runCase(contractCase, open));
          else leaveOut(`${contractCase.name} (skipped: ${reason})`, () => Promise.resolve());
        }
      });
    }
  });
}

async function runCase({ run }: ContractCase, open: () => Promise<ContractWorld>): Promise<void> {
  const bed = new TestBed(await open());
  try {
    await run(bed);
  } finally {
    await bed.dispose();
  }
}
