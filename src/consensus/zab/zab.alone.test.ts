/**
 * A group of one, where no follower's answer vouches for the leader's own disk: what the leader counts of itself is all there
 * is. The simulated groups have three or five members, in which the rule below has a second one behind it.
 */
import { expect, test } from "vitest";
import type { Output } from "../core.ts";
import type { ZabMessage } from "./messages.ts";
import { Zab } from "./zab.ts";

test("alone, nobody is established before the disk has the epoch as accepted and as entered (DSN'11 §IV.A, §IV.B)", () => {
  const zab = new Zab();
  const environment = {
    self: "a",
    configuration: { voters: ["a"], learners: [] },
    nowMs: 0,
    randomUint32: () => 7,
  };
  const onDisk: Record<string, string> = {};
  const seen: string[] = [];
  let waiting: Extract<Output<ZabMessage>, { kind: "persist" }>[] = [];
  const take = (outputs: readonly Output<ZabMessage>[]): void => {
    for (const output of outputs) {
      if (output.kind === "persist") waiting.push(output);
      if (output.kind === "role" && output.role === "leader")
        seen.push(`epoch ${output.term}, accepted ${onDisk["acceptedEpoch"]}, entered ${onDisk["currentEpoch"]}`);
    }
  };
  take(zab.start(environment, { meta: new Map(), entries: [] }));
  // The disk confirms one write at a time, after a tick each.
  for (let nowMs = 10; nowMs < 2_000; nowMs += 10) {
    take(zab.step({ kind: "tick", nowMs }));
    const [first, ...rest] = waiting;
    if (first === undefined) continue;
    waiting = rest;
    for (const operation of first.operations) if (operation.kind === "meta") Object.assign(onDisk, operation.values);
    take(zab.step({ kind: "persisted", nowMs, sequence: first.sequence }));
  }
  expect(seen).toEqual(["epoch 1, accepted 1, entered 1"]);
});
