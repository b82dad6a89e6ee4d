/**
 * Random operations, crashes and restarts against a naive model: a list of states, one after each persist.
 *
 * The model knows which persists were acknowledged. What a restart recovers must be the state after some persist between
 * the last acknowledged and the last submitted one, and the run goes on from exactly that state.
 */
import fc from "fast-check";
import { expect, test } from "vitest";
import { crc32 } from "../base/crc32.ts";
import type { LogEntry, LogOperation, Recovered } from "../consensus/core.ts";
import { DiskWorld } from "../simulator/disk-world.ts";
import { Log } from "./log.ts";

const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const runs = Number(process.env["LOG_MODEL_RUNS"] ?? 150);

interface State {
  readonly entries: readonly LogEntry[];
  readonly meta: Readonly<Record<string, string>>;
}

type Step =
  | { readonly kind: "append"; readonly count: number; readonly bytes: number }
  /** Goes back by so many entries and puts one of a new term there, as a new leader does. */
  | { readonly kind: "overwrite"; readonly back: number }
  | { readonly kind: "truncate"; readonly back: number }
  | { readonly kind: "meta"; readonly key: string; readonly value: string }
  | { readonly kind: "advance"; readonly steps: number }
  | { readonly kind: "snapshot"; readonly back: number }
  | { readonly kind: "close" }
  | { readonly kind: "crash" }
  | { readonly kind: "kill" };

const stepArbitrary: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({ kind: fc.constant("append" as const), count: fc.integer({ min: 1, max: 4 }), bytes: fc.nat(1500) }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("overwrite" as const), back: fc.nat(5) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("truncate" as const), back: fc.nat(5) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("meta" as const),
      key: fc.constantFrom("term", "vote"),
      value: fc.string({ maxLength: 5 }),
    }),
  },
  { weight: 7, arbitrary: fc.record({ kind: fc.constant("advance" as const), steps: fc.integer({ min: 1, max: 25 }) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("snapshot" as const), back: fc.nat(4) }) },
  { weight: 1, arbitrary: fc.constant({ kind: "close" as const }) },
  { weight: 1, arbitrary: fc.constant({ kind: "crash" as const }) },
  { weight: 1, arbitrary: fc.constant({ kind: "kill" as const }) },
);

test("whatever happens: acknowledged is recovered, and recovered is a prefix of what was persisted", async () => {
  await fc.assert(
    fc.asyncProperty(fc.nat(), fc.array(stepArbitrary, { minLength: 10, maxLength: 150, size: "max" }), async (seed, steps) => {
      const run = new Run(seed);
      await run.open();
      for (const step of steps) await run.step(step);
      await run.restart("crash");
    }),
    { numRuns: runs },
  );
}, 300_000);

class Run {
  readonly #world: DiskWorld;
  #log: Log | undefined;
  /** `states[n]` is the state after persist n of this boot; the first is what was recovered. */
  #states: State[] = [{ entries: [], meta: {} }];
  #acknowledged = 0;
  #term = 1;
  /** Greatest index of a snapshot that was reported durable, and of one that may be. */
  #snapshotDurable = 0;
  #snapshotBegun = 0;

  constructor(seed: number) {
    this.#world = new DiskWorld({ seed, settle });
  }

  async open(): Promise<void> {
    const opening = Log.open({
      disk: this.#world.disk,
      member: "a",
      cluster: "test",
      incarnation: () => this.#world.randomUint32(),
      checksum: crc32,
      limits: { segmentBytes: 4096, batchBytes: 4096 },
    });
    const { log, recovered } = await this.#world.finish(opening);
    log.listen({
      onDurable: (sequence) => {
        expect(sequence).toBeGreaterThan(this.#acknowledged);
        this.#acknowledged = sequence;
      },
      onFailed: (error) => {
        throw error;
      },
    });
    this.#log = log;
    this.#check(recovered);
  }

  async restart(how: "crash" | "kill"): Promise<void> {
    if (how === "crash") this.#world.crash();
    else this.#world.kill();
    await this.open();
  }

  async step(step: Step): Promise<void> {
    switch (step.kind) {
      case "append":
        return this.#append(step.count, step.bytes);
      case "overwrite":
        return this.#overwrite(step.back);
      case "truncate":
        return this.#truncate(step.back);
      case "meta":
        return this.#persist([{ kind: "meta", values: { [step.key]: step.value } }]);
      case "advance":
        await this.#world.advance(step.steps);
        return;
      case "snapshot":
        return this.#snapshot(step.back);
      case "close":
        await this.#world.finish((this.#log as Log).close());
        expect(this.#acknowledged).toBe(this.#states.length - 1);
        return this.restart("crash");
      case "crash":
      case "kill":
        return this.restart(step.kind);
    }
  }

  get #state(): State {
    return this.#states.at(-1) as State;
  }

  get #lastIndex(): number {
    return this.#state.entries.at(-1)?.index ?? 0;
  }

  #append(count: number, bytes: number): void {
    const operations: LogOperation[] = [];
    for (let at = 1; at <= count; at++) operations.push({ kind: "put", entry: this.#entry(this.#lastIndex + at, bytes) });
    this.#persist(operations);
  }

  #overwrite(back: number): void {
    this.#term++;
    const index = Math.max(this.#snapshotBegun + 1, this.#lastIndex - back);
    if (index <= this.#lastIndex + 1) this.#persist([{ kind: "put", entry: this.#entry(index, 20) }]);
  }

  #truncate(back: number): void {
    this.#persist([{ kind: "truncate", from: Math.max(this.#snapshotBegun + 1, this.#lastIndex - back) }]);
  }

  #snapshot(back: number): void {
    // Only what is durable is applied, and only what is applied is in a snapshot.
    const durable = this.#states[this.#acknowledged] as State;
    const index = Math.min((durable.entries.at(-1)?.index ?? 0) - back, this.#commonIndex());
    const term = this.#state.entries.find((entry) => entry.index === index)?.term;
    if (index <= this.#snapshotBegun || term === undefined || this.#snapshotBegun !== this.#snapshotDurable) return;
    this.#snapshotBegun = index;
    const content = { index, term, configuration: { voters: ["a"], learners: [] }, stampMs: index };
    const saving = (this.#log as Log).saveSnapshot({
      ...content,
      chunks: [new Uint8Array(600).fill(index), Uint8Array.of(index)],
    });
    const log = this.#log;
    void saving.then(() => {
      if (this.#log === log) this.#snapshotDurable = index;
    });
  }

  /** Up to here no persist that is under way changes an entry: committed, in a protocol's words. */
  #commonIndex(): number {
    const durable = this.#states[this.#acknowledged] as State;
    let common = Number.POSITIVE_INFINITY;
    for (const state of this.#states.slice(this.#acknowledged)) {
      const differs = durable.entries.findIndex((entry, at) => state.entries[at] !== entry);
      if (differs >= 0) common = Math.min(common, (durable.entries[differs] as LogEntry).index - 1);
    }
    return common;
  }

  #entry(index: number, bytes: number): LogEntry {
    const payload = new Uint8Array(bytes);
    for (let at = 0; at < bytes; at++) payload[at] = this.#world.randomUint32();
    return { index, term: this.#term, kind: "batch", stampMs: index / 3, payload };
  }

  #persist(operations: readonly LogOperation[]): void {
    this.#states.push(operations.reduce(apply, this.#state));
    (this.#log as Log).persist(this.#states.length - 1, operations);
  }

  #check(recovered: Recovered): void {
    const snapshot = recovered.snapshot?.index ?? 0;
    expect([this.#snapshotDurable, this.#snapshotBegun]).toContain(snapshot);
    this.#snapshotDurable = snapshot;
    this.#snapshotBegun = snapshot;
    const found = view({ entries: recovered.entries, meta: Object.fromEntries(recovered.meta) }, snapshot);
    const candidates = this.#states.slice(this.#acknowledged);
    const match = candidates.find((state) => view(state, snapshot) === found);
    expect(match, `recovered ${found}, acknowledged ${view(candidates[0] as State, snapshot)}`).toBeDefined();
    this.#states = [match as State];
    this.#acknowledged = 0;
  }
}

function apply({ entries, meta }: State, operation: LogOperation): State {
  if (operation.kind === "meta") return { entries, meta: { ...meta, ...operation.values } };
  const from = operation.kind === "put" ? operation.entry.index : operation.from;
  const kept = entries.filter((entry) => entry.index < from);
  return { entries: operation.kind === "put" ? [...kept, operation.entry] : kept, meta };
}

/** Comparable text of what a recovery can know: nothing at or below the snapshot. */
function view({ entries, meta }: State, snapshotIndex: number): string {
  const above = entries.filter((entry) => entry.index > snapshotIndex);
  const text = above.map(
    ({ index, term, stampMs, payload }) => `${index}/${term}/${stampMs}/${payload.length}/${crc32(payload)}`,
  );
  return `${text.join(" ")} ${JSON.stringify(Object.entries(meta).sort())}`;
}
