/**
 * A txn that etcd cannot run by itself: read, rehearse, and write under the condition that nothing read has changed.
 *
 * That is: each key that was there still has its modRevision, and no key of a range has a later one than the state read.
 * Two round trips when nobody interferes; again from the reading when somebody does, after a pause that grows.
 */
import { conclaveError } from "../../base/errors.ts";
import type { Platform } from "../../base/ports.ts";
import type { Limits } from "../../store/caps.ts";
import type { ResolvedTxn } from "../../store/command.ts";
import type { Entry } from "../../store/entry.ts";
import { type BinaryRange, isInRange, isRangeOfKey } from "../../store/key.ts";
import { type Difference, rehearse, sightOf } from "../../store/rehearse.ts";
import type { TxnResult } from "../../store/store.ts";
import type { EtcdKeys } from "./keys.ts";
import type { EtcdCompare, EtcdOp, EtcdTxn, EtcdTxnAnswer } from "./messages.ts";

/** What etcd allows in one list of a txn (`--max-txn-ops`). */
export const serverOpsMax = 128;

const firstPauseMs = 1;
const pauseMsMax = 50;

export interface OptimisticOptions {
  readonly keys: EtcdKeys;
  readonly limits: Limits;
  readonly platform: Platform;
  /** One round trip, within the time that is left. @throws TIMEOUT and others */
  readonly send: (txn: EtcdTxn) => Promise<EtcdTxnAnswer>;
  readonly isTimeUp: () => boolean;
}

export async function runOptimistically(txn: ResolvedTxn, options: OptimisticOptions): Promise<TxnResult> {
  const { isTimeUp, keys, limits, platform, send } = options;
  const sight = sightOf(txn);
  const atRevision = [...txn.then, ...txn.else].find((op) => op.kind === "range" && op.atRevision !== null);
  if (atRevision !== undefined) throw conclaveError("UNSUPPORTED", "etcd cannot read an older state in such a transaction.");
  for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(pauseMs * 2, pauseMsMax)) {
    const read = await send({
      compares: [],
      then: sight.map((range): EtcdOp => ({ kind: "range", span: keys.span(range) })),
      else: [],
    });
    const entries = read.answers.flatMap((answer) =>
      answer.kind === "range" ? answer.entries.map((each) => keys.wholeEntry(each)) : [],
    );
    // Whether a session lives is etcd's to say, when something is bound to it.
    const { answer, differences } = rehearse(txn, { revision: read.revision, entries, isAlive: () => true }, limits);
    if (differences.length === 0) return answer(read.revision);
    const compares = conditions({ sight, entries, revision: read.revision }, keys);
    const ops = differences.map((difference) => writing(difference, keys));
    if (compares.length > serverOpsMax || ops.length > serverOpsMax)
      throw conclaveError(
        "TXN_TOO_LARGE",
        `It looks at ${compares.length} keys and writes ${ops.length}; etcd guards and writes ${serverOpsMax} at once.`,
      );
    const written = await send({ compares, then: ops, else: [] });
    if (written.succeeded) return answer(written.revision);
    if (isTimeUp()) throw conclaveError("TIMEOUT", "Others wrote the same keys each time it was tried.", { definite: true });
    const jitter = platform.randomUint32() / 2 ** 32;
    await new Promise<void>((resolve) => void platform.setTimer(pauseMs * jitter, resolve, { ref: true }));
  }
}

interface Seen {
  readonly sight: readonly BinaryRange[];
  readonly entries: readonly Entry[];
  readonly revision: number;
}

function conditions({ sight, entries, revision }: Seen, keys: EtcdKeys): EtcdCompare[] {
  const span = (key: string) => ({ from: keys.stored(key), to: undefined });
  const compares = entries.map(
    (entry): EtcdCompare => ({ span: span(entry.binaryKey), target: "modRevision", is: "equal", to: entry.modRevision }),
  );
  for (const range of sight) {
    if (!isRangeOfKey(range)) compares.push({ span: keys.span(range), target: "modRevision", is: "less", to: revision + 1 });
    else if (!entries.some((entry) => isInRange(range, entry.binaryKey)))
      compares.push({ span: span(range.from), target: "modRevision", is: "equal", to: 0 });
  }
  return compares;
}

function writing({ after, before, key }: Difference, keys: EtcdKeys): EtcdOp {
  if (after === null) return { kind: "delete", span: { from: keys.stored(key), to: undefined }, returnsPrevious: false };
  if (before !== null && after.createRevision !== before.createRevision)
    throw conclaveError("UNSUPPORTED", "etcd cannot delete a key and make it anew in one transaction.");
  return {
    kind: "put",
    key: keys.stored(key),
    value: after.value,
    lease: after.session === null ? 0 : Number(after.session),
    returnsPrevious: false,
  };
}
