/**
 * Judges the number in the ordinary file: replays every write, and tells the excused late ones from violations.
 *
 * Each write names the write that it read, so all writes form a tree, and one writer after another makes it a path:
 *
 *     origin <- 1 <- 2 <- 3 <- 4 <- 5        right
 *                    ^--- 3'                  two read 2 and both wrote: one of them, the one with the lower token, was late
 *
 * A write is late when its lock had been granted on before it returned. It is excused when its process had been stopped
 * between its last look at the clock and the write, and would have been in time without: an ordinary file cannot refuse it,
 * and no lock can prevent it. Of those who read one state at most one may be not excused.
 */
import { coveredMs, type Interval } from "./clock.ts";
import type { ClientRecord, FinalState, LateWrite, Violation } from "./evidence.ts";
import { groupBy } from "./group-by.ts";
import { type FileEnd, type FileState, fileOrigin, type JournalEvent } from "./journal.ts";
import type { Grants } from "./judge-holds.ts";

export interface FileVerdict {
  readonly violations: readonly Violation[];
  readonly lateWrites: readonly LateWrite[];
  /** Writes that took place. */
  readonly writeCount: number;
  /** Writes that the final number does not count, because a late one went over them. */
  readonly overwrittenCount: number;
}

interface Write {
  readonly id: string;
  readonly client: ClientRecord;
  readonly token: number;
  readonly saw: FileState;
  readonly readAtMs: number;
  /** Undefined: its client was killed before it could tell. */
  readonly end: FileEnd | undefined;
}

interface FileJudgeOptions {
  readonly clients: readonly ClientRecord[];
  readonly grants: Grants;
  readonly final: FinalState;
  readonly ttlMs: number;
}

export function judgeFile({ clients, grants, final, ttlMs }: FileJudgeOptions): FileVerdict {
  const begun = clients.flatMap(writesOf);
  const byId = new Map(begun.map((write) => [write.id, write]));
  const seen = new Set([...begun.map(({ saw }) => saw.write), final.file.write]);
  // A write that nobody finished and nobody saw did not take place, or was overwritten by its like: it changed nothing.
  const writes = begun.filter(({ id, end }) => end?.outcome === "written" || seen.has(id));
  const late = new Map(writes.flatMap((write) => lateness(write, { grants, ttlMs })));
  const forks = forksOf(writes);
  const violations = [
    ...shownByNobody(begun, byId, final),
    ...[...late].flatMap(([write, { isExcused, text }]): Violation[] =>
      isExcused ? [] : [{ kind: "file-write-late", text: `${name(write)} ${text}` }],
    ),
    ...forks.flatMap((fork) => unexplained(fork, late)),
    ...vanished(writes, final),
  ];
  const overwriters = new Set(forks.flat());
  const lateWrites = [...late].flatMap(([write, { isExcused, facts }]) =>
    isExcused ? [{ ...facts, overwrote: overwriters.has(write) }] : [],
  );
  return { violations, lateWrites, writeCount: writes.length, overwrittenCount: writes.length - final.file.value };
}

function writesOf(client: ClientRecord): Write[] {
  const ends = new Map(client.events.flatMap((event) => (event.kind === "file.end" ? [[event.write, event] as const] : [])));
  const isBegin = (event: JournalEvent): event is Extract<JournalEvent, { readonly kind: "file.begin" }> =>
    event.kind === "file.begin";
  return client.events
    .filter(isBegin)
    .map(({ write, token, saw, readAtMs }) => ({ id: write, client, token, saw, readAtMs, end: ends.get(write) }));
}

/** Every state that was read is one that somebody wrote, with that number and that token. */
function shownByNobody(writes: readonly Write[], byId: ReadonlyMap<string, Write>, final: FinalState): Violation[] {
  const wrong = (state: FileState): string | undefined => {
    if (state.write === fileOrigin.write) return state.value === 0 ? undefined : "a beginning that is not 0";
    const write = byId.get(state.write);
    if (write === undefined) return "nobody wrote";
    if (write.end?.outcome === "not-held") return "its client says it did not write";
    return state.value === write.saw.value + 1 && state.token === write.token ? undefined : "was written otherwise";
  };
  const shown = [
    ...writes.map(({ id, saw }) => ({ reader: `the client of write ${id}`, state: saw })),
    { reader: "the end of the run", state: final.file },
  ];
  return shown.flatMap(({ reader, state }) => {
    const why = wrong(state);
    return why === undefined ? [] : [{ kind: "file-corrupt", text: `${reader} read ${JSON.stringify(state)}, which ${why}` }];
  });
}

interface Lateness {
  readonly isExcused: boolean;
  readonly text: string;
  readonly facts: Omit<LateWrite, "overwrote">;
}

function lateness(write: Write, { grants, ttlMs }: { readonly grants: Grants; readonly ttlMs: number }): [Write, Lateness][] {
  const next = grants.firstAbove(write.token);
  const span = spanOf(write);
  if (next === undefined || next.atMs >= span.toMs) return [];
  const stops = stopsOf(write).filter((stop) => stop.toMs > span.fromMs && stop.fromMs < span.toMs);
  const ownMs = span.toMs - span.fromMs - coveredMs(span, stops);
  // A third of the TTL lies between the deadline of a hold and the moment when its lock may pass on.
  const isExcused = stops.length > 0 && ownMs < ttlMs / 3;
  const deadlineMs = write.end?.outcome === "written" ? write.end.deadlineMs : undefined;
  const passedMs = (span.toMs - next.atMs).toFixed(1);
  const text = `with token ${write.token} came up to ${passedMs} ms after token ${next.token} had been granted; between assertHeld() and the write lay ${ownMs.toFixed(1)} ms in which it was not stopped`;
  const facts = {
    write: write.id,
    token: write.token,
    passedToToken: next.token,
    passedOnAtMs: next.atMs,
    deadlineMs,
    assertedAtMs: span.fromMs,
    writtenAtMs: span.toMs,
    stops,
  };
  return [[write, { isExcused, text, facts }]];
}

/** From the last look at the clock to the latest moment at which the write can have happened. */
function spanOf({ client, end, readAtMs }: Write): Interval {
  if (end?.outcome === "written") return { fromMs: end.assertedAtMs, toMs: end.writtenAtMs };
  return { fromMs: readAtMs, toMs: client.killedAtMs ?? Number.POSITIVE_INFINITY };
}

/** What the runner did to it, and what it did to itself; where both know of a stop it counts once. */
function stopsOf({ client, end }: Write): readonly Interval[] {
  const own = end?.outcome === "written" ? end.stop : undefined;
  if (own === undefined) return client.stops;
  return [own, ...client.stops.filter(({ fromMs, toMs }) => toMs <= own.fromMs || fromMs >= own.toMs)];
}

/** Groups of two and more writes that read the same state. */
function forksOf(writes: readonly Write[]): Write[][] {
  const byParent = groupBy(writes, ({ saw }) => saw.write);
  return [...byParent.values()].filter((children) => children.length > 1);
}

function unexplained(fork: readonly Write[], late: ReadonlyMap<Write, Lateness>): Violation[] {
  const inTime = fork.filter((write) => !late.get(write)?.isExcused);
  if (inTime.length < 2) return [];
  const who = inTime.map((write) => `${name(write)} with token ${write.token}`).join(" and ");
  return [{ kind: "file-update-lost", text: `${who} read the same state, of write ${fork[0]?.saw.write}, and both wrote` }];
}

/** What was written last stands there at the end. */
function vanished(writes: readonly Write[], { file }: FinalState): Violation[] {
  return writes
    .filter(({ saw }) => saw.write === file.write)
    .map((write) => ({
      kind: "file-update-lost",
      text: `the file ends with write ${file.write}, though ${name(write)} read that and wrote after it`,
    }));
}

function name({ id }: Write): string {
  return `write ${id}`;
}
