/**
 * Judges the registers: is there an order of all reads, writes and compare-and-sets that explains every answer?
 *
 * The journals become a Jepsen history, and that text is what is checked: whoever doubts the verdict can hand the same
 * file to Knossos or Elle. As there, a process whose operation ended unknown goes on under a new number, and so does the
 * successor of a client that was killed: a number has one open operation at most, for ever.
 */
import { type CheckOptions, checkLinearizable } from "../testing/linearizability/check-linearizable.ts";
import { explain } from "../testing/linearizability/explain.ts";
import { readJepsenHistory } from "../testing/linearizability/jepsen-history.ts";
import { registerModel } from "../testing/linearizability/register-model.ts";
import type { ClientRecord, Evidence, FinalState, Violation } from "./evidence.ts";
import { groupBy } from "./group-by.ts";
import type { JournalEvent } from "./journal.ts";

export interface RegistersVerdict {
  readonly violations: readonly Violation[];
  /** Jepsen's JSON lines. */
  readonly history: string;
  readonly operationCount: number;
  readonly unknownCount: number;
  readonly registerCount: number;
  /** Why the checker gave up; undefined: it did not. */
  readonly undecided: string | undefined;
}

interface Line {
  readonly process: number;
  readonly type: "invoke" | "ok" | "fail" | "info";
  readonly f: "read" | "write" | "cas";
  readonly key: string;
  readonly value: unknown;
  readonly error?: string;
  /** Nanoseconds since the start of the run. */
  readonly time: number;
}

export function judgeRegisters(evidence: Evidence, options: CheckOptions = {}): RegistersVerdict {
  const lines = historyOf(evidence);
  const history = lines.map((line) => `${JSON.stringify(line)}\n`).join("");
  const operations = readJepsenHistory(history);
  const verdict = checkLinearizable(registerModel, operations, options);
  return {
    violations: verdict.linearizable === false ? [{ kind: "registers-not-linearizable", text: explain(verdict) }] : [],
    history,
    operationCount: operations.length,
    unknownCount: operations.filter(({ returnedAt }) => returnedAt === undefined).length,
    registerCount: new Set(operations.map(({ key }) => key)).size,
    undecided: verdict.linearizable === "unknown" ? explain(verdict) : undefined,
  };
}

function historyOf({ clients, clientCount, final, startedAtMs }: Evidence): Line[] {
  const slots = groupBy(clients, ({ slot }) => slot);
  // One number more than there are clients: the last one is the runner's, who reads at the end.
  const stride = clientCount + 1;
  const lines = [...slots].flatMap(([slot, incarnations]) => linesOfSlot(slot, { incarnations, stride, startedAtMs }));
  if (final !== undefined)
    lines.push(...finalReads(new Set(lines.map(({ key }) => key)), { final, process: clientCount, stride, startedAtMs }));
  // Stable: the lines of one process keep their order where times are equal.
  return lines.sort((a, b) => a.time - b.time);
}

interface SlotOptions {
  readonly incarnations: readonly ClientRecord[];
  readonly stride: number;
  readonly startedAtMs: number;
}

function linesOfSlot(slot: number, { incarnations, stride, startedAtMs }: SlotOptions): Line[] {
  const lines: Line[] = [];
  let process = slot;
  for (const { events } of incarnations.toSorted((a, b) => a.incarnation - b.incarnation)) {
    let open: Line | undefined;
    for (const event of events) {
      if (event.kind === "register.begin") {
        open = invocation(event, process, startedAtMs);
        lines.push(open);
      } else if (event.kind === "register.end" && open !== undefined) {
        lines.push(completion(event, open, startedAtMs));
        if (event.type === "info") process += stride;
        open = undefined;
      }
    }
    process += stride;
  }
  return lines;
}

function invocation(
  { f, key, value, atMs }: Extract<JournalEvent, { readonly kind: "register.begin" }>,
  process: number,
  startedAtMs: number,
): Line {
  return { process, type: "invoke", f, key, value, time: nanoseconds(atMs - startedAtMs) };
}

function completion(end: Extract<JournalEvent, { readonly kind: "register.end" }>, begun: Line, startedAtMs: number): Line {
  const { type, error, atMs } = end;
  const value = type === "ok" && begun.f === "read" ? (end.value ?? null) : begun.value;
  return { ...begun, type, value, ...(error === undefined ? {} : { error }), time: nanoseconds(atMs - startedAtMs) };
}

interface FinalReadOptions {
  readonly final: FinalState;
  readonly process: number;
  readonly stride: number;
  readonly startedAtMs: number;
}

/** Each by a process of its own, all in the time of the one range read that they stand for. */
function finalReads(keys: ReadonlySet<string>, { final, process, stride, startedAtMs }: FinalReadOptions): Line[] {
  const from = nanoseconds(final.readFromMs - startedAtMs);
  const to = nanoseconds(final.readToMs - startedAtMs);
  return [...keys].flatMap((key, index): Line[] => {
    const read = { process: process + index * stride, f: "read", key } as const;
    return [
      { ...read, type: "invoke", value: null, time: from },
      { ...read, type: "ok", value: final.registers.get(key) ?? null, time: to },
    ];
  });
}

function nanoseconds(durationMs: number): number {
  return Math.round(durationMs * 1e6);
}
