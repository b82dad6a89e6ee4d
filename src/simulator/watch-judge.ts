/**
 * What a watch may tell, judged against what was decided: a machine of the world's own applies every decided entry, and its
 * events are the truth.
 *
 * Source: the nine validators of etcd's robustness tests (`tests/robustness/validate/watch.go`), under their names:
 * WatchOrdered, WatchUnique, WatchAtomic (a revision's events come in one batch), WatchReliable (none is missing in between),
 * WatchResumable (from a revision on: it begins there), WatchBookmarkable (after a batch of revision r nothing of r or
 * before), WatchPreviousValue, WatchIsCreate and WatchFilter. WatchState: a resync tells the whole state at its revision.
 */
import type { LogEntry } from "../consensus/core.ts";
import { namespaceOf } from "../store/key.ts";
import { Machine } from "../store/machine.ts";
import { type Outcome, toWatchEvent } from "../store/outcome.ts";
import type { KeyRange, Revision, WatchBatch, WatchEvent } from "../store/store.ts";
import { ClaimJudge } from "./claim-judge.ts";
import { InvariantViolation, must } from "./invariant-violation.ts";

export const watchedNamespace = "registers";

/** Ranges that the simulated watchers ask for, and what lies in them. */
export const watchedRanges: readonly { readonly range: KeyRange; holds(key: string): boolean }[] = [
  { range: { prefix: "" }, holds: () => true },
  { range: { key: "x" }, holds: (key) => key === "x" },
  { range: { from: "y", to: "zz" }, holds: (key) => key >= "y" && key < "zz" },
];

export class WatchTruth {
  readonly #machine = new Machine();
  readonly #claims: ClaimJudge;
  /** Of the watched namespace, in order. */
  readonly #events: WatchEvent[] = [];

  constructor(countsAsAlive: (session: number) => boolean) {
    this.#claims = new ClaimJudge(countsAsAlive);
    this.#machine.subscribe((_, events) => {
      for (const event of events) if (namespaceOf(event.key) === watchedNamespace) this.#events.push(toWatchEvent(event));
    });
  }

  /** Of everything that was decided, also outside the namespace. */
  get revision(): Revision {
    return this.#machine.revision;
  }

  /** Members deliver the same entries at different times; the first to deliver one decides nothing, it only tells. */
  onDelivered(entries: readonly LogEntry[]): void {
    for (const entry of entries) {
      if (entry.index !== this.#machine.appliedIndex + 1) continue;
      const { elapsedMs } = this.#machine;
      if (entry.kind === "batch") {
        const outcomes: Outcome[] = [];
        this.#machine.applyBatch(entry, (position, outcome) => {
          outcomes[position] = outcome;
        });
        this.#claims.onBatch(entry.payload, outcomes);
      } else this.#machine.skip(entry);
      must(
        this.#machine.elapsedMs >= elapsedMs,
        "AgreedTimeMonotonic",
        () => `the machine's time falls from ${elapsedMs} to ${this.#machine.elapsedMs} at ${entry.index}`,
      );
    }
  }

  between(after: Revision, upTo: Revision, holds: (key: string) => boolean): readonly WatchEvent[] {
    return this.#events.filter((event) => event.revision > after && event.revision <= upTo && holds(event.key));
  }

  /** The newest event of each key that was there at the revision. */
  stateAt(revision: Revision, holds: (key: string) => boolean): ReadonlyMap<string, string> {
    const state = new Map<string, string>();
    for (const event of this.between(0, revision, holds)) {
      if (event.kind === "put") state.set(event.key, content(event.entry));
      else state.delete(event.key);
    }
    return state;
  }
}

export class WatchJudge {
  readonly #truth: WatchTruth;
  readonly #holds: (key: string) => boolean;
  readonly #name: string;
  readonly #isResumed: boolean;
  /** Everything up to here was told. Undefined: the watch began at a moment of the server's choice and has not told it yet. */
  #told: Revision | undefined;

  constructor(
    truth: WatchTruth,
    what: { readonly name: string; readonly holds: (key: string) => boolean; readonly from?: Revision },
  ) {
    this.#truth = truth;
    this.#holds = what.holds;
    this.#name = what.name;
    this.#isResumed = what.from !== undefined;
    if (what.from !== undefined) this.#told = what.from - 1;
  }

  get told(): Revision | undefined {
    return this.#told;
  }

  /** Whether nothing that lies in its range is left to tell. */
  get isAtTheEnd(): boolean {
    return this.#told !== undefined && this.#truth.between(this.#told, this.#truth.revision, this.#holds).length === 0;
  }

  onBatch(batch: WatchBatch): void {
    const { revision } = batch;
    this.#must(revision >= (this.#told ?? 0), "WatchBookmarkable", () => `a batch of revision ${revision} after ${this.#told}`);
    this.#must(revision <= this.#truth.revision, "WatchReliable", () => `revision ${revision} was never decided`);
    if (batch.kind === "resync") this.#onResync(batch);
    else this.#onChanges(batch);
    this.#told = revision;
  }

  #onResync({ revision, entries }: Extract<WatchBatch, { kind: "resync" }>): void {
    const expected = this.#truth.stateAt(revision, this.#holds);
    const told = new Map(entries.map((entry) => [entry.key, content(entry)]));
    const isSame = told.size === expected.size && [...expected].every(([key, value]) => told.get(key) === value);
    this.#must(isSame, "WatchState", () => `at ${revision} it tells ${text(told)} instead of ${text(expected)}`);
  }

  #onChanges({ revision, events }: Extract<WatchBatch, { kind: "changes" }>): void {
    const first = events[0]?.revision;
    const after = this.#told ?? (first === undefined ? revision : first - 1);
    let last = after;
    const seen = new Set<string>();
    for (const event of events) {
      this.#must(this.#holds(event.key), "WatchFilter", () => `${event.key} is not in its range`);
      this.#must(event.revision > after, "WatchBookmarkable", () => `revision ${event.revision} is told after ${after}`);
      this.#must(event.revision >= last, "WatchOrdered", () => `revision ${event.revision} follows ${last}`);
      this.#must(event.revision <= revision, "WatchAtomic", () => `revision ${event.revision} in a batch of ${revision}`);
      const id = `${event.revision} ${event.key}`;
      this.#must(!seen.has(id), "WatchUnique", () => `${id} is told twice`);
      seen.add(id);
      last = event.revision;
    }
    this.#compare(events, this.#truth.between(after, revision, this.#holds), after);
  }

  #compare(events: readonly WatchEvent[], expected: readonly WatchEvent[], after: Revision): void {
    const byId = new Map(events.map((event) => [`${event.revision} ${event.key}`, event]));
    for (const wanted of expected) {
      const id = `${wanted.revision} ${wanted.key}`;
      const found = byId.get(id);
      byId.delete(id);
      if (found === undefined) {
        const isTorn = events.some((event) => event.revision === wanted.revision);
        const isLate = this.#isResumed && events.every((event) => event.revision > wanted.revision);
        throw this.#broken(
          isTorn ? "WatchAtomic" : isLate ? "WatchResumable" : "WatchReliable",
          `${id} is missing after ${after}`,
        );
      }
      this.#must(
        (found.kind === "put") === (wanted.kind === "put") && textOf(found) === textOf(wanted),
        "WatchReliable",
        () => `${id} tells ${textOf(found)} instead of ${textOf(wanted)}`,
      );
      const [told, was] = [found.previous, wanted.previous].map((entry) => (entry === null ? "nothing" : content(entry)));
      this.#must(told === was, "WatchPreviousValue", () => `${id} says that ${told} stood there before; it was ${was}`);
      this.#must(
        found.kind === "delete" || (found.entry.createRevision === found.revision) === (wanted.previous === null),
        "WatchIsCreate",
        () => `${id} says that it ${found.previous === null ? "is new" : "was there"}`,
      );
    }
    const [phantom] = byId.keys();
    this.#must(phantom === undefined, "WatchReliable", () => `${phantom} never happened`);
  }

  #must(condition: boolean, invariant: string, details: () => string): void {
    must(condition, invariant, () => `${this.#name}: ${details()}`);
  }

  #broken(invariant: string, details: string): InvariantViolation {
    return new InvariantViolation(invariant, `${this.#name}: ${details}`);
  }
}

function textOf(event: WatchEvent): string {
  return event.kind === "put" ? content(event.entry) : "deleted";
}

function content(entry: {
  readonly value: Uint8Array;
  readonly createRevision: number;
  readonly modRevision: number;
  readonly version: number;
}): string {
  const { value, createRevision, modRevision, version } = entry;
  return `${String.fromCharCode(...value)} (made ${createRevision}, written ${modRevision}, version ${version})`;
}

function text(state: ReadonlyMap<string, string>): string {
  return JSON.stringify(Object.fromEntries(state));
}
